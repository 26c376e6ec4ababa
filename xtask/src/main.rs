//! The project's own commands: what the README tells a newcomer to type.
//!
//! | module | command |
//! | --- | --- |
//! | [`guests`] | `cargo xtask guests`: the plugins, as WASM |
//! | [`doctor`] | `cargo xtask doctor`: what this machine lacks, and how to get it |
//! | [`test`] | `cargo xtask test`: every promise, against a real broker |
//! | [`demo`] | `cargo xtask demo`: the clickstream pipeline, live |
//! | [`full`] | `cargo xtask demo --full`: the same into ClickHouse tables |
//! | [`bench`] | `cargo xtask bench`: what it costs, beside programs that do the same by hand |
//! | [`broker`], [`clickhouse`], [`leash`] | a real Kafka, a real ClickHouse for as long as a command runs |
//! | [`workspace`], [`clock`] | where things lie; how long things took |

// What a command has to say goes to the terminal.
#![allow(clippy::print_stdout)]

mod bench;
mod broker;
mod clickhouse;
mod clock;
mod demo;
mod doctor;
mod full;
mod guests;
mod leash;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo                       the clickstream pipeline from generated records to files; needs no server
  demo --kafka               the same from topic to topic, on a real broker that is started for it
  demo --brokers HOST:PORT   the same on yours
  demo --full                on into tables, on a Kafka and a ClickHouse that are started for it, and what the tables answer
  test [--long] [FILTER]     every promise against a real Kafka and ClickHouse (KAFKA_BROKERS and CLICKHOUSE_URL, if
                             set, are used instead)
  bench [WHICH] [--json]     what it costs beside native programs: end-to-end, latency, plugin, idle, metrics, swap,
                             clickhouse, soak-clickhouse or windows (--rivals: Kafka Streams too)
  guests                     the plugins, built into target/plugins/NAME.wasm
  doctor [--install]         what this machine lacks, and how to get it; or get it (Debian and Ubuntu, as root)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = args.split_first() else { bail!("{USAGE}") };
    match command.as_str() {
        "demo" => demo::run(&Workspace::find()?, &demo::Options::parse(rest)?),
        "test" => test::run(&Workspace::find()?, &test::Options::parse(rest)?),
        "bench" => bench::run(&Workspace::find()?, rest),
        "guests" => no_more(rest).and_then(|()| guests::run(&Workspace::find()?)),
        "doctor" => doctor::run(&Workspace::find()?, rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("there is no command `{other}`\n\n{USAGE}"),
    }
}

fn no_more(rest: &[String]) -> Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(extra) => bail!("`{extra}` is not expected here\n\n{USAGE}"),
    }
}
