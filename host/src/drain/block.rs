//! Rows of consecutive records of one partition, encoded: what is planned, sent and committed as one.

use super::plan::{ASIDE_BYTES_MAX, Aside};
use crate::config::ClickHouseConfig;
use crate::record::Rows;

/// A block that is being filled, or full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The offset that it begins at.
    pub(super) first: i64,
    /// The offset after its last record, or after what lies behind that and is no record.
    pub(super) next: i64,
    /// The rows, one after the other.
    pub(super) bytes: Vec<u8>,
    /// Of each row: its record's offset, and where it ends in `bytes`.
    pub(super) rows: Vec<(i64, usize)>,
    /// The offsets of records that are set aside.
    pub(super) aside: Aside,
    /// These records, as dead letters.
    pub(super) dead: Rows,
    /// The code of each one's reason.
    pub(super) codes: Vec<&'static str>,
    /// Records without a value: there is nothing to insert.
    pub(super) tombstones: u64,
    /// When its first record came, on the drain's clock.
    pub(super) since_ms: u64,
    /// The least timestamp of its records, in milliseconds since 1970 UTC.
    pub(super) oldest_ms: i64,
}

/// When a block is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    pub(super) interval_ms: u64,
}

impl Limits {
    /// As the configuration has them.
    pub(super) fn new(config: &ClickHouseConfig) -> Self {
        Self {
            rows: config.flush_rows as usize,
            bytes: config.flush_bytes as usize,
            interval_ms: config.flush_interval.as_millis() as u64,
        }
    }
}

impl Block {
    /// An empty block that begins at `first`.
    pub(super) fn new(first: i64) -> Self {
        Self {
            first,
            next: first,
            bytes: Vec::new(),
            rows: Vec::new(),
            aside: Aside::new(first),
            dead: Rows::default(),
            codes: Vec::new(),
            tombstones: 0,
            since_ms: 0,
            oldest_ms: i64::MAX,
        }
    }

    /// True where no record is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.dead.is_empty() && self.tombstones == 0
    }

    /// Records in it.
    pub(super) fn records(&self) -> u64 {
        self.rows.len() as u64 + self.dead.len() as u64 + self.tombstones
    }

    /// True where it takes no more.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        let dead = self.aside.bytes() + 44 >= ASIDE_BYTES_MAX || self.dead.bytes() >= limits.bytes;
        self.rows.len() >= limits.rows || self.bytes.len() >= limits.bytes || dead
    }

    /// True where it is full, or has waited for long enough.
    pub(super) fn is_due(&self, limits: &Limits, now_ms: u64) -> bool {
        let waited = || now_ms >= self.since_ms + limits.interval_ms;
        !self.is_empty() && (self.is_full(limits) || waited())
    }

    /// A checksum of the rows.
    pub(super) fn sum(&self) -> String {
        format!("{:016x}", twox_hash::XxHash3_64::oneshot(&self.bytes))
    }

    /// The first half of its rows, and the rest; at least two rows are expected.
    pub(super) fn split(mut self) -> (Self, Self) {
        let half = self.rows.len() / 2;
        let (middle, cut) = (self.rows[half].0, self.rows[half - 1].1);
        let (mut left, mut right) = (Self::new(self.first), Self::new(middle));
        for part in [&mut left, &mut right] {
            (part.since_ms, part.oldest_ms) = (self.since_ms, self.oldest_ms);
        }
        (left.next, right.next) = (middle, self.next);
        for row in 0..self.dead.len() {
            let part = if self.dead.offsets[row] < middle { &mut left } else { &mut right };
            part.dead.push_from(&self.dead, row);
            part.aside.push(self.dead.offsets[row]);
            part.codes.extend(self.codes.get(row));
        }
        left.tombstones = self.tombstones;
        right.bytes = self.bytes.split_off(cut);
        right.rows = self.rows.split_off(half).into_iter().map(|(offset, end)| (offset, end - cut)).collect();
        (left.bytes, left.rows) = (self.bytes, self.rows);
        (left, right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_hold_what_the_whole_held() {
        let mut whole = Block::new(10);
        for offset in 10..20_i64 {
            if offset % 3 == 0 {
                whole.aside.push(offset);
                whole.dead.push(offset, 0, None, Some(b"bad"));
            } else {
                whole.bytes.extend(std::iter::repeat_n(b'x', offset as usize - 9));
                whole.rows.push((offset, whole.bytes.len()));
            }
        }
        whole.next = 25;
        let (left, right) = whole.clone().split();
        assert_eq!((left.first, left.next, right.first, right.next), (10, right.first, left.next, 25));
        assert_eq!([left.bytes.clone(), right.bytes.clone()].concat(), whole.bytes);
        assert_eq!(left.records() + right.records(), whole.records());
        assert_eq!(right.rows.last(), Some(&(19, right.bytes.len())));
        assert!(left.dead.offsets.iter().all(|&offset| offset < left.next));
        let aside = |block: &Block| {
            let plan = super::super::plan::Plan { last: block.next, aside: block.aside.text(), ..Default::default() };
            plan.aside(block.first)
        };
        assert_eq!(aside(&left), Some(left.dead.offsets.clone()));
        assert_eq!(aside(&right), Some(right.dead.offsets.clone()));
    }
}
