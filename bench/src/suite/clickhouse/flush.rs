//! How soon a lone record can be queried.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord};

use super::super::Setting;
use super::super::process::Process;
use super::super::report::{Row, median, print};
use super::contender::{Case, Contender, Run};
use super::engine::Engine;
use super::{END_TIMEOUT, LOOK_INTERVAL};
use crate::clickstream::Clickstream;
use crate::{Args, client};

pub(super) const BENCH: &str = "clickhouse-flush";
/// Millstream's `flush_interval` where none is configured, and how much later a record may be there.
const INTERVAL_MS: f64 = 1_000.0;
const MARGIN_MS: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the table is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(3);

/// Sends records one by one; returns what became of the bar.
pub(super) fn run(setting: &Setting, engine: &Engine, args: &Args) -> Result<String> {
    let records: u64 = args.get("lone-records", 20)?;
    let input = format!("lone_{}", std::process::id());
    let run = Run::new(setting, engine, (Case::Drain, Contender::Millstream), &input, "flush")?;
    let mut process = Process::start(run.command(engine, args, records)?, &run.log())?;
    let producer: BaseProducer = client::producer(&setting.brokers).set("linger.ms", "0").create()?;
    let (mut stream, mut raw, mut record) = (Clickstream::new(1), Vec::new(), Vec::new());
    let mut latencies = Vec::new();
    // The first one waits for the start, and is not counted.
    for number in 0..=records {
        stream.next_enriched(&mut raw, &mut record);
        // Not in step with anything that goes by seconds.
        std::thread::sleep(LOOK_INTERVAL * (1 + number as u32 * 7 % 20));
        let sent = Instant::now();
        client::send(&producer, BaseRecord::to(&input).payload(&record[..]))?;
        client::flush(&producer)?;
        while engine.rows(&run.name)? <= number {
            ensure!(sent.elapsed() < PATIENCE, "record {number} is not there; see {}", run.log().display());
            std::thread::sleep(ASK_INTERVAL);
        }
        latencies.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    process.terminate()?;
    process.wait(END_TIMEOUT)?;
    run.clean_up(engine)?;
    latencies.remove(0);
    let most = latencies.iter().copied().fold(0.0, f64::max);
    let figures = vec![("p50_ms", median(latencies)), ("max_ms", most)];
    print(&[Row::new(BENCH, Contender::Millstream.name().to_owned(), figures)], args.has("json"));
    let held = if most <= INTERVAL_MS + MARGIN_MS { "held" } else { "MISSED" };
    let bar = INTERVAL_MS + MARGIN_MS;
    Ok(format!("bar: {BENCH}: a lone record can be queried after at most {most:.0} ms, at most {bar:.0}: {held}"))
}
