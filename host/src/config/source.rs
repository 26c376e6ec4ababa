//! `source:` — where records come from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::kafka::{KafkaConnection, read_brokers, read_properties};
use super::units;
use super::walk::{At, Fields};

/// Where records come from; exactly one.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConfig {
    /// A Kafka topic.
    Kafka(KafkaSourceConfig),
    /// Files, each a partition.
    Files(FilesSourceConfig),
    /// Standard input, as one partition.
    Stdin(StdinSourceConfig),
    /// Made-up records from a seed.
    Generate(GenerateConfig),
}

/// Kafka topics, read as a member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSourceConfig {
    /// The cluster.
    pub connection: KafkaConnection,
    /// The topics: one, or several that differ.
    pub topics: Vec<String>,
    /// The group; by default the pipeline's name.
    pub group: String,
    /// Where to begin without a committed offset; `None` refuses to start then.
    pub start: Option<Start>,
    /// What to do when the broker no longer has the committed offset.
    pub on_out_of_range: OutOfRange,
    /// The protocol between the group's members and the broker.
    pub protocol: GroupProtocol,
}

/// Where a group without a committed offset begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record that the broker has.
    Earliest,
    /// After the last record.
    Latest,
    /// At the first record with this time or a later one, in milliseconds since 1970 UTC.
    TimestampMs(i64),
}

/// What to do when the committed offset is no longer in the log; a silent jump is not among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// Stop and say so.
    #[default]
    Stop,
    /// Go on at the first record that is left, with a warning and a count of what was lost.
    Earliest,
}

/// The protocol between a group's members and the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The one that every broker speaks, with the cooperative-sticky assignor.
    #[default]
    Classic,
    /// KIP-848, from Kafka 4.0 on: the broker assigns, and nobody waits for the others.
    Consumer,
}

/// How a file holds records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A JSON record a line.
    Ndjson,
    /// A row a line under a header; each becomes a JSON object of strings.
    Csv,
}

/// Files that are read once, from first to last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesSourceConfig {
    /// The files, of which file `i` is partition `i`; relative ones were taken from the config's folder.
    pub files: Vec<InputFile>,
    /// Most bytes of a line; a longer one is cut there and becomes a dead letter.
    pub max_line_bytes: u64,
}

/// One file and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds, under the gzip where there is one (told by its first bytes, not by its name).
    pub format: FileFormat,
}

/// Standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StdinSourceConfig {
    /// What it holds, under the gzip where there is one.
    pub format: FileFormat,
    /// Most bytes of a line; a longer one is cut there and becomes a dead letter.
    pub max_line_bytes: u64,
}

/// Which made-up records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerateConfig {
    /// Page views and button clicks of a web shop.
    Clickstream(ClickstreamConfig),
}

/// The clickstream generator's settings; the same settings give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickstreamConfig {
    /// What the records follow from.
    pub seed: u64,
    /// How many records over all partitions; `None` for no end.
    pub records: Option<u64>,
    /// Records a second over all partitions; 0 for as fast as they are taken.
    pub records_per_second: u32,
    /// Over how many partitions the records are dealt, in turn.
    pub partitions: u32,
    /// The event time of the first record, in seconds since 1970 UTC.
    pub start_time_s: i64,
    /// Seconds of event time after which records carry `device_type`.
    pub schema_change_after_s: u32,
    /// How many of a million records are cut off in the middle, so that they are no JSON.
    pub malformed_per_million: u32,
}

pub(super) const SOURCE_KEYS: &[&str] = &["kafka", "files", "stdin", "generate"];
/// The most topics of a source.
const TOPICS_MAX: usize = 64;

pub(super) const KAFKA_SOURCE_KEYS: &[&str] =
    &["brokers", "topic", "topics", "group", "start", "on_out_of_range", "protocol", "properties"];
pub(super) const FILES_KEYS: &[&str] = &["paths", "format", "max_line"];
pub(super) const STDIN_KEYS: &[&str] = &["format", "max_line"];
pub(super) const GENERATE_KEYS: &[&str] = &["clickstream"];
pub(super) const CLICKSTREAM_KEYS: &[&str] =
    &["seed", "records", "records_per_second", "partitions", "start_time", "schema_change_after_s", "malformed"];

/// Most bytes of a line unless the config says otherwise.
pub(super) const DEFAULT_MAX_LINE_BYTES: u64 = 16 << 20;
/// The event time at which the generator starts unless the config says otherwise: 2023-11-14T22:13:20Z.
pub(super) const DEFAULT_START_TIME_S: i64 = 1_700_000_000;

impl SourceConfig {
    /// The cluster that is read; `None` for what is not Kafka.
    pub fn connection(&self) -> Option<&KafkaConnection> {
        match self {
            Self::Kafka(kafka) => Some(&kafka.connection),
            _ => None,
        }
    }

    pub(super) fn read(at: &At<'_>, pipeline: &str) -> Result<Self, ConfigError> {
        let (kind, at) = at.variant(SOURCE_KEYS)?;
        Ok(match kind {
            "kafka" => Self::Kafka(KafkaSourceConfig::read(&at, pipeline)?),
            "files" => Self::Files(FilesSourceConfig::read(&at)?),
            "stdin" => Self::Stdin(StdinSourceConfig::read(&at)?),
            _ => Self::Generate(GenerateConfig::read(&at)?),
        })
    }
}

impl KafkaSourceConfig {
    fn read(at: &At<'_>, pipeline: &str) -> Result<Self, ConfigError> {
        let fields = at.fields(KAFKA_SOURCE_KEYS)?;
        let brokers = read_brokers(&fields.required("brokers", "the brokers as host:port, comma-separated")?)?;
        let properties = fields.or("properties", Default::default(), read_properties)?;
        Ok(Self {
            connection: KafkaConnection { brokers, properties },
            topics: read_topics(&fields)?,
            group: fields.or("group", pipeline.to_owned(), |at| Ok(at.text("a consumer group's name")?.to_owned()))?,
            start: fields.optional("start").map(|at| read_start(&at)).transpose()?,
            on_out_of_range: fields.or("on_out_of_range", OutOfRange::Stop, |at| {
                at.choice(&[("stop", OutOfRange::Stop), ("earliest", OutOfRange::Earliest)])
            })?,
            protocol: fields.or("protocol", GroupProtocol::Classic, |at| {
                at.choice(&[("classic", GroupProtocol::Classic), ("consumer", GroupProtocol::Consumer)])
            })?,
        })
    }
}

/// `topic` with one, or `topics` with several.
fn read_topics(fields: &Fields<'_>) -> Result<Vec<String>, ConfigError> {
    let Some(at) = fields.optional("topics") else {
        return Ok(vec![fields.required("topic", "the topic to read")?.topic()?]);
    };
    if let Some(one) = fields.any("topic") {
        return Err(one.error("can't be given beside `topics`; add it there"));
    }
    let topics = at.list("a list of topics")?.iter().map(At::topic).collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<&String> = topics.iter().collect();
    if topics.is_empty() || topics.len() > TOPICS_MAX || distinct.len() < topics.len() {
        return Err(at.error(format!("expected 1 to {TOPICS_MAX} topics, each once")));
    }
    Ok(topics)
}

/// `earliest`, `latest` or an RFC 3339 time; also how the command line reads `offsets reset --to`.
pub fn parse_start(text: &str) -> Option<Start> {
    match text {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        time => units::rfc3339_ms(time).map(Start::TimestampMs),
    }
}

fn read_start(at: &At<'_>) -> Result<Start, ConfigError> {
    at.parsed("earliest, latest or a time such as 2026-03-01T10:00:00Z", parse_start)
}

const FORMATS: &[(&str, FileFormat)] = &[("ndjson", FileFormat::Ndjson), ("csv", FileFormat::Csv)];

pub(super) fn read_max_line(at: &At<'_>) -> Result<u64, ConfigError> {
    at.bytes(1 << 10..=512 << 20)
}

impl FileFormat {
    /// The format that a file's name tells, with or without `.gz`; `None` where it tells none.
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

impl FilesSourceConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(FILES_KEYS)?;
        let paths = fields.required("paths", "a list of files")?;
        let format = fields.optional("format").map(|at| at.choice(FORMATS)).transpose()?;
        let mut files = Vec::new();
        for at in paths.list("a list of files")? {
            let path = at.file_path()?;
            let format = format.or_else(|| FileFormat::of_path(&path)).ok_or_else(|| {
                at.error("its name does not end in .ndjson, .jsonl, .json or .csv (.gz); say `format: ndjson` or `csv`")
            })?;
            files.push(InputFile { path, format });
        }
        // A partition is an i32, and each open file costs memory.
        if files.is_empty() || files.len() > 10_000 {
            return Err(paths.error(format!("expected 1 to 10000 files, found {}", files.len())));
        }
        Ok(Self { files, max_line_bytes: fields.or("max_line", DEFAULT_MAX_LINE_BYTES, read_max_line)? })
    }
}

impl StdinSourceConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(STDIN_KEYS)?;
        Ok(Self {
            format: fields.required("format", "ndjson or csv")?.choice(FORMATS)?,
            max_line_bytes: fields.or("max_line", DEFAULT_MAX_LINE_BYTES, read_max_line)?,
        })
    }
}

impl GenerateConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let (_, at) = at.variant(GENERATE_KEYS)?;
        Ok(Self::Clickstream(ClickstreamConfig::read(&at)?))
    }
}

impl Default for ClickstreamConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            records: None,
            records_per_second: 10,
            partitions: 1,
            start_time_s: DEFAULT_START_TIME_S,
            schema_change_after_s: 30,
            malformed_per_million: 0,
        }
    }
}

impl ClickstreamConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(CLICKSTREAM_KEYS)?;
        let default = Self::default();
        let start_time = "a time such as 2026-03-01T10:00:00Z";
        Ok(Self {
            seed: fields.or("seed", default.seed, |at| at.integer(0..=u64::MAX))?,
            records: fields.optional("records").map(|at| at.integer(0..=i64::MAX as u64)).transpose()?,
            records_per_second: fields
                .or("records_per_second", default.records_per_second, |at| at.integer_u32(0..=10_000_000))?,
            partitions: fields.or("partitions", default.partitions, |at| at.integer_u32(1..=10_000))?,
            start_time_s: fields.or("start_time", default.start_time_s, |at| {
                at.parsed(start_time, |text| units::rfc3339_ms(text).map(|ms| ms.div_euclid(1_000)))
            })?,
            schema_change_after_s: fields
                .or("schema_change_after_s", default.schema_change_after_s, |at| at.integer_u32(0..=u32::MAX))?,
            malformed_per_million: fields.or("malformed", default.malformed_per_million, |at| {
                at.parsed("a share such as 0.5%", units::per_million)
            })?,
        })
    }
}
