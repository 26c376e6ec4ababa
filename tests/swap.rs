//! Promise: plugins are replaced while the stream runs, at an offset that is committed with the progress itself; nothing
//! is lost, repeated or out of order, a candidate that does harm is put back, and nothing comes in that should not.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::broker::Broker;
use harness::guests::guest;
use harness::http::{address, await_some, get, value};
use harness::process::{Millstream, folder, long};
use harness::topics::{self, Filler};
use millstream::http::{Client, ClientError};
use millstream::kafka::{Admin, Connection, Partition};
use millstream::memory::Chance;
use millstream::record::Rows;
use millstream::worker::Note;
use serde_json::Value;
use sha2::{Digest, Sha256};

const PORT: u16 = 19_760;
const PARTITIONS: i32 = 4;

/// The broker that is there for all tests, or one of these tests' own.
fn brokers() -> String {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    let given = std::env::var("KAFKA_BROKERS").ok().filter(|brokers| !brokers.is_empty());
    let start = || {
        let broker = Broker::start(PORT);
        broker.kill_at_exit();
        broker
    };
    given.unwrap_or_else(|| BROKER.get_or_init(start).address())
}

/// A version of a guest: the same code under another digest, by a custom section that nobody reads.
fn version(package: &str, number: usize) -> Vec<u8> {
    let mut bytes = guest(package);
    let text = format!("\u{7}version{number}");
    bytes.push(0);
    bytes.push(u8::try_from(text.len()).expect("short"));
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A pipeline of one stage, its topics, and its files.
struct Line {
    name: String,
    folder: PathBuf,
    plugin: PathBuf,
    config: String,
}

impl Line {
    fn new(name: &str, first: &[u8], more: &str) -> Self {
        let folder = folder(&format!("swap-{name}"));
        let plugin = folder.join("plugin.wasm");
        std::fs::write(&plugin, first).expect("a plugin file");
        let brokers = brokers();
        let [input, out, dead] = ["in", "out", "dead"].map(|part| format!("{name}-{part}"));
        topics::make(&brokers, &[&input, &out, &dead], PARTITIONS);
        let text = format!(
            "pipeline: {name}\ninstance: one\nworkers: 2\nlineage: true\n\
             source: {{kafka: {{brokers: \"{brokers}\", topic: {input}, start: earliest, properties: {{session.timeout.ms: 1500}}}}}}\n\
             outputs: {{main: {{kafka: {{topic: {out}}}}}}}\ndead_letters: {{to: {{kafka: {{topic: {dead}}}}}}}\n\
             observe: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\n{more}"
        );
        let text =
            text.replace("PLUGIN", &plugin.display().to_string()).replace("STORE", &folder.display().to_string());
        let config = folder.join("p.yaml");
        std::fs::write(&config, text).expect("a config file");
        Self { name: name.to_owned(), folder, plugin, config: config.display().to_string() }
    }

    fn start(&self, run: &str) -> Running {
        let process = Millstream::start(&self.folder, run, &["run", &self.config]);
        let (admin, observe) = (address(&self.folder, run, "admin"), address(&self.folder, run, "observe"));
        await_some("the start", || process.log().contains(" ms after the start").then_some(()));
        Running { process, admin, observe }
    }

    fn read(&self, part: &str) -> Vec<Rows> {
        topics::read(&brokers(), &format!("{}-{part}", self.name), true)
    }

    /// Processes what is left, in order, and ends.
    fn finish(&self) {
        let mut last = Millstream::start(&self.folder, "last", &["run", &self.config, "--until-end"]);
        let status = last.wait(Duration::from_secs(120));
        assert!(status.success(), "the last run fails:\n{}", last.log());
    }
}

const ONE_STAGE: &str =
    "stages: [{name: only, plugin: PLUGIN, config: {blocked_countries: [XX]}}]\nswap: {store: STORE";

struct Running {
    process: Millstream,
    admin: SocketAddr,
    observe: SocketAddr,
}

impl Running {
    fn put(&self, bytes: &[u8]) -> Result<Value, (u16, String)> {
        let client = Client::new(&format!("http://{}", self.admin), None, None).expect("an address");
        let client = client.with_patience(Duration::from_secs(90));
        match client.send("PUT", "/v1/stages/only/plugin", "application/wasm", bytes) {
            Ok(answer) => Ok(serde_json::from_slice(&answer).expect("JSON")),
            Err(ClientError::Refused { status, text }) => Err((status, text)),
            Err(why) => Err((0, why.to_string())),
        }
    }

    fn swaps(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&get(self.admin, "/v1/swaps")).expect("JSON");
        answer["swaps"].as_array().expect("a list").clone()
    }

    /// A metric's sum over all labels but these.
    fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        value(&get(self.observe, "/metrics"), name, labels).unwrap_or_else(|| panic!("{name} is not there"))
    }

    fn running_digest(&self) -> String {
        let status: Value = serde_json::from_str(&get(self.admin, "/v1/status")).expect("JSON");
        status["stages"][0]["digest"].as_str().expect("a digest").to_owned()
    }
}

/// Ends what others do until it is raised, also when this test fails.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes records at an even pace until it is told to stop; `value` makes each from its number.
fn fill(topic: &str, per_second: usize, stop: &AtomicBool, sent: &AtomicUsize, value: impl Fn(usize) -> String) {
    let mut filler = Filler::new(&brokers(), topic);
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = started.elapsed().as_millis() as usize * per_second / 1_000;
        let mut rows = Rows::default();
        for number in sent.load(Ordering::Relaxed)..due {
            let key = format!("user-{}", number % 500);
            rows.push(
                number as i64,
                1_700_000_000_000 + number as i64,
                Some(key.as_bytes()),
                Some(value(number).as_bytes()),
            );
        }
        sent.fetch_max(due, Ordering::Relaxed);
        if !rows.is_empty() {
            filler.send(rows);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn click(number: usize) -> String {
    let country = if number.is_multiple_of(50) { "XX" } else { "DE" };
    format!("{{\"number\":{number},\"user_id\":{},\"country\":\"{country}\"}}", number % 500)
}

/// What commits said of the versions that led to them: partition, first offset, offset after the last, digest.
type Claims = BTreeSet<(i32, i64, i64, String)>;

/// Reads the group's commits again and again.
fn collect_claims(line: &Line, stop: &AtomicBool, seen: &AtomicUsize) -> Claims {
    let admin = Admin::new(&Connection::new(brokers())).expect("an admin client");
    let topic = format!("{}-in", line.name);
    let places: Vec<Partition> = (0..PARTITIONS).map(|partition| Partition::new(topic.as_str(), partition)).collect();
    let mut claims = Claims::new();
    while !stop.load(Ordering::Relaxed) {
        let offsets = admin.group_offsets(&line.name, &places, Duration::from_secs(5)).unwrap_or_default();
        for position in offsets.into_iter().flatten() {
            let note = Note::parse(&position.metadata).unwrap_or_else(|| panic!("no note: {}", position.metadata));
            claims.insert((position.partition, note.since, position.offset, note.plugins["only"].clone()));
        }
        seen.store(claims.len(), Ordering::Relaxed);
    }
    claims
}

/// The digest that each output names, by the partition and offset of its source record.
fn lineage(out: &[Rows]) -> BTreeMap<(i32, i64), String> {
    let mut found = BTreeMap::new();
    for (rows, row) in out.iter().flat_map(|rows| (0..rows.len()).map(move |row| (rows, row))) {
        let header = |name: &str| {
            let value = rows.headers.get(row).find(|header| header.0 == name.as_bytes()).and_then(|header| header.1);
            String::from_utf8(value.unwrap_or_else(|| panic!("no header {name}")).to_vec()).expect("text")
        };
        let source = header("millstream.source");
        let mut parts = source.rsplit('/').map(|part| part.parse::<i64>().unwrap_or(-1));
        let (offset, partition) = (parts.next().expect("an offset"), parts.next().expect("a partition"));
        let plugins = header("millstream.plugins");
        let (_, digest) = plugins.split_once('@').expect("a digest");
        assert!(found.insert((partition as i32, offset), digest.to_owned()).is_none(), "{source} has two outputs");
    }
    found
}

/// Every output was made by the version that the commits over its source record name. Fails where commits say nothing.
fn same_versions(claims: &Claims, found: &BTreeMap<(i32, i64), String>) {
    assert!(claims.len() > 5, "only {} commits were seen", claims.len());
    let mut checked = 0;
    for (partition, since, end, digest) in claims {
        for ((_, offset), named) in found.range((*partition, *since)..(*partition, *end)) {
            assert!(digest.starts_with(named.as_str()), "{partition}/{offset}: {named}, but committed by {digest}");
            checked += 1;
        }
    }
    assert!(checked > 0, "no commit covers any output");
}

/// Every record is answered for once, in order for each key.
fn complete(line: &Line) -> BTreeMap<(i32, i64), String> {
    let (input, out, dead) = (line.read("in"), line.read("out"), line.read("dead"));
    assert_eq!(topics::count(&out) + topics::count(&dead), topics::count(&input), "{}", line.name);
    let found = lineage(&out);
    for rows in &out {
        let mut last: BTreeMap<&[u8], i64> = BTreeMap::new();
        for row in 0..rows.len() {
            let key = rows.keys.get(row).expect("a key");
            let before = last.insert(key, rows.timestamps_ms[row]).unwrap_or(-1);
            assert!(before < rows.timestamps_ms[row], "out of order for {}", String::from_utf8_lossy(key));
        }
    }
    found
}

#[test]
fn swaps_under_load_lose_nothing_and_every_output_names_the_version_that_its_commit_does() {
    let (swaps, per_second) = if long() { (1_000, 20_000) } else { (40, 2_000) };
    let line = Line::new("load", &version("validate", 0), &format!("{ONE_STAGE}, window_ms: 0}}"));
    let running = line.start("run");
    let (stop, watched) = (AtomicBool::new(false), AtomicBool::new(false));
    let (sent, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let claims = std::thread::scope(|scope| {
        let (line, stop, sent) = (&line, &stop, &sent);
        let _raise = (Raise(stop), Raise(&watched));
        let filling = scope.spawn(move || fill("load-in", per_second, stop, sent, click));
        await_some("the first records", || (sent.load(Ordering::Relaxed) > 100).then_some(()));
        let watching = scope.spawn(|| collect_claims(line, &watched, &seen));
        for number in 1..=swaps {
            let swapped =
                running.put(&version("validate", number % 7)).unwrap_or_else(|why| panic!("{number}: {why:?}"));
            assert_eq!(swapped["number"], number, "{swapped}");
            assert_eq!(swapped["workers"][0], swapped["workers"][1], "all workers follow: {swapped}");
        }
        stop.store(true, Ordering::Relaxed);
        filling.join().expect("filled");
        watched.store(true, Ordering::Relaxed);
        watching.join().expect("watched")
    });
    assert_eq!(running.metric("millstream_swaps_total", &["done"]), swaps as f64);
    assert_eq!(running.metric("millstream_chain_number", &[]), swaps as f64);
    assert!(running.metric("millstream_swap_pause_seconds_count", &[]) >= swaps as f64);
    assert!(running.process.terminate().success());
    line.finish();
    let found = complete(&line);
    same_versions(&claims, &found);
    let versions: BTreeSet<&String> = found.values().collect();
    assert!(versions.len() >= 7, "only {} versions made outputs", versions.len());
    eprintln!("{swaps} swaps, {} outputs, {} commits seen", found.len(), claims.len());
}

#[test]
fn a_kill_in_the_middle_of_a_swap_leaves_one_version_for_each_partition() {
    let line = Line::new("kill", &version("validate", 0), &format!("{ONE_STAGE}, window_ms: 0}}"));
    let kills = if long() { 20 } else { 5 };
    let (stop, watched) = (AtomicBool::new(false), AtomicBool::new(false));
    let (sent, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut chance = Chance::new(7);
    let claims = std::thread::scope(|scope| {
        let (line, stop, sent) = (&line, &stop, &sent);
        let _raise = (Raise(stop), Raise(&watched));
        let filling = scope.spawn(move || fill("kill-in", 1_000, stop, sent, click));
        let mut first = line.start("run-0");
        first.put(&version("validate", 1)).expect("swapped");
        let watching = scope.spawn(|| collect_claims(line, &watched, &seen));
        for kill in 1..=kills {
            // Only what is at work is worth killing; a swap takes from a few milliseconds to a second.
            let before = seen.load(Ordering::Relaxed);
            await_some("a commit", || (seen.load(Ordering::Relaxed) > before + 4).then_some(()));
            let (admin, bytes) = (first.admin, version("validate", kill + 1));
            let swapping = scope.spawn(move || {
                let client = Client::new(&format!("http://{admin}"), None, None).expect("an address");
                let _ = client.send("PUT", "/v1/stages/only/plugin", "application/wasm", &bytes);
            });
            std::thread::sleep(Duration::from_millis(chance.below(400) as u64));
            first.process.kill();
            swapping.join().expect("it is answered or not");
            first = line.start(&format!("run-{kill}"));
            let after = first.running_digest();
            let either = [kill, kill + 1].map(|number| digest(&version("validate", number)));
            assert!(either.contains(&after), "kill {kill}: neither the old nor the new version runs");
            if after == either[0] {
                await_some("the swap that was cut off", || first.put(&version("validate", kill + 1)).ok());
            }
        }
        stop.store(true, Ordering::Relaxed);
        filling.join().expect("filled");
        watched.store(true, Ordering::Relaxed);
        let claims = watching.join().expect("watched");
        first.process.kill();
        claims
    });
    line.finish();
    same_versions(&claims, &complete(&line));
}

#[test]
fn a_candidate_that_does_harm_is_put_back_with_few_dead_letters_that_name_it() {
    let old = version("upcast", 0);
    let limits = "limits: {memory: 4MiB, deadline_ms: 5, output: 1MiB}";
    let line = Line::new(
        "harm",
        &old,
        &format!(
            "stages: [{{name: only, plugin: PLUGIN, {limits}}}]\nswap: {{store: STORE, faults: 5, dead_letters: 8}}"
        ),
    );
    let running = line.start("run");
    let ways = [
        "trap", "loop", "bomb", "stack", "huge", "utf8", "lengths", "ends", "type", "ops", "field", "writes",
        "verdicts", "routes", "wild", "divide", "reject",
    ];
    let ways = if long() { &ways[..] } else { &ways[..4] };
    let (stop, sent, way) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (stop, sent, way) = (&stop, &sent, &way);
        let _raise = Raise(stop);
        let order = move |number: usize| {
            let order = ways[way.load(Ordering::Relaxed).min(ways.len() - 1)];
            format!("{{\"number\":{number},\"text\":\"t\",\"do\":\"{order}\"}}")
        };
        let filling = scope.spawn(move || fill("harm-in", 100, stop, sent, order));
        for (index, name) in ways.iter().enumerate() {
            way.store(index, Ordering::Relaxed);
            let at = sent.load(Ordering::Relaxed);
            await_some("records of this way", || (sent.load(Ordering::Relaxed) > at + 20).then_some(()));
            running.put(&version("hostile", index)).unwrap_or_else(|why| panic!("{name}: {why:?}"));
            await_some(&format!("the way back from `{name}`"), || {
                (running.running_digest() == digest(&old)).then_some(())
            });
            let last = running.swaps().pop().expect("an event");
            assert_eq!(last["result"], "rolled_back", "{last}");
            assert!(last["why"].as_str().is_some_and(|why| why.contains("new plugin")), "{last}");
        }
        stop.store(true, Ordering::Relaxed);
        filling.join().expect("filled");
    });
    assert_eq!(running.metric("millstream_swaps_total", &["rolled_back"]), ways.len() as f64);
    assert!(running.process.terminate().success());
    line.finish();
    complete(&line);
    let mut blamed: BTreeMap<String, usize> = BTreeMap::new();
    for rows in line.read("dead") {
        for row in 0..rows.len() {
            let plugin = rows.headers.get(row).find(|header| header.0 == b"millstream.dlq.plugin");
            let plugin = plugin.and_then(|header| header.1).expect("it names a plugin");
            *blamed.entry(String::from_utf8_lossy(plugin).into_owned()).or_default() += 1;
        }
    }
    let candidates: Vec<String> = (0..ways.len()).map(|index| digest(&version("hostile", index))).collect();
    for (plugin, count) in &blamed {
        assert!(candidates.contains(plugin), "the old version made {count} dead letters");
        assert!(*count <= 8, "{count} dead letters of one candidate");
    }
}

#[test]
fn what_should_not_come_in_is_refused_and_nothing_changes() {
    let known = version("validate", 1);
    let trust = format!("trust: {{digests: [{}]}}", digest(&known));
    let line = Line::new("trust", &version("validate", 0), &format!("{ONE_STAGE}, {trust}}}"));
    let running = line.start("run");
    let first = running.put(&version("validate", 2)).expect_err("it is not trusted");
    assert_eq!(first.0, 403, "{first:?}");
    assert!(first.1.contains("swap.trust"), "{first:?}");
    assert_eq!(running.running_digest(), digest(&version("validate", 0)));
    running.put(&known).expect("it is trusted");
    assert_eq!(running.running_digest(), digest(&known));
    // A file is a way in like any other.
    std::fs::write(&line.plugin, version("validate", 3)).expect("written");
    await_some("the refusal of the file", || running.swaps().pop().filter(|last| last["who"] == "file"));
    assert_eq!(running.running_digest(), digest(&known));
    assert!(running.process.terminate().success());

    let line = Line::new("refused", &version("validate", 0), &format!("{ONE_STAGE}}}"));
    let running = line.start("run");
    let truncated = &version("validate", 1)[..5_000];
    for (what, bytes, expected) in [
        ("no component", &b"no wasm"[..], "no WebAssembly"),
        ("half of one", truncated, "plugin"),
        ("another configuration is wanted", &version("enrich", 0), ""),
    ] {
        match running.put(bytes) {
            Err((422, why)) => assert!(why.contains(expected), "{what}: {why}"),
            // This one takes any configuration.
            Ok(_) if expected.is_empty() => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    assert!(running.process.terminate().success());
}

#[test]
fn a_file_that_changes_is_swapped_in_and_a_restart_goes_on_with_what_ran() {
    let line = Line::new("file", &version("validate", 0), &format!("{ONE_STAGE}}}"));
    let running = line.start("run");
    assert_eq!(running.running_digest(), digest(&version("validate", 0)));
    replace(&line.plugin, &version("validate", 1));
    await_some("the swap", || (running.running_digest() == digest(&version("validate", 1))).then_some(()));
    // What the API brings outlives the process, until the file changes.
    running.put(&version("validate", 2)).expect("swapped");
    running.process.kill();
    let running = line.start("again");
    assert_eq!(running.running_digest(), digest(&version("validate", 2)));
    let client = Client::new(&format!("http://{}", running.admin), None, None).expect("an address");
    await_some("the way back", || client.send("POST", "/v1/rollback", "application/json", b"{}").ok());
    await_some("the version before", || (running.running_digest() == digest(&version("validate", 1))).then_some(()));
    running.process.kill();
    replace(&line.plugin, &version("validate", 4));
    let running = line.start("third");
    assert_eq!(running.running_digest(), digest(&version("validate", 4)));
    assert!(running.process.terminate().success());
}

/// As a deployment does it: aside, and renamed.
fn replace(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("new");
    std::fs::write(&aside, bytes).expect("written");
    std::fs::rename(&aside, path).expect("renamed");
}
