//! `swap`: the same load with and without plugins that are swapped one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use millstream::http::Client;

use super::contender::{Contender, Run};
use super::process::Process;
use super::report::Row;
use super::{Setting, figure, last_line};
use crate::Args;

const BENCH: &str = "swap";
const MILLSTREAM: Contender = Contender::Millstream { exactly_once: true };
const START: Duration = Duration::from_secs(3);
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the load runs before swaps begin; the probe measures from then on.
const WARM_UP: Duration = Duration::from_secs(5);

pub(super) fn run(setting: &Setting, args: &Args) -> Result<Vec<Row>> {
    let rate: u64 = args.get("rate", 20_000)?;
    let seconds: u64 = args.get("seconds", 30)?;
    let swaps: u64 = args.get("swaps", 1_000)?;
    let without = one_run(setting, (rate, seconds), 0)?;
    let with = one_run(setting, (rate, seconds), swaps)?;
    let rows = [("no swaps".to_owned(), without), (format!("{swaps} swaps"), with)];
    Ok(rows.into_iter().map(|(name, figures)| Row::new(BENCH, format!("millstream, {name}"), figures)).collect())
}

fn one_run(setting: &Setting, (rate, seconds): (u64, u64), swaps: u64) -> Result<Vec<(&'static str, f64)>> {
    let label = format!("swap-{swaps}-{}", std::process::id());
    let mut run = Run::new(setting, MILLSTREAM, &format!("my_events-{label}"), &label)?;
    let (admin, observe) = (free_port()?, free_port()?);
    let store = setting.work.join("swaps");
    run.more = format!(
        "observe: {{listen: '{observe}'}}\nadmin: {{listen: '{admin}'}}\nswap: {{window_ms: 0, store: '{}'}}\n",
        store.display()
    );
    let process = Process::start(run.command(None)?, &run.log())?;
    std::thread::sleep(START);
    let probe = probe(setting, &run, (rate, seconds))?;
    std::thread::sleep(WARM_UP);
    let took = swap_in_turn(setting, admin, swaps)?;
    let rest = Duration::from_secs(if swaps == 0 { seconds } else { 1 });
    std::thread::sleep(rest);
    let metrics = Client::new(&format!("http://{observe}"), None, None)?.get("/metrics")?;
    let pauses = buckets(&String::from_utf8_lossy(&metrics));
    let output = probe.wait_with_output()?;
    ensure!(output.status.success(), "latency_probe failed");
    let latency = last_line(&String::from_utf8_lossy(&output.stdout))?;
    let mut process = process;
    process.terminate()?;
    process.wait(END_TIMEOUT)?;
    run.clean_up()?;
    let mut figures = vec![
        ("p50_ms", figure(&latency, "p50_ms")?),
        ("p99_ms", figure(&latency, "p99_ms")?),
        ("longest_silence_ms", figure(&latency, "longest_silence_ms")?),
    ];
    if swaps > 0 {
        figures.push(("pause_p50_at_most_ms", within(&pauses, 0.5) * 1e3));
        figures.push(("pause_p99_at_most_ms", within(&pauses, 0.99) * 1e3));
        figures.push(("swaps_per_s", swaps as f64 / took.as_secs_f64()));
    }
    eprintln!("  {figures:.2?}");
    Ok(figures)
}

fn probe(setting: &Setting, run: &Run<'_>, (rate, seconds): (u64, u64)) -> Result<std::process::Child> {
    let mut command: Command = setting.program("latency_probe");
    command.args(["--input", &run.input, "--output", &run.output]);
    command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
    command.stdout(Stdio::piped()).spawn().context("latency_probe")
}

/// Swaps two versions of a plugin in turn; returns how long all of them took.
fn swap_in_turn(setting: &Setting, admin: SocketAddr, swaps: u64) -> Result<Duration> {
    let client = Client::new(&format!("http://{admin}"), None, None)?.with_patience(Duration::from_secs(90));
    let code = fs::read(setting.plugins.join("validate.wasm")).context("validate.wasm")?;
    let started = Instant::now();
    for number in 0..swaps {
        let bytes = version(&code, number % 2);
        client.send("PUT", "/v1/stages/validate/plugin", "application/wasm", &bytes)?;
    }
    Ok(started.elapsed())
}

/// The same code under another digest: a custom section that nobody reads says which.
fn version(code: &[u8], number: u64) -> Vec<u8> {
    let text = format!("\u{5}bench{number}");
    [code, &[0, text.len() as u8], text.as_bytes()].concat()
}

/// The cumulative counts of the histogram of pauses, by their bounds in microseconds.
fn buckets(metrics: &str) -> BTreeMap<u64, f64> {
    let bucket = |line: &str| {
        let rest = line.strip_prefix("millstream_swap_pause_seconds_bucket")?;
        let bound: f64 = rest.split_once("le=\"")?.1.split_once('"')?.0.parse().ok()?;
        let count: f64 = rest.rsplit_once(' ')?.1.parse().ok()?;
        Some((if bound.is_finite() { (bound * 1e6) as u64 } else { u64::MAX }, count))
    };
    metrics.lines().filter_map(bucket).collect()
}

/// The bound, in seconds, within which this share of the pauses lies.
fn within(buckets: &BTreeMap<u64, f64>, share: f64) -> f64 {
    let all = buckets.values().copied().fold(0.0, f64::max);
    let bound = buckets.iter().find(|(_, count)| **count >= all * share).map(|(bound, _)| *bound as f64 / 1e6);
    bound.unwrap_or(f64::INFINITY)
}

/// A port that is free now.
fn free_port() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).context("no free port")
}
