//! Promise: whatever is killed, and whenever, every record is answered for exactly once, in order per key, and what
//! comes out is what a plain reference computes, byte for byte.
//!
//! A real broker, real processes, `kill -9` for both. A reader of uncommitted records is seen to find duplicates.

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::broker::Broker;
use harness::process::{Millstream, folder, long};
use harness::topics::{self, Filler};
use millstream::kafka::{Admin, Connection, Consumer, ConsumerSettings, Partition, Polled};
use millstream::memory::Chance;
use millstream::record::Rows;

const PARTITIONS: i32 = 4;
const PORT: u16 = 19_700;

/// How much goes through, and what is done to it on the way.
#[derive(Clone, Copy)]
struct Chaos {
    records: usize,
    records_per_second: usize,
    kills: usize,
    broker_kills: usize,
}

#[test]
fn nothing_is_lost_or_repeated_whatever_is_killed() {
    let broker = Broker::start(PORT);
    let chaos = match long() {
        true => Chaos { records: 200_000, records_per_second: 2_000, kills: 10, broker_kills: 2 },
        false => Chaos { records: 5_000, records_per_second: 500, kills: 4, broker_kills: 1 },
    };
    let found = run("exactly", &broker, chaos);
    compare(&found);
    // With the isolation off the same answers are not unique: the test can fail.
    let uncommitted = topics::count(&topics::read(&broker.address(), "exactly-out", false));
    assert!(uncommitted > topics::count(&found.out), "no kill ever hit an open transaction: the test shows nothing");
}

/// What a rebalance does to the partitions that stay: it pauses them and lets them go on.
#[test]
fn a_pause_at_the_end_of_a_partition_skips_no_record() {
    let broker = Broker::start(PORT + 10);
    let brokers = broker.address();
    topics::make(&brokers, &["pause"], 1);
    let mut filler = Filler::new(&brokers, "pause");
    let mut send = |value: &str| {
        let mut rows = Rows::default();
        rows.push(0, -1, None, Some(value.as_bytes()));
        filler.send(rows);
    };
    let settings = ConsumerSettings::new(Connection::new(&brokers), "");
    let mut consumer = Consumer::new(&settings).expect("a consumer");
    let place = Partition::new("pause", 0);
    consumer.assign(&[place.at(0)]).expect("assigned");
    let mut polled = Polled::default();
    for number in 0..5 {
        send(&number.to_string());
        let end = Instant::now() + Duration::from_secs(20);
        let mut found = Vec::new();
        while found.is_empty() {
            assert!(Instant::now() < end, "record {number} never comes");
            consumer.poll(Duration::from_millis(100), 100, &mut polled);
            found = polled
                .batches
                .iter()
                .flat_map(|batch| batch.rows.values.iter().flatten().map(<[u8]>::to_vec))
                .collect();
        }
        assert_eq!(found, [number.to_string().into_bytes()]);
        // The end is reached, and would be reported: nothing else tells that the client knows it.
        std::thread::sleep(Duration::from_millis(300));
        consumer.poll(Duration::from_millis(200), 100, &mut polled);
        consumer.pause(std::slice::from_ref(&place)).expect("paused");
        consumer.resume(std::slice::from_ref(&place)).expect("resumed");
    }
}

/// What went in, and what a reader of committed records finds at the end.
struct Found {
    input: Vec<Rows>,
    out: Vec<Rows>,
    dead: Vec<Rows>,
}

/// Fills a topic while processes and the broker are killed, lets one process finish, and reads everything back.
fn run(name: &str, broker: &Broker, chaos: Chaos) -> Found {
    let folder = folder(&format!("delivery-{name}"));
    let brokers = broker.address();
    let [input, out, dead] = ["in", "out", "dead"].map(|part| format!("{name}-{part}"));
    topics::make(&brokers, &[&input, &out, &dead], PARTITIONS);
    let config = |instance: &str| {
        let text = config(&brokers, name, instance, &folder);
        let file = folder.join(format!("{instance}.yaml"));
        std::fs::write(&file, text).expect("a config file");
        file.to_string_lossy().into_owned()
    };
    let (first, second) = (config("first"), config("second"));
    let started = Instant::now();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (over, brokers, input) = (&over, &brokers, &input);
        let filling = scope.spawn(move || fill(brokers, input, chaos, over));
        let mut progress = Progress::new(brokers, name, input);
        break_things(broker, chaos, &folder, [&first, &second], &mut progress);
        over.store(true, Ordering::Relaxed);
        filling.join().expect("the topic is filled");
    });
    let mut last = Millstream::start(&folder, "last", &["run", &first, "--until-end"]);
    let status = last.wait(Duration::from_secs(180));
    assert!(status.success(), "the last run fails:\n{}", last.log());
    let read = |topic: &str| topics::read(&brokers, topic, true);
    let found = Found { input: read(&input), out: read(&out), dead: read(&dead) };
    eprintln!("{name}: {} records, {} kills in {:.0?}", topics::count(&found.input), chaos.kills, started.elapsed());
    found
}

/// How far a group has committed.
struct Progress {
    admin: Admin,
    group: String,
    places: Vec<Partition>,
    seen: i64,
}

impl Progress {
    fn new(brokers: &str, group: &str, topic: &str) -> Self {
        let admin = Admin::new(&Connection::new(brokers)).expect("an admin client");
        let places = (0..PARTITIONS).map(|partition| Partition::new(topic, partition)).collect();
        Self { admin, group: group.to_owned(), places, seen: 0 }
    }

    /// Waits until more is committed than when this was last asked.
    fn await_more(&mut self, process: &mut Millstream) {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let offsets = self.admin.group_offsets(&self.group, &self.places, Duration::from_secs(5));
            let sum = offsets.unwrap_or_default().iter().flatten().map(|position| position.offset).sum();
            if sum > self.seen {
                self.seen = sum;
                return;
            }
            assert!(Instant::now() < end && process.is_running(), "nothing is committed any more:\n{}", process.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Two instances of which one is killed at random moments and one comes and goes; the broker is killed in between.
fn break_things(broker: &Broker, chaos: Chaos, folder: &Path, configs: [&str; 2], progress: &mut Progress) {
    let mut chance = Chance::new(chaos.records as u64);
    let start = |instance: usize| Millstream::start(folder, ["first", "second"][instance], &["run", configs[instance]]);
    let mut first = start(0);
    let mut second: Option<Millstream> = None;
    for kill in 0..chaos.kills {
        // Only a process that is at work is worth killing.
        progress.await_more(&mut first);
        std::thread::sleep(Duration::from_millis(chance.below(1_500) as u64));
        assert!(first.is_running(), "millstream ended by itself:\n{}", first.log());
        match kill % 4 {
            0 => second = second.or_else(|| Some(start(1))),
            1 => {}
            // The second one leaves in order at one time and is killed at another.
            2 => second = second.take().and_then(|second| (kill > 4).then(|| second.kill()).and(None)),
            _ => {
                if let Some(second) = second.take() {
                    assert!(second.terminate().success(), "an orderly end fails");
                }
            }
        }
        if chaos.broker_kills > 0 && kill % (chaos.kills / chaos.broker_kills) == 2 {
            broker.crash();
        }
        first.kill();
        first = start(0);
    }
    first.kill();
}

fn config(brokers: &str, name: &str, instance: &str, folder: &Path) -> String {
    let plugin = |name: &str| {
        let file = folder.join(format!("{name}.wasm"));
        std::fs::write(&file, harness::guests::guest(name)).expect("a plugin file");
        file.display().to_string()
    };
    // Commits are slow on purpose, so that kills find transactions open; sessions are short, so that the dead are
    // missed soon.
    format!(
        "pipeline: {name}\ninstance: {instance}\ndelivery: exactly_once\nworkers: 2\n\
         source:\n  kafka:\n    brokers: \"{brokers}\"\n    topic: {name}-in\n    start: earliest\n    properties:\n      \
         session.timeout.ms: 6000\n\
         stages:\n  - {{name: validate, plugin: {}, config: {{blocked_countries: [XX, ZZ]}}}}\n  \
         - {{name: upcast, plugin: {}}}\n  - {{name: enrich, plugin: {}}}\n\
         outputs:\n  main: {{kafka: {{topic: {name}-out}}}}\n\
         dead_letters: {{to: {{kafka: {{topic: {name}-dead}}}}}}\n\
         commit: {{min_interval_ms: 800, max_interval_ms: 1500}}\n",
        plugin("validate"),
        plugin("upcast"),
        plugin("enrich"),
    )
}

/// Writes records at an even pace: as many as were asked for, and on until the chaos is over.
fn fill(brokers: &str, topic: &str, chaos: Chaos, over: &AtomicBool) {
    let mut filler = Filler::new(brokers, topic);
    let started = Instant::now();
    let mut sent = 0;
    while sent < chaos.records || !over.load(Ordering::Relaxed) {
        let due = started.elapsed().as_millis() as usize * chaos.records_per_second / 1_000;
        let mut rows = Rows::default();
        for number in sent..due {
            let (key, value) = record(number);
            rows.push(number as i64, 1_700_000_000_000 + number as i64, Some(key.as_bytes()), Some(value.as_bytes()));
        }
        sent = due;
        if !rows.is_empty() {
            filler.send(rows);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

const COUNTRIES: [&str; 8] = ["US", "CA", "UK", "DE", "FR", "JP", "XX", "ZZ"];

/// Record `number`: its key and its value, which now and then is no JSON.
fn record(number: usize) -> (String, String) {
    let mut chance = Chance::new(number as u64);
    let (user, country) = (chance.below(1_000) as i64 + 1, COUNTRIES[chance.below(COUNTRIES.len())]);
    let user = if chance.below(20) == 0 { -user } else { user };
    let device = ["", ",\"device_type\":\"mobile\"", ",\"device_type\":\"desktop\""][chance.below(3)];
    let cut = if chance.below(50) == 0 { "" } else { "}" };
    let second = 1_700_000_000 + number / 10;
    let value = format!(
        "{{\"number\":{number},\"user_id\": {user},\"country\":\"{country}\",\"timestamp\":{second}{device},\"x\":1.50{cut}"
    );
    (format!("user-{}", user.abs()), value)
}

/// Compares what came out with what a plain reference computes from what is in the topic.
fn compare(found: &Found) {
    let mut expected: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut dead: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for value in found.input.iter().flat_map(|rows| rows.values.iter().flatten()) {
        match reference(value) {
            Some(value) => *expected.entry(value).or_default() += 1,
            None => *dead.entry(value.to_vec()).or_default() += 1,
        }
    }
    same("outputs", &counts(&found.out), &expected);
    same("dead letters", &counts(&found.dead), &dead);
    // Both topics are divided by key in the same way, so that the order of each key can be compared.
    for (partition, (input, out)) in found.input.iter().zip(&found.out).enumerate() {
        let accepted = (0..input.len()).filter(|&row| input.values.get(row).and_then(reference).is_some());
        let expected: BTreeMap<&[u8], Vec<i64>> = by_key(input, accepted);
        assert_eq!(by_key(out, 0..out.len()), expected, "partition {partition}: order, keys and timestamps");
    }
}

/// Fails with the first few records that are missing or too many, not with all of them.
fn same(what: &str, found: &BTreeMap<Vec<u8>, usize>, expected: &BTreeMap<Vec<u8>, usize>) {
    let off = |value: &&Vec<u8>| found.get(*value) != expected.get(*value);
    let values: Vec<&Vec<u8>> = found.keys().chain(expected.keys()).filter(off).take(5).collect();
    let first: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
    assert!(values.is_empty(), "{what}: {} found, {} expected; off: {first:#?}", found.len(), expected.len());
}

/// The timestamps, which number the records, of each key in order.
fn by_key(rows: &Rows, which: impl Iterator<Item = usize>) -> BTreeMap<&[u8], Vec<i64>> {
    let mut keys: BTreeMap<&[u8], Vec<i64>> = BTreeMap::new();
    for row in which {
        keys.entry(rows.keys.get(row).expect("keys survive")).or_default().push(rows.timestamps_ms[row]);
    }
    keys
}

fn counts(partitions: &[Rows]) -> BTreeMap<Vec<u8>, usize> {
    let mut counts = BTreeMap::new();
    for value in partitions.iter().flat_map(|rows| rows.values.iter().flatten()) {
        *counts.entry(value.to_vec()).or_default() += 1;
    }
    counts
}

/// What the three plugins make of a record, computed the plain way; nothing where it is a dead letter.
fn reference(value: &[u8]) -> Option<Vec<u8>> {
    let record: serde_json::Value = serde_json::from_slice(value).ok()?;
    let country = record["country"].as_str()?;
    if record["user_id"].as_i64()? < 0 || ["XX", "ZZ"].contains(&country) {
        return None;
    }
    let region = match country {
        "US" | "CA" => "americas",
        "UK" | "DE" | "FR" => "europe",
        _ => "asia",
    };
    let mut out = String::from_utf8(value[..value.len() - 1].to_vec()).ok()?;
    out += ",\"schema_version\":2";
    let device = record["device_type"].as_str();
    out += if device.is_none() { ",\"device_type\":null" } else { "" };
    out += &format!(",\"region\":\"{region}\"");
    out += &device.map_or(String::new(), |device| format!(",\"is_mobile\":{}", device == "mobile"));
    let seconds = record["timestamp"].as_i64()? - 1_699_920_000;
    let (day, second) = (14 + seconds / 86_400, seconds % 86_400);
    out += &format!(
        ",\"event_time\":\"2023-11-{day:02}T{:02}:{:02}:{:02}Z\"}}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
    Some(out.into_bytes())
}
