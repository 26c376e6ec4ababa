//! A table at one moment.

use std::sync::Arc;

use super::Builder;
use super::layer::{Layer, Row, hash};

/// A layer is merged into the one below it once it has a fourth of its rows: of a million rows there are ten layers at
/// most, and a row is copied a few times for each.
const MERGE_RATIO: usize = 4;

/// The rows of a table; they never change.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The newest last.
    layers: Vec<Arc<Layer>>,
    rows: u64,
    seed: u64,
    columns: usize,
}

impl Snapshot {
    /// A table without rows.
    pub(super) fn empty(seed: u64, columns: usize) -> Self {
        Self { layers: Vec::new(), rows: 0, seed, columns }
    }

    /// The row with this key.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Row<'_>> {
        let hash = hash(self.seed, key);
        self.layers.iter().rev().find_map(|layer| layer.find(hash, key, self.columns)).flatten()
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes that they take, with their index.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes() as u64).sum()
    }

    /// An empty set of changes to this.
    pub fn changes(&self) -> Builder {
        Builder::new(self.seed, self.columns)
    }

    /// This with changes made to it.
    pub fn with(&self, changes: Builder) -> Self {
        let layer = changes.freeze(self.layers.is_empty());
        let mut layers = self.layers.clone();
        layers.push(Arc::new(layer));
        let mut next = Self { layers, rows: 0, seed: self.seed, columns: self.columns };
        next.rows = self.rows_with(&next.layers);
        next.merge();
        next
    }

    fn rows_with(&self, layers: &[Arc<Layer>]) -> u64 {
        let Some((changes, _)) = layers.split_last() else { return 0 };
        let count = changes.keys(self.columns).map(|(key, deleted)| match (self.get(key).is_some(), deleted) {
            (true, true) => -1,
            (false, false) => 1,
            _ => 0,
        });
        self.rows.saturating_add_signed(count.sum())
    }

    fn merge(&mut self) {
        while let [.., older, newer] = self.layers.as_slice() {
            let is_base = self.layers.len() == 2;
            if newer.rows() * MERGE_RATIO < older.rows() || !newer.fits(older) {
                return;
            }
            let merged = Layer::merged(newer, older, (self.seed, self.columns), is_base);
            self.layers.truncate(self.layers.len() - 2);
            self.layers.push(Arc::new(merged));
        }
    }
}
