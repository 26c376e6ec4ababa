//! Kills of processes and of the broker, rebalances, two levels, and all of it counted once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream::memory::Chance;
use millstream::record::Rows;
use serde_json::Value;

use crate::harness::broker::Broker;
use crate::harness::process::{Millstream, folder, long};
use crate::harness::topics::{self, Filler};

const PARTITIONS: i32 = 4;
const PORT: u16 = 19_850;
const GAP_S: i64 = 30;
const WINDOW_S: i64 = 10;
const DISORDER_S: i64 = 3;

struct Size {
    records: i64,
    records_per_second: i64,
    kills: usize,
}

#[test]
fn every_record_is_in_its_windows_once_whatever_is_killed() {
    let size = match long() {
        true => Size { records: 200_000, records_per_second: 2_000, kills: 10 },
        false => Size { records: 8_000, records_per_second: 500, kills: 4 },
    };
    let broker = Broker::start(PORT);
    let brokers = broker.address();
    let folder = folder("windows-chaos");
    topics::make(&brokers, &["w-in", "w-sessions", "w-countries", "w-dead"], PARTITIONS);
    let configs = ["first", "second"].map(|instance| {
        let file = folder.join(format!("{instance}.yaml"));
        std::fs::write(&file, config(&brokers, instance)).expect("a config file");
        file.to_string_lossy().into_owned()
    });
    let over = AtomicBool::new(false);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let (over, brokers, size) = (&over, &brokers, &size);
        let filling = scope.spawn(move || fill(brokers, size, over));
        break_things(&broker, size, &folder, &configs);
        over.store(true, Ordering::Relaxed);
        filling.join().expect("the topic is filled");
    });
    let mut last = Millstream::start(&folder, "last", &["run", &configs[0], "--until-end"]);
    let status = last.wait(Duration::from_secs(180));
    assert!(status.success(), "the last run fails:\n{}", last.log());
    let read = |topic: &str| topics::read(&brokers, topic, true);
    let input = read("w-in");
    let expected = Expected::of(&input);
    assert_same("sessions", &read("w-sessions"), expected.sessions);
    assert_same("countries", &read("w-countries"), expected.countries);
    assert_eq!(topics::count(&read("w-dead")) as u64, expected.dead, "dead letters");
    // With the isolation off the same rows come twice: the test can fail.
    let of = |committed| -> usize {
        let topics = ["w-sessions", "w-countries", "w-dead", "w-w-sessions-changelog", "w-w-countries-partials"];
        topics.iter().map(|topic| topics::count(&topics::read(&brokers, topic, committed))).sum()
    };
    assert!(of(false) > of(true), "no kill ever hit an open transaction: the test shows nothing");
    eprintln!("windows: {} records, {} kills in {:.0?}", topics::count(&input), size.kills, started.elapsed());
}

/// One instance that is killed again and again, one that comes and goes, and a broker that crashes.
fn break_things(broker: &Broker, size: &Size, folder: &Path, configs: &[String; 2]) {
    let start = |at: usize| Millstream::start(folder, ["first", "second"][at], &["run", &configs[at]]);
    let mut chance = Chance::new(size.records as u64);
    let (mut first, mut second) = (start(0), None);
    for kill in 0..size.kills {
        let before = topics::written(&broker.address(), "w-w-sessions-changelog");
        first.await_that("a commit", || topics::written(&broker.address(), "w-w-sessions-changelog") > before + 50);
        std::thread::sleep(Duration::from_millis(chance.below(1_500) as u64));
        match (kill % 3, second.take()) {
            (0, None) => second = Some(start(1)),
            (1, Some(running)) => drop(Millstream::terminate(running)),
            (_, other) => second = other,
        }
        if kill == size.kills / 2 {
            broker.crash();
        }
        // Rows that are written are committed a little later: in between is the moment to kill.
        let rows = topics::written(&broker.address(), "w-sessions");
        first.await_that("rows", || topics::written(&broker.address(), "w-sessions") > rows);
        first.kill();
        first = start(0);
    }
    first.kill();
}

fn config(brokers: &str, instance: &str) -> String {
    format!(
        "pipeline: w
instance: {instance}
workers: 2
source:
  kafka: {{brokers: \"{brokers}\", topic: w-in, start: earliest, properties: {{session.timeout.ms: 6000}}}}
stages:
  - name: w-sessions
    window:
      time: {{field: /t, encoding: epoch_ms}}
      key: [/user]
      session: {GAP_S}s
      disorder: {DISORDER_S}s
      keyed_topic: true
      forward: true
      late: dead_letter
      aggregate: {{n: count, spent: {{sum: /spent}}, countries: {{distinct: /country}}}}
      output: sessions
  - name: w-countries
    window:
      time: {{field: /t, encoding: epoch_ms}}
      key: [/country]
      tumbling: {WINDOW_S}s
      disorder: {DISORDER_S}s
      aggregate: {{n: count, spent: {{sum: /spent}}}}
      output: countries
outputs:
  main: {{discard: }}
  sessions: {{kafka: {{topic: w-sessions}}}}
  countries: {{kafka: {{topic: w-countries}}}}
dead_letters: {{to: {{kafka: {{topic: w-dead}}}}}}
delivery: exactly_once
commit: {{min_interval_ms: 150, max_interval_ms: 400}}
"
    )
}

/// Records of 200 users whose events mostly move on; a few can't be believed, or are a day late.
fn fill(brokers: &str, size: &Size, over: &AtomicBool) {
    let mut filler = Filler::new(brokers, "w-in");
    let mut chance = Chance::new(7);
    let mut now_ms = chrono_now_ms() - 3_600_000;
    let per_round = size.records_per_second / 10;
    let mut sent = 0;
    while sent < size.records || !over.load(Ordering::Relaxed) {
        let mut rows = Rows::default();
        for _ in 0..per_round {
            now_ms += chance.below(60) as i64;
            let user = chance.below(200);
            let country = ["DE", "US", "JP", "FR"][chance.below(4)];
            let t = match chance.below(400) {
                0 => now_ms - 86_400_000,
                1 => 4_070_908_800_000,
                2 => now_ms / 1_000,
                _ => now_ms - chance.below(DISORDER_S as usize * 1_000 / 2) as i64,
            };
            let spent = chance.below(100);
            let value = format!("{{\"t\":{t},\"user\":\"u{user}\",\"country\":\"{country}\",\"spent\":{spent}}}");
            rows.push(0, -1, Some(format!("u{user}").as_bytes()), Some(value.as_bytes()));
        }
        filler.send(rows);
        sent += per_round;
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn chrono_now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

struct Event {
    t: i64,
    user: String,
    country: String,
    spent: i64,
}

/// What must come out of a topic, computed from all of it at once.
struct Expected {
    sessions: Vec<Value>,
    countries: Vec<Value>,
    dead: u64,
}

impl Expected {
    fn of(input: &[Rows]) -> Self {
        let (mut sessions, mut all, mut dead, mut closed_ms) = (Vec::new(), Vec::new(), 0, i64::MAX);
        for rows in input {
            let (taken, bad) = believed(rows);
            dead += bad;
            let latest_ms = taken.iter().map(|event| event.t).max().expect("every partition has records");
            let watermark_ms = latest_ms - DISORDER_S * 1_000;
            closed_ms = closed_ms.min(watermark_ms);
            let mut users: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
            taken.iter().for_each(|event| users.entry(&event.user).or_default().push(event));
            for (user, mut events) in users {
                events.sort_by_key(|event| event.t);
                for session in events.chunk_by(|one, other| other.t - one.t < GAP_S * 1_000) {
                    let (begin, end) = (session[0].t, session[session.len() - 1].t + GAP_S * 1_000);
                    if end <= watermark_ms {
                        let mut row = row(session, begin, end);
                        let countries: std::collections::BTreeSet<_> =
                            session.iter().map(|event| &event.country).collect();
                        row["user"] = user.into();
                        row["countries"] = countries.len().into();
                        sessions.push(row);
                    }
                }
            }
            all.extend(taken);
        }
        let mut windows: BTreeMap<(i64, &str), Vec<&Event>> = BTreeMap::new();
        let size_ms = WINDOW_S * 1_000;
        for event in &all {
            windows.entry((event.t / size_ms * size_ms, &event.country)).or_default().push(event);
        }
        let mut countries = Vec::new();
        for ((begin, country), events) in windows.iter().filter(|((begin, _), _)| begin + size_ms <= closed_ms) {
            let mut row = row(events, *begin, begin + size_ms);
            row["country"] = (*country).into();
            countries.push(row);
        }
        Self { sessions, countries, dead }
    }
}

/// The events of a partition that no rule turns away, and how many it does: too late, too far ahead, or in another unit.
fn believed(rows: &Rows) -> (Vec<Event>, u64) {
    let (mut taken, mut dead) = (Vec::new(), 0);
    let mut latest_ms = 0;
    for (value, stamp_ms) in rows.values.iter().zip(&rows.timestamps_ms) {
        let record: Value = serde_json::from_slice(value.expect("a value")).expect("JSON");
        let text = |name: &str| record[name].as_str().expect("a text").to_owned();
        let t = record["t"].as_i64().expect("a time");
        let too_far = t > stamp_ms.max(&latest_ms) + 86_400_000;
        let other_unit = t < 365 * 86_400_000;
        // A session of its own would be closed already, and no open one reaches back as far.
        if too_far || other_unit || t + GAP_S * 1_000 <= latest_ms - DISORDER_S * 1_000 {
            dead += 1;
            continue;
        }
        latest_ms = latest_ms.max(t);
        let spent = record["spent"].as_i64().expect("a number");
        taken.push(Event { t, user: text("user"), country: text("country"), spent });
    }
    (taken, dead)
}

fn row(events: &[&Event], begin: i64, end: i64) -> Value {
    serde_json::json!({
        "n": events.len(), "spent": events.iter().map(|event| event.spent).sum::<i64>(), "begin": begin, "end": end,
    })
}

fn assert_same(what: &str, found: &[Rows], mut expected: Vec<Value>) {
    let ms = |row: &Value, name: &str| {
        millstream::config::rfc3339_ms(row[name].as_str().expect("a time")).expect("a time in RFC 3339")
    };
    let normal = |value: Option<&[u8]>| {
        let mut row: Value = serde_json::from_slice(value.expect("a value")).expect("a row is JSON");
        (row["begin"], row["end"]) = (ms(&row, "window_start").into(), ms(&row, "window_end").into());
        let members = row.as_object_mut().expect("an object");
        members.retain(|name, _| !name.starts_with("window_"));
        row
    };
    let mut found: Vec<Value> = found.iter().flat_map(|rows| rows.values.iter()).map(normal).collect();
    let key = |row: &Value| row.to_string();
    found.sort_by_key(key);
    expected.sort_by_key(key);
    assert!(expected.len() > 20, "{what}: little to compare");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}
