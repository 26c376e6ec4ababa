//! The settings of a pipeline: one YAML file, read into plain structs.
//!
//! Every path in here is absolute or relative to the working directory; every default is filled in, but for those that
//! depend on the machine or the cluster, which are `None`.

mod kafka;
mod output;
mod secret;
mod source;
mod stage;

use std::path::PathBuf;

pub use kafka::{KafkaConnection, Properties, PropertyValue};
pub use output::{DeadLettersConfig, ErrorBudget, FileSinkConfig, KafkaSinkConfig, OutputConfig, SinkConfig};
pub use secret::Secret;
pub use source::{
    ClickstreamConfig, FileFormat, FilesSourceConfig, GenerateConfig, GroupProtocol, InputFile, KafkaSourceConfig,
    OutOfRange, SourceConfig, Start, StdinSourceConfig,
};
pub use stage::{
    FieldType, FieldValue, FilterConfig, FilterOp, LimitsConfig, PluginConfig, RouteConfig, SelectConfig, StageConfig,
    StageKind,
};

/// A pipeline as its file describes it, checked as far as that goes without plugins and servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The pipeline's name; `[a-z0-9_-]{1,64}`.
    pub pipeline: String,
    /// Where records come from.
    pub source: SourceConfig,
    /// What they pass through, in order.
    pub stages: Vec<StageConfig>,
    /// Where they go: `main` first, then the others in the file's order.
    pub outputs: Vec<OutputConfig>,
    /// Where rejected records go.
    pub dead_letters: DeadLettersConfig,
    /// The guarantee.
    pub delivery: Delivery,
    /// When progress is committed.
    pub commit: CommitConfig,
    /// Worker threads; `None` for the least of 4, the cgroup's CPU quota and the partitions.
    pub workers: Option<u32>,
    /// Memory of the whole process; `None` for 75 % of the cgroup's.
    pub memory_limit_bytes: Option<u64>,
    /// Whether topics that are missing are made.
    pub create_topics: bool,
    /// Tells the processes of one pipeline apart, stable over restarts; part of the transactional ids. By default the
    /// host's name.
    pub instance: String,
    /// What is logged.
    pub logs: LogsConfig,
}

/// How often a record may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Once, in transactions: Kafka to Kafka only.
    ExactlyOnce,
    /// Once or, after a failure, again.
    AtLeastOnce,
}

/// The bounds within which commits adapt to the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitConfig {
    /// The least time between two commits, in milliseconds.
    pub min_interval_ms: u64,
    /// The longest that a record waits for its commit, in milliseconds.
    pub max_interval_ms: u64,
    /// The most records in one commit.
    pub max_records: u64,
}

impl Default for CommitConfig {
    fn default() -> Self {
        Self { min_interval_ms: 5, max_interval_ms: 1_000, max_records: 50_000 }
    }
}

/// What is logged, to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogsConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// The least level that is shown.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Human,
    /// A JSON object a line.
    Json,
}

/// The least level of logs that is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what may become one.
    Warn,
    /// And what an operator wants to know.
    #[default]
    Info,
    /// And what a developer wants to know.
    Debug,
    /// And everything else.
    Trace,
}
