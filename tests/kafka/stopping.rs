//! Told to stop, or made to: what is done is committed, what is not is done again, and nothing hangs.

use std::time::{Duration, Instant};

use millstream::record::Rows;

use crate::harness::broker::Broker;
use crate::harness::topics;
use crate::room::{Pipeline, Room, numbered};

/// So slow that no commit comes while a test runs, unless somebody asks for it.
const NEVER: &str = "commit: {min_interval_ms: 60000, max_interval_ms: 60000, max_records: 10000000}";

#[test]
fn a_process_that_is_told_to_stop_commits_what_it_has_and_a_restart_repeats_nothing() {
    let room = Room::new("drain", 3);
    room.send(numbered(0..2_000));
    // Without transactions a repeated record would be seen twice.
    let rest = format!("delivery: at_least_once\n{NEVER}");
    let slow = Pipeline { rest: &rest, ..Pipeline::default() };
    let mut process = room.start("stopped", slow);
    let sent = || topics::count(&room.read("out")) >= 2_000;
    process.await_that("the last output", sent);
    assert_eq!(room.committed(), [-1, -1, -1], "the test shows nothing");
    let status = process.terminate();
    assert_eq!(status.code(), Some(0), "{}", room.said("stopped"));
    assert_eq!(room.committed().iter().sum::<i64>(), 2_000);
    room.send(numbered(2_000..2_100));
    room.run_well("again", Pipeline { rest: "delivery: at_least_once", ..slow });
    assert_eq!(room.numbers("out"), (0..2_100).collect::<Vec<_>>(), "each once");
}

#[test]
fn a_plugin_that_hangs_holds_up_no_stop() {
    let room = Room::new("hangs", 1);
    let mut sent = Rows::default();
    sent.push(0, 0, Some(b"k"), Some(br#"{"number":1}"#));
    room.send(sent);
    // A hanging record takes a second of fuel or so; all of these would take many minutes.
    let stage = format!("{{name: hostile, plugin: {}, limits: {{deadline_ms: 20}}}}", room.plugin("hostile"));
    let pipeline = Pipeline { stages: &stage, ..Pipeline::default() };
    let mut process = room.start("hanging", pipeline);
    process.await_that("the first commit", || room.committed() == [1]);
    let mut hanging = Rows::default();
    hanging.push(0, 0, Some(b"k"), Some(br#"{"do":"log"}"#));
    (1..2_000).for_each(|n| hanging.push(n, 0, Some(b"k"), Some(br#"{"do":"loop"}"#)));
    room.send(hanging);
    process.await_that("the batch", || room.said("hanging").contains("flood"));
    let started = Instant::now();
    let status = process.terminate();
    assert_eq!(status.code(), Some(0), "{}", room.said("hanging"));
    assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
    assert_eq!(room.committed(), [1], "the batch that hung is not counted");
    assert_eq!((topics::count(&room.read("out")), topics::count(&room.read("dead"))), (1, 0));
}

#[test]
fn a_spent_budget_stops_before_a_topic_is_diverted() {
    let room = Room::new("budget", 1);
    room.send(numbered(0..100));
    let bad = |count: i64| {
        let mut rows = Rows::default();
        (0..count).for_each(|n| rows.push(n, -1, Some(b"k"), Some(br#"{"n":"no number"}"#)));
        rows
    };
    let rest = "commit: {min_interval_ms: 0, max_interval_ms: 1, max_records: 10}";
    let pipeline = Pipeline { rest, ..Pipeline::default() };
    room.run_well("good", pipeline);
    let config = room.config("budget", pipeline);
    let text = std::fs::read_to_string(&config).expect("it was written");
    let text = text.replace("budget-dead}}}", "budget-dead}}, stop_above: 10% over 200}");
    let config = room.file("budget.yaml", text);
    let mut diverted = 0;
    // An orchestrator starts it again and again: still no topic is diverted.
    for start in ["first", "second", "third"] {
        let mut process = room.run_file(start, &config);
        // A few at a time, so that there are commits before the budget is spent.
        while process.is_running() {
            let before = room.committed();
            room.send(bad(10));
            while process.is_running() && room.committed() == before {}
        }
        assert_eq!(process.wait(Duration::from_secs(1)).code(), Some(1));
        let said = room.said(start);
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains("partition 0 of `budget-in`") && error.contains("stop_above"), "{said}");
        let before = std::mem::replace(&mut diverted, topics::count(&room.read("dead")));
        assert!(diverted - before <= 20, "{diverted} dead letters after the {start} start, {before} before");
    }
    assert!(diverted > 0, "nothing was committed before the budget was spent, the test shows nothing");
    assert_eq!(room.numbers("out"), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_freezes_in_the_middle_of_commits_takes_nothing_and_repeats_nothing() {
    // Enough that there is most often work left when the first commit is seen; where there is none, it is tried again.
    const RECORDS: i64 = 100_000;
    let mut broker = Broker::start_joint(19_730);
    let room = Room::without_topics("frozen", &broker.address(), 2);
    let names = ["in", "out", "dead"].map(|part| room.topic(part));
    topics::make(&room.brokers, &names.each_ref().map(String::as_str), 2);
    let rest = "commit: {min_interval_ms: 0, max_interval_ms: 1, max_records: 1}";
    let mut process = room.start("frozen", Pipeline { rest, ..Pipeline::default() });
    let sum = || room.committed().iter().map(|offset| offset.max(&0)).sum::<i64>();
    let mut sent = 0;
    while !room.said("frozen").contains("outcome is unknown") {
        assert!(sent < 10 * RECORDS, "no request is ever on its way:\n{}", room.said("frozen"));
        room.send(numbered(sent..sent + RECORDS));
        process.await_that("a commit", || sum() > sent);
        sent += RECORDS;
        broker.freeze();
        // What was fetched before is processed, and some request of its transaction is not answered.
        let end = Instant::now() + Duration::from_secs(12);
        while Instant::now() < end && !room.said("frozen").contains("outcome is unknown") {
            std::thread::sleep(Duration::from_millis(50));
        }
        broker.thaw();
        process.await_that("the last record", || sum() >= sent);
    }
    assert!(process.terminate().success(), "{}", room.said("frozen"));
    assert_eq!(room.numbers("out"), (0..sent).collect::<Vec<_>>(), "each once");
    drop(broker);
}
