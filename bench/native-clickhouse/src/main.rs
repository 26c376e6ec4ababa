//! A contender: a topic into a table, as one would write it with the crates `rdkafka`, `serde_json` and `clickhouse`. At
//! least once: a block's offsets are committed after its insert.
//!
//! Without `--rules` records are events as the table wants them. With `--rules` the clickstream's rules come first, and
//! what they turn away goes to `--dead-letters`.

// What the other contenders have in common; not all of it is of use here.
#[allow(dead_code)]
#[path = "../../src/args.rs"]
mod args;
#[allow(dead_code)]
#[path = "../../src/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../../src/logic.rs"]
mod logic;
#[allow(dead_code)]
#[path = "../../src/usage.rs"]
mod usage;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clickhouse::{Client, Row, insert::Insert};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{BorrowedMessage, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use args::Args;
use logic::Reject;
use usage::Usage;

const TABLE: &str = "events";
/// How long a poll waits where the topic has nothing.
const IDLE_WAIT: Duration = Duration::from_millis(10);
/// After how many records it looks at the clock anyway.
const CLOCK_EVERY: u64 = 32;

/// A record, parsed.
#[derive(Deserialize)]
struct Event {
    event_type: String,
    user_id: u32,
    page_url: String,
    button_id: Uuid,
    timestamp: u32,
    country: String,
    device_type: Option<String>,
    region: String,
    is_mobile: Option<bool>,
    schema_version: u8,
}

/// A row of the table.
#[derive(Row, Serialize)]
struct EventRow<'a> {
    event_type: &'a str,
    user_id: u32,
    page_url: &'a str,
    #[serde(with = "clickhouse::serde::uuid")]
    button_id: Uuid,
    timestamp: u32,
    country: &'a str,
    device_type: Option<&'a str>,
    region: &'a str,
    is_mobile: Option<bool>,
    schema_version: u8,
    _topic: &'a str,
    _partition: i32,
    _offset: i64,
}

/// What is inserted and committed as one.
struct Block {
    insert: Insert<EventRow<'static>>,
    rows: u64,
    records: u64,
    next_offsets: BTreeMap<i32, i64>,
    since: Instant,
}

struct Worker {
    client: Client,
    consumer: BaseConsumer,
    producer: Option<(BaseProducer, String)>,
    input: String,
    block_rows: u64,
    interval: Duration,
}

fn main() -> Result<()> {
    let args = Args::of_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> Result<()> {
    let (brokers, input, group) = (args.text("brokers")?, args.text("input")?, args.text("group")?);
    let consumer: BaseConsumer = client::consumer(&brokers, &group, "read_committed").create()?;
    let producer = match args.has("rules") {
        true => Some((client::producer(&brokers).create()?, args.text("dead-letters")?)),
        false => None,
    };
    // Rows are sent in the crate's fastest way: compressed, and without a check of their types against the table.
    let client = Client::default().with_url(args.text("url")?).with_database(args.text("database")?);
    let worker = Worker {
        client: client.with_validation(false),
        consumer,
        producer,
        input,
        block_rows: args.get("block-rows", 100_000)?,
        interval: Duration::from_millis(args.get("flush-ms", 1_000)?),
    };
    let mut usage = Usage::default();
    let records = args.get("records", u64::MAX)?;
    worker.consume(records, &mut usage).await?;
    println!("{}", usage.report(records));
    Ok(())
}

impl Worker {
    async fn consume(&self, records: u64, usage: &mut Usage) -> Result<()> {
        self.consumer.subscribe(&[&self.input])?;
        let (mut block, mut done, mut polls) = (None, 0, 0_u64);
        while done < records {
            let message = client::poll(&self.consumer, if block.is_some() { Duration::ZERO } else { IDLE_WAIT })?;
            polls += 1;
            let look_at_clock = message.is_none() || polls % CLOCK_EVERY == 0;
            match &message {
                Some(message) => self.take(message, self.open(&mut block).await?).await?,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            let is_due = |block: &Block| {
                let is_last = done + block.records >= records;
                let waited = look_at_clock && block.since.elapsed() >= self.interval;
                block.rows >= self.block_rows || is_last || waited
            };
            if let Some(full) = block.take_if(|block| is_due(block)) {
                done += full.records;
                self.deliver(full).await?;
                usage.first_record();
            }
        }
        Ok(())
    }

    async fn open<'b>(&self, block: &'b mut Option<Block>) -> Result<&'b mut Block> {
        if block.is_none() {
            let insert = self.client.insert::<EventRow<'_>>(TABLE).await?;
            let (next_offsets, since) = (BTreeMap::new(), Instant::now());
            *block = Some(Block { insert, rows: 0, records: 0, next_offsets, since });
        }
        block.as_mut().context("it was made")
    }

    async fn take(&self, message: &BorrowedMessage<'_>, block: &mut Block) -> Result<()> {
        block.records += 1;
        block.next_offsets.insert(message.partition(), message.offset() + 1);
        let payload = message.payload().unwrap_or_default();
        let Some((producer, dead_letters)) = &self.producer else {
            let event: Event = serde_json::from_slice(payload)?;
            return write(&event, message, block).await;
        };
        match logic::accept(payload) {
            Ok(event) => write(&enrich(event)?, message, block).await,
            Err(reject) => {
                let record = BaseRecord::to(dead_letters).payload(payload).headers(reasons(message, &reject));
                client::send(producer, BaseRecord { key: message.key(), ..record })
            }
        }
    }

    async fn deliver(&self, block: Block) -> Result<()> {
        block.insert.end().await?;
        if let Some((producer, _)) = &self.producer {
            client::flush(producer)?;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in block.next_offsets {
            offsets.add_partition_offset(&self.input, partition, Offset::Offset(next))?;
        }
        Ok(self.consumer.commit(&offsets, CommitMode::Sync)?)
    }
}

async fn write(event: &Event, message: &BorrowedMessage<'_>, block: &mut Block) -> Result<()> {
    let row = EventRow {
        event_type: &event.event_type,
        user_id: event.user_id,
        page_url: &event.page_url,
        button_id: event.button_id,
        timestamp: event.timestamp,
        country: &event.country,
        device_type: event.device_type.as_deref(),
        region: &event.region,
        is_mobile: event.is_mobile,
        schema_version: event.schema_version,
        _topic: message.topic(),
        _partition: message.partition(),
        _offset: message.offset(),
    };
    block.rows += 1;
    Ok(block.insert.write(&row).await?)
}

/// What the plugins `upcast` and `enrich` do, as far as the table has columns for it.
fn enrich(event: logic::Event) -> Result<Event> {
    let (Ok(user_id), Ok(timestamp)) = (u32::try_from(event.user_id), u32::try_from(event.timestamp)) else {
        bail!("an event does not fit the table: {event:?}");
    };
    Ok(Event {
        region: logic::region(&event.country).to_owned(),
        is_mobile: event.device_type.as_ref().map(|device| device == "mobile"),
        schema_version: u8::try_from(logic::newest(event.schema_version)).context("schema_version")?,
        button_id: event.button_id.parse().context("button_id")?,
        event_type: event.event_type,
        user_id,
        page_url: event.page_url,
        timestamp,
        country: event.country,
        device_type: event.device_type,
    })
}

fn reasons(message: &BorrowedMessage<'_>, reject: &Reject) -> OwnedHeaders {
    let (partition, offset) = (message.partition().to_string(), message.offset().to_string());
    [
        ("__connect.errors.topic", message.topic()),
        ("__connect.errors.partition", partition.as_str()),
        ("__connect.errors.offset", offset.as_str()),
        ("__connect.errors.exception.message", reject.detail.as_str()),
        ("millstream.dlq.stage", reject.stage),
        ("millstream.dlq.code", reject.code),
    ]
    .into_iter()
    .fold(OwnedHeaders::new_with_capacity(6), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    })
}
