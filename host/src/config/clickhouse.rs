//! `clickhouse:` beside or in place of `kafka:` in an output: a table that an output's records go into as rows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::json::to_json;
use super::walk::At;
use super::{Delivery, Secret};

/// A table, how to reach it, and how records become its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouseConfig {
    /// The one server, as `http://host:port` or `https://host:port`.
    pub url: String,
    /// The table's database.
    pub database: String,
    /// The table.
    pub table: String,
    /// Who signs in; `None` for the server's default user.
    pub user: Option<String>,
    /// With what.
    pub password: Option<Secret>,
    /// Certificates to trust beside the system's, PEM.
    pub ca: Option<PathBuf>,
    /// The longest that a record waits for the block to fill.
    pub flush_interval: Duration,
    /// The most rows of a block.
    pub flush_rows: u64,
    /// The most bytes of a block's rows, encoded and not yet compressed.
    pub flush_bytes: u64,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// What happens to fields of a record that no column takes.
    pub unknown_fields: UnknownFields,
    /// What differs from "each column takes the field of its name", by column.
    pub columns: BTreeMap<String, ColumnRule>,
    /// What the table is promised.
    pub delivery: Delivery,
    /// Part of every block's token: another number lets the same records in again.
    pub replay_epoch: u64,
    /// The windows whose rows come in versions and go into it.
    pub versioned: Vec<VersionedRows>,
}

/// Rows of windows that come more than once, each replacing the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedRows {
    /// The stage.
    pub stage: String,
    /// The names of the key's fields: with `window_start` they tell a row from others.
    pub key: Vec<String>,
    /// True where a window's end may move.
    pub is_session: bool,
}

/// Where one column's value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnRule {
    /// The JSON Pointer of its field; `None` for the field of the column's name.
    pub from: Option<String>,
    /// The value, as JSON text, where the field is missing, or is null and the column can't be.
    pub default: Option<String>,
    /// The value of every row, as JSON text.
    pub constant: Option<String>,
    /// What a number in a date or time column counts.
    pub unit: Option<TimeUnit>,
}

/// What a number counts from 1970 UTC on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// What happens to the fields of a record (those of its top level) that no column takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are left out.
    #[default]
    Ignore,
    /// The record becomes a dead letter.
    Refuse,
    /// They go into this column, of type JSON or String, as one JSON object.
    Column(String),
}

pub(super) const CLICKHOUSE_KEYS: &[&str] = &[
    "url",
    "database",
    "table",
    "user",
    "password",
    "ca",
    "flush_interval",
    "flush_rows",
    "flush_bytes",
    "request_timeout",
    "unknown_fields",
    "columns",
    "delivery",
    "replay_epoch",
];
pub(super) const COLUMN_KEYS: &[&str] = &["from", "default", "constant", "unit"];
pub(super) const UNKNOWN_KEYS: &[&str] = &["column"];

/// How long a record waits for its block unless the config says otherwise.
const DEFAULT_FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Rows of a block unless the config says otherwise.
const DEFAULT_FLUSH_ROWS: u64 = 100_000;
/// The most that `flush_rows` may be: below what a server takes as one block.
pub const MAX_FLUSH_ROWS: u64 = 1_000_000;
/// Bytes of a block unless the config says otherwise.
const DEFAULT_FLUSH_BYTES: u64 = 16 << 20;
/// How long a request may take unless the config says otherwise.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

impl ClickHouseConfig {
    /// A table on a server, with everything else as it is by default.
    pub fn new(url: &str, database: &str, table: &str) -> Self {
        Self {
            url: url.to_owned(),
            database: database.to_owned(),
            table: table.to_owned(),
            user: None,
            password: None,
            ca: None,
            flush_interval: DEFAULT_FLUSH_INTERVAL,
            flush_rows: DEFAULT_FLUSH_ROWS,
            flush_bytes: DEFAULT_FLUSH_BYTES,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            unknown_fields: UnknownFields::Ignore,
            columns: BTreeMap::new(),
            delivery: Delivery::ExactlyOnce,
            replay_epoch: 0,
            versioned: Vec::new(),
        }
    }

    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(CLICKHOUSE_KEYS)?;
        let url = read_url(&fields.required("url", "the server, as http://HOST:8123")?)?;
        let database = name(&fields.required("database", "the table's database")?)?;
        let table = name(&fields.required("table", "the table")?)?;
        let default = Self::new(&url, &database, &table);
        let flush_interval = Duration::from_millis(10)..=Duration::from_secs(600);
        let request_timeout = Duration::from_secs(1)..=Duration::from_secs(240);
        let text = |key: &str| fields.optional(key).map(|at| at.scalar("text")).transpose();
        Ok(Self {
            user: text("user")?.map(|user| user.text.clone()).filter(|user| !user.is_empty()),
            password: text("password")?.map(|password| Secret::new(&password.text)),
            ca: fields.optional("ca").map(|at| at.file_path()).transpose()?,
            flush_interval: fields.or("flush_interval", default.flush_interval, |at| at.duration(flush_interval))?,
            flush_rows: fields.or("flush_rows", default.flush_rows, |at| at.integer(1..=MAX_FLUSH_ROWS))?,
            flush_bytes: fields.or("flush_bytes", default.flush_bytes, |at| at.bytes(1 << 10..=256 << 20))?,
            request_timeout: fields
                .or("request_timeout", default.request_timeout, |at| at.duration(request_timeout))?,
            unknown_fields: fields.or("unknown_fields", UnknownFields::Ignore, UnknownFields::read)?,
            columns: fields.or("columns", BTreeMap::new(), read_columns)?,
            delivery: fields.or("delivery", Delivery::ExactlyOnce, |at| {
                at.choice(&[("exactly_once", Delivery::ExactlyOnce), ("at_least_once", Delivery::AtLeastOnce)])
            })?,
            replay_epoch: fields.or("replay_epoch", 0, |at| at.integer(0..=u64::MAX))?,
            ..default
        })
    }
}

impl UnknownFields {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        if at.entry("column").is_some() {
            let fields = at.fields(UNKNOWN_KEYS)?;
            return Ok(Self::Column(name(&fields.required("column", "a column of type JSON or String")?)?));
        }
        let what = "ignore, refuse or {column: NAME}";
        at.parsed(what, |text| match text {
            "ignore" => Some(Self::Ignore),
            "refuse" => Some(Self::Refuse),
            _ => None,
        })
    }
}

impl ColumnRule {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(COLUMN_KEYS)?;
        let json = |key: &str| fields.any(key).map(|at| to_json(&at)).transpose();
        let units =
            [("s", TimeUnit::Seconds), ("ms", TimeUnit::Millis), ("us", TimeUnit::Micros), ("ns", TimeUnit::Nanos)];
        let rule = Self {
            from: fields.optional("from").map(|at| at.pointer()).transpose()?,
            default: json("default")?,
            constant: json("constant")?,
            unit: fields.optional("unit").map(|at| at.choice(&units)).transpose()?,
        };
        if rule.constant.is_some() && (rule.from.is_some() || rule.default.is_some()) {
            return Err(at.error("`constant` is the value of every row; `from` and `default` would never count"));
        }
        Ok(rule)
    }
}

fn read_columns(at: &At<'_>) -> Result<BTreeMap<String, ColumnRule>, ConfigError> {
    let entries = at.open_map("a map of columns")?;
    entries.into_iter().map(|(name, at)| Ok((name.to_owned(), ColumnRule::read(&at)?))).collect()
}

/// A name of ClickHouse's: anything goes, in backticks.
fn name(at: &At<'_>) -> Result<String, ConfigError> {
    at.text("a name").map(str::to_owned)
}

fn read_url(at: &At<'_>) -> Result<String, ConfigError> {
    let what = "one server, as http://HOST:8123 or https://HOST:8443";
    let several = at.list("").is_ok() || at.scalar("").is_ok_and(|scalar| scalar.text.contains(','));
    if several {
        let text = "expected one server: another one does not know which blocks this one took, so that a block whose \
                    answer was lost would be there twice";
        return Err(at.error(text));
    }
    at.parsed(what, |text| server_address(text).map(|_| text.to_owned()))
}

/// Whether an address asks for TLS, its host and its port; `None` for what is no plain `http://HOST:PORT`.
pub fn server_address(url: &str) -> Option<(bool, String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (rest, if is_tls { 8443 } else { 8123 }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = !host.is_empty() && !host.contains(['/', '?', '#', '@', ',', ' ']);
    (is_host && port > 0).then(|| (is_tls, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, SinkConfig};
    use super::*;

    const SOURCE: &str = "pipeline: p\nsource: {kafka: {brokers: 'a:1', topic: t}}\ndead_letters: {to: {discard: }}\n";

    fn parse(text: &str) -> Result<Config, String> {
        let variables = |name: &str| (name == "PASSWORD").then(|| "hunter2".to_owned());
        Config::parse(Path::new("deploy/p.yaml"), text, &variables).map_err(|error| error.to_string())
    }

    /// The output `main` with these keys beside `url`, `database` and `table`.
    fn table(keys: &str) -> Result<ClickHouseConfig, String> {
        let output = format!("outputs: {{main: {{clickhouse: {{url: 'http://h', database: d, table: t{keys}}}}}}}\n");
        parse(&format!("{SOURCE}{output}")).map(|config| config.outputs[0].table.clone().expect("a table"))
    }

    #[track_caller]
    fn refused(keys: &str, words: &str) {
        let error = table(keys).expect_err("must be refused");
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_table_is_read_with_every_default_filled_in() {
        assert_eq!(table(""), Ok(ClickHouseConfig::new("http://h", "d", "t")));
        let keys = ", user: u, password: '${PASSWORD}', ca: ca.pem, flush_interval: 500ms, flush_rows: 10, \
                    flush_bytes: 1MiB, request_timeout: 5s, unknown_fields: {column: rest}, delivery: at_least_once, \
                    replay_epoch: 3, columns: {a: {from: /b, default: [1, x], unit: ms}, c: {constant: '1'}, \
                    d: {default: null}}";
        let found = table(keys).unwrap_or_else(|error| panic!("{error}"));
        assert!(!format!("{found:?}").contains("hunter2"));
        let rule = |from: Option<&str>, default: Option<&str>, constant: Option<&str>, unit| ColumnRule {
            from: from.map(str::to_owned),
            default: default.map(str::to_owned),
            constant: constant.map(str::to_owned),
            unit,
        };
        let expected = ClickHouseConfig {
            user: Some("u".into()),
            password: Some(Secret::new("hunter2")),
            ca: Some("deploy/ca.pem".into()),
            flush_interval: Duration::from_millis(500),
            flush_rows: 10,
            flush_bytes: 1 << 20,
            request_timeout: Duration::from_secs(5),
            unknown_fields: UnknownFields::Column("rest".into()),
            delivery: Delivery::AtLeastOnce,
            replay_epoch: 3,
            columns: BTreeMap::from([
                ("a".to_owned(), rule(Some("/b"), Some("[1,\"x\"]"), None, Some(TimeUnit::Millis))),
                ("c".to_owned(), rule(None, None, Some("\"1\""), None)),
                ("d".to_owned(), rule(None, Some("null"), None, None)),
            ]),
            ..ClickHouseConfig::new("http://h", "d", "t")
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_table_is_fed_by_a_topic() {
        let clickhouse = "clickhouse: {url: 'http://h', database: d, table: t}";
        let dead = format!("dead_letters: {{to: {{{clickhouse}}}}}");
        let text = format!("{SOURCE}outputs:\n  main: {{{clickhouse}}}\n  b: {{kafka: {{topic: x}}, {clickhouse}}}\n");
        let config =
            parse(&text.replace("dead_letters: {to: {discard: }}", &dead)).unwrap_or_else(|error| panic!("{error}"));
        let topic = |sink: &SinkConfig| match sink {
            SinkConfig::Kafka(kafka) => (kafka.topic.clone(), kafka.is_outbox, kafka.connection.brokers.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(topic(&config.outputs[0].sink), ("p.main.outbox".into(), true, "a:1".into()));
        assert_eq!(topic(&config.outputs[1].sink), ("x".into(), false, "a:1".into()));
        assert_eq!(topic(&config.dead_letters.to), ("p.outbox.dead_letters".into(), true, "a:1".into()));
        assert!(config.outputs.iter().all(|output| output.table.is_some()) && config.dead_letters.table.is_some());
        assert_eq!(config.delivery, Delivery::ExactlyOnce);
    }

    #[test]
    fn without_kafka_a_table_is_fed_directly() {
        let text = "pipeline: p\nsource: {stdin: {format: ndjson}}\ndead_letters: {to: {discard: }}\n\
                    outputs: {main: {clickhouse: {url: 'http://h', database: d, table: t}}}\n";
        let config = parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(&config.outputs[0].sink, SinkConfig::Table(table) if table.table == "t"));
        assert_eq!(config.delivery, Delivery::AtLeastOnce);
    }

    #[test]
    fn mistakes_are_told() {
        let url = |url: &str| {
            let output = format!("outputs: {{main: {{clickhouse: {{url: {url}, database: d, table: t}}}}}}\n");
            parse(&format!("{SOURCE}{output}")).expect_err("must be refused")
        };
        assert!(url("'http://a,http://b'").contains("expected one server: another one does not know"));
        assert!(url("['http://a', 'http://b']").contains("expected one server: another one does not know"));
        assert!(url("'tcp://a:9000'").contains("expected one server, as http://HOST:8123"));
        refused(", flush_rows: 1000001", "from 1 to 1000000");
        refused(", flush_interval: 1", "expected a time from 10ms to 600s, such as 500ms, 1s or 2m");
        refused(", unknown_fields: drop", "expected ignore, refuse or {column: NAME}");
        refused(", columns: {a: {constant: 1, from: /a}}", "would never count");
        refused(", columns: {a: {unit: h}}", "expected s, ms, us or ns");
        refused(", columns: {a: {form: /a}}", "did you mean `from`?");
        let beside = "outputs: {main: {file: {path: x}, clickhouse: {url: 'http://h', database: d, table: t}}}\n";
        let error = parse(&format!("{SOURCE}{beside}")).expect_err("must be refused");
        assert!(error.contains("beside `clickhouse` only `kafka` can be given"), "{error}");
    }

    #[test]
    fn addresses_are_read_and_nonsense_is_refused() {
        let read = |url: &str| server_address(url).map(|(tls, host, port)| format!("{tls} {host} {port}"));
        assert_eq!(read("http://localhost:8123").as_deref(), Some("false localhost 8123"));
        assert_eq!(read("https://ch.example/").as_deref(), Some("true ch.example 8443"));
        assert_eq!(read("http://[::1]:9").as_deref(), Some("false ::1 9"));
        assert_eq!(read("http://[::1]").as_deref(), Some("false ::1 8123"));
        for wrong in
            ["localhost:8123", "tcp://a:9000", "http://a:0", "http://a/b", "http://u:p@a", "http://a,b", "http://"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
