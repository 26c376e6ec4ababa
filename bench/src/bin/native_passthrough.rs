//! A contender: consumes and produces untouched, at least once. What moving the records costs at the least.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use std::time::Duration;

use anyhow::Result;
use millstream_bench::client::{self, WAIT};
use millstream_bench::{Args, Usage};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord};

fn main() -> Result<()> {
    let args = Args::of_process();
    let (brokers, input) = (args.text("brokers")?, args.text("input")?);
    let (output, group) = (args.text("output")?, args.text("group")?);
    let records: u64 = args.get("records", u64::MAX)?;
    let commit_records: u64 = args.get("commit-records", 100_000)?;
    let mut usage = Usage::default();

    let consumer: BaseConsumer = client::consumer(&brokers, &group, "read_committed").create()?;
    let producer: BaseProducer = client::producer(&brokers).create()?;
    consumer.subscribe(&[&input])?;
    let mut done = 0;
    while done < records {
        let Some(message) = client::poll(&consumer, Duration::from_millis(100))? else { continue };
        let mut record = BaseRecord::to(&output);
        record.key = message.key();
        record.payload = message.payload();
        // Where no key decides, runs of one partition are cheapest for the client.
        record.partition = message.key().is_none().then(|| message.partition());
        record.timestamp = message.timestamp().to_millis();
        client::send(&producer, record)?;
        consumer.store_offset_from_message(&message)?;
        done += 1;
        if done % commit_records == 0 || done == records {
            client::flush(&producer)?;
            consumer.commit_consumer_state(CommitMode::Sync)?;
        } else if done == 1 {
            client::flush(&producer)?;
            usage.first_record();
        }
    }
    drop(consumer);
    rdkafka::producer::Producer::flush(&producer, WAIT)?;
    println!("{}", usage.report(done));
    Ok(())
}
