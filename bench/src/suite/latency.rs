//! `latency`: records at a steady rate, and how long each takes to be visible.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::contender::{Contender, Run};
use super::process::Process;
use super::report::{Row, median};
use super::{Setting, figure, last_line};
use crate::Args;

const BENCH: &str = "latency";
const MILLSTREAM: Contender = Contender::Millstream { exactly_once: true };
/// How often everybody else commits.
const USUAL_COMMIT_MS: u64 = 100;
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a contender has for its start before records are sent.
const START: Duration = Duration::from_secs(3);
const FIGURES: [&str; 7] =
    ["p50_ms", "p95_ms", "p99_ms", "max_ms", "cpu_percent_of_core", "commits_per_s", "sender_behind_ms"];

type Figures = [f64; FIGURES.len()];

pub(super) fn run(setting: &Setting, args: &Args) -> Result<Vec<Row>> {
    let seconds: u64 = args.get("seconds", 30)?;
    let rounds: u64 = args.get("rounds", 1)?;
    let rate: u64 = args.get("rate", 5_000)?;
    let (mut ours, mut matched, mut usual) = (Vec::new(), Vec::new(), Vec::new());
    let mut matched_ms = 0;
    for round in 1..=rounds {
        let measure = |contender: Contender| one_run(setting, contender, (rate, seconds), round);
        ours.push(measure(MILLSTREAM)?);
        // As often as Millstream does by itself under this load.
        let commits_per_s = median(ours.iter().map(|run| run[5]).collect());
        matched_ms = (1e3 / commits_per_s).round().max(1.0) as u64;
        matched.push(measure(Contender::Native { commit_ms: matched_ms })?);
        usual.push(measure(Contender::Native { commit_ms: USUAL_COMMIT_MS })?);
    }
    let mut rows = vec![
        row(MILLSTREAM.name(), &ours),
        row(Contender::Native { commit_ms: matched_ms }.name(), &matched),
        row(Contender::Native { commit_ms: USUAL_COMMIT_MS }.name(), &usual),
    ];
    // The ratio is that of CPU, to the native program that commits as often.
    let native = rows[1].figure(FIGURES[4]);
    rows.iter_mut().for_each(|row| row.compare(native, FIGURES[4]));
    Ok(rows)
}

fn row(name: String, runs: &[Figures]) -> Row {
    let middle = |at: usize| median(runs.iter().map(|run| run[at]).collect());
    Row::new(BENCH, name, FIGURES.iter().enumerate().map(|(at, &name)| (name, middle(at))).collect())
}

fn one_run(setting: &Setting, contender: Contender, (rate, seconds): (u64, u64), round: u64) -> Result<Figures> {
    eprintln!("latency, round {round}: {}", contender.name());
    let label = format!("latency-{}-{round}-{}", contender.name().replace([' ', ','], "_"), std::process::id());
    let run = Run::new(setting, contender, &format!("my_events-{label}"), &label)?;
    let mut process = Process::start(run.command(None)?, &run.log())?;
    std::thread::sleep(START);
    let mut probe = setting
        .program("latency_probe")
        .args(["--input", &run.input, "--output", &run.output])
        .args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("latency_probe")?;
    let mut out = BufReader::new(probe.stdout.take().context("no output")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    let (cpu, start) = (process.cpu_s()?, Instant::now());
    out.read_line(&mut line)?;
    let cpu_share = (process.cpu_s()? - cpu) / start.elapsed().as_secs_f64();
    ensure!(probe.wait()?.success(), "latency_probe failed");
    let result = last_line(&line)?;
    process.terminate()?;
    if contender.runs_on() {
        process.wait(END_TIMEOUT)?;
    }
    let commits = commits(setting, &run)?;
    run.clean_up()?;
    let of = |name| figure(&result, name);
    let time_s = figure(&result, "sent")? / rate as f64;
    let figures = [
        of("p50_ms")?,
        of("p95_ms")?,
        of("p99_ms")?,
        of("max_ms")?,
        cpu_share * 1e2,
        commits / time_s,
        of("behind_ms")?,
    ];
    eprintln!("  {figures:.2?}");
    Ok(figures)
}

/// How many transactions there were: each leaves a marker of one offset in the one partition of the dead letters, into
/// which about every fifth record goes.
fn commits(setting: &Setting, run: &Run<'_>) -> Result<f64> {
    let topic = [("topic", run.dead_letters.as_str())];
    let ends = figure(&setting.ask_broker("ends", &topic)?, "records")?;
    Ok(ends - figure(&setting.ask_broker("digest", &topic)?, "records")?)
}
