//! What a stage tells of its states at a commit, and reads back at the start.

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::plan::{Role, WindowPlan};
use super::stage::WindowStage;
use super::{rows, shuffle};
use crate::record::Rows;
use crate::state::{Record, Sweep, decode, push_change, push_meta};

/// A stage's part in commits.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    sweep: Sweep,
    sweep_committed: Sweep,
    /// What was last told to those who merge the states.
    told: Option<super::clock::Mark>,
    told_committed: Option<super::clock::Mark>,
    pub(super) counts: Tally,
    counts_committed: Tally,
    /// Halves of pairs that go to their owners with the next commit.
    pub(super) sent: Rows,
    /// Windows whose rows could not be made.
    unfinished: u64,
    /// What the changelog said, while it is read.
    loaded: Option<Meta>,
}

/// What a stage has counted beside its states; it goes back with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Windows that records came too late for, while others of their windows took them.
    pub late_windows: u64,
    /// Windows whose rows a plugin could not make; not undone, because the row is not made again.
    pub unfinished: u64,
    /// Pairs that were made.
    pub pairs: u64,
    /// Records of the left and of the right side that were in no pair when the bound had passed.
    pub unmatched: [u64; 2],
}

impl Tally {
    /// Adds what another counted.
    pub fn add(&mut self, other: Self) {
        self.late_windows += other.late_windows;
        self.unfinished += other.unfinished;
        self.pairs += other.pairs;
        self.unmatched.iter_mut().zip(other.unmatched).for_each(|(own, other)| *own += other);
    }
}

impl Log {
    /// Takes note of a window whose row could not be made.
    pub(super) fn note_unfinished(&mut self) {
        self.unfinished += 1;
    }

    pub(super) fn note_late(&mut self, windows: u64) {
        self.counts.late_windows += windows;
    }
}

/// What stands in a changelog beside the states, or where there is none, in the note of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The offset of the next record.
    pub position: i64,
    /// What the states are made by.
    pub digest: String,
    /// How far the partition has got.
    pub clock: Clock,
}

/// What a stage has to say at a commit.
#[derive(Debug, Default)]
pub struct StateRows {
    /// Records for the stage's topic: its changelog, in the task's own partition; or states for those who merge them, by their
    /// keys.
    pub rows: Rows,
    /// The value of a record for every partition of the topic; empty where there is none.
    pub mark: Vec<u8>,
    /// True for a changelog.
    pub is_changelog: bool,
}

/// Why a changelog can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoadError {
    /// The states are of other windows.
    #[error(
        "its states were made by another definition of the window (kind, size, key or functions); give the stage another name, \
         which begins anew, or go back to the old definition"
    )]
    Definition,
    /// The states are as of another offset than the group.
    #[error(
        "its states are as of offset {states}, but the group is at {group}: both move only together. `millstream offsets reset` \
         moves the group and begins with new states"
    )]
    Position {
        /// The states'.
        states: i64,
        /// The group's.
        group: i64,
    },
    /// The changelog lacks what it must have.
    #[error(
        "its changelog holds no states from offset {0} on, though it should: the topic was made anew, or records were deleted. \
         `millstream offsets reset` begins with new states"
    )]
    Gone(i64),
    /// Memory has no room for them, and nowhere else has.
    #[error("{0}")]
    Memory(String),
    /// A record of somebody else.
    #[error("its changelog holds a record that is no state of Millstream's")]
    Foreign,
}

impl WindowStage {
    /// True where the stage has a changelog to be restored from.
    pub fn has_changelog(&self) -> bool {
        self.plan.role != Role::Partial
    }

    /// Begins with nothing: what the changelog holds before `base` is not needed.
    pub fn begin(&mut self, base: i64) {
        self.log = Log { sweep: Sweep::at(base), sweep_committed: Sweep::at(base), ..Log::default() };
    }

    /// Takes over a record of the changelog.
    pub fn load(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), LoadError> {
        match key.and_then(|key| decode(key, value)) {
            Some(Record::Change(change)) => self.keyed.load(change),
            Some(Record::Meta(meta)) => {
                self.log.loaded = Some(serde_json::from_slice(meta).map_err(|_| LoadError::Foreign)?);
            }
            None => return Err(LoadError::Foreign),
        }
        self.sound_so_far()
    }

    /// Ends the reading of a changelog of `bytes` from `base` on, as of the group's offset.
    pub fn loaded(&mut self, base: i64, bytes: u64, group: i64) -> Result<(), LoadError> {
        let meta = self.log.loaded.take().ok_or(LoadError::Gone(base))?;
        self.take_meta(&meta, group)?;
        let sweep = Sweep::grown(base, bytes);
        (self.log.sweep, self.log.sweep_committed) = (sweep, sweep);
        self.sound_so_far()
    }

    /// Takes over what a note says of a stage without a changelog.
    pub fn take_meta(&mut self, meta: &Meta, group: i64) -> Result<(), LoadError> {
        if meta.digest != self.plan.digest {
            return Err(LoadError::Definition);
        }
        if meta.position != group {
            return Err(LoadError::Position { states: meta.position, group });
        }
        let WindowPlan { spec, .. } = self.plan.as_ref();
        self.keyed.loaded(meta.clock.clone(), spec);
        Ok(())
    }

    /// What the stage says of itself beside its states.
    pub fn meta(&self, position: i64) -> Meta {
        Meta { position, digest: self.plan.digest.clone(), clock: self.keyed.clock.clone() }
    }

    /// Where a restore would begin, once what was told last is committed.
    pub fn base(&self) -> i64 {
        self.log.sweep.base
    }

    /// True where the changelog should be shortened; then it has to be known where it ends.
    pub fn wants_sweep(&self) -> bool {
        self.has_changelog() && self.log.sweep.is_due(&self.keyed.store)
    }

    /// Begins to write everything again, behind the changelog's end.
    pub fn begin_sweep(&mut self, end: i64) {
        self.log.sweep.begin(end);
    }

    /// True where a commit has something to tell beside the offset.
    pub fn is_changed(&self) -> bool {
        self.keyed.is_changed()
    }

    /// About how much a commit has to tell, in bytes.
    pub fn changed_bytes(&self) -> usize {
        self.keyed.store.changed_bytes() + self.log.sent.bytes()
    }

    /// What is to be committed with the offset `position` of partition `of` of so many.
    pub fn tell(&mut self, position: i64, of: (u32, u32), to: &mut StateRows) {
        to.rows.clear();
        to.mark.clear();
        to.is_changelog = self.has_changelog();
        if self.plan.role == Role::Partial {
            self.tell_partial(of, to);
            return;
        }
        self.keyed.store.changes(|change| push_change(&mut to.rows, change));
        self.log.sweep.push_piece(&self.keyed.store, &mut to.rows);
        // Strings and numbers always become JSON.
        let meta = serde_json::to_vec(&self.meta(position)).unwrap_or_default();
        push_meta(&mut to.rows, &meta);
        self.log.sweep.wrote(to.rows.bytes());
    }

    fn tell_partial(&mut self, of: (u32, u32), to: &mut StateRows) {
        // In the order in which they came. Nothing is told twice: a commit or an undo follows.
        std::mem::swap(&mut self.log.sent, &mut to.rows);
        let store = &self.keyed.store;
        // In the order of buckets and keys, so that the same block gives the same records.
        let mut parts: Vec<_> = store.all().filter_map(|entry| Some((store.key(entry)?, entry))).collect();
        parts.sort_unstable();
        for ((bucket, key), entry) in parts {
            let (group, first_end_us) = rows::split_later(key);
            let first_end_us = first_end_us.unwrap_or(i64::MIN);
            shuffle::push_part(bucket, first_end_us, store.value(entry), &mut to.rows.values.packed.data);
            to.rows.values.end_row();
            to.rows.keys.push(Some(group));
            to.rows.offsets.push(0);
            to.rows.timestamps_ms.push(-1);
        }
        let mark = self.mark();
        if self.log.told != Some(mark) {
            to.mark = shuffle::mark(of, mark);
            self.log.told = Some(mark);
        }
    }

    /// Takes note that what was told is committed.
    pub fn commit(&mut self) {
        if self.plan.role == Role::Partial {
            self.keyed.clear_store(&self.plan.spec);
        }
        self.keyed.commit();
        self.log.sweep_committed = self.log.sweep;
        self.log.told_committed = self.log.told;
        self.log.counts_committed = self.log.counts;
        self.log.sent.clear();
    }

    /// Goes back to the last commit.
    pub fn undo(&mut self) {
        self.keyed.undo(&self.plan.spec);
        self.due.clear();
        self.paired.clear();
        self.log.sweep = self.log.sweep_committed;
        self.log.told = self.log.told_committed;
        self.log.counts = self.log.counts_committed;
        self.log.sent.clear();
    }

    /// Takes over the states of the stage that was here before.
    pub fn inherit(&mut self, before: Self) {
        self.keyed = before.keyed;
        self.log = before.log;
    }

    /// What this stage holds and has done, as of now.
    pub fn reading(&self) -> Reading {
        Reading {
            keys: self.keyed.store.len() as u64,
            keys_on_disk: self.keyed.store.away() as u64,
            bytes: self.keyed.store.memory_bytes() as u64,
            watermark_us: (self.keyed.clock.watermark_us != i64::MIN).then_some(self.keyed.clock.watermark_us),
            latest_us: self.keyed.clock.latest_us,
            tally: Tally { unfinished: self.log.unfinished, ..self.log.counts_committed },
        }
    }
}

/// What a stage holds for one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Keys, one for each part of a window.
    pub keys: u64,
    /// Those of them whose states lie outside of memory.
    pub keys_on_disk: u64,
    /// About how much memory they take, in bytes.
    pub bytes: u64,
    /// Up to when everything is closed, in microseconds since 1970 UTC.
    pub watermark_us: Option<i64>,
    /// The latest event time.
    pub latest_us: Option<i64>,
    /// What it has counted up to the last commit.
    pub tally: Tally,
}
