//! Merging, finishing and migrating states, call by call.

use std::ops::Range;

use super::abi::WindowsIn;
use super::check;
use super::fault::{Failure, Fault};
use super::input::{fitting, packed_bytes, packed_in};
use super::instance::{Allowance, Instance};
use super::output::{Forwarded, Tally, append_packed, append_writes, prepare_writes};
use super::work::RUN_BYTES;
use super::{FaultCounts, Rejection, StageError, WriteField};
use crate::record::{Packed, Written};

/// States that a run may begin with, so that they and what they grow by can be counted in 32 bits.
const GIVEN_BYTES: usize = 2 << 30;

/// Refuses more states than a run may begin with: a mistake of the host's.
pub(super) fn check_size(bytes: usize) -> Result<(), StageError> {
    if bytes > GIVEN_BYTES { Err(StageError::Input("more than 2 GiB of states at once")) } else { Ok(()) }
}

/// What became of states that were merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// The state of each pair; the left one where merging failed.
    pub states: Packed,
    /// The pairs, as `row`, whose merging failed, in order.
    pub faulted: Vec<Rejection>,
    /// Single pairs that the plugin failed.
    pub faults: FaultCounts,
    /// Calls that failed though no single pair of theirs does.
    pub batch_faults: u64,
    /// Calls that the clock suspected and that no pair of theirs was to blame for.
    pub suspicions: u64,
}

/// Windows whose states are finished, one a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FinishWindows {
    /// Microseconds since 1970 UTC at which each window begins.
    pub starts_us: Vec<i64>,
    /// Microseconds since 1970 UTC before which each window ends.
    pub ends_us: Vec<i64>,
    /// The key of each window: a JSON array of the key fields' values.
    pub keys: Packed,
}

/// The rows that states were finished into.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    /// One for each field that the descriptor writes, in its order, with a value for each state; a field whose op is `Keep`
    /// or `Remove` is not in the row.
    pub writes: Vec<Written>,
    /// The states, as `row`, that could not be finished, in order; nothing is written to their rows.
    pub faulted: Vec<Rejection>,
    /// Single states that the plugin failed.
    pub faults: FaultCounts,
    /// Calls that failed though no single state of theirs does.
    pub batch_faults: u64,
    /// Calls that the clock suspected and that no state of theirs was to blame for.
    pub suspicions: u64,
}

/// What became of states of an older version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migrated {
    /// The states, of the present version; none where they were refused.
    pub states: Packed,
    /// Why they were refused: by the plugin, or because it failed.
    pub refused: Option<String>,
}

impl Merged {
    pub(super) fn prepare(&mut self) {
        self.states.clear();
        self.faulted.clear();
        self.count(Tally::default());
    }

    pub(super) fn count(&mut self, tally: Tally) {
        (self.faults, self.batch_faults, self.suspicions) = (tally.faults, tally.batch_faults, tally.suspicions);
    }
}

impl FinishWindows {
    /// Refuses windows that are not those of `states`: a mistake of the host's.
    pub(super) fn check(&self, states: &Packed) -> Result<(), StageError> {
        let fits = [self.starts_us.len(), self.ends_us.len(), self.keys.len()].iter().all(|&len| len == states.len());
        if fits { Ok(()) } else { Err(StageError::Input("windows that are not those of its states")) }
    }
}

impl Finished {
    pub(super) fn prepare(&mut self, fields: &[WriteField]) {
        prepare_writes(&mut self.writes, fields);
        self.faulted.clear();
        self.count(Tally::default());
    }

    pub(super) fn count(&mut self, tally: Tally) {
        (self.faults, self.batch_faults, self.suspicions) = (tally.faults, tally.batch_faults, tally.suspicions);
    }
}

/// Ends that count from a call's first row.
#[derive(Default)]
pub(super) struct Ends(Vec<u32>, Vec<u32>);

/// Pairs of states to merge.
pub(super) struct Merge<'a> {
    pub(super) left: &'a Packed,
    pub(super) right: &'a Packed,
    pub(super) ends: &'a mut Ends,
    pub(super) state_bytes: u64,
    /// Bytes of states that one call may take, because it returns about as many.
    pub(super) call_bytes: usize,
    pub(super) growth_left: usize,
    pub(super) out: &'a mut Merged,
}

impl Merge<'_> {
    pub(super) fn len(&self) -> usize {
        self.left.len()
    }

    pub(super) fn next_call(&self, rows: Range<usize>, most_bytes: usize) -> Range<usize> {
        fitting(rows, most_bytes.min(self.call_bytes), |rows| self.bytes(rows))
    }

    fn bytes(&self, rows: Range<usize>) -> usize {
        packed_bytes(self.left, rows.clone()) + packed_bytes(self.right, rows)
    }

    pub(super) fn attempt(
        &mut self,
        instance: &mut Instance,
        rows: Range<usize>,
        allowed: Allowance,
    ) -> Result<(), Failure> {
        let left = packed_in(self.left, rows.clone(), &mut self.ends.0);
        let right = packed_in(self.right, rows.clone(), &mut self.ends.1);
        let states = instance.merge(left, right, allowed)?;
        check::states(&states, rows.len()).map_err(Fault::bad_output)?;
        not_too_large(&states.ends, self.state_bytes)?;
        let growth_left = left_after(self.growth_left, states.data.len(), self.bytes(rows))?;
        allowed.in_time()?;
        self.growth_left = growth_left;
        append_packed(&mut self.out.states, &states);
        Ok(())
    }

    pub(super) fn failed(&mut self, row: usize, failure: Failure) {
        self.out.states.push(self.left.get(row));
        self.out.faulted.push(failure.rejection(row));
    }
}

/// States to finish.
pub(super) struct Finish<'a> {
    pub(super) fields: &'a [WriteField],
    pub(super) windows: &'a FinishWindows,
    pub(super) states: &'a Packed,
    pub(super) ends: &'a mut Ends,
    pub(super) bytes_left: usize,
    pub(super) out: &'a mut Finished,
}

impl Finish<'_> {
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    pub(super) fn next_call(&self, rows: Range<usize>, most_bytes: usize) -> Range<usize> {
        let keys = &self.windows.keys;
        fitting(rows, most_bytes, |rows| packed_bytes(self.states, rows.clone()) + packed_bytes(keys, rows))
    }

    pub(super) fn attempt(
        &mut self,
        instance: &mut Instance,
        rows: Range<usize>,
        allowed: Allowance,
    ) -> Result<(), Failure> {
        let windows = WindowsIn {
            starts_us: &self.windows.starts_us[rows.clone()],
            ends_us: &self.windows.ends_us[rows.clone()],
            keys: packed_in(&self.windows.keys, rows.clone(), &mut self.ends.0),
        };
        let states = packed_in(self.states, rows.clone(), &mut self.ends.1);
        let finished = instance.finish(windows, states, allowed)?;
        check::writes(&finished.writes, self.fields, rows.len()).map_err(Fault::bad_output)?;
        let Some(left) = self.bytes_left.checked_sub(finished.bytes()) else {
            return Err(Failure::bad_output(format!("the rows of one batch of states exceed {RUN_BYTES} bytes")));
        };
        allowed.in_time()?;
        self.bytes_left = left;
        append_writes(&mut self.out.writes, rows.len(), &finished.writes, Forwarded(&[]));
        Ok(())
    }

    pub(super) fn failed(&mut self, row: usize, failure: Failure) {
        append_writes(&mut self.out.writes, 1, &[], Forwarded(&[]));
        self.out.faulted.push(failure.rejection(row));
    }
}

/// States of an older version.
pub(super) struct Migrate<'a> {
    pub(super) from_version: u32,
    pub(super) states: &'a Packed,
    pub(super) ends: &'a mut Ends,
    pub(super) state_bytes: u64,
    /// Bytes of states that one call may take, because it returns about as many.
    pub(super) call_bytes: usize,
    pub(super) growth_left: usize,
    pub(super) out: &'a mut Migrated,
}

impl Migrate<'_> {
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    pub(super) fn next_call(&self, rows: Range<usize>, most_bytes: usize) -> Range<usize> {
        fitting(rows, most_bytes.min(self.call_bytes), |rows| packed_bytes(self.states, rows))
    }

    pub(super) fn attempt(
        &mut self,
        instance: &mut Instance,
        rows: Range<usize>,
        allowed: Allowance,
    ) -> Result<(), Failure> {
        // One refusal refuses them all.
        if self.out.refused.is_some() {
            return Ok(());
        }
        let states = packed_in(self.states, rows.clone(), &mut self.ends.0);
        let states = match instance.migrate(self.from_version, states, allowed)? {
            Ok(states) => states,
            Err(message) => {
                self.refuse(message);
                return Ok(());
            }
        };
        check::states(&states, rows.len()).map_err(Fault::bad_output)?;
        not_too_large(&states.ends, self.state_bytes)?;
        let growth_left = left_after(self.growth_left, states.data.len(), packed_bytes(self.states, rows))?;
        allowed.in_time()?;
        self.growth_left = growth_left;
        append_packed(&mut self.out.states, &states);
        Ok(())
    }

    pub(super) fn failed(&mut self, row: usize, failure: Failure) {
        let Rejection { code, detail, .. } = failure.rejection(row);
        self.refuse(format!("{code}: {detail}"));
    }

    fn refuse(&mut self, why: String) {
        self.out.states.clear();
        self.out.refused.get_or_insert(why);
    }
}

/// Refuses a state above the limit. The ends were checked.
fn not_too_large(ends: &[u32], most: u64) -> Result<(), Failure> {
    let mut start = 0;
    for &end in ends {
        if u64::from(end - start) > most {
            return Err(Failure::StateTooLarge((end - start) as usize, most));
        }
        start = end;
    }
    Ok(())
}

/// By how many bytes states may still grow, after some have now so many that had so many before.
fn left_after(growth_left: usize, now: usize, before: usize) -> Result<usize, Failure> {
    (growth_left.saturating_add(before))
        .checked_sub(now)
        .ok_or_else(|| Failure::bad_output(format!("the states of one batch grow by more than {RUN_BYTES} bytes")))
}
