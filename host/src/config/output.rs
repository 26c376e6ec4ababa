//! `outputs:` and `dead_letters:` — where records go.

use std::path::PathBuf;

use super::kafka::KafkaConnection;

/// A named way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// What plugins and `route` call it; `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// Where it leads.
    pub sink: SinkConfig,
}

/// Where records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkConfig {
    /// A Kafka topic.
    Kafka(KafkaSinkConfig),
    /// A file of NDJSON.
    File(FileSinkConfig),
    /// Standard output, as NDJSON.
    Stdout,
    /// Nowhere; what goes there is counted.
    Discard,
}

/// A Kafka topic to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSinkConfig {
    /// The cluster. Equal connections are served by one producer: without `brokers` an output shares the source's, or
    /// else the one of `main`.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// A JSON Pointer to the field that becomes the key; `None` keeps the record's own key.
    pub key: Option<String>,
}

/// A file to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSinkConfig {
    /// Where; a relative path was taken from the config's folder.
    pub path: PathBuf,
}

/// Where rejected records go, and how many are too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettersConfig {
    /// Where they go.
    pub to: SinkConfig,
    /// The error budget; `None` for none.
    pub stop_above: Option<ErrorBudget>,
}

/// A share of dead letters above which a partition stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorBudget {
    /// The share that is still borne, in millionths.
    pub share_per_million: u32,
    /// Over how many of a partition's last records the share is taken.
    pub over_records: u64,
}
