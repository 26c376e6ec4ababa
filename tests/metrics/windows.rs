//! What windows hold, how far they are, and what a restore still has to read: on both levels, in metrics, status and log.

use std::time::Duration;

use millstream::kafka::{Connection, Partition, Producer, ProducerSettings, Route};
use millstream::record::Rows;

use super::{TIMEOUT, now_ms};
use crate::harness::broker::shared;
use crate::harness::guests::guest;
use crate::harness::http::{Answer, address, ask, await_some, get, value};
use crate::harness::process::{Millstream, folder};
use crate::harness::topics::{self, Filler};

const PORT: u16 = 19_748;
const PARTITIONS: i32 = 2;
/// How far behind the clock the events lie.
const BEHIND_S: i64 = 1_000;

struct Windows {
    brokers: String,
    name: String,
    process: Millstream,
    observe: std::net::SocketAddr,
    admin: std::net::SocketAddr,
}

impl Windows {
    /// Sessions of users at one level; overlapping windows of countries over two.
    fn start(brokers: &str, name: &str, run: &str) -> Self {
        let folder = folder(&format!("metrics-windows-{run}"));
        let plugin = folder.join("broken.wasm");
        std::fs::write(&plugin, guest("hostile-aggregate")).expect("a plugin file");
        let side = "key: [/country], time: {field: /t, encoding: epoch_ms}";
        let text = format!(
            "pipeline: {name}\nworkers: 1\n\
             source: {{kafka: {{brokers: '{brokers}', topic: {name}-in, start: earliest}}}}\n\
             stages:\n  - name: users\n    window: {{time: {{field: /t, encoding: epoch_ms}}, key: [/user], session: 10m, \
             keyed_topic: true, forward: true, aggregate: {{n: count}}, output: main}}\n  \
             - name: countries\n    window: {{time: {{field: /t, encoding: epoch_ms}}, key: [/country], \
             hopping: {{size: 20s, every: 10s}}, forward: true, aggregate: {{n: count}}, output: main}}\n  \
             - name: twins\n    pair: {{left: {{when: {{field: /user, type: text, op: in, value: [u0, u2]}}, {side}}}, \
             right: {{{side}}}, within: 5s, keyed_topic: true, forward: true, output: main}}\n  \
             - name: broken\n    window: {{time: {{field: /t, encoding: epoch_ms}}, tumbling: 10s, keyed_topic: true, \
             aggregate: {{plugin: {}}}, output: main}}\n\
             outputs: {{main: {{discard: }}}}\ndead_letters: {{to: {{discard: }}}}\n\
             observe: {{listen: '127.0.0.1:0', lag_exporter_names: true}}\nadmin: {{listen: '127.0.0.1:0'}}\n",
            plugin.display()
        );
        let file = folder.join("p.yaml");
        std::fs::write(&file, text).expect("a config file");
        let process = Millstream::start(&folder, "run", &["run", &file.to_string_lossy()]);
        let (observe, admin) = (address(&folder, "run", "observe"), address(&folder, "run", "admin"));
        Self { brokers: brokers.to_owned(), name: name.to_owned(), process, observe, admin }
    }

    fn ready(&self) -> Answer {
        ask(self.observe, "GET", "/readyz", &[], "")
    }

    fn await_ready(&self) {
        await_some(&format!("readiness\n{}", self.process.log()), || (self.ready().status == 200).then_some(()));
    }

    fn value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        value(&get(self.observe, "/metrics"), name, labels)
    }

    /// Sends one record for each time, in seconds, to partition 0.
    fn send(&self, times_s: &[i64], base_ms: i64) {
        let mut rows = Rows::default();
        for (i, time_s) in times_s.iter().enumerate() {
            let t = base_ms + time_s * 1_000;
            // The first window's row can't be made.
            let order = if i == 0 { "later finish trap" } else { "" };
            let text =
                format!("{{\"t\": {t}, \"user\": \"u{i}\", \"country\": \"DE\", \"number\": 1, \"do\": \"{order}\"}}");
            rows.push(i as i64, now_ms(), Some(b"same"), Some(text.as_bytes()));
        }
        Filler::new(&self.brokers, &format!("{}-in", self.name)).send(rows);
    }

    #[track_caller]
    fn await_value(&self, name: &str, labels: &[&str], wanted: f64) {
        let found = || self.value(name, labels).filter(|found| *found == wanted);
        await_some(&format!("{name} {labels:?} {wanted}\n{}", self.process.log()), found);
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&get(self.admin, "/v1/status")).expect("JSON")
    }
}

const USERS: &[&str] = &["stage=\"users\"", "level=\"1\""];
const FIRST: &[&str] = &["stage=\"countries\"", "level=\"1\""];
const SECOND: &[&str] = &["stage=\"countries\"", "level=\"2\""];

#[test]
fn windows_and_restores_are_seen_on_both_levels() {
    let brokers = shared(PORT);
    let name = format!("seen-{}", now_ms());
    topics::make(&brokers, &[&format!("{name}-in")], PARTITIONS);
    let windows = Windows::start(&brokers, &name, "first");
    windows.await_ready();
    assert_eq!(windows.value("millstream_window_keys", USERS), Some(0.0));
    assert_eq!(windows.value("millstream_late_windows_total", FIRST), Some(0.0));
    // A full ten seconds, so that it is known which windows a record is in.
    let base_ms = now_ms() / 10_000 * 10_000 - BEHIND_S * 1_000;
    // The last record comes too late for the window that ends at 10 s, and is in the one that ends at 20 s.
    windows.send(&[5, 12, 17, 6], base_ms);
    windows.await_value("millstream_window_keys", USERS, 4.0);
    windows.await_value("millstream_late_windows_total", FIRST, 1.0);
    windows.await_value("millstream_unfinished_windows_total", &["stage=\"broken\""], 1.0);
    let bytes = windows.value("millstream_window_state_bytes", USERS).expect("it is there");
    assert!(bytes > 4.0 * 20.0, "{bytes}");
    // Of the times 5 and 17 of the left side only the second has one of the right side near it; the last record is late.
    let twins = "stage=\"twins\"";
    windows.await_value("millstream_pairs_total", &[twins], 1.0);
    let lonely = ["left", "right"]
        .map(|side| windows.value("millstream_unmatched_records_total", &[twins, &format!("side=\"{side}\"")]));
    assert_eq!(lonely, [Some(1.0), Some(0.0)]);
    let delay = |labels: &[&str]| windows.value("millstream_window_watermark_delay_seconds", labels);
    let expected = (now_ms() - (base_ms + 17_000)) as f64 / 1e3;
    for labels in [USERS, FIRST] {
        let found = delay(labels).expect("a delay");
        assert!((found - expected).abs() < 20.0 && found > BEHIND_S as f64 - 20.0, "{found} s, {expected} s expected");
    }
    // The other partition has no watermark yet, and who merges waits for it: by that alone can it be told.
    await_some("merged states", || windows.value("millstream_window_keys", SECOND).filter(|keys| *keys > 0.0));
    assert_eq!(delay(SECOND), None);
    let partials = format!("topic=\"{name}-countries-partials\"");
    windows.await_value("millstream_consumer_lag_records", &[&partials], 0.0);
    let theirs = windows.value("kafka_consumergroup_group_lag", &[&format!("group=\"{name}-countries\"")]);
    assert_eq!(theirs, Some(0.0));
    windows.await_value("millstream_restore_left_records", &[], 0.0);
    let status = windows.status();
    let users = &status["stages"][0]["windows"][0];
    assert_eq!((&users["level"], &users["keys"]), (&"1".into(), &4.into()), "{status}");
    let watermark = millstream::config::rfc3339_ms(users["watermark"].as_str().expect("a time"));
    assert_eq!(watermark, Some(base_ms + 17_000), "{status}");
    assert_eq!(status["stages"][1]["windows"][1]["level"], "2", "{status}");
    assert!(windows.process.terminate().success());
    restores_are_seen(&brokers, &name);
}

/// Somebody's open transaction hides the end of the changelogs: the restore waits, and everybody is told.
fn restores_are_seen(brokers: &str, name: &str) {
    let mut producer = Producer::new(ProducerSettings::new(Connection::new(brokers), format!("{name}-open")), TIMEOUT)
        .expect("a producer");
    let changelogs = ["users-changelog", "countries-merged-changelog"].map(|topic| format!("{name}-{topic}"));
    let held = changelogs.each_ref().map(|topic| held_partition(brokers, topic));
    let ids = changelogs.each_ref().map(|topic| producer.topic(topic, TIMEOUT).expect("the changelog"));
    producer.begin().expect("a transaction");
    for (id, partition) in ids.into_iter().zip(held) {
        let mut rows = Rows::default();
        rows.push(0, now_ms(), Some(b"somebody's"), Some(b"record"));
        producer.produce(id, &Route::Partition(partition), rows).expect("rows are taken");
    }
    producer.flush(TIMEOUT).expect("rows are written");
    let windows = Windows::start(brokers, name, "again");
    let said = await_some("a restore that waits", || {
        let ready = windows.ready();
        (ready.status == 503 && ready.body.contains("states are being restored")).then_some(ready.body)
    });
    assert_eq!(said, "states are being restored\n");
    let left = |topic: &str| windows.value("millstream_restore_left_records", &[&format!("topic=\"{name}-{topic}\"")]);
    for topic in ["in", "countries-partials"] {
        await_some(topic, || left(topic).filter(|left| *left >= 1.0));
    }
    let status = windows.status();
    assert!(status["restoring"]["records_left"].as_u64() >= Some(2), "{status}");
    assert_eq!(status["why"], "states are being restored", "{status}");
    let told = || windows.process.log().matches("restoring: ").count();
    let (before, started) = (told(), std::time::Instant::now());
    await_some("progress in the log", || (told() >= before + 2).then_some(()));
    let seconds = started.elapsed().as_secs() as usize;
    assert!(told() - before <= seconds + 2, "{} lines in {seconds} s", told() - before);
    producer.abort(TIMEOUT).expect("it is aborted");
    windows.await_ready();
    windows.await_value("millstream_restore_left_records", &[], 0.0);
    assert_eq!(windows.status()["restoring"], serde_json::Value::Null);
    windows.await_value("millstream_window_keys", USERS, 4.0);
    assert!(windows.value("millstream_window_keys", SECOND) > Some(0.0));
    assert!(windows.process.terminate().success());
}

/// A partition of a changelog that holds states.
fn held_partition(brokers: &str, topic: &str) -> i32 {
    let admin = millstream::kafka::Admin::new(&Connection::new(brokers)).expect("an admin client");
    let end = |partition| admin.watermarks(&Partition::new(topic, partition), Duration::from_secs(30)).expect("ends").1;
    (0..PARTITIONS).find(|&partition| end(partition) > 0).expect("one has states")
}
