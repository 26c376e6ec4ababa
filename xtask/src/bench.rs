//! `cargo xtask bench [end-to-end | latency | plugin | idle | metrics | swap] [--json] [--NAME VALUE …]`: what Millstream costs beside
//! programs that do the same by hand, measured side by side in one run.
//!
//! The work is done by the crate `millstream-bench`; here everything is built for release and a broker is started.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::broker::Broker;
use crate::doctor::{self, Purpose};
use crate::guests;
use crate::test::BROKERS;
use crate::workspace::{Workspace, run as run_command};

const BENCHES: [&str; 6] = ["end-to-end", "latency", "plugin", "idle", "metrics", "swap"];

/// Builds what is needed and runs one bench; options go to it as they are.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let (bench, options) = match args.split_first() {
        Some((name, rest)) if !name.starts_with('-') => (name.as_str(), rest),
        _ => (BENCHES[0], args),
    };
    if !BENCHES.contains(&bench) {
        bail!("there is no bench `{bench}`: it is one of {}", BENCHES.join(", "));
    }
    let given = std::env::var(BROKERS).ok().filter(|brokers| !brokers.is_empty());
    let own_broker = bench != "plugin" && given.is_none();
    doctor::ensure(workspace, if own_broker { &[Purpose::Build, Purpose::Kafka] } else { &[Purpose::Build] })?;
    guests::build(workspace)?;
    let packages = ["build", "--release", "--package", "millstream", "--package", "millstream-bench"];
    run_command(workspace.cargo().args(packages))?;
    // After the build: a JVM beside rustc would only make both wait.
    let broker = if own_broker { Some(Broker::start_for_measuring(workspace)?) } else { None };
    let mut command = workspace.command(workspace.released("bench"));
    command.arg(bench);
    if let Some(address) = broker.as_ref().map(Broker::address).or(given.as_deref()) {
        command.args(["--brokers", address]);
    }
    let path = |name: &str, path: &Path| [format!("--{name}"), path.display().to_string()];
    command.args(path("millstream", &workspace.released("millstream")));
    command.args(path("plugins", &workspace.plugins()));
    command.args(path("work", &workspace.target().join("bench")));
    run_command(command.args(options)).map(|()| ExitCode::SUCCESS)
}
