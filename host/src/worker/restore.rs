//! Partitions whose states are read back from their changelogs before their first record is taken.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{State, Worker, WorkerError};
use crate::record::Place;
use crate::source::{Start, StateRecord};
use crate::task::{StateNote, Task};

/// How long one look at the changelogs waits for records.
const READ_WAIT_MS: u64 = 10;

/// A partition on its way.
pub(super) struct Restoring {
    start: Start,
    task: Task,
    /// The changelogs that are read, by stage.
    open: BTreeMap<usize, Open>,
    since: Instant,
}

/// A changelog that is read.
#[derive(Clone, Copy, Debug)]
struct Open {
    base: i64,
    /// Read up to here; everything before was committed when the group was asked for the offset.
    end: i64,
    bytes: u64,
}

/// How far the restore of a partition is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReading {
    /// The partition.
    pub place: Place,
    /// Records of changelogs still to be read, at most.
    pub records_left: u64,
}

impl Worker {
    /// Begins with the states of a task that was just made; the task where there is nothing to read.
    pub(super) fn begin_states(
        &mut self,
        start: &Start,
        mut task: Task,
        notes: &BTreeMap<String, StateNote>,
    ) -> Result<Option<Task>, WorkerError> {
        task.take_notes(notes)?;
        let mut open = BTreeMap::new();
        let lane = task.lane();
        for stage in task.changelogs() {
            let name = &self.chain.pipeline.stages[stage].name;
            // After a stable answer of the group: what it holds was written before this end.
            let end = self.states.end(stage, lane)?;
            match notes.get(name) {
                Some(StateNote::Base(base)) => {
                    self.states.open(stage, lane, *base, end)?;
                    open.insert(stage, Open { base: *base, end, bytes: 0 });
                }
                // Nothing is known of states up to this offset: they begin here.
                _ => task.window(stage).into_iter().for_each(|window| window.begin(end)),
            }
        }
        if open.is_empty() {
            return Ok(Some(task));
        }
        tracing::info!("{}: its states are restored from {} changelogs", start.place, open.len());
        self.restoring
            .insert(start.place.clone(), Restoring { start: start.clone(), task, open, since: Instant::now() });
        Ok(None)
    }

    /// Reads on in the changelogs; what is restored takes records from now on.
    pub(super) fn restore(&mut self) -> Result<(), WorkerError> {
        if self.restoring.is_empty() || self.state != State::Running {
            return Ok(());
        }
        let restoring = &mut self.restoring;
        let mut failed = None;
        self.states.poll(READ_WAIT_MS, |StateRecord { stage, partition, key, value }| {
            let found = restoring.values_mut().find(|restoring| restoring.task.lane() == partition);
            let Some(Restoring { task, open, .. }) = found else { return };
            if let Some(open) = open.get_mut(&stage) {
                open.bytes += (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64;
            }
            let loaded = task.window(stage).map_or(Ok(()), |window| window.load(key, value));
            if let Err(why) = loaded {
                failed = Some(task.not_taken(stage, why));
            }
        })?;
        if let Some(why) = failed {
            return Err(why.into());
        }
        let states = &self.states;
        let done = |(place, restoring): (&Place, &Restoring)| {
            let lane = restoring.task.lane();
            let read = |(stage, open): (&usize, &Open)| states.position(*stage, lane) >= open.end;
            restoring.open.iter().all(read).then(|| place.clone())
        };
        let done: Vec<Place> = self.restoring.iter().filter_map(done).collect();
        for place in done {
            self.restored(&place)?;
        }
        Ok(())
    }

    fn restored(&mut self, place: &Place) -> Result<(), WorkerError> {
        let Some(Restoring { start, mut task, open, since }) = self.restoring.remove(place) else { return Ok(()) };
        let (mut records, mut all_bytes) = (0, 0);
        for (stage, Open { base, end, bytes }) in open {
            (records, all_bytes) = (records + end - base, all_bytes + bytes);
            self.states.close(stage, task.lane())?;
            let loaded = task.window(stage).map_or(Ok(()), |window| window.loaded(base, bytes, start.offset));
            loaded.map_err(|why| task.not_taken(stage, why))?;
        }
        tracing::info!(
            "{place}: its states are restored: {records} records, {} MiB, {:.1} s",
            all_bytes >> 20,
            since.elapsed().as_secs_f64()
        );
        self.tasks.insert(place.clone(), task);
        Ok(self.source.assign(&[start])?)
    }

    /// Gives up what is being restored for these partitions.
    pub(super) fn forget_restoring(&mut self, places: &[Place]) -> Result<(), WorkerError> {
        for place in places {
            if let Some(Restoring { open, task, .. }) = self.restoring.remove(place) {
                open.keys().try_for_each(|&stage| self.states.close(stage, task.lane()))?;
            }
        }
        Ok(())
    }

    /// How far restores are.
    pub fn restore_readings(&self) -> Vec<RestoreReading> {
        let reading = |(place, restoring): (&Place, &Restoring)| {
            let lane = restoring.task.lane();
            let left = |(stage, open): (&usize, &Open)| (open.end - self.states.position(*stage, lane)).max(0) as u64;
            RestoreReading { place: place.clone(), records_left: restoring.open.iter().map(left).sum() }
        };
        self.restoring.iter().map(reading).collect()
    }
}
