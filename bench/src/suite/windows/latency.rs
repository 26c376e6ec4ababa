//! How soon a window's row follows the record that closes it.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::super::process::Process;
use super::super::report::{Row, median};
use super::super::{Setting, figure, last_line};
use super::contender::{Contender, Run};
use super::{Chosen, END_TIMEOUT};
use crate::Args;
use crate::windows::Workload;

const FIGURES: [&str; 7] = ["p50_ms", "p95_ms", "p99_ms", "max_ms", "cpu_percent_of_core", "rows", "sender_behind_ms"];

type Figures = [f64; FIGURES.len()];

/// All contenders in turn, at `--rate` records a second for `--seconds`.
pub(super) fn run(setting: &Setting, args: &Args, chosen: &Chosen, workload: Workload) -> Result<Vec<Row>> {
    let (seconds, rate): (u64, u64) = (args.get("seconds", 30)?, args.get("rate", 5_000)?);
    let rounds: u64 = args.get("latency-rounds", 1)?;
    let mut rows = Vec::new();
    for &contender in &chosen.contenders {
        let mut runs: Vec<Figures> = Vec::new();
        for round in 1..=rounds {
            eprintln!("{} latency, round {round} of {rounds}: {}", workload.name(), contender.name());
            let figures = one_run(setting, chosen, (workload, contender), (rate, seconds), round)?;
            eprintln!("  {figures:.2?}");
            runs.push(figures);
        }
        let middle = |at: usize| median(runs.iter().map(|run| run[at]).collect());
        let figures = FIGURES.iter().enumerate().map(|(at, &name)| (name, middle(at))).collect();
        rows.push(Row::new(bench(workload), contender.name().to_owned(), figures));
    }
    let native = rows.iter().find(|row| row.is(Contender::Native.name())).and_then(|row| row.figure(FIGURES[2]));
    rows.iter_mut().for_each(|row| row.compare(native, FIGURES[2]));
    Ok(rows)
}

fn bench(workload: Workload) -> &'static str {
    match workload {
        Workload::Tumbling => "windows-tumbling-latency",
        Workload::Session => "windows-session-latency",
    }
}

fn one_run(
    setting: &Setting,
    chosen: &Chosen,
    (workload, contender): (Workload, Contender),
    (rate, seconds): (u64, u64),
    round: u64,
) -> Result<Figures> {
    let name = contender.name().replace([' ', ','], "_");
    let label = format!("{}-latency-{name}-{round}", workload.name());
    let run = Run::new(setting, (workload, contender), &format!("clicks-{label}-{}", std::process::id()), &label)?;
    let mut process = Process::start(run.command(chosen.class_path.as_deref(), None)?, &run.log())?;
    let output = run.output();
    let mut probe = setting
        .program("window_probe")
        .args(["--input", run.input(), "--output", &output, "--window", workload.name()])
        .args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("window_probe")?;
    // It says when it begins to measure, and ends with what it saw.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(probe.stdout.take().context("no output")?));
    let mut line = || lines.next().context("window_probe ended too soon")?.context("window_probe");
    let began = line().with_context(|| format!("{}; see {}", contender.name(), run.log().display()))?;
    ensure!(began.contains("measuring"), "window_probe says {began}");
    let (cpu, start) = (process.cpu_s()?, Instant::now());
    let result = last_line(&line()?)?;
    let cpu_share = (process.cpu_s()? - cpu) / start.elapsed().as_secs_f64();
    ensure!(probe.wait()?.success(), "window_probe failed");
    process.terminate()?;
    if contender.runs_on() {
        process.wait(END_TIMEOUT)?;
    }
    run.clean_up()?;
    let of = |name| figure(&result, name);
    let (p50, p95, p99, max) = (of("p50_ms")?, of("p95_ms")?, of("p99_ms")?, of("max_ms")?);
    Ok([p50, p95, p99, max, cpu_share * 1e2, of("rows")?, of("behind_ms")?])
}
