//! `soak-clickhouse`: minutes at full speed. Memory should stay flat, and parts should merge.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord};

use super::super::Setting;
use super::super::process::Process;
use super::super::report::{Row, print};
use super::contender::{Case, Contender, Run};
use super::engine::Engine;
use super::{END_TIMEOUT, LOOK_INTERVAL};
use crate::clickstream::Clickstream;
use crate::{Args, client};

const BENCH: &str = "soak-clickhouse";
/// Records that are made once and sent again and again; and how many are sent between two looks.
const RECORDS: usize = 200_000;
const BURST: usize = 20_000;
/// The sender waits where so many records are not in the table yet: there is always enough to do.
const AHEAD_MAX: u64 = 1_500_000;
/// How long the last rows may take.
const TAIL: Duration = Duration::from_secs(120);

/// `--minutes` at full speed, with `--samples` looks.
pub(in super::super) fn run(setting: &Setting, args: &Args) -> Result<()> {
    let engine = Engine::new(args)?;
    let (minutes, samples): (f64, f64) = (args.get("minutes", 10.0)?, args.get("samples", 20.0)?);
    let time = Duration::from_secs_f64(minutes * 60.0);
    let input = format!("soak_{}", std::process::id());
    let run = Run::new(setting, &engine, (Case::Drain, Contender::Millstream), &input, "soak")?;
    let mut process = Process::start(run.command(&engine, args, 0)?, &run.log())?;
    let mut sender = Sender::new(setting, input)?;
    let (started, mut rows, mut table) = (Instant::now(), 0, Vec::new());
    let mut last = (started, 0);
    while started.elapsed() < time {
        ensure!(process.look()?, "it ended; see {}", run.log().display());
        if sender.sent < rows + AHEAD_MAX {
            sender.burst()?;
        } else {
            std::thread::sleep(LOOK_INTERVAL);
        }
        rows = engine.rows(&run.name)?;
        if last.0.elapsed() >= time.div_f64(samples) {
            let rows_per_s = (rows - last.1) as f64 / last.0.elapsed().as_secs_f64();
            last = (Instant::now(), rows);
            let row = sample(&engine, &run, &process, started.elapsed(), (rows, rows_per_s))?;
            print(std::slice::from_ref(&row), true);
            table.push(row);
        }
    }
    client::flush(&sender.producer)?;
    let ended = Instant::now();
    while engine.rows(&run.name)? < sender.sent {
        ensure!(process.look()? && ended.elapsed() < TAIL, "the last rows do not come; see {}", run.log().display());
        std::thread::sleep(LOOK_INTERVAL);
    }
    process.terminate()?;
    process.wait(END_TIMEOUT)?;
    let (rows, different) = (engine.rows(&run.name)?, engine.records(&run.name)?);
    ensure!((rows, different) == (sender.sent, sender.sent), "{rows} rows of {different}, {} were sent", sender.sent);
    print(&table, args.has("json"));
    summary(&table, rows);
    run.clean_up(&engine)
}

fn sample(
    engine: &Engine,
    run: &Run<'_>,
    process: &Process,
    time: Duration,
    (rows, rows_per_s): (u64, f64),
) -> Result<Row> {
    let (parts, bytes) = engine.parts(&run.name)?;
    let figures = vec![
        ("rss_mb", process.memory_mb()?),
        ("active_parts", parts),
        ("rows_millions", rows as f64 / 1e6),
        ("rows_per_s", rows_per_s),
        ("table_mb", bytes / 1e6),
    ];
    Ok(Row::new(BENCH, format!("after {:>4.0} s", time.as_secs_f64()), figures))
}

fn summary(table: &[Row], rows: u64) {
    let most = |part: &[Row], name| part.iter().filter_map(|row| row.figure(name)).fold(0.0, f64::max);
    let (early, late) = table.split_at(table.len() / 2);
    let of = |name| (most(early, name), most(late, name));
    let (memory, parts) = (of("rss_mb"), of("active_parts"));
    eprintln!("{rows} rows, each once");
    eprintln!("memory: at most {:.0} MB in the first half, {:.0} MB in the second", memory.0, memory.1);
    eprintln!("active parts: at most {:.0} in the first half, {:.0} in the second", parts.0, parts.1);
}

/// Fills the topic.
struct Sender {
    producer: BaseProducer,
    topic: String,
    records: Vec<Vec<u8>>,
    sent: u64,
}

impl Sender {
    fn new(setting: &Setting, topic: String) -> Result<Self> {
        let (mut stream, mut raw) = (Clickstream::new(1), Vec::new());
        let record = |_| {
            let mut record = Vec::new();
            stream.next_enriched(&mut raw, &mut record);
            record
        };
        let records = (0..RECORDS).map(record).collect();
        Ok(Self { producer: client::producer(&setting.brokers).create()?, topic, records, sent: 0 })
    }

    fn burst(&mut self) -> Result<()> {
        for _ in 0..BURST {
            let record = &self.records[self.sent as usize % RECORDS];
            let record = BaseRecord::to(&self.topic).payload(record.as_slice()).partition((self.sent % 4) as i32);
            client::send(&self.producer, record)?;
            self.sent += 1;
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }
}
