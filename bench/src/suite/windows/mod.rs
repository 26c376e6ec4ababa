//! `windows`: clicks counted per country in windows of five minutes, and per user in sessions, by every contender.
//!
//! CPU is measured with a fifth of the records and with all of them. What lies between is the price once warm: neither the
//! JVM's start nor its compiling is in it, nor are the sessions that the end of the input closes all at once. Every run's
//! rows are compared with what the plainest computation of the same clicks gives. Then records come at a steady rate: the
//! latency is that from the sending of the record whose time closes a window to the window's row being visible under
//! read_committed.

mod contender;
mod latency;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use contender::{Contender, Run};

use super::end_to_end::said;
use super::process::Process;
use super::report::{Row, print};
use super::{Setting, figure};
use crate::Args;
use crate::windows::{PARTITIONS, Workload};

/// The smaller run has one of so many records.
const SMALLER: u64 = 5;
/// The longest that a contender may take for a million records, on the slowest machine that is of use.
const TIMEOUT_PER_MILLION: u64 = 600;
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// The figures of the table; of some runs the best counts, for other programs only ever add to what a run costs.
const FIGURES: [&str; 4] = ["warm_cpu_s_per_million", "cpu_s_per_million", "records_per_s", "peak_memory_mb"];
/// At most so much of a contender's CPU, once warm.
const NATIVE_BAR: f64 = 1.5;
const NATIVE_GOAL: f64 = 1.0;
const RIVAL_BAR: f64 = 0.25;
/// How long Kafka Streams holds closed windows back, at most, where it emits on close.
const EMIT_INTERVAL: Duration = Duration::from_millis(1_100);

/// What a run used, and how fast it was.
#[derive(Clone, Copy, Debug)]
struct Used {
    cpu_s: f64,
    records_per_s: f64,
    peak_memory_mb: f64,
}

/// Runs both workloads, or the one of `--window`; and of each the part of `--part`: `cpu` or `latency`.
pub(super) fn run(setting: &Setting, args: &Args) -> Result<()> {
    let window = args.get("window", String::new())?;
    let part = args.get("part", String::new())?;
    let chosen = Chosen::new(args)?;
    let mut verdicts = Vec::new();
    for workload in Workload::ALL.into_iter().filter(|workload| workload.name().contains(&window)) {
        if "cpu".contains(&part) {
            let rows = rounds(setting, args, &chosen, workload)?;
            print(&rows, args.has("json"));
            verdicts.extend(bars(&rows, &chosen, workload));
        }
        if "latency".contains(&part) {
            print(&latency::run(setting, args, &chosen, workload)?, args.has("json"));
        }
    }
    verdicts.iter().for_each(|verdict| eprintln!("{verdict}"));
    Ok(())
}

/// Who takes part.
struct Chosen {
    contenders: Vec<Contender>,
    /// The file with Kafka Streams' class path, where that takes part.
    class_path: Option<PathBuf>,
}

impl Chosen {
    fn new(args: &Args) -> Result<Self> {
        let (only, class_path) = (args.get("only", String::new())?, args.get("class-path", String::new())?);
        let class_path = (!class_path.is_empty()).then(|| PathBuf::from(class_path));
        if class_path.is_none() {
            eprintln!("Kafka Streams is not measured: --rivals builds it");
        }
        let takes_part =
            |contender: &Contender| contender.name().contains(&only) && (!contender.is_rival() || class_path.is_some());
        Ok(Self { contenders: Contender::ALL.into_iter().filter(takes_part).collect(), class_path })
    }
}

/// All contenders in turn with few and with all records, some rounds.
fn rounds(setting: &Setting, args: &Args, chosen: &Chosen, workload: Workload) -> Result<Vec<Row>> {
    let (records, rounds): (u64, u64) = (args.get("records", 2_000_000)?, args.get("rounds", 2)?);
    let sizes = [records / SMALLER, records];
    let inputs = sizes.map(|size| format!("clicks-{}-{size}", workload.name()));
    for (input, size) in inputs.iter().zip(sizes) {
        setting.ask_broker("topics", &[("create", &format!("{input}:{PARTITIONS}"))])?;
        let size = size.to_string();
        setting.ask("bench_windows", "load", &[("topic", input), ("window", workload.name()), ("records", &size)])?;
    }
    let mut runs: BTreeMap<(usize, u64), Vec<Used>> = BTreeMap::new();
    for round in 1..=rounds {
        for (at, &contender) in chosen.contenders.iter().enumerate() {
            // Rivals take long.
            let sizes = if contender.is_rival() && round > 1 { [].as_slice() } else { &sizes };
            for (input, &size) in inputs.iter().zip(sizes) {
                eprintln!("{}, round {round} of {rounds}: {}, {size} records", workload.name(), contender.name());
                let label = format!("{}-{at}-{round}-{size}", workload.name());
                let run = Run::new(setting, (workload, contender), input, &label)?;
                let used = one_run(setting, chosen, &run, (workload, contender), (input, size))
                    .with_context(|| format!("{}; see {}", contender.name(), run.log().display()))?;
                eprintln!("  {used:.2?}");
                runs.entry((at, size)).or_default().push(used);
                run.clean_up()?;
            }
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for (at, contender) in chosen.contenders.iter().enumerate() {
        if let (Some(few), Some(all)) = (runs.get(&(at, sizes[0])), runs.get(&(at, sizes[1]))) {
            rows.push(row(*contender, workload, (few, sizes[0]), (all, sizes[1])));
        }
    }
    let native = rows.iter().find(|row| row.is(Contender::Native.name())).and_then(|row| row.figure(FIGURES[0]));
    rows.iter_mut().for_each(|row| row.compare(native, FIGURES[0]));
    Ok(rows)
}

fn row(contender: Contender, workload: Workload, few: (&[Used], u64), all: (&[Used], u64)) -> Row {
    let least = |runs: &[Used], of: fn(&Used) -> f64| runs.iter().map(of).fold(f64::INFINITY, f64::min);
    let most = |runs: &[Used], of: fn(&Used) -> f64| runs.iter().map(of).fold(0.0, f64::max);
    let (few_s, all_s) = (least(few.0, |used| used.cpu_s), least(all.0, |used| used.cpu_s));
    let figures = [
        (all_s - few_s) / (all.1 - few.1) as f64 * 1e6,
        all_s / all.1 as f64 * 1e6,
        most(all.0, |used| used.records_per_s),
        most(all.0, |used| used.peak_memory_mb),
    ];
    Row::new(bench(workload), contender.name().to_owned(), FIGURES.into_iter().zip(figures).collect())
}

fn bench(workload: Workload) -> &'static str {
    match workload {
        Workload::Tumbling => "windows-tumbling",
        Workload::Session => "windows-session",
    }
}

/// One contender's way through all records of an input, and a look at its rows.
fn one_run(
    setting: &Setting,
    chosen: &Chosen,
    run: &Run<'_>,
    (workload, contender): (Workload, Contender),
    (input, size): (&str, u64),
) -> Result<Used> {
    let records = figure(&setting.ask_broker("ends", &[("topic", input)])?, "records")?;
    let mut process = Process::start(run.command(chosen.class_path.as_deref(), Some(records as u64))?, &run.log())?;
    let started = process.started_unix_ms();
    let done = wait(setting, &mut process, run, (input, size))?;
    let (output, clicks) = (run.output(), size.to_string());
    let of = |topic| [("topic", topic), ("window", workload.name()), ("records", clicks.as_str())];
    if contender.needs_nudge() {
        std::thread::sleep(EMIT_INTERVAL);
        setting.ask("bench_windows", "close", &of(input))?;
        wait(setting, &mut process, run, (input, size))?;
    }
    if contender.runs_on() {
        process.terminate()?;
    }
    let used = process.wait(END_TIMEOUT)?;
    let windows = setting.ask("bench_windows", "check", &of(&output)).context("not the windows that are due")?;
    eprintln!("  {windows}");
    Ok(Used { cpu_s: used.cpu_s, records_per_s: records / (done - started) * 1e3, peak_memory_mb: used.peak_memory_mb })
}

/// Waits until the group has committed all of the input; returns when that was.
fn wait(setting: &Setting, process: &mut Process, run: &Run<'_>, (input, size): (&str, u64)) -> Result<f64> {
    let timeout_s = 60 + TIMEOUT_PER_MILLION * size.div_ceil(1_000_000);
    let options = [("group", run.name.as_str()), ("topic", input), ("timeout-s", &timeout_s.to_string())];
    let mut lag = setting.broker_tool("wait", &options).stdout(Stdio::piped()).spawn().context("bench_kafka")?;
    let waited = process.wait_for(&mut lag);
    if waited.is_err() {
        // Else it would wait on its own; it may have ended just now.
        let _ = lag.kill();
    }
    waited?;
    figure(&said(&mut lag)?, "done_unix_ms")
}

/// What became of the bars: a rival is taken in the way that costs it least.
fn bars(rows: &[Row], chosen: &Chosen, workload: Workload) -> Vec<String> {
    let of = |contender: Contender| rows.iter().find(|row| row.is(contender.name()))?.figure(FIGURES[0]);
    let rivals = chosen.contenders.iter().filter(|contender| contender.is_rival());
    let rival = rivals.filter_map(|contender| of(*contender)).min_by(f64::total_cmp);
    let others = [
        ("the native one's CPU", of(Contender::Native), NATIVE_BAR, format!(" (goal {NATIVE_GOAL:.1})")),
        ("Kafka Streams' CPU", rival, RIVAL_BAR, String::new()),
    ];
    let bench = bench(workload);
    let verdict = |(name, other, bar, goal): (&str, Option<f64>, f64, String)| {
        let ratio = of(Contender::Millstream)? / other?;
        let held = if ratio <= bar { "held" } else { "MISSED" };
        Some(format!("bar: {bench}: {ratio:.2} of {name} once warm, at most {bar:.2}{goal}: {held}"))
    };
    others.into_iter().filter_map(verdict).collect()
}
