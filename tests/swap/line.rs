//! A pipeline whose plugins are swapped: its topics, its files, its process, and what fills it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millstream::http::{Client, ClientError};
use millstream::record::Rows;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::broker::shared;
use crate::harness::guests::guest;
use crate::harness::http::{address, await_some, get, value};
use crate::harness::process::{Millstream, folder};
use crate::harness::topics::{self, Filler};

/// Where a broker listens when nobody names one.
const PORT: u16 = 19_760;
pub(crate) const PARTITIONS: i32 = 4;

pub(crate) fn brokers() -> String {
    shared(PORT)
}

/// A version of a guest: the same code under another digest, by a custom section that nobody reads.
pub(crate) fn version(package: &str, number: usize) -> Vec<u8> {
    let mut bytes = guest(package);
    let text = format!("\u{7}version{number}");
    bytes.push(0);
    bytes.push(u8::try_from(text.len()).expect("short"));
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A pipeline of one stage, its topics, and its files.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) config: String,
}

impl Line {
    pub(crate) fn new(name: &str, first: &[u8], more: &str) -> Self {
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

    pub(crate) fn start(&self, run: &str) -> Running {
        let process = Millstream::start(&self.folder, run, &["run", &self.config]);
        let (admin, observe) = (address(&self.folder, run, "admin"), address(&self.folder, run, "observe"));
        await_some("the start", || process.log().contains(" ms after the start").then_some(()));
        Running { process, admin, observe }
    }

    pub(crate) fn read(&self, part: &str) -> Vec<Rows> {
        topics::read(&brokers(), &format!("{}-{part}", self.name), true)
    }

    /// Processes what is left, in order, and ends.
    pub(crate) fn finish(&self) {
        let mut last = Millstream::start(&self.folder, "last", &["run", &self.config, "--until-end"]);
        let status = last.wait(Duration::from_secs(120));
        assert!(status.success(), "the last run fails:\n{}", last.log());
    }
}

pub(crate) const ONE_STAGE: &str =
    "stages: [{name: only, plugin: PLUGIN, config: {blocked_countries: [XX]}}]\nswap: {store: STORE";

pub(crate) struct Running {
    pub(crate) process: Millstream,
    pub(crate) admin: SocketAddr,
    pub(crate) observe: SocketAddr,
}

impl Running {
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Value, (u16, String)> {
        let client = Client::new(&format!("http://{}", self.admin), None, None).expect("an address");
        let client = client.with_patience(Duration::from_secs(90));
        match client.send("PUT", "/v1/stages/only/plugin", "application/wasm", bytes) {
            Ok(answer) => Ok(serde_json::from_slice(&answer).expect("JSON")),
            Err(ClientError::Refused { status, text }) => Err((status, text)),
            Err(why) => Err((0, why.to_string())),
        }
    }

    pub(crate) fn swaps(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&get(self.admin, "/v1/swaps")).expect("JSON");
        answer["swaps"].as_array().expect("a list").clone()
    }

    /// A metric's sum over all labels but these.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        value(&get(self.observe, "/metrics"), name, labels).unwrap_or_else(|| panic!("{name} is not there"))
    }

    pub(crate) fn running_digest(&self) -> String {
        let status: Value = serde_json::from_str(&get(self.admin, "/v1/status")).expect("JSON");
        status["stages"][0]["digest"].as_str().expect("a digest").to_owned()
    }
}

/// Ends what others do until it is raised, also when this test fails.
pub(crate) struct Raise<'a>(pub(crate) &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `body` while records come in at an even pace; `value` makes each from its number. `body` sees how many were sent.
pub(crate) fn while_filled<T>(
    topic: &str,
    per_second: usize,
    value: impl Fn(usize) -> String + Send,
    body: impl FnOnce(&AtomicUsize) -> T,
) -> T {
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _raise = Raise(&stop);
        scope.spawn(|| fill(topic, per_second, &stop, &sent, value));
        body(&sent)
    })
}

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

pub(crate) fn click(number: usize) -> String {
    let country = if number.is_multiple_of(50) { "XX" } else { "DE" };
    format!("{{\"number\":{number},\"user_id\":{},\"country\":\"{country}\"}}", number % 500)
}

/// A record that tells the hostile plugin what to do.
pub(crate) fn order(number: usize, order: &str) -> String {
    format!("{{\"number\":{number},\"text\":\"t\",\"do\":\"{order}\"}}")
}

/// A record that has the hostile plugin trap.
pub(crate) fn trap(number: usize) -> String {
    order(number, "trap")
}
