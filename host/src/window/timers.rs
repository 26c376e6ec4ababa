//! When entries are to be looked at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::state::Entry;

/// Entries by the time at which something is to be done about them; an entry may have several, of which one is right.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
}

/// Packed, because every session has one in memory, wherever its state lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, packed(4))]
struct Timer {
    at_us: i64,
    entry: Entry,
}

impl Timers {
    /// Has an entry looked at once the watermark is there.
    pub(super) fn push(&mut self, at_us: i64, entry: Entry) {
        self.heap.push(Reverse(Timer { at_us, entry }));
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<(i64, Entry)> {
        self.heap.peek().map(|Reverse(timer)| (timer.at_us, timer.entry))
    }

    /// Takes the first one, where its time has come.
    pub(super) fn pop_due(&mut self, watermark_us: i64) -> Option<Entry> {
        let (at_us, entry) = self.first()?;
        if at_us > watermark_us {
            return None;
        }
        self.heap.pop();
        Some(entry)
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }
}
