//! A contender: windows counted with hash maps, exactly once. The program that Millstream's windows are to match.
//!
//! Windows, their changelog and the offsets are committed in one transaction every `--commit-ms`; a key that was touched
//! is in the changelog once a commit. It runs alone: a second process of its group would fence this one's commits. It does
//! not read its changelog back, as nothing here measures a start.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use millstream_bench::client::{self, WAIT};
use millstream_bench::windows::{ByHand, Change, Closed, Workload};
use millstream_bench::{Args, Usage};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

/// How long it waits for a record before it looks whether a commit is due.
const IDLE_WAIT: Duration = Duration::from_millis(2);
/// After how many records it does so anyway.
const CLOCK_EVERY: u64 = 32;

struct Program {
    workload: Workload,
    input: String,
    output: String,
    changelog: String,
    producer: BaseProducer,
    partitions: BTreeMap<i32, Partition>,
    /// Room for a row.
    row: Vec<u8>,
}

struct Partition {
    windows: ByHand,
    /// The offset to go on from.
    next: i64,
    /// It moved since the last commit.
    moved: bool,
}

fn main() -> Result<()> {
    let args = Args::of_process();
    let (brokers, group) = (args.text("brokers")?, args.text("group")?);
    let mut usage = Usage::default();
    let mut program = Program {
        workload: args.text("window")?.parse()?,
        input: args.text("input")?,
        output: args.text("output")?,
        changelog: args.text("changelog")?,
        producer: client::transactional(&brokers, &group).create()?,
        partitions: BTreeMap::new(),
        row: Vec::new(),
    };
    program.producer.init_transactions(WAIT)?;
    let consumer: BaseConsumer = client::consumer(&brokers, &group, "read_committed").create()?;
    consumer.subscribe(&[&program.input])?;
    let commit_every = Duration::from_millis(args.get("commit-ms", 100)?);
    let records = program.run(&consumer, args.get("records", u64::MAX)?, commit_every)?;
    let late: u64 = program.partitions.values().map(|partition| partition.windows.late()).sum();
    eprintln!("{late} records were late");
    usage.first_record();
    println!("{}", usage.report(records));
    Ok(())
}

impl Program {
    /// Reads and counts until `records` are committed.
    fn run(&mut self, consumer: &BaseConsumer, records: u64, commit_every: Duration) -> Result<u64> {
        let (mut done, mut open, mut polls, mut due) = (0, 0, 0_u64, Instant::now());
        let wait = commit_every.min(IDLE_WAIT);
        while done < records {
            let message = client::poll(consumer, wait)?;
            polls += 1;
            let look_at_clock = message.is_none() || polls % CLOCK_EVERY == 0;
            if let Some(message) = message {
                if open == 0 {
                    self.producer.begin_transaction()?;
                    due = Instant::now() + commit_every;
                }
                self.count(&message)?;
                open += 1;
            }
            if done + open >= records || open > 0 && look_at_clock && Instant::now() >= due {
                self.commit(consumer)?;
                done += std::mem::take(&mut open);
            }
        }
        Ok(done)
    }

    fn count(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let Self { workload, output, producer, row, .. } = self;
        let fresh = || Partition { windows: ByHand::new(*workload), next: 0, moved: false };
        let partition = self.partitions.entry(message.partition()).or_insert_with(fresh);
        let mut close = |closed: Closed<'_>| {
            row.clear();
            serde_json::to_writer(&mut *row, &closed)?;
            let user = closed.user_id.map(|user| user.to_string());
            let key = user.as_deref().or(closed.country).unwrap_or_default();
            client::send(producer, BaseRecord::to(output).key(key.as_bytes()).payload(&row[..]))
        };
        partition.windows.fold(message.payload().unwrap_or_default(), &mut close)?;
        (partition.next, partition.moved) = (message.offset() + 1, true);
        Ok(())
    }

    fn commit(&mut self, consumer: &BaseConsumer) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        let (producer, changelog) = (&self.producer, &self.changelog);
        for (&number, partition) in self.partitions.iter_mut().filter(|(_, partition)| partition.moved) {
            let mut tell = |change: Change<'_>| {
                let mut record = BaseRecord::to(changelog).key(change.key).partition(number);
                record.payload = change.value;
                client::send(producer, record)
            };
            partition.windows.changes(&mut tell)?;
            partition.moved = false;
            offsets.add_partition_offset(&self.input, number, Offset::Offset(partition.next))?;
        }
        let group = consumer.group_metadata().ok_or_else(|| anyhow!("the consumer has no group"))?;
        client::flush(producer)?;
        producer.send_offsets_to_transaction(&offsets, &group, WAIT)?;
        Ok(producer.commit_transaction(WAIT)?)
    }
}
