//! The benches themselves: they start contenders, watch them from outside, and print what came of it.
//!
//! All contenders are measured the same way. CPU and memory are the kernel's figures for the whole process, from its
//! start to its end; "first record" is when a read_committed consumer can see one, counted from the process's start; the
//! end is when the group's committed offsets reach the end of the input.

mod clickhouse;
mod contender;
mod end_to_end;
mod idle;
mod latency;
mod metrics;
mod plugin;
mod process;
mod report;
mod swap;
mod windows;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::Args;

/// Where everything is that the benches need.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// `host:port` of the broker.
    brokers: String,
    /// The `millstream` binary.
    millstream: PathBuf,
    /// Where the guests lie.
    plugins: PathBuf,
    /// Where configurations and logs of the runs go.
    work: PathBuf,
    /// Where the contenders lie.
    programs: PathBuf,
}

/// Runs the bench that `args` name and prints its rows.
pub fn run(args: &Args) -> Result<()> {
    let rows = if args.command() == "plugin" { plugin::run(args)? } else { with_broker(args)? };
    report::print(&rows, args.has("json"));
    Ok(())
}

fn with_broker(args: &Args) -> Result<Vec<report::Row>> {
    let programs = std::env::current_exe().context("where am I?")?;
    let setting = Setting {
        brokers: args.text("brokers")?,
        millstream: args.text("millstream")?.into(),
        plugins: args.text("plugins")?.into(),
        work: args.text("work")?.into(),
        programs: programs.parent().context("this program lies in no folder")?.to_owned(),
    };
    std::fs::create_dir_all(&setting.work).context("can't make the folder for the runs")?;
    match args.command() {
        // They print more than one table.
        "clickhouse" => clickhouse::run(&setting, args).map(|()| Vec::new()),
        "soak-clickhouse" => clickhouse::soak(&setting, args).map(|()| Vec::new()),
        "end-to-end" => end_to_end::run(&setting, args),
        "latency" => latency::run(&setting, args),
        "idle" => idle::run(&setting, args),
        "metrics" => metrics::run(&setting, args),
        "swap" => swap::run(&setting, args),
        "windows" => windows::run(&setting, args).map(|()| Vec::new()),
        other => bail!("there is no bench {other:?}"),
    }
}

impl Setting {
    /// A program of this crate.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.args(["--brokers", &self.brokers]).stdin(Stdio::null());
        command
    }

    /// A command of `bench_kafka` that is still to get its options.
    fn broker_tool(&self, verb: &str, options: &[(&str, &str)]) -> Command {
        self.tool("bench_kafka", verb, options)
    }

    /// Runs `bench_kafka` and returns what it prints last.
    fn ask_broker(&self, verb: &str, options: &[(&str, &str)]) -> Result<Value> {
        self.ask("bench_kafka", verb, options)
    }

    fn tool(&self, program: &str, verb: &str, options: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.arg(verb).args(["--brokers", &self.brokers]).stdin(Stdio::null());
        for (name, value) in options {
            command.args([&format!("--{name}"), *value]);
        }
        command
    }

    fn ask(&self, program: &str, verb: &str, options: &[(&str, &str)]) -> Result<Value> {
        let output = self.tool(program, verb, options).stderr(Stdio::inherit()).output().context(program.to_owned())?;
        if !output.status.success() {
            bail!("{program} {verb} failed");
        }
        last_line(&String::from_utf8_lossy(&output.stdout))
    }
}

/// The JSON on the last line of some output.
fn last_line(text: &str) -> Result<Value> {
    let line = text.lines().last().context("no output")?;
    serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))
}

/// A figure of a JSON object.
fn figure(object: &Value, name: &str) -> Result<f64> {
    object[name].as_f64().with_context(|| format!("no figure `{name}` in {object}"))
}
