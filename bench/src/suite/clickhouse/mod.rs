//! `clickhouse`: the same records into a table by every contender, in interleaved rounds, and how soon a lone record can
//! be queried; `soak-clickhouse`: minutes at full speed.
//!
//! A run ends when all rows can be queried. Each row of the table has to be there once, or the bench fails. The engine's
//! own CPU is a figure apart.

mod contender;
mod engine;
mod flush;
mod soak;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use contender::{Case, Contender, Run};
use engine::Engine;

use super::Setting;
use super::process::Process;
use super::report::{Row, print};
use crate::clickstream::Clickstream;
use crate::{Args, logic};

pub(super) use soak::run as soak;

/// How often the memory of a contender and the rows of its table are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The longest that a contender may take for a million records, on the slowest machine that is of use.
const TIMEOUT_PER_MILLION: u64 = 300;
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// The figures of a run; of some runs those count that are named so.
const FIGURES: [&str; 5] =
    ["least_cpu_s_per_million", "best_rows_per_s", "least_engine_cpu_s_per_million", "peak_memory_mb", "bytes_per_row"];
/// At most so much of the native contender's CPU a row; the drain is meant to need less.
const BARS: [(Case, f64); 2] = [(Case::Drain, 1.0), (Case::Whole, 2.0)];
const DRAIN_GOAL: f64 = 0.7;

/// Why the server's own way from Kafka is not among the contenders.
const NO_KAFKA_TABLE: &str = "the engine's own Kafka table is not measured: the embedded engine refuses to make one, and a \
                              server's CPU for it can't be told from that for inserts";

type Figures = [f64; FIGURES.len()];

/// Runs all cases, or the one of `--case`: `drain`, `whole` or `flush`.
pub(super) fn run(setting: &Setting, args: &Args) -> Result<()> {
    let engine = Engine::new(args)?;
    let only = args.get("case", String::new())?;
    eprintln!("{NO_KAFKA_TABLE}");
    let mut verdicts = Vec::new();
    for (case, bar) in BARS.into_iter().filter(|(case, _)| case.name().contains(&only)) {
        let rows = rounds(setting, &engine, args, case)?;
        print(&rows, args.has("json"));
        verdicts.extend(verdict(&rows, case, bar));
    }
    if flush::BENCH.contains(&only) {
        verdicts.push(flush::run(setting, &engine, args)?);
    }
    verdicts.iter().for_each(|verdict| eprintln!("{verdict}"));
    Ok(())
}

/// All contenders in turn, some rounds; Python, which takes long, in the first only.
fn rounds(setting: &Setting, engine: &Engine, args: &Args, case: Case) -> Result<Vec<Row>> {
    let (records, rounds): (u64, u64) = (args.get("records", 2_000_000)?, args.get("rounds", 3)?);
    let only = args.get("only", String::new())?;
    let expected = fill(setting, case, records)?;
    let has_python = !args.get("python", String::new())?.is_empty();
    if !has_python {
        eprintln!("Python is not measured: it has no environment");
    }
    let mut runs: BTreeMap<usize, Vec<Figures>> = BTreeMap::new();
    for round in 1..=rounds {
        for (at, contender) in Contender::ALL.into_iter().enumerate() {
            let is_python = contender == Contender::Python;
            if !contender.name().contains(&only) || is_python && (round > 1 || !has_python) {
                continue;
            }
            eprintln!("{}, round {round} of {rounds}: {}", case.name(), contender.name());
            let run = Run::new(setting, engine, (case, contender), case.input(), &format!("{at}_{round}"))?;
            let figures = one_run((engine, args), &run, contender, (records, expected));
            let figures = figures.with_context(|| format!("{}; see {}", contender.name(), run.log().display()))?;
            eprintln!("  {figures:.2?}");
            runs.entry(at).or_default().push(figures);
            run.clean_up(engine)?;
        }
    }
    let row = |(at, runs): (&usize, &Vec<Figures>)| {
        let figures = FIGURES.iter().enumerate().map(|(at, &name)| (name, of_runs(name, at, runs))).collect();
        Row::new(case.name(), Contender::ALL[*at].name().to_owned(), figures)
    };
    let mut rows: Vec<Row> = runs.iter().map(row).collect();
    let native = rows.iter().find(|row| row.is(Contender::Native.name())).and_then(|row| row.figure(FIGURES[0]));
    rows.iter_mut().for_each(|row| row.compare(native, FIGURES[0]));
    Ok(rows)
}

/// Other programs only ever add to what a run costs, so that the least of some runs is closest to the truth.
fn of_runs(name: &str, at: usize, runs: &[Figures]) -> f64 {
    let figures = runs.iter().map(|run| run[at]);
    if name.starts_with("least") { figures.fold(f64::INFINITY, f64::min) } else { figures.fold(0.0, f64::max) }
}

/// Fills the input; returns how many of its records become rows.
fn fill(setting: &Setting, case: Case, records: u64) -> Result<u64> {
    let (input, count) = (case.input(), records.to_string());
    setting.ask_broker("topics", &[("create", &format!("{input}:4"))])?;
    match case {
        Case::Drain => {
            setting.ask_broker("load", &[("topic", input), ("records", &count), ("shape", "enriched")])?;
            Ok(records)
        }
        Case::Whole => {
            setting.ask_broker("load", &[("topic", input), ("records", &count)])?;
            let (mut stream, mut record, mut accepted) = (Clickstream::new(1), Vec::new(), 0);
            for _ in 0..records {
                stream.next(None, &mut record);
                accepted += u64::from(logic::accept(&record).is_ok());
            }
            Ok(accepted)
        }
    }
}

/// One contender's way through all records.
fn one_run(
    (engine, args): (&Engine, &Args),
    run: &Run<'_>,
    contender: Contender,
    (records, expected): (u64, u64),
) -> Result<Figures> {
    let engine_before = engine.cpu_s();
    let (mut process, started) = (Process::start(run.command(engine, args, records)?, &run.log())?, Instant::now());
    let timeout = Duration::from_secs(60 + TIMEOUT_PER_MILLION * records.div_ceil(1_000_000));
    let mut rows = 0;
    while rows < expected {
        // A program that ends by itself may do so before its last rows are seen.
        let runs = process.look()?;
        rows = engine.rows(&run.name)?;
        ensure!(runs || rows >= expected, "it ended with {rows} of {expected} rows");
        ensure!(started.elapsed() < timeout, "{rows} of {expected} rows are there after {timeout:?}");
        std::thread::sleep(LOOK_INTERVAL);
    }
    let took = started.elapsed();
    let engine_s = engine.cpu_s().zip(engine_before).map_or(f64::NAN, |(after, before)| after - before);
    if contender == Contender::Millstream {
        process.terminate()?;
    }
    let used = process.wait(END_TIMEOUT)?;
    let (rows, different) = (engine.rows(&run.name)?, engine.records(&run.name)?);
    if (rows, different) != (expected, expected) {
        bail!("the table has {rows} rows of {different} records, not {expected}");
    }
    let (_, bytes) = engine.parts(&run.name)?;
    let millions = records as f64 / 1e6;
    let rows_per_s = expected as f64 / took.as_secs_f64();
    Ok([used.cpu_s / millions, rows_per_s, engine_s / millions, used.peak_memory_mb, bytes / rows as f64])
}

/// What became of a bar.
fn verdict(rows: &[Row], case: Case, bar: f64) -> Option<String> {
    let cpu = |contender: Contender| rows.iter().find(|row| row.is(contender.name()))?.figure(FIGURES[0]);
    let ratio = cpu(Contender::Millstream)? / cpu(Contender::Native)?;
    let goal = if case == Case::Drain { format!(" (goal {DRAIN_GOAL})") } else { String::new() };
    let held = if ratio <= bar { "held" } else { "MISSED" };
    Some(format!("bar: {}: {ratio:.2} of the native one's CPU, at most {bar:.1}{goal}: {held}", case.name()))
}
