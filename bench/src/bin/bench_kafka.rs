//! What the benches do to a broker beside measuring: make topics, fill them, watch a group, compare outputs.
//!
//! `topics --create NAME:PARTITIONS,… --delete NAME,… --delete-all-with TEXT` · `load --topic T --records N` · `first --topics T,…`
//! · `wait --group G --topic T` · `digest --topic T` · `ends --topic T`
#![allow(clippy::print_stdout, reason = "the result is the output")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use millstream_bench::clickstream::Clickstream;
use millstream_bench::client::{self, WAIT};
use millstream_bench::{Args, digest};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let args = Args::of_process();
    let result = match args.command() {
        "topics" => topics(&args),
        "load" => load(&args),
        "first" => first(&args),
        "wait" => wait(&args),
        "digest" => digest_of(&args),
        "ends" => Ok(
            json!({ "records": ends(&reader(&args, "read_uncommitted")?, &args.text("topic")?)?.iter().map(|end| end.1).sum::<i64>() }),
        ),
        other => bail!("no command {other:?}"),
    };
    println!("{}", result?);
    Ok(())
}

fn reader(args: &Args, isolation: &str) -> Result<BaseConsumer> {
    let group = args.get("group", "bench-reader".to_owned())?;
    let mut config = client::consumer(&args.text("brokers")?, &group, isolation);
    Ok(config.set("fetch.wait.max.ms", "20").set("queued.max.messages.kbytes", "65536").create()?)
}

/// Partitions with the offset after their last record.
fn ends(consumer: &BaseConsumer, topic: &str) -> Result<Vec<(i32, i64)>> {
    let metadata = consumer.fetch_metadata(Some(topic), WAIT)?;
    let topic_metadata = metadata.topics().first().context("no metadata of the topic")?;
    let end = |partition: i32| Ok((partition, client::end(consumer, topic, partition)?));
    topic_metadata.partitions().iter().map(|partition| end(partition.id())).collect()
}

fn topics(args: &Args) -> Result<Value> {
    let mut config = rdkafka::ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> = config.set("bootstrap.servers", args.text("brokers")?).create()?;
    let options = AdminOptions::new().operation_timeout(Some(WAIT));
    let names = |name| args.get(name, String::new());
    let (create, delete) = (names("create")?, names("delete")?);
    let mut delete: Vec<&str> = delete.split(',').filter(|name| !name.is_empty()).collect();
    let (with, metadata) = (names("delete-all-with")?, admin.inner().fetch_metadata(None, WAIT)?);
    let all = metadata.topics().iter().map(|topic| topic.name());
    delete.extend(all.filter(|name| !with.is_empty() && name.contains(&with)));
    if !delete.is_empty() {
        for result in block_on(admin.delete_topics(&delete, &options))? {
            result.map_err(|(name, error)| anyhow::anyhow!("delete {name}: {error}"))?;
        }
    }
    // A broker deletes whole segments only.
    let retention = args.get("retention-mb", 0_u64)? << 20;
    let (kept, segment) = (retention.to_string(), (retention / 4).to_string());
    let mut wanted = Vec::new();
    for item in create.split(',').filter(|name| !name.is_empty()) {
        let (name, partitions) = item.split_once(':').context("NAME:PARTITIONS")?;
        // Records may have the time of made-up events, which is years ago: none is to go for its age.
        let topic = NewTopic::new(name, partitions.parse()?, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        wanted.push(match retention {
            0 => topic,
            _ => topic.set("retention.bytes", &kept).set("segment.bytes", &segment),
        });
    }
    if wanted.is_empty() {
        return Ok(json!({ "deleted": delete.len() }));
    }
    for result in block_on(admin.create_topics(&wanted, &options))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, error)) => bail!("create {name}: {error}"),
        }
    }
    Ok(json!({ "created": wanted.len(), "deleted": delete.len() }))
}

/// Waits for one of the crate's futures, which its own thread completes.
fn block_on<T>(future: impl Future<Output = Result<T, KafkaError>>) -> Result<T> {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return Ok(result?);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Fills a topic up to `--records`, in turn over its partitions; with `--shape enriched` as plugins leave them.
fn load(args: &Args) -> Result<Value> {
    let (topic, records) = (args.text("topic")?, args.get("records", 2_000_000_u64)?);
    let partitions = ends(&reader(args, "read_uncommitted")?, &topic)?;
    let there = partitions.iter().map(|(_, end)| *end as u64).sum::<u64>();
    if there == records {
        return Ok(json!({ "records": records, "loaded": 0 }));
    }
    if there != 0 {
        bail!("topic {topic} has {there} records, not {records}: delete it");
    }
    let producer: BaseProducer = client::producer(&args.text("brokers")?).create()?;
    let (mut stream, enriched) =
        (Clickstream::new(args.get("seed", 1)?), args.get("shape", String::new())? == "enriched");
    let (mut raw, mut record, mut bytes) = (Vec::new(), Vec::new(), 0);
    for i in 0..records {
        if enriched {
            stream.next_enriched(&mut raw, &mut record);
        } else {
            stream.next(None, &mut record);
        }
        bytes += record.len();
        let partition = partitions[i as usize % partitions.len()].0;
        client::send(&producer, BaseRecord::to(&topic).payload(&record[..]).partition(partition))?;
    }
    client::flush(&producer)?;
    Ok(json!({ "records": records, "loaded": records, "bytes": bytes }))
}

/// Prints when the first record of some topics can be seen under read_committed, in milliseconds since 1970; after a line
/// that says that it watches.
fn first(args: &Args) -> Result<Value> {
    let consumer = reader(args, "read_committed")?;
    let mut from = TopicPartitionList::new();
    for topic in args.text("topics")?.split(',') {
        for (partition, end) in ends(&consumer, topic)? {
            from.add_partition_offset(topic, partition, Offset::Offset(end))?;
        }
    }
    consumer.assign(&from)?;
    consumer.poll(Duration::from_millis(100));
    println!("{}", json!({ "watching": true }));
    let start = Instant::now();
    while start.elapsed() < 2 * WAIT {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            message?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            return Ok(json!({ "first_unix_ms": now.as_secs_f64() * 1e3 }));
        }
    }
    bail!("no record came")
}

/// Waits until a group has committed everything that was in the topic when this began.
fn wait(args: &Args) -> Result<Value> {
    let (topic, timeout) = (args.text("topic")?, Duration::from_secs(args.get("timeout-s", 300)?));
    let consumer = reader(args, "read_uncommitted")?;
    let ends = ends(&consumer, &topic)?;
    let mut asked = TopicPartitionList::new();
    for &(partition, _) in &ends {
        asked.add_partition(&topic, partition);
    }
    let start = Instant::now();
    loop {
        let committed = consumer.committed_offsets(asked.clone(), WAIT)?;
        let at = |partition| {
            let found = committed.find_partition(&topic, partition).map(|place| place.offset());
            if let Some(Offset::Offset(offset)) = found { offset } else { 0 }
        };
        let lag: i64 = ends.iter().map(|&(partition, end)| (end - at(partition)).max(0)).sum();
        if lag == 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            return Ok(json!({ "done_unix_ms": now.as_secs_f64() * 1e3 }));
        }
        if start.elapsed() > timeout {
            bail!("the group still lags by {lag} records after {timeout:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Counts a topic's committed records, and sums up what they say, whatever their order and form.
fn digest_of(args: &Args) -> Result<Value> {
    let topic = args.text("topic")?;
    let consumer = reader(args, "read_committed")?;
    let mut from = TopicPartitionList::new();
    let ends = ends(&consumer, &topic)?;
    for &(partition, _) in &ends {
        from.add_partition_offset(&topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&from)?;
    let (mut records, mut bytes, mut sum, mut quiet) = (0_u64, 0, 0_u64, Instant::now());
    // A transaction's marker takes an offset of its own, so the end is told by silence.
    while quiet.elapsed() < Duration::from_secs(2) {
        let Some(message) = consumer.poll(Duration::from_millis(100)).transpose()? else { continue };
        let payload = message.payload().unwrap_or_default();
        records += 1;
        bytes += payload.len();
        sum = sum.wrapping_add(digest(payload));
        quiet = Instant::now();
    }
    Ok(json!({ "records": records, "bytes": bytes, "digest": format!("{sum:016x}") }))
}
