//! Who brings records into a table, and how each is started.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::super::Setting;
use super::engine::Engine;
use crate::Args;

/// Partitions of the input; there is one for dead letters.
const PARTITIONS: u32 = 4;

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// Rust with the crate `clickhouse`.
    Native,
    /// Millstream.
    Millstream,
    /// Python with clickhouse-connect.
    Python,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// From the topic into the table, as they are.
    Drain,
    /// Through the clickstream's three plugins, or the same rules by hand.
    Whole,
}

impl Contender {
    pub(super) const ALL: [Self; 3] = [Self::Native, Self::Millstream, Self::Python];

    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native, clickhouse crate, at least once",
            Self::Millstream => "millstream exactly once",
            Self::Python => "python, clickhouse-connect, at least once",
        }
    }
}

impl Case {
    /// Its name in tables, and in those of topics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Drain => "clickhouse-drain",
            Self::Whole => "clickhouse-whole",
        }
    }

    /// The topic that is read.
    pub(super) fn input(self) -> &'static str {
        match self {
            Self::Drain => "events_for_table",
            Self::Whole => "my_events",
        }
    }
}

/// One run of a contender with a table, topics and a group of its own.
pub(super) struct Run<'a> {
    setting: &'a Setting,
    case: Case,
    contender: Contender,
    pub(super) input: String,
    /// The group, the pipeline and the database.
    pub(super) name: String,
}

impl<'a> Run<'a> {
    /// Makes what a run needs; `label` tells it from others.
    pub(super) fn new(
        setting: &'a Setting,
        engine: &Engine,
        (case, contender): (Case, Contender),
        input: &str,
        label: &str,
    ) -> Result<Self> {
        let name = format!("bench_{label}_{}", std::process::id());
        let run = Self { setting, case, contender, input: input.to_owned(), name };
        engine.make(&run.name)?;
        let topics = format!("{}:{PARTITIONS},{}:1", run.input, run.dead_letters());
        setting.ask_broker("topics", &[("create", &topics), ("retention-mb", "256")])?;
        Ok(run)
    }

    /// Removes the table and the topics that were written, which would fill the disk.
    pub(super) fn clean_up(&self, engine: &Engine) -> Result<()> {
        engine.remove(&self.name)?;
        let outbox = format!(",{}.main.outbox", self.name);
        let has_outbox = (self.contender, self.case) == (Contender::Millstream, Case::Whole);
        let topics = format!("{}{}", self.dead_letters(), if has_outbox { &outbox } else { "" });
        self.setting.ask_broker("topics", &[("delete", &topics)]).map(drop)
    }

    fn dead_letters(&self) -> String {
        format!("dlq-{}", self.name)
    }

    /// Where it writes what it has to say.
    pub(super) fn log(&self) -> PathBuf {
        self.setting.work.join(format!("{}.log", self.name))
    }

    /// The command that starts the contender; all but Millstream end after `records`.
    pub(super) fn command(&self, engine: &Engine, args: &Args, records: u64) -> Result<Command> {
        let mut command = match self.contender {
            Contender::Native => self.setting.program("native-clickhouse"),
            Contender::Python => {
                let mut command = Command::new(args.text("python")?);
                command.arg(args.text("script")?).args(["--brokers", &self.setting.brokers]).stdin(Stdio::null());
                command
            }
            Contender::Millstream => return self.millstream(engine),
        };
        command.args(["--input", &self.input, "--group", &self.name, "--url", &engine.url]);
        command.args(["--database", &self.name, "--records", &records.to_string()]);
        if self.case == Case::Whole {
            command.args(["--rules", "--dead-letters", &self.dead_letters()]);
        }
        Ok(command)
    }

    fn millstream(&self, engine: &Engine) -> Result<Command> {
        let config = self.setting.work.join(format!("{}.yaml", self.name));
        fs::write(&config, self.config(engine)).with_context(|| format!("can't write {}", config.display()))?;
        let mut command = Command::new(&self.setting.millstream);
        command.arg("run").arg(config).stdin(Stdio::null());
        Ok(command)
    }

    /// The pipeline of `deploy/pipelines/clickstream.yaml` with a table behind it, or nothing but the table.
    fn config(&self, engine: &Engine) -> String {
        let (Self { input, name, .. }, Setting { brokers, plugins, .. }) = (self, self.setting);
        let stage = |stage: &str, config: &str| {
            let plugin = plugins.join(format!("{stage}.wasm"));
            format!("  - {{name: {stage}, plugin: \"{}\"{config}}}\n", plugin.display())
        };
        let stages = match self.case {
            Case::Drain => String::new(),
            Case::Whole => {
                let validate = stage("validate", ", config: {blocked_countries: [XX, ZZ]}");
                format!("stages:\n{validate}{}{}", stage("upcast", ""), stage("enrich", ""))
            }
        };
        let (url, dead_letters) = (&engine.url, self.dead_letters());
        format!(
            "\
pipeline: {name}
instance: {name}
source: {{kafka: {{brokers: \"{brokers}\", topic: {input}, group: {name}, start: earliest}}}}
{stages}outputs:
  main: {{clickhouse: {{url: \"{url}\", database: {name}, table: events, columns: {{timestamp: {{unit: s}}}}}}}}
dead_letters: {{to: {{kafka: {{topic: {dead_letters}}}}}}}
observe: {{listen: '127.0.0.1:0'}}
admin: off
"
        )
    }
}
