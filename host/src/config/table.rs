//! `tables:` — reference data, and `join:`, the stage that looks records up in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::kafka::{KafkaConnection, read_brokers, read_properties};
use super::source::{FileFormat, read_max_line};
use super::units;
use super::walk::{At, one_of};
use crate::record::{ColumnType, TimestampEncoding};

/// Rows by key, kept in memory for lookups.
#[derive(Clone, Debug, PartialEq)]
pub struct TableConfig {
    /// What stages call it; `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// Where its rows come from.
    pub source: TableSource,
    /// Columns that are kept whether a stage joins them or not, with their types; JSON Pointers into a row.
    pub columns: BTreeMap<String, ColumnType>,
    /// What is done about a row that can't be read.
    pub bad_rows: BadRows,
    /// Most memory that its rows may take, index included.
    pub memory_limit_bytes: u64,
}

/// Where a table's rows come from.
#[derive(Clone, Debug, PartialEq)]
pub enum TableSource {
    /// A file, read anew when it changes.
    File(TableFile),
    /// A Kafka topic, followed.
    Kafka(TableTopic),
}

/// A file of rows; where several have the same key the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFile {
    /// Where it is; a relative path was taken from the config's folder.
    pub path: PathBuf,
    /// What it holds, under the gzip where there is one.
    pub format: FileFormat,
    /// A JSON Pointer to the field of a row that is its key.
    pub key: String,
    /// Most bytes of a line; a longer one is a row that can't be read.
    pub max_line_bytes: u64,
}

/// A topic of rows, of which the last one of each key counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableTopic {
    /// The cluster; by default the source's.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// What a row is found by.
    pub key: TableKey,
    /// Each task sees the partition of its own number only; otherwise all see all.
    pub co_partitioned: bool,
}

/// What a topic's row is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableKey {
    /// The record's key, as it is; a tombstone deletes its row.
    Record,
    /// A field of the row; a tombstone, which has none, is a row that can't be read.
    Field(String),
}

/// What is done about a row that can't be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadRows {
    /// The table is not taken: the run does not start, or goes on with the table as it was before.
    #[default]
    Stop,
    /// It is left out, counted and logged.
    Skip,
}

/// Writes columns of a table into records, found by a field of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinConfig {
    /// The table.
    pub table: String,
    /// A JSON Pointer to the field that holds the key.
    pub on: String,
    /// Which columns of the table go where in the record; JSON Pointers both.
    pub columns: BTreeMap<String, String>,
    /// What becomes of a record whose key the table does not have.
    pub no_match: NoMatch,
    /// How long such a record waits for the table to catch up before that; 0 for not at all.
    pub wait_ms: u64,
}

/// What becomes of a record whose key the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMatch {
    /// It goes on, with null for every column.
    Null,
    /// It is a dead letter.
    Reject,
}

pub(super) const TABLE_KEYS: &[&str] = &["csv", "ndjson", "kafka", "columns", "bad_rows", "memory_limit"];
pub(super) const TABLE_FILE_KEYS: &[&str] = &["path", "key", "max_line"];
pub(super) const TABLE_TOPIC_KEYS: &[&str] = &["topic", "key", "copy", "brokers", "properties"];
pub(super) const JOIN_KEYS: &[&str] = &["table", "on", "columns", "no_match", "wait"];
const KINDS: &[&str] = &["csv", "ndjson", "kafka"];

/// Most tables of a pipeline.
const MAX_TABLES: usize = 64;
/// How long a record may wait for its row; its partition waits with it.
const WAIT_LEAST: Duration = Duration::from_millis(200);
const WAIT_MOST: Duration = Duration::from_secs(600);
/// Most columns of a table or a join.
const MAX_COLUMNS: usize = 256;
/// Most memory of a table unless the config says otherwise.
const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;
/// Most bytes of a file's line unless the config says otherwise.
const DEFAULT_LINE_BYTES: u64 = 1 << 20;

const TYPES: &[(&str, ColumnType)] = &[
    ("bool", ColumnType::Bool),
    ("int64", ColumnType::Int64),
    ("float64", ColumnType::Float64),
    ("text", ColumnType::Text),
    ("timestamp", ColumnType::Timestamp(TimestampEncoding::Rfc3339)),
    ("json", ColumnType::Json),
];

/// Reads all tables; `source` is the connection of the pipeline's source, which topics share.
pub(super) fn read_tables(at: &At<'_>, source: Option<&KafkaConnection>) -> Result<Vec<TableConfig>, ConfigError> {
    let entries = at.open_map("a map of tables by their names")?;
    if entries.len() > MAX_TABLES {
        return Err(at.error(format!("expected at most {MAX_TABLES} tables, found {}", entries.len())));
    }
    let read = |(name, at): &(&str, At<'_>)| {
        if !units::is_name(name) {
            return Err(at.error("expected a name of 1 to 64 of the characters a-z 0-9 _ -"));
        }
        TableConfig::read(name, at, source)
    };
    entries.iter().map(read).collect()
}

impl TableConfig {
    fn read(name: &str, at: &At<'_>, source: Option<&KafkaConnection>) -> Result<Self, ConfigError> {
        let fields = at.fields(TABLE_KEYS)?;
        let given: Vec<&str> = KINDS.iter().copied().filter(|kind| fields.any(kind).is_some()).collect();
        let [kind] = given.as_slice() else {
            let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
            return Err(at.error(format!("expected exactly one of {}, found {found}", one_of(KINDS))));
        };
        let source_at = fields.required(kind, "where the rows come from")?;
        let source = match *kind {
            "kafka" => TableSource::Kafka(TableTopic::read(&source_at, source)?),
            "csv" => TableSource::File(TableFile::read(&source_at, FileFormat::Csv)?),
            _ => TableSource::File(TableFile::read(&source_at, FileFormat::Ndjson)?),
        };
        Ok(Self {
            name: name.to_owned(),
            source,
            columns: fields.or("columns", BTreeMap::new(), read_types)?,
            bad_rows: fields
                .or("bad_rows", BadRows::Stop, |at| at.choice(&[("stop", BadRows::Stop), ("skip", BadRows::Skip)]))?,
            // Places in a table's buffers have 32 bits.
            memory_limit_bytes: fields.or("memory_limit", DEFAULT_MEMORY_BYTES, |at| at.bytes(1 << 20..=2 << 30))?,
        })
    }

    /// The type of a column: as declared, or else what the rows have anyway.
    pub fn column_type(&self, path: &str) -> ColumnType {
        let own = match &self.source {
            TableSource::File(TableFile { format: FileFormat::Csv, .. }) => ColumnType::Text,
            TableSource::File(_) | TableSource::Kafka(_) => ColumnType::Json,
        };
        self.columns.get(path).copied().unwrap_or(own)
    }
}

impl TableFile {
    fn read(at: &At<'_>, format: FileFormat) -> Result<Self, ConfigError> {
        let fields = at.fields(TABLE_FILE_KEYS)?;
        Ok(Self {
            path: fields.required("path", "the file with the rows")?.file_path()?,
            format,
            key: column(&fields.required("key", "the column that a row is found by")?)?,
            max_line_bytes: fields.or("max_line", DEFAULT_LINE_BYTES, read_max_line)?,
        })
    }
}

impl TableTopic {
    fn read(at: &At<'_>, source: Option<&KafkaConnection>) -> Result<Self, ConfigError> {
        let fields = at.fields(TABLE_TOPIC_KEYS)?;
        let own = fields.or("properties", Default::default(), read_properties)?;
        let connection = match (fields.optional("brokers"), source) {
            (Some(at), _) => KafkaConnection { brokers: read_brokers(&at)?, properties: own },
            (None, Some(source)) => {
                let mut connection = source.for_other_clients();
                connection.properties.extend(own);
                connection
            }
            (None, None) => {
                let brokers = fields.required("brokers", "there is no Kafka source to share them with")?;
                KafkaConnection { brokers: read_brokers(&brokers)?, properties: own }
            }
        };
        let key_at = fields.required("key", "`record` for the record's key, or a JSON Pointer into the row")?;
        let key = match key_at.text("a key")? {
            "record" => TableKey::Record,
            _ => TableKey::Field(column(&key_at)?),
        };
        let topic = fields.required("topic", "the topic with the rows")?.topic()?;
        let co_partitioned = fields.or("copy", false, |at| at.choice(&[("full", false), ("partition", true)]))?;
        if co_partitioned && source.is_none() {
            return Err(
                at.error("`copy: partition` needs a Kafka source, whose partitions decide which rows are needed")
            );
        }
        Ok(Self { connection, topic, key, co_partitioned })
    }
}

impl JoinConfig {
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(JOIN_KEYS)?;
        let no_match_at = fields.any("no_match").ok_or_else(|| {
            let mut error = at.error("is required: what becomes of a record without a match, null or reject");
            error.key = format!("{}.no_match", error.key);
            error
        })?;
        let no_match = match fields.optional("no_match") {
            None => NoMatch::Null,
            Some(_) => no_match_at.choice(&[("null", NoMatch::Null), ("reject", NoMatch::Reject)])?,
        };
        let columns = fields.or("columns", BTreeMap::new(), read_targets)?;
        if columns.is_empty() && no_match == NoMatch::Null {
            return Err(at.error(
                "has no effect: name the `columns` to be joined, or say `no_match: reject` to keep only what has a match",
            ));
        }
        Ok(Self {
            table: fields.required("table", "one of the pipeline's `tables`")?.name()?,
            on: fields.required("on", "the JSON Pointer of the field that holds the key")?.pointer()?,
            columns,
            no_match,
            wait_ms: fields.or("wait", 0, |at| Ok(at.duration(WAIT_LEAST..=WAIT_MOST)?.as_millis() as u64))?,
        })
    }
}

/// A column of a table: a JSON Pointer into its rows, or the plain name of a field at the top.
fn column(at: &At<'_>) -> Result<String, ConfigError> {
    at.parsed(COLUMN, column_pointer)
}

const COLUMN: &str = "a column's name such as city, or a JSON Pointer such as /address/city";

fn column_pointer(text: &str) -> Option<String> {
    match text.starts_with('/') {
        true => units::is_pointer(text).then(|| text.to_owned()),
        false if text.is_empty() => None,
        false => Some(format!("/{}", text.replace('~', "~0").replace('/', "~1"))),
    }
}

/// `{city: text, age: int64}`
fn read_types(at: &At<'_>) -> Result<BTreeMap<String, ColumnType>, ConfigError> {
    read_columns(at, "a map, column: type", |at| at.choice(TYPES))
}

/// `{city: /city, age: /user/age}`
fn read_targets(at: &At<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
    read_columns(at, "a map, the table's column: the record's JSON Pointer", |at| at.pointer())
}

fn read_columns<T>(
    at: &At<'_>,
    what: &str,
    read: impl Fn(&At<'_>) -> Result<T, ConfigError>,
) -> Result<BTreeMap<String, T>, ConfigError> {
    let entries = at.open_map(what)?;
    if entries.len() > MAX_COLUMNS {
        return Err(at.error(format!("expected at most {MAX_COLUMNS} columns, found {}", entries.len())));
    }
    let mut columns = BTreeMap::new();
    for (name, value) in entries {
        let Some(path) = column_pointer(name) else {
            return Err(value.error(format!("expected {COLUMN} as the key, found `{name}`")));
        };
        if columns.insert(path, read(&value)?).is_some() {
            return Err(value.error("is the same column as one before it"));
        }
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, StageKind};
    use super::*;

    const BASE: &str = "pipeline: p
source: {stdin: {format: ndjson}}
tables:
  users:
    csv: {path: users.csv, key: user_id}
    columns: {age: int64, a/b: text}
  rates: {ndjson: {path: /rates.jsonl.gz, key: /code, max_line: 2KiB}, bad_rows: skip, memory_limit: 3MiB}
stages:
  - name: with_user
    join: {table: users, on: /user/id, columns: {city: /user/city, age: /user/age}, no_match: null}
  - name: known
    join: {table: rates, on: /currency, no_match: reject}
outputs: {main: {stdout: {}}}
dead_letters: {to: {stdout: {}}}
";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("deploy/p.yaml"), text, &|_| None)
    }

    #[test]
    fn tables_and_joins_are_read_with_their_defaults() {
        let config = parse(BASE).unwrap_or_else(|error| panic!("{error}"));
        let [users, rates] = config.tables.as_slice() else { panic!("{:?}", config.tables) };
        let TableSource::File(file) = &users.source else { panic!("{users:?}") };
        assert_eq!((file.path.as_path(), file.key.as_str()), (Path::new("deploy/users.csv"), "/user_id"));
        assert_eq!((file.format, file.max_line_bytes), (FileFormat::Csv, 1 << 20));
        assert_eq!((users.bad_rows, users.memory_limit_bytes), (BadRows::Stop, 256 << 20));
        let types = ["/age", "/a~1b", "/city"].map(|path| users.column_type(path));
        assert_eq!(types, [ColumnType::Int64, ColumnType::Text, ColumnType::Text]);
        assert_eq!((rates.bad_rows, rates.memory_limit_bytes), (BadRows::Skip, 3 << 20));
        assert_eq!(rates.column_type("/rate"), ColumnType::Json);
        let joins: Vec<&StageKind> = config.stages.iter().map(|stage| &stage.kind).collect();
        let expected = JoinConfig {
            table: "users".to_owned(),
            on: "/user/id".to_owned(),
            columns: [("/city", "/user/city"), ("/age", "/user/age")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
            no_match: NoMatch::Null,
            wait_ms: 0,
        };
        assert_eq!(joins[0], &StageKind::Join(expected));
        assert!(matches!(joins[1], StageKind::Join(JoinConfig { no_match: NoMatch::Reject, .. })));
    }

    /// What is replaced, by what, and what is said.
    const MISTAKES: &[(&str, &str, &str)] = &[
        (
            "    csv:",
            "    cvs:",
            "5:5: tables.users.cvs: unknown key; expected csv, ndjson, kafka, columns, bad_rows or memory_limit",
        ),
        (
            "    csv: {path: users.csv, key: user_id}\n",
            "",
            "4:3: tables.users: expected exactly one of csv, ndjson or kafka, found none",
        ),
        (", key: user_id", "", "5:5: tables.users.csv.key: is required: the column that a row is found by"),
        ("users:\n", "Users:\n", "4:3: tables.Users: expected a name of 1 to 64 of the characters a-z 0-9 _ -"),
        (
            "age: int64",
            "age: integer",
            "6:20: tables.users.columns.age: expected bool, int64, float64, text, timestamp or json, found `integer`",
        ),
        ("a/b: text", "/age: text", "6:33: tables.users.columns.\"/age\": is the same column as one before it"),
        (
            "key: /code",
            "key: /co~de",
            "7:48: tables.rates.ndjson.key: expected a column's name such as city, or a JSON Pointer such as /address/city, found `/co~de`",
        ),
        (
            "memory_limit: 3MiB",
            "memory_limit: 3GiB",
            "7:102: tables.rates.memory_limit: expected a size from 1MiB to 2GiB, such as 64MiB, found `3GiB`",
        ),
        (
            ", no_match: null",
            "",
            "10:5: stages[0].join.no_match: is required: what becomes of a record without a match, null or reject",
        ),
        ("no_match: null", "no_match: drop", "10:95: stages[0].join.no_match: expected null or reject, found `drop`"),
        ("no_match: reject", "no_match: null", "12:5: stages[1].join: has no effect: name the `columns`"),
        (
            "no_match: reject",
            "no_match: reject, wait: 1h",
            "12:65: stages[1].join.wait: expected a time from 200ms to 600s, such as",
        ),
        (
            "no_match: reject",
            "no_match: reject, wait: 1s",
            "11:5: stages[1]: `known` may `wait` only for records of a Kafka topic, which can be read again",
        ),
        (
            "table: rates",
            "table: rate",
            "11:5: stages[1]: `known` joins with the table `rate`; there is users or rates",
        ),
        (
            "city: /user/city",
            "city: user",
            "10:56: stages[0].join.columns.city: expected a JSON Pointer such as /country or /user/id, found `user`",
        ),
    ];

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let mut wrong = Vec::new();
        for &(line, replacement, expected) in MISTAKES {
            assert!(BASE.contains(line), "{line}");
            let found = parse(&BASE.replacen(line, replacement, 1)).expect_err("must be refused").to_string();
            let found = found.strip_prefix("deploy/p.yaml:").unwrap_or(&found);
            if !found.starts_with(expected) {
                wrong.push(format!("{replacement}\n  expected {expected}\n  found    {found}\n"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.concat());
    }

    #[test]
    fn a_topic_shares_the_sources_connection() {
        let text = "pipeline: p
source: {kafka: {brokers: 'a:9092', topic: t, properties: {sasl.username: me, fetch.wait.max.ms: 5}}}
tables: {users: {kafka: {topic: users, key: record}}, x: {kafka: {topic: x, key: id, brokers: 'b:1'}}}
stages: [{name: j, join: {table: users, on: /id, columns: {city: /city}, no_match: null}}]
outputs: {main: {kafka: {topic: u}}}
dead_letters: {to: {discard: {}}}
";
        let config = parse(text).unwrap_or_else(|error| panic!("{error}"));
        let topics: Vec<&TableTopic> = config
            .tables
            .iter()
            .map(|table| match &table.source {
                TableSource::Kafka(topic) => topic,
                TableSource::File(file) => panic!("{file:?}"),
            })
            .collect();
        assert_eq!((topics[0].connection.brokers.as_str(), &topics[0].key), ("a:9092", &TableKey::Record));
        assert_eq!(topics[0].connection.properties.keys().collect::<Vec<_>>(), ["sasl.username"]);
        assert_eq!((topics[1].connection.brokers.as_str(), &topics[1].key), ("b:1", &TableKey::Field("/id".into())));
        let alone = text.replace(
            "kafka: {brokers: 'a:9092', topic: t, properties: {sasl.username: me, fetch.wait.max.ms: 5}}",
            "stdin: {format: csv}",
        );
        let alone = alone.replace("kafka: {topic: u}", "stdout: {}");
        let why = parse(&alone).expect_err("no brokers").to_string();
        assert_eq!(
            why,
            "deploy/p.yaml:3:18: tables.users.kafka.brokers: is required: there is no Kafka source to share them with"
        );
    }
}
