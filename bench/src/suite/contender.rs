//! Who is measured, and how each is started.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::Setting;

/// Partitions of input and output.
const PARTITIONS: u32 = 4;

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// Consumes and produces untouched.
    Passthrough,
    /// The same logic by hand, exactly once, with a commit each so many milliseconds.
    Native { commit_ms: u64 },
    /// Millstream.
    Millstream { exactly_once: bool },
}

impl Contender {
    /// Its name in tables.
    pub(super) fn name(self) -> String {
        match self {
            Self::Passthrough => "native passthrough".to_owned(),
            Self::Native { commit_ms } => format!("native exactly once, {commit_ms} ms commits"),
            Self::Millstream { exactly_once: true } => "millstream exactly once".to_owned(),
            Self::Millstream { exactly_once: false } => "millstream at least once".to_owned(),
        }
    }

    /// True where it goes on until it is told to stop.
    pub(super) fn runs_on(self) -> bool {
        matches!(self, Self::Millstream { .. })
    }
}

/// One run of a contender with topics and a group of its own.
pub(super) struct Run<'a> {
    setting: &'a Setting,
    contender: Contender,
    pub(super) input: String,
    pub(super) output: String,
    pub(super) dead_letters: String,
    pub(super) group: String,
    /// Further lines of Millstream's configuration.
    pub(super) more: String,
}

impl<'a> Run<'a> {
    /// Makes the topics of a run; `label` tells it from others on the same broker.
    pub(super) fn new(setting: &'a Setting, contender: Contender, input: &str, label: &str) -> Result<Self> {
        let run = Self {
            setting,
            contender,
            input: input.to_owned(),
            output: format!("enriched_events-{label}"),
            dead_letters: format!("dlq-{label}"),
            group: format!("clickstream-{label}"),
            more: String::new(),
        };
        let topics = format!("{}:{PARTITIONS},{}:{PARTITIONS},{}:1", run.input, run.output, run.dead_letters);
        setting.ask_broker("topics", &[("create", &topics)])?;
        Ok(run)
    }

    /// Removes the outputs, which would fill the disk.
    pub(super) fn clean_up(&self) -> Result<()> {
        let topics = format!("{},{}", self.output, self.dead_letters);
        self.setting.ask_broker("topics", &[("delete", &topics)]).map(drop)
    }

    /// Where it writes what it has to say.
    pub(super) fn log(&self) -> PathBuf {
        self.setting.work.join(format!("{}.log", self.group))
    }

    /// The command that starts the contender; a native one ends after `records`, if that is given.
    pub(super) fn command(&self, records: Option<u64>) -> Result<Command> {
        let mut command = match self.contender {
            Contender::Passthrough => self.setting.program("native_passthrough"),
            Contender::Native { commit_ms } => {
                let mut command = self.setting.program("native_clickstream");
                command.args(["--commit-ms", &commit_ms.to_string(), "--dead-letters", &self.dead_letters]);
                command
            }
            Contender::Millstream { exactly_once } => return self.millstream(exactly_once),
        };
        command.args(["--input", &self.input, "--output", &self.output, "--group", &self.group]);
        if let Some(records) = records {
            command.args(["--records", &records.to_string()]);
        }
        Ok(command)
    }

    fn millstream(&self, exactly_once: bool) -> Result<Command> {
        let config = self.setting.work.join(format!("{}.yaml", self.group));
        fs::write(&config, self.config(exactly_once)).with_context(|| format!("can't write {}", config.display()))?;
        let mut command = Command::new(&self.setting.millstream);
        command.arg("run").arg(config).stdin(Stdio::null());
        Ok(command)
    }

    /// The pipeline of `deploy/pipelines/clickstream.yaml` on this run's topics.
    fn config(&self, exactly_once: bool) -> String {
        let Self { input, output, dead_letters, group, more, .. } = self;
        let Setting { brokers, plugins, .. } = self.setting;
        let plugin = |name: &str| plugins.join(format!("{name}.wasm")).display().to_string();
        let (validate, upcast, enrich) = (plugin("validate"), plugin("upcast"), plugin("enrich"));
        let delivery = if exactly_once { "exactly_once" } else { "at_least_once" };
        format!(
            "\
pipeline: clickstream
source:
  kafka:
    brokers: \"{brokers}\"
    topic: {input}
    group: {group}
    start: earliest
stages:
  - name: validate
    plugin: \"{validate}\"
    config:
      blocked_countries: [XX, ZZ]
  - name: upcast
    plugin: \"{upcast}\"
  - name: enrich
    plugin: \"{enrich}\"
outputs:
  main: {{kafka: {{topic: {output}}}}}
dead_letters:
  to: {{kafka: {{topic: {dead_letters}}}}}
delivery: {delivery}
instance: {group}
{more}"
        )
    }
}
