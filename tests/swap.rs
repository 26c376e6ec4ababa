//! Promise: plugins are replaced while the stream runs, at an offset that is committed with the progress itself; nothing
//! is lost, repeated or out of order, a candidate that does harm is put back, and nothing comes in that should not.

mod harness;

#[path = "swap/line.rs"]
mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ed25519_compact::{KeyPair, Seed};
use harness::http::{await_some, get, raw, value};
use harness::process::long;
use harness::topics;
use line::{Line, ONE_STAGE, PARTITIONS, Raise, brokers, click, digest, order, trap, version, while_filled};
use millstream::http::{Client, ClientError};
use millstream::kafka::{Admin, Connection, Partition};
use millstream::memory::Chance;
use millstream::record::Rows;
use millstream::worker::Note;
use openssl::base64::encode_block;
use serde_json::Value;

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
    let (watched, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    let claims = std::thread::scope(|scope| {
        let _raise = Raise(&watched);
        let watching = while_filled("load-in", per_second, click, |sent| {
            await_some("the first records", || (sent.load(Ordering::Relaxed) > 100).then_some(()));
            let watching = scope.spawn(|| collect_claims(&line, &watched, &seen));
            for number in 1..=swaps {
                let swapped =
                    running.put(&version("validate", number % 7)).unwrap_or_else(|why| panic!("{number}: {why:?}"));
                assert_eq!(swapped["number"], number, "{swapped}");
                assert_eq!(swapped["workers"][0], swapped["workers"][1], "all workers follow: {swapped}");
            }
            watching
        });
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
    let (watched, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut chance = Chance::new(7);
    let claims = std::thread::scope(|scope| {
        let _raise = Raise(&watched);
        let (first, watching) = while_filled("kill-in", 1_000, click, |_| {
            let mut first = line.start("run-0");
            first.put(&version("validate", 1)).expect("swapped");
            let watching = scope.spawn(|| collect_claims(&line, &watched, &seen));
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
            (first, watching)
        });
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
    let way = AtomicUsize::new(0);
    let of_this_way = |number: usize| order(number, ways[way.load(Ordering::Relaxed)]);
    while_filled("harm-in", 100, of_this_way, |sent| {
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

#[test]
fn a_file_that_was_put_back_by_itself_stays_put_back_over_a_restart() {
    let old = version("upcast", 0);
    let rest = "stages: [{name: only, plugin: PLUGIN}]\nswap: {store: STORE, faults: 5, dead_letters: 8}";
    let line = Line::new("back", &old, rest);
    let running = line.start("run");
    while_filled("back-in", 100, trap, |_| {
        replace(&line.plugin, &version("hostile", 0));
        await_some("the way back", || running.swaps().pop().filter(|last| last["result"] == "rolled_back"));
    });
    running.process.kill();
    let running = line.start("again");
    assert_eq!(running.running_digest(), digest(&old), "the file holds what was put back");
    assert!(running.process.terminate().success());
}

#[test]
fn several_stages_are_swapped_as_one_where_a_trusted_key_has_signed_them() {
    let pair = KeyPair::from_seed(Seed::new([7; 32]));
    let key = encode_block(&pair.pk[..]);
    let rest = format!(
        "stages: [{{name: only, plugin: PLUGIN}}, {{name: second, plugin: PLUGIN}}]\n\
         swap: {{store: STORE, trust: {{keys: ['{key}']}}}}"
    );
    let line = Line::new("signed", &version("upcast", 0), &rest);
    let running = line.start("run");
    let client = Client::new(&format!("http://{}", running.admin), None, None).expect("an address");
    let [one, two] = [1, 2].map(|number| version("upcast", number));
    let component = |bytes: &[u8], signed: &[u8]| {
        let signature = encode_block(&pair.sk.sign(signed, None)[..]);
        serde_json::json!({"bytes": encode_block(bytes), "signature": signature})
    };
    let swap = |first: Value, second: Value| {
        let body = serde_json::json!({"components": {"only": first, "second": second}}).to_string();
        client.send("PUT", "/v1/plugins", "application/json", body.as_bytes())
    };
    let wrong = swap(component(&one, &one), component(&two, &one)).expect_err("the second is not what was signed");
    assert!(matches!(wrong, ClientError::Refused { status: 403, .. }), "{wrong}");
    assert_eq!(running.running_digest(), digest(&version("upcast", 0)), "neither of the two came in");
    let swapped: Value =
        serde_json::from_slice(&swap(component(&one, &one), component(&two, &two)).expect("both are signed"))
            .expect("JSON");
    assert_eq!((&swapped["number"], &swapped["plugins"]["only"]), (&1.into(), &digest(&one).into()));
    assert_eq!(swapped["plugins"]["second"], digest(&two));
    assert!(running.process.terminate().success());
}

#[test]
fn a_version_that_breaks_the_pipeline_or_is_too_large_is_refused() {
    let rest = "stages: [{name: only, plugin: PLUGIN}]\nswap: {store: STORE}";
    let line = Line::new("fit", &version("hostile", 0), rest);
    let text = std::fs::read_to_string(&line.config).expect("the config");
    std::fs::write(&line.config, text.replace("topic: fit-out", "topic: fit-out, key: /twice")).expect("written");
    let running = line.start("run");
    let (status, why) = running.put(&version("upcast", 0)).expect_err("it does not write the key's field");
    assert_eq!(status, 422, "{why}");
    assert!(why.contains("no longer writes `/twice`, which an output takes its key from"), "{why}");
    let head = format!(
        "PUT /v1/stages/only/plugin HTTP/1.1\r\nhost: {}\r\ncontent-type: application/wasm\r\ncontent-length: {}\r\n\r\n",
        running.admin,
        (64 << 20) + 1
    );
    assert_eq!(raw(running.admin, head.as_bytes()).status, 413, "none of the body is awaited");
    assert_eq!(running.running_digest(), digest(&version("hostile", 0)));
    assert!(running.process.terminate().success());
}

#[test]
fn an_open_breaker_rolls_back_or_pauses() {
    let old = version("upcast", 0);
    let rest = "stages: [{name: only, plugin: PLUGIN}]\nswap: {store: STORE, window_ms: 0}\n\
                breaker: {faults_per_minute: 10, then: rollback}";
    let line = Line::new("breaker", &old, rest);
    let running = line.start("run");
    while_filled("breaker-in", 200, trap, |_| {
        running.put(&version("hostile", 0)).expect("nobody watches");
        let last = await_some("the way back", || running.swaps().pop().filter(|last| last["result"] == "rolled_back"));
        assert!(last["why"].as_str().is_some_and(|why| why.contains("within a minute")), "{last}");
        assert_eq!(running.running_digest(), digest(&old));
        // Both workers saw it fault, and neither takes the other's way back for another harm.
        await_some("all goes on", || (running.metric("millstream_records_out_total", &[]) > 100.0).then_some(()));
        assert_eq!(running.metric("millstream_paused", &[]), 0.0);
        assert_eq!(running.metric("millstream_swaps_total", &["rolled_back"]), 1.0);
    });
    assert!(running.process.terminate().success());
    // Nothing ran before the first version: there is only a pause.
    std::fs::write(&line.plugin, version("hostile", 0)).expect("written");
    let text = std::fs::read_to_string(&line.config).expect("the config");
    let text = text.replace("-in,", "-again-in,").replace("instance: one", "instance: two");
    std::fs::write(&line.config, text).expect("written");
    topics::make(&brokers(), &["breaker-again-in"], PARTITIONS);
    let running = line.start("again");
    while_filled("breaker-again-in", 200, trap, |_| {
        await_some("the pause", || (running.metric("millstream_paused", &[]) == 1.0).then_some(()));
    });
    assert!(running.process.log().contains("paused: "), "it says why");
    assert!(running.process.terminate().success());
}

#[test]
fn an_open_breaker_that_diverts_goes_on_and_only_what_faults_is_a_dead_letter() {
    let candidate = version("hostile", 0);
    let rest = "stages: [{name: only, plugin: PLUGIN}]\nswap: {store: STORE, window_ms: 0}\n\
                breaker: {faults_per_minute: 10, then: divert}";
    let line = Line::new("divert", &version("upcast", 0), rest);
    let running = line.start("run");
    // There is a version to go back to, and nobody goes back to it.
    running.put(&candidate).expect("nobody watches");
    let started = Instant::now();
    let said = || {
        let log = std::fs::read_to_string(line.folder.join("run.log")).expect("a log");
        log.matches("within a minute; they go on to the dead letters").count() as u64
    };
    let some_trap = |number: usize| if number.is_multiple_of(4) { trap(number) } else { order(number, "") };
    while_filled("divert-in", 400, some_trap, |_| {
        await_some("the open breaker", || (said() > 0).then_some(()));
        let dead = || value(&get(running.observe, "/metrics"), "millstream_dead_letters_total", &[]).unwrap_or(0.0);
        let before = dead();
        await_some("many more dead letters", || (dead() > before + 200.0).then_some(()));
    });
    assert_eq!(running.metric("millstream_paused", &[]), 0.0);
    assert_eq!(running.running_digest(), digest(&candidate));
    assert!(running.swaps().iter().all(|swap| swap["result"] == "done"), "{:?}", running.swaps());
    // Each of the two workers says so once a minute.
    assert!(said() <= 2 * (started.elapsed().as_secs() / 60 + 1), "it is said {} times", said());
    assert!(running.process.terminate().success());
    line.finish();
    complete(&line);
    for (part, traps) in [("out", false), ("dead", true)] {
        let read = line.read(part);
        assert!(topics::count(&read) > 0, "nothing in `{part}`");
        for rows in &read {
            for row in 0..rows.len() {
                let text = String::from_utf8_lossy(rows.values.get(row).expect("a value"));
                assert_eq!(text.contains("\"do\":\"trap\""), traps, "{text} is in `{part}`");
            }
        }
    }
}

#[test]
fn a_group_of_two_versions_shows_in_a_metric() {
    let line = Line::new("mixed", &version("validate", 0), &format!("{ONE_STAGE}}}"));
    let running = line.start("run");
    while_filled("mixed-in", 2_000, click, |_| {
        await_some("commits", || (running.metric("millstream_records_in_total", &[]) > 2_000.0).then_some(()));
    });
    let sent = topics::written(&brokers(), "mixed-in") as f64;
    await_some("the rest", || (running.metric("millstream_records_in_total", &[]) == sent).then_some(()));
    assert_eq!(running.metric("millstream_group_mixed_partitions", &[]), 0.0);
    running.process.kill();
    // Every partition's last commit was made by another version than the one that this process runs.
    replace(&line.plugin, &version("validate", 1));
    let running = line.start("again");
    running.put(&version("validate", 2)).expect("swapped");
    await_some("the mixture", || (running.metric("millstream_group_mixed_partitions", &[]) >= 1.0).then_some(()));
    assert!(running.process.terminate().success());
}

/// As a deployment does it: aside, and renamed.
fn replace(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("new");
    std::fs::write(&aside, bytes).expect("written");
    std::fs::rename(&aside, path).expect("renamed");
}
