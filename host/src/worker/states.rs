//! States of stages on their way out: told at commits, and closed when no records come.

use super::{Worker, WorkerError};
use crate::record::Place;
use crate::source::SourceError;
use crate::task::Task;

impl Worker {
    /// Hands over what the stages of a partition have to say at this commit; false where the block was undone.
    pub(super) fn tell_states(&mut self, place: &Place, now_ms: u64) -> Result<bool, WorkerError> {
        self.begin_sweeps(place)?;
        let Some(task) = self.tasks.get_mut(place).filter(|task| task.is_stateful()) else { return Ok(true) };
        let lane = task.lane();
        let told = task.tell();
        let delivered = if self.rules.tell_states { self.delivery.deliver_states(lane, told) } else { Ok(()) };
        self.outcome(delivered, now_ms)
    }

    /// Has changelogs shortened that have grown long.
    fn begin_sweeps(&mut self, place: &Place) -> Result<(), WorkerError> {
        let Some(task) = self.tasks.get_mut(place) else { return Ok(()) };
        let lane = task.lane();
        for stage in task.changelogs() {
            let Some(window) = task.window(stage).filter(|window| window.wants_sweep()) else { continue };
            match self.states.end(stage, lane) {
                Ok(end) => window.begin_sweep(end),
                Err(SourceError::Retriable(why)) => {
                    tracing::warn!("{place}: its changelog is not shortened yet: {why}")
                }
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    /// Time passes: closes windows of partitions that bring nothing, where that is asked for.
    pub(super) fn tick(&mut self, now_ms: u64) -> Result<(), WorkerError> {
        let ticking = |(place, task): (&Place, &Task)| {
            (task.is_stateful() && !self.held.contains_key(place)).then(|| place.clone())
        };
        let places: Vec<Place> = self.tasks.iter().filter_map(ticking).collect();
        for place in places {
            if self.state != super::State::Running {
                return Ok(());
            }
            let Some(task) = self.tasks.get_mut(&place) else { continue };
            let at_end = self.source.end_offset(&place).is_some_and(|end| task.position() >= end);
            let ticked = task.tick(now_ms, at_end, &mut self.output);
            self.took_time(place, ticked, now_ms)?;
        }
        Ok(())
    }

    /// The source has ended, and with it every window.
    pub(super) fn end_windows(&mut self, now_ms: u64) -> Result<(), WorkerError> {
        let places: Vec<Place> = self.tasks.keys().cloned().collect();
        for place in places {
            let Some(task) = self.tasks.get_mut(&place) else { continue };
            let ended = task.end(&mut self.output);
            self.took_time(place, ended, now_ms)?;
        }
        Ok(())
    }

    /// Delivers what a task did because of the time.
    fn took_time(
        &mut self,
        place: Place,
        done: Result<bool, crate::task::TaskError>,
        now_ms: u64,
    ) -> Result<(), WorkerError> {
        match done {
            Ok(false) => Ok(()),
            Err(why) => self.refused(place, why, now_ms),
            Ok(true) => {
                if self.block.batches == 0 {
                    self.block.since_ms = now_ms;
                }
                self.block.bytes += self.output.bytes() as u64;
                self.block.batches += 1;
                let delivered = self.delivery.deliver(&mut self.output);
                self.outcome(delivered, now_ms).map(drop)
            }
        }
    }

    /// Reads on in changelogs, where servers answer.
    pub(super) fn try_restore(&mut self) -> Result<(), WorkerError> {
        match self.restore() {
            Err(WorkerError::Source(SourceError::Retriable(why))) => {
                tracing::warn!("states are not restored yet: {why}");
                Ok(())
            }
            done => done,
        }
    }
}
