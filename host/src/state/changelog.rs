//! Changes as a changelog's records, and the sweeps that keep the changelog short.
//!
//! A record's key is a kind, a bucket and the entry's key; its value is the entry's value, and null where that is gone. Now
//! and then everything that there is gets written again, a piece with each commit: a *sweep*. Once that is through, a
//! restore needs nothing from before it, whatever the history.

use super::store::{Change, Store};
use crate::record::Rows;

const ENTRY: u8 = b'e';
const DROP: u8 = b'd';
const META: u8 = b'm';

/// The most bytes of a sweep that one commit writes.
const SWEEP_BYTES: usize = 256 << 10;
/// A sweep begins once the changelog has grown, since the last began, by so many times the state's size…
const GROWTH: u64 = 2;
/// …and by so many bytes.
const GROWTH_BYTES_MIN: u64 = 4 << 20;

/// A record of a changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A change of the state.
    Change(Change<'a>),
    /// What its owner says beside it, as of this commit.
    Meta(&'a [u8]),
}

/// Appends a change as a record.
pub fn push_change(rows: &mut Rows, change: Change<'_>) {
    let (kind, bucket, key, value) = match change {
        Change::Set { bucket, key, value } => (ENTRY, bucket, key, Some(value)),
        Change::Remove { bucket, key } => (ENTRY, bucket, key, None),
        Change::Drop { bucket } => (DROP, bucket, &[][..], None),
    };
    let keys = &mut rows.keys.packed.data;
    keys.push(kind);
    keys.extend_from_slice(&bucket.to_be_bytes());
    keys.extend_from_slice(key);
    rows.keys.end_row();
    rows.values.push(value);
    rows.offsets.push(0);
    rows.timestamps_ms.push(-1);
}

/// Appends what its owner says beside the state.
pub fn push_meta(rows: &mut Rows, meta: &[u8]) {
    rows.push(0, -1, Some(&[META]), Some(meta));
}

/// Reads a record; `None` where it is none of ours.
pub fn decode<'a>(key: &'a [u8], value: Option<&'a [u8]>) -> Option<Record<'a>> {
    let (&kind, rest) = key.split_first()?;
    if kind == META {
        return value.map(Record::Meta);
    }
    let (bucket, key) = rest.split_first_chunk()?;
    let bucket = i64::from_be_bytes(*bucket);
    match (kind, value) {
        (ENTRY, Some(value)) => Some(Record::Change(Change::Set { bucket, key, value })),
        (ENTRY, None) => Some(Record::Change(Change::Remove { bucket, key })),
        (DROP, None) => Some(Record::Change(Change::Drop { bucket })),
        _ => None,
    }
}

/// Where a restore has to begin, and how far a sweep has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// The changelog's offset that a restore begins at.
    pub base: i64,
    /// The offset that the sweep began at, and the slot that it goes on with.
    under_way: Option<(i64, usize)>,
    /// Bytes that were written since the last sweep began.
    grown_bytes: u64,
}

impl Sweep {
    /// Nothing before `base` is needed.
    pub fn at(base: i64) -> Self {
        Self { base, ..Self::default() }
    }

    /// The same, where so much follows already.
    pub fn grown(base: i64, grown_bytes: u64) -> Self {
        Self { base, under_way: None, grown_bytes }
    }

    /// True where a sweep should begin; it needs to know where the changelog ends.
    pub fn is_due(&self, store: &Store) -> bool {
        let state_bytes = store.state_bytes() as u64;
        self.under_way.is_none() && self.grown_bytes > GROWTH_BYTES_MIN.max(GROWTH * state_bytes)
    }

    /// Begins one; the changelog's records end before `end`.
    pub fn begin(&mut self, end: i64) {
        self.under_way = Some((end, 0));
        self.grown_bytes = 0;
    }

    /// Takes note of records that were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.grown_bytes += bytes as u64;
    }

    /// Appends the next piece of the sweep that is under way.
    pub fn push_piece(&mut self, store: &Store, rows: &mut Rows) {
        let Some((end, from)) = self.under_way else { return };
        let mut bytes = 0;
        let next = store.sweep(from, |bucket, key, value| {
            push_change(rows, Change::Set { bucket, key, value });
            bytes += key.len() + value.len();
            bytes < SWEEP_BYTES
        });
        self.under_way = next.map(|next| (end, next));
        if next.is_none() {
            self.base = end;
        }
    }
}
