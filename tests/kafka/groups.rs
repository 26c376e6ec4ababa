//! Members of a group come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::process::Millstream;
use crate::harness::topics::{self, Filler};
use crate::room::{Pipeline, Room, TIMEOUT, numbered};

/// How many members the group has, once it has settled.
fn members(room: &Room) -> usize {
    let group = room.admin().group_state(&room.name, TIMEOUT);
    group.ok().filter(|group| group.state == "Stable").map_or(0, |group| group.members)
}

/// Writes records in number until it is told to stop, and returns how many there are.
fn send_until(room: &Room, over: &AtomicBool) -> i64 {
    let mut filler = Filler::new(&room.brokers, &room.topic("in"));
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        filler.send(numbered(sent..sent + 20));
        sent += 20;
        std::thread::sleep(Duration::from_millis(10));
    }
    sent
}

/// Looks at the group's offsets all the time: one that goes back was committed by somebody who had given its partition up.
fn watch_offsets(room: &Room, over: &AtomicBool) -> usize {
    let (mut last, mut looks) = (room.committed(), 0);
    while !over.load(Ordering::Relaxed) {
        let now = room.committed();
        assert!(now.iter().zip(&last).all(|(now, last)| now >= last), "offsets go back: {last:?}, then {now:?}");
        (last, looks) = (now, looks + 1);
        std::thread::sleep(Duration::from_millis(20));
    }
    looks
}

/// Lets members come and go while records flow, and compares what went in with what came out.
fn come_and_go(protocol: &str) {
    let room = Room::new(&format!("members-{protocol}"), 4);
    let source = format!("start: earliest, protocol: {protocol}");
    // Commits are slow on purpose, so that a rebalance finds transactions open.
    let rest = "workers: 2\ncommit: {min_interval_ms: 300, max_interval_ms: 500}";
    let pipeline = Pipeline { source: &source, rest, ..Pipeline::default() };
    let over = AtomicBool::new(false);
    let await_members = |process: &mut Millstream, count: usize| {
        process.await_that(&format!("a group of {count}"), || members(&room) == count);
        let moved = room.committed().iter().sum::<i64>() + 40;
        process.await_that("progress", || room.committed().iter().sum::<i64>() > moved);
    };
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_until(&room, &over));
        let watching = scope.spawn(|| watch_offsets(&room, &over));
        let mut first = room.start("first", pipeline);
        await_members(&mut first, 2);
        let mut second = room.start("second", pipeline);
        await_members(&mut second, 4);
        assert!(first.terminate().success(), "{}", room.said("first"));
        await_members(&mut second, 2);
        let mut third = room.start("third", pipeline);
        await_members(&mut third, 4);
        third.kill();
        assert!(second.terminate().success(), "{}", room.said("second"));
        over.store(true, Ordering::Relaxed);
        assert!(watching.join().expect("offsets never go back") > 10, "nobody watched");
        sending.join().expect("all is sent")
    });
    room.run_well("last", pipeline);
    assert_eq!(room.numbers("out"), (0..sent).collect::<Vec<_>>(), "each once");
}

#[test]
fn members_of_the_classic_protocol_come_and_go_and_nothing_is_lost_or_repeated() {
    come_and_go("classic");
}

#[test]
fn members_of_the_consumer_protocol_come_and_go_and_nothing_is_lost_or_repeated() {
    come_and_go("consumer");
}

#[test]
fn a_member_that_gets_nothing_stalls_nobody_and_takes_over() {
    for protocol in ["classic", "consumer"] {
        let room = Room::new(&format!("spare-{protocol}"), 1);
        let source = format!("start: earliest, protocol: {protocol}");
        let pipeline = Pipeline { source: &source, ..Pipeline::default() };
        let mut next = 0;
        let mut flows = |process: &mut Millstream| {
            for _ in 0..5 {
                room.send(numbered(next..next + 10));
                next += 10;
                process.await_that("the next records", || room.committed() == [next]);
            }
        };
        let mut first = room.start("first", pipeline);
        flows(&mut first);
        let mut second = room.start("second", pipeline);
        second.await_that("the second member", || members(&room) == 2);
        flows(&mut first);
        assert!(first.terminate().success(), "{}", room.said("first"));
        let started = Instant::now();
        flows(&mut second);
        // The one that left said so: nobody waits for its session to end.
        assert!(started.elapsed() < Duration::from_secs(20), "taken over after {:?}", started.elapsed());
        assert!(second.terminate().success(), "{}", room.said("second"));
        assert_eq!(room.numbers("out"), (0..next).collect::<Vec<_>>(), "each once");
        assert_eq!(topics::count(&room.read("dead")), 0);
    }
}
