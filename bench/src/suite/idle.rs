//! `idle`: what it costs to wait, and how soon the first record is through after a start.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Setting;
use super::contender::{Contender, Run};
use super::end_to_end::first_record_ms;
use super::process::Process;
use super::report::{Row, median};
use crate::Args;

const BENCH: &str = "idle";
const CONTENDERS: [Contender; 2] = [Contender::Native { commit_ms: 100 }, Contender::Millstream { exactly_once: true }];
const WARM_UP: Duration = Duration::from_secs(8);
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// Records that wait for a contender that starts.
const RECORDS: u64 = 1_000;

pub(super) fn run(setting: &Setting, args: &Args) -> Result<Vec<Row>> {
    let seconds = Duration::from_secs(args.get("seconds", 30)?);
    let rounds: u64 = args.get("rounds", 5)?;
    let mut rows = Vec::new();
    for contender in CONTENDERS {
        eprintln!("idle: {}", contender.name());
        let label = format!("idle-{}-{}", contender.name().replace([' ', ','], "_"), std::process::id());
        let idle_percent = idle(setting, contender, &label, seconds)?;
        let starts: Result<Vec<f64>> =
            (0..rounds).map(|round| start(setting, contender, &format!("{label}-{round}"))).collect();
        let starts = starts?;
        eprintln!("  {idle_percent:.2} % of a core, starts in ms {starts:.0?}");
        let figures = vec![("idle_percent_of_core", idle_percent), ("start_to_first_record_ms", median(starts))];
        rows.push(Row::new(BENCH, contender.name(), figures));
    }
    let native = rows[0].figure("idle_percent_of_core");
    rows.iter_mut().for_each(|row| row.compare(native, "idle_percent_of_core"));
    Ok(rows)
}

/// The share of a core that it takes to wait for records.
fn idle(setting: &Setting, contender: Contender, label: &str, seconds: Duration) -> Result<f64> {
    let run = Run::new(setting, contender, &format!("empty-{label}"), label)?;
    let mut process = Process::start(run.command(None)?, &run.log())?;
    std::thread::sleep(WARM_UP);
    let (cpu, start) = (process.cpu_s()?, Instant::now());
    std::thread::sleep(seconds);
    ensure!(process.look()?, "it ended; see {}", run.log().display());
    let share = (process.cpu_s()? - cpu) / start.elapsed().as_secs_f64();
    process.terminate()?;
    run.clean_up()?;
    Ok(share * 1e2)
}

/// From the start of the process until a record that waited for it can be seen.
fn start(setting: &Setting, contender: Contender, label: &str) -> Result<f64> {
    let input = format!("few-{label}");
    let run = Run::new(setting, contender, &input, label)?;
    setting.ask_broker("load", &[("topic", &input), ("records", &RECORDS.to_string())])?;
    let ms = first_record_ms(setting, &run, contender, RECORDS, END_TIMEOUT)?;
    run.clean_up()?;
    Ok(ms)
}
