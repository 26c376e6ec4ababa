//! `cargo xtask demo`: the clickstream pipeline, live, and where its results lie.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::broker::Broker;
use crate::clock::Clock;
use crate::doctor::{self, Purpose};
use crate::full;
use crate::guests;
use crate::test::BROKERS;
use crate::workspace::{Workspace, run as run_command};

const TO_FILES: &str = "deploy/pipelines/clickstream-demo.yaml";
const TO_KAFKA: &str = "deploy/pipelines/clickstream.yaml";
/// The file of [`TO_FILES`]'s main output.
const ENRICHED: &str = "enriched_events.ndjson";
/// What the pipelines' variables are in the demo, unless the user has set them: ten seconds to watch, and windows that close
/// soon when nothing follows.
const DEFAULTS: &[(&str, &str)] = &[
    ("RECORDS", "200000"),
    ("RECORDS_PER_SECOND", "20000"),
    ("CREATE_TOPICS", "true"),
    ("IDLE", "3s"),
    ("CLOSE_AFTER", "5s"),
];
/// The topic that [`TO_KAFKA`] reads, and those that it writes.
pub(crate) const INPUT_TOPIC: &str = "my_events";
const OUTPUT_TOPICS: &str = "enriched_events (results) and dlq (dead letters, the reason in their headers)";

/// Where the demo's records go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Options {
    /// From the generator to files; no server.
    Files,
    /// From topic to topic on a broker that is started for it.
    OwnKafka,
    /// The same on a broker of the user's.
    Kafka(String),
    /// From a topic to topics and tables, on servers that are started for it.
    Full,
}

impl Options {
    /// Reads `[--kafka | --brokers HOST:PORT | --full]`.
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Ok(match args.as_slice() {
            [] => Self::Files,
            ["--kafka"] => Self::OwnKafka,
            ["--full"] => Self::Full,
            ["--brokers", brokers] => Self::Kafka((*brokers).to_owned()),
            _ => bail!("usage: cargo xtask demo [--kafka | --brokers HOST:PORT | --full]"),
        })
    }
}

/// Builds what is needed, runs the pipeline, and says where the results lie.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut clock = Clock::start();
    let result = parts(workspace, options, &mut clock);
    eprint!("{}", clock.report());
    result.map(|()| ExitCode::SUCCESS)
}

fn parts(workspace: &Workspace, options: &Options, clock: &mut Clock) -> Result<()> {
    let needed: &[Purpose] = match options {
        Options::Files | Options::Kafka(_) => &[Purpose::Build],
        Options::OwnKafka => &[Purpose::Build, Purpose::Kafka],
        Options::Full => &[Purpose::Build, Purpose::Kafka, Purpose::ClickHouse],
    };
    doctor::ensure(workspace, needed)?;
    clock.part("build the plugins", || guests::build(workspace).map(drop))?;
    clock.part("build the host (the first time takes minutes)", || {
        run_command(workspace.cargo().args(["build", "--package", "millstream"]))
    })?;
    match options {
        Options::Files => clock.part("run", || to_files(workspace)),
        Options::Kafka(brokers) => clock.part("run", || to_kafka(workspace, brokers)),
        Options::OwnKafka => {
            let broker = clock.part("start Kafka", || Broker::start(workspace))?;
            clock.part("run", || to_kafka(workspace, broker.address()))?;
            wait_for_the_user(broker.address());
            Ok(())
        }
        Options::Full => full::run(workspace, clock),
    }
}

fn to_files(workspace: &Workspace) -> Result<()> {
    let results = results(workspace);
    match std::fs::remove_dir_all(&results) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't clear {}", results.display()));
        }
        _ => std::fs::create_dir_all(&results).with_context(|| format!("can't make {}", results.display()))?,
    }
    run_command(millstream(workspace).args(["run", TO_FILES, "--progress"]))?;
    println!("\nresults in {}:", results.display());
    for line in listing(&results)? {
        println!("  {line}");
    }
    println!("one of them:\n  {}", first_line(&results.join(ENRICHED))?);
    println!("the pipeline: {TO_FILES}; the plugins: plugins/validate, plugins/upcast, plugins/enrich");
    Ok(())
}

/// The first line of a file that was just written.
fn first_line(file: &Path) -> Result<String> {
    let name = || file.display().to_string();
    let mut line = String::new();
    let mut reader = BufReader::new(File::open(file).with_context(name)?);
    reader.read_line(&mut line).with_context(name)?;
    Ok(line.trim_end().to_owned())
}

fn to_kafka(workspace: &Workspace, brokers: &str) -> Result<()> {
    let host = || {
        let mut host = millstream(workspace);
        host.env(BROKERS, brokers);
        host
    };
    let records = variable("RECORDS");
    eprintln!("filling {INPUT_TOPIC} with {records} records");
    let to = ["--brokers", brokers, "--topic", INPUT_TOPIC];
    run_command(host().arg("generate").args(to).args(["--records", &records]))?;
    run_command(host().args(["run", TO_KAFKA, "--progress", "--until-end"]))?;
    println!("\nresults: the topics {OUTPUT_TOPICS} on {brokers}");
    println!("the pipeline: {TO_KAFKA}; the plugins: plugins/validate, plugins/upcast, plugins/enrich");
    Ok(())
}

/// A broker of the demo's own ends with it; whoever sits at a terminal may look around first.
fn wait_for_the_user(address: &str) {
    if std::io::stdin().is_terminal() {
        println!("the broker still runs on {address}: press Enter to stop it");
        let mut line = String::new();
        // An end of the input is as good as Enter.
        let _ = std::io::stdin().read_line(&mut line);
    }
}

fn results(workspace: &Workspace) -> PathBuf {
    workspace.target().join("demo")
}

/// The host, with the variables that the demo's pipelines name.
pub(crate) fn millstream(workspace: &Workspace) -> Command {
    let mut command = workspace.command(workspace.host());
    command.env("MILLSTREAM_RESULTS", results(workspace));
    command.envs(DEFAULTS.iter().map(|(name, _)| (*name, variable(name))));
    command
}

/// The user's value, or the demo's.
fn variable(name: &str) -> String {
    let default = || DEFAULTS.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| *value).to_owned();
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(default)
}

/// One line a file: its path and its size.
fn listing(folder: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))? {
        let entry = entry?;
        let data = entry.metadata()?;
        if data.is_dir() {
            lines.extend(listing(&entry.path())?);
        } else {
            lines.push(format!("{}  {} KiB", entry.path().display(), data.len().div_ceil(1024)));
        }
    }
    lines.sort();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_say_where_records_go() {
        assert_eq!(parse(&[]).expect("good"), Options::Files);
        assert_eq!(parse(&["--kafka"]).expect("good"), Options::OwnKafka);
        assert_eq!(parse(&["--brokers", "k:9092"]).expect("good"), Options::Kafka("k:9092".into()));
        assert_eq!(parse(&["--full"]).expect("good"), Options::Full);
        assert!(parse(&["--brokers"]).is_err());
        assert!(parse(&["--kafka", "--brokers", "k:9092"]).is_err());
    }
}
