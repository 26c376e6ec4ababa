//! Promise: every metric of the documentation's table is there and moves when what it measures happens; lag is what Kafka's
//! own tools say; latency is what somebody measures who stands outside; a real Prometheus reads it all.

mod harness;
#[path = "metrics/windows.rs"]
mod windows;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::broker::Broker;
use harness::http::{address, ask, await_some, get, value};
use harness::process::{Millstream, folder};
use harness::topics::{self, Filler};
use millstream::kafka::{
    Admin, Connection, Consumer, ConsumerSettings, Partition, Polled, Producer, ProducerSettings, Route,
};
use millstream::metrics::{FAMILIES, Kind};
use millstream::record::Rows;

const PARTITIONS: i32 = 2;
const PORT: u16 = 19_740;
const TIMEOUT: Duration = Duration::from_secs(30);

/// What stands still in this test, and why.
const STILL: &[(&str, &str)] = &[
    ("millstream_accounting_imbalance_records", "must never move"),
    ("millstream_records_emitted", "no stage here makes records"),
    ("millstream_plugin_suspicions", "depends on how busy the machine is"),
    ("millstream_swaps", "nothing is swapped here; `tests/swap.rs` sees it move"),
    ("millstream_chain_number", "nothing is swapped here; `tests/swap.rs` sees it move"),
    ("millstream_swap_pause_seconds", "nothing is swapped here; `tests/swap.rs` sees it move"),
    ("millstream_group_mixed_partitions", "nothing is swapped here"),
    ("millstream_quality_volume_ratio", "a baseline takes five windows"),
    ("millstream_workers", "there are as many from the start"),
    ("millstream_partitions_assigned", "may have been assigned before the first look"),
    ("millstream_kafka_brokers_up", "is waited for on its own, and may have been told before the first look"),
    ("process_virtual_memory_bytes", "may stay as it is"),
    ("process_open_fds", "may stay as it is"),
    ("process_max_fds", "is fixed"),
    ("process_start_time_seconds", "is fixed"),
    ("millstream_plugin_memory_limit_bytes", "is fixed"),
];

/// A pipeline from topic to topic with a plugin that misbehaves when it is told to.
struct Stream {
    process: Millstream,
    brokers: String,
    name: &'static str,
    observe: SocketAddr,
    admin: SocketAddr,
}

impl Stream {
    fn start(broker: &Broker, name: &'static str, more: &str) -> Self {
        let folder = folder(&format!("metrics-{name}"));
        let brokers = broker.address();
        let [input, out, dead] = ["in", "out", "dead"].map(|part| format!("{name}-{part}"));
        topics::make(&brokers, &[&input, &out, &dead], PARTITIONS);
        let plugin = folder.join("hostile.wasm");
        std::fs::write(&plugin, harness::guests::guest("hostile")).expect("a plugin file");
        let text = format!(
            "pipeline: {name}\nworkers: 2\n\
             source: {{kafka: {{brokers: '{brokers}', topic: {input}, start: earliest}}}}\n\
             stages:\n  - {{name: wanted, filter: {{field: /drop, type: int64, op: ne, value: 1}}}}\n  \
             - {{name: hostile, plugin: {}, limits: {{deadline_ms: 5}}}}\n\
             outputs: {{main: {{kafka: {{topic: {out}}}}}}}\ndead_letters: {{to: {{kafka: {{topic: {dead}}}}}}}\n\
             observe: {{listen: '127.0.0.1:0', lag_exporter_names: true}}\nadmin: {{listen: '127.0.0.1:0'}}\n{more}\n",
            plugin.display(),
        );
        let file = folder.join("p.yaml");
        std::fs::write(&file, text).expect("a config file");
        let process = Millstream::start(&folder, "run", &["run", &file.to_string_lossy()]);
        let (observe, admin) = (address(&folder, "run", "observe"), address(&folder, "run", "admin"));
        Self { process, brokers, name, observe, admin }
    }

    fn topic(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    fn await_ready(&self) {
        await_some("readiness", || (ask(self.observe, "GET", "/readyz", &[], "").status == 200).then_some(()));
    }

    fn value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        value(&get(self.observe, "/metrics"), name, labels)
    }

    #[track_caller]
    fn await_value(&self, name: &str, labels: &[&str], expected: f64) {
        let mut last = None;
        let mut look = || {
            last = self.value(name, labels);
            (last == Some(expected)).then_some(())
        };
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while look().is_none() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(last, Some(expected), "{name} {labels:?}\n{}", self.process.log());
    }

    /// Sends records with these values, now.
    fn send(&self, values: &[String]) {
        let mut rows = Rows::default();
        for (i, value) in values.iter().enumerate() {
            rows.push(i as i64, now_ms(), Some(format!("key-{i}").as_bytes()), Some(value.as_bytes()));
            rows.headers.push(i, b"traceparent", Some(TRACE));
        }
        Filler::new(&self.brokers, &self.topic("in")).send(rows);
    }

    /// Each partition's lag as Kafka's tools count it: its end less what the group has committed.
    fn lag_by_kafka(&self) -> Vec<Option<i64>> {
        let admin = Admin::new(&Connection::new(self.brokers.as_str())).expect("an admin client");
        let places: Vec<Partition> =
            (0..PARTITIONS).map(|partition| Partition::new(self.topic("in"), partition)).collect();
        let committed = admin.group_offsets(self.name, &places, TIMEOUT).expect("the group's offsets");
        let end = |place| admin.watermarks(place, TIMEOUT).expect("a partition's end").1;
        places.iter().zip(committed).map(|(place, committed)| Some(end(place) - committed?.offset)).collect()
    }

    fn lag_by_us(&self) -> Vec<Option<i64>> {
        let text = get(self.observe, "/metrics");
        let of = |partition: i32| {
            let label = format!("partition=\"{partition}\"");
            value(&text, "millstream_consumer_lag_records", &[&label]).map(|lag| lag as i64)
        };
        (0..PARTITIONS).map(of).collect()
    }
}

const TRACE: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as i64
}

fn records(count: usize, body: &str) -> Vec<String> {
    (0..count).map(|i| format!("{{\"number\": {i}, \"at\": {}{body}}}", now_ms())).collect()
}

#[test]
fn every_metric_is_there_and_moves_and_lag_is_what_kafka_says() {
    let broker = Broker::start(PORT);
    let quality = "quality: {sample: 1, window_s: 1, event_time: {field: /at, encoding: epoch_ms}, \
                   freshness_p95_max_s: 90, stall_after_s: 300, volume_deviation: 90%, fields: {/number: 1%}}";
    let stream = Stream::start(&broker, "move", quality);
    stream.await_ready();
    let before = get(stream.observe, "/metrics");
    all_moves(&stream, &before);
    headers_pass(&stream);
    lag_agrees(&stream);
    dead_brokers_are_seen(stream, broker);
}

/// Does everything that is measured, and looks for a change of each metric.
fn all_moves(stream: &Stream, before: &str) {
    stream.send(&records(100, ""));
    stream.send(&records(7, ", \"drop\": 1"));
    for order in ["reject", "trap", "bomb", "loop", "stack", "huge"] {
        stream.send(&records(1, &format!(", \"do\": \"{order}\"")));
    }
    stream.send(&["no json".to_owned()]);
    stream.await_value("millstream_records_in_total", &[], 114.0);
    // The data turn stale, one of their fields goes, and another comes.
    let old = |i| format!("{{\"at\": {}, \"late\": {i}}}", now_ms() - 600_000);
    stream.send(&(0..100).map(old).collect::<Vec<_>>());
    for (outcome, count) in [("forwarded", 200.0), ("filtered", 7.0), ("dead_lettered", 7.0), ("folded", 0.0)] {
        stream.await_value("millstream_records_total", &[&format!("outcome=\"{outcome}\"")], count);
    }
    for kind in ["trap", "memory", "deadline", "stack", "bad_output"] {
        // A transaction that is aborted has its records processed again, and their faults with them.
        let label = format!("kind=\"{kind}\"");
        let moved = || stream.value("millstream_plugin_faults_total", &[&label]).is_some_and(|faults| faults >= 1.0);
        await_some("a fault", || moved().then_some(()));
    }
    for (reason, stage) in [("as_told", "hostile"), ("plugin_trap", "hostile"), ("invalid_json", "wanted")] {
        let labels = [format!("reason=\"{reason}\""), format!("stage=\"{stage}\"")];
        stream.await_value("millstream_dead_letters_total", &[&labels[0], &labels[1]], 1.0);
    }
    for check in ["freshness", "null_rate"] {
        stream.await_value("millstream_quality_breached", &[&format!("check=\"{check}\"")], 1.0);
    }
    stream.await_value("millstream_accounting_imbalance_records", &[], 0.0);
    // Statistics of the Kafka clients come every five seconds.
    await_some("connections", || stream.value("millstream_kafka_brokers_up", &[]).filter(|up| *up > 0.0));
    await_some("drift", || stream.value("millstream_quality_drift_total", &["new"]).filter(|drift| *drift > 0.0));
    let after = get(stream.observe, "/metrics");
    let lines = |text: &str, name: &str| -> BTreeSet<String> {
        let own = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        text.lines().filter(own).map(str::to_owned).collect()
    };
    // `tables.rs`, `joins.rs` and `metrics/windows.rs` see theirs move.
    let elsewhere = [
        "millstream_quality_volume_ratio",
        "millstream_late_windows",
        "millstream_unfinished_windows",
        "millstream_restore_left_records",
        "millstream_pairs",
        "millstream_unmatched_records",
    ];
    for family in FAMILIES.iter().filter(|family| {
        let prefixes = ["millstream_table_", "millstream_window_", "millstream_lookup"];
        !elsewhere.contains(&family.name) && !prefixes.iter().any(|prefix| family.name.starts_with(prefix))
    }) {
        let name = match family.kind {
            Kind::Histogram => format!("{}_count", family.name),
            _ => family.sample_name(),
        };
        let (before, after) = (lines(before, &name), lines(&after, &name));
        assert!(!after.is_empty(), "{name} is not there");
        let later = ["lag", "queue", "paused", "kafka_errors", "ready", "stall"].iter().any(|part| name.contains(part));
        let still = STILL.iter().any(|(known, _)| *known == family.name) || family.kind == Kind::Info || later;
        assert!(still || before != after, "{name} does not move: {before:?}");
    }
    let open = ask(stream.observe, "GET", "/metrics", &["Accept: application/openmetrics-text"], "").body;
    assert!(open.contains("# UNIT millstream_end_to_end_latency_seconds seconds") && open.ends_with("# EOF\n"));
}

/// Headers go along as they are, those of tracing too.
fn headers_pass(stream: &Stream) {
    let out = topics::read(&stream.brokers, &stream.topic("out"), true);
    assert_eq!(topics::count(&out), 200);
    for rows in &out {
        for row in 0..rows.len() {
            let found = rows.headers.get(row).find(|(name, _)| *name == b"traceparent");
            assert_eq!(found, Some((&b"traceparent"[..], Some(TRACE))));
        }
    }
}

/// Lag while nothing is taken, while a transaction is open in the topic, and when all is done.
fn lag_agrees(stream: &Stream) {
    let agree = |what: &str, wanted: i64| {
        await_some(what, || {
            let (ours, kafkas) = (stream.lag_by_us(), stream.lag_by_kafka());
            (ours == kafkas && kafkas.iter().flatten().sum::<i64>() == wanted).then_some(())
        });
    };
    agree("no lag", 0);
    assert_eq!(stream.value("millstream_consumer_lag_seconds", &[]), Some(0.0));
    assert_eq!(ask(stream.admin, "POST", "/v1/pause", &["Content-Type: application/json"], "").status, 200);
    stream.await_value("millstream_paused", &[], 1.0);
    stream.send(&records(50, ""));
    agree("a lag of 50", 50);
    let lag_s =
        await_some("time lag", || stream.value("millstream_consumer_lag_seconds", &[]).filter(|lag| *lag > 1.0));
    assert!(lag_s < 120.0, "{lag_s}");
    let theirs = stream.value("kafka_consumergroup_group_lag", &["group=\"move\"", "cluster_name=\""]);
    assert_eq!(theirs, Some(50.0), "under the other name too");
    let committed = stream.value("millstream_records_in_total", &[]);
    assert_eq!(ask(stream.admin, "POST", "/v1/resume", &["Content-Type: application/json"], "").status, 200);
    agree("no lag any more", 0);
    assert_eq!(stream.value("millstream_records_in_total", &[]), committed.map(|records| records + 50.0));

    // Records of a transaction that is open are behind for Kafka's tools, though nobody may read them yet.
    let mut settings = ProducerSettings::new(Connection::new(stream.brokers.as_str()), "open");
    settings.linger = Duration::ZERO;
    let mut producer = Producer::new(settings, TIMEOUT).expect("a producer");
    let topic = producer.topic(&stream.topic("in"), TIMEOUT).expect("the topic");
    producer.begin().expect("a transaction");
    let mut rows = Rows::default();
    (0..5).for_each(|i| rows.push(i, now_ms(), None, Some(b"{\"number\": 1}")));
    producer.produce(topic, &Route::Partition(0), rows).expect("rows are taken");
    agree("a lag of 5", 5);
    producer.abort(TIMEOUT).expect("it is aborted");
    // The marker of the abort is behind the records, and passed with them.
    agree("no lag at the end", 0);
}

/// Nobody answers any more: readiness goes, and the errors are counted.
fn dead_brokers_are_seen(mut stream: Stream, broker: Broker) {
    let errors = stream.value("millstream_kafka_errors_total", &[]);
    drop(broker);
    await_some("not ready", || (ask(stream.observe, "GET", "/readyz", &[], "").status == 503).then_some(()));
    assert_eq!(get(stream.observe, "/livez"), "ok\n");
    await_some("errors", || (stream.value("millstream_kafka_errors_total", &[]) > errors).then_some(()));
    assert!(stream.process.is_running(), "{}", stream.process.log());
}

#[test]
fn latency_is_what_somebody_outside_measures_and_a_real_prometheus_reads_it() {
    let broker = Broker::start(PORT + 4);
    let stream = Stream::start(&broker, "latency", "commit: {min_interval_ms: 100, max_interval_ms: 300}");
    stream.await_ready();
    let prometheus = Prometheus::start(stream.observe);
    let mut outside = send_and_time(&stream, 2_000);
    outside.sort_unstable();
    let p95_outside = outside[outside.len() * 95 / 100] as f64 / 1e3;
    stream.await_value("millstream_end_to_end_latency_seconds_count", &[], outside.len() as f64);
    let status: serde_json::Value = serde_json::from_str(&get(stream.admin, "/v1/status")).expect("JSON");
    let p95 = status["latency_p95_seconds"].as_f64().expect("a latency");
    // A reader sees a record a little after its commit; buckets are wider than that.
    let agree = (p95 - p95_outside).abs() <= 0.5 * p95_outside.max(p95) + 0.02;
    assert!(agree && p95 > 0.02, "{p95} s by us, {p95_outside} s from outside");
    assert_eq!(status["records"]["imbalance"], 0);
    prometheus.check(outside.len());
    assert!(stream.process.terminate().success());
}

/// Sends records one by one and returns, in milliseconds, when each could be read after it was made.
fn send_and_time(stream: &Stream, count: usize) -> Vec<i64> {
    let mut consumer =
        Consumer::new(&ConsumerSettings::new(Connection::new(stream.brokers.as_str()), "")).expect("a consumer");
    let place = |partition| Partition::new(stream.topic("out"), partition).at(0);
    consumer.assign(&(0..PARTITIONS).map(place).collect::<Vec<_>>()).expect("partitions");
    let brokers = stream.brokers.clone();
    let input = stream.topic("in");
    let sending = std::thread::spawn(move || {
        let mut filler = Filler::new(&brokers, &input);
        for i in 0..count as i64 {
            let mut rows = Rows::default();
            rows.push(i, now_ms(), Some(format!("{i}").as_bytes()), Some(b"{\"number\": 1}"));
            filler.send(rows);
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    let (mut times, mut polled) = (Vec::new(), Polled::default());
    let end = std::time::Instant::now() + Duration::from_secs(120);
    while times.len() < count {
        assert!(std::time::Instant::now() < end, "{} of {count} came\n{}", times.len(), stream.process.log());
        consumer.poll(Duration::from_millis(20), 1_000, &mut polled);
        let now = now_ms();
        for batch in &polled.batches {
            times.extend(batch.rows.timestamps_ms.iter().map(|made| now - made));
        }
    }
    sending.join().expect("all are sent");
    times
}

/// A real Prometheus with the rules of deploy/.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let folder = folder("metrics-prometheus");
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
        let config = std::fs::read_to_string(deploy.join("prometheus.yml")).expect("its configuration");
        let config = config.replace("localhost:9464", &target.to_string()).replace(": 15s", ": 1s");
        let config = config.replace("rules/", &format!("{}/rules/", deploy.display()));
        let (file, log) = (folder.join("prometheus.yml"), folder.join("prometheus.log"));
        std::fs::write(&file, config).expect("a file");
        // The port is free now; nobody else is likely to take it within a moment.
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("a free port");
        let output = || std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .expect("prometheus runs; `cargo xtask doctor` says how to get it");
        Self { child, address, log }
    }

    fn ask(&self, path: &str) -> String {
        let connected = std::net::TcpStream::connect(self.address).is_ok();
        if connected { ask(self.address, "GET", path, &["Connection: close"], "").body } else { String::new() }
    }

    /// The target is up and parsed, what it says has arrived, and every rule could be evaluated.
    fn check(&self, records: usize) {
        let said = || std::fs::read_to_string(&self.log).unwrap_or_default();
        let wanted = format!("\"{records}\"");
        await_some("the records in Prometheus", || {
            self.ask("/api/v1/query?query=sum(millstream_records_in_total)").contains(&wanted).then_some(())
        });
        let targets = self.ask("/api/v1/targets");
        assert!(targets.contains("\"health\":\"up\"") && targets.contains("\"lastError\":\"\""), "{targets}");
        await_some("a recorded p95", || {
            let p95 = self.ask("/api/v1/query?query=millstream:end_to_end_latency_seconds:p95");
            (p95.contains("\"pipeline\":\"latency\"") && !p95.contains("NaN")).then_some(())
        });
        let rules = self.ask("/api/v1/rules");
        assert!(
            rules.contains("MillstreamAccountingOff") && !rules.contains("\"health\":\"err\""),
            "{rules}\n{}",
            said()
        );
        assert!(!said().contains("level=error"), "{}", said());
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
