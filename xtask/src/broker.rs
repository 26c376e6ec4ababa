//! A real Kafka for as long as a command runs.

use std::net::TcpListener;

use anyhow::{Context, Result, bail};

use crate::leash::Leash;
use crate::workspace::Workspace;

/// Ports that a broker takes: clients, controller, and two for its secured listeners.
const PORTS: u16 = 4;
/// Below the range from which Linux takes the near ends of connections.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 32_000;
/// Another program may take a port between our look and the broker's start.
const ATTEMPTS: u32 = 3;

/// A broker that is stopped when this is dropped.
pub(crate) struct Broker {
    address: String,
    leash: Leash,
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
        let controller = ("KAFKA_CTRL_PORT", (port + 1).to_string());
        let more = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings: Vec<_> = more.chain([controller]).collect();
        let leash = Leash::start(workspace, "Kafka", port, &settings)?;
        Ok(Self { address: format!("127.0.0.1:{port}"), leash })
    }

    /// `host:port` for clients.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Leaves the broker's log and data in place when it is stopped, for whoever has to find out what happened.
    pub(crate) fn keep_data(&mut self) {
        self.leash.keep_data();
        eprintln!("the broker's log stays in {}", self.leash.data().join("kafka.log.start").display());
    }
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
}
