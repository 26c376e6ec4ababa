//! Records that came before: each key's event times are remembered for as long as a duplicate is looked for.
//!
//! An entry holds the times of a key's records, eight bytes each, in no order.

use super::stage::{Fate, WindowStage};

/// The times in an entry.
pub(super) fn times(value: &[u8]) -> impl Iterator<Item = i64> {
    value.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes))
}

/// When a time is forgotten: the last record that is not late lies less than `within_us` behind the watermark, and one that it
/// is a duplicate of as much again.
pub(super) fn forgotten_us(time_us: i64, within_us: i64) -> i64 {
    time_us.saturating_add(within_us.saturating_mul(2))
}

impl WindowStage {
    /// Takes note of a record of the key in `self.key`, where none came within so much of its time.
    pub(super) fn note_once(&mut self, event_us: i64, within_us: i64) -> Fate {
        // What would have to be remembered still, and is not.
        if event_us.saturating_add(within_us) <= self.keyed.clock.watermark_us {
            return Fate::Late;
        }
        let store = &mut self.keyed.store;
        let entry = match store.find(0, &self.key) {
            None => store.insert(0, &self.key, &event_us.to_le_bytes()),
            Some(entry) => {
                let value = store.value(entry);
                if times(value).any(|time_us| (event_us - time_us).abs() < within_us) {
                    return Fate::Duplicate;
                }
                self.value.clear();
                self.value.extend_from_slice(value);
                self.value.extend(event_us.to_le_bytes());
                store.set(entry, &self.value);
                entry
            }
        };
        let at_us = forgotten_us(event_us, within_us);
        self.keyed.timers.push(at_us, entry);
        self.keyed.next_close_us = self.keyed.next_close_us.map(|known_us| known_us.min(at_us));
        Fate::Folded
    }

    /// Forgets what no record can be a duplicate of any more.
    pub(super) fn forget_times(&mut self, within_us: i64) {
        let watermark_us = self.keyed.clock.watermark_us;
        while let Some(entry) = self.keyed.timers.pop_due(watermark_us) {
            if self.keyed.store.key(entry).is_none() {
                continue;
            }
            self.value.clear();
            let times = times(self.keyed.store.value(entry));
            let kept = times.filter(|&time_us| forgotten_us(time_us, within_us) > watermark_us);
            kept.for_each(|time_us| self.value.extend(time_us.to_le_bytes()));
            if self.value.is_empty() {
                self.keyed.store.remove(entry);
            } else if self.value.len() < self.keyed.store.value(entry).len() {
                self.keyed.store.set(entry, &self.value);
            }
            // Each of the times that are left has a timer of its own.
        }
        self.keyed.next_close_us = None;
    }
}
