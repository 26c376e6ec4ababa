//! From our settings to librdkafka's properties, each with the reason where it differs from librdkafka's default.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::error::KafkaError;
use crate::config::{GroupProtocol, KafkaConnection, PropertyValue};

/// How to reach and sign in to a cluster.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// Further properties by librdkafka's names (`security.protocol`, `sasl.username`, …); those that decide over
    /// correctness are refused.
    pub properties: BTreeMap<String, String>,
    /// Shown to the broker in its logs and quotas.
    pub client_id: String,
    /// How often librdkafka writes statistics; zero for never.
    pub statistics_interval: Duration,
}

/// Names the properties only: passwords are among the values.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        f.debug_struct("Connection").field("bootstrap", &self.bootstrap).field("properties", &names).finish()
    }
}

impl From<&KafkaConnection> for Connection {
    fn from(config: &KafkaConnection) -> Self {
        let plain = |(name, value): (&String, &PropertyValue)| (name.clone(), value.expose().to_owned());
        Self { properties: config.properties.iter().map(plain).collect(), ..Self::new(config.brokers.as_str()) }
    }
}

/// Settings of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// The cluster.
    pub connection: Connection,
    /// The group; empty for a reader without one, which can't commit.
    pub group: String,
    /// How the group is run.
    pub protocol: GroupProtocol,
    /// The name of a static member, whose restart causes no rebalance; empty for none.
    pub instance: String,
    /// How long a member may be silent before the group gives its partitions to others (classic protocol only; with
    /// KIP-848 the broker decides).
    pub session_timeout: Duration,
    /// How long a member may go without polling before it is put out of the group.
    pub max_poll_interval: Duration,
    /// False to read open and aborted transactions too. True also asks for stable offsets when committed ones are read.
    pub read_committed: bool,
    /// Where to begin without a committed offset: `earliest`, `latest`, or `error`.
    pub offset_reset: String,
    /// Most that librdkafka fetches ahead, in KiB.
    pub queue_kib: usize,
    /// True to be told when the end of a partition is reached. For readers that assign by hand only: librdkafka (2.12) takes
    /// an end that is read in a batch for a record, and goes on *behind* the next one when the partition is paused, as every
    /// rebalance does.
    pub report_ends: bool,
}

impl ConsumerSettings {
    /// Settings for `group` on `connection` with our defaults.
    pub fn new(connection: Connection, group: impl Into<String>) -> Self {
        Self {
            connection,
            group: group.into(),
            protocol: GroupProtocol::Classic,
            instance: String::new(),
            session_timeout: Duration::from_secs(30),
            max_poll_interval: Duration::from_secs(300),
            read_committed: true,
            offset_reset: "earliest".to_owned(),
            queue_kib: 16 * 1024,
            report_ends: false,
        }
    }

    pub(super) fn properties(&self) -> Result<Vec<(String, String)>, KafkaError> {
        let mut list = self.connection.ours();
        let mut set = |name: &str, value: String| list.push((name.to_owned(), value));
        // librdkafka wants a group even of a reader that only assigns by hand; nothing is ever committed to this one.
        let reader = if self.group.is_empty() { "millstream-reader".to_owned() } else { self.group.clone() };
        set("group.id", reader);
        match self.protocol {
            GroupProtocol::Classic => {
                set("partition.assignment.strategy", "cooperative-sticky".to_owned());
                set("session.timeout.ms", millis(self.session_timeout));
                let heartbeat = (self.session_timeout / 3).min(Duration::from_secs(1));
                // A rebalance takes two heartbeats.
                set("heartbeat.interval.ms", millis(heartbeat));
            }
            GroupProtocol::Consumer => set("group.protocol", "consumer".to_owned()),
        }
        if !self.instance.is_empty() {
            set("group.instance.id", self.instance.clone());
        }
        set("max.poll.interval.ms", millis(self.max_poll_interval));
        let isolation = if self.read_committed { "read_committed" } else { "read_uncommitted" };
        set("isolation.level", isolation.to_owned());
        set("auto.offset.reset", self.offset_reset.clone());
        // Progress is what we delivered, never what was read.
        set("enable.auto.commit", "false".to_owned());
        set("enable.auto.offset.store", "false".to_owned());
        set("enable.partition.eof", self.report_ends.to_string());
        set("queued.max.messages.kbytes", self.queue_kib.to_string());
        // What a request may bring of each partition is compressed, comes on top of a queue that is not full yet, and
        // takes several times its size once it is read.
        set("fetch.message.max.bytes", (self.queue_kib * 1024 / 16).clamp(64 << 10, 1 << 20).to_string());
        // After a full queue librdkafka waits a second by default before it fetches again, and the reader runs dry.
        set("fetch.queue.backoff.ms", "10".to_owned());
        // The end of a partition is only reported by the next, empty fetch.
        set("fetch.wait.max.ms", "100".to_owned());
        self.connection.with_users(list)
    }
}

/// Settings of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// The cluster.
    pub connection: Connection,
    /// Stable name of the producer over restarts (pipeline, instance, worker); empty for one without transactions.
    pub transactional_id: String,
    /// How long the broker leaves a transaction open. Short, because an open one blocks every read_committed reader.
    pub transaction_timeout: Duration,
    /// `none`, `lz4`, `zstd`, `gzip` or `snappy`.
    pub compression: String,
    /// How long a row may wait for others before it is sent; a flush or commit ends the wait.
    pub linger: Duration,
    /// Most bytes of a row with key and headers: the largest `max.message.bytes` of the topics.
    pub message_max_bytes: usize,
    /// Most bytes of rows that are sent as one batch, which a topic takes or refuses as a whole: below the smallest
    /// `max.message.bytes` of the topics. A row that is larger goes alone.
    pub batch_bytes: usize,
    /// Most that waits to be delivered, in KiB.
    pub queue_kib: usize,
}

impl ProducerSettings {
    /// Settings on `connection` with our defaults; transactional unless `transactional_id` is empty.
    pub fn new(connection: Connection, transactional_id: impl Into<String>) -> Self {
        Self {
            connection,
            transactional_id: transactional_id.into(),
            transaction_timeout: Duration::from_secs(10),
            compression: "lz4".to_owned(),
            linger: Duration::from_millis(5),
            message_max_bytes: 1_000_000,
            batch_bytes: 1_000_000,
            queue_kib: 64 * 1024,
        }
    }

    pub(super) fn properties(&self) -> Result<Vec<(String, String)>, KafkaError> {
        let mut list = self.connection.ours();
        let mut set = |name: &str, value: String| list.push((name.to_owned(), value));
        set("enable.idempotence", "true".to_owned());
        set("acks", "all".to_owned());
        if !self.transactional_id.is_empty() {
            set("transactional.id", self.transactional_id.clone());
            set("transaction.timeout.ms", millis(self.transaction_timeout));
            // The broker answers "the previous transaction is still being completed" to one that follows at once; with
            // the default of 100 ms back-to-back commits take 90 ms in place of 5 (K5).
            set("retry.backoff.ms", "1".to_owned());
        }
        // Only failures are reported: a success per row would cost an event per row.
        set("delivery.report.only.error", "true".to_owned());
        set("compression.type", self.compression.clone());
        set("linger.ms", millis(self.linger));
        set("message.max.bytes", self.message_max_bytes.to_string());
        set("batch.size", self.batch_bytes.to_string());
        set("batch.num.messages", "100000".to_owned());
        set("queue.buffering.max.kbytes", self.queue_kib.to_string());
        set("queue.buffering.max.messages", "1000000".to_owned());
        // Values up to this many bytes are copied into requests, which is what lets us keep rows uncopied until then.
        set("message.copy.max.bytes", "65535".to_owned());
        self.connection.with_users(list)
    }
}

/// Properties that decide over correctness or that other settings stand for.
const OURS: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "delivery.report.only.error",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "message.copy.max.bytes",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
];

impl Connection {
    /// A plaintext connection to `bootstrap`.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), client_id: "millstream".to_owned(), ..Self::default() }
    }

    /// The properties of an admin client.
    pub(super) fn properties(&self) -> Result<Vec<(String, String)>, KafkaError> {
        self.with_users(self.ours())
    }

    fn ours(&self) -> Vec<(String, String)> {
        let mut list = vec![
            ("bootstrap.servers".to_owned(), self.bootstrap.clone()),
            ("statistics.interval.ms".to_owned(), millis(self.statistics_interval)),
        ];
        if !self.client_id.is_empty() {
            list.push(("client.id".to_owned(), self.client_id.clone()));
        }
        list
    }

    /// Adds the user's properties, which win over ours where they are allowed at all.
    fn with_users(&self, mut list: Vec<(String, String)>) -> Result<Vec<(String, String)>, KafkaError> {
        if let Some(name) = self.properties.keys().find(|name| OURS.contains(&name.as_str())) {
            let text = "is set by Millstream and can't be changed".to_owned();
            return Err(KafkaError::Setting { name: name.clone(), text });
        }
        list.extend(self.properties.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(list)
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_decides_over_correctness_is_refused() {
        let mut connection = Connection::new("127.0.0.1:9092");
        connection.properties.insert("enable.idempotence".into(), "false".into());
        let error = ProducerSettings::new(connection, "").properties().expect_err("must be refused");
        assert_eq!(error.to_string(), "kafka setting enable.idempotence: is set by Millstream and can't be changed");
    }

    #[test]
    fn a_kip_848_member_sets_no_session_timeout() {
        let settings =
            ConsumerSettings { protocol: GroupProtocol::Consumer, ..ConsumerSettings::new(Connection::new("x"), "g") };
        let properties = settings.properties().expect("valid");
        assert!(properties.contains(&("group.protocol".into(), "consumer".into())));
        assert!(!properties.iter().any(|(name, _)| name == "session.timeout.ms"));
    }
}
