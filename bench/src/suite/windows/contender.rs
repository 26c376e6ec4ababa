//! Who counts windows, and how each is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::super::Setting;
use crate::windows::{DISORDER_S, GAP_S, PARTITIONS, SIZE_S, Workload};

/// How often they commit; Millstream decides by itself.
const COMMIT_MS: u64 = 100;

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// Hash maps and serde.
    Native,
    /// Millstream.
    Millstream,
    /// Kafka Streams with its own store, and one of its two ways to a window's last row: what was counted is held back until
    /// the window closes, or nothing is forwarded before.
    KafkaStreams { suppress: bool },
}

impl Contender {
    pub(super) const ALL: [Self; 4] =
        [Self::Native, Self::Millstream, Self::KafkaStreams { suppress: true }, Self::KafkaStreams { suppress: false }];

    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native, hash maps",
            Self::Millstream => "millstream",
            Self::KafkaStreams { suppress: true } => "kafka streams, suppress",
            Self::KafkaStreams { suppress: false } => "kafka streams, emit on close",
        }
    }

    /// True where it goes on until it is told to stop.
    pub(super) fn runs_on(self) -> bool {
        self != Self::Native
    }

    /// True where it is started on demand only.
    pub(super) fn is_rival(self) -> bool {
        matches!(self, Self::KafkaStreams { .. })
    }

    /// True where windows that have closed are emitted only with a record that comes a second later.
    pub(super) fn needs_nudge(self) -> bool {
        self == Self::KafkaStreams { suppress: false }
    }
}

/// One run of a contender with topics and a group of its own.
pub(super) struct Run<'a> {
    setting: &'a Setting,
    workload: Workload,
    contender: Contender,
    input: String,
    /// The group, the pipeline and a part of each topic's name.
    pub(super) name: String,
}

impl<'a> Run<'a> {
    /// Makes the topics of a run; `label` tells it from others on the same broker.
    pub(super) fn new(
        setting: &'a Setting,
        (workload, contender): (Workload, Contender),
        input: &str,
        label: &str,
    ) -> Result<Self> {
        let name = format!("windows-{label}-{}", std::process::id());
        let run = Self { setting, workload, contender, input: input.to_owned(), name };
        let names = [input.to_owned(), run.output(), run.changelog(), run.dead_letters()];
        let topics = names.map(|name| format!("{name}:{PARTITIONS}")).join(",");
        setting.ask_broker("topics", &[("create", &topics)])?;
        Ok(run)
    }

    /// Removes what the run wrote, which would fill the disk.
    pub(super) fn clean_up(&self) -> Result<()> {
        self.setting.ask_broker("topics", &[("delete-all-with", &self.name)])?;
        if self.state().exists() {
            fs::remove_dir_all(self.state()).context("can't remove a run's state")?;
        }
        Ok(())
    }

    /// The topic of the rows.
    pub(super) fn output(&self) -> String {
        format!("rows-{}", self.name)
    }

    /// The topic of the clicks.
    pub(super) fn input(&self) -> &str {
        &self.input
    }

    fn changelog(&self) -> String {
        format!("log-{}", self.name)
    }

    fn dead_letters(&self) -> String {
        format!("dlq-{}", self.name)
    }

    fn state(&self) -> PathBuf {
        self.setting.work.join(&self.name)
    }

    /// Where it writes what it has to say.
    pub(super) fn log(&self) -> PathBuf {
        self.setting.work.join(format!("{}.log", self.name))
    }

    /// The command that starts the contender; the native one ends after `records`, if that is given.
    pub(super) fn command(&self, class_path: Option<&Path>, records: Option<u64>) -> Result<Command> {
        match self.contender {
            Contender::Native => Ok(self.native(records)),
            Contender::Millstream => self.millstream(),
            Contender::KafkaStreams { suppress } => {
                self.kafka_streams(class_path.context("Kafka Streams was not built")?, suppress)
            }
        }
    }

    fn native(&self, records: Option<u64>) -> Command {
        let mut command = self.setting.program("native_windows");
        command.args(["--input", &self.input, "--output", &self.output(), "--changelog", &self.changelog()]);
        command.args(["--group", &self.name, "--window", self.workload.name(), "--commit-ms", &COMMIT_MS.to_string()]);
        if let Some(records) = records {
            command.args(["--records", &records.to_string()]);
        }
        command
    }

    /// The JVM as one sets it up for two cores: the serial collector took the least CPU of three, and a gigabyte was tight.
    fn kafka_streams(&self, class_path: &Path, suppress: bool) -> Result<Command> {
        let classes = fs::read_to_string(class_path).with_context(|| format!("can't read {}", class_path.display()))?;
        let state = self.state();
        fs::create_dir_all(&state).context("can't make a folder for state")?;
        let mut command = Command::new(std::env::var("INFRA_JAVA").unwrap_or_else(|_| "java".to_owned()));
        command.args(["-Xmx2g", "-XX:+UseSerialGC", "-cp", classes.trim(), "peers.Windows", &self.setting.brokers]);
        command.args([&self.input, &self.output(), &self.name]).arg(state);
        command.args([self.workload.name(), &COMMIT_MS.to_string(), if suppress { "suppress" } else { "emit" }]);
        command.stdin(Stdio::null());
        Ok(command)
    }

    fn millstream(&self) -> Result<Command> {
        let config = self.setting.work.join(format!("{}.yaml", self.name));
        fs::write(&config, self.config()?).with_context(|| format!("can't write {}", config.display()))?;
        let mut command = Command::new(&self.setting.millstream);
        command.arg("run").arg(config).stdin(Stdio::null());
        Ok(command)
    }

    fn config(&self) -> Result<String> {
        let (Self { input, name, .. }, Setting { brokers, .. }) = (self, self.setting);
        let (output, dead_letters, field) = (self.output(), self.dead_letters(), self.workload.field());
        ensure!(SIZE_S % 60 == 0 && GAP_S % 60 == 0, "windows are of whole minutes");
        let shape = match self.workload {
            Workload::Tumbling => format!("tumbling: {}m", SIZE_S / 60),
            Workload::Session => format!("session: {}m", GAP_S / 60),
        };
        Ok(format!(
            "\
pipeline: {name}
instance: {name}
source: {{kafka: {{brokers: \"{brokers}\", topic: {input}, group: {name}, start: earliest}}}}
stages:
  - name: counts
    window:
      time: {{field: /timestamp, encoding: epoch_s}}
      key: [/{field}]
      {shape}
      disorder: {DISORDER_S}s
      keyed_topic: true
      aggregate: {{events: count}}
      output: main
outputs:
  main: {{kafka: {{topic: {output}}}}}
dead_letters: {{to: {{kafka: {{topic: {dead_letters}}}}}}}
observe: {{listen: '127.0.0.1:0'}}
admin: off
"
        ))
    }
}
