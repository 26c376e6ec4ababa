//! Where a group begins, and topics that are not there.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use millstream::kafka::{Connection, Partition, Producer, ProducerSettings, Route};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::harness::topics;
use crate::room::{Pipeline, Room, TIMEOUT, broker, numbered};

const EARLIEST: &str = "start: earliest, on_out_of_range: earliest";

fn source(source: &str) -> Pipeline<'_> {
    Pipeline { source, ..Pipeline::default() }
}

/// Deletes the records before `offset` of the room's partition, as retention does.
fn delete_before(room: &Room, offset: i64) {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &room.brokers).create().expect("an admin client");
    let mut to = TopicPartitionList::new();
    to.add_partition_offset(&room.topic("in"), 0, Offset::Offset(offset)).expect("an offset");
    let options = AdminOptions::new();
    let mut deleting = pin!(client.delete_records(&to, &options));
    let end = Instant::now() + TIMEOUT;
    // The client completes it on a thread of its own.
    while deleting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        assert!(Instant::now() < end, "the records are not deleted");
        std::thread::sleep(Duration::from_millis(10));
    }
    let first = room.admin().watermarks(&Partition::new(room.topic("in"), 0), TIMEOUT).expect("the broker answers").0;
    assert_eq!(first, offset);
}

fn set_group(room: &Room, offset: i64) {
    let to = [Partition::new(room.topic("in"), 0).at(offset)];
    room.admin().set_group_offsets(&room.name, &to, TIMEOUT).expect("nobody is in the group");
}

#[test]
fn a_group_without_offsets_has_to_be_told_where_to_begin() {
    let room = Room::new("unsaid", 1);
    room.send(numbered(0..3));
    let (code, said) = room.run("unsaid", source("protocol: classic"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("unsaid-in/0: the group has no offset yet"), "{said}");
    assert!(said.contains("source.kafka.start: earliest"), "{said}");

    // The end counts from when it was first asked for: what comes while nobody runs is not skipped.
    room.run_well("latest", source("start: latest"));
    room.send(numbered(3..5));
    room.run_well("latest-again", source("start: latest"));
    assert_eq!(room.numbers("out"), [3, 4]);
    // The start is for groups that have none.
    room.run_well("earliest", source("start: earliest"));
    assert_eq!(room.numbers("out"), [3, 4]);
}

#[test]
fn a_group_can_begin_at_a_time() {
    let room = Room::new("time", 1);
    let mut sent = numbered(0..6);
    // 2023-11-14T22:13:20Z and the seconds after it.
    sent.timestamps_ms = (0..6).map(|n| 1_700_000_000_000 + n * 1_000).collect();
    room.send(sent);
    room.run_well("time", source("start: \"2023-11-14T22:13:24Z\""));
    assert_eq!(room.numbers("out"), [4, 5]);
}

#[test]
fn offsets_that_are_gone_stop_the_pipeline_or_are_skipped_in_words() {
    let room = Room::new("gone", 1);
    room.send(numbered(0..10));
    set_group(&room, 2);
    delete_before(&room, 5);
    let (code, said) = room.run("stops", source("start: earliest"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("at offset 2, but the broker's first record is at 5: 3 offsets are gone"), "{said}");
    assert!(said.contains("on_out_of_range: earliest"), "{said}");
    let said = room.run_well("goes-on", source(EARLIEST));
    assert!(said.contains("3 offsets are gone before they were read; going on at 5"), "{said}");
    assert_eq!(room.numbers("out"), [5, 6, 7, 8, 9]);
}

#[test]
fn offsets_that_vanish_under_a_running_pipeline_do_the_same() {
    for (name, on_lost, expected) in [("stop", "start: earliest", None), ("skip", EARLIEST, Some([0, 5, 6]))] {
        let room = Room::new(&format!("vanish-{name}"), 1);
        room.send(numbered(0..1));
        let mut process = room.start(name, source(on_lost));
        process.await_that("the first commit", || room.committed() == [1]);
        process.freeze();
        // Longer than a fetch waits at the broker, so that none of these records is on its way when they are deleted.
        std::thread::sleep(Duration::from_millis(500));
        room.send(numbered(1..5));
        delete_before(&room, 5);
        room.send(numbered(5..7));
        process.thaw();
        let Some(expected) = expected else {
            assert_eq!(process.wait(Duration::from_secs(60)).code(), Some(1));
            assert!(room.said(name).contains("4 offsets are gone"), "{}", room.said(name));
            continue;
        };
        process.await_that("the last commit", || room.committed() == [7]);
        assert!(process.terminate().success());
        assert_eq!(room.numbers("out"), expected);
    }
}

#[test]
fn a_group_beyond_the_end_stops_instead_of_waiting_for_the_topic_to_grow() {
    let room = Room::new("beyond", 1);
    room.send(numbered(0..10));
    set_group(&room, 25);
    let (code, said) = room.run("stops", source("start: earliest"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("at offset 25, but the partition ends at 10"), "{said}");
    room.run_well("goes-on", source(EARLIEST));
    assert_eq!(room.numbers("out"), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_transaction_that_is_open_does_not_make_a_group_seem_beyond_the_end() {
    let room = Room::new("open", 1);
    room.send(numbered(0..3));
    let settings = ProducerSettings::new(Connection::new(&*room.brokers), "open-elsewhere");
    let mut producer = Producer::new(settings, TIMEOUT).expect("a producer");
    let topic = producer.topic(&room.topic("in"), TIMEOUT).expect("a topic");
    producer.begin().expect("a transaction");
    producer.produce(topic, &Route::Partition(0), numbered(3..6)).expect("room");
    producer.flush(TIMEOUT).expect("they are written");
    // Readers of committed records see an end of 3.
    set_group(&room, 6);
    let mut process = room.start("waits", source("start: latest"));
    let member = || room.admin().group_state(&room.name, TIMEOUT).is_ok_and(|group| group.members == 1);
    process.await_that("the member", member);
    producer.commit(TIMEOUT).expect("a commit");
    room.send(numbered(6..8));
    // The transaction's marker takes offset 6.
    process.await_that("the last commit", || room.committed() == [9]);
    assert!(process.terminate().success());
    assert_eq!(room.numbers("out"), [6, 7]);
}

#[test]
fn topics_that_are_missing_are_named_or_made() {
    let room = Room::without_topics("missing", &broker().address(), 3);
    let plain = Pipeline::default();
    let creating = Pipeline { rest: "create_topics: true", ..plain };
    let (code, said) = room.run("no-input", creating);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("topic `missing-in`: there is no such topic"), "{said}");

    topics::make(&room.brokers, &[&room.topic("in")], 3);
    room.send(numbered(0..10));
    for name in ["missing-out", "missing-dead"] {
        let (code, said) = room.run("no-output", plain);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("topic `{name}`: there is no such topic")), "{said}");
    }
    let (code, said) = room.command("validate-plain", &["validate", &room.config("plain", plain), "--connect"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = room.command("validate", &["validate", &room.config("made", creating), "--connect"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("missing-out") && said.contains("is not there; a run makes it"), "{said}");

    room.run_well("makes", creating);
    assert_eq!(room.numbers("out"), (0..10).collect::<Vec<_>>());
    let described = room.admin().describe_topics(&[&room.topic("out"), &room.topic("dead")], TIMEOUT);
    let partitions: BTreeMap<String, i32> = described
        .expect("the broker answers")
        .into_iter()
        .map(|topic| topic.map(|topic| (topic.name, topic.partitions)).expect("it is there"))
        .collect();
    assert_eq!(partitions.into_values().collect::<Vec<_>>(), [3, 3], "as many as the source has");
    let (code, said) = room.command("validate-again", &["validate", &room.config("made", creating), "--connect"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("a run makes it"), "{said}");
}
