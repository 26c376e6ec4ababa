//! `cargo xtask doctor`: what this machine lacks, and how to get it.
//!
//! The list is data: each thing says how to see that it is there, which Debian package brings it, and what it is for.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::guests::{ensure_target, has_target};
use crate::workspace::{WASM_TARGET, Workspace, run as run_command};

/// What a thing is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Building the host and the plugins.
    Build,
    /// Starting a real Kafka: tests, `demo --kafka`, benches.
    Kafka,
    /// Starting a real ClickHouse: tests.
    ClickHouse,
    /// The tests of metrics and alerts.
    Prometheus,
    /// Programs of other frameworks, which benches measure where they are asked to.
    Rivals,
    /// Only for what its description says.
    Optional,
}

impl Purpose {
    /// Everything that the tests need.
    pub(crate) const FOR_TESTS: &[Self] = &[Self::Build, Self::Kafka, Self::ClickHouse, Self::Prometheus];

    /// Neither build nor tests need it.
    fn is_optional(self) -> bool {
        matches!(self, Self::Rivals | Self::Optional)
    }
}

/// One thing that a machine has or lacks.
struct Need {
    name: &'static str,
    purpose: Purpose,
    why: &'static str,
    package: &'static str,
    check: fn() -> bool,
}

const NEEDS: &[Need] = &[
    need("cc", Purpose::Build, "librdkafka is C", "gcc", || answers("cc", "--version")),
    need("c++", Purpose::Build, "librdkafka's build makes its C++ half too", "g++", || answers("c++", "--version")),
    need("make", Purpose::Build, "librdkafka's build", "make", || answers("make", "--version")),
    need("bash", Purpose::Build, "librdkafka's configure and the scripts here", "bash", || {
        answers("bash", "--version")
    }),
    need("pkg-config", Purpose::Build, "finds OpenSSL", "pkg-config", || answers("pkg-config", "--version")),
    need("OpenSSL headers", Purpose::Build, "TLS and SASL", "libssl-dev", || library("openssl")),
    need("zlib headers", Purpose::Optional, "else the build compiles its own", "zlib1g-dev", || library("zlib")),
    need("Java 17 or newer", Purpose::Kafka, "Kafka runs on it", "openjdk-17-jre-headless", java_is_new_enough),
    need("Maven", Purpose::Kafka, "fetches Kafka's jars", "maven", || answers("mvn", "--version")),
    need(
        "javac",
        Purpose::Rivals,
        "compiles what `bench windows --rivals` measures",
        "openjdk-17-jdk-headless",
        || answers("javac", "--version"),
    ),
    need("openssl", Purpose::Kafka, "certificates for the tests of TLS", "openssl", || answers("openssl", "version")),
    need("Prometheus", Purpose::Prometheus, "reads the metrics in tests", "prometheus", || {
        answers("prometheus", "--version") && answers("promtool", "--version")
    }),
    need(
        "python3 with venv",
        Purpose::ClickHouse,
        "its engine is a Python package; plugins in Python",
        "python3-venv",
        || answers("python3", "-cimport ensurepip, venv"),
    ),
];

const fn need(
    name: &'static str,
    purpose: Purpose,
    why: &'static str,
    package: &'static str,
    check: fn() -> bool,
) -> Need {
    Need { name, purpose, why, package, check }
}

/// Prints everything that is looked at; exit code 1 where something needed is missing. `--install` gets it first.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    match args {
        [] => {}
        [flag] if flag == "--install" => install(workspace, Purpose::FOR_TESTS)?,
        _ => bail!("usage: cargo xtask doctor [--install]"),
    }
    println!("rust: {}", version(workspace));
    let target = has_target(workspace)?;
    println!("{} {WASM_TARGET}{}", mark(target), if target { "" } else { ": `cargo xtask guests` adds it by rustup" });
    let mut missing = Vec::new();
    for need in NEEDS {
        let there = (need.check)();
        println!("{} {:<18} {}{}", mark(there), need.name, need.why, hint(need, there));
        if !there && !need.purpose.is_optional() {
            missing.push(need.package);
        }
    }
    if missing.is_empty() {
        println!("\nnothing that is needed is missing");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{}", how_to_get(&missing));
    Ok(ExitCode::FAILURE)
}

/// Makes sure of everything that the purposes need: says what to install, or installs it where it was asked to.
pub(crate) fn ensure(workspace: &Workspace, purposes: &[Purpose]) -> Result<()> {
    let missing = missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    if !may_install() {
        bail!("this machine lacks what the command needs.\n{}", how_to_get(&missing));
    }
    install(workspace, purposes)
}

/// Gets what is missing: Debian's packages, which needs root, and the WASM target.
fn install(workspace: &Workspace, purposes: &[Purpose]) -> Result<()> {
    ensure_target(workspace)?;
    let missing = missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    let apt = |args: &[&str]| {
        let mut command = workspace.command("apt-get");
        run_command(command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()))
    };
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y", "--no-install-recommends"], missing.as_slice()].concat())?;
    match self::missing(purposes).as_slice() {
        [] => Ok(()),
        still => bail!("installed, and still missing: {}", still.join(", ")),
    }
}

/// The packages that are missing for these purposes.
fn missing(purposes: &[Purpose]) -> Vec<&'static str> {
    let lacks = |need: &&Need| purposes.contains(&need.purpose) && !(need.check)();
    NEEDS.iter().filter(lacks).map(|need| need.package).collect()
}

/// Installing is somebody's wish, or that of a CI machine that is ours alone.
fn may_install() -> bool {
    let set = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let root = || Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let apt = || answers("apt-get", "--version");
    (set("MILLSTREAM_INSTALL", "1") || set("CI", "true") && root()) && apt()
}

fn how_to_get(missing: &[&str]) -> String {
    format!(
        "On Debian or Ubuntu:\n\n  sudo apt-get install {}\n\n\
         or, as root: cargo xtask doctor --install",
        missing.join(" ")
    )
}

fn hint(need: &Need, there: bool) -> String {
    match (there, need.purpose.is_optional()) {
        (true, _) => String::new(),
        (false, true) => format!(" (optional: {})", need.package),
        (false, false) => format!(" (MISSING: {})", need.package),
    }
}

fn mark(there: bool) -> &'static str {
    if there { "ok " } else { "-- " }
}

fn version(workspace: &Workspace) -> String {
    let output = workspace.command("rustc").arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn answers(program: &str, arg: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(arg).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn library(name: &str) -> bool {
    let known = Command::new("pkg-config").args(["--exists", name]).status().is_ok_and(|status| status.success());
    known || Path::new("/usr/include").join(name).is_dir()
}

fn java_is_new_enough() -> bool {
    let java = std::env::var("INFRA_JAVA").unwrap_or_else(|_| "java".to_owned());
    let output = Command::new(java).arg("-version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| java_version(&String::from_utf8_lossy(&output.stderr)).is_some_and(|major| major >= 17))
}

/// The major version out of `openjdk version "17.0.15" 2025-04-15`.
fn java_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    quoted.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javas_version_is_read() {
        assert_eq!(java_version("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(java_version("openjdk version \"21\" 2023-09-19\n"), Some(21));
        assert_eq!(java_version("java version \"1.8.0_292\"\n"), Some(1));
        assert_eq!(java_version("command not found"), None);
    }

    #[test]
    fn a_missing_program_is_seen() {
        assert!(answers("sh", "-c true") || answers("true", ""));
        assert!(!answers("no-such-program-here", "--version"));
        assert!(!library("no-such-library-here"));
    }

    #[test]
    fn the_message_is_a_command_to_type() {
        let message = how_to_get(&["maven", "libssl-dev"]);
        assert!(message.contains("sudo apt-get install maven libssl-dev"), "{message}");
    }
}
