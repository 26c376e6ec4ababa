//! `end-to-end`: the same records through every contender, in interleaved rounds.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::contender::{Contender, Run};
use super::process::Process;
use super::report::{Row, median};
use super::{Setting, figure, last_line};
use crate::Args;

const BENCH: &str = "end-to-end";
const INPUT: &str = "my_events";
const NATIVE: Contender = Contender::Native { commit_ms: 100 };
const CONTENDERS: [Contender; 4] = [
    Contender::Passthrough,
    NATIVE,
    Contender::Millstream { exactly_once: false },
    Contender::Millstream { exactly_once: true },
];
/// The longest that a contender may take for a million records, on the slowest machine that is of use.
const TIMEOUT_PER_MILLION: u64 = 300;
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// The figures of a run, in the order of the table.
const FIGURES: [&str; 4] = ["cpu_s_per_million", "records_per_s", "peak_memory_mb", "first_record_ms"];

/// The figures of one run.
pub(super) type Figures = [f64; FIGURES.len()];

pub(super) fn run(setting: &Setting, args: &Args) -> Result<Vec<Row>> {
    let records: u64 = args.get("records", 2_000_000)?;
    let rounds: u64 = args.get("rounds", 3)?;
    let only = args.get("only", String::new())?;
    let chosen = CONTENDERS.into_iter().filter(|contender| contender.name().contains(&only));
    setting.ask_broker("topics", &[("create", &format!("{INPUT}:4"))])?;
    setting.ask_broker("load", &[("topic", INPUT), ("records", &records.to_string())])?;
    let mut results: BTreeMap<usize, Vec<Figures>> = BTreeMap::new();
    let mut answers: Option<(String, Value)> = None;
    for round in 1..=rounds {
        for (at, contender) in chosen.clone().enumerate() {
            eprintln!("round {round} of {rounds}: {}", contender.name());
            let label = format!("{at}-{round}-{}", std::process::id());
            let run = Run::new(setting, contender, INPUT, &label)?;
            let figures = one_run(setting, &run, contender, records).with_context(|| contender.name())?;
            eprintln!("  {figures:.2?}");
            results.entry(at).or_default().push(figures);
            if round == 1 && contender != Contender::Passthrough {
                same_answers(setting, &run, contender, &mut answers)?;
            }
            run.clean_up()?;
        }
    }
    let mut rows: Vec<Row> = chosen.zip(results.into_values()).map(|(contender, runs)| row(contender, &runs)).collect();
    let native = rows.iter().find(|row| row.is(&NATIVE.name())).and_then(|row| row.figure(FIGURES[0]));
    rows.iter_mut().for_each(|row| row.compare(native, FIGURES[0]));
    Ok(rows)
}

fn row(contender: Contender, runs: &[Figures]) -> Row {
    let middle = |at: usize| median(runs.iter().map(|run| run[at]).collect());
    let figures = FIGURES.iter().enumerate().map(|(at, &name)| (name, middle(at))).collect();
    Row::new(BENCH, contender.name(), figures)
}

/// One contender's way through all records.
pub(super) fn one_run(setting: &Setting, run: &Run<'_>, contender: Contender, records: u64) -> Result<Figures> {
    let mut first = first_record(setting, &run.output)?;
    let mut process = Process::start(run.command(Some(records))?, &run.log())?;
    let started = process.started_unix_ms();
    let timeout_s = 60 + TIMEOUT_PER_MILLION * records.div_ceil(1_000_000);
    let options = [("group", run.group.as_str()), ("topic", INPUT), ("timeout-s", &timeout_s.to_string())];
    let mut lag = setting.broker_tool("wait", &options).stdout(Stdio::piped()).spawn().context("bench_kafka")?;
    process.wait_for(&mut lag)?;
    let done = figure(&said(&mut lag)?, "done_unix_ms")?;
    if contender.runs_on() {
        process.terminate()?;
    }
    let used = process.wait(END_TIMEOUT)?;
    let seen = figure(&said(&mut first)?, "first_unix_ms")?;
    Ok([
        used.cpu_s / records as f64 * 1e6,
        records as f64 / (done - started) * 1e3,
        used.peak_memory_mb,
        seen - started,
    ])
}

/// How long after its start the first record of a contender can be seen.
pub(super) fn first_record_ms(
    setting: &Setting,
    run: &Run<'_>,
    contender: Contender,
    records: u64,
    timeout: Duration,
) -> Result<f64> {
    let mut first = first_record(setting, &run.output)?;
    let mut process = Process::start(run.command(Some(records))?, &run.log())?;
    process.wait_for(&mut first)?;
    let seen = figure(&said(&mut first)?, "first_unix_ms")?;
    let started = process.started_unix_ms();
    if contender.runs_on() {
        process.terminate()?;
    }
    process.wait(timeout)?;
    Ok(seen - started)
}

/// Starts watching for the first record of a topic.
fn first_record(setting: &Setting, topic: &str) -> Result<Child> {
    let mut child = setting.broker_tool("first", &[("topics", topic)]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().context("no output")?);
    out.read_line(&mut line)?;
    ensure!(line.contains("watching"), "the watcher does not watch: {line}");
    // Nothing more was written yet, so the reader holds nothing back.
    child.stdout = Some(out.into_inner());
    Ok(child)
}

/// What a program says at its end.
pub(super) fn said(child: &mut Child) -> Result<Value> {
    let text = std::io::read_to_string(child.stdout.take().context("no output")?)?;
    if !child.wait()?.success() {
        bail!("a watcher failed");
    }
    last_line(&text)
}

/// Contenders that don't answer the same can't be compared.
fn same_answers(
    setting: &Setting,
    run: &Run<'_>,
    contender: Contender,
    before: &mut Option<(String, Value)>,
) -> Result<()> {
    let of = |topic: &str| setting.ask_broker("digest", &[("topic", topic)]);
    let (output, dead) = (of(&run.output)?, of(&run.dead_letters)?);
    let compared = serde_json::json!({
        "records": output["records"], "digest": output["digest"],
        "dead_letters": dead["records"], "dead_letters_digest": dead["digest"],
    });
    eprintln!("  out: {output}, dead letters: {dead}");
    match before {
        None => *before = Some((contender.name(), compared)),
        Some((name, known)) => ensure!(*known == compared, "{name} says {known}, {} {compared}", contender.name()),
    }
    Ok(())
}
