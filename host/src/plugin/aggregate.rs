//! An aggregate with one configuration: rows into states, states into rows.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::artefact::Plugin;
use super::fold::{Fold, States, check_groups};
use super::input::Scratch;
use super::seat::Seat;
use super::states::{Ends, Finish, Merge, Migrate, check_size};
use super::usage::StageUsage;
use super::work::{RUN_BYTES, Work};
use super::{
    AggregateDescriptor, FinishWindows, Finished, Folded, Limits, Merged, Migrated, Parts, PluginError, StageError,
    StageInput,
};
use crate::record::{OptionalBytes, Packed};

/// An aggregate, ready to fold, merge, finish and migrate. It belongs to one worker.
///
/// A call that fails is judged as a stage's is, so that it costs the row, pair or state that did it and no other. After an
/// error nothing of a run counts, and it may be made again.
pub struct AggregateRunner {
    seat: Seat,
    descriptor: AggregateDescriptor,
    scratch: Scratch,
    states: States,
    ends: Ends,
}

impl AggregateRunner {
    /// Asks the plugin for its descriptor, and starts an instance once, so that a wrong configuration shows here.
    pub fn new(plugin: Plugin, config_json: &str, limits: Limits) -> Result<Self, PluginError> {
        let descriptor = plugin.describe_aggregate(config_json, &limits)?;
        let seat = Seat::new(plugin, config_json, limits)?;
        let (scratch, states, ends) = (Scratch::default(), States::default(), Ends::default());
        Ok(Self { seat, descriptor, scratch, states, ends })
    }

    /// What the plugin reads and writes, and which states it knows.
    pub fn descriptor(&self) -> &AggregateDescriptor {
        &self.descriptor
    }

    /// The plugin that it runs.
    pub fn plugin(&self) -> &Plugin {
        &self.seat.plugin
    }

    /// What it has used so far.
    pub fn usage(&self) -> &StageUsage {
        &self.seat.usage
    }

    /// The limits that it keeps.
    pub fn limits(&self) -> &Limits {
        &self.seat.limits
    }

    /// A flag that is looked at between calls; while it is raised, runs end with [`StageError::Interrupted`].
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.seat.interrupt = Some(flag);
    }

    /// Drops the instance: the next call starts a fresh one. For the end of each task's block, delivered or not.
    pub fn end_block(&mut self) {
        self.seat.end_block();
    }

    /// Folds rows into the states of their groups: `groups[row]` is an index into `states`, where null is a new state. A
    /// row that is rejected leaves its group's state as if it had not been there.
    pub fn fold(
        &mut self,
        input: &StageInput<'_>,
        groups: &[u32],
        states: &OptionalBytes,
        out: &mut Folded,
    ) -> Result<(), StageError> {
        input.check(self.descriptor.reads.iter().map(|read| read.ty), Parts::default())?;
        check_groups(input.rows, groups, states)?;
        out.prepare();
        self.states.prepare(states.len());
        let (state_bytes, call_bytes) = self.bounds();
        let tally = {
            let fold = Fold {
                input,
                groups,
                given: states,
                scratch: &mut self.scratch,
                states: &mut self.states,
                state_bytes,
                call_bytes,
                rejections: &mut out.rejections,
            };
            self.seat.run(&mut Work::Fold(fold))?
        };
        self.states.finish(states, &mut out.states);
        out.count(tally);
        Ok(())
    }

    /// Merges each state on the left with the one on the right, which is later.
    pub fn merge(&mut self, left: &Packed, right: &Packed, out: &mut Merged) -> Result<(), StageError> {
        if left.len() != right.len() {
            return Err(StageError::Input("states that do not come in pairs"));
        }
        check_size(left.data.len().saturating_add(right.data.len()))?;
        out.prepare();
        let (state_bytes, call_bytes) = self.bounds();
        let ends = &mut self.ends;
        let merge = Merge { left, right, ends, state_bytes, call_bytes, growth_left: RUN_BYTES, out };
        let mut work = Work::Merge(merge);
        let tally = self.seat.run(&mut work)?;
        out.count(tally);
        Ok(())
    }

    /// Makes a row of each state.
    pub fn finish(&mut self, windows: &FinishWindows, states: &Packed, out: &mut Finished) -> Result<(), StageError> {
        windows.check(states)?;
        out.prepare(&self.descriptor.writes);
        let (fields, ends) = (&self.descriptor.writes[..], &mut self.ends);
        let finish = Finish { fields, windows, states, ends, bytes_left: RUN_BYTES, out };
        let mut work = Work::Finish(finish);
        let tally = self.seat.run(&mut work)?;
        out.count(tally);
        Ok(())
    }

    /// Makes states of the present version of such as `from_version` has: all, or none with the reason.
    pub fn migrate(&mut self, from_version: u32, states: &Packed, out: &mut Migrated) -> Result<(), StageError> {
        check_size(states.data.len())?;
        out.states.clear();
        out.refused = None;
        let AggregateDescriptor { name, version, state_version, migrates_from, .. } = &self.descriptor;
        if !migrates_from.contains(&from_version) {
            let known: Vec<String> = migrates_from.iter().map(u32::to_string).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            out.refused = Some(format!(
                "the states have version {from_version}; `{name}` {version} makes version {state_version} and migrates \
                 from {known}"
            ));
            return Ok(());
        }
        let (state_bytes, call_bytes) = self.bounds();
        let ends = &mut self.ends;
        let migrate = Migrate { from_version, states, ends, state_bytes, call_bytes, growth_left: RUN_BYTES, out };
        self.seat.run(&mut Work::Migrate(migrate))?;
        Ok(())
    }

    /// Bytes of one state, and of all that one call may take.
    fn bounds(&self) -> (u64, usize) {
        let limits = &self.seat.limits;
        (limits.state_bytes, usize::try_from(limits.output_bytes / 2).unwrap_or(usize::MAX))
    }
}
