//! Tables: read as a whole before the first record, and kept current while the pipeline runs.

mod file;
mod parts;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::config::{BadRows, Config, SourceConfig, StageKind, TableConfig, TableSource};
use crate::kafka::{Admin, Connection};
use crate::plugin::{Descriptor, TableField};
use crate::table::{Builder, RowReader, Table, TableColumn, Tables};

use super::RunError;
use super::cluster::connection;

/// How many bad rows of one reading are told one by one.
const TOLD_ROWS: u64 = 5;

/// The tables that stages use, without rows, each with the columns that are needed of it: by stages that join, and by
/// plugins, which say so in their descriptors.
pub(super) fn make<'a>(config: &'a Config, descriptors: impl Iterator<Item = &'a Descriptor>) -> Tables {
    let mut needed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for stage in &config.stages {
        if let StageKind::Join(join) = &stage.kind {
            needed.entry(&join.table).or_default().extend(join.columns.keys().map(String::as_str));
        }
    }
    for descriptor in descriptors {
        for TableField { table, path } in descriptor.joins.iter().map(|join| &join.column).chain(&descriptor.lookups) {
            needed.entry(table).or_default().insert(path);
        }
    }
    let make = |table: &TableConfig| {
        let mut paths = needed.remove(table.name.as_str())?;
        paths.extend(table.columns.keys().map(String::as_str));
        let column = |path: &str| TableColumn { path: path.to_owned(), ty: table.column_type(path) };
        let columns = paths.into_iter().map(column).collect();
        let is_in_parts = matches!(&table.source, TableSource::Kafka(topic) if topic.co_partitioned);
        let made = if is_in_parts { Table::in_parts(&table.name, columns) } else { Table::new(&table.name, columns) };
        Some((table.name.clone(), Arc::new(made)))
    };
    config.tables.iter().filter_map(make).collect()
}

/// Reads the tables that are files, once.
pub fn load_file_tables(config: &Config, tables: &Tables) -> Result<(), RunError> {
    for (config, table) in used(config, tables) {
        if let TableSource::File(file) = &config.source {
            file::load(config, file, table).map_err(|why| failed(config, why))?;
        }
    }
    Ok(())
}

/// Asks the servers for the topics of tables: for each table what there is, and what is odd about it.
pub fn check_table_topics(config: &Config, tables: &Tables) -> Result<Vec<(String, String)>, RunError> {
    let mut found = Vec::new();
    for (of_config, _) in used(config, tables) {
        if let TableSource::Kafka(topic) = &of_config.source {
            let connection = connection(&topic.connection, config);
            let (partitions, odd) = topic::check(&connection, topic).map_err(|why| failed(of_config, why))?;
            if let Some((source, of_source)) = source_topic(config).filter(|_| topic.co_partitioned) {
                let admins = Admin::new(&connection).and_then(|own| Ok((own, Admin::new(&source)?)));
                let (mut own, mut sources) = admins.map_err(|why| failed(of_config, why.to_string()))?;
                let counts = (&mut own, topic.topic.as_str());
                let compared = topic::compare_counts(counts, (&mut sources, &of_source), topic::START_TIMEOUT);
                compared.map_err(|why| failed(of_config, why))?;
            }
            let odd = odd.map_or(String::new(), |odd| format!("; note: {odd}"));
            found.push((of_config.name.clone(), format!("topic {} has {partitions} partitions{odd}", topic.topic)));
        }
    }
    Ok(found)
}

/// Those who keep the tables current.
pub(super) struct Keepers {
    threads: Vec<JoinHandle<Result<(), RunError>>>,
    done: Arc<AtomicBool>,
}

/// Reads all tables, and goes on keeping them current. What can't be mended by waiting raises `stop`.
pub(super) fn start(config: &Config, tables: &Tables, stop: &Arc<AtomicBool>) -> Result<Keepers, RunError> {
    let mut keepers = Keepers { threads: Vec::new(), done: Arc::default() };
    let mut loading = Vec::new();
    for (of_config, table) in used(config, tables) {
        if let TableSource::Kafka(topic) = &of_config.source {
            let connection = connection(&topic.connection, config);
            let ends = Ends { done: keepers.done.clone(), stop: stop.clone() };
            let follower = topic::Follower::new(of_config, (topic, connection), source_topic(config), table, ends);
            let (tell, told) = mpsc::channel();
            keepers.spawn(&of_config.name, move || follower.run(&tell))?;
            loading.push(told);
        }
    }
    let mut files = Vec::new();
    for (of_config, table) in used(config, tables) {
        if let TableSource::File(file) = &of_config.source {
            // Looked at first: what changes while it is read is read again.
            files.push(file::Watch::new(of_config, file, table));
            file::load(of_config, file, table).map_err(|why| failed(of_config, why))?;
        }
    }
    for table in &config.tables {
        if !tables.contains_key(&table.name) {
            tracing::warn!("table `{}` is not read: no stage uses it", table.name);
        }
    }
    if !files.is_empty() {
        let done = keepers.done.clone();
        keepers.spawn("tables", move || {
            file::watch(&mut files, &done);
            Ok(())
        })?;
    }
    // One that ends before it has read its topic says why, or was told to end.
    let mut all_read = true;
    loading.into_iter().for_each(|told| all_read &= told.recv().is_ok());
    if !all_read {
        keepers.end()?;
        return Ok(Keepers { threads: Vec::new(), done: Arc::default() });
    }
    Ok(keepers)
}

/// The source's topic, of which there is one where a table is co-partitioned, and where it is.
fn source_topic(config: &Config) -> Option<(Connection, String)> {
    match &config.source {
        SourceConfig::Kafka(source) => {
            source.topics.first().map(|topic| (connection(&source.connection, config), topic.clone()))
        }
        _ => None,
    }
}

/// When those who keep tables are to end, and how they end everything.
struct Ends {
    /// They are no longer needed.
    done: Arc<AtomicBool>,
    /// The run ends; they end it where a table can't be kept current any more.
    stop: Arc<AtomicBool>,
}

impl Keepers {
    fn spawn(
        &mut self,
        name: &str,
        body: impl FnOnce() -> Result<(), RunError> + Send + 'static,
    ) -> Result<(), RunError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.push(thread.map_err(|why| RunError::Io(format!("can't start a thread: {why}")))?);
        Ok(())
    }

    /// Leaves the tables as they are; the error is what one of them could not be mended of.
    pub(super) fn end(mut self) -> Result<(), RunError> {
        self.done.store(true, Ordering::Relaxed);
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            result = result.and(thread.join().unwrap_or(Err(RunError::Panicked)));
        }
        result
    }
}

/// A run that fails before it begins leaves no thread behind.
impl Drop for Keepers {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

fn used<'a>(config: &'a Config, tables: &'a Tables) -> impl Iterator<Item = (&'a TableConfig, &'a Arc<Table>)> {
    config.tables.iter().filter_map(|table| Some((table, tables.get(&table.name)?)))
}

fn failed(table: &TableConfig, why: String) -> RunError {
    RunError::Table { table: table.name.clone(), why }
}

/// Rows on their way into a table: those that can't be read are left out, or end it.
struct Intake<'a> {
    config: &'a TableConfig,
    reader: RowReader,
    rows: Builder,
    /// For each column, how many rows have it.
    filled: Vec<u64>,
    bad: u64,
}

impl<'a> Intake<'a> {
    fn new(config: &'a TableConfig, table: &Table, reader: RowReader) -> Self {
        let filled = vec![0; table.columns().len()];
        Self { config, reader, rows: table.empty().changes(), filled, bad: 0 }
    }

    /// Takes a row; the error ends the reading. `place` tells where it stands.
    fn take(&mut self, key: Option<&[u8]>, row: &[u8], place: impl Fn() -> String) -> Result<(), String> {
        match self.reader.read(key, row) {
            Ok(()) => {
                for (filled, value) in self.filled.iter_mut().zip(self.reader.values()) {
                    *filled += u64::from(value.is_some());
                }
                self.rows.set(self.reader.key(), self.reader.values()).map_err(|why| why.to_string())
            }
            Err(why) => self.refuse(&why, place),
        }
    }

    /// Leaves a row out, if that is allowed.
    fn refuse(&mut self, why: &impl std::fmt::Display, place: impl Fn() -> String) -> Result<(), String> {
        if self.config.bad_rows == BadRows::Stop {
            return Err(format!(
                "{}: the row can't be read: {why}; mend it, or say `bad_rows: skip` to leave such rows out",
                place()
            ));
        }
        self.bad += 1;
        if self.bad <= TOLD_ROWS {
            tracing::warn!("table `{}`: {}: a row is left out: {why}", self.config.name, place());
        }
        Ok(())
    }

    /// Fails where rows take more memory than they may.
    fn check_memory(&self, bytes: u64, rows: u64) -> Result<(), String> {
        let limit = self.config.memory_limit_bytes;
        if bytes <= limit {
            return Ok(());
        }
        let mib = limit as f64 / f64::from(1 << 20);
        Err(format!("{rows} rows take more than `memory_limit` ({mib} MiB) already; raise it, or keep fewer columns"))
    }

    /// Says what a whole reading brought that is odd.
    fn tell(&self, table: &Table) {
        let name = &self.config.name;
        if self.bad > TOLD_ROWS {
            tracing::warn!("table `{name}`: {} rows that can't be read are left out", self.bad);
        }
        let none = table.columns().iter().zip(&self.filled).filter(|(_, filled)| **filled == 0);
        if !self.rows.is_empty() {
            none.for_each(|(column, _)| tracing::warn!("table `{name}`: no row has a value at {}", column.path));
        }
        table.note_bad_rows(self.bad);
    }
}
