//! The engine that contenders write to: tables for them, and what it says of these.

use anyhow::{Context as _, Result};
use millstream::clickhouse::Connection;
use millstream::config::ClickHouseConfig;

use crate::{Args, usage};

/// The shipped table, so that what is measured is what users get.
const EVENTS_SQL: &str = include_str!("../../../../sql/clickstream/001_events.sql");
const SHIPPED_DATABASE: &str = "events_db";

/// One server.
pub(super) struct Engine {
    pub(super) url: String,
    /// Its process, where it runs on this machine and the bench was told.
    pid: Option<String>,
    connection: Connection,
}

impl Engine {
    /// The server of `--clickhouse`.
    pub(super) fn new(args: &Args) -> Result<Self> {
        let url = args.text("clickhouse")?;
        let connection = Connection::new(&ClickHouseConfig::new(&url, "default", ""))?;
        let pid = args.get("clickhouse-pid", String::new())?;
        Ok(Self { url, pid: (!pid.is_empty()).then_some(pid), connection })
    }

    /// The answer to a query.
    pub(super) fn sql(&self, sql: &str) -> Result<String> {
        let answer = self.connection.wait(async |client| client.query(sql, &[]).await);
        Ok(answer.with_context(|| sql.to_owned())?.text())
    }

    /// The numbers that a query answers with, in one line.
    pub(super) fn numbers(&self, sql: &str) -> Result<Vec<f64>> {
        let answer = self.sql(sql)?;
        let number = |text: &str| text.parse().with_context(|| format!("{sql}: {answer} is no number"));
        answer.split_whitespace().map(number).collect()
    }

    /// Makes a database with the clickstream's table of events.
    pub(super) fn make(&self, database: &str) -> Result<()> {
        let lines: Vec<&str> = EVENTS_SQL.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let text = lines.join("\n").replace(SHIPPED_DATABASE, database);
        text.split(';').filter(|sql| !sql.trim().is_empty()).try_for_each(|sql| self.sql(sql).map(drop))
    }

    /// Removes it.
    pub(super) fn remove(&self, database: &str) -> Result<()> {
        self.sql(&format!("DROP DATABASE {database} SYNC")).map(drop)
    }

    /// Rows that can be queried.
    pub(super) fn rows(&self, database: &str) -> Result<u64> {
        let rows = self.numbers(&format!("SELECT count() FROM {database}.events"))?;
        Ok(rows.first().copied().unwrap_or_default() as u64)
    }

    /// How many different records the rows are of.
    pub(super) fn records(&self, database: &str) -> Result<u64> {
        let records = self.numbers(&format!("SELECT uniqExact(_partition, _offset) FROM {database}.events"))?;
        Ok(records.first().copied().unwrap_or_default() as u64)
    }

    /// Active parts of the table, and its bytes on disk.
    pub(super) fn parts(&self, database: &str) -> Result<(f64, f64)> {
        let parts = self.numbers(&format!(
            "SELECT count(), sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{database}'"
        ))?;
        Ok((parts.first().copied().unwrap_or_default(), parts.get(1).copied().unwrap_or_default()))
    }

    /// CPU time that it has used, if that can be known.
    pub(super) fn cpu_s(&self) -> Option<f64> {
        usage::cpu_s(self.pid.as_deref()?)
    }
}
