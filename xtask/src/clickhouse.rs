//! A real ClickHouse engine for as long as a command runs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::leash::Leash;
use crate::workspace::{Workspace, run as run_command};

/// Below the range from which Linux takes the near ends of connections, and above the brokers'.
const PORTS: std::ops::Range<u16> = 32_000..32_700;

/// An engine that is stopped when this is dropped.
pub(crate) struct ClickHouse {
    port: u16,
    leash: Leash,
}

/// Installs the engine, once for each target directory: 566 MB.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let mut script = workspace.command(workspace.script("clickhouse-up.sh"));
    run_command(script.arg("--install").env("INFRA_STATE", workspace.infra_state()).stdin(Stdio::null()))
}

impl ClickHouse {
    /// Starts an engine with empty data on a port that is free, and waits until it answers.
    pub(crate) fn start(workspace: &Workspace) -> Result<Self> {
        let begin = u16::try_from(std::process::id() % 700).unwrap_or(0);
        let candidates = (PORTS.start + begin..PORTS.end).chain(PORTS.start..PORTS.start + begin);
        let mut free = candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let port = free.next().context("no free port for ClickHouse")?;
        Ok(Self { port, leash: Leash::start(workspace, "ClickHouse", port, &[])? })
    }

    /// What it answers to a query.
    pub(crate) fn query(&self, sql: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).context("can't reach ClickHouse")?;
        let (port, length) = (self.port, sql.len());
        let head = format!(
            "POST /?wait_end_of_query=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {length}"
        );
        stream.write_all(format!("{head}\r\n\r\n{sql}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.split(' ').nth(1) != Some("200") {
            bail!("ClickHouse refuses `{sql}`: {body}");
        }
        Ok(body.trim_end().to_owned())
    }

    /// The engine's process, for those who watch what it uses.
    pub(crate) fn process_id(&self) -> Result<String> {
        let file = self.leash.data().join("clickhouse.pid");
        let text = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        Ok(text.trim().to_owned())
    }

    /// The address for clients.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
