//! `clickhouse:` beside or in place of `kafka:` in an output: a table that an output's records go into as rows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

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
    /// Certificates to trust in place of the system's, PEM.
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
    pub delivery: super::Delivery,
    /// Part of every block's token: another number lets the same records in again.
    pub replay_epoch: u64,
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
            delivery: super::Delivery::ExactlyOnce,
            replay_epoch: 0,
        }
    }
}
