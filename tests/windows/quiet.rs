//! Silence: a partition that brings nothing holds nobody back once its owner has said so, and windows close without records
//! where that is asked for.

use std::path::PathBuf;

use millstream::record::Rows;
use serde_json::Value;

use crate::harness::broker::shared;
use crate::harness::process::{Millstream, folder};
use crate::harness::topics::{self, Filler};

const PORT: u16 = 19_820;

pub(crate) struct Line {
    name: String,
    pub(crate) brokers: String,
    pub(crate) folder: PathBuf,
    config: String,
}

impl Line {
    /// A pipeline of one window over two partitions.
    pub(crate) fn new(name: &str, window: &str) -> Self {
        let brokers = shared(PORT);
        let folder = folder(&format!("windows-{name}"));
        topics::make(&brokers, &[&format!("{name}-in"), &format!("{name}-out"), &format!("{name}-dead")], 2);
        let text = format!(
            "pipeline: {name}\nsource: {{kafka: {{brokers: \"{brokers}\", topic: {name}-in, start: earliest}}}}\n\
             stages: [{{name: w, window: {{time: {{field: /t, encoding: epoch_s}}, key: [/k], tumbling: 10s, \
             aggregate: {{n: count}}, output: main, {window}}}}}]\n\
             outputs: {{main: {{kafka: {{topic: {name}-out}}}}}}\ndead_letters: {{to: {{kafka: {{topic: {name}-dead}}}}}}\n\
             observe: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\nworkers: 1\n"
        );
        let config = folder.join("p.yaml");
        std::fs::write(&config, text).expect("a config file");
        Self { name: name.to_owned(), brokers, config: config.display().to_string(), folder }
    }

    pub(crate) fn start(&self, run: &str) -> Millstream {
        Millstream::start(&self.folder, run, &["run", &self.config])
    }

    /// Sends a record of this time; all have one key and so one partition.
    pub(crate) fn send(&self, t: i64) {
        let mut rows = Rows::default();
        rows.push(0, -1, Some(b"a"), Some(format!("{{\"t\":{t},\"k\":\"a\"}}").as_bytes()));
        Filler::new(&self.brokers, &format!("{}-in", self.name)).send(rows);
    }

    pub(crate) fn rows(&self, part: &str) -> Vec<Value> {
        let read = topics::read(&self.brokers, &format!("{}-{part}", self.name), true);
        let parse = |value: Option<&[u8]>| serde_json::from_slice(value.expect("a value")).expect("JSON");
        read.iter().flat_map(|rows| rows.values.iter()).map(parse).collect()
    }
}

#[test]
fn a_partition_without_records_holds_windows_open_until_its_owner_calls_it_idle() {
    let line = Line::new("idle", "idle: 2s");
    let mut process = line.start("first");
    for t in [1_700_000_001, 1_700_000_002, 1_700_000_021] {
        line.send(t);
    }
    // The state was sent on, and the watermark of the one partition is behind the window's end.
    process.await_that("the states", || topics::written(&line.brokers, "idle-w-partials") >= 4);
    assert_eq!(line.rows("out").len(), 0, "the other partition may bring records still");
    process.await_that("the row", || !line.rows("out").is_empty());
    let rows = line.rows("out");
    assert_eq!((rows.len(), &rows[0]["n"]), (1, &2.into()));
    assert!(process.terminate().success());
}

#[test]
fn windows_close_without_records_where_that_is_asked_for_and_stay_closed_after_a_restart() {
    let line = Line::new("silence", "keyed_topic: true, close_after: 1s");
    let mut process = line.start("first");
    line.send(1_700_000_001);
    line.send(1_700_000_002);
    process.await_that("the row", || !line.rows("out").is_empty());
    assert_eq!(line.rows("out")[0]["n"], 2);
    process.kill();
    // The window was closed by the clock, and that is in its state: a record for it is late, whoever comes next.
    let mut process = line.start("second");
    line.send(1_700_000_003);
    process.await_that("the dead letter", || !line.rows("dead").is_empty());
    assert_eq!(line.rows("out").len(), 1);
    assert!(process.terminate().success());
}
