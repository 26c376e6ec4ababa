//! Records of two topics, with different keys and numbers of partitions, that are to meet: every pair once, and everything that is
//! in none, whatever is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream::memory::Chance;
use millstream::record::Rows;
use serde_json::Value;

use crate::harness::broker::{Broker, shared};
use crate::harness::process::{Millstream, folder, long};
use crate::harness::topics::{self, Filler};

const PORT: u16 = 19_876;
const SHARED_PORT: u16 = 19_820;
const WITHIN_MS: i64 = 5_000;
const DISORDER_MS: i64 = 3_000;
const DAY_MS: i64 = 86_400_000;

struct Size {
    records: i64,
    records_per_second: i64,
    kills: usize,
}

#[test]
fn every_pair_of_two_topics_is_made_once_whatever_is_killed() {
    let size = match long() {
        true => Size { records: 200_000, records_per_second: 2_000, kills: 10 },
        false => Size { records: 6_000, records_per_second: 400, kills: 4 },
    };
    let broker = Broker::start(PORT);
    let brokers = broker.address();
    let folder = folder("windows-pairs");
    topics::make(&brokers, &["p-events"], 4);
    topics::make(&brokers, &["p-orders"], 3);
    topics::make(&brokers, &["p-pairs", "p-lonely", "p-orphans", "p-dead"], 2);
    let configs = ["first", "second"].map(|instance| {
        let file = folder.join(format!("{instance}.yaml"));
        std::fs::write(&file, config(&brokers, instance, ONCE)).expect("a config file");
        file.to_string_lossy().into_owned()
    });
    let over = AtomicBool::new(false);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let (over, brokers, size) = (&over, &brokers, &size);
        let filling = scope.spawn(move || fill(brokers, size, over));
        break_things(&broker, size, &folder, &configs);
        over.store(true, Ordering::Relaxed);
        filling.join().expect("the topics are filled");
    });
    let mut last = Millstream::start(&folder, "last", &["run", &configs[0], "--until-end"]);
    let status = last.wait(Duration::from_secs(180));
    assert!(status.success(), "the last run fails:\n{}", last.log());
    let read = |topic: &str| topics::read(&brokers, topic, true);
    let (events, orders) = (read("p-events"), read("p-orders"));
    let expected = Expected::of(&events, &orders);
    assert_same("pairs", &read("p-pairs"), expected.pairs);
    assert_same("lonely", &read("p-lonely"), expected.lonely);
    assert_same("orphans", &read("p-orphans"), expected.orphans);
    assert_same("dead", &read("p-dead"), expected.dead);
    // With the isolation off the same rows come twice: the test can fail.
    let of = |committed| -> usize {
        let topics = [
            "p-pairs",
            "p-lonely",
            "p-orphans",
            "p-dead",
            "p-both-partials",
            "p-both-merged-changelog",
            "p-once-changelog",
        ];
        topics.iter().map(|topic| topics::count(&topics::read(&brokers, topic, committed))).sum()
    };
    assert!(of(false) > of(true), "no kill ever hit an open transaction: the test shows nothing");
    let records = topics::count(&events) + topics::count(&orders);
    eprintln!("pairs: {records} records, {} kills in {:.0?}", size.kills, started.elapsed());
}

/// One instance that is killed again and again, one that comes and goes, and a broker that crashes.
fn break_things(broker: &Broker, size: &Size, folder: &Path, configs: &[String; 2]) {
    let start = |at: usize| Millstream::start(folder, ["first", "second"][at], &["run", &configs[at]]);
    let mut chance = Chance::new(size.records as u64);
    let (mut first, mut second) = (start(0), None);
    for kill in 0..size.kills {
        let written = |topic: &str| topics::written(&broker.address(), topic);
        let before = written("p-both-merged-changelog");
        first.await_that("a commit", || written("p-both-merged-changelog") > before + 50);
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
        let rows = written("p-pairs");
        first.await_that("pairs", || written("p-pairs") > rows);
        first.kill();
        first = start(0);
    }
    first.kill();
}

/// Copies come in the partition of the first, of either topic.
const ONCE: &str = "
  - name: once
    deduplicate: {time: record, key: [/n], within: 1h}";

fn config(brokers: &str, instance: &str, once: &str) -> String {
    format!(
        "pipeline: p
instance: {instance}
workers: 2
source:
  kafka: {{brokers: \"{brokers}\", topics: [p-orders, p-events], start: earliest, properties: {{session.timeout.ms: 6000}}}}
stages:{once}
  - name: both
    pair:
      left:
        as: purchase
        topic: p-events
        when: {{field: /kind, type: text, op: eq, value: purchase}}
        key: {{order_id: /order}}
        time: {{field: /t, encoding: epoch_ms}}
        unmatched: lonely
      right:
        as: order
        topic: p-orders
        key: [/id]
        time: {{field: /made, encoding: epoch_ms}}
        unmatched: orphans
      within: {WITHIN_MS}ms
      disorder: {DISORDER_MS}ms
      output: pairs
outputs:
  main: {{discard: }}
  pairs: {{kafka: {{topic: p-pairs}}}}
  lonely: {{kafka: {{topic: p-lonely}}}}
  orphans: {{kafka: {{topic: p-orphans}}}}
dead_letters: {{to: {{kafka: {{topic: p-dead}}}}}}
delivery: exactly_once
commit: {{min_interval_ms: 150, max_interval_ms: 400}}
"
    )
}

/// Events of users, among them purchases, and orders: most of a purchase, some twice, some too far away, some alone, and some
/// whose time can't be believed or is a day back.
fn fill(brokers: &str, size: &Size, over: &AtomicBool) {
    let mut fillers = ["p-events", "p-orders"].map(|topic| Filler::new(brokers, topic));
    let mut chance = Chance::new(11);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let mut now_ms = now_ms - 3_600_000;
    let mut sent = 0;
    while sent < size.records || !over.load(Ordering::Relaxed) {
        let mut rows = [Rows::default(), Rows::default()];
        for number in sent..sent + size.records_per_second / 20 {
            now_ms += chance.below(60) as i64;
            let mut time = |spread: usize| match chance.below(300) {
                0 => now_ms - DAY_MS,
                1 => 4_070_908_800_000,
                _ => now_ms - chance.below(spread) as i64,
            };
            let (t, made) = (time(DISORDER_MS as usize / 2), time(DISORDER_MS as usize));
            let kind = if chance.below(4) == 0 { "view" } else { "purchase" };
            let (user, amount) = (chance.below(50), chance.below(1_000));
            // Most orders are of a purchase of now; some of one that lies too far back.
            let id = if chance.below(6) == 0 { number - 150 } else { number };
            let event = format!("{{\"n\":\"e{number}\",\"kind\":\"{kind}\",\"order\":\"o{number}\",\"t\":{t}}}");
            let order = format!("{{\"n\":\"o{number}\",\"id\":\"o{id}\",\"made\":{made},\"amount\":{amount}}}");
            for _ in 0..if chance.below(25) == 0 { 2 } else { 1 } {
                rows[0].push(0, -1, Some(format!("u{user}").as_bytes()), Some(event.as_bytes()));
            }
            if chance.below(10) > 0 {
                rows[1].push(0, -1, Some(format!("{number}").as_bytes()), Some(order.as_bytes()));
            }
            if chance.below(20) == 0 {
                let again = order.replace("\"n\":\"o", "\"n\":\"again");
                rows[1].push(0, -1, Some(format!("again-{number}").as_bytes()), Some(again.as_bytes()));
            }
        }
        for (filler, rows) in fillers.iter_mut().zip(rows) {
            filler.send(rows);
        }
        sent += size.records_per_second / 20;
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A record as it stands in its topic.
struct Half {
    id: String,
    time_ms: i64,
    key: String,
    text: String,
}

/// What must come out of two topics, computed from all of both at once: keys and values.
struct Expected {
    pairs: Vec<(String, String)>,
    lonely: Vec<(String, String)>,
    orphans: Vec<(String, String)>,
    dead: Vec<(String, String)>,
}

impl Expected {
    fn of(events: &[Rows], orders: &[Rows]) -> Self {
        let (mut dead, mut watermark_ms) = (Vec::new(), i64::MAX);
        let mut believed = |all: &[Rows], names: (&str, &str)| -> Vec<Half> {
            all.iter().flat_map(|rows| believe(rows, names, &mut dead, &mut watermark_ms)).collect()
        };
        let (purchases, orders) = (believed(events, ("order", "t")), believed(orders, ("id", "made")));
        let mut by_id: BTreeMap<&str, Vec<&Half>> = BTreeMap::new();
        orders.iter().for_each(|order| by_id.entry(&order.id).or_default().push(order));
        let near = |one: &Half, other: &Half| (one.time_ms - other.time_ms).abs() <= WITHIN_MS;
        let over = |half: &Half| half.time_ms + WITHIN_MS < watermark_ms;
        let as_it_came = |half: &Half| (half.key.clone(), half.text.clone());
        let (mut pairs, mut lonely, mut paired) = (Vec::new(), Vec::new(), BTreeSet::new());
        for purchase in &purchases {
            let orders = by_id.get(purchase.id.as_str()).into_iter().flatten();
            let orders: Vec<_> = orders.filter(|order| near(purchase, order)).collect();
            for order in &orders {
                let row = format!(
                    "{{\"order_id\":\"{}\",\"purchase\":{},\"order\":{}}}",
                    purchase.id, purchase.text, order.text
                );
                pairs.push((purchase.id.clone(), row));
                paired.insert(&order.text);
            }
            lonely.extend((orders.is_empty() && over(purchase)).then(|| as_it_came(purchase)));
        }
        let alone = orders.iter().filter(|order| !paired.contains(&order.text) && over(order));
        let orphans = alone.map(as_it_came).collect();
        Self { pairs, lonely, orphans, dead }
    }
}

/// The records of a partition that are of a side and that no rule turns away.
fn believe(
    rows: &Rows,
    (id, time): (&str, &str),
    dead: &mut Vec<(String, String)>,
    watermark_ms: &mut i64,
) -> Vec<Half> {
    let (mut taken, mut latest_ms, mut seen) = (Vec::new(), 0, BTreeSet::new());
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("it is there").to_vec()).expect("UTF-8");
    for (row, stamp_ms) in rows.timestamps_ms.iter().enumerate() {
        let (key, value) = (text(rows.keys.get(row)), text(rows.values.get(row)));
        let record: Value = serde_json::from_str(&value).expect("JSON");
        if record["kind"] == "view" || !seen.insert(record["n"].to_string()) {
            continue;
        }
        let time_ms = record[time].as_i64().expect("a time");
        if time_ms > latest_ms.max(*stamp_ms) + DAY_MS || time_ms < latest_ms - DISORDER_MS {
            dead.push((key, value));
            continue;
        }
        latest_ms = latest_ms.max(time_ms);
        taken.push(Half { id: record[id].as_str().expect("an id").to_owned(), time_ms, key, text: value });
    }
    *watermark_ms = latest_ms.saturating_sub(DISORDER_MS).min(*watermark_ms);
    taken
}

fn assert_same(what: &str, found: &[Rows], mut expected: Vec<(String, String)>) {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.expect("it is there")).into_owned();
    let of = |rows: &Rows| -> Vec<(String, String)> {
        (0..rows.len()).map(|row| (text(rows.keys.get(row)), text(rows.values.get(row)))).collect()
    };
    let mut found: Vec<_> = found.iter().flat_map(of).collect();
    found.sort();
    expected.sort();
    assert!(expected.len() > 20, "{what}: little to compare");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// One small pipeline over two topics of a partition each, whose silence is told after a second.
struct Small {
    brokers: String,
    folder: std::path::PathBuf,
    config: String,
}

impl Small {
    fn new() -> Self {
        let (brokers, folder) = (shared(SHARED_PORT), folder("windows-pairs-small"));
        let names = ["events", "orders", "pairs", "lonely", "orphans", "dead"].map(|part| format!("small-{part}"));
        topics::make(&brokers, &names.each_ref().map(String::as_str), 1);
        let text = config(&brokers, "small", "").replace("pipeline: p\n", "pipeline: small\n").replace("p-", "small-");
        let text = text.replace("disorder: 3000ms", "idle: 1s");
        let file = folder.join("p.yaml");
        std::fs::write(&file, text).expect("a config file");
        Self { brokers, config: file.to_string_lossy().into_owned(), folder }
    }

    fn send(&self, part: &str, key: &str, value: &str) {
        let mut rows = Rows::default();
        rows.push(0, -1, Some(key.as_bytes()), Some(value.as_bytes()));
        Filler::new(&self.brokers, &format!("small-{part}")).send(rows);
    }

    fn read(&self, part: &str) -> Rows {
        topics::read(&self.brokers, &format!("small-{part}"), true).remove(0)
    }

    fn values(&self, part: &str) -> Vec<String> {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.expect("a value")).into_owned();
        self.read(part).values.iter().map(text).collect()
    }

    /// Runs a command to its end; its exit code and what it said.
    fn run(&self, name: &str, args: &[&str]) -> (Option<i32>, String) {
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "FILE" { self.config.as_str() } else { arg }).collect();
        let mut process = Millstream::start(&self.folder, name, &args);
        (process.wait(Duration::from_secs(60)).code(), process.log())
    }
}

const FIRST: &str = r#"{"kind":"purchase","order":"a","t":100000}"#;
const SECOND: &str = r#"{"kind":"purchase","order":"b","t":200000}"#;
const BEHIND: &str = r#"{"id":"c","made":120000}"#;
const MEETS: &str = r#"{"id":"b","made":201000}"#;

#[test]
fn what_wakes_too_late_says_where_it_was_read_and_all_topics_are_moved_together() {
    let small = Small::new();
    let mut running = Millstream::start(&small.folder, "run", &["run", &small.config]);
    small.send("events", "u1", FIRST);
    small.send("events", "u2", SECOND);
    // The other topic has never had a record: its owner says so, and it is not waited for.
    running.await_that("what is alone", || small.values("lonely") == [FIRST]);
    small.send("orders", "of-c", BEHIND);
    running.await_that("a dead letter", || small.read("dead").len() == 1);
    let dead = small.read("dead");
    let header = |name: &str| -> String {
        let found = dead.headers.get(0).find(|(found, _)| *found == name.as_bytes());
        String::from_utf8_lossy(found.and_then(|(_, value)| value).unwrap_or_default()).into_owned()
    };
    assert_eq!((dead.keys.get(0), dead.values.get(0)), (Some(&b"of-c"[..]), Some(BEHIND.as_bytes())));
    let place = ["topic", "partition", "offset"].map(|part| header(&format!("__connect.errors.{part}")));
    assert_eq!(place, ["small-orders", "0", "0"]);
    assert_eq!((header("millstream.dlq.code"), header("millstream.dlq.stage")), ("late".to_owned(), "both".to_owned()));
    small.send("orders", "of-b", MEETS);
    let pair = format!("{{\"order_id\":\"b\",\"purchase\":{SECOND},\"order\":{MEETS}}}");
    running.await_that("a pair", || small.values("pairs") == [pair.as_str()]);
    assert!(running.terminate().success());
    assert_eq!((small.values("lonely").len(), small.values("orphans").len()), (1, 0));

    let (code, said) = small.run("show", &["offsets", "show", "FILE"]);
    assert_eq!(code, Some(0), "{said}");
    for topic in ["small-orders", "small-events"] {
        assert!(said.contains(&format!("group small on topic {topic}")), "{said}");
    }
    let (code, said) = small.run("part", &["offsets", "reset", "FILE", "--to", "earliest", "--partition", "0"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = small.run("reset", &["offsets", "reset", "FILE", "--to", "earliest", "--execute"]);
    assert_eq!(code, Some(0), "{said}");
    // With all of both topics there from the start nothing is late, and what was has no partner.
    let (code, said) = small.run("again", &["run", "FILE", "--until-end"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(small.values("pairs"), [pair.as_str(), &pair]);
    assert_eq!((small.values("lonely"), small.values("orphans")), (vec![FIRST.to_owned(); 2], vec![BEHIND.to_owned()]));
    assert_eq!(small.read("dead").len(), 1);
}
