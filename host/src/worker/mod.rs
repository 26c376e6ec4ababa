//! One thread's work: poll, process, deliver, commit; and what happens when one of these fails.
//!
//! A worker owns its source, its delivery and its tasks. [`Worker::step`] does one round and never sleeps on its own
//! account, so that the same code runs against Kafka and, step by step from a seed, against a model of it.
//!
//! The rules that keep exactly-once (each can be switched off in a simulation, which then finds the error):
//! - what was polled before a partition is given up is committed, or forgotten, before it is given up;
//! - an aborted transaction puts every task that took part back to its last commit;
//! - after a request whose outcome is unknown the producer is made anew before it is used again, and the group is
//!   asked what was committed.

mod ask;
mod chain;
mod held;
mod meter;
mod partitions;
mod policy;
mod recover;
mod restore;
mod states;
mod swap;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

pub use ask::{AnsweredWindow, StateAnswer};
pub use chain::{Asker, Chain, ChainEvent, Chains, Note, Watch, WatchLimits, WayBack};
use meter::Meter;
pub use meter::{PartitionReading, Readings, StateReading};
pub use policy::CommitPolicy;
pub use restore::RestoreReading;
use restore::Restoring;

use crate::config::{BreakerConfig, QualityConfig};
use crate::pipeline::{RowLimits, Stage};
use crate::record::{Batch, Lanes, Place};
use crate::sink::{Delivery, DeliveryError, Progress};
use crate::source::{Event, Source, SourceError, StateSource};
use crate::task::{ErrorBudget, Ledger, Output, StageTally, Task, TaskError};

/// Why a worker stops.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A task refused a batch, or could not run it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The source is beyond repair.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The delivery is beyond repair.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A plugin can't be instantiated.
    #[error(transparent)]
    Plugin(#[from] crate::plugin::PluginError),
}

/// Makes the stages of a new task.
pub type StageFactory = Arc<dyn Fn(i32) -> Result<Vec<Stage>, crate::plugin::PluginError> + Send + Sync>;

/// Rules that only a simulation switches off, to show that it finds what they prevent.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// K1: nothing is committed for a partition once it was given up.
    pub forget_revoked: bool,
    /// K2: an abort puts every task back.
    pub restore_on_abort: bool,
    /// K3: a producer in doubt is made anew.
    pub renew_in_doubt: bool,
    /// States are told in the transaction of their records.
    pub tell_states: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { forget_revoked: true, restore_on_abort: true, renew_in_doubt: true, tell_states: true }
    }
}

/// What all workers of a pipeline share.
#[derive(Clone)]
pub struct Shared {
    /// The chain in force.
    pub chains: Arc<Chains>,
    /// What many faults lead to, if to anything.
    pub breaker: Option<BreakerConfig>,
    /// When a partition stops.
    pub budget: Option<ErrorBudget>,
    /// The most bytes of a record that each output takes.
    pub row_limits: RowLimits,
    /// When to commit.
    pub policy: CommitPolicy,
    /// Whether anybody wants the worker's readings.
    pub metered: bool,
    /// What is watched of the data.
    pub quality: Option<Arc<QualityConfig>>,
    /// The partitions of the source's topics, numbered through; none where it has no topics.
    pub lanes: Lanes,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Took this many records, perhaps none.
    Worked(u64),
    /// The source has ended and everything is committed.
    Finished,
}

/// How long to wait before the outcome of a request in doubt is asked for again.
const RECOVERY_BACKOFF_MS: u64 = 200;
/// The longest that one poll waits for records.
const POLL_WAIT_MS: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// A request's outcome is unknown: nothing is taken until it is settled.
    InDoubt {
        retry_at_ms: u64,
    },
}

/// One thread's source, delivery and tasks.
pub struct Worker {
    shared: Shared,
    rules: Rules,
    source: Source,
    delivery: Delivery,
    /// The chain that all tasks run.
    chain: Arc<Chain>,
    tasks: BTreeMap<Place, Task>,
    /// Partitions that were assigned and whose start is not known yet.
    awaiting: Vec<Place>,
    /// Changelogs of stages, and the partitions whose states are read from them.
    states: StateSource,
    restoring: BTreeMap<Place, Restoring>,
    /// Partitions whose batch could not be run yet, and until when they are left alone.
    held: BTreeMap<Place, u64>,
    state: State,
    /// What was polled before tasks were put back must not be processed after it.
    discard_polled: bool,
    source_ended: bool,
    block: Block,
    closed: Ledger,
    commits: u64,
    /// When the records of the last commit were taken, and how many.
    committed: Vec<(u64, u64)>,
    output: Output,
    events: Vec<Event>,
    meter: Meter,
    faults: swap::Faults,
}

/// What is processed and not committed yet.
#[derive(Clone, Debug, Default)]
struct Block {
    batches: u64,
    records: u64,
    /// Of outputs and dead letters.
    bytes: u64,
    /// What the watch over a new chain admitted.
    admitted: StageTally,
    since_ms: u64,
    last_commit_ms: u64,
    /// When records were taken, and how many.
    taken: Vec<(u64, u64)>,
}

impl Worker {
    /// A worker that has no partition yet.
    pub fn new(shared: Shared, source: Source, delivery: Delivery) -> Self {
        let chain = shared.chains.current();
        let closed = Ledger::new(&chain.pipeline);
        let meter = Meter::new(chain.pipeline.stages.len(), shared.metered, shared.quality.clone());
        Self {
            shared,
            chain,
            rules: Rules::default(),
            source,
            delivery,
            tasks: BTreeMap::new(),
            awaiting: Vec::new(),
            states: StateSource::None,
            restoring: BTreeMap::new(),
            held: BTreeMap::new(),
            state: State::Running,
            discard_polled: false,
            source_ended: false,
            block: Block::default(),
            closed,
            commits: 0,
            committed: Vec::new(),
            output: Output::default(),
            events: Vec::new(),
            meter,
            faults: swap::Faults::default(),
        }
    }

    /// The same worker, whose stages' states are restored from there.
    pub fn with_states(mut self, states: StateSource) -> Self {
        self.states = states;
        self
    }

    /// The same worker under other rules.
    #[doc(hidden)]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Everything that this worker committed.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = self.closed.clone();
        self.tasks.values().for_each(|task| ledger.add(task.ledger()));
        ledger
    }

    /// How often this worker committed.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// When the records of the last commit were taken, with their number, in batches; empty when asked again.
    pub fn take_committed(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.committed)
    }

    /// What this worker has measured of itself, as of now.
    pub fn readings(&mut self) -> Readings {
        self.meter.figures(self.source.figures(), self.delivery.figures());
        let whole = self.awaiting.is_empty() && self.restoring.is_empty();
        let answers = self.source.answered() && whole && self.state == State::Running;
        self.meter.readings(self.tasks.iter(), |place| self.source.end_offset(place), answers)
    }

    /// Stops taking records, or goes on; what was taken is committed, and the partitions stay ours.
    pub fn pause(&mut self, paused: bool) -> Result<(), WorkerError> {
        Ok(self.source.pause(paused)?)
    }

    /// Ends what is open without effect, after an error that this worker can't mend.
    pub fn abandon(&mut self) {
        if let Err(error) = self.delivery.abort() {
            tracing::warn!("the transaction is left to its timeout: {error}");
        }
    }

    /// One round: takes what the source has, processes it, and commits where that is due. `now_ms` never falls.
    pub fn step(&mut self, now_ms: u64) -> Result<Step, WorkerError> {
        self.follow_chain()?;
        let before = self.block.records;
        self.resume_held(now_ms)?;
        self.poll(now_ms)?;
        self.start_awaiting()?;
        self.try_restore()?;
        self.tick(now_ms)?;
        if let State::InDoubt { retry_at_ms } = self.state {
            if now_ms >= retry_at_ms {
                self.settle(now_ms)?;
            }
            return Ok(Step::Worked(0));
        }
        let worked = self.block.records.saturating_sub(before);
        let caught_up = !self.source.filled();
        let block = &self.block;
        let states_bytes: usize = self.tasks.values().map(Task::changed_bytes).sum();
        let bytes = block.bytes + states_bytes as u64;
        let age_ms = now_ms.saturating_sub(block.since_ms);
        let gap_ms = now_ms.saturating_sub(block.last_commit_ms);
        if block.batches > 0
            && self.shared.policy.due((block.records, bytes), age_ms, gap_ms, caught_up || self.source_ended)
        {
            self.commit(now_ms)?;
        }
        let done = self.source_ended && self.block.batches == 0 && self.state == State::Running;
        Ok(if done { Step::Finished } else { Step::Worked(worked) })
    }

    /// Commits what is processed and gives everything up: the orderly end. At most `rounds` tries where the servers
    /// do not answer; what is not committed then is done again by whoever comes next.
    pub fn drain(&mut self, now_ms: u64, rounds: u32) -> Result<(), WorkerError> {
        for round in 0..rounds {
            let now_ms = now_ms + u64::from(round) * RECOVERY_BACKOFF_MS;
            match self.state {
                State::Running if self.block.batches == 0 => break,
                State::Running => self.commit(now_ms)?,
                State::InDoubt { .. } => self.settle(now_ms)?,
            }
        }
        let places: Vec<Place> = self.tasks.keys().cloned().collect();
        self.forget(&places);
        self.delivery.close(self.source.is_cut_short())?;
        self.source.close()?;
        Ok(())
    }

    fn poll(&mut self, now_ms: u64) -> Result<(), WorkerError> {
        let mut events = std::mem::take(&mut self.events);
        self.discard_polled = false;
        let (wait_ms, gather_ms) = match self.state {
            State::InDoubt { .. } => (POLL_WAIT_MS / 10, 0),
            State::Running => {
                let gap_ms = now_ms.saturating_sub(self.block.last_commit_ms);
                let gather_ms = self.shared.policy.min_interval_ms.saturating_sub(gap_ms).min(POLL_WAIT_MS);
                (if self.has_work() { 1 } else { POLL_WAIT_MS }, gather_ms)
            }
        };
        let polled = self.source.poll(wait_ms, gather_ms, &mut events);
        for event in events.drain(..) {
            self.handle(event, now_ms)?;
        }
        self.events = events;
        match polled {
            Err(SourceError::Retriable(why)) => tracing::warn!("the source does not answer, trying again: {why}"),
            polled => polled?,
        }
        Ok(())
    }

    /// True where there is something to do though no record comes.
    fn has_work(&self) -> bool {
        self.block.batches > 0 || !self.restoring.is_empty()
    }

    fn handle(&mut self, event: Event, now_ms: u64) -> Result<(), WorkerError> {
        match event {
            Event::Batch(batch) if self.discard_polled || self.state != State::Running => self.source.recycle(batch),
            Event::Batch(batch) => self.take(batch, now_ms)?,
            Event::Assigned(places) => self.awaiting.extend(places),
            Event::Revoked(places) => {
                if self.rules.forget_revoked && self.state == State::Running && self.block.batches > 0 {
                    self.commit(now_ms)?;
                }
                self.give_up(&places)?;
            }
            Event::Lost(places) => {
                // Another member may have these already: nothing of theirs may be committed any more.
                self.abort(now_ms, "partitions were lost")?;
                self.give_up(&places)?;
            }
            Event::Ended => {
                self.source_ended = true;
                self.end_windows(now_ms)?;
            }
        }
        Ok(())
    }

    /// Processes a batch and hands its output to the delivery.
    fn take(&mut self, batch: Batch, now_ms: u64) -> Result<(), WorkerError> {
        let place = batch.place();
        let Some(task) = self.tasks.get_mut(&place).filter(|_| !self.held.contains_key(&place)) else {
            // Polled before the partition was given up, or while it is held.
            self.source.recycle(batch);
            return Ok(());
        };
        if batch.next_offset == batch.first_offset && task.position() == batch.first_offset {
            self.source.recycle(batch);
            return Ok(());
        }
        if self.block.batches == 0 {
            self.block.since_ms = now_ms;
        }
        let records = batch.rows.len() as u64;
        let started = Instant::now();
        let processed = task.process(&batch, &mut self.output);
        self.meter.batch(&batch, started.elapsed());
        self.source.recycle(batch);
        if let Err(why) = processed {
            return self.refused(place, why, now_ms);
        }
        if !self.admit(&place, now_ms)? {
            return Ok(());
        }
        self.block.records += records;
        self.block.bytes += self.output.bytes() as u64;
        self.block.batches += 1;
        self.block.taken.push((now_ms, records));
        let delivered = self.delivery.deliver(&mut self.output);
        self.outcome(delivered, now_ms)?;
        Ok(())
    }

    /// The order of delivery: outputs and dead letters were handed over as they came; now they and the offsets become
    /// visible as one, and only then the tasks' books move.
    fn commit(&mut self, now_ms: u64) -> Result<(), WorkerError> {
        let started = Instant::now();
        let mut progress = Vec::new();
        let moved: Vec<Place> =
            self.tasks.iter().filter(|(_, task)| task.is_moved()).map(|(place, _)| place.clone()).collect();
        for place in moved {
            if !self.tell_states(&place, now_ms)? {
                return Ok(());
            }
            let Some(task) = self.tasks.get_mut(&place) else { continue };
            let note = self.chain.note(task.since(), task.state_notes());
            task.sent(&note);
            progress.push(Progress { next_offset: task.position(), place, note });
        }
        let committed = self.delivery.commit(&progress, &mut self.source);
        if self.outcome(committed, now_ms)? {
            self.meter.committed(started.elapsed(), self.block.records);
            self.tasks.values_mut().for_each(Task::commit);
            self.commits += 1;
            self.committed = std::mem::take(&mut self.block.taken);
            self.block = Block { last_commit_ms: now_ms, ..Block::default() };
        }
        Ok(())
    }

    /// What follows from the outcome of a delivery's request; true where it succeeded.
    fn outcome(&mut self, result: Result<(), DeliveryError>, now_ms: u64) -> Result<bool, WorkerError> {
        match result {
            Ok(()) => Ok(true),
            Err(DeliveryError::Aborted(why)) => {
                self.abort(now_ms, &why)?;
                Ok(false)
            }
            Err(DeliveryError::InDoubt(why)) => {
                self.doubt(now_ms, &why);
                if !self.rules.renew_in_doubt {
                    self.state = State::Running;
                    self.abort(now_ms, &why)?;
                }
                Ok(false)
            }
            Err(fatal @ DeliveryError::Fatal(_)) => Err(fatal.into()),
        }
    }
}
