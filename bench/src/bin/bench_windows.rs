//! What the bench of windows does to a broker: fill its input, and compare what came out with what has to.
//!
//! `load`, `close` or `check`, each with `--topic T --window W --records N`
#![allow(clippy::print_stdout, reason = "the result is the output")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use millstream_bench::Args;
use millstream_bench::client;
use millstream_bench::windows::{Clicks, PARTITIONS, Row, Workload, closing, closing_s, expected, take};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde_json::{Value, json};

const SEED: u64 = 1;
/// How many closing records more there may be than one a partition.
const MORE_CLOSING: i64 = 1_000;
/// How long no row may come before the check is over: it ends when all have come, so this is for those that are missing.
const SILENCE: Duration = Duration::from_secs(10);
/// The same once all are there: one that comes twice would be among the last.
const LAST_SILENCE: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let args = Args::of_process();
    let result = match args.command() {
        "load" => load(&args),
        "close" => producer(&args).and_then(|producer| close(&args, &producer)),
        "check" => check(&args),
        other => bail!("no command {other:?}"),
    };
    println!("{}", result?);
    Ok(())
}

/// A topic's partitions from their beginning.
fn reader(args: &Args, topic: &str) -> Result<(BaseConsumer, i64)> {
    let mut config = client::consumer(&args.text("brokers")?, "bench-windows", "read_committed");
    let consumer: BaseConsumer = config.set("queued.max.messages.kbytes", "65536").create()?;
    let (mut from, mut there) = (TopicPartitionList::new(), 0);
    for partition in 0..PARTITIONS {
        from.add_partition_offset(topic, partition, Offset::Beginning)?;
        there += client::end(&consumer, topic, partition)?;
    }
    consumer.assign(&from)?;
    Ok((consumer, there))
}

/// Fills a topic with so many clicks, each in its key's partition, and the closing record of each partition.
fn load(args: &Args) -> Result<Value> {
    let (topic, workload, records): (_, Workload, i64) =
        (args.text("topic")?, args.text("window")?.parse()?, args.get("records", 2_000_000)?);
    let (_, there) = reader(args, &topic)?;
    let all = records + i64::from(PARTITIONS);
    if (all..all + MORE_CLOSING).contains(&there) {
        return Ok(json!({ "records": there, "loaded": 0 }));
    }
    ensure!(there == 0, "topic {topic} has {there} records, not {all}: delete it");
    let producer = producer(args)?;
    let (mut clicks, mut record, mut bytes) = (Clicks::new(SEED), Vec::new(), 0);
    for _ in 0..records {
        let click = clicks.next().context("clicks do not end")?;
        clicks.record(&click, &mut record);
        bytes += record.len();
        let key = workload.key(&click);
        client::send(&producer, BaseRecord::to(&topic).key(key.as_bytes()).payload(&record[..]))?;
    }
    close(args, &producer)?;
    Ok(json!({ "records": all, "loaded": all, "bytes": bytes }))
}

fn producer(args: &Args) -> Result<BaseProducer> {
    Ok(client::producer(&args.text("brokers")?).create()?)
}

/// Sends the closing record of each partition; again, where somebody needs one more to go on.
fn close(args: &Args, producer: &BaseProducer) -> Result<Value> {
    let (topic, workload) = (args.text("topic")?, args.text("window")?.parse()?);
    let clicks = Clicks::new(SEED).take(args.get("records", 2_000_000)?);
    let (closing_s, mut record) = (closing_s(clicks), Vec::new());
    for partition in 0..PARTITIONS {
        let key = closing(workload, partition, closing_s, &mut record);
        let closing = BaseRecord::to(&topic).key(key.as_bytes()).payload(&record[..]);
        client::send(producer, closing.partition(partition))?;
    }
    client::flush(producer)?;
    Ok(json!({ "records": PARTITIONS }))
}

/// Compares the rows of a topic with what the same clicks have to give: each window once, with its count.
fn check(args: &Args) -> Result<Value> {
    let (topic, workload): (_, Workload) = (args.text("topic")?, args.text("window")?.parse()?);
    let records: usize = args.get("records", 2_000_000)?;
    let mut missing = expected(workload, Clicks::new(SEED).take(records));
    let windows = missing.len();
    let (consumer, _) = reader(args, &topic)?;
    let (mut events, mut quiet) = (0, Instant::now());
    while quiet.elapsed() < if missing.is_empty() { LAST_SILENCE } else { SILENCE } {
        let Some(message) = client::poll(&consumer, Duration::from_millis(100))? else { continue };
        let row = Row::read(workload, message.payload().unwrap_or_default())?;
        take(&mut missing, &row)?;
        events += row.events;
        quiet = Instant::now();
    }
    if let Some((window, count)) = missing.first_key_value() {
        bail!("{} of {windows} windows are missing, among them {window:?} with {count}", missing.len());
    }
    ensure!(events == records as u64, "the windows have {events} events in all, not {records}");
    Ok(json!({ "windows": windows, "events": events }))
}
