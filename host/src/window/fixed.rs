//! Windows of one size: parts that several windows share, merged when a window closes.

use std::collections::BTreeSet;

use super::aggregate::Aggregate;
use super::plan::Role;
use super::rows;
use super::spec::{Ends, Kind};
use super::stage::{Fate, Piece, WindowStage};
use crate::plugin::{Rejection, StageError};
use crate::state::{Entry, Store};

impl WindowStage {
    /// Adds a piece to the part that begins at `part_us`.
    pub(super) fn fold_part(&mut self, part_us: i64, ends: Ends, piece: Piece<'_>) -> Result<Fate, StageError> {
        let (watermark_us, reopen_us) = (self.keyed.clock.watermark_us, self.plan.spec.reopen_us);
        if ends.last_us.saturating_add(reopen_us) <= watermark_us {
            return Ok(Fate::Late);
        }
        if ends.first_us <= watermark_us {
            // Some of its windows take it no more, or are to be corrected.
            let gone_us = watermark_us.saturating_sub(reopen_us);
            self.log.note_late(ends.between(i64::MIN, gone_us).count() as u64);
            if self.plan.role == Role::Partial
                && let Some(first_us) = ends.first_after(gone_us).filter(|&first_us| first_us > ends.first_us)
            {
                // Whoever merges this may have these windows open still; what they hold must not depend on that.
                rows::push_later(&mut self.key, first_us);
            }
        }
        let entry = match self.keyed.store.find(part_us, &self.key) {
            Some(entry) => entry,
            None => {
                self.value.clear();
                self.aggregate.push_empty(&mut self.value);
                self.keyed.expect_close(ends, &self.plan.spec);
                self.keyed.store.insert(part_us, &self.key, &self.value)
            }
        };
        if let Err(why) = self.add(entry, piece)? {
            return Ok(Fate::Rejected(why));
        }
        // Rows are the second level's, which knows the whole of a window.
        if reopen_us > 0 && ends.first_us <= watermark_us && self.plan.role != Role::Partial {
            let Kind::Fixed { size_us, .. } = self.plan.spec.kind else { return Ok(Fate::Folded) };
            if let Piece::Row(input, _) = piece
                && let Some(why) = self.flush(input)?.into_iter().next()
            {
                return Ok(Fate::Rejected(why));
            }
            // A state that was sent on counts for none of the windows that were closed where its records came from.
            let from_us = rows::split_later(&self.key).1.unwrap_or(i64::MIN);
            for end_us in ends.between(watermark_us - reopen_us, watermark_us).filter(|&end_us| end_us >= from_us) {
                self.correct(end_us - size_us, end_us)?;
            }
        }
        Ok(Fate::Folded)
    }

    fn add(&mut self, entry: Entry, piece: Piece<'_>) -> Result<Result<(), Rejection>, StageError> {
        let store = &mut self.keyed.store;
        self.value.clear();
        match piece {
            Piece::Row(input, row) => {
                if self.aggregate.is_fixed() {
                    self.aggregate.fold_state(store.value_mut(entry), input.columns, row);
                    return Ok(Ok(()));
                }
                if let Some(plugin) = self.aggregate.plugin() {
                    plugin.expect(row, entry);
                    return Ok(Ok(()));
                }
                if let Err(why) = self.aggregate.fold(store.value(entry), (input, row), &mut self.value)? {
                    return Ok(Err(why));
                }
            }
            Piece::State(state) => {
                if let Err(why) = self.aggregate.merge(store.value(entry), state, &mut self.value)? {
                    return Ok(Err(why));
                }
            }
        }
        store.set(entry, &self.value);
        Ok(Ok(()))
    }

    /// Makes the row of one key's window due again.
    fn correct(&mut self, start_us: i64, end_us: i64) -> Result<(), StageError> {
        let Kind::Fixed { size_us, every_us, offset_us, .. } = self.plan.spec.kind else { return Ok(()) };
        let store = &self.keyed.store;
        let (group, _) = rows::split_later(&self.key);
        let (mut states, mut later) = (Vec::new(), Vec::new());
        for part_us in store.buckets_in(start_us..end_us) {
            states.extend(store.find(part_us, group));
            // Only what other partitions sent counts for some windows and not for others.
            let ends = Ends::of((size_us, every_us), offset_us, part_us);
            for first_us in ends.between(ends.first_us, end_us).take_while(|_| self.plan.role == Role::Merge) {
                later.clear();
                later.extend_from_slice(group);
                rows::push_later(&mut later, first_us);
                states.extend(store.find(part_us, &later));
            }
        }
        let states: Vec<&[u8]> = states.into_iter().map(|entry| store.value(entry)).collect();
        let state = merge_all(&mut self.aggregate, &states)?;
        self.due.push((start_us, end_us), group, &state, false);
        Ok(())
    }

    /// Closes the windows that end after `before_us` and up to the watermark, in the order of their ends, and drops the parts
    /// that no window needs any more.
    pub(super) fn close_fixed(&mut self, before_us: i64) -> Result<(), StageError> {
        let watermark_us = self.keyed.clock.watermark_us;
        for (start_us, end_us) in self.windows(before_us, watermark_us) {
            self.gather(start_us, end_us)?;
        }
        let Kind::Fixed { size_us, every_us, offset_us, .. } = self.plan.spec.kind else { return Ok(()) };
        let gone_us = watermark_us.saturating_sub(self.plan.spec.reopen_us);
        let gone = |part_us: &i64| Ends::of((size_us, every_us), offset_us, *part_us).last_us <= gone_us;
        let gone: Vec<i64> = self.keyed.store.buckets().take_while(gone).collect();
        gone.into_iter().for_each(|part_us| self.keyed.store.remove_bucket(part_us));
        self.keyed.next_close_us = None;
        Ok(())
    }

    /// Makes the rows of all open windows due, as they are.
    pub(super) fn show_open_fixed(&mut self) -> Result<(), StageError> {
        for (start_us, end_us) in self.windows(self.keyed.clock.watermark_us, i64::MAX) {
            self.gather(start_us, end_us)?;
        }
        Ok(())
    }

    /// The windows that end after `from_us` and up to `to_us` and have any state, in order.
    fn windows(&self, from_us: i64, to_us: i64) -> Vec<(i64, i64)> {
        let Kind::Fixed { size_us, every_us, offset_us, .. } = self.plan.spec.kind else { return Vec::new() };
        let ends = |part_us| Ends::of((size_us, every_us), offset_us, part_us).between(from_us, to_us);
        let ends: BTreeSet<i64> =
            self.keyed.store.buckets().take_while(|&part_us| part_us < to_us).flat_map(ends).collect();
        ends.into_iter().map(|end_us| (end_us - size_us, end_us)).collect()
    }

    /// Makes a window's rows due, in the order of the keys.
    fn gather(&mut self, start_us: i64, end_us: i64) -> Result<(), StageError> {
        let store = &self.keyed.store;
        let mut found: Vec<(&[u8], i64, Entry)> = Vec::new();
        for part_us in store.buckets_in(start_us..end_us) {
            found.extend(of_window(store, part_us, end_us));
        }
        found.sort_unstable();
        for parts in found.chunk_by(|one, other| one.0 == other.0) {
            if let [(key, _, entry)] = parts {
                self.due.push((start_us, end_us), key, store.value(*entry), false);
                continue;
            }
            let states: Vec<&[u8]> = parts.iter().map(|(.., entry)| store.value(*entry)).collect();
            self.due.push((start_us, end_us), parts[0].0, &merge_all(&mut self.aggregate, &states)?, false);
        }
        Ok(())
    }
}

/// The entries of a part that count for the window that ends at `end_us`: group, part and entry.
fn of_window(store: &Store, part_us: i64, end_us: i64) -> impl Iterator<Item = (&[u8], i64, Entry)> {
    store.entries(part_us).filter_map(move |entry| {
        let (group, first_end_us) = rows::split_later(store.key(entry)?.1);
        first_end_us.is_none_or(|first_us| first_us <= end_us).then_some((group, part_us, entry))
    })
}

/// The state of several states' records, in order.
pub(super) fn merge_all(aggregate: &mut Aggregate, states: &[&[u8]]) -> Result<Vec<u8>, StageError> {
    let Some((first, rest)) = states.split_first() else { return Ok(Vec::new()) };
    let mut merged = first.to_vec();
    let mut next = Vec::new();
    for state in rest {
        next.clear();
        if let Err(why) = aggregate.merge(&merged, state, &mut next)? {
            tracing::error!("a part of a window is left out of its row: its states can't be merged: {}", why.detail);
            continue;
        }
        std::mem::swap(&mut merged, &mut next);
    }
    Ok(merged)
}
