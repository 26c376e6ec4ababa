//! The settings of a pipeline: one YAML file, read into plain structs.
//!
//! Every path in here is absolute or relative to the working directory; every default is filled in, but for those that
//! depend on the machine or the cluster, which are `None`.

mod check;
mod clickhouse;
mod condition;
mod error;
mod expand;
mod json;
mod kafka;
mod key;
mod node;
mod observe;
mod output;
mod pair;
mod quality;
mod schema;
mod secret;
mod source;
mod stage;
mod state;
mod swap;
mod table;
mod units;
mod walk;
mod window;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use walk::At;

pub use clickhouse::{
    ClickHouseConfig, ColumnRule, MAX_FLUSH_ROWS, TimeUnit, UnknownFields, VersionedRows, server_address,
};
pub use error::{ConfigError, Mark};
pub use expand::Variables;
pub use kafka::{KafkaConnection, Properties, PropertyValue};
pub use key::{Case, NamedField, TextPart};
pub use observe::{AdminConfig, Listen, ObserveConfig, TlsConfig, Tokens};
pub use output::{
    DeadLettersConfig, ErrorBudget, FileSinkConfig, KafkaSinkConfig, MAIN_OUTPUT, OutputConfig, SinkConfig,
};
pub use quality::{EventTime, QualityConfig, TimeEncoding, WatchedField};
pub use schema::SCHEMA_JSON;
pub use secret::Secret;
pub use source::{
    ClickstreamConfig, FileFormat, FilesSourceConfig, GenerateConfig, GroupProtocol, InputFile, KafkaSourceConfig,
    OutOfRange, SourceConfig, Start, StdinSourceConfig, parse_start,
};
pub use stage::{
    FieldType, FieldValue, FilterConfig, FilterOp, LimitsConfig, PluginConfig, RouteConfig, SelectConfig, StageConfig,
    StageKind,
};
pub use units::rfc3339_ms;

pub use pair::{PairConfig, PairSide};
pub use state::StateConfig;
pub use swap::{BreakerAction, BreakerConfig, SwapConfig, TrustConfig};
pub use table::{BadRows, JoinConfig, NoMatch, TableConfig, TableFile, TableKey, TableSource, TableTopic};
pub use window::{AggregateConfig, Function, LatePolicy, Measure, WindowConfig, WindowKind, gcd};

/// A pipeline as its file describes it, checked as far as that goes without plugins and servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The pipeline's name; `[a-z0-9_-]{1,64}`.
    pub pipeline: String,
    /// Where records come from.
    pub source: SourceConfig,
    /// What they can be joined with, in the file's order.
    pub tables: Vec<TableConfig>,
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
    /// How plugins are replaced while the stream runs.
    pub swap: SwapConfig,
    /// Where the states of windows lie.
    pub state: StateConfig,
    /// What many faults lead to, if to anything.
    pub breaker: Option<BreakerConfig>,
    /// Whether outputs say in headers which pipeline, plugins and source record made them.
    pub lineage: bool,
    /// The listener for metrics and health; `None` where it is off.
    pub observe: Option<ObserveConfig>,
    /// The listener for status and control; `None` where it is off.
    pub admin: Option<AdminConfig>,
    /// What is watched of the data.
    pub quality: Option<QualityConfig>,
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
        // A transaction that follows the one before it too soon is told to wait, and librdkafka waits 20 ms then: with 5 ms
        // that struck every fourth commit, with 15 ms every thirtieth.
        Self { min_interval_ms: 15, max_interval_ms: 1_000, max_records: 50_000 }
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

impl LogLevel {
    /// Every level with its name.
    pub const NAMES: &[(&str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, level)| *level == self).map_or("info", |(name, _)| name)
    }
}

const ROOT_KEYS: &[&str] = &[
    "pipeline",
    "source",
    "tables",
    "stages",
    "outputs",
    "dead_letters",
    "delivery",
    "commit",
    "workers",
    "memory_limit",
    "create_topics",
    "instance",
    "logs",
    "swap",
    "state",
    "breaker",
    "lineage",
    "observe",
    "admin",
    "quality",
];
const COMMIT_KEYS: &[&str] = &["min_interval_ms", "max_interval_ms", "max_records"];
const LOGS_KEYS: &[&str] = &["format", "level"];

impl Config {
    /// Reads `file` with the process's environment; the error names the place of what is wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let fail =
            |text: String| ConfigError { file: file.display().to_string(), mark: None, key: String::new(), text };
        let open = File::open(file).map_err(|error| fail(format!("can't be opened: {error}")))?;
        let mut bytes = Vec::new();
        // One byte more than allowed is enough to tell, whatever the file's size.
        let read = open.take(node::MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| fail(format!("can't be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|&byte| byte == b'\n').count();
            fail(format!("line {line} is not UTF-8"))
        })?;
        Self::parse(file, &text, &|name| std::env::var(name).ok())
    }

    /// Reads `text` as the content of `file`, which gives relative paths their folder.
    pub fn parse(file: &Path, text: &str, variables: Variables<'_>) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        let mut root = node::parse(&name, text)?;
        expand::expand(&name, &mut root, "", variables)?;
        Self::read(&At::root(&name, &root))
    }

    /// True where anybody may ask what the workers measure, or something is to be watched.
    pub fn is_observed(&self) -> bool {
        self.observe.is_some() || self.admin.is_some() || self.quality.is_some()
    }

    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(ROOT_KEYS)?;
        let pipeline = fields.required("pipeline", "the pipeline's name")?.name()?;
        let source_at = fields.required("source", "where records come from")?;
        let source = SourceConfig::read(&source_at, &pipeline)?;
        let source_connection = source.connection();
        let outputs_at = fields.required("outputs", "where records go; one of them is called main")?;
        let mut outputs = output::read_outputs(&outputs_at, source_connection, &pipeline)?;
        let shared = outputs[0].1.sink.connection().or(source_connection);
        let dead_letters_at = fields.required(
            "dead_letters",
            "where rejected records go; `dead_letters: {to: {discard: {}}}` if they shall be lost",
        )?;
        let (dead_letters_to_at, dead_letters) = DeadLettersConfig::read(&dead_letters_at, shared, &pipeline)?;
        let tables = fields.or("tables", Vec::new(), |at| table::read_tables(at, source_connection))?;
        let stages = match fields.optional("stages") {
            Some(at) => {
                let stages = stage::read_stages(&at)?;
                check::routes(&at, &stages, &outputs)?;
                outputs.iter_mut().for_each(|(_, output)| output.note_versioned(&stages));
                check::joins(&at, &stages, (&tables, &source))?;
                stages
            }
            None => Vec::new(),
        };
        let sinks = check::Sinks { outputs: &outputs, dead_letters: (&dead_letters_to_at, &dead_letters.to) };
        check::places(&source, &sinks)?;
        let delivery = check::delivery(fields.optional("delivery").as_ref(), at, &source, &sinks)?;
        if let Some(stages_at) = fields.optional("stages") {
            check::states(&stages_at, &stages, &source, delivery)?;
            check::pairs(&stages_at, &stages, &source)?;
        }
        Ok(Self {
            file: PathBuf::from(at.file),
            delivery,
            commit: fields.or("commit", CommitConfig::default(), CommitConfig::read)?,
            workers: fields.optional("workers").map(|at| at.integer_u32(1..=256)).transpose()?,
            memory_limit_bytes: fields.optional("memory_limit").map(|at| at.bytes(64 << 20..=1 << 40)).transpose()?,
            create_topics: fields.or("create_topics", false, |at| at.boolean())?,
            instance: match fields.optional("instance") {
                Some(at) => at.parsed(INSTANCE, |text| is_instance(text).then(|| text.to_owned()))?,
                None => host_name(),
            },
            logs: fields.or("logs", LogsConfig::default(), LogsConfig::read)?,
            swap: fields.or("swap", SwapConfig::default(), SwapConfig::read)?,
            state: fields.or("state", StateConfig::default(), StateConfig::read)?,
            breaker: fields.optional("breaker").map(|at| BreakerConfig::read(&at)).transpose()?,
            lineage: fields.or("lineage", false, |at| at.boolean())?,
            observe: ObserveConfig::read(fields.optional("observe").as_ref())?,
            admin: AdminConfig::read(fields.optional("admin").as_ref())?,
            quality: fields.any("quality").map(|at| QualityConfig::read(&at)).transpose()?,
            outputs: outputs.into_iter().map(|output| output.1).collect(),
            pipeline,
            source,
            tables,
            stages,
            dead_letters,
        })
    }
}

impl CommitConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(COMMIT_KEYS)?;
        let default = Self::default();
        let max_interval_ms = fields.or("max_interval_ms", default.max_interval_ms, |at| at.integer(1..=60_000))?;
        let commit = Self {
            min_interval_ms: fields
                .or("min_interval_ms", default.min_interval_ms.min(max_interval_ms), |at| at.integer(0..=60_000))?,
            max_interval_ms,
            max_records: fields.or("max_records", default.max_records, |at| at.integer(1..=10_000_000))?,
        };
        if commit.min_interval_ms > commit.max_interval_ms {
            let (min, max) = (commit.min_interval_ms, commit.max_interval_ms);
            return Err(at.error(format!("min_interval_ms ({min}) is above max_interval_ms ({max})")));
        }
        Ok(commit)
    }
}

impl LogsConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(LOGS_KEYS)?;
        Ok(Self {
            format: fields.or("format", LogFormat::Human, |at| {
                at.choice(&[("human", LogFormat::Human), ("json", LogFormat::Json)])
            })?,
            level: fields.or("level", LogLevel::Info, |at| at.choice(LogLevel::NAMES))?,
        })
    }
}

const INSTANCE: &str = "1 to 128 of the characters a-z A-Z 0-9 . _ -";

fn is_instance(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(allowed)
}

/// The machine's name, which is stable over restarts where the machine is; `0` where it has none that can be used.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if is_instance(name) { name.to_owned() } else { "0".to_owned() }
}

#[cfg(test)]
mod tests;
