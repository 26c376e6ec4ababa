//! Folding rows into states, call by call.

use std::ops::Range;

use super::abi::{self, OptionalBytesIn, PackedIn};
use super::check;
use super::fault::{Failure, Fault};
use super::input::{Scratch, fitting};
use super::instance::{Allowance, Instance};
use super::output::Tally;
use super::states::check_size;
use super::work::RUN_BYTES;
use super::{FaultCounts, Parts, Rejection, StageError, StageInput};
use crate::record::OptionalBytes;

/// Bytes of outdated states that are kept at least, before they are cleared away.
const OUTDATED_BYTES: usize = 1 << 20;
/// A group that is not in the call.
const NOT_CALLED: u32 = u32::MAX;

/// What became of rows that were folded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// The state of each group: as it was given where no row of the group was folded.
    pub states: OptionalBytes,
    /// The rows that were not folded, in order.
    pub rejections: Vec<Rejection>,
    /// Single records that the plugin failed; they are among the rejections.
    pub faults: FaultCounts,
    /// Calls that failed though no single record of theirs does.
    pub batch_faults: u64,
    /// Calls that the clock suspected and that no record of theirs was to blame for.
    pub suspicions: u64,
}

impl Folded {
    pub(super) fn prepare(&mut self) {
        self.states.clear();
        self.rejections.clear();
        self.count(Tally::default());
    }

    pub(super) fn count(&mut self, tally: Tally) {
        (self.faults, self.batch_faults, self.suspicions) = (tally.faults, tally.batch_faults, tally.suspicions);
    }
}

/// Refuses groups and states that do not fit: a mistake of the host's.
pub(super) fn check_groups(rows: usize, groups: &[u32], states: &OptionalBytes) -> Result<(), StageError> {
    if groups.len() != rows || groups.iter().any(|&group| group as usize >= states.len()) {
        Err(StageError::Input("groups that are not those of its rows and states"))
    } else {
        check_size(states.packed.data.len())
    }
}

/// Rows to fold.
pub(super) struct Fold<'a> {
    pub(super) input: &'a StageInput<'a>,
    pub(super) groups: &'a [u32],
    pub(super) given: &'a OptionalBytes,
    pub(super) scratch: &'a mut Scratch,
    pub(super) states: &'a mut States,
    pub(super) state_bytes: u64,
    /// Bytes of states that one call may take, because it returns about as many.
    pub(super) call_bytes: usize,
    pub(super) rejections: &'a mut Vec<Rejection>,
}

impl Fold<'_> {
    pub(super) fn len(&self) -> usize {
        self.input.rows
    }

    pub(super) fn next_call(&mut self, rows: Range<usize>, most_bytes: usize) -> Range<usize> {
        let rows = fitting(rows, most_bytes, |rows| self.input.bytes(rows));
        let fit = self.states.fitting(self.given, &self.groups[rows.clone()], most_bytes.min(self.call_bytes));
        rows.start..rows.start + fit
    }

    pub(super) fn attempt(
        &mut self,
        instance: &mut Instance,
        rows: Range<usize>,
        allowed: Allowance,
    ) -> Result<(), Failure> {
        self.states.gather(self.given, &self.groups[rows.clone()]);
        let batch = self.scratch.batch(self.input, Parts::default(), rows.clone());
        let call = &self.states.call;
        let folded = instance.fold(batch, &call.rows, call.states(), allowed)?;
        check::folded(&folded, rows.len(), call.groups.len()).map_err(Fault::bad_output)?;
        let grown = self.states.check(self.given, &folded, self.state_bytes)?;
        allowed.in_time()?;
        self.states.take(&folded, grown);
        self.rejections.extend(folded.rejections.into_iter().map(|rejection| Rejection::new(rows.start, rejection)));
        Ok(())
    }

    pub(super) fn failed(&mut self, row: usize, failure: Failure) {
        self.rejections.push(failure.rejection(row));
    }
}

/// The groups' states while a run goes on.
#[derive(Default)]
pub(super) struct States {
    places: Vec<Place>,
    /// States that were folded; some of them outdated.
    held: Vec<u8>,
    spare: Vec<u8>,
    /// Bytes in `held` that are not outdated.
    held_bytes: usize,
    /// Bytes by which all states together may still grow.
    growth_left: usize,
    call: Call,
}

/// Where a group's state is.
#[derive(Clone, Copy)]
enum Place {
    /// As it was given, be that null.
    Given,
    /// In `held`.
    Held { start: usize, bytes: usize },
}

/// The groups of one call.
#[derive(Default)]
struct Call {
    /// For each group of the run its index in the call, or `NOT_CALLED`.
    index: Vec<u32>,
    /// The call's groups, in the order in which they come up.
    groups: Vec<u32>,
    /// For each row the index of its group in the call.
    rows: Vec<u32>,
    /// For each group, whether a row of it was folded.
    folded: Vec<bool>,
    valid: Vec<u8>,
    ends: Vec<u32>,
    data: Vec<u8>,
}

impl Call {
    fn states(&self) -> OptionalBytesIn<'_> {
        OptionalBytesIn { valid: &self.valid, bytes: PackedIn { ends: &self.ends, data: &self.data } }
    }

    /// Forgets the call's groups.
    fn clear(&mut self) {
        self.groups.drain(..).for_each(|group| self.index[group as usize] = NOT_CALLED);
        self.rows.clear();
        self.valid.clear();
        self.ends.clear();
        self.data.clear();
    }
}

impl States {
    /// Begins a run of so many groups.
    pub(super) fn prepare(&mut self, groups: usize) {
        self.places.clear();
        self.places.resize(groups, Place::Given);
        self.held.clear();
        (self.held_bytes, self.growth_left) = (0, RUN_BYTES);
        self.call.clear();
        self.call.index.clear();
        self.call.index.resize(groups, NOT_CALLED);
    }

    fn get<'a>(&'a self, given: &'a OptionalBytes, group: u32) -> Option<&'a [u8]> {
        match self.places[group as usize] {
            Place::Given => given.get(group as usize),
            Place::Held { start, bytes } => Some(&self.held[start..start + bytes]),
        }
    }

    /// How many of the rows of these groups a call may take whose states have at most so many bytes; at least one.
    fn fitting(&mut self, given: &OptionalBytes, groups: &[u32], most_bytes: usize) -> usize {
        self.call.clear();
        let mut bytes = 0;
        for (row, &group) in groups.iter().enumerate() {
            if self.call.index[group as usize] == NOT_CALLED {
                bytes += self.get(given, group).map_or(0, <[u8]>::len);
                if bytes > most_bytes && row > 0 {
                    return row;
                }
                self.call.index[group as usize] = 0;
                self.call.groups.push(group);
            }
        }
        groups.len()
    }

    /// Readies a call for rows of these groups.
    fn gather(&mut self, given: &OptionalBytes, groups: &[u32]) {
        self.call.clear();
        let mut call = std::mem::take(&mut self.call);
        for &group in groups {
            if call.index[group as usize] == NOT_CALLED {
                let index = call.groups.len();
                call.index[group as usize] = index as u32;
                call.groups.push(group);
                let state = self.get(given, group);
                if index.is_multiple_of(8) {
                    call.valid.push(0);
                }
                call.valid[index / 8] |= u8::from(state.is_some()) << (index % 8);
                call.data.extend_from_slice(state.unwrap_or_default());
                call.ends.push(call.data.len() as u32);
            }
            call.rows.push(call.index[group as usize]);
        }
        self.call = call;
    }

    /// Checks what a call made of its states, whose form was checked, and returns by how many bytes they grew.
    fn check(&mut self, given: &OptionalBytes, folded: &abi::Folded, state_bytes: u64) -> Result<isize, Failure> {
        let mut call = std::mem::take(&mut self.call);
        call.folded.clear();
        call.folded.resize(call.groups.len(), false);
        let mut rejections = folded.rejections.iter().peekable();
        for (row, &index) in call.rows.iter().enumerate() {
            if rejections.next_if(|rejection| rejection.row as usize == row).is_none() {
                call.folded[index as usize] = true;
            }
        }
        let grown = self.growth(&call, given, folded, state_bytes);
        self.call = call;
        grown
    }

    fn growth(
        &self,
        call: &Call,
        given: &OptionalBytes,
        folded: &abi::Folded,
        state_bytes: u64,
    ) -> Result<isize, Failure> {
        let mut grown = 0;
        for (index, &group) in call.groups.iter().enumerate().filter(|&(index, _)| call.folded[index]) {
            let before = self.get(given, group);
            match (before, folded.states.get(index)) {
                (None, None) => {
                    return Err(Failure::bad_output("no state of a new group that a row was folded into".into()));
                }
                (_, Some(state)) if state.len() as u64 > state_bytes => {
                    return Err(Failure::StateTooLarge(state.len(), state_bytes));
                }
                (_, Some(state)) => grown += state.len() as isize - before.map_or(0, <[u8]>::len) as isize,
                (Some(_), None) => {}
            }
        }
        if grown > self.growth_left as isize {
            let detail = format!("the states of one batch grow by more than {RUN_BYTES} bytes");
            return Err(Failure::bad_output(detail));
        }
        Ok(grown)
    }

    /// Takes the states of the groups that rows were folded into.
    fn take(&mut self, folded: &abi::Folded, grown: isize) {
        self.growth_left = self.growth_left.saturating_add_signed(-grown);
        for (index, &group) in self.call.groups.iter().enumerate().filter(|&(index, _)| self.call.folded[index]) {
            let Some(state) = folded.states.get(index) else { continue };
            let place = &mut self.places[group as usize];
            if let Place::Held { bytes, .. } = *place {
                self.held_bytes -= bytes;
            }
            *place = Place::Held { start: self.held.len(), bytes: state.len() };
            self.held.extend_from_slice(state);
            self.held_bytes += state.len();
        }
        if self.held.len() > 2 * self.held_bytes + OUTDATED_BYTES {
            self.clear_away();
        }
    }

    /// Keeps only what is not outdated.
    fn clear_away(&mut self) {
        self.spare.clear();
        for place in &mut self.places {
            if let Place::Held { start, bytes } = place {
                let from = *start;
                *start = self.spare.len();
                self.spare.extend_from_slice(&self.held[from..from + *bytes]);
            }
        }
        std::mem::swap(&mut self.held, &mut self.spare);
    }

    /// Writes all states to `to`.
    pub(super) fn finish(&self, given: &OptionalBytes, to: &mut OptionalBytes) {
        (0..self.places.len() as u32).for_each(|group| to.push(self.get(given, group)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that makes each state of its groups so many bytes, all of them `byte`.
    fn call(states: &mut States, given: &OptionalBytes, groups: &[u32], bytes: usize, byte: u8) {
        states.gather(given, groups);
        let count = states.call.groups.len();
        let ends = (1..=count).map(|group| (group * bytes) as u32).collect();
        let bytes = abi::Packed { ends, data: vec![byte; count * bytes] };
        let folded = abi::Folded { states: abi::OptionalBytes { valid: Vec::new(), bytes }, rejections: Vec::new() };
        let grown = states.check(given, &folded, u64::MAX).expect("within bounds");
        states.take(&folded, grown);
    }

    #[test]
    fn outdated_states_are_cleared_away_and_no_other() {
        let mut given = OptionalBytes::default();
        (0..10).for_each(|_| given.push(Some(b"given")));
        let mut states = States::default();
        states.prepare(10);
        for round in 0..200u8 {
            call(&mut states, &given, &[3, u32::from(round % 3), 3], 50_000, round);
            assert!(states.held.len() <= 2 * states.held_bytes + OUTDATED_BYTES, "{} bytes", states.held.len());
        }
        assert_eq!(states.held_bytes, 4 * 50_000);
        let mut out = OptionalBytes::default();
        states.finish(&given, &mut out);
        let state = |group: usize| match group {
            0..3 => vec![[198, 199, 197][group]; 50_000],
            3 => vec![199; 50_000],
            _ => b"given".to_vec(),
        };
        (0..10).for_each(|group| assert!(out.get(group) == Some(&state(group)[..]), "group {group}"));
    }

    /// Shrinking gives back what growing took.
    #[test]
    fn states_may_grow_by_so_much_in_one_run() {
        let mut given = OptionalBytes::default();
        given.push(None);
        let mut states = States::default();
        states.prepare(1);
        call(&mut states, &given, &[0], 1_000, 0);
        assert_eq!(states.growth_left, RUN_BYTES - 1_000);
        call(&mut states, &given, &[0], 10, 0);
        assert_eq!(states.growth_left, RUN_BYTES - 10);
        states.growth_left = 100;
        states.gather(&given, &[0]);
        let bytes = abi::Packed { ends: vec![111], data: vec![0; 111] };
        let folded = abi::Folded { states: abi::OptionalBytes { valid: Vec::new(), bytes }, rejections: Vec::new() };
        let failure = states.check(&given, &folded, u64::MAX).expect_err("one byte too many");
        assert_eq!(failure.fault(), Some(crate::plugin::FaultKind::BadOutput));
    }

    #[test]
    fn a_call_takes_as_many_rows_as_its_states_fit() {
        let mut given = OptionalBytes::default();
        (0..4).for_each(|_| given.push(Some(&[0; 100])));
        let mut states = States::default();
        states.prepare(4);
        assert_eq!(states.fitting(&given, &[0, 0, 1, 0, 2, 3], 250), 4, "a group counts once");
        assert_eq!(states.fitting(&given, &[0, 1], 10), 1, "at least one");
        assert_eq!(states.fitting(&given, &[0, 1, 2, 3], 400), 4);
        call(&mut states, &given, &[1], 300, 0);
        assert_eq!(states.fitting(&given, &[0, 1, 2], 400), 2, "as large as it is by now");
    }
}
