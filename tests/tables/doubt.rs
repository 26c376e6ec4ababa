//! Blocks of which nobody knows whether they are there: each way to find out, and to see that it is needed.

use std::time::Duration;

use millstream::kafka::{Admin, Connection, Partition};

use super::line::{LINEAGE, Line, WINDOW, brokers};
use super::number;
use crate::harness::clickhouse as server;
use crate::harness::http::await_some;

/// All inserts of a test's table are answered for by nothing, although they are done.
fn lose_answers(line: &Line) {
    server::fault(&line.url, &format!("mode=drop&count=1000000&match=INTO `{}`", line.name));
}

/// Has a block go in without an answer, kills the process, and has more records wait for the next one.
fn crash_in_doubt(line: &mut Line, more: &str) {
    lose_answers(line);
    line.send(100, number);
    let process = line.start("one", "crashed", more);
    await_some("the block", || (line.number("SELECT count() FROM $.t") > 0).then_some(()));
    process.kill();
    server::fault(&line.url, &format!("mode=clear&match=INTO `{}`", line.name));
    line.send(100, number);
}

#[test]
fn a_block_that_was_sent_is_made_again_as_it_was_planned() {
    let mut line = Line::new("planned", 1, &format!("n UInt64, {LINEAGE}"));
    crash_in_doubt(&mut line, "");
    line.finish("");
    assert_eq!(line.rows(), (200, 200));
    // Without the plan the next process makes another block of the same records, under another token.
    let mut line = Line::new("unplanned", 1, &format!("n UInt64, {LINEAGE}"));
    crash_in_doubt(&mut line, "delivery: at_least_once");
    line.finish("delivery: at_least_once");
    assert!(line.rows().0 > 200, "the test can't fail");
}

#[test]
fn without_a_memory_of_tokens_rows_double_and_exactly_once_is_refused() {
    let mut line = Line::new("tokenless", 1, &format!("n UInt64, {LINEAGE}"));
    line.sql("ALTER TABLE $.t MODIFY SETTING non_replicated_deduplication_window = 0");
    line.send(10, number);
    let mut process = line.start("one", "refused", "");
    assert!(!process.wait(Duration::from_secs(30)).success(), "it begins");
    assert!(process.log().contains("MODIFY SETTING non_replicated_deduplication_window"), "{}", process.log());
    assert_eq!(line.rows().0, 0);
    server::fault(&line.url, &format!("mode=error&count=1&match=INTO `{}`", line.name));
    line.finish("delivery: at_least_once");
    assert_eq!(line.rows(), (20, 10), "the test of tokens can't fail");
}

#[test]
fn a_column_that_was_widened_since_loses_and_doubles_nothing() {
    let mut line = Line::new("widened", 1, &format!("n UInt8, {LINEAGE}"));
    // From 256 on numbers do not fit, at first.
    line.send(200, number);
    crash_in_doubt(&mut line, "");
    line.sql("ALTER TABLE $.t MODIFY COLUMN n UInt32");
    line.finish("");
    let dead = line.dead().len() as u64;
    assert_eq!(line.rows(), (line.sent() - dead, line.sent() - dead));
    assert_eq!(dead, 44, "those of the block that was planned before, and no others");
}

#[test]
fn a_view_that_throws_stops_the_block_and_doubles_nothing() {
    let mut line = Line::new("thrower", 1, &format!("n UInt64, {LINEAGE}"));
    line.sql(&format!("CREATE TABLE $.out (n UInt64) ENGINE = MergeTree ORDER BY n {WINDOW}"));
    line.sql("CREATE MATERIALIZED VIEW $.v TO $.out AS SELECT n + throwIf(n = 50) AS n FROM $.t");
    line.send(100, number);
    let process = line.start("one", "run", "flush_interval: 100ms");
    let why = await_some("the complaint", || {
        let status = line.status("run");
        status["tables"][0]["why"].as_str().map(str::to_owned)
    });
    assert!(why.contains("thrower.v"), "{why}");
    let retries = || line.status("run")["tables"][0]["retries"].as_u64();
    await_some("more tries", || retries().filter(|retries| *retries > 4));
    line.sql("DROP VIEW $.v");
    line.sql("CREATE MATERIALIZED VIEW $.v TO $.out AS SELECT n FROM $.t");
    await_some("the commit", || (line.status("run")["tables"][0]["rows"] == 100).then_some(()));
    assert_eq!(line.rows(), (100, 100));
    assert!(process.terminate().success());
}

#[test]
fn a_memory_that_ends_is_made_up_for_by_the_rows_themselves() {
    let mut line = Line::new("forgot", 1, &format!("n UInt64, {LINEAGE}"));
    line.sql("ALTER TABLE $.t MODIFY SETTING non_replicated_deduplication_window = 4");
    crash_in_doubt(&mut line, "");
    for other in 0..10 {
        line.sql(&format!("INSERT INTO $.t SELECT {other}, 'other', 0, {other}"));
    }
    line.finish("");
    assert_eq!(line.number("SELECT count() FROM $.t WHERE _topic != 'other'"), 200);
}

#[test]
fn where_nothing_tells_the_output_stops_and_says_so() {
    let mut line = Line::new("blind", 1, "n UInt64");
    line.sql("ALTER TABLE $.t MODIFY SETTING non_replicated_deduplication_window = 4");
    crash_in_doubt(&mut line, "");
    for other in 0..10 {
        line.sql(&format!("INSERT INTO $.t SELECT {}", 1_000 + other));
    }
    let process = line.start("one", "stopped", "");
    let why = await_some("the stop", || {
        let status = line.status("stopped");
        (status["tables"][0]["state"] == "stopped").then(|| status["tables"][0]["why"].to_string())
    });
    assert!(why.contains("offsets 0 to 99") && why.contains("millstream offsets reset"), "{why}");
    assert_eq!(line.number("SELECT count() FROM $.t WHERE n < 1000"), 100, "nothing is guessed");
    assert!(process.log().contains("Nothing more is inserted from this partition"), "{}", process.log());
    assert!(!process.terminate().success(), "it says that not all is done");
}

#[test]
fn a_topic_made_anew_is_not_mistaken_for_the_old_one() {
    let mut line = Line::new("anew", 1, &format!("n UInt64, {LINEAGE}"));
    line.send(100, number);
    line.finish("");
    let admin = Admin::new(&Connection::new(brokers())).expect("an admin client");
    admin.delete_topics(&["tables-anew-in"], Duration::from_secs(10)).expect("deleted");
    await_some("its end", || {
        admin.topics(Duration::from_secs(5)).ok()?.iter().all(|(name, _)| name != "tables-anew-in").then_some(())
    });
    crate::harness::topics::make(&brokers(), &["tables-anew-in"], 1);
    let place = Partition::new("tables-anew-in", 0);
    admin.set_group_offsets("tables-anew", &[place.at(0)], Duration::from_secs(10)).expect("set back");
    let mut again = line.again();
    again.send(100, number);
    again.finish("");
    assert_eq!(again.rows().0, 200, "other records at the same offsets");
}

#[test]
fn a_partition_that_is_revoked_in_the_middle_of_an_insert_goes_on_elsewhere() {
    let mut line = Line::new("revoked", 4, &format!("n UInt64, {LINEAGE}"));
    server::fault(&line.url, "mode=error&count=1000&match=INTO `revoked`");
    line.send(2_000, number);
    let first = line.start("one", "first", "flush_interval: 100ms");
    await_some("tries", || (line.rows().0 > 0).then_some(()));
    let second = line.start("two", "second", "flush_interval: 100ms");
    await_some("the second's share", || {
        let parts = |run| line.status(run)["tables"][0]["partitions"].as_array().map_or(0, Vec::len);
        (parts("first") == 2 && parts("second") == 2).then_some(())
    });
    server::fault(&line.url, "mode=clear&match=INTO `revoked`");
    line.send(2_000, number);
    await_some("all rows", || (line.rows().1 == 4_000).then_some(()));
    assert!(first.terminate().success() && second.terminate().success());
    line.finish("");
    assert_eq!(line.rows(), (4_000, 4_000));
}
