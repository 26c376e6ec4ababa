//! A worker and the chain in force: it follows a swap between two blocks, and gives a chain up that does harm.

use std::time::Instant;

use super::{Asker, Chain, Note, State, WayBack, Worker, WorkerError};
use crate::config::{BreakerAction, BreakerConfig};
use crate::record::Place;
use crate::source::{SourceError, Start};
use crate::task::Task;

/// Over how long faults are counted.
const BREAKER_MS: u64 = 60_000;

/// The faults of the last minute, of one chain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    since_ms: u64,
    count: u64,
}

impl Worker {
    /// Runs the chain in force, once the block that is open was committed under the chain that it was processed with: the
    /// swap waits for that commit, and no record waits for the swap.
    pub(super) fn follow_chain(&mut self) -> Result<(), WorkerError> {
        let follows = self.shared.chains.number() == self.chain.number;
        if follows || self.block.batches > 0 || !self.restoring.is_empty() || self.state != State::Running {
            return Ok(());
        }
        let started = Instant::now();
        let chain = self.shared.chains.current();
        let made: Result<Vec<_>, _> = self.tasks.keys().map(|place| (chain.stages)(place.partition)).collect();
        let made = match made {
            Err(why) if why.is_transient() => {
                tracing::warn!("the swap waits: {why}");
                return Ok(());
            }
            made => made?,
        };
        for (task, stages) in self.tasks.values_mut().zip(made) {
            self.meter.retire(task);
            let Chain { pipeline, labels, lineage, .. } = chain.as_ref().clone();
            task.swap(pipeline, stages, labels, lineage);
        }
        self.chain = chain;
        self.faults = Faults::default();
        self.shared.chains.follow(self.chain.number, started.elapsed());
        Ok(())
    }

    /// Starts tasks on the chain in force; false where that has to be tried again.
    pub(super) fn start_tasks(&mut self, starts: &[Start]) -> Result<bool, WorkerError> {
        for start in starts {
            let Start { place, offset, note } = start;
            let Chain { pipeline, labels, lineage, plugins, .. } = self.chain.as_ref().clone();
            let stages = match (self.chain.stages)(place.partition) {
                Err(why) if why.is_transient() => {
                    tracing::warn!("{place}: not started yet: {why}");
                    return Ok(false);
                }
                stages => stages?,
            };
            let of = (place.topic.clone(), place.partition);
            let bounds = (self.shared.budget, self.shared.row_limits.clone());
            let mut task = Task::new(of, *offset, pipeline, stages, labels, bounds);
            task.set_lineage(lineage);
            task.set_lanes(&self.shared.lanes);
            let note = note.as_deref().and_then(Note::parse);
            let states = note.as_ref().map(|note| note.state.clone()).unwrap_or_default();
            match note {
                Some(note) if note.plugins == *plugins => task.set_since(note.since),
                Some(note) => {
                    let changed = plugins.iter().filter(|(stage, digest)| note.plugins.get(*stage) != Some(*digest));
                    let stages: Vec<&str> = changed.map(|(stage, _)| stage.as_str()).collect();
                    tracing::info!(
                        "{place}: from offset {offset} on other plugins run than before: {}",
                        stages.join(", ")
                    );
                }
                None => {}
            }
            match self.begin_states(start, task, &states) {
                Ok(Some(task)) => drop(self.tasks.insert(place.clone(), task)),
                Ok(None) => {}
                Err(WorkerError::Source(SourceError::Retriable(why))) => {
                    tracing::warn!("{place}: its states are not found yet: {why}");
                    let places: Vec<Place> = starts.iter().map(|start| start.place.clone()).collect();
                    self.tasks.retain(|place, _| !places.contains(place));
                    self.forget_restoring(&places)?;
                    return Ok(false);
                }
                Err(why) => return Err(why),
            }
        }
        Ok(true)
    }

    /// Takes the batch that a task has just processed into account, before any of it is delivered. False where the chain
    /// is given up for it: the block is undone, and its records come again.
    pub(super) fn admit(&mut self, place: &Place, now_ms: u64) -> Result<bool, WorkerError> {
        let Some(task) = self.tasks.get(place) else { return Ok(true) };
        if let Some(watch) = self.chain.watch.clone() {
            let batch = task.tally(&watch.stages);
            if let Err(why) = watch.admit(now_ms, batch) {
                self.abort(now_ms, &why)?;
                // Where others were faster, their chain is followed at the next step.
                if self.shared.chains.roll_back(self.chain.number, Asker::Worker, &why) == WayBack::Nothing {
                    self.shared.chains.pause(&why);
                }
                return Ok(false);
            }
            self.block.admitted = self.block.admitted.plus(batch);
        }
        let Some(breaker) = self.shared.breaker else { return Ok(true) };
        let found = task.faults();
        if found == 0 {
            return Ok(true);
        }
        if now_ms >= self.faults.since_ms + BREAKER_MS {
            self.faults = Faults { since_ms: now_ms, count: 0 };
        }
        let before = self.faults.count;
        self.faults.count += found;
        if before <= breaker.faults_per_minute && self.faults.count > breaker.faults_per_minute {
            self.open_breaker(breaker);
        }
        Ok(true)
    }

    fn open_breaker(&mut self, breaker: BreakerConfig) {
        let why = format!("{} records made plugins fault within a minute", self.faults.count);
        let chains = &self.shared.chains;
        match breaker.then {
            BreakerAction::Divert => tracing::warn!("{why}; they go on to the dead letters"),
            BreakerAction::Pause => chains.pause(&why),
            BreakerAction::Rollback => match chains.roll_back(self.chain.number, Asker::Worker, &why) {
                WayBack::Done(_) | WayBack::Overtaken => {}
                WayBack::Nothing => chains.pause(&why),
            },
        }
    }

    /// Takes back what the watch admitted of a block that is undone.
    pub(super) fn release(&mut self) {
        let admitted = std::mem::take(&mut self.block.admitted);
        if let Some(watch) = &self.chain.watch {
            watch.release(admitted);
        }
    }
}
