//! A contender: the clickstream's rules written by hand, exactly once. The program that Millstream is to beat.
//!
//! A thread has a consumer and a transactional producer. A transaction begins with the first record after the last
//! commit, and ends after `--commit-ms` or `--commit-records`, or before partitions go to another thread.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use millstream_bench::client::{self, WAIT};
use millstream_bench::logic::{self, Reject};
use millstream_bench::{Args, Usage};
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{BorrowedMessage, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

/// As long as the digest of a plugin, so that dead letters are as large as Millstream's.
const VERSION: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const PARTITIONS_MAX: usize = 64;
const NONE: i64 = -1;
/// How long a worker waits for a record before it looks whether a commit is due.
const IDLE_WAIT: Duration = Duration::from_millis(2);
/// After how many records it does so anyway.
const CLOCK_EVERY: u64 = 32;

struct Settings {
    brokers: String,
    input: String,
    output: String,
    dead_letters: String,
    group: String,
    records: u64,
    commit_every: Duration,
    commit_records: u64,
}

fn main() -> Result<()> {
    let args = Args::of_process();
    let settings = Settings {
        brokers: args.text("brokers")?,
        input: args.text("input")?,
        output: args.text("output")?,
        dead_letters: args.text("dead-letters")?,
        group: args.text("group")?,
        records: args.get("records", u64::MAX)?,
        commit_every: Duration::from_millis(args.get("commit-ms", 100)?),
        commit_records: args.get("commit-records", 50_000)?,
    };
    let workers: usize = args.get("workers", 1)?;
    let mut usage = Usage::default();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let work = |number| worker(&settings, number, &done).unwrap_or_else(|error| fail(&error));
        let threads: Vec<_> = (0..workers).map(|number| scope.spawn(move || work(number))).collect();
        while done.load(Ordering::Relaxed) == 0 && threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        usage.first_record();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a worker panicked")))
    })?;
    println!("{}", usage.report(done.into_inner()));
    Ok(())
}

/// Ends the process; what is open is undone by its time-out.
fn fail(error: &anyhow::Error) -> ! {
    eprintln!("{error:?}");
    std::process::exit(1)
}

/// What the rebalance callback needs too: the producer, and how far its open transaction reaches.
struct Block {
    producer: BaseProducer,
    input: String,
    open: AtomicBool,
    records: AtomicU64,
    next_offsets: [AtomicI64; PARTITIONS_MAX],
}

impl Block {
    fn begin(&self) -> Result<()> {
        self.producer.begin_transaction()?;
        self.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Delivers what is open; returns how many records that were.
    fn commit<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) -> Result<u64> {
        if !self.open.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in self.next_offsets.iter().enumerate() {
            let next = next.swap(NONE, Ordering::Relaxed);
            if next != NONE {
                offsets.add_partition_offset(&self.input, partition as i32, Offset::Offset(next))?;
            }
        }
        let group = consumer.group_metadata().ok_or_else(|| anyhow!("the consumer has no group"))?;
        client::flush(&self.producer)?;
        self.producer.send_offsets_to_transaction(&offsets, &group, WAIT)?;
        self.producer.commit_transaction(WAIT)?;
        self.open.store(false, Ordering::Relaxed);
        Ok(self.records.swap(0, Ordering::Relaxed))
    }
}

struct Context<'a> {
    block: Arc<Block>,
    done: &'a AtomicU64,
}

impl ClientContext for Context<'_> {}

impl ConsumerContext for Context<'_> {
    /// Partitions are given up only after what was read of them is committed.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(_) = rebalance {
            match self.block.commit(consumer) {
                Ok(records) => drop(self.done.fetch_add(records, Ordering::Relaxed)),
                Err(error) => fail(&error),
            }
        }
    }
}

fn worker(settings: &Settings, number: usize, done: &AtomicU64) -> Result<()> {
    let id = format!("{}-{number}", settings.group);
    let block = Arc::new(Block {
        producer: client::transactional(&settings.brokers, &id).create()?,
        input: settings.input.clone(),
        open: AtomicBool::new(false),
        records: AtomicU64::new(0),
        next_offsets: [const { AtomicI64::new(NONE) }; PARTITIONS_MAX],
    });
    let mut config = client::consumer(&settings.brokers, &settings.group, "read_committed");
    config.set("partition.assignment.strategy", "cooperative-sticky");
    let context = Context { block: Arc::clone(&block), done };
    let consumer = BaseConsumer::from_config_and_context(&config, context)?;
    block.producer.init_transactions(WAIT)?;
    consumer.subscribe(&[&settings.input])?;

    let (mut out, mut due, mut polls) = (Vec::new(), Instant::now(), 0_u64);
    let wait = settings.commit_every.min(IDLE_WAIT);
    while done.load(Ordering::Relaxed) < settings.records {
        let message = client::poll(&consumer, wait)?;
        polls += 1;
        let look_at_clock = message.is_none() || polls % CLOCK_EVERY == 0;
        if let Some(message) = message {
            if !block.open.load(Ordering::Relaxed) {
                block.begin()?;
                due = Instant::now() + settings.commit_every;
            }
            deliver(settings, &block.producer, &message, &mut out)?;
            block.next_offsets[message.partition() as usize].store(message.offset() + 1, Ordering::Relaxed);
            block.records.fetch_add(1, Ordering::Relaxed);
        }
        let records = block.records.load(Ordering::Relaxed);
        let last = done.load(Ordering::Relaxed) + records >= settings.records;
        if records >= settings.commit_records || last || records > 0 && look_at_clock && Instant::now() >= due {
            done.fetch_add(block.commit(&consumer)?, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn deliver(
    settings: &Settings,
    producer: &BaseProducer,
    message: &BorrowedMessage<'_>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let result = logic::process(message.payload().unwrap_or_default(), out);
    let topic = if result.is_ok() { &settings.output } else { &settings.dead_letters };
    let mut record = BaseRecord::to(topic);
    record.key = message.key();
    record.timestamp = message.timestamp().to_millis();
    record.headers = message.headers().map(|headers| headers.detach());
    match result {
        Ok(()) => {
            record.payload = Some(out.as_slice());
            // Where no key decides, runs of one partition are cheapest for the client.
            record.partition = message.key().is_none().then(|| message.partition());
        }
        Err(reject) => {
            record.payload = message.payload();
            record.headers = Some(reasons(message, &reject, record.headers.take()));
        }
    }
    client::send(producer, record)
}

fn reasons(message: &BorrowedMessage<'_>, reject: &Reject, own: Option<OwnedHeaders>) -> OwnedHeaders {
    let partition = message.partition().to_string();
    let offset = message.offset().to_string();
    [
        ("__connect.errors.topic", message.topic()),
        ("__connect.errors.partition", partition.as_str()),
        ("__connect.errors.offset", offset.as_str()),
        ("__connect.errors.exception.message", reject.detail.as_str()),
        ("millstream.dlq.pipeline", "clickstream"),
        ("millstream.dlq.stage", reject.stage),
        ("millstream.dlq.code", reject.code),
        ("millstream.dlq.attempt", "1"),
        ("millstream.dlq.plugin", VERSION),
    ]
    .into_iter()
    .fold(own.unwrap_or_else(|| OwnedHeaders::new_with_capacity(9)), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    })
}
