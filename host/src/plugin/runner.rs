//! A stage: a transform with one configuration, and its runs.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::artefact::Plugin;
use super::check::Call;
use super::fault::{Failure, Fault};
use super::input::{Scratch, fitting};
use super::instance::{Allowance, Instance};
use super::lookup::Lookups;
use super::seat::Seat;
use super::usage::StageUsage;
use super::work::{RUN_BYTES, Work};
use super::{Descriptor, Limits, PluginError, StageError, StageInput, StageOutput};
use crate::table::Tables;

/// A plugin, ready to run one stage. It belongs to one worker.
pub struct StageRunner {
    seat: Seat,
    descriptor: Descriptor,
    /// The tables that it may look into, where it asks for any.
    lookups: Option<Arc<Lookups>>,
    scratch: Scratch,
}

impl StageRunner {
    /// Asks the plugin for its descriptor, and starts an instance once, so that a wrong configuration shows here.
    pub fn new(plugin: Plugin, config_json: &str, limits: Limits) -> Result<Self, PluginError> {
        let descriptor = plugin.describe(config_json, &limits)?;
        let seat = Seat::new(plugin, config_json, limits)?;
        Ok(Self { seat, descriptor, lookups: None, scratch: Scratch::default() })
    }

    /// Lets the plugin of a task of this partition look up the columns of tables that its descriptor names; fails where there is none of them.
    pub fn with_tables(mut self, tables: &Tables, partition: i32) -> Result<Self, PluginError> {
        if !self.descriptor.lookups.is_empty() {
            let lookups = Lookups::new(&self.descriptor.lookups, (tables, partition));
            let name = self.plugin().name().to_owned();
            self.lookups = Some(Arc::new(lookups.map_err(|reason| PluginError::Descriptor { name, reason })?));
        }
        Ok(self)
    }

    /// A table that the plugin looks into and that is not read yet.
    pub fn unready(&self) -> Option<&str> {
        self.lookups.as_ref()?.unready()
    }

    /// What the plugin reads and writes.
    pub fn descriptor(&self) -> &Descriptor {
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

    /// A flag that is looked at between calls; while it is raised, `run` ends with [`StageError::Interrupted`].
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.seat.interrupt = Some(flag);
    }

    /// Drops the instance: the next call starts a fresh one. For the end of each task's block, delivered or not.
    pub fn end_block(&mut self) {
        self.seat.end_block();
    }

    /// Runs all rows, and leaves in `out` what became of each. After an error `out` means nothing, and the same rows
    /// may be run again.
    ///
    /// The first suspect after the start may have to wait for the judge's artefact, two minutes at most. A call that
    /// fails costs at most two fresh instances a row, a record's fuel for each record that fails, and a sixteenth of that
    /// for each part that does.
    pub fn run(&mut self, input: &StageInput<'_>, out: &mut StageOutput) -> Result<(), StageError> {
        input.check(self.descriptor.column_types(), self.descriptor.raw_reads)?;
        out.prepare(&self.descriptor);
        if let Some(lookups) = &mut self.lookups {
            Arc::make_mut(lookups).refresh();
        }
        let (descriptor, lookups, scratch) = (&self.descriptor, self.lookups.as_ref(), &mut self.scratch);
        let tally = {
            let process = Process { descriptor, input, lookups, scratch, out, bytes_left: RUN_BYTES };
            self.seat.run(&mut Work::Process(process))?
        };
        out.count(tally);
        Ok(())
    }
}

/// Rows to process.
pub(super) struct Process<'a> {
    descriptor: &'a Descriptor,
    input: &'a StageInput<'a>,
    lookups: Option<&'a Arc<Lookups>>,
    scratch: &'a mut Scratch,
    out: &'a mut StageOutput,
    /// Bytes that the rest of the run may still return.
    bytes_left: usize,
}

impl Process<'_> {
    pub(super) fn len(&self) -> usize {
        self.input.rows
    }

    pub(super) fn next_call(&self, rows: Range<usize>, most_bytes: usize) -> Range<usize> {
        fitting(rows, most_bytes, |rows| self.input.bytes(rows))
    }

    pub(super) fn attempt(
        &mut self,
        instance: &mut Instance,
        rows: Range<usize>,
        allowed: Allowance,
    ) -> Result<(), Failure> {
        let count = rows.len();
        let batch = self.scratch.batch(self.input, self.descriptor.raw_reads, rows);
        let processed = instance.process(batch, self.lookups.cloned(), allowed)?;
        let call = Call { descriptor: self.descriptor, rows: count };
        call.check(&processed).map_err(Fault::bad_output)?;
        let Some(left) = self.bytes_left.checked_sub(processed.bytes()) else {
            let detail = format!("the stage's results for one batch exceed {RUN_BYTES} bytes");
            return Err(Failure::bad_output(detail));
        };
        allowed.in_time()?;
        self.bytes_left = left;
        self.out.append(self.descriptor, count, processed);
        Ok(())
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.out.append_failed(self.descriptor, failure);
    }
}
