//! Partitions come and go: each is a task from its assignment to its end.

use super::{State, Worker, WorkerError};
use crate::record::Place;
use crate::source::SourceError;

impl Worker {
    /// Starts tasks for the partitions that were assigned, where their group says.
    pub(super) fn start_awaiting(&mut self) -> Result<(), WorkerError> {
        if self.awaiting.is_empty() || self.state != State::Running {
            return Ok(());
        }
        let starts = match self.source.starts(&self.awaiting) {
            Err(SourceError::Retriable(why)) => {
                tracing::warn!("no offsets to start from yet: {why}");
                return Ok(());
            }
            starts => starts?,
        };
        if !self.start_tasks(&starts)? {
            return Ok(());
        }
        self.awaiting.clear();
        let starts: Vec<_> = starts.into_iter().filter(|start| self.tasks.contains_key(&start.place)).collect();
        Ok(self.source.assign(&starts)?)
    }

    pub(super) fn give_up(&mut self, places: &[Place]) -> Result<(), WorkerError> {
        if self.rules.forget_revoked {
            self.forget(places);
        }
        self.awaiting.retain(|place| !places.contains(place));
        self.forget_restoring(places)?;
        Ok(self.source.unassign(places)?)
    }

    pub(super) fn forget(&mut self, places: &[Place]) {
        for place in places {
            if let Some(task) = self.tasks.remove(place) {
                self.closed.add(task.ledger());
                self.meter.close(place, &task);
            }
        }
    }
}
