//! A stage: one plugin with one configuration, its instance, and what is done when a call fails.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::abi::Processed;
use super::artefact::{Artefact, Plugin};
use super::check::Call;
use super::fault::Fault;
use super::input::Scratch;
use super::instance::Instance;
use super::log::LogGate;
use super::usage::StageUsage;
use super::{Descriptor, FaultKind, Limits, PluginError, StageError, StageInput, StageOutput};

/// A part of more than one row gets this fraction of a record's fuel: enough for any batch of well-behaved rows, and
/// little beside what the record itself will take.
const PART_FUEL: u64 = 16;
/// Bytes that all calls of a run may return together. It guards the host's memory from a plugin that blows up its input:
/// the one verdict that depends on what else is in the batch.
const RUN_BYTES: usize = 256 << 20;
/// Rows per call that a slow plugin still gets, and the calls without suspicion after which it gets twice as many.
const FEWEST_ROWS: usize = 16;
const CALM_CALLS: u32 = 1_000;

/// A plugin, ready to run one stage. It belongs to one worker.
pub struct StageRunner {
    plugin: Plugin,
    config: String,
    limits: Limits,
    descriptor: Descriptor,
    log: Arc<LogGate>,
    interrupt: Option<Arc<AtomicBool>>,
    scratch: Scratch,
    /// The block's instance; none before its first call and after a fault.
    instance: Option<Instance>,
    pace: Pace,
    /// Bytes that the rest of a run may still return.
    bytes_left: usize,
    usage: StageUsage,
}

/// Rows per call. A plugin for which they are too many at once gets fewer, so that there is no reason to suspect it.
struct Pace {
    rows: usize,
    most: usize,
    /// Calls in a row that raised no suspicion.
    calm: u32,
}

impl Pace {
    fn new(most: usize) -> Self {
        Self { rows: most, most, calm: 0 }
    }

    fn calm(&mut self) {
        self.calm += 1;
        if self.calm == CALM_CALLS {
            (self.rows, self.calm) = ((self.rows * 2).min(self.most), 0);
        }
    }

    fn suspected(&mut self) {
        (self.rows, self.calm) = ((self.rows / 2).max(FEWEST_ROWS.min(self.most)), 0);
    }
}

impl StageRunner {
    /// Asks the plugin for its descriptor, and starts an instance once, so that a wrong configuration shows here.
    pub fn new(plugin: Plugin, config_json: &str, limits: Limits) -> Result<Self, PluginError> {
        let descriptor = plugin.describe(config_json, &limits)?;
        let log = Arc::new(LogGate::new(plugin.name()));
        let mut runner = Self {
            plugin,
            config: config_json.to_owned(),
            pace: Pace::new(limits.rows_per_call as usize),
            limits,
            descriptor,
            log,
            interrupt: None,
            scratch: Scratch::default(),
            instance: None,
            bytes_left: 0,
            usage: StageUsage::default(),
        };
        runner.fresh_fast()?;
        Ok(runner)
    }

    /// What the plugin reads and writes.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The plugin that it runs.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// What it has used so far.
    pub fn usage(&self) -> &StageUsage {
        &self.usage
    }

    /// The limits that it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A flag that is looked at between calls; while it is raised, `run` ends with [`StageError::Interrupted`].
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.interrupt = Some(flag);
    }

    /// Drops the instance: the next call starts a fresh one. For the end of each task's block, delivered or not.
    pub fn end_block(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.usage.ended(&instance);
        }
    }

    /// Runs all rows, and leaves in `out` what became of each. After an error `out` means nothing, and the same rows
    /// may be run again.
    ///
    /// The first suspect after the start may have to wait for the judge's artefact, two minutes at most. A call that fails costs at most two fresh instances a row, a record's fuel for each record that fails, and a
    /// sixteenth of that for each part that does.
    pub fn run(&mut self, input: &StageInput<'_>, out: &mut StageOutput) -> Result<(), StageError> {
        input.check(&self.descriptor)?;
        out.prepare(&self.descriptor);
        self.bytes_left = RUN_BYTES;
        let started = Instant::now();
        self.run_calls(input, out)?;
        self.usage.ran(started.elapsed(), out);
        Ok(())
    }

    fn run_calls(&mut self, input: &StageInput<'_>, out: &mut StageOutput) -> Result<(), StageError> {
        let mut start = 0;
        while start < input.rows {
            self.check_interrupt()?;
            let rows = self.next_call(input, start);
            start = rows.end;
            let mut instance = match self.instance.take() {
                Some(instance) => instance,
                None => {
                    self.usage.instances += 1;
                    self.fresh_fast()?
                }
            };
            self.usage.calls += 1;
            let since = Instant::now();
            let called = self.call(&mut instance, input, rows.clone(), 0);
            // The ticker may starve, too: then only this sees that a call took long.
            let late = since.elapsed() > self.limits.suspect_after;
            match called {
                Ok(processed) if !late => {
                    self.append(rows.len(), processed, out);
                    self.instance = Some(instance);
                    self.pace.calm();
                }
                called => {
                    self.usage.ended(&instance);
                    drop(instance);
                    let by_clock = called.map_or_else(|fault| fault.kind == FaultKind::Deadline, |_| true);
                    self.suspect(input, rows, by_clock, out)?;
                }
            }
        }
        Ok(())
    }

    /// The rows of the call that begins at `start`: as many as the pace allows and fit an eighth of the plugin's memory, and
    /// at least one.
    fn next_call(&self, input: &StageInput<'_>, start: usize) -> Range<usize> {
        let most = usize::try_from(self.limits.memory_bytes / 8).unwrap_or(usize::MAX);
        let mut rows = start..input.rows.min(start + self.pace.rows);
        while rows.len() > 1 && input.bytes(rows.clone()) > most {
            rows.end = start + rows.len() / 2;
        }
        rows
    }

    /// Has a call judged, and counts it where no single record is to blame.
    fn suspect(
        &mut self,
        input: &StageInput<'_>,
        rows: Range<usize>,
        by_clock: bool,
        out: &mut StageOutput,
    ) -> Result<(), StageError> {
        let failed_before = out.faults.total();
        self.judge(input, rows, out)?;
        if out.faults.total() == failed_before {
            self.pace.suspected();
            *(if by_clock { &mut out.suspicions } else { &mut out.batch_faults }) += 1;
        }
        Ok(())
    }

    /// Decides on the rows of a call that failed, in order: halves, quarters and so on, each on a fresh instance and by
    /// fuel alone, until what fails is a single row.
    fn judge(&mut self, input: &StageInput<'_>, rows: Range<usize>, out: &mut StageOutput) -> Result<(), StageError> {
        let artefact = self.plugin.judge(|| self.check_interrupt())?;
        let mut parts = vec![rows];
        while let Some(part) = parts.pop() {
            self.check_interrupt()?;
            let whole = self.limits.fuel_per_record;
            let fuel = if part.len() == 1 { whole } else { whole / PART_FUEL };
            let mut instance = self.fresh(&artefact, None)?;
            match self.call(&mut instance, input, part.clone(), fuel) {
                Ok(processed) => self.append(part.len(), processed, out),
                Err(fault) if part.len() == 1 => out.append_fault(&self.descriptor, fault),
                Err(_) => {
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
            }
        }
        Ok(())
    }

    /// One call, and the check of what it returned.
    fn call(
        &mut self,
        instance: &mut Instance,
        input: &StageInput<'_>,
        rows: Range<usize>,
        fuel: u64,
    ) -> Result<Processed, Fault> {
        let count = rows.len();
        let batch = self.scratch.batch(input, &self.descriptor, rows);
        let processed = instance.process(batch, self.limits.suspect_after, fuel)?;
        let call = Call { descriptor: &self.descriptor, rows: count };
        call.check(&processed).map_err(Fault::bad_output)?;
        if processed.bytes() > self.bytes_left {
            return Err(Fault::bad_output(format!("the stage's results for one batch exceed {RUN_BYTES} bytes")));
        }
        Ok(processed)
    }

    fn append(&mut self, rows: usize, processed: Processed, out: &mut StageOutput) {
        self.bytes_left = self.bytes_left.saturating_sub(processed.bytes());
        out.append(&self.descriptor, rows, processed);
    }

    fn fresh_fast(&mut self) -> Result<Instance, PluginError> {
        let plugin = self.plugin.clone();
        self.fresh(plugin.fast(), Some(self.log.clone()))
    }

    /// An instance that was started with the stage's configuration.
    fn fresh(&self, artefact: &Artefact, log: Option<Arc<LogGate>>) -> Result<Instance, PluginError> {
        let name = self.plugin.name();
        let mut instance = Instance::new(name, artefact, &self.limits, log)?;
        match instance.start(&self.config) {
            Ok(Ok(())) => Ok(instance),
            Ok(Err(message)) => Err(PluginError::Config { name: name.to_owned(), message }),
            Err(fault) => Err(fault.at_start(name)),
        }
    }

    fn check_interrupt(&self) -> Result<(), StageError> {
        match &self.interrupt {
            Some(flag) if flag.load(Relaxed) => Err(StageError::Interrupted),
            _ => Ok(()),
        }
    }
}
