//! Tables that are topics, on a real broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millstream::kafka::{Admin, Connection, Producer, ProducerSettings, Route};
use millstream::record::Rows;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::harness::broker::{Broker, shared};
use crate::harness::http::{address, await_some, get, value};
use crate::harness::process::Millstream;
use crate::harness::topics::{self, Filler};
use crate::line::{Folder, Line, millstream};

/// The broker that these tests share, unless `KAFKA_BROKERS` names one, and the one that is frozen.
const PORT: u16 = 19_820;
const FROZEN_PORT: u16 = 19_824;
const TIMEOUT: Duration = Duration::from_secs(30);
const COMPACTED: &[(&str, &str)] = &[("cleanup.policy", "compact")];
const LISTEN: &str = "observe: {listen: '127.0.0.1:0'}";

fn brokers() -> String {
    shared(PORT)
}

/// A topic's name that no run before this one has used.
fn topic(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// Rows of a topic: keys and values, of which none is a tombstone.
fn rows(of: &[(Option<&str>, Option<&str>)]) -> Rows {
    let mut rows = Rows::default();
    for (key, value) in of {
        rows.push(0, -1, key.map(str::as_bytes), value.map(str::as_bytes));
    }
    rows
}

fn city(city: &str) -> String {
    json!({"city": city}).to_string()
}

/// A pipeline from a pipe, with a table of the topic `name`.
fn pipeline(folder: &Folder, name: &str, brokers: &str, more: &str, no_match: &str) -> PathBuf {
    folder.pipeline(
        &format!("  users: {{kafka: {{brokers: '{brokers}', topic: {name}, key: record}}{more}}}"),
        &format!("  - {{name: add, join: {{table: users, on: /id, no_match: {no_match}, columns: {{city: /city}}}}}}"),
        LISTEN,
    )
}

struct Metrics(SocketAddr);

impl Metrics {
    fn of(folder: &Folder) -> Self {
        Self(address(&folder.0, "run", "observe"))
    }

    fn table(&self, name: &str) -> f64 {
        let name = format!("millstream_lookup_table_{name}");
        value(&get(self.0, "/metrics"), &name, &["table=\"users\""]).unwrap_or(f64::NAN)
    }

    #[track_caller]
    fn await_table(&self, name: &str, expected: f64) {
        await_some(&format!("{name} {expected}"), || (self.table(name) == expected).then_some(()));
    }
}

#[test]
fn a_compacted_topic_is_read_as_a_whole_and_kept_current() {
    let (brokers, name) = (brokers(), topic("joins-current"));
    topics::make_with(&brokers, &[&name], 3, COMPACTED);
    let mut filler = Filler::new(&brokers, &name);
    let mut dice = Dice(77);
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    let mut fill = |count: u64, model: &mut BTreeMap<String, String>| {
        let mut rows = Rows::default();
        for _ in 0..count {
            let (key, city) = (format!("user-{}", dice.roll(500)), format!("city-{}", dice.roll(50)));
            let gone = dice.roll(5) == 0;
            rows.push(0, -1, Some(key.as_bytes()), (!gone).then_some(self::city(&city)).as_ref().map(|v| v.as_bytes()));
            if gone {
                model.remove(&key)
            } else {
                model.insert(key, city)
            };
        }
        filler.send(rows);
    };
    fill(5_000, &mut model);
    let folder = Folder::new("current");
    let mut line = Line::start(&folder, &pipeline(&folder, &name, &brokers, "", "null"));
    let check = |line: &mut Line, model: &BTreeMap<String, String>| {
        for user in (0..520).step_by(13) {
            let key = format!("user-{user}");
            let found = line.send(&json!({"id": key}).to_string());
            assert_eq!(found["city"], json!(model.get(&key)), "{key}\n{}", line.log());
        }
    };
    check(&mut line, &model);
    let metrics = Metrics::of(&folder);
    assert_eq!([metrics.table("rows"), metrics.table("loads_total")], [model.len() as f64, 1.0]);
    let mut changes = 0;
    for count in [1, 1, 2, 300, 2_000] {
        fill(count, &mut model);
        changes += count;
        metrics.await_table("changes_total", changes as f64);
        metrics.await_table("rows", model.len() as f64);
        check(&mut line, &model);
    }
    // Lag is asked for every few seconds, and told for each partition.
    metrics.await_table("lag_records", 0.0);
    assert_eq!([metrics.table("stale"), metrics.table("failures_total")], [0.0, 0.0]);
    assert_eq!(line.end(), 0);
}

#[test]
fn no_record_is_taken_before_the_table_has_what_was_committed_behind_an_open_transaction() {
    let (brokers, name) = (brokers(), topic("joins-open"));
    topics::make_with(&brokers, &[&name], 1, COMPACTED);
    let mut producer = Producer::new(ProducerSettings::new(Connection::new(brokers.as_str()), name.as_str()), TIMEOUT)
        .expect("a producer");
    let topic = producer.topic(&name, TIMEOUT).expect("the topic");
    producer.begin().expect("a transaction");
    producer.produce(topic, &Route::Partition(0), rows(&[(Some("1"), Some(&city("never")))])).expect("taken");
    await_some("the open record", || {
        producer.pump(Duration::from_millis(10)).expect("it is sent");
        (topics::written(&brokers, &name) == 1).then_some(())
    });
    Filler::new(&brokers, &name).send(rows(&[(Some("1"), Some(&city("Graz"))), (Some("2"), Some(&city("Linz")))]));
    let folder = Folder::new("open");
    let mut line = Line::start(&folder, &pipeline(&folder, &name, &brokers, "", "reject"));
    // It waits, and says for what.
    await_some("its word", || line.log().contains(&format!("{name}[0] is read up to 0 of 3")).then_some(()));
    producer.abort(TIMEOUT).expect("it is aborted");
    assert_eq!(line.send(r#"{"id": 1}"#)["city"], "Graz");
    assert_eq!(line.send(r#"{"id": 2}"#)["city"], "Linz");
    let dead = line.send(r#"{"id": 3}"#);
    assert_eq!((&dead["reason"]["code"], &dead["reason"]["stage"]), (&json!("no_match"), &json!("add")));
    assert_eq!(dead["reason"]["message"], "table `users` has no row for the key \"3\"");
    assert_eq!(line.end(), 0);
}

#[test]
fn a_bad_row_keeps_a_run_from_starting_and_ends_one_unless_it_may_be_left_out() {
    let (brokers, name) = (brokers(), topic("joins-bad"));
    // A compacted topic takes no record without a key.
    topics::make(&brokers, &[&name], 1);
    let mut filler = Filler::new(&brokers, &name);
    filler.send(rows(&[(Some("1"), Some(&city("Graz")))]));
    let folder = Folder::new("bad-topic");
    let strict = pipeline(&folder, &name, &brokers, "", "null");
    let mut line = Line::start(&folder, &strict);
    assert_eq!(line.send(r#"{"id": 1}"#)["city"], "Graz");
    filler.send(rows(&[(Some("2"), Some("{\"city\": "))]));
    let expected = format!("table `users`: {name}[0] offset 1: the row can't be read: it is no JSON: ");
    assert_eq!(line.wait(), 1, "{}", line.log());
    assert!(line.log().contains(&expected), "{}", line.log());
    let (code, said) = millstream(&["run", &strict.to_string_lossy()], None);
    assert!(code == 1 && said.contains(&expected) && said.contains("`bad_rows: skip`"), "{said}");

    let mut line = Line::start(&folder, &pipeline(&folder, &name, &brokers, ", bad_rows: skip", "null"));
    assert_eq!(line.send(r#"{"id": 2}"#)["city"], Value::Null);
    let metrics = Metrics::of(&folder);
    assert_eq!(metrics.table("bad_rows_total"), 1.0);
    filler.send(rows(&[
        (Some("1"), Some("[]")),
        (None, None),
        (None, Some(&city("Wels"))),
        (Some("3"), Some(&city("Enns"))),
    ]));
    metrics.await_table("bad_rows_total", 4.0);
    let cities = ["1", "2", "3"].map(|id| line.send(&json!({"id": id}).to_string())["city"].clone());
    assert_eq!(cities, [json!("Graz"), Value::Null, json!("Enns")], "what can't be read changes nothing");
    assert_eq!(line.end(), 0);
}

#[test]
fn rows_are_found_by_a_field_of_theirs_too_also_in_partitions_that_are_added() {
    let (brokers, name) = (brokers(), topic("joins-field"));
    topics::make(&brokers, &[&name], 1);
    let mut filler = Filler::new(&brokers, &name);
    filler.send(rows(&[(None, Some(r#"{"user": {"id": 1}, "at": {"city": "Graz"}}"#)), (Some("1"), None)]));
    let folder = Folder::new("field");
    let pipeline = folder.pipeline(
        &format!("  users: {{kafka: {{brokers: '{brokers}', topic: {name}, key: /user/id}}, bad_rows: skip}}"),
        "  - {name: add, join: {table: users, on: /id, no_match: null, columns: {/at/city: /city}}}",
        LISTEN,
    );
    let mut line = Line::start(&folder, &pipeline);
    assert_eq!(line.send(r#"{"id": "1"}"#)["city"], "Graz");
    assert!(
        line.log().contains("a tombstone has no /user/id; `key: record` finds the row to delete"),
        "{}",
        line.log()
    );
    let metrics = Metrics::of(&folder);
    assert_eq!([metrics.table("bad_rows_total"), metrics.table("rows")], [1.0, 1.0]);

    add_partition(&brokers, &name);
    let mut producer =
        Producer::new(ProducerSettings::new(Connection::new(brokers.as_str()), ""), TIMEOUT).expect("a producer");
    let topic = producer.topic(&name, TIMEOUT).expect("the topic");
    let row = rows(&[(None, Some(r#"{"user": {"id": "2"}, "at": {"city": "Linz"}}"#))]);
    producer.produce(topic, &Route::Partition(1), row).expect("it is taken");
    producer.flush(TIMEOUT).expect("it is written");
    metrics.await_table("rows", 2.0);
    assert_eq!(line.send(r#"{"id": 2}"#)["city"], "Linz");
    assert_eq!(line.end(), 0);
}

/// Makes it two.
fn add_partition(brokers: &str, topic: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
    let client: AdminClient<rdkafka::client::DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let plans = [NewPartitions::new(topic, 2)];
    let answers = runtime.block_on(client.create_partitions(&plans, &AdminOptions::new())).expect("an answer");
    answers.into_iter().for_each(|answer| drop(answer.expect("it is added")));
    let connection = Connection::new(brokers);
    await_some("the partition", || {
        let mut admin = Admin::new(&connection).ok()?;
        let info = admin.describe_topics(&[topic], TIMEOUT).ok()?.remove(0).ok()?;
        (info.partitions == 2).then_some(())
    });
}

#[test]
fn a_topic_that_is_not_there_or_not_compacted_is_told_of() {
    let brokers = brokers();
    let folder = Folder::new("missing");
    let text = pipeline(&folder, "joins-nowhere", &brokers, "", "null");
    for args in [&["run", &text.to_string_lossy()][..], &["validate", "--connect", &text.to_string_lossy()]] {
        let (code, said) = millstream(args, None);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("table `users`: there is no topic `joins-nowhere`; create it, compacted"), "{said}");
    }
    let name = topic("joins-deleted");
    topics::make(&brokers, &[&name], 2);
    let text = pipeline(&folder, &name, &brokers, "", "null");
    let (code, said) = millstream(&["validate", "--connect", &text.to_string_lossy()], None);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("topic {name} has 2 partitions; note: ")) && said.contains("cleanup.policy delete"),
        "{said}"
    );
}

#[test]
fn a_table_whose_broker_is_away_serves_what_it_has_and_says_so() {
    let mut broker = Broker::start_joint(FROZEN_PORT);
    let (brokers, name) = (broker.address(), topic("joins-away"));
    topics::make_with(&brokers, &[&name], 2, COMPACTED);
    let mut filler = Filler::new(&brokers, &name);
    filler.send(rows(&[(Some("1"), Some(&city("Graz")))]));
    let folder = Folder::new("away");
    let mut line = Line::start(&folder, &pipeline(&folder, &name, &brokers, "", "null"));
    assert_eq!(line.send(r#"{"id": 1}"#)["city"], "Graz");
    let metrics = Metrics::of(&folder);
    broker.freeze();
    metrics.await_table("stale", 1.0);
    assert!(metrics.table("failures_total") > 0.0);
    assert_eq!(line.send(r#"{"id": 1}"#)["city"], "Graz");
    assert!(line.log().contains("table `users` stays as it is for now: "), "{}", line.log());
    broker.thaw();
    metrics.await_table("stale", 0.0);
    filler.send(rows(&[(Some("1"), Some(&city("Linz")))]));
    metrics.await_table("changes_total", 1.0);
    assert_eq!(line.send(r#"{"id": 1}"#)["city"], "Linz");
    assert_eq!(line.end(), 0);
}

#[test]
fn a_record_may_wait_for_its_row_and_no_longer_than_it_is_told() {
    let (brokers, name) = (brokers(), topic("joins-wait"));
    let of = |part: &str| format!("{name}-{part}");
    topics::make_with(&brokers, &[&name], 1, COMPACTED);
    topics::make(&brokers, &[&of("in"), &of("out")], 1);
    let folder = Folder::new("wait");
    let run = |part: &str, join: &str| {
        let text = format!(
            "pipeline: {name}\nsource: {{kafka: {{brokers: '{brokers}', topic: {name}-in, start: earliest}}}}\n\
             tables: {{users: {{kafka: {{topic: {name}, key: record}}}}}}\n\
             stages: [{{name: add, join: {{table: users, on: /id, columns: {{city: /city}}, {join}}}}}]\n\
             outputs: {{main: {{kafka: {{topic: {name}-out}}}}}}\ndead_letters: {{to: {{file: {{path: dead.ndjson}}}}}}\n\
             delivery: at_least_once\n{LISTEN}\nadmin: {{listen: '127.0.0.1:0'}}\n"
        );
        let config = folder.write("p.yaml", text);
        Millstream::start(&folder.0, part, &["run", &config.to_string_lossy()])
    };
    let mut process = run("long", "no_match: null, wait: 10m");
    Filler::new(&brokers, &of("in")).send(rows(&[(None, Some("{\"id\": null}")), (None, Some("{\"id\": 3}"))]));
    let observe = address(&folder.0, "long", "observe");
    let misses = || value(&get(observe, "/metrics"), "millstream_lookups_total", &["result=\"miss\""]);
    process.await_that("some tries", || misses().is_some_and(|misses| misses > 2.0));
    assert_eq!(topics::written(&brokers, &of("out")), 0, "nothing of the batch goes on");
    Filler::new(&brokers, &name).send(rows(&[(Some("3"), Some(&city("Linz")))]));
    process.await_that("both", || topics::written(&brokers, &of("out")) == 2);
    let out = topics::read(&brokers, &of("out"), true);
    let values: Vec<&[u8]> = out[0].values.iter().flatten().collect();
    assert_eq!(values, [&b"{\"id\": null,\"city\":null}"[..], b"{\"id\": 3,\"city\":\"Linz\"}"]);
    assert!(process.terminate().success());

    let mut process = run("short", "no_match: reject, wait: 400ms");
    Filler::new(&brokers, &of("in")).send(rows(&[(None, Some("{\"id\": 9}")), (None, Some("{\"id\": 3}"))]));
    process.await_that("the one with a row", || topics::written(&brokers, &of("out")) == 3);
    assert!(process.terminate().success());
    assert_eq!(folder.lines("dead.ndjson")[0]["reason"]["code"], "no_match");
}
