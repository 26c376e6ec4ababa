//! Sends records at a steady rate and measures how long each takes to be seen under read_committed in the output.
//!
//! A record's time is that of its sending, which was due at a fixed time: where this program itself falls behind, that
//! is reported and not hidden in the figures.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use millstream_bench::Args;
use millstream_bench::clickstream::{Clickstream, STAMP_MASK, stamp_of};
use millstream_bench::client::{self, WAIT};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde_json::json;

/// How often records are sent.
const TICK: Duration = Duration::from_millis(1);
/// Records of the first seconds are not measured: the contender joins its group and warms up.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long the reader goes on after the last record was sent.
const TAIL: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let args = Args::of_process();
    let (brokers, input, output) = (args.text("brokers")?, args.text("input")?, args.text("output")?);
    let rate: u64 = args.get("rate", 5_000)?;
    let seconds = Duration::from_secs(args.get("seconds", 30)?);
    let consumer = reader(&brokers, &output)?;
    let ended = AtomicBool::new(false);
    let (mut latencies, sent) = std::thread::scope(|scope| -> Result<_> {
        let reading = scope.spawn(|| read(&consumer, &ended));
        println!("{}", json!({ "sending": true }));
        let sent = send(&brokers, &input, rate, WARM_UP + seconds);
        std::thread::sleep(TAIL);
        ended.store(true, Ordering::Relaxed);
        let latencies = reading.join().map_err(|_| anyhow!("the reader panicked"))??;
        Ok((latencies, sent?))
    })?;
    latencies.retain(|&(stamp, _)| stamp >= sent.measured_from);
    let seen: Vec<u64> = latencies.iter().map(|&(stamp, latency)| stamp + latency).collect();
    let silence = seen.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
    let mut micros: Vec<u64> = latencies.iter().map(|&(_, latency)| latency).collect();
    micros.sort_unstable();
    let at = |share: f64| micros.get((micros.len() as f64 * share) as usize).map(|&us| us as f64 / 1e3);
    println!(
        "{}",
        json!({
            "sent": sent.records, "measured": micros.len(), "behind_ms": sent.behind.as_secs_f64() * 1e3,
            "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": micros.last().map(|&us| us as f64 / 1e3),
            "longest_silence_ms": silence as f64 / 1e3,
        })
    );
    Ok(())
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as u64 & STAMP_MASK
}

fn reader(brokers: &str, output: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = client::consumer(brokers, "bench-latency", "read_committed").create()?;
    let metadata = consumer.fetch_metadata(Some(output), WAIT)?;
    let topic = metadata.topics().first().context("no metadata of the output")?;
    let mut from = TopicPartitionList::new();
    for partition in topic.partitions() {
        let end = consumer.fetch_watermarks(output, partition.id(), WAIT)?.1;
        from.add_partition_offset(output, partition.id(), Offset::Offset(end))?;
    }
    consumer.assign(&from)?;
    Ok(consumer)
}

/// Each record's stamp and how long it took.
fn read(consumer: &BaseConsumer, ended: &AtomicBool) -> Result<Vec<(u64, u64)>> {
    let mut latencies = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let Some(message) = client::poll(consumer, Duration::from_millis(100))? else { continue };
        if let Some(stamp) = message.payload().and_then(stamp_of) {
            latencies.push((stamp, now_us().wrapping_sub(stamp) & STAMP_MASK));
        }
    }
    Ok(latencies)
}

struct Sent {
    records: u64,
    measured_from: u64,
    behind: Duration,
}

fn send(brokers: &str, input: &str, rate: u64, time: Duration) -> Result<Sent> {
    let producer: BaseProducer = client::producer(brokers).set("linger.ms", "0").create()?;
    let (mut stream, mut record) = (Clickstream::new(now_us()), Vec::new());
    let start = Instant::now();
    let mut sent = Sent { records: 0, measured_from: now_us() + WARM_UP.as_micros() as u64, behind: Duration::ZERO };
    let mut tick = 0;
    while TICK * tick < time {
        tick += 1;
        let due = TICK * tick;
        while sent.records < due.as_micros() as u64 * rate / 1_000_000 {
            stream.next(Some(now_us()), &mut record);
            client::send(&producer, BaseRecord::to(input).payload(&record[..]))?;
            sent.records += 1;
        }
        producer.poll(Duration::ZERO);
        let elapsed = start.elapsed();
        if due > WARM_UP {
            sent.behind = sent.behind.max(elapsed.saturating_sub(due));
        }
        std::thread::sleep(due.saturating_sub(elapsed));
    }
    client::flush(&producer)?;
    Ok(sent)
}
