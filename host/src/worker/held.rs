//! Partitions whose batch could not be run: the host's trouble, and no record's fault.
//!
//! Nothing of such a batch counts. Its partition is held for a moment and then read again from where it stands, while
//! polling and the other partitions go on.

use super::{State, Worker, WorkerError};
use crate::pipeline::HOLD_MS;
use crate::plugin::StageError;
use crate::record::Place;
use crate::source::SourceError;
use crate::task::{Task, TaskError};

impl Worker {
    /// What follows where a task did not take a batch.
    pub(super) fn refused(&mut self, place: Place, why: TaskError, now_ms: u64) -> Result<(), WorkerError> {
        match why {
            // Told to end: what was processed before is committed on the way out, and this batch is left to the next start.
            TaskError::Stage(StageError::Interrupted) => Ok(()),
            TaskError::Stage(why) if why.is_transient() => {
                match why {
                    // What the configuration asks for, several times a second.
                    StageError::Waiting(_) | StageError::Unready(_) => {
                        tracing::debug!("{place}: held, its records are tried again soon: {why}")
                    }
                    _ => tracing::warn!("{place}: held, its records are tried again soon: {why}"),
                }
                let taken = !matches!(why, StageError::Unready(_));
                if taken && self.tasks.get(&place).is_some_and(Task::is_stateful) {
                    // Stages before the one that failed may have taken the records into their states.
                    self.abort(now_ms, "a batch was taken in part")?;
                }
                self.held.insert(place, now_ms + HOLD_MS);
                Ok(())
            }
            why => Err(why.into()),
        }
    }

    /// Reads on where partitions were held long enough.
    pub(super) fn resume_held(&mut self, now_ms: u64) -> Result<(), WorkerError> {
        if self.state != State::Running || self.held.values().all(|&until_ms| until_ms > now_ms) {
            return Ok(());
        }
        let due = |(place, &until_ms): (&Place, &u64)| (until_ms <= now_ms).then(|| place.clone());
        let due: Vec<Place> = self.held.iter().filter_map(due).collect();
        let start = |place: &Place| self.tasks.get(place).map(|task| (place.clone(), task.position()));
        let starts: Vec<_> = due.iter().filter_map(start).collect();
        match self.source.seek(&starts) {
            Err(SourceError::Retriable(why)) => tracing::warn!("the source does not go back yet: {why}"),
            sought => {
                sought?;
                self.held.retain(|place, _| !due.contains(place));
            }
        }
        Ok(())
    }
}
