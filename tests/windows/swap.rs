//! The plugin of a window is replaced while the stream runs, with and without a change of its states, at one level and over two.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use millstream::http::Client;
use millstream::memory::Chance;
use millstream::record::Rows;
use serde_json::Value;

use crate::harness::broker::shared;
use crate::harness::guests::guest;
use crate::harness::http::address;
use crate::harness::process::{Millstream, folder};
use crate::harness::topics::{self, Filler};

const PORT: u16 = 19_820;
const PARTITIONS: i32 = 2;
const WINDOW_MS: i64 = 2_000;

struct Line {
    brokers: String,
    folder: PathBuf,
    config: String,
}

impl Line {
    fn new(brokers: &str) -> Self {
        let folder = folder("windows-swap");
        std::fs::write(folder.join("tally.wasm"), guest("tally")).expect("a plugin file");
        topics::make(brokers, &["s-in", "s-users", "s-countries", "s-dead"], PARTITIONS);
        let window = |key: &str, output: &str, more: &str| {
            format!(
                "{{time: {{field: /t, encoding: epoch_ms}}, key: [/{key}], tumbling: 2s, disorder: 500ms, \
                 aggregate: {{plugin: {}}}, output: {output}, {more}}}",
                folder.join("tally.wasm").display()
            )
        };
        let (users, countries) = (
            window("user", "users", "keyed_topic: true, forward: true, late: dead_letter"),
            window("country", "countries", ""),
        );
        let text = format!(
            "pipeline: s\ninstance: one\nworkers: 2\ndelivery: exactly_once\n\
             source: {{kafka: {{brokers: \"{brokers}\", topic: s-in, start: earliest, properties: {{session.timeout.ms: 6000}}}}}}\n\
             stages: [{{name: users, window: {users}}}, {{name: countries, window: {countries}}}]\n\
             outputs: {{main: {{discard: }}, users: {{kafka: {{topic: s-users}}}}, countries: {{kafka: {{topic: s-countries}}}}}}\n\
             dead_letters: {{to: {{kafka: {{topic: s-dead}}}}}}\nswap: {{store: {}}}\n\
             observe: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\n",
            folder.display()
        );
        let config = folder.join("p.yaml");
        std::fs::write(&config, text).expect("a config file");
        Self { brokers: brokers.to_owned(), config: config.display().to_string(), folder }
    }

    fn start(&self, run: &str) -> Millstream {
        let mut process = Millstream::start(&self.folder, run, &["run", &self.config]);
        let log = self.folder.join(format!("{run}.log"));
        process.await_that("the start", || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains(" ms after the start"))
        });
        process
    }

    fn put(&self, run: &str, stage: &str, bytes: &[u8]) -> Result<(), String> {
        let admin = address(&self.folder, run, "admin");
        let client = Client::new(&format!("http://{admin}"), None, None).expect("an address");
        let client = client.with_patience(Duration::from_secs(90));
        let answer = client.send("PUT", &format!("/v1/stages/{stage}/plugin"), "application/wasm", bytes);
        answer.map(drop).map_err(|why| format!("{why:?}"))
    }

    /// Sends records for a while; the time of each is that of its sending, less a little.
    fn fill(&self, for_ms: u64, chance: &mut Chance) {
        let mut filler = Filler::new(&self.brokers, "s-in");
        let end = Instant::now() + Duration::from_millis(for_ms);
        while Instant::now() < end {
            let now_ms =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis()
                    as i64;
            let mut rows = Rows::default();
            for _ in 0..20 {
                let (user, t) = (chance.below(40), now_ms - chance.below(200) as i64);
                let (country, spent) = (["DE", "US", "JP"][chance.below(3)], chance.below(200));
                let value = format!("{{\"t\":{t},\"user\":\"u{user}\",\"country\":\"{country}\",\"spent\":{spent}}}");
                rows.push(0, -1, Some(format!("u{user}").as_bytes()), Some(value.as_bytes()));
            }
            filler.send(rows);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn rows(&self, topic: &str) -> Vec<Value> {
        let read = topics::read(&self.brokers, topic, true);
        let parse = |value: Option<&[u8]>| serde_json::from_slice(value.expect("a value")).expect("a row is JSON");
        read.iter().flat_map(|rows| rows.values.iter()).map(parse).collect()
    }
}

#[test]
fn the_plugin_of_a_window_is_replaced_and_its_states_go_on() {
    let line = Line::new(&shared(PORT));
    let mut chance = Chance::new(5);
    let first = line.start("first");
    line.fill(3_000, &mut chance);
    // The same states: another digest by a section that nobody reads.
    let mut same = guest("tally");
    same.extend([0, 5, 4]);
    same.extend(b"same");
    line.put("first", "users", &same).expect("the same states fit");
    line.fill(2_000, &mut chance);
    for stage in ["users", "countries"] {
        line.put("first", stage, &guest("tally-next")).expect("it migrates");
    }
    line.fill(2_000, &mut chance);
    let back = line.put("first", "users", &guest("tally")).expect_err("version 1 can't read states of version 2");
    assert!(back.contains("has states of version 2"), "{back}");
    first.kill();
    // A start finds states of both versions, and the plugins that were swapped in.
    let second = line.start("second");
    line.fill(3_000, &mut chance);
    assert!(second.terminate().success(), "an orderly end fails");
    let mut last = Millstream::start(&line.folder, "last", &["run", &line.config, "--until-end"]);
    let status = last.wait(Duration::from_secs(120));
    assert!(status.success(), "the last run fails:\n{}", last.log());
    let input = topics::read(&line.brokers, "s-in", true);
    let all = events(&input);
    let unlucky = all.iter().flatten().filter(|event| event.spent == 13).count();
    assert_eq!(topics::count(&topics::read(&line.brokers, "s-dead", true)), unlucky, "dead letters");
    let watermark = |events: &Vec<Event>| events.iter().map(|event| event.t).max().expect("records") - 500;
    let users: BTreeMap<_, _> =
        all.iter().flat_map(|events| tally(events, |event| &event.user, watermark(events))).collect();
    let closed = all.iter().map(watermark).min().expect("partitions");
    let together: Vec<Event> = all.into_iter().flatten().collect();
    let countries = tally(&together, |event| &event.country, closed);
    compare("users", "user", line.rows("s-users"), &users);
    compare("countries", "country", line.rows("s-countries"), &countries);
}

#[derive(Clone)]
struct Event {
    t: i64,
    user: String,
    country: String,
    spent: i64,
}

fn events(input: &[Rows]) -> Vec<Vec<Event>> {
    let parse = |value: Option<&[u8]>| {
        let record: Value = serde_json::from_slice(value.expect("a value")).expect("JSON");
        let text = |name: &str| record[name].as_str().expect("a text").to_owned();
        let (t, spent) = (record["t"].as_i64().expect("a time"), record["spent"].as_i64().expect("a number"));
        Event { t, user: text("user"), country: text("country"), spent }
    };
    input.iter().map(|rows| rows.values.iter().map(parse).collect()).collect()
}

type Tally = BTreeMap<(i64, String), (i64, i64)>;

/// Count and sum by window and key, of the windows that are closed.
fn tally(events: &[Event], key: impl Fn(&Event) -> &String, closed: i64) -> Tally {
    let mut sums = Tally::new();
    // The rejected are rejected at the first stage already, and move no time.
    for event in events.iter().filter(|event| event.spent != 13) {
        let sum = sums.entry((event.t / WINDOW_MS * WINDOW_MS, key(event).clone())).or_default();
        *sum = (sum.0 + 1, sum.1 + event.spent);
    }
    sums.retain(|(begin, _), _| begin + WINDOW_MS <= closed);
    sums
}

fn compare(what: &str, key: &str, rows: Vec<Value>, expected: &Tally) {
    let mut found = Tally::new();
    let mut makers = BTreeMap::new();
    for row in rows {
        let begin = millstream::config::rfc3339_ms(row["window_start"].as_str().expect("a time")).expect("RFC 3339");
        let number = |name: &str| row[name].as_i64().expect("a number");
        let at = (begin, row[key].as_str().expect("a key").to_owned());
        let twice = found.insert(at.clone(), (number("n"), number("spent")));
        assert_eq!(twice, None, "{what}: {at:?} is there twice");
        *makers.entry(number("made_by")).or_insert(0) += 1;
    }
    assert!(expected.len() > 8, "{what}: little to compare");
    assert_eq!(&found, expected, "{what}");
    assert_eq!(makers.len(), 2, "{what}: rows of both versions: {makers:?}");
}
