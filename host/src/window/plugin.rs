//! Aggregates that are plugins: rows are gathered and folded in one call for many groups.
//!
//! A plugin's state is kept behind its version, four bytes little-endian; no bytes at all are the state of no records. A state
//! of an older version is migrated when it is next looked at.

use std::borrow::Cow;
use std::collections::HashMap;

use super::rows::{self, Due};
use crate::plugin::{
    AggregateRunner, FinishWindows, Finished, Folded, Merged, Migrated, Rejection, StageError, StageInput,
};
use crate::record::json::{Pointer, write_value};
use crate::record::{Column, Op, OptionalBytes, Packed};
use crate::state::Entry;

const VERSION_BYTES: usize = 4;

/// A plugin, and the rows that wait to be folded by it.
pub struct PluginAggregate {
    runner: AggregateRunner,
    /// The input's columns before those that the plugin reads.
    own_columns: usize,
    /// The rows that wait, and each one's group.
    rows: Vec<u32>,
    groups: Vec<u32>,
    /// The entry that each group's state is in.
    entries: Vec<Entry>,
    group_of: HashMap<Entry, u32>,
    folded: Folded,
    merged: Merged,
    finished: Finished,
    migrated: Migrated,
    /// Where a result's field stands, as far as its depth goes.
    place: Pointer,
}

impl PluginAggregate {
    /// A plugin whose columns follow `own_columns` of the window's own.
    pub fn new(runner: AggregateRunner, own_columns: usize) -> Self {
        Self {
            runner,
            own_columns,
            rows: Vec::new(),
            groups: Vec::new(),
            entries: Vec::new(),
            group_of: HashMap::new(),
            folded: Folded::default(),
            merged: Merged::default(),
            finished: Finished::default(),
            migrated: Migrated::default(),
            place: Pointer::default(),
        }
    }

    /// The plugin itself.
    pub fn runner(&self) -> &AggregateRunner {
        &self.runner
    }

    /// Drops the plugin's instance.
    pub fn end_block(&mut self) {
        self.runner.end_block();
    }

    /// Has a row folded into the state of an entry with the next call.
    pub(super) fn expect(&mut self, row: usize, entry: Entry) {
        let next = self.entries.len() as u32;
        let group = *self.group_of.entry(entry).or_insert_with(|| {
            self.entries.push(entry);
            next
        });
        self.rows.push(row as u32);
        self.groups.push(group);
    }

    /// True where rows wait.
    pub(super) fn has_pending(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Forgets the rows that wait.
    pub(super) fn forget(&mut self) {
        self.rows.clear();
        self.groups.clear();
        self.entries.clear();
        self.group_of.clear();
    }

    /// Folds the rows that wait. `state` gives an entry's state and `put` takes the new one; returns the rows that were rejected,
    /// with which everything has to be undone.
    pub(super) fn flush<'s>(
        &mut self,
        input: &StageInput<'_>,
        state: impl Fn(Entry) -> &'s [u8],
        mut put: impl FnMut(Entry, &[u8]),
    ) -> Result<Vec<Rejection>, StageError> {
        if self.rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut states = OptionalBytes::default();
        for at in 0..self.entries.len() {
            let given = state(self.entries[at]);
            let current = self.current(given)?;
            states.push((!given.is_empty()).then_some(&*current));
        }
        let columns = &input.columns[self.own_columns..];
        let (keys, values, headers, timestamps_ms) = (None, None, None, None);
        if self.rows.len() == input.rows {
            let input = StageInput { rows: input.rows, columns, keys, values, headers, timestamps_ms };
            self.runner.fold(&input, &self.groups, &states, &mut self.folded)?;
        } else {
            let gather = |column: &&Column| {
                let mut gathered = Column { cells: Vec::new(), data: column.data.new_like() };
                self.rows.iter().for_each(|&row| gathered.push_from(column, row as usize));
                gathered
            };
            let gathered: Vec<Column> = columns.iter().map(gather).collect();
            let columns: Vec<&Column> = gathered.iter().collect();
            let rows = self.rows.len();
            let input = StageInput { rows, columns: &columns, keys, values, headers, timestamps_ms };
            self.runner.fold(&input, &self.groups, &states, &mut self.folded)?;
        }
        let rows = &self.rows;
        let rejections: Vec<Rejection> = std::mem::take(&mut self.folded.rejections)
            .into_iter()
            .map(|rejection| Rejection { row: rows[rejection.row] as usize, ..rejection })
            .collect();
        let version = self.version();
        let mut whole = Vec::new();
        for (group, &entry) in self.entries.iter().enumerate() {
            if let Some(state) = self.folded.states.get(group).filter(|_| rejections.is_empty()) {
                whole.clear();
                whole.extend(version);
                whole.extend_from_slice(state);
                put(entry, &whole);
            }
        }
        self.forget();
        Ok(rejections)
    }

    /// Appends the state with one more row, or says why it can't take it.
    pub(super) fn fold_now(
        &mut self,
        state: &[u8],
        input: &StageInput<'_>,
        row: usize,
        to: &mut Vec<u8>,
    ) -> Result<Result<(), Rejection>, StageError> {
        debug_assert!(!self.has_pending());
        let entry = Entry::NONE;
        self.expect(row, entry);
        let mut folded = Vec::new();
        let rejections = self.flush(input, |_| state, |_, state| folded.extend_from_slice(state))?;
        to.extend_from_slice(&folded);
        Ok(rejections.into_iter().next().map_or(Ok(()), Err))
    }

    /// Appends the state of two states' records together, or says why they can't be.
    pub(super) fn merge(
        &mut self,
        left: &[u8],
        right: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<Result<(), Rejection>, StageError> {
        if left.is_empty() || right.is_empty() {
            to.extend_from_slice(left);
            to.extend_from_slice(right);
            return Ok(Ok(()));
        }
        let one = |state: Cow<'_, [u8]>| {
            let mut packed = Packed::default();
            packed.push(&state);
            packed
        };
        let (left, right) = (one(self.current(left)?), one(self.current(right)?));
        self.runner.merge(&left, &right, &mut self.merged)?;
        if let Some(why) = self.merged.faulted.pop() {
            return Ok(Err(why));
        }
        to.extend(self.version());
        to.extend_from_slice(self.merged.states.get(0));
        Ok(Ok(()))
    }

    /// True where these bytes can be a state.
    pub(super) fn fits(&self, state: &[u8]) -> bool {
        state.len() >= VERSION_BYTES
    }

    /// Makes the columns of rows that are due; [`PluginAggregate::push_columns`] writes them. Returns the rows that could not be
    /// made.
    pub(super) fn finish(&mut self, due: &Due) -> Result<Vec<Rejection>, StageError> {
        let mut keys = Packed::default();
        let mut states = Packed::default();
        for row in 0..due.len() {
            rows::push_key_array(due.keys.get(row), &mut keys.data);
            keys.end_row();
            states.push(&self.current(due.states.get(row))?);
        }
        let windows = FinishWindows { starts_us: due.starts_us.clone(), ends_us: due.ends_us.clone(), keys };
        self.runner.finish(&windows, &states, &mut self.finished)?;
        Ok(std::mem::take(&mut self.finished.faulted))
    }

    /// Appends the columns of a row that was finished, each as `,"name":value`.
    pub(super) fn push_columns(&self, row: usize, to: &mut Vec<u8>) {
        let fields = &self.runner.descriptor().writes;
        for (field, written) in fields.iter().zip(&self.finished.writes) {
            let start = to.len();
            to.extend_from_slice(b",\"");
            to.extend_from_slice(field.path.trim_start_matches('/').as_bytes());
            to.extend_from_slice(b"\":");
            match written.ops[row] {
                Op::Keep | Op::Remove => to.truncate(start),
                Op::Null => to.extend_from_slice(b"null"),
                Op::Set => {
                    let at = to.len();
                    // What a plugin returned was checked, all but what no JSON can hold.
                    if write_value(written.ty, &written.data, row, &self.place, to).is_err() {
                        to.truncate(at);
                        to.extend_from_slice(b"null");
                    }
                }
            }
        }
    }

    fn version(&self) -> [u8; VERSION_BYTES] {
        self.runner.descriptor().state_version.to_le_bytes()
    }

    /// A state of the present version, without it.
    fn current<'s>(&mut self, state: &'s [u8]) -> Result<Cow<'s, [u8]>, StageError> {
        let Some((version, state)) = state.split_first_chunk::<VERSION_BYTES>() else {
            return Ok(Cow::Borrowed(state));
        };
        if *version == self.version() {
            return Ok(Cow::Borrowed(state));
        }
        let mut old = Packed::default();
        old.push(state);
        self.runner.migrate(u32::from_le_bytes(*version), &old, &mut self.migrated)?;
        match &self.migrated.refused {
            None => Ok(Cow::Owned(self.migrated.states.get(0).to_vec())),
            Some(why) => {
                let name = self.runner.descriptor().name.clone();
                Err(StageError::States { name, why: why.clone() })
            }
        }
    }
}

impl std::fmt::Debug for PluginAggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginAggregate").field("descriptor", self.runner.descriptor()).finish_non_exhaustive()
    }
}
