//! Rule K6: a transaction that somebody left open in a changelog hides what was committed behind it, and a restore waits for that.

use std::time::Duration;

use millstream::kafka::{Connection, Producer, ProducerSettings, Route};
use millstream::record::Rows;

use crate::harness::http::{address, await_some, get, value};
use crate::harness::topics;
use crate::quiet::Line;

const TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn a_restore_has_what_was_committed_behind_an_open_transaction() {
    let line = Line::new("open", "keyed_topic: true");
    let mut process = line.start("first");
    line.send(1_700_000_001);
    process.await_that("a state", || topics::written(&line.brokers, "open-w-changelog") > 0);
    let settings = ProducerSettings::new(Connection::new(line.brokers.as_str()), "windows-open-other");
    let mut other = Producer::new(settings, TIMEOUT).expect("a producer");
    let changelog = other.topic("open-w-changelog", TIMEOUT).expect("the topic");
    other.begin().expect("a transaction");
    let before = topics::written(&line.brokers, "open-w-changelog");
    for partition in 0..2 {
        let mut rows = Rows::default();
        rows.push(0, -1, Some(b"never"), Some(b"committed"));
        other.produce(changelog, &Route::Partition(partition), rows).expect("taken");
    }
    await_some("the open records", || {
        other.pump(Duration::from_millis(10)).expect("they are sent");
        (topics::written(&line.brokers, "open-w-changelog") >= before + 2).then_some(())
    });
    let written = topics::written(&line.brokers, "open-w-changelog");
    line.send(1_700_000_002);
    line.send(1_700_000_003);
    process.await_that("more states", || topics::written(&line.brokers, "open-w-changelog") > written);
    // What is committed at its end is behind the open records.
    assert!(process.terminate().success());

    let mut process = line.start("second");
    line.send(1_700_000_021);
    let observe = address(&line.folder, "second", "observe");
    process.await_that("a restore that waits", || {
        value(&get(observe, "/metrics"), "millstream_restore_left_records", &[]).is_some_and(|left| left > 0.0)
    });
    assert_eq!(line.rows("out").len(), 0, "no record is taken before");
    // On a slow machine its time was up, and the broker has aborted it.
    let _ = other.abort(TIMEOUT);
    process.await_that("the row", || !line.rows("out").is_empty());
    assert_eq!(line.rows("out")[0]["n"], 3);
    assert!(process.terminate().success());
}
