//! Sends clicks at a steady rate and measures how soon the row of a window follows the click that closes it.
//!
//! Event time goes faster than the clock, so that windows close many times a second, and apart in each partition. A window
//! of a partition is closed by the first click whose time is the window's end or later by the disorder that is allowed; its
//! row's latency is from the sending of that click to the moment at which a read_committed consumer has the row. Clicks
//! come in order. The sending was due at a fixed time: where this program itself falls behind, that is reported.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use millstream_bench::Args;
use millstream_bench::client;
use millstream_bench::windows::{Click, Clicks, DISORDER_S, PARTITIONS, Row, Workload};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde_json::json;

/// How often clicks are sent.
const TICK: Duration = Duration::from_millis(1);
/// Rows are not measured until so long after the first one: the contender joins its group and warms up.
const WARM_UP: Duration = Duration::from_secs(10);
/// How long the first row may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the reader goes on after the last click was sent.
const TAIL: Duration = Duration::from_secs(3);
/// Seconds of event time in a second: not in step with commits, which are a round number of milliseconds apart.
const SPEED: u64 = 1_370;
const START_S: i64 = 1_700_000_000;
/// How far a partition's event time is ahead of that of the one before.
const APART_S: i64 = 71;
/// A user's second click comes so many users after the first: about a minute of event time later, at the usual rate.
const SECOND_AFTER: u64 = 110;
/// As many for each partition.
const COUNTRIES: [&str; 16] =
    ["US", "CA", "UK", "DE", "FR", "JP", "BR", "IN", "CN", "AU", "ES", "IT", "NL", "SE", "PL", "MX"];

fn main() -> Result<()> {
    let args = Args::of_process();
    let (brokers, input, output) = (args.text("brokers")?, args.text("input")?, args.text("output")?);
    let workload: Workload = args.text("window")?.parse()?;
    let rate: u64 = args.get("rate", 5_000)?;
    let time = Duration::from_secs(args.get("seconds", 30)?);
    let consumer = reader(&brokers, &output)?;
    let (seen_one, ended, start) = (AtomicBool::new(false), AtomicBool::new(false), Instant::now());
    let (rows, sent) = std::thread::scope(|scope| -> Result<_> {
        let reading = scope.spawn(|| read(&consumer, workload, start, (&seen_one, &ended)));
        let sent = send(&brokers, &input, (workload, rate), (start, time), &seen_one);
        std::thread::sleep(if sent.is_ok() { TAIL } else { Duration::ZERO });
        ended.store(true, Ordering::Relaxed);
        let rows = reading.join().map_err(|_| anyhow!("the reader panicked"))??;
        Ok((rows, sent?))
    })?;
    let mut latencies: Vec<Duration> = rows.iter().filter_map(|row| sent.latency(row)).collect();
    latencies.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().map(ms);
    println!(
        "{}",
        json!({
            "sent": sent.clicks, "rows": latencies.len(), "behind_ms": ms(sent.behind),
            "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": latencies.last().copied().map(ms),
        })
    );
    Ok(())
}

fn reader(brokers: &str, output: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = client::consumer(brokers, "bench-window-probe", "read_committed").create()?;
    let mut from = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let end = client::end(&consumer, output, partition)?;
        from.add_partition_offset(output, partition, Offset::Offset(end))?;
    }
    consumer.assign(&from)?;
    Ok(consumer)
}

/// A row: its window's partition and end, and when it was seen.
struct Seen {
    partition: usize,
    end_s: i64,
    at: Duration,
}

fn read(
    consumer: &BaseConsumer,
    workload: Workload,
    start: Instant,
    (seen_one, ended): (&AtomicBool, &AtomicBool),
) -> Result<Vec<Seen>> {
    let mut rows = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let Some(message) = client::poll(consumer, Duration::from_millis(100))? else { continue };
        let at = start.elapsed();
        let row = Row::read(workload, message.payload().unwrap_or_default())?;
        let number = match workload {
            Workload::Tumbling => COUNTRIES.iter().position(|country| *country == row.key).context("a country")? as u64,
            Workload::Session => row.key.parse().context("a user")?,
        };
        rows.push(Seen { partition: partition_of(number), end_s: row.end_s, at });
        seen_one.store(true, Ordering::Relaxed);
    }
    Ok(rows)
}

/// The partition of a country or of a user.
fn partition_of(number: u64) -> usize {
    (number % PARTITIONS as u64) as usize
}

/// What was sent.
struct Sent {
    clicks: u64,
    behind: Duration,
    measured_from: Duration,
    /// For each partition each second of event time, and when its first click was sent.
    seconds: [Vec<(i64, Duration)>; PARTITIONS as usize],
}

impl Sent {
    /// How long a row took; none where that is not to be measured.
    fn latency(&self, row: &Seen) -> Option<Duration> {
        let seconds = &self.seconds[row.partition];
        let closing = seconds.partition_point(|(second, _)| *second < row.end_s + DISORDER_S);
        let (_, sent) = seconds.get(closing).filter(|(_, sent)| *sent >= self.measured_from)?;
        Some(row.at.saturating_sub(*sent))
    }

    fn note(&mut self, partition: usize, timestamp_s: i64, at: Duration) {
        let seconds = &mut self.seconds[partition];
        if seconds.last().is_none_or(|(last, _)| *last < timestamp_s) {
            seconds.push((timestamp_s, at));
        }
    }
}

/// The click that has this number, and its partition.
fn click(workload: Workload, number: u64, rate: u64) -> (Click, usize) {
    // Each user clicks twice.
    let user = if number.is_multiple_of(2) { number / 2 } else { (number / 2).saturating_sub(SECOND_AFTER) };
    let country = (number % COUNTRIES.len() as u64) as usize;
    let partition = match workload {
        Workload::Tumbling => partition_of(country as u64),
        Workload::Session => partition_of(user),
    };
    let timestamp_s = START_S + (number * SPEED / rate) as i64 + partition as i64 * APART_S;
    (Click { user: user as u32, country: COUNTRIES[country], timestamp_s }, partition)
}

/// Sends until a row was seen, then for the time of warming up, then for `time`.
fn send(
    brokers: &str,
    input: &str,
    (workload, rate): (Workload, u64),
    (start, time): (Instant, Duration),
    seen_one: &AtomicBool,
) -> Result<Sent> {
    let producer: BaseProducer = client::producer(brokers).set("linger.ms", "0").create()?;
    let (mut clicks, mut record) = (Clicks::new(1), Vec::new());
    let mut sent =
        Sent { clicks: 0, behind: Duration::ZERO, measured_from: Duration::MAX, seconds: Default::default() };
    let mut tick = 0;
    loop {
        tick += 1;
        let due = TICK * tick;
        while sent.clicks < due.as_micros() as u64 * rate / 1_000_000 {
            let (click, partition) = click(workload, sent.clicks, rate);
            clicks.record(&click, &mut record);
            sent.note(partition, click.timestamp_s, start.elapsed());
            let key = workload.key(&click);
            let message = BaseRecord::to(input).key(key.as_bytes()).payload(&record[..]);
            client::send(&producer, message.partition(partition as i32))?;
            sent.clicks += 1;
        }
        producer.poll(Duration::ZERO);
        let elapsed = start.elapsed();
        if sent.measured_from == Duration::MAX {
            ensure!(elapsed < PATIENCE, "no row came within {PATIENCE:?}");
            if seen_one.load(Ordering::Relaxed) {
                sent.measured_from = elapsed + WARM_UP;
                println!("{}", json!({ "measuring_from_ms": sent.measured_from.as_millis() }));
            }
        } else if elapsed > sent.measured_from {
            sent.behind = sent.behind.max(elapsed.saturating_sub(due));
            if elapsed > sent.measured_from + time {
                break;
            }
        }
        std::thread::sleep(due.saturating_sub(elapsed));
    }
    client::flush(&producer)?;
    Ok(sent)
}
