//! librdkafka's settings for the contenders: those that Millstream uses itself, so that what differs is the program; but
//! for the linger, which for a producer that sends record by record is better long. A commit ends it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// How long any single wait for the broker may take.
pub const WAIT: Duration = Duration::from_secs(60);

/// A consumer of `group` that commits by hand.
pub fn consumer(brokers: &str, group: &str, isolation: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "16384");
    config
}

/// An idempotent producer.
pub fn producer(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("delivery.report.only.error", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "100")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("queue.buffering.max.messages", "1000000")
        .set("partitioner", "murmur2_random");
    config
}

/// A transactional producer.
pub fn transactional(brokers: &str, id: &str) -> ClientConfig {
    let mut config = producer(brokers);
    config.set("transactional.id", id).set("transaction.timeout.ms", "10000").set("retry.backoff.ms", "1");
    config
}

/// Sends a record, and waits for room where the queue is full.
pub fn send(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                producer.poll(Duration::ZERO);
                std::thread::sleep(Duration::from_millis(1));
                record = unsent;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// The next record within `wait`. A connection that was lost is made anew by librdkafka and is no failure.
pub fn poll<C: ConsumerContext>(consumer: &BaseConsumer<C>, wait: Duration) -> Result<Option<BorrowedMessage<'_>>> {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    match consumer.poll(wait) {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(message)),
        Some(Err(KafkaError::MessageConsumption(AllBrokersDown | BrokerTransportFailure | OperationTimedOut))) => {
            Ok(None)
        }
        Some(Err(error)) => Err(error.into()),
    }
}

/// The offset after a partition's last record; a broker that has just made the topic may still have to learn that it leads.
pub fn end(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<i64> {
    use RDKafkaErrorCode::{NotLeaderForPartition, UnknownPartition, UnknownTopicOrPartition};
    let start = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, WAIT) {
            Ok((_, end)) => return Ok(end),
            Err(KafkaError::MetadataFetch(NotLeaderForPartition | UnknownPartition | UnknownTopicOrPartition))
                if start.elapsed() < WAIT =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until everything is delivered. Not by the crate's own flush, which sleeps in steps of 100 ms that nothing ends
/// when only failures are reported, and spins through any rest below a millisecond.
pub fn flush(producer: &BaseProducer) -> Result<()> {
    const STEP: Duration = Duration::from_micros(500);
    let start = Instant::now();
    while producer.in_flight_count() > 0 {
        if start.elapsed() > WAIT {
            bail!("the broker did not take all records within {WAIT:?}");
        }
        // Ends the lingering, and serves what failed; it fails as long as records are on their way.
        let _ = producer.flush(Duration::ZERO);
        std::thread::sleep(STEP);
    }
    Ok(())
}
