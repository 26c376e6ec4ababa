//! `cargo xtask test`: every promise, against a real Kafka and ClickHouse, which are started for it and stopped after it.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::broker::Broker;
use crate::clickhouse::{self, ClickHouse};
use crate::clock::Clock;
use crate::doctor::{self, Purpose};
use crate::guests;
use crate::workspace::{Workspace, run as run_command};

/// The variable by which tests find their broker, and by which a user names one of theirs.
pub(crate) const BROKERS: &str = "KAFKA_BROKERS";
/// The same for ClickHouse.
pub(crate) const CLICKHOUSE: &str = "CLICKHOUSE_URL";
/// Tests that know a larger size run it where this is set.
const LONG: &str = "MILLSTREAM_LONG";

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    long: bool,
    filter: Option<String>,
}

impl Options {
    /// Reads `[--long] [FILTER]`.
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for arg in args {
            match arg.as_str() {
                "--long" => options.long = true,
                flag if flag.starts_with('-') => bail!("`{flag}` is not known: cargo xtask test [--long] [FILTER]"),
                _ if options.filter.is_some() => bail!("one FILTER is enough: `{arg}` is too much"),
                filter => options.filter = Some(filter.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Runs everything; says how long each part took, also when one fails.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut clock = Clock::start();
    let result = parts(workspace, options, &mut clock);
    eprint!("{}", clock.report());
    result.map(|()| ExitCode::SUCCESS)
}

fn parts(workspace: &Workspace, options: &Options, clock: &mut Clock) -> Result<()> {
    // Some tests start servers of their own whoever gives others.
    doctor::ensure(workspace, Purpose::FOR_TESTS)?;
    clock.part("build the plugins", || guests::build(workspace).map(drop))?;
    clock.part("check the SDK's bindings", || {
        let manifest = "plugins/sdk/bindings-check/Cargo.toml";
        let target = workspace.target().join("bindings-check");
        run_command(workspace.cargo().args(["test", "--manifest-path", manifest, "--target-dir"]).arg(target))
    })?;
    clock.part("install ClickHouse", || clickhouse::install(workspace))?;
    clock.part("build the host and its tests", || run_command(cargo_test(workspace, options).arg("--no-run")))?;
    // After the build: servers beside rustc would only make both wait.
    let mut broker = match given(BROKERS) {
        Some(_) => None,
        None => Some(clock.part("start Kafka", || Broker::start(workspace))?),
    };
    let engine = match given(CLICKHOUSE) {
        Some(_) => None,
        None => Some(clock.part("start ClickHouse", || ClickHouse::start(workspace))?),
    };
    let brokers = broker.as_ref().map(|broker| broker.address().to_owned());
    let url = engine.as_ref().map(ClickHouse::url);
    let result = clock.part("test", || run_tests(workspace, options, brokers.as_deref(), url.as_deref()));
    if let Some(broker) = broker.as_mut().filter(|_| result.is_err()) {
        broker.keep_data();
    }
    clock.part("stop the servers", || {
        drop((broker, engine));
        Ok(())
    })?;
    result
}

/// What the user gives by a variable, with a word on it.
pub(crate) fn given(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
    eprintln!("using {variable}: {value}");
    Some(value)
}

fn run_tests(workspace: &Workspace, options: &Options, brokers: Option<&str>, clickhouse: Option<&str>) -> Result<()> {
    let mut cargo = cargo_test(workspace, options);
    for (name, value) in [(BROKERS, brokers), (CLICKHOUSE, clickhouse)] {
        if let Some(value) = value {
            cargo.env(name, value);
        }
    }
    if options.long {
        cargo.env(LONG, "1");
    }
    // One failure should not hide the next.
    cargo.arg("--no-fail-fast");
    if let Some(filter) = options.filter.as_deref().filter(|filter| !is_promise(workspace, filter)) {
        cargo.args(["--", filter]);
    }
    run_command(&mut cargo)
}

/// The workspace's tests, or one file of `tests/` where the filter names it.
fn cargo_test(workspace: &Workspace, options: &Options) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace"]);
    if let Some(name) = options.filter.as_deref().filter(|filter| is_promise(workspace, filter)) {
        cargo.args(["--test", name]);
    }
    cargo
}

fn is_promise(workspace: &Workspace, filter: &str) -> bool {
    let plain = filter.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain && workspace.root().join("tests").join(format!("{filter}.rs")).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_in_any_order() {
        let expected = Options { long: true, filter: Some("delivery".into()) };
        assert_eq!(parse(&["--long", "delivery"]).expect("good"), expected);
        assert_eq!(parse(&["delivery", "--long"]).expect("good"), expected);
        assert_eq!(parse(&[]).expect("good"), Options::default());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parse(&["--lnog"]).is_err());
        assert!(parse(&["a", "b"]).is_err());
    }
}
