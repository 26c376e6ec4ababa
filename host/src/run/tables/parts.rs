//! A table that is a topic, of which a task sees its own partition only: what is wanted is read, and what nobody wants any more
//! is forgotten.
//!
//! No assignor promises the same partition of two topics to one member (K7). So the group assigns the source's partitions alone;
//! a task that begins wants the table's partition of the same number, which is assigned by hand, and its records wait until that
//! is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::kafka::{BEGINNING, KafkaError};
use crate::record::Place;
use crate::table::{Builder, Part};

use super::Intake;
use super::topic::{Follower, LOOK_INTERVAL, LOOK_TIMEOUT, Reader};

/// A partition that is read.
struct Reading {
    part: Arc<Part>,
    /// What was fetched and is not in force.
    fetched: Builder,
    /// Where the topic ended when it was first wanted, committed or not; `None` once that is read.
    end: Option<i64>,
    since: Instant,
}

type Readings = BTreeMap<i32, Reading>;

impl Follower {
    /// Keeps the partitions that are wanted until the run ends; the error is what can't be mended by waiting.
    pub(super) fn keep_parts(&self, reader: &mut Reader, intake: &mut Intake<'_>) -> Result<(), String> {
        let mut readings = Readings::new();
        while !self.is_over() {
            if let Err(why) = self.follow(reader, &mut readings) {
                self.note_failure(&why.to_string());
            }
            if reader.looked.elapsed() >= LOOK_INTERVAL {
                intake.bad = 0;
                self.look_at_parts(reader, &readings)?;
            }
            self.poll(reader)?;
            self.apply_parts(reader, intake, &mut readings)?;
        }
        Ok(())
    }

    /// Reads what is wanted now and was not before, and no longer what nobody wants.
    fn follow(&self, reader: &mut Reader, readings: &mut Readings) -> Result<(), KafkaError> {
        let wanted = self.table.parts();
        let is_same = |partition: &i32, reading: &Reading| {
            // Our own hold on it is no want: then it is in no other hands, and not among those that are wanted.
            wanted.get(partition).is_some_and(|part| Arc::ptr_eq(part, &reading.part) && Arc::strong_count(part) > 2)
        };
        let gone = readings.extract_if(.., |partition, reading| !is_same(partition, reading));
        let gone: Vec<i32> = gone.map(|(partition, _)| partition).collect();
        for partition in gone {
            reader.consumer.unassign(&[self.place(partition)])?;
            reader.positions.remove(&partition);
            tracing::info!("table `{}`: {} is no longer needed", self.config.name, self.place(partition));
        }
        for (partition, part) in wanted {
            if readings.contains_key(&partition) || Arc::strong_count(&part) < 2 {
                continue;
            }
            let place = self.place(partition);
            let (first, end) = reader.admin.watermarks(&place, LOOK_TIMEOUT)?;
            reader.consumer.assign(&[place.at(BEGINNING)])?;
            reader.positions.insert(partition, first);
            let fetched = self.table.empty().changes();
            readings.insert(partition, Reading { part, fetched, end: Some(end), since: Instant::now() });
        }
        Ok(())
    }

    /// Puts what was fetched in force, of a partition that is read for the first time when its end is there.
    fn apply_parts(&self, reader: &mut Reader, intake: &mut Intake<'_>, readings: &mut Readings) -> Result<(), String> {
        let bad = intake.bad;
        for batch in reader.polled.batches.drain(..) {
            if let Some(reading) = readings.get_mut(&batch.partition) {
                std::mem::swap(&mut intake.rows, &mut reading.fetched);
                let taken = self.take_batch(&batch, intake);
                std::mem::swap(&mut intake.rows, &mut reading.fetched);
                taken?;
                if reading.end.is_none() {
                    self.table.note_changes(batch.rows.len() as u64);
                }
            }
            reader.consumer.recycle(batch.rows);
        }
        self.table.note_bad_rows(intake.bad - bad);
        for (partition, reading) in readings.iter_mut() {
            let at = reader.positions.get(partition).copied().unwrap_or_default();
            let is_whole = reading.end.is_none_or(|end| at >= end);
            if !is_whole || (reading.end.is_none() && reading.fetched.is_empty()) {
                continue;
            }
            // What is read for the first time begins anew: tombstones of rows that it once had may be gone.
            let before =
                if reading.end.is_some() { Arc::new(self.table.empty().clone()) } else { reading.part.snapshot() };
            let next = before.with(std::mem::replace(&mut reading.fetched, before.changes()));
            if reading.end.take().is_some() {
                self.table.note_load();
                let (rows, ms) = (next.rows(), reading.since.elapsed().as_millis());
                tracing::info!("table `{}`: {rows} rows from {} in {ms} ms", self.config.name, self.place(*partition));
            }
            reading.part.publish(next);
        }
        let (mut bytes, mut rows) = (0, 0);
        for reading in readings.values() {
            let snapshot = reading.part.snapshot();
            bytes += snapshot.bytes() + reading.fetched.bytes() as u64;
            rows += snapshot.rows() + reading.fetched.rows() as u64;
        }
        intake.check_memory(bytes, rows)
    }

    /// Asks where the partitions end, and whether topic and source still have as many.
    fn look_at_parts(&self, reader: &mut Reader, readings: &Readings) -> Result<(), String> {
        reader.looked = Instant::now();
        self.check_counts(reader, LOOK_TIMEOUT)?;
        let mut lags = Vec::new();
        for partition in readings.keys() {
            let place = self.place(*partition);
            match reader.admin.watermarks(&place, LOOK_TIMEOUT) {
                Ok((_, end)) => {
                    let at = reader.positions.get(partition).copied().unwrap_or_default();
                    if end < at {
                        return Err(format!(
                            "{place} ends at {end}, but was read up to {at}: the topic is another one"
                        ));
                    }
                    lags.push((Place { topic: place.topic, partition: *partition }, (end - at) as u64));
                }
                Err(why) => {
                    self.note_failure(&why.to_string());
                    return Ok(());
                }
            }
        }
        self.table.note_lags(lags);
        if self.table.note_current() {
            tracing::info!("table `{}` is kept current again", self.config.name);
        }
        Ok(())
    }
}
