//! What comes of a record's parts, also of one that is turned away or too large.

use std::collections::BTreeMap;

use millstream::memory::Chance;
use millstream::record::Rows;
use sha2::{Digest, Sha256};

use crate::harness::topics;
use crate::room::{FILTER, Headers, Pipeline, Room, broker, headers, reason};

/// Keys with the hashes that Kafka's own `Utils.murmur2` gives them (from its tests).
const JAVA_HASHES: [(&str, i32); 6] = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
];
const TIME_MS: i64 = 1_700_000_000_123;

type Bytes<'a> = Option<&'a [u8]>;
type Parts = (Option<Vec<u8>>, Option<Vec<u8>>, Headers);

/// Key, value and headers of all rows by their times, which are unique.
fn by_time(all: &[Rows]) -> BTreeMap<i64, Parts> {
    let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let parts = |rows: &Rows, row: usize| (own(rows.keys.get(row)), own(rows.values.get(row)), headers(rows, row));
    let rows = all.iter().flat_map(|rows| (0..rows.len()).map(move |row| (rows, row)));
    rows.map(|(rows, row)| (rows.timestamps_ms[row], parts(rows, row))).collect()
}

#[test]
fn every_part_of_a_record_survives_and_keys_go_where_java_sends_them() {
    const PARTITIONS: i32 = 5;
    let room = Room::new("survive", PARTITIONS);
    let newest = br#"{"schema_version":2,"z":1.50,"a":[1, 2]}"#;
    let mut sent = Rows::default();
    for (key, _) in JAVA_HASHES {
        sent.push(0, TIME_MS + sent.len() as i64, Some(key.as_bytes()), Some(newest));
    }
    let odd: [(Bytes<'_>, Bytes<'_>); 5] = [
        (Some(b"a tombstone"), None),
        (None, Some(b"{}")),
        (None, None),
        (Some(b""), Some(newest)),
        (Some(&[0, 0xff, 0xfe]), Some(newest)),
    ];
    for (key, value) in odd {
        sent.push(0, TIME_MS + sent.len() as i64, key, value);
    }
    let headers: [(&[u8], Bytes<'_>); 5] = [
        (b"trace", Some(b"1")),
        (b"trace", Some(b"2")),
        (b"none", None),
        (b"empty", Some(b"")),
        (b"bytes", Some(&[0, 0xff])),
    ];
    headers.iter().for_each(|(name, value)| sent.headers.push(sent.len() - 1, name, *value));
    headers.iter().rev().for_each(|(name, value)| sent.headers.push(sent.len() - 1, name, *value));
    let mut expected = by_time(std::slice::from_ref(&sent));
    room.send(sent);

    let upcast = format!("{{name: upcast, plugin: {}}}", room.plugin("upcast"));
    room.run_well("once", Pipeline { stages: &upcast, ..Pipeline::default() });
    let out = room.read("out");
    // The one record that the plugin writes to.
    expected.get_mut(&(TIME_MS + 7)).expect("sent").1 = Some(br#"{"schema_version":2,"device_type":null}"#.to_vec());
    assert_eq!(by_time(&out), expected);
    assert_eq!((topics::count(&out), topics::count(&room.read("dead"))), (expected.len(), 0));
    for (key, hash) in JAVA_HASHES {
        let partition = (hash & 0x7fff_ffff) % PARTITIONS;
        let there = out[partition as usize].keys.iter().flatten().any(|found| found == key.as_bytes());
        assert!(there, "`{key}` is not in partition {partition}");
    }
}

#[test]
fn a_dead_letter_is_the_record_byte_for_byte_with_headers_that_say_why() {
    let room = Room::new("reasons", 1);
    let mut sent = Rows::default();
    sent.push(0, TIME_MS, Some(&[0, 0xff]), Some(b"{\"user_id\": 1,\xff\x00"));
    sent.headers.push(0, b"trace", Some(b"1"));
    sent.headers.push(0, b"trace", None);
    sent.headers.push(0, b"bytes", Some(&[0xff]));
    sent.push(1, TIME_MS + 1, None, Some(b" {\"user_id\":-7, \"country\":\"DE\"} "));
    sent.push(2, TIME_MS + 2, Some(b"k"), Some(b"{\"user_id\":7,\"country\":\"DE\"}"));
    let original = sent.clone();
    room.send(sent);
    let component = room.plugin("validate");
    let validate = format!("{{name: check, plugin: {component}, config: {{blocked_countries: [XX]}}}}");
    room.run_well("once", Pipeline { stages: &validate, ..Pipeline::default() });

    let dead = room.read("dead").remove(0);
    assert_eq!((dead.len(), topics::count(&room.read("out"))), (2, 1));
    let digest: String =
        Sha256::digest(std::fs::read(component).expect("a file")).iter().map(|byte| format!("{byte:02x}")).collect();
    for (row, code, message) in [(0, "invalid_json", ""), (1, "negative_user_id", "user_id is -7")] {
        assert_eq!(dead.keys.get(row), original.keys.get(row));
        assert_eq!(dead.values.get(row), original.values.get(row));
        assert_eq!(dead.timestamps_ms[row], original.timestamps_ms[row]);
        let originals = headers(&original, row);
        assert_eq!(headers(&dead, row)[..originals.len()], originals[..], "its own headers come first");
        let found = reason(&dead, row);
        let found_message = found["__connect.errors.exception.message"].clone();
        assert!(found_message.contains(message) && !found_message.is_empty(), "{found_message}");
        let offset = row.to_string();
        let expected = [
            ("__connect.errors.exception.message", found_message.as_str()),
            ("__connect.errors.offset", &offset),
            ("__connect.errors.partition", "0"),
            ("__connect.errors.topic", "reasons-in"),
            ("millstream.dlq.attempt", "1"),
            ("millstream.dlq.code", code),
            ("millstream.dlq.pipeline", "reasons"),
            ("millstream.dlq.plugin", &digest),
            ("millstream.dlq.stage", "check"),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        assert_eq!(found, expected);
        assert_eq!(headers(&dead, row).len(), originals.len() + expected.len(), "each once");
    }
}

/// A record with number `n` and as many bytes or a few more, which no compression makes much smaller.
fn sized(n: &str, bytes: usize) -> Vec<u8> {
    let mut chance = Chance::new(bytes as u64 + n.parse().unwrap_or(0));
    let fill: String = (0..bytes).map(|_| char::from(b'0' + chance.below(75) as u8)).filter(|c| *c != '\\').collect();
    format!("{{\"n\":{n},\"fill\":\"{fill}{}\"}}", "x".repeat(bytes - fill.len())).into_bytes()
}

/// A room in which the two written topics take other sizes than Kafka's default, where they are given.
fn room_of_sizes(name: &str, out: Option<&str>, dead: Option<&str>) -> Room {
    let room = Room::without_topics(name, &broker().address(), 1);
    topics::make(&room.brokers, &[&room.topic("in")], 1);
    for (part, bytes) in [("out", out), ("dead", dead)] {
        let config: Vec<_> = bytes.iter().map(|bytes| ("max.message.bytes", *bytes)).collect();
        topics::make_with(&room.brokers, &[&room.topic(part)], 1, &config);
    }
    room
}

#[test]
fn an_output_too_large_for_its_topic_is_one_whole_dead_letter_and_the_stream_goes_on() {
    let room = room_of_sizes("too-large", Some("20000"), None);
    let large = sized("1", 30_000);
    let mut sent = Rows::default();
    sent.push(0, TIME_MS, Some(b"k"), Some(&sized("0", 10)));
    sent.push(1, TIME_MS, Some(b"k"), Some(&large));
    // None of these is too large, but a batch of all of them is.
    (2..60).for_each(|n| sent.push(n, TIME_MS, Some(b"k"), Some(&sized(&n.to_string(), 4_000))));
    // Small in bytes, and large by what its headers cost beside them.
    sent.push(60, TIME_MS, Some(b"k"), Some(&sized("60", 10)));
    (0..1_000).for_each(|_| sent.headers.push(60, b"h", Some(b"v")));
    room.send(sent);
    room.run_well("once", Pipeline::default());
    // A second run finds nothing to do: the offsets moved with the rest.
    room.run_well("again", Pipeline::default());
    let expected: Vec<i64> = (0..60).filter(|&n| n != 1).collect();
    let mut out = room.numbers("out");
    out.retain(|&n| n != 60);
    assert_eq!(out, expected);
    let dead = room.read("dead").remove(0);
    assert_eq!(dead.values.get(0), Some(&large[..]), "the dead letters' topic takes it whole");
    let found = reason(&dead, 0);
    assert_eq!(
        (found["millstream.dlq.code"].as_str(), found.get("millstream.dlq.cut.bytes")),
        ("record_too_large", None)
    );
    assert_eq!(topics::count(&room.read("out")) + dead.len(), 61, "each once");
}

#[test]
fn a_dead_letter_too_large_for_its_topic_is_cut_and_no_output_with_it() {
    let room = room_of_sizes("cut", None, Some("10000"));
    let (good, bad) = (sized("0", 50_000), sized("\"no number\"", 50_000));
    let mut sent = Rows::default();
    sent.push(0, TIME_MS, Some(b"k0"), Some(&good));
    sent.push(1, TIME_MS, Some(b"k1"), Some(&bad));
    sent.headers.push(1, b"trace", Some(b"kept"));
    sent.headers.push(1, b"large", Some(&[b'h'; 20_000]));
    sent.headers.push(1, b"none", None);
    room.send(sent);
    room.run_well("once", Pipeline { stages: FILTER, ..Pipeline::default() });
    let out = room.read("out").remove(0);
    assert_eq!(out.values.get(0), Some(&good[..]), "another topic's limit is not this one's");
    let dead = room.read("dead").remove(0);
    assert_eq!((out.len(), dead.len()), (1, 1));
    let value = dead.values.get(0).expect("a beginning");
    assert!(value.len() > 1_000 && bad.starts_with(value), "{} bytes are left", value.len());
    assert_eq!(dead.keys.get(0), Some(&b"k1"[..]));
    let kept = [("trace".to_owned(), Some(b"kept".to_vec())), ("none".to_owned(), None)];
    assert_eq!(headers(&dead, 0)[..2], kept, "the headers that fit");
    let found = reason(&dead, 0);
    let missing = bad.len() - value.len() + "large".len() + 20_000;
    assert_eq!(found["millstream.dlq.cut.bytes"], missing.to_string());
    let at = ["topic", "partition", "offset"].map(|part| found[&format!("__connect.errors.{part}")].clone());
    assert_eq!(at, ["cut-in", "0", "1"], "they lead to the whole");
}
