//! The way back: transactions that are aborted, and requests whose outcome is unknown.

use super::{Block, RECOVERY_BACKOFF_MS, State, Worker, WorkerError};
use crate::record::Place;
use crate::sink::DeliveryError;
use crate::source::SourceError;
use crate::task::TaskError;

impl Worker {
    pub(super) fn doubt(&mut self, now_ms: u64, why: &str) {
        tracing::warn!("a request's outcome is unknown, asking what was committed: {why}");
        self.state = State::InDoubt { retry_at_ms: now_ms };
        self.discard_polled = true;
        self.meter.undone(true);
    }

    /// Ends the open transaction without effect and puts every task back to its last commit.
    pub(super) fn abort(&mut self, now_ms: u64, why: &str) -> Result<(), WorkerError> {
        if self.state != State::Running {
            return Ok(());
        }
        tracing::warn!("the transaction is aborted and its records are processed again: {why}");
        match self.delivery.abort() {
            Ok(()) => {}
            Err(fatal @ DeliveryError::Fatal(_)) => return Err(fatal.into()),
            Err(DeliveryError::Aborted(why) | DeliveryError::InDoubt(why)) => {
                self.doubt(now_ms, &why);
                return Ok(());
            }
        }
        self.discard_polled = true;
        self.meter.undone(false);
        self.release();
        self.block = Block { last_commit_ms: now_ms, ..Block::default() };
        if self.rules.restore_on_abort {
            let starts: Vec<(Place, i64)> = self
                .tasks
                .iter_mut()
                .map(|(place, task)| {
                    let offset = task.committed();
                    task.restore(offset);
                    (place.clone(), offset)
                })
                .collect();
            self.seek(&starts, now_ms)?;
        }
        Ok(())
    }

    /// Makes the producer anew, which ends whatever it had open, and goes on where the group says.
    pub(super) fn settle(&mut self, now_ms: u64) -> Result<(), WorkerError> {
        let again = State::InDoubt { retry_at_ms: now_ms + RECOVERY_BACKOFF_MS };
        self.discard_polled = true;
        match self.delivery.renew() {
            Ok(()) => {}
            Err(fatal @ DeliveryError::Fatal(_)) => return Err(fatal.into()),
            Err(DeliveryError::Aborted(why) | DeliveryError::InDoubt(why)) => {
                tracing::warn!("still in doubt: {why}");
                self.state = again;
                return Ok(());
            }
        }
        let places: Vec<Place> = self.tasks.keys().cloned().collect();
        let offsets = match self.source.committed(&places) {
            Err(SourceError::Retriable(why)) => {
                tracing::warn!("still in doubt: {why}");
                self.state = again;
                return Ok(());
            }
            offsets => offsets?,
        };
        let mut starts = Vec::new();
        for ((place, task), committed) in self.tasks.iter_mut().zip(offsets) {
            match committed {
                Some((offset, note)) if task.is_committed(offset, &note) => task.commit(),
                Some((offset, _)) if task.is_stateful() && offset != task.committed() => {
                    return Err(TaskError::Overtaken(place.clone()).into());
                }
                committed => task.restore(committed.map_or(task.committed(), |(offset, _)| offset)),
            }
            starts.push((place.clone(), task.position()));
        }
        self.state = State::Running;
        self.block = Block { last_commit_ms: now_ms, ..Block::default() };
        self.seek(&starts, now_ms)
    }

    fn seek(&mut self, starts: &[(Place, i64)], now_ms: u64) -> Result<(), WorkerError> {
        match self.source.seek(starts) {
            Err(SourceError::Retriable(why)) => {
                // The tasks are back already; the source has to follow before anything is taken.
                self.doubt(now_ms + RECOVERY_BACKOFF_MS, &why);
                Ok(())
            }
            sought => Ok(sought?),
        }
    }
}
