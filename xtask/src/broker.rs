//! A real Kafka for as long as a command runs.
//!
//! The broker is on a *leash*: a small process that holds the other end of a pipe and stops the broker when the pipe
//! closes. That happens when the command ends, however it ends: by itself, by ctrl-c, or by kill -9.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Ports that a broker takes: clients, controller, and two for its secured listeners.
const PORTS: u16 = 4;
/// Below the range from which Linux takes the near ends of connections.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 32_000;
/// Another program may take a port between our look and the broker's start.
const ATTEMPTS: u32 = 3;

/// The leash: waits for one line or the pipe's end, stops the broker, and clears its data unless the line says `keep`.
const LEASH: &str = r#"
trap '' INT TERM HUP
read -r word || true
"$0/kafka-down.sh"
[ "${word:-}" = keep ] || rm -rf -- "$KAFKA_DATA"
"#;

/// A broker that is stopped when this is dropped.
pub(crate) struct Broker {
    address: String,
    leash: Child,
    pipe: Option<ChildStdin>,
    keep: bool,
    log: String,
}

impl Broker {
    /// Starts a broker with empty data on ports that are free.
    pub(crate) fn start(workspace: &Workspace) -> Result<Self> {
        Self::start_with(workspace, &[])
    }

    /// The same as one runs it in earnest: with a full compiler and room for its work, which take longer to start.
    pub(crate) fn start_for_measuring(workspace: &Workspace) -> Result<Self> {
        Self::start_with(workspace, &[("KAFKA_TIER", "4"), ("KAFKA_HEAP", "1g")])
    }

    fn start_with(workspace: &Workspace, settings: &[(&str, &str)]) -> Result<Self> {
        let mut from = FIRST_PORT + u16::try_from(std::process::id() % 2_000).unwrap_or(0) * PORTS;
        for attempt in 1..=ATTEMPTS {
            let port = free_ports(from)?;
            match Self::start_on(workspace, port, settings) {
                Ok(broker) => return Ok(broker),
                Err(error) if attempt < ATTEMPTS => eprintln!("{error:#}; trying other ports"),
                Err(error) => return Err(error),
            }
            from = port + PORTS;
        }
        bail!("no broker starts")
    }

    fn start_on(workspace: &Workspace, port: u16, settings: &[(&str, &str)]) -> Result<Self> {
        let data = workspace.infra_state().join(format!("kafka-{port}"));
        let scripts = workspace.root().join("xtask/infra");
        let script = |name: &str| command(Command::new(scripts.join(name)), workspace, port, &data);
        let mut leash = command(Command::new("bash"), workspace, port, &data)
            .args(["-c", LEASH])
            .arg(&scripts)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("can't run bash")?;
        let pipe = leash.stdin.take();
        let log = data.join("kafka.log.start").display().to_string();
        let broker = Self { address: format!("127.0.0.1:{port}"), leash, pipe, keep: false, log };
        // Out of reach of ctrl-c as well: a start that is cut in half leaves no pid to stop.
        let started = script("kafka-up.sh")
            .arg("--fresh")
            .envs(settings.iter().copied())
            .process_group(0)
            .stdin(Stdio::null())
            .status();
        if !started.context("can't run kafka-up.sh")?.success() {
            bail!("Kafka does not start on port {port}; `cargo xtask doctor` says what it needs");
        }
        Ok(broker)
    }

    /// `host:port` for clients.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Leaves the broker's log and data in place when it is stopped, for whoever has to find out what happened.
    pub(crate) fn keep_data(&mut self) {
        self.keep = true;
        eprintln!("the broker's log stays in {}", self.log);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take()
            && self.keep
        {
            // Without the word the data go, and nothing worse happens.
            let _ = pipe.write_all(b"keep\n");
        }
        let _ = self.leash.wait();
    }
}

fn command(mut command: Command, workspace: &Workspace, port: u16, data: &Path) -> Command {
    command
        .env("KAFKA_PORT", port.to_string())
        .env("KAFKA_CTRL_PORT", (port + 1).to_string())
        .env("KAFKA_DATA", data)
        .env("INFRA_STATE", workspace.infra_state())
        .current_dir(workspace.root());
    command
}

/// The first of `PORTS` free ports in a row, looked for from `from` on.
fn free_ports(from: u16) -> Result<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let candidates = (from..LAST_PORT).chain(FIRST_PORT..from).step_by(usize::from(PORTS));
    let mut all_free = candidates.filter(|first| (*first..first + PORTS).all(free));
    all_free.next().context("no free ports for a broker")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_are_passed_over() {
        let first = free_ports(FIRST_PORT).expect("some ports are free");
        let _taken = TcpListener::bind(("127.0.0.1", first + 2)).expect("the port was free");
        let next = free_ports(first).expect("more ports are free");
        assert!(next < first || next >= first + PORTS, "{next} overlaps {first}");
    }

    #[test]
    fn the_leash_acts_when_its_pipe_closes() {
        let folder = std::env::temp_dir().join(format!("millstream-leash-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let script = folder.join("kafka-down.sh");
        std::fs::write(&script, "#!/bin/sh\ntouch \"$(dirname \"$0\")/stopped\"\n").expect("a file");
        std::process::Command::new("chmod").arg("+x").arg(&script).status().expect("chmod runs");
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("a folder");
        let mut leash = Command::new("bash")
            .args(["-c", LEASH])
            .arg(&folder)
            .env("KAFKA_DATA", &data)
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash runs");
        assert!(!folder.join("stopped").exists());
        drop(leash.stdin.take());
        leash.wait().expect("the leash ends");
        assert!(folder.join("stopped").exists() && !data.exists());
        std::fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
