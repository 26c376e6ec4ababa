//! Many byte strings in one buffer.

use super::Bitmap;

/// Byte strings end to end: row `i` is `data[ends[i-1]..ends[i]]`. At most `u32::MAX` bytes in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Where each row ends in `data`; never falls.
    pub ends: Vec<u32>,
    /// All rows' bytes.
    pub data: Vec<u8>,
}

impl Packed {
    /// Number of rows.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of `row`; panics where `row` is out of range.
    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.data[start..self.ends[row] as usize]
    }

    /// Appends one row.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.end_row();
    }

    /// Ends a row whose bytes were written to `data` directly.
    #[inline]
    pub fn end_row(&mut self) {
        debug_assert!(self.data.len() <= u32::MAX as usize, "a packed column holds 4 GiB at most");
        self.ends.push(self.data.len() as u32);
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Removes all rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.data.clear();
    }
}

/// Byte strings of which some are null, as Kafka's keys and values are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionalBytes {
    /// The bytes; a null row is empty here.
    pub packed: Packed,
    /// A row is null where its bit is 0.
    pub valid: Bitmap,
}

impl OptionalBytes {
    /// Number of rows.
    #[inline]
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The bytes of `row`, or `None` where it is null; panics where `row` is out of range.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.valid.get(row).then(|| self.packed.get(row))
    }

    /// Appends one row.
    pub fn push(&mut self, bytes: Option<&[u8]>) {
        self.packed.push(bytes.unwrap_or_default());
        self.valid.push(bytes.is_some());
    }

    /// Ends a row that is not null and whose bytes were written to `packed.data` directly.
    #[inline]
    pub fn end_row(&mut self) {
        self.packed.end_row();
        self.valid.push(true);
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Removes all rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.packed.clear();
        self.valid.clear();
    }
}
