//! `millstream generate`: the made-up records of the `generate` source, to a file or a topic, and made-up files.

mod insurance;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::kafka::TIMEOUT;
use super::{Mistake, logs};
use crate::config::{ClickstreamConfig, GenerateConfig};
use crate::kafka::{Admin, Connection, Producer, ProducerSettings, Route, TopicPlan};
use crate::sink::FileSink;
use crate::source::GenerateSource;

/// Most records that are made at once.
const BATCH_RECORDS: usize = 4_096;
/// How long to wait for a record that is not due yet.
const WAIT_MS: u64 = 100;
/// How often to look whether a new topic has appeared.
const APPEARS_INTERVAL: Duration = Duration::from_millis(20);
/// How long to wait for room in the producer's queue, and for the last records to arrive.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes records up from a seed; the same options give the same bytes.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    clickstream: Clickstream,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Clickstream(Box<Clickstream>),
    Insurance(insurance::Args),
}

/// Page views and button clicks of a web shop, to standard output, a file or a topic; what is made unless another kind is
/// named.
#[derive(Debug, clap::Args)]
struct Clickstream {
    /// How many records
    #[arg(long, default_value_t = 10_000)]
    records: u64,
    /// What the records follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records a second; 0 for full speed
    #[arg(long, default_value_t = 0)]
    records_per_second: u32,
    /// Records of a million that are cut off in the middle
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    malformed_per_million: u32,
    /// The event time of the first record, in seconds since 1970 UTC
    #[arg(long, default_value_t = ClickstreamConfig::default().start_time_s)]
    start_time_s: i64,
    /// The file to write, instead of standard output
    #[arg(long, conflicts_with = "brokers")]
    out: Option<PathBuf>,
    /// The brokers of the topic to write, as host:port
    #[arg(long, requires = "topic")]
    brokers: Option<String>,
    /// The topic to write; made where it is missing
    #[arg(long, requires = "brokers")]
    topic: Option<String>,
    /// Partitions of a topic that is made
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
    /// A librdkafka property, as NAME=VALUE; may be repeated
    #[arg(long = "property")]
    properties: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    logs::start_quiet();
    let args = match &args.kind {
        Some(Kind::Insurance(args)) => return insurance::run(args),
        Some(Kind::Clickstream(args)) => args,
        None => &args.clickstream,
    };
    match (&args.brokers, &args.topic) {
        (Some(brokers), Some(topic)) => to_topic(args, brokers, topic)?,
        _ => to_file(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn records(args: &Clickstream, partitions: u32) -> GenerateSource {
    GenerateSource::new(&GenerateConfig::Clickstream(ClickstreamConfig {
        seed: args.seed,
        records: Some(args.records),
        records_per_second: args.records_per_second,
        partitions,
        start_time_s: args.start_time_s,
        malformed_per_million: args.malformed_per_million,
        ..ClickstreamConfig::default()
    }))
}

fn to_file(args: &Clickstream) -> Result<()> {
    let mut source = records(args, 1);
    let mut sink = match &args.out {
        Some(path) => FileSink::create(path)?,
        None => FileSink::stdout(),
    };
    while let Some(batch) = source.next(BATCH_RECORDS, WAIT_MS) {
        sink.write(&batch.rows, false)?;
        if args.records_per_second > 0 {
            // Whoever reads along wants each record when it is due.
            sink.flush()?;
        }
    }
    Ok(sink.finish()?)
}

fn to_topic(args: &Clickstream, brokers: &str, topic: &str) -> Result<()> {
    let connection = connection(args, brokers)?;
    let plan =
        TopicPlan { name: topic.to_owned(), partitions: args.partitions, replication: -1, config: BTreeMap::new() };
    let mut admin = Admin::new(&connection).with_context(|| format!("can't reach {brokers}"))?;
    let created = admin.create_topics(&[plan], TIMEOUT).with_context(|| format!("can't reach {brokers}"))?;
    created.into_iter().collect::<Result<Vec<_>, _>>().with_context(|| format!("can't make the topic {topic}"))?;
    wait_for(&mut admin, topic)?;
    let mut producer = Producer::new(ProducerSettings::new(connection, ""), TIMEOUT)?;
    let id = producer.topic(topic, DELIVERY_TIMEOUT).with_context(|| format!("can't write the topic {topic}"))?;
    let mut source = records(args, producer.partitions(id).unsigned_abs());
    while let Some(batch) = source.next(BATCH_RECORDS, WAIT_MS) {
        if batch.rows.is_empty() {
            continue;
        }
        let progress = producer.produce(id, &Route::Partition(batch.partition), batch.rows)?;
        if progress.waiting > 0 {
            ensure!(producer.pump(DELIVERY_TIMEOUT)? == 0, "the brokers take no records");
        }
    }
    producer.flush(DELIVERY_TIMEOUT)?;
    match producer.take_failures().first() {
        None => Ok(()),
        Some(lost) => anyhow::bail!("{}[{}]: a record was not taken: {}", lost.topic, lost.partition, lost.error),
    }
}

/// A topic that was just made is not known at once to every broker.
fn wait_for(admin: &mut Admin, topic: &str) -> Result<()> {
    let end = Instant::now() + TIMEOUT;
    loop {
        match admin.describe_topics(&[topic], TIMEOUT)?.pop() {
            Some(Err(why)) if Instant::now() >= end => {
                return Err(why).context(format!("the topic {topic} is missing"));
            }
            Some(Err(_)) => std::thread::sleep(APPEARS_INTERVAL),
            Some(Ok(_)) | None => return Ok(()),
        }
    }
}

fn connection(args: &Clickstream, brokers: &str) -> Result<Connection, Mistake> {
    let mut connection = Connection::new(brokers);
    for property in &args.properties {
        let Some((name, value)) = property.split_once('=') else {
            return Err(Mistake("a --property is NAME=VALUE".to_owned()));
        };
        connection.properties.insert(name.to_owned(), value.to_owned());
    }
    Ok(connection)
}
