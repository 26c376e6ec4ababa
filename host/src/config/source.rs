//! `source:` — where records come from.

use std::path::PathBuf;

use super::kafka::KafkaConnection;

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

/// A Kafka topic, read as a member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSourceConfig {
    /// The cluster.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
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
    /// The one that every broker speaks.
    #[default]
    Classic,
    /// KIP-848, from Kafka 4.0 on.
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
