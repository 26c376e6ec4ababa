//! Where records have the paths that are written.

/// For each row, where it has the written paths and their parents; flat, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sites {
    row_ends: Vec<u32>,
    pub(super) sites: Vec<Site>,
}

/// A value that is written, or that is a parent of such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// Its node in the plan.
    pub(super) node: u32,
    /// Where its key begins; of an array's element, and of the whole record, where the value does.
    pub(super) key: u32,
    /// Where the value begins.
    pub(super) start: u32,
    /// Where the value ends; the highest bit says that a later duplicate counts in its place.
    end: u32,
}

const SUPERSEDED: u32 = 1 << 31;

impl Sites {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.row_ends.len()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.row_ends.is_empty()
    }

    /// Removes all rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.row_ends.clear();
        self.sites.clear();
    }

    pub(super) fn row(&self, row: usize) -> &[Site] {
        let start = if row == 0 { 0 } else { self.row_ends[row - 1] as usize };
        &self.sites[start..self.row_ends[row] as usize]
    }

    pub(super) fn end_row(&mut self) {
        self.row_ends.push(self.sites.len() as u32);
    }
}

impl Site {
    pub(super) fn new(node: u32, key: u32, start: u32) -> Self {
        Self { node, key, start, end: 0 }
    }

    pub(super) fn end_at(&mut self, end: u32) {
        self.end = end;
    }

    pub(super) fn supersede(&mut self) {
        self.end |= SUPERSEDED;
    }

    pub(super) fn end(self) -> usize {
        (self.end & !SUPERSEDED) as usize
    }

    pub(super) fn is_superseded(self) -> bool {
        self.end & SUPERSEDED != 0
    }

    pub(super) fn is_element(self) -> bool {
        self.key == self.start
    }
}
