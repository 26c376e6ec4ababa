//! Records as a source delivers them and a sink takes them.

use std::sync::Arc;

use super::{OptionalBytes, Packed};

/// Headers of many rows; all three fields are empty where no row has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Row `i` has the headers `row_ends[i-1]..row_ends[i]`; shorter than the rows where the last ones have none.
    pub row_ends: Vec<u32>,
    /// The headers' names (UTF-8 in Kafka's protocol, but taken as bytes).
    pub names: Packed,
    /// The headers' values.
    pub values: OptionalBytes,
}

impl Headers {
    /// The headers of `row` in order; none where `row` was never ended.
    pub fn get(&self, row: usize) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let end = |row: usize| self.row_ends.get(row).map_or(self.names.len(), |&end| end as usize);
        let start = if row == 0 { 0 } else { end(row - 1) };
        (start..end(row)).map(|i| (self.names.get(i), self.values.get(i)))
    }

    /// True when no row has a header.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Appends a header to the row that is being written; `row` is its index, and rows before it that were not ended
    /// have none.
    pub fn push(&mut self, row: usize, name: &[u8], value: Option<&[u8]>) {
        self.row_ends.resize(row, self.names.len() as u32);
        self.names.push(name);
        self.values.push(value);
        self.row_ends.push(self.names.len() as u32);
    }

    /// Removes all headers and keeps the buffers.
    pub fn clear(&mut self) {
        self.row_ends.clear();
        self.names.clear();
        self.values.clear();
    }
}

/// Records in columns: everything that Kafka knows of a record but its partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Offset in the source's partition; of a row on its way out, that of the record that it came from.
    pub offsets: Vec<i64>,
    /// Milliseconds since 1970 UTC; -1 where there is none.
    pub timestamps_ms: Vec<i64>,
    /// Keys.
    pub keys: OptionalBytes,
    /// Values; a null value is a tombstone.
    pub values: OptionalBytes,
    /// Headers.
    pub headers: Headers,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of keys, values and headers, as the bounds of a batch count them.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.names.data.len() + self.headers.values.packed.data.len();
        self.keys.packed.data.len() + self.values.packed.data.len() + headers
    }

    /// Appends one row without headers; they follow by `headers.push(row, …)`.
    pub fn push(&mut self, offset: i64, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.offsets.push(offset);
        self.timestamps_ms.push(timestamp_ms);
        self.keys.push(key);
        self.values.push(value);
    }

    /// Appends `row` of `from`, headers included.
    pub fn push_from(&mut self, from: &Rows, row: usize) {
        let to = self.len();
        self.push(from.offsets[row], from.timestamps_ms[row], from.keys.get(row), from.values.get(row));
        for (name, value) in from.headers.get(row) {
            self.headers.push(to, name, value);
        }
    }

    /// Removes all rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.offsets.clear();
        self.timestamps_ms.clear();
        self.keys.clear();
        self.values.clear();
        self.headers.clear();
    }
}

/// Consecutive records of one partition, with the range of offsets that they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Topic, or the file's path.
    pub topic: Arc<str>,
    /// Partition, or the file's number in the list of inputs.
    pub partition: i32,
    /// The offset that the batch begins at: the one after the batch before it.
    pub first_offset: i64,
    /// The offset to commit once this batch is delivered; beyond the last row where the log has gaps.
    pub next_offset: i64,
    /// The records, in order.
    pub rows: Rows,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Topic, or the file's path.
    pub topic: Arc<str>,
    /// Partition, or the file's number in the list of inputs.
    pub partition: i32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl Batch {
    /// The partition that the records come from.
    pub fn place(&self) -> Place {
        Place { topic: self.topic.clone(), partition: self.partition }
    }
}
