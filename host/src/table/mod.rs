//! Tables: rows by key that records are looked up in.
//!
//! A [`Table`] is what all workers share. Whoever keeps it current publishes one [`Snapshot`] after the other; none ever
//! changes. A stage looks through a [`View`], which takes the newest snapshot when it is told to and holds on to it: no lock
//! is on the way of a record, and all records of a batch see the same rows.
//!
//! A snapshot is a few [`Layer`]s, the newest first: rows end to end in one buffer, with an index of hashes. A file is one
//! layer. What a topic changes comes as a small layer on top; layers are merged as they add up, so that a change costs its
//! own size and not the table's.
//!
//! This room reads no files and no topics: `run` does, and hands over rows.

mod layer;
mod rows;
mod shared;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use layer::{Builder, Full, Row, Values};
pub use rows::{Accepts, KeyAt, RowError, RowReader, key_text};
pub use shared::{Part, Table, TableReading, View};
pub use snapshot::Snapshot;

use crate::record::ColumnType;

/// A column that a table keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    /// A JSON Pointer into a row.
    pub path: String,
    /// What it holds.
    pub ty: ColumnType,
}

/// The tables of a pipeline, by name.
pub type Tables = BTreeMap<String, Arc<Table>>;
