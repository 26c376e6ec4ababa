//! Where a plugin sits: its instance, the calls that are made to it, and what is done when one fails.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::artefact::{Artefact, Plugin};
use super::fault::Failure;
use super::instance::{Allowance, Instance};
use super::log::LogGate;
use super::output::Tally;
use super::usage::StageUsage;
use super::work::Work;
use super::{FaultKind, Limits, PluginError, StageError};

/// A part of more than one row gets this fraction of a record's fuel: enough for any batch of well-behaved rows, and
/// little beside what the record itself will take.
const PART_FUEL: u64 = 16;
/// Rows per call that a slow plugin still gets, and the calls without suspicion after which it gets twice as many.
const FEWEST_ROWS: usize = 16;
const CALM_CALLS: u32 = 1_000;

/// A plugin with one configuration and, during a block, its instance. It belongs to one worker.
pub(super) struct Seat {
    pub(super) plugin: Plugin,
    config: String,
    pub(super) limits: Limits,
    log: Arc<LogGate>,
    pub(super) interrupt: Option<Arc<AtomicBool>>,
    /// The block's instance; none before its first call and after a fault.
    instance: Option<Instance>,
    pace: Pace,
    pub(super) usage: StageUsage,
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

impl Seat {
    /// Starts an instance once, so that a wrong configuration shows here.
    pub(super) fn new(plugin: Plugin, config_json: &str, limits: Limits) -> Result<Self, PluginError> {
        let log = Arc::new(LogGate::new(plugin.name()));
        let seat = Self {
            plugin,
            config: config_json.to_owned(),
            pace: Pace::new(limits.rows_per_call as usize),
            limits,
            log,
            interrupt: None,
            instance: None,
            usage: StageUsage::default(),
        };
        seat.fresh_fast()?;
        Ok(seat)
    }

    /// Drops the instance: the next call starts a fresh one.
    pub(super) fn end_block(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.usage.ended(&instance);
        }
    }

    /// Does all of the work, in order. After an error nothing of it counts.
    pub(super) fn run(&mut self, work: &mut Work<'_>) -> Result<Tally, StageError> {
        let started = Instant::now();
        let mut tally = Tally::default();
        let mut start = 0;
        // So that a call's arguments and what the plugin makes of them fit its memory.
        let most_bytes = usize::try_from(self.limits.memory_bytes / 8).unwrap_or(usize::MAX);
        while start < work.len() {
            self.check_interrupt()?;
            let rows = work.next_call(start..work.len().min(start + self.pace.rows), most_bytes);
            start = rows.end;
            self.call(work, rows, &mut tally)?;
        }
        self.usage.ran(started.elapsed(), &tally);
        Ok(tally)
    }

    fn call(&mut self, work: &mut Work<'_>, rows: Range<usize>, tally: &mut Tally) -> Result<(), StageError> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                self.usage.instances += 1;
                self.fresh_fast()?
            }
        };
        self.usage.calls += 1;
        let time = self.limits.suspect_after;
        let allowed = Allowance { time, fuel: 0, due: Some(Instant::now() + time), explain: false };
        match work.attempt(&mut instance, rows.clone(), allowed) {
            Ok(()) => {
                self.instance = Some(instance);
                self.pace.calm();
                Ok(())
            }
            Err(failure) => {
                self.usage.ended(&instance);
                drop(instance);
                self.suspect(work, rows, &failure, tally)
            }
        }
    }

    /// Has a call judged, and counts it where no single record is to blame.
    fn suspect(
        &mut self,
        work: &mut Work<'_>,
        rows: Range<usize>,
        failure: &Failure,
        tally: &mut Tally,
    ) -> Result<(), StageError> {
        if self.judge(work, rows, tally)? == 0 {
            self.pace.suspected();
            let by_clock = failure.fault() == Some(FaultKind::Deadline);
            *(if by_clock { &mut tally.suspicions } else { &mut tally.batch_faults }) += 1;
        }
        Ok(())
    }

    /// Decides on the rows of a call that failed, in order: halves, quarters and so on, each on a fresh instance and by
    /// fuel alone, until what fails is a single row. Returns how many do.
    fn judge(&mut self, work: &mut Work<'_>, rows: Range<usize>, tally: &mut Tally) -> Result<u64, StageError> {
        let artefact = self.plugin.judge(|| self.check_interrupt())?;
        let mut blamed = 0;
        let mut parts = vec![rows];
        while let Some(part) = parts.pop() {
            self.check_interrupt()?;
            let whole = self.limits.fuel_per_record;
            let fuel = if part.len() == 1 { whole } else { whole / PART_FUEL };
            let mut instance = self.fresh(&artefact, None)?;
            // Only the word on a single row is final, and read.
            let explain = part.len() == 1;
            let allowed = Allowance { time: self.limits.suspect_after, fuel, due: None, explain };
            match work.attempt(&mut instance, part.clone(), allowed) {
                Ok(()) => {}
                Err(failure) if part.len() == 1 => {
                    blamed += 1;
                    failure.fault().into_iter().for_each(|kind| tally.faults.count(kind));
                    work.failed(part.start, failure);
                }
                Err(_) => {
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
            }
        }
        Ok(blamed)
    }

    fn fresh_fast(&self) -> Result<Instance, PluginError> {
        self.fresh(self.plugin.fast(), Some(self.log.clone()))
    }

    /// An instance that was started with the configuration.
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
