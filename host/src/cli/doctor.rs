//! `millstream doctor`: what this machine offers to a pipeline, and what is missing.

use std::io::Write;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::kafka::client_version;

/// What was found: its name, what it is, and what to do about it where it is missing.
struct Finding {
    name: &'static str,
    found: Option<String>,
    advice: &'static str,
}

pub(super) fn run() -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<22}{}", "millstream", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "{:<22}{}", "librdkafka", client_version())?;
    for Finding { name, found, advice } in findings() {
        match found {
            Some(found) => writeln!(out, "{name:<22}{found}")?,
            None => writeln!(out, "{name:<22}missing: {advice}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn findings() -> Vec<Finding> {
    let cpus = std::thread::available_parallelism().ok().map(|cpus| format!("{cpus} usable"));
    let memory = read("/sys/fs/cgroup/memory.max").filter(|text| text != "max").map(|bytes| format!("{bytes} bytes"));
    let memory = memory.or_else(|| Some(format!("no limit; the machine has {}", machine_memory()?)));
    vec![
        Finding { name: "processors", found: cpus, advice: "set `workers`" },
        Finding { name: "memory", found: memory, advice: "set `memory_limit`" },
        Finding {
            name: "cargo",
            found: first_line("cargo", &["--version"]),
            advice: "needed to build plugins in Rust only; see https://rustup.rs",
        },
        Finding {
            name: "plugins' target",
            found: has_target().then(|| TARGET.to_owned()),
            advice: "needed to build plugins in Rust only: rustup target add wasm32-unknown-unknown",
        },
    ]
}

const TARGET: &str = "wasm32-unknown-unknown";

fn has_target() -> bool {
    let folder = first_line("rustc", &["--print", "target-libdir", "--target", TARGET]);
    folder.is_some_and(|folder| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()))
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn machine_memory() -> Option<String> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().to_owned())
}

/// The first line that a program prints; `None` where it can't be run or fails.
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}
