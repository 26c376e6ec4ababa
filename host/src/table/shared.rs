//! What workers share of a table, and how one of them looks at it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Row, Snapshot, TableColumn};
use crate::record::Place;

/// A table that is kept current while others read it.
#[derive(Debug)]
pub struct Table {
    name: String,
    columns: Vec<TableColumn>,
    /// Rises with each snapshot.
    version: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
    empty: Snapshot,
    counts: Counts,
    /// Why the table is not kept current, where it is not.
    trouble: Mutex<Option<String>>,
    /// How far it is behind its topic.
    lags: Mutex<Vec<(Place, u64)>>,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    loads: AtomicU64,
    failures: AtomicU64,
    bad_rows: AtomicU64,
    changes: AtomicU64,
}

/// What can be told of a table at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableReading {
    /// The table's name.
    pub name: String,
    /// Rows that it has.
    pub rows: u64,
    /// Memory of its rows, with their index.
    pub bytes: u64,
    /// Lookups that found a row.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// How often it was read as a whole.
    pub loads: u64,
    /// How often that, or keeping it current, failed.
    pub failures: u64,
    /// Rows that could not be read and were left out.
    pub bad_rows: u64,
    /// Rows that were set or deleted since.
    pub changes: u64,
    /// Why it is not kept current, where it is not.
    pub trouble: Option<String>,
    /// How many records of its topic are behind what was read, for each partition.
    pub lags: Vec<(Place, u64)>,
}

/// One reader's look at a table: the same rows until it is refreshed.
#[derive(Clone, Debug)]
pub struct View {
    table: Arc<Table>,
    version: u64,
    snapshot: Arc<Snapshot>,
}

impl Table {
    /// A table without rows.
    pub fn new(name: &str, columns: Vec<TableColumn>) -> Self {
        // Nobody can make keys whose hashes collide, and nothing but time depends on the seed.
        let empty = Snapshot::empty(RandomState::new().hash_one(name), columns.len());
        Self {
            name: name.to_owned(),
            columns,
            version: AtomicU64::new(0),
            snapshot: Mutex::new(Arc::new(empty.clone())),
            empty,
            counts: Counts::default(),
            trouble: Mutex::default(),
            lags: Mutex::default(),
        }
    }

    /// What stages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns that it keeps, in the order of a row's values.
    pub fn columns(&self) -> &[TableColumn] {
        &self.columns
    }

    /// The table without any row: what a whole reading begins with.
    pub fn empty(&self) -> &Snapshot {
        &self.empty
    }

    /// The rows as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.snapshot).clone()
    }

    /// Puts other rows in force; whoever looks at the ones before goes on seeing those until they refresh.
    pub fn publish(&self, snapshot: Snapshot) {
        let mut current = lock(&self.snapshot);
        *current = Arc::new(snapshot);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Notes that the table was read as a whole.
    pub fn note_load(&self) {
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes rows that could not be read and were left out.
    pub fn note_bad_rows(&self, rows: u64) {
        self.counts.bad_rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Notes rows that were set or deleted since the table was read as a whole.
    pub fn note_changes(&self, rows: u64) {
        self.counts.changes.fetch_add(rows, Ordering::Relaxed);
    }

    /// Notes how far the table is behind its topic.
    pub fn note_lags(&self, lags: Vec<(Place, u64)>) {
        *lock(&self.lags) = lags;
    }

    /// Notes that the table could not be kept current, and that it is as it was before; true where that is news.
    pub fn note_failure(&self, why: &str) -> bool {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        lock(&self.trouble).replace(why.to_owned()).is_none_or(|before| before != why)
    }

    /// Notes that the table is kept current; true where it was not before.
    pub fn note_current(&self) -> bool {
        lock(&self.trouble).take().is_some()
    }

    /// What can be told of it now.
    pub fn reading(&self) -> TableReading {
        let snapshot = self.snapshot();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TableReading {
            name: self.name.clone(),
            rows: snapshot.rows(),
            bytes: snapshot.bytes(),
            hits: count(&self.counts.hits),
            misses: count(&self.counts.misses),
            loads: count(&self.counts.loads),
            failures: count(&self.counts.failures),
            bad_rows: count(&self.counts.bad_rows),
            changes: count(&self.counts.changes),
            trouble: lock(&self.trouble).clone(),
            lags: lock(&self.lags).clone(),
        }
    }
}

impl View {
    /// A look at the table as it is now.
    pub fn new(table: Arc<Table>) -> Self {
        // The version is read first: a snapshot that is newer than its version is only fetched once more.
        let version = table.version.load(Ordering::Acquire);
        let snapshot = table.snapshot();
        Self { table, version, snapshot }
    }

    /// The table that is looked at.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Looks at the newest rows from now on.
    pub fn refresh(&mut self) {
        let version = self.table.version.load(Ordering::Acquire);
        if version != self.version {
            self.snapshot = self.table.snapshot();
            self.version = version;
        }
    }

    /// The rows that are looked at.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The row with this key.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Row<'_>> {
        self.snapshot.get(key)
    }

    /// Counts lookups.
    pub fn count(&self, hits: u64, misses: u64) {
        self.table.counts.hits.fetch_add(hits, Ordering::Relaxed);
        self.table.counts.misses.fetch_add(misses, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
