//! `cargo xtask bench [WHICH] [--json] [--NAME VALUE …]`: what Millstream costs beside programs that do the same by hand,
//! measured side by side in one run.
//!
//! The work is done by the crate `millstream-bench`; here everything is built for release, and servers are started.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::broker::Broker;
use crate::clickhouse::{self, ClickHouse};
use crate::doctor::{self, Purpose};
use crate::guests;
use crate::test::{BROKERS, CLICKHOUSE, given};
use crate::workspace::{Workspace, run as run_command};

const BENCHES: [&str; 9] =
    ["end-to-end", "latency", "plugin", "idle", "metrics", "swap", "clickhouse", "soak-clickhouse", "windows"];
/// With this, programs of other frameworks take part.
const RIVALS: &str = "--rivals";
/// What the Python contender is made of.
const PYTHON_PACKAGES: [&str; 2] = ["clickhouse-connect==1.12.0", "confluent-kafka==2.16.1"];

/// Builds what is needed and runs one bench; options go to it as they are.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let (bench, options) = match args.split_first() {
        Some((name, rest)) if !name.starts_with('-') => (name.as_str(), rest),
        _ => (BENCHES[0], args),
    };
    if !BENCHES.contains(&bench) {
        bail!("there is no bench `{bench}`: it is one of {}", BENCHES.join(", "));
    }
    let to_tables = bench.ends_with("clickhouse");
    let given_brokers = given(BROKERS);
    let given_url = if to_tables { given(CLICKHOUSE) } else { None };
    let own_broker = bench != "plugin" && given_brokers.is_none();
    let rivals = bench == "windows" && options.iter().any(|option| option == RIVALS);
    let purposes = [(Purpose::Build, true), (Purpose::Kafka, own_broker || rivals), (Purpose::Rivals, rivals)];
    let purposes: Vec<Purpose> = purposes.iter().filter(|(_, needed)| *needed).map(|(purpose, _)| *purpose).collect();
    doctor::ensure(workspace, &purposes)?;
    guests::build(workspace)?;
    let packages = ["build", "--release", "--package", "millstream", "--package", "millstream-bench"];
    run_command(workspace.cargo().args(packages))?;
    let own_engine = to_tables && given_url.is_none();
    if to_tables {
        let manifest = "bench/native-clickhouse/Cargo.toml";
        let contender = ["build", "--release", "--locked", "--manifest-path", manifest, "--target-dir"];
        run_command(workspace.cargo().args(contender).arg(workspace.target()))?;
    }
    if own_engine {
        clickhouse::install(workspace)?;
    }
    let python = if bench == "clickhouse" { python(workspace) } else { None };
    let class_path = if rivals { Some(kafka_streams(workspace)?) } else { None };
    // After the build: a JVM beside rustc would only make both wait.
    let engine = if own_engine { Some(ClickHouse::start(workspace)?) } else { None };
    let broker = if own_broker { Some(Broker::start_for_measuring(workspace)?) } else { None };
    let mut command = workspace.command(workspace.released("bench"));
    command.arg(bench);
    if let Some(address) = broker.as_ref().map(Broker::address).or(given_brokers.as_deref()) {
        command.args(["--brokers", address]);
    }
    if let Some(url) = engine.as_ref().map(ClickHouse::url).or(given_url) {
        command.args(["--clickhouse", &url]);
    }
    if let Some(engine) = &engine {
        command.args(["--clickhouse-pid", &engine.process_id()?]);
    }
    let path = |name: &str, path: &Path| [format!("--{name}"), path.display().to_string()];
    command.args(path("millstream", &workspace.released("millstream")));
    command.args(path("plugins", &workspace.plugins()));
    if let Some(python) = &python {
        command.args(path("python", python));
        command.args(path("script", &workspace.root().join("bench/clickhouse_consumer.py")));
    }
    if let Some(class_path) = &class_path {
        command.args(path("class-path", class_path));
    }
    command.args(path("work", &workspace.target().join("bench")));
    run_command(command.args(options)).map(|()| ExitCode::SUCCESS)
}

/// A Python with what the contender needs, made once for each target directory; `None`, with a word, where that fails.
fn python(workspace: &Workspace) -> Option<PathBuf> {
    let folder = workspace.target().join("bench/python");
    let (python, mark) = (folder.join("bin/python"), folder.join("packages"));
    let packages = PYTHON_PACKAGES.join(" ");
    if std::fs::read_to_string(&mark).is_ok_and(|made| made == packages) {
        return Some(python);
    }
    eprintln!("installing the Python contender's packages ...");
    let made = run_command(workspace.command("python3").args(["-m", "venv", "--clear"]).arg(&folder)).and_then(|()| {
        let pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"];
        run_command(workspace.command(&python).args(pip).args(PYTHON_PACKAGES).stdin(Stdio::null()))?;
        Ok(std::fs::write(&mark, &packages)?)
    });
    match made {
        Ok(()) => Some(python),
        Err(why) => {
            eprintln!("there is no Python contender: {why:#}");
            None
        }
    }
}

/// Compiles the Kafka Streams program; returns the file with its class path.
fn kafka_streams(workspace: &Workspace) -> Result<PathBuf> {
    let (folder, target) = ("tests/peers/kafka-streams", workspace.target().join("peers/kafka-streams"));
    let (sources, class_path) = (workspace.root().join(folder), target.join("class-path"));
    eprintln!("compiling Kafka Streams' program with Maven ...");
    let mut maven = workspace.command("mvn");
    maven.args(["-q", "-B", "-f"]).arg(sources.join("pom.xml")).arg(format!("-Dpeer.target={}", target.display()));
    maven.args(["compile", "dependency:build-classpath", "-Dmdep.includeScope=runtime"]);
    run_command(maven.arg(format!("-Dmdep.outputFile={}", class_path.display())).stdin(Stdio::null()))?;
    let jars = std::fs::read_to_string(&class_path)?;
    std::fs::write(&class_path, format!("{}:{}", target.join("classes").display(), jars.trim()))?;
    Ok(class_path)
}
