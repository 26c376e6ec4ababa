//! ClickHouse, against the real engine: rows are what the records said, a block is one block, and each refusal is told
//! for what it is.

#[path = "harness/mod.rs"]
mod harness;

#[path = "clickhouse/blocks.rs"]
mod blocks;
#[path = "clickhouse/encrypted.rs"]
mod encrypted;
#[path = "clickhouse/promises.rs"]
mod promises;
#[path = "clickhouse/refusals.rs"]
mod refusals;
#[path = "clickhouse/types.rs"]
mod types;

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};

use harness::clickhouse as server;
use millstream::clickhouse::{Client, Encoder, Insert, Lineage, ServerSettings, Table};
use millstream::config::ClickHouseConfig;

/// A table of a test's own, on the server that tests share or another one.
struct Fixture {
    url: String,
    database: String,
    config: ClickHouseConfig,
    client: Client,
}

/// Table settings under which tokens are remembered.
const WINDOW: &str = "SETTINGS non_replicated_deduplication_window = 1000";

impl Fixture {
    /// A table `t` of these columns in a database of its own.
    fn new(columns: &str) -> Self {
        Self::on(&server::shared_url(), columns)
    }

    fn on(url: &str, columns: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let database = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        server::query(url, &format!("CREATE DATABASE {database}"));
        server::query(
            url,
            &format!("CREATE TABLE {database}.t ({columns}) ENGINE = MergeTree ORDER BY tuple() {WINDOW}"),
        );
        let config = ClickHouseConfig::new(url, &database, "t");
        let client = Client::new(&config).expect("a client");
        Self { url: url.to_owned(), database, config, client }
    }

    /// Takes the changed configuration.
    fn renew(&mut self) {
        self.client = Client::new(&self.config).expect("a client");
    }

    /// The answer to SQL in which `$` stands for the database.
    fn sql(&self, sql: &str) -> String {
        server::query(&self.url, &sql.replace('$', &self.database))
    }

    fn table(&self) -> Table {
        wait(Table::describe(&self.client, &self.database, "t")).expect("the table is there")
    }

    /// An encoder and its insert for the table as it is now.
    fn writer(&self) -> (Encoder, Insert) {
        let table = self.table();
        let encoder = Encoder::new(&table, &self.config).unwrap_or_else(|error| panic!("{error}"));
        let settings = wait(ServerSettings::read(&self.client)).expect("settings");
        let insert = Insert::new(&table, &encoder, &settings);
        (encoder, insert)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = server::try_query(&self.url, &format!("DROP DATABASE {}", self.database));
        }
    }
}

fn lineage(offset: i64) -> Lineage<'static> {
    Lineage { topic: "events", partition: 0, offset, timestamp_ms: 1_700_000_000_000 }
}

/// The rows of some records, which must fit.
fn rows<'a>(encoder: &mut Encoder, records: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut out = Vec::new();
    for (offset, record) in (0..).zip(records) {
        let encoded = encoder.encode(record.as_bytes(), lineage(offset), &mut out);
        encoded.unwrap_or_else(|misfit| panic!("{record}: {misfit}"));
    }
    out
}

/// Runs one future to its end, on this thread alone.
fn wait<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
