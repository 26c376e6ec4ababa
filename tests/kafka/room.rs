//! A test's own topics, files and processes on the broker that all tests share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use millstream::kafka::{Admin, Connection, Partition};
use millstream::record::Rows;

use crate::harness::broker::Broker;
use crate::harness::guests;
use crate::harness::process::{Millstream, folder};
use crate::harness::topics::{self, Filler};

/// A stage that drops records whose `n` is negative, and turns those away that have none: the cheapest there is.
pub(crate) const FILTER: &str = "{name: filter, filter: {field: /n, type: int64, op: ge, value: 0}}";
/// How long one question to the broker may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a run to the end of a topic may take on a busy machine.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
const PORT: u16 = 19_720;

/// The broker of all tests.
pub(crate) fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| {
        let broker = Broker::start_secured(PORT);
        broker.kill_at_exit();
        broker
    })
}

/// What a test's pipelines differ in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pipeline<'a> {
    /// More keys of `source.kafka`, as a YAML flow.
    pub(crate) source: &'a str,
    /// The stages, as a YAML flow.
    pub(crate) stages: &'a str,
    /// More lines.
    pub(crate) rest: &'a str,
}

impl Default for Pipeline<'_> {
    fn default() -> Self {
        Self { source: "start: earliest", stages: FILTER, rest: "" }
    }
}

/// One test's topics (`NAME-in`, `NAME-out` and `NAME-dead`), group, files and processes.
pub(crate) struct Room {
    /// The test's, its pipeline's and its group's name.
    pub(crate) name: String,
    /// The broker's address.
    pub(crate) brokers: String,
    folder: PathBuf,
    partitions: i32,
}

impl Room {
    /// A room with topics of as many partitions.
    pub(crate) fn new(name: &str, partitions: i32) -> Self {
        let room = Self::without_topics(name, &broker().address(), partitions);
        let names = ["in", "out", "dead"].map(|part| room.topic(part));
        topics::make(&room.brokers, &names.each_ref().map(String::as_str), partitions);
        room
    }

    /// A room whose topics the test makes itself, on any broker.
    pub(crate) fn without_topics(name: &str, brokers: &str, partitions: i32) -> Self {
        let folder = folder(&format!("kafka-{name}"));
        Self { name: name.to_owned(), brokers: brokers.to_owned(), folder, partitions }
    }

    /// The name of one of the topics.
    pub(crate) fn topic(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// The partitions of the input topic.
    pub(crate) fn places(&self) -> Vec<Partition> {
        (0..self.partitions).map(|partition| Partition::new(self.topic("in"), partition)).collect()
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(&Connection::new(&*self.brokers)).expect("an admin client")
    }

    /// What the group has committed, as far as the broker answers: -1 where it has nothing.
    pub(crate) fn committed(&self) -> Vec<i64> {
        let end = Instant::now() + 3 * TIMEOUT;
        loop {
            // A broker that just came back has to find itself first.
            match self.admin().group_offsets(&self.name, &self.places(), TIMEOUT) {
                Err(why) => assert!(Instant::now() < end, "{why}"),
                Ok(offsets) => return offsets.iter().map(|at| at.as_ref().map_or(-1, |at| at.offset)).collect(),
            }
        }
    }

    /// Sends rows to the input topic, by their keys.
    pub(crate) fn send(&self, rows: Rows) {
        Filler::new(&self.brokers, &self.topic("in")).send(rows);
    }

    /// Everything committed in one of the topics.
    pub(crate) fn read(&self, part: &str) -> Vec<Rows> {
        topics::read(&self.brokers, &self.topic(part), true)
    }

    /// The `n` of every record in one of the topics, in order.
    pub(crate) fn numbers(&self, part: &str) -> Vec<i64> {
        let number =
            |value: &[u8]| -> Option<i64> { serde_json::from_slice::<serde_json::Value>(value).ok()?["n"].as_i64() };
        let read = self.read(part);
        let mut numbers: Vec<i64> =
            read.iter().flat_map(|rows| rows.values.iter().flatten()).filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// A file of the test's.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let file = self.folder.join(name);
        std::fs::write(&file, content).expect("a file");
        file.to_string_lossy().into_owned()
    }

    /// The component of a plugin of the workspace.
    pub(crate) fn plugin(&self, package: &str) -> String {
        self.file(&format!("{package}.wasm"), guests::guest(package))
    }

    /// Writes the pipeline of an instance from topic `in` to `out` and `dead`, and returns its file.
    pub(crate) fn config(&self, instance: &str, pipeline: Pipeline<'_>) -> String {
        let Self { name, brokers, .. } = self;
        let Pipeline { source, stages, rest } = pipeline;
        let text = format!(
            "pipeline: {name}\ninstance: {instance}\n\
             source: {{kafka: {{brokers: \"{brokers}\", topic: {name}-in, {source}}}}}\n\
             stages: [{stages}]\n\
             outputs: {{main: {{kafka: {{topic: {name}-out}}}}}}\n\
             dead_letters: {{to: {{kafka: {{topic: {name}-dead}}}}}}\nobserve: off\nadmin: off\n{rest}\n"
        );
        self.file(&format!("{instance}.yaml"), text)
    }

    /// Starts an instance.
    pub(crate) fn start(&self, instance: &str, pipeline: Pipeline<'_>) -> Millstream {
        let config = self.config(instance, pipeline);
        self.run_file(instance, &config)
    }

    /// Starts a pipeline from its file.
    pub(crate) fn run_file(&self, name: &str, config: &str) -> Millstream {
        Millstream::start(&self.folder, name, &["run", config])
    }

    /// Runs any command and returns its exit code and what it said.
    pub(crate) fn command(&self, name: &str, args: &[&str]) -> (Option<i32>, String) {
        let mut process = Millstream::start(&self.folder, name, args);
        let code = process.wait(RUN_TIMEOUT).code();
        (code, self.said(name))
    }

    /// Runs a pipeline to the end of its topic.
    pub(crate) fn run(&self, name: &str, pipeline: Pipeline<'_>) -> (Option<i32>, String) {
        let config = self.config(name, pipeline);
        self.command(name, &["run", &config, "--until-end"])
    }

    /// The same where nothing must go wrong.
    #[track_caller]
    pub(crate) fn run_well(&self, name: &str, pipeline: Pipeline<'_>) -> String {
        let (code, said) = self.run(name, pipeline);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// All that the process of this name has said.
    pub(crate) fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default()
    }
}

/// Records `{"n":…}` with keys of their own.
pub(crate) fn numbered(numbers: impl IntoIterator<Item = i64>) -> Rows {
    let mut rows = Rows::default();
    for n in numbers {
        rows.push(n, -1, Some(format!("key {n}").as_bytes()), Some(format!("{{\"n\":{n}}}").as_bytes()));
    }
    rows
}

/// Header names and values.
pub(crate) type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A row's headers in order.
pub(crate) fn headers(rows: &Rows, row: usize) -> Headers {
    let own =
        |(name, value): (&[u8], Option<&[u8]>)| (String::from_utf8_lossy(name).into_owned(), value.map(<[u8]>::to_vec));
    rows.headers.get(row).map(own).collect()
}

/// A row's headers of ours, by name, as text.
pub(crate) fn reason(rows: &Rows, row: usize) -> BTreeMap<String, String> {
    let ours = |name: &str| name.starts_with("millstream.dlq.") || name.starts_with("__connect.errors.");
    let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default()).expect("text");
    let headers = headers(rows, row).into_iter().filter(|(name, _)| ours(name));
    headers.map(|(name, value)| (name, text(value))).collect()
}
