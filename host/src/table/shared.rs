//! What workers share of a table, and how one of them looks at it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Row, Snapshot, TableColumn};
use crate::record::Place;

/// A table that is kept current while others read it.
#[derive(Debug)]
pub struct Table {
    name: String,
    columns: Vec<TableColumn>,
    empty: Snapshot,
    rows: Arc<Part>,
    /// Those partitions' rows that somebody looks at, where each task sees its own partition's only; else `None`.
    parts: Option<Mutex<BTreeMap<i32, Weak<Part>>>>,
    counts: Counts,
    /// Why the table is not kept current, where it is not.
    trouble: Mutex<Option<String>>,
    /// How far it is behind its topic.
    lags: Mutex<Vec<(Place, u64)>>,
}

/// Rows that are kept current: those of the whole table, or of a partition.
#[derive(Debug)]
pub struct Part {
    /// Rises with each snapshot.
    version: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
    is_read: AtomicBool,
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
    rows: Arc<Part>,
    version: u64,
    snapshot: Arc<Snapshot>,
}

impl Table {
    /// A table without rows, of which every task sees all.
    pub fn new(name: &str, columns: Vec<TableColumn>) -> Self {
        Self::with_parts(name, columns, None)
    }

    /// A table without rows, of which a task sees those of its own partition.
    pub fn in_parts(name: &str, columns: Vec<TableColumn>) -> Self {
        Self::with_parts(name, columns, Some(Mutex::default()))
    }

    fn with_parts(name: &str, columns: Vec<TableColumn>, parts: Option<Mutex<BTreeMap<i32, Weak<Part>>>>) -> Self {
        // Nobody can make keys whose hashes collide, and nothing but time depends on the seed.
        let empty = Snapshot::empty(RandomState::new().hash_one(name), columns.len());
        Self {
            name: name.to_owned(),
            columns,
            rows: Arc::new(Part::new(&empty)),
            parts,
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
        self.rows.snapshot()
    }

    /// Puts other rows in force; whoever looks at the ones before goes on seeing those until they refresh.
    pub fn publish(&self, snapshot: Snapshot) {
        self.rows.publish(snapshot);
    }

    /// The partitions that somebody looks at, with their rows; none where a task sees the whole table.
    pub fn parts(&self) -> BTreeMap<i32, Arc<Part>> {
        let Some(parts) = &self.parts else { return BTreeMap::new() };
        let mut parts = lock(parts);
        parts.retain(|_, part| part.strong_count() > 0);
        parts.iter().filter_map(|(partition, part)| Some((*partition, part.upgrade()?))).collect()
    }

    /// The rows that a task of this partition sees.
    fn part(&self, partition: i32) -> Arc<Part> {
        let Some(parts) = &self.parts else { return self.rows.clone() };
        let mut parts = lock(parts);
        let known = parts.get(&partition).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let part = Arc::new(Part::new(&self.empty));
            parts.insert(partition, Arc::downgrade(&part));
            part
        })
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
        let parts = self.parts();
        let snapshots: Vec<_> = parts.values().chain([&self.rows]).map(|rows| rows.snapshot()).collect();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TableReading {
            name: self.name.clone(),
            rows: snapshots.iter().map(|rows| rows.rows()).sum(),
            bytes: snapshots.iter().map(|rows| rows.bytes()).sum(),
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

impl Part {
    fn new(empty: &Snapshot) -> Self {
        let snapshot = Mutex::new(Arc::new(empty.clone()));
        Self { version: AtomicU64::new(0), snapshot, is_read: AtomicBool::new(false) }
    }

    /// The rows as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.snapshot).clone()
    }

    /// Puts other rows in force, which are all that there are.
    pub fn publish(&self, snapshot: Snapshot) {
        *lock(&self.snapshot) = Arc::new(snapshot);
        self.version.fetch_add(1, Ordering::Release);
        self.is_read.store(true, Ordering::Release);
    }
}

impl View {
    /// A look at the table as it is now, by a task of this partition.
    pub fn new(table: Arc<Table>, partition: i32) -> Self {
        let rows = table.part(partition);
        // The version is read first: a snapshot that is newer than its version is only fetched once more.
        let version = rows.version.load(Ordering::Acquire);
        let snapshot = rows.snapshot();
        Self { table, rows, version, snapshot }
    }

    /// True once there are rows to look at: a partition's are read only when somebody wants them.
    pub fn is_ready(&self) -> bool {
        self.table.parts.is_none() || self.rows.is_read.load(Ordering::Acquire)
    }

    /// The table that is looked at.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Looks at the newest rows from now on.
    pub fn refresh(&mut self) {
        let version = self.rows.version.load(Ordering::Acquire);
        if version != self.version {
            self.snapshot = self.rows.snapshot();
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
