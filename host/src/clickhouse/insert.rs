//! One block of rows as one insert, which the server takes whole and, under its token, once.

use std::collections::BTreeSet;

use super::client::{Body, Client, path};
use super::encode::Encoder;
use super::error::{RequestError, Verdict};
use super::sql;
use super::table::{Schema, Table};

/// Settings that every insert has, whatever the user's profile says: with other values the server may cut a body into
/// several blocks, of which each would be deduplicated by itself, or answer before all is written. A server that does not
/// know one of them has no such behaviour.
pub(super) const PINNED: &[(&str, &str)] = &[
    // A body is one block: no limit is near the most rows that a block may have, and none counts bytes.
    ("max_insert_block_size", "16777216"),
    ("max_insert_block_size_bytes", "0"),
    ("min_insert_block_size_rows", "16777216"),
    ("min_insert_block_size_bytes", "0"),
    ("min_insert_block_size_rows_for_materialized_views", "0"),
    ("min_insert_block_size_bytes_for_materialized_views", "0"),
    ("use_strict_insert_block_limits", "0"),
    ("input_format_max_block_size_bytes", "0"),
    ("input_format_max_block_wait_ms", "0"),
    ("input_format_parallel_parsing", "0"),
    ("max_insert_threads", "1"),
    ("parallel_view_processing", "0"),
    // The token counts, for the views' targets, too.
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    // The answer comes when all is written, and its status says how it went.
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    // An insert that takes too long fails; it is never cut.
    ("timeout_overflow_mode", "throw"),
    // Rows are as the encoder writes them.
    ("input_format_binary_read_json_as_string", "1"),
    ("input_format_binary_decode_types_in_binary_format", "0"),
    ("input_format_null_as_default", "0"),
    ("input_format_allow_errors_num", "0"),
    ("input_format_allow_errors_ratio", "0"),
    ("materialized_views_ignore_errors", "0"),
];

/// Not a setting of the server's but of the request: nobody can forbid it.
const OF_THE_REQUEST: &str = "wait_end_of_query";

/// ClickHouse's code for a column that is not there.
const NO_SUCH_COLUMN: u32 = 16;

/// The settings that a server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSettings {
    known: BTreeSet<String>,
}

impl ServerSettings {
    /// Asks the server which of the pinned settings it knows.
    pub async fn read(client: &Client) -> Result<Self, RequestError> {
        let answer = client.query("SELECT name FROM system.settings FORMAT TabSeparated", &[]).await?;
        let names: BTreeSet<String> = answer.text().lines().map(str::to_owned).collect();
        let is_pinned = |name: &&str| names.contains(*name) || *name == OF_THE_REQUEST;
        let known = PINNED.iter().map(|(name, _)| *name).filter(is_pinned).map(str::to_owned);
        Ok(Self { known: known.collect() })
    }

    /// The pinned settings that are sent.
    pub(super) fn pinned(&self) -> impl Iterator<Item = (&str, &str)> {
        PINNED.iter().copied().filter(|(name, _)| self.known.contains(*name))
    }
}

/// Sends blocks of one encoder's rows.
#[derive(Clone, Debug)]
pub struct Insert {
    database: String,
    table: String,
    /// Everything of the path but the token.
    path: String,
    /// What stands before the rows.
    header: Vec<u8>,
    /// The digest of the schema that the rows are made for, where the format does not say so itself.
    schema_digest: Option<String>,
}

/// An insert that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("insert into {table}: {error}")]
pub struct InsertError {
    /// The table.
    pub table: String,
    /// What can be done.
    pub verdict: Verdict,
    /// What went wrong.
    pub error: RequestError,
}

impl Insert {
    /// Inserts of `encoder`'s rows into `table`.
    pub fn new(table: &Table, encoder: &Encoder, settings: &ServerSettings) -> Self {
        let columns: Vec<String> = encoder.columns().map(sql::name).collect();
        let columns = columns.join(", ");
        let statement = format!("INSERT INTO {} ({columns}) FORMAT {}", table.sql_name(), encoder.format());
        let pairs = [("query", statement.as_str())].into_iter().chain(settings.pinned());
        let header = encoder.header();
        let schema_digest = header.is_empty().then(|| table.schema_digest.clone());
        Self { database: table.database.clone(), table: table.name.clone(), path: path(pairs), header, schema_digest }
    }

    /// A block of encoded rows, ready to be sent.
    pub fn block(&self, rows: &[u8]) -> Body {
        Body::lz4(&[&self.header, rows])
    }

    /// Sends a block, at most once in all under the same `token`; without one it is there as often as it is sent.
    pub async fn send(&self, client: &Client, block: &Body, token: Option<&str>) -> Result<(), InsertError> {
        let failed = |error: RequestError| {
            let verdict = error.verdict(&self.database, &self.table);
            InsertError { table: format!("{}.{}", self.database, self.table), verdict, error }
        };
        if let Some(digest) = &self.schema_digest {
            let now = Schema::read(client, &self.database, &self.table).await.map_err(failed)?;
            if now.digest != *digest {
                let text = "the table's columns are others than when it was described".to_owned();
                return Err(failed(RequestError::Answered { status: 409, code: Some(NO_SUCH_COLUMN), text }));
            }
        }
        // By its id one can see that an insert which nobody waits for any more is still under way; it has no longer than
        // whoever waited for it, so that it can't arrive when its token is forgotten.
        let token =
            token.map_or(String::new(), |token| format!("&insert_deduplication_token={token}&query_id={token}"));
        let time = client.request_timeout().as_secs().max(1);
        let sent = client.send(&format!("{}{token}&max_execution_time={time}", self.path), block).await;
        sent.map(drop).map_err(failed)
    }
}
