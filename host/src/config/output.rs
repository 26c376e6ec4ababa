//! `outputs:` and `dead_letters:` — where records go.

use std::path::PathBuf;

use super::clickhouse::{ClickHouseConfig, VersionedRows};
use super::error::ConfigError;
use super::kafka::{KafkaConnection, Properties, read_brokers, read_properties};
use super::stage::{StageConfig, StageKind};
use super::units;
use super::walk::At;
use super::window::WindowKind;

/// A named way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// What plugins and `route` call it; `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// Where it leads; with a table, the topic that the table's rows come from.
    pub sink: SinkConfig,
    /// The table that the records of `sink` go on to.
    pub table: Option<ClickHouseConfig>,
}

impl OutputConfig {
    /// Has its table know which windows send it rows that come in versions.
    pub(super) fn note_versioned(&mut self, stages: &[StageConfig]) {
        let table = match &mut self.sink {
            SinkConfig::Table(table) => Some(table.as_mut()),
            _ => self.table.as_mut(),
        };
        let versioned = stages.iter().filter_map(|stage| match &stage.kind {
            StageKind::Window(window) if window.has_versions() && window.output == self.name => Some(VersionedRows {
                stage: stage.name.clone(),
                key: window.key.iter().map(|field| field.name.clone()).collect(),
                is_session: matches!(window.kind, WindowKind::Session { .. }),
            }),
            _ => None,
        });
        if let Some(table) = table {
            table.versioned = versioned.collect();
        }
    }
}

/// Where records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkConfig {
    /// A Kafka topic.
    Kafka(KafkaSinkConfig),
    /// A table of a pipeline without Kafka: at least once.
    Table(Box<ClickHouseConfig>),
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
    /// True where the configuration names no topic and this one only leads to a table: it is Millstream's own, which makes
    /// it whatever `create_topics` says.
    pub is_outbox: bool,
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
    /// The table that they go on to.
    pub table: Option<ClickHouseConfig>,
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

pub(super) const SINK_KEYS: &[&str] = &["kafka", "clickhouse", "file", "stdout", "discard"];
pub(super) const KAFKA_SINK_KEYS: &[&str] = &["topic", "key", "brokers", "properties"];
pub(super) const FILE_SINK_KEYS: &[&str] = &["path"];
pub(super) const DEAD_LETTERS_KEYS: &[&str] = &["to", "stop_above"];

/// The name of the output that every pipeline has.
pub const MAIN_OUTPUT: &str = "main";
/// Most outputs of a pipeline.
const MAX_OUTPUTS: usize = 64;

/// Reads all outputs, `main` first, each with its place; `source` is the connection that Kafka outputs share, and
/// `pipeline` gives outboxes their names.
pub(super) fn read_outputs<'a>(
    at: &At<'a>,
    source: Option<&KafkaConnection>,
    pipeline: &str,
) -> Result<Vec<(At<'a>, OutputConfig)>, ConfigError> {
    let entries = at.open_map("a map of outputs, of which one is called main")?;
    if entries.len() > MAX_OUTPUTS {
        return Err(at.error(format!("expected at most {MAX_OUTPUTS} outputs, found {}", entries.len())));
    }
    let Some((_, main_at)) = entries.iter().find(|entry| entry.0 == MAIN_OUTPUT) else {
        return Err(at.error("the output `main` is required: where records go unless a stage says otherwise"));
    };
    let outbox = |output: &str| format!("{pipeline}.{output}.outbox");
    let (main, table) = SinkConfig::read(main_at, source, true, outbox(MAIN_OUTPUT))?;
    let shared = main.connection().cloned().or_else(|| source.map(KafkaConnection::for_other_clients));
    let mut outputs = vec![(main_at.clone(), OutputConfig { name: MAIN_OUTPUT.to_owned(), sink: main, table })];
    for (name, at) in entries.iter().filter(|entry| entry.0 != MAIN_OUTPUT) {
        if !units::is_name(name) {
            return Err(at.error("expected a name of 1 to 64 of the characters a-z 0-9 _ -"));
        }
        let (sink, table) = SinkConfig::read(at, shared.as_ref(), false, outbox(name))?;
        outputs.push((at.clone(), OutputConfig { name: (*name).to_owned(), sink, table }));
    }
    Ok(outputs)
}

impl SinkConfig {
    /// The cluster that is written to; `None` for what is not Kafka.
    pub fn connection(&self) -> Option<&KafkaConnection> {
        match self {
            Self::Kafka(kafka) => Some(&kafka.connection),
            _ => None,
        }
    }

    /// Reads a sink and the table behind it; without a topic of the user's own the table is fed by `outbox`.
    fn read(
        at: &At<'_>,
        shared: Option<&KafkaConnection>,
        is_main: bool,
        outbox: String,
    ) -> Result<(Self, Option<ClickHouseConfig>), ConfigError> {
        if let Some(table) = at.entry("clickhouse") {
            let fields = at.fields(SINK_KEYS)?;
            if let Some(beside) = ["file", "stdout", "discard"].iter().find_map(|key| fields.any(key)) {
                return Err(
                    beside.error("beside `clickhouse` only `kafka` can be given: the topic that its rows come from")
                );
            }
            let config = ClickHouseConfig::read(&table)?;
            let kafka = match (fields.any("kafka"), shared) {
                (Some(at), _) => KafkaSinkConfig::read(&at, shared, is_main)?,
                (None, Some(shared)) => KafkaSinkConfig::outbox(shared, is_main, outbox),
                // Without a log nothing makes a repeated block the same block, so that nothing is promised but all rows.
                (None, None) => return Ok((Self::Table(Box::new(config)), None)),
            };
            return Ok((Self::Kafka(kafka), Some(config)));
        }
        let (kind, at) = at.variant(SINK_KEYS)?;
        let sink = match kind {
            "kafka" => Self::Kafka(KafkaSinkConfig::read(&at, shared, is_main)?),
            "file" => {
                let fields = at.fields(FILE_SINK_KEYS)?;
                Self::File(FileSinkConfig { path: fields.required("path", "the file to write")?.file_path()? })
            }
            "stdout" => at.fields(&[]).map(|_| Self::Stdout)?,
            _ => at.fields(&[]).map(|_| Self::Discard)?,
        };
        Ok((sink, None))
    }
}

impl KafkaSinkConfig {
    fn read(at: &At<'_>, shared: Option<&KafkaConnection>, is_main: bool) -> Result<Self, ConfigError> {
        let fields = at.fields(KAFKA_SINK_KEYS)?;
        let brokers = fields.optional("brokers").map(|at| read_brokers(&at)).transpose()?;
        let properties_at = fields.optional("properties");
        let own: Properties = properties_at.as_ref().map_or(Ok(Properties::new()), read_properties)?;
        let connection = match (brokers, shared) {
            (Some(brokers), _) => KafkaConnection { brokers, properties: own },
            (None, None) => {
                let what = "there is neither a Kafka source nor a main output in Kafka to share them with";
                read_brokers(&fields.required("brokers", what)?)
                    .map(|brokers| KafkaConnection { brokers, properties: own })?
            }
            (None, Some(shared)) if is_main => {
                let mut connection = shared.for_other_clients();
                connection.properties.extend(own);
                connection
            }
            (None, Some(shared)) => {
                // One producer writes to all outputs of a transaction, so it can have one set of properties only.
                if let Some(at) = properties_at {
                    return Err(
                        at.error("outputs without `brokers` share the producer of `main`; set its properties there")
                    );
                }
                shared.clone()
            }
        };
        Ok(Self {
            connection,
            topic: fields.required("topic", "the topic to write")?.topic()?,
            key: fields.optional("key").map(|at| at.pointer()).transpose()?,
            is_outbox: false,
        })
    }

    /// The topic that feeds a table and serves nothing else: a block of rows has to be a function of offsets, which only
    /// a log gives.
    fn outbox(shared: &KafkaConnection, is_main: bool, topic: String) -> Self {
        let connection = if is_main { shared.for_other_clients() } else { shared.clone() };
        Self { connection, topic, key: None, is_outbox: true }
    }
}

impl DeadLettersConfig {
    /// Reads `dead_letters`; `shared` is the connection of the main output, or else the source's, and `pipeline` gives an
    /// outbox its name, which no output's can have.
    pub(super) fn read<'a>(
        at: &At<'a>,
        shared: Option<&KafkaConnection>,
        pipeline: &str,
    ) -> Result<(At<'a>, Self), ConfigError> {
        let fields = at.fields(DEAD_LETTERS_KEYS)?;
        let to = fields.required("to", "an output; `to: {discard: {}}` if rejected records shall be lost")?;
        let stop_above = fields
            .optional("stop_above")
            .map(|at| at.parsed("a share of a number of records, such as 5% over 10000", ErrorBudget::parse));
        let (sink, table) = SinkConfig::read(&to, shared, false, format!("{pipeline}.outbox.dead_letters"))?;
        Ok((to, Self { to: sink, table, stop_above: stop_above.transpose()? }))
    }
}

impl ErrorBudget {
    /// Reads `5% over 10000`.
    fn parse(text: &str) -> Option<Self> {
        let (share, records) = text.split_once(" over ")?;
        let share_per_million = units::per_million(share.trim())?;
        let over_records = records.trim().parse().ok().filter(|records| (1..=1_000_000_000).contains(records))?;
        Some(Self { share_per_million, over_records })
    }
}
