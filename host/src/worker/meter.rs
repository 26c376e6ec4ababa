//! What a worker measures of itself: plain numbers that only it touches, of which copies are handed out.
//!
//! Per record there is one comparison, of its timestamp with the one before; everything else is per batch or commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::QualityConfig;
use crate::metrics::{ClientFigures, ClientTotals, Histogram, LATENCY, RECORDS, TIME};
use crate::plugin::StageUsage;
use crate::quality::{Census, Counts};
use crate::record::{Batch, Place};
use crate::task::Task;
use crate::window::{self, Tally};

/// The most runs of equal timestamps that are kept for one commit; beyond them neighbours share the older one's.
const RUNS_MAX: usize = 8_192;
/// Timestamps count as equal that differ by this part of the record's age: a backlog of hours is not told by the millisecond.
const TOLERANCE: u64 = 32;
/// How often the counts of the data's quality are copied, which are large.
const COPY_INTERVAL_MS: u64 = 500;

/// What a worker has measured; times since 1970 UTC are in milliseconds.
#[derive(Clone, Debug)]
pub struct Readings {
    /// From a record's timestamp to its commit.
    pub latency: Histogram,
    /// A batch's way through all stages.
    pub batch_time: Histogram,
    /// A commit that succeeded.
    pub commit_time: Histogram,
    /// Records in a batch.
    pub batch_records: Histogram,
    /// Records in a commit.
    pub commit_records: Histogram,
    /// Bytes taken from the source.
    pub source_bytes: u64,
    /// Transactions that were aborted.
    pub aborted: u64,
    /// Requests whose outcome was unknown at first.
    pub in_doubt: u64,
    /// What each stage has used.
    pub stages: Vec<StageUsage>,
    /// The partitions that this worker has now.
    pub partitions: Vec<PartitionReading>,
    /// What each stage that keeps states holds for each of them.
    pub states: Vec<StateReading>,
    /// What each stage that keeps states has counted.
    pub windows: Vec<Tally>,
    /// The consumer's figures.
    pub consumer: ClientFigures,
    /// The producer's figures.
    pub producer: ClientFigures,
    /// True while source and sinks answer.
    pub answers: bool,
    /// When a record last arrived.
    pub last_arrival_ms: Option<u64>,
    /// What a sample of the records looked like, some moments ago.
    pub quality: Option<Arc<Counts>>,
}

impl Readings {
    /// What a worker of a pipeline with so many stages has measured before it began.
    pub fn new(stages: usize) -> Self {
        Self {
            latency: Histogram::new(&LATENCY),
            batch_time: Histogram::new(&TIME),
            commit_time: Histogram::new(&TIME),
            batch_records: Histogram::new(&RECORDS),
            commit_records: Histogram::new(&RECORDS),
            source_bytes: 0,
            aborted: 0,
            in_doubt: 0,
            stages: vec![StageUsage::default(); stages],
            partitions: Vec::new(),
            states: Vec::new(),
            windows: vec![Tally::default(); stages],
            consumer: ClientFigures::default(),
            producer: ClientFigures::default(),
            answers: true,
            last_arrival_ms: None,
            quality: None,
        }
    }

    /// Adds what another worker measured, but for the samples of the data.
    pub fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.batch_time.add(&other.batch_time);
        self.commit_time.add(&other.commit_time);
        self.batch_records.add(&other.batch_records);
        self.commit_records.add(&other.commit_records);
        self.source_bytes += other.source_bytes;
        self.aborted += other.aborted;
        self.in_doubt += other.in_doubt;
        self.stages.iter_mut().zip(&other.stages).for_each(|(own, other)| own.add(other));
        self.partitions.extend_from_slice(&other.partitions);
        self.states.extend_from_slice(&other.states);
        self.windows.iter_mut().zip(&other.windows).for_each(|(own, other)| own.add(*other));
        self.consumer.add(&other.consumer);
        self.producer.add(&other.producer);
        self.answers &= other.answers;
        self.last_arrival_ms = self.last_arrival_ms.max(other.last_arrival_ms);
    }
}

/// What a stage holds for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReading {
    /// The stage's index.
    pub stage: usize,
    /// The partition.
    pub place: Place,
    /// What it holds.
    pub holds: window::Reading,
}

/// Where a partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionReading {
    /// The partition.
    pub place: Place,
    /// The offset that a restart would begin at.
    pub committed: i64,
    /// The offset after its last record, if that is known.
    pub end: Option<i64>,
    /// A time that the oldest uncommitted record is not older than, if there is one and that is known.
    pub waiting_since_ms: Option<u64>,
}

impl PartitionReading {
    /// Records behind the committed offset.
    pub fn lag_records(&self) -> Option<u64> {
        self.end.map(|end| u64::try_from(end - self.committed).unwrap_or(0))
    }

    /// How long the oldest of them has waited at most.
    pub fn lag_seconds(&self, now_ms: u64) -> Option<f64> {
        match self.lag_records()? {
            0 => Some(0.0),
            _ => Some(now_ms.saturating_sub(self.waiting_since_ms?) as f64 / 1e3),
        }
    }
}

/// The times of a partition by which its lag is told.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// The timestamps of the first and last record that is taken and not committed.
    pending_ms: Option<(u64, u64)>,
    /// The timestamp of the last committed record.
    committed_ms: Option<u64>,
    /// When nothing was known to wait.
    caught_up_ms: Option<u64>,
}

/// The numbers of one worker.
#[derive(Debug)]
pub(super) struct Meter {
    on: bool,
    readings: Readings,
    /// Timestamps of uncommitted records with their number, in runs.
    pending: Vec<(u64, u64)>,
    times: BTreeMap<Place, Times>,
    /// What the stages of tasks that are gone have used, and what they could not do.
    closed: Vec<StageUsage>,
    closed_windows: Vec<Tally>,
    consumer: ClientTotals,
    producer: ClientTotals,
    census: Option<Census>,
    /// When the census' counts were last copied.
    copied_ms: u64,
    /// True where the consumer last said that it is connected to nobody.
    down: bool,
}

impl Meter {
    /// A meter for a pipeline of so many stages; one that is not `on` measures next to nothing.
    pub(super) fn new(stages: usize, on: bool, quality: Option<Arc<QualityConfig>>) -> Self {
        Self {
            census: quality.map(Census::new),
            copied_ms: 0,
            on,
            readings: Readings::new(stages),
            pending: Vec::new(),
            times: BTreeMap::new(),
            closed: vec![StageUsage::default(); stages],
            closed_windows: vec![Tally::default(); stages],
            consumer: ClientTotals::default(),
            producer: ClientTotals::default(),
            down: false,
        }
    }

    /// Notes a batch that went through all stages.
    pub(super) fn batch(&mut self, batch: &Batch, time: Duration) {
        if !self.on || batch.rows.is_empty() {
            return;
        }
        let readings = &mut self.readings;
        readings.batch_time.record_time(time);
        readings.batch_records.record(batch.rows.len() as u64, 1);
        readings.source_bytes += batch.rows.bytes() as u64;
        let now_ms = now_ms();
        readings.last_arrival_ms = Some(now_ms);
        if let Some(census) = &mut self.census {
            census.observe(batch, now_ms);
        }
        let known = batch.rows.timestamps_ms.iter().filter_map(|&ms| u64::try_from(ms).ok());
        let mut ends: Option<(u64, u64)> = None;
        let mut tolerance_ms = 0;
        for timestamp in known {
            if ends.is_none() {
                tolerance_ms = now_ms.saturating_sub(timestamp) / TOLERANCE;
            }
            ends = Some((ends.map_or(timestamp, |ends| ends.0), timestamp));
            match self.pending.last_mut() {
                Some(run) if run.0.abs_diff(timestamp) <= tolerance_ms => run.1 += 1,
                _ => self.pending.push((timestamp, 1)),
            }
        }
        if self.pending.len() > RUNS_MAX {
            thin_out(&mut self.pending);
        }
        if let Some((first, last)) = ends {
            let times = self.times.entry(batch.place()).or_default();
            times.pending_ms = Some((times.pending_ms.map_or(first, |pending| pending.0), last));
        }
    }

    /// Notes that everything taken so far is committed.
    pub(super) fn committed(&mut self, time: Duration, records: u64) {
        if !self.on {
            return;
        }
        let (now_ms, readings) = (now_ms(), &mut self.readings);
        readings.commit_time.record_time(time);
        readings.commit_records.record(records, 1);
        for (timestamp, count) in self.pending.drain(..) {
            readings.latency.record(now_ms.saturating_sub(timestamp).saturating_mul(1_000), count);
        }
        for times in self.times.values_mut() {
            times.committed_ms = times.pending_ms.take().map(|(_, last)| last).or(times.committed_ms);
        }
    }

    /// Notes that what was taken since the last commit is taken again.
    pub(super) fn undone(&mut self, in_doubt: bool) {
        *(if in_doubt { &mut self.readings.in_doubt } else { &mut self.readings.aborted }) += 1;
        self.pending.clear();
        self.times.values_mut().for_each(|times| times.pending_ms = None);
    }

    /// Keeps what a task's stages have used that are replaced.
    pub(super) fn retire(&mut self, task: &Task) {
        add_usage(&mut self.closed, task);
    }

    /// Keeps what a task's stages have used that is given up.
    pub(super) fn close(&mut self, place: &Place, task: &Task) {
        add_usage(&mut self.closed, task);
        add_windows(&mut self.closed_windows, task);
        self.times.remove(place);
    }

    /// Takes what a client says of itself, if there is news.
    pub(super) fn figures(&mut self, consumer: Option<ClientFigures>, producer: Option<ClientFigures>) {
        if let Some(figures) = consumer {
            self.consumer.note(figures);
            self.down = figures.brokers_up == 0;
        }
        producer.into_iter().for_each(|figures| self.producer.note(figures));
    }

    /// A copy of everything; `end_offset` says where a partition ends.
    pub(super) fn readings<'a>(
        &mut self,
        tasks: impl Iterator<Item = (&'a Place, &'a Task)>,
        end_offset: impl Fn(&Place) -> Option<i64>,
        answers: bool,
    ) -> Readings {
        let now_ms = now_ms();
        let (mut stages, mut windows) = (self.closed.clone(), self.closed_windows.clone());
        let (mut partitions, mut states) = (Vec::new(), Vec::new());
        for (place, task) in tasks {
            add_usage(&mut stages, task);
            add_windows(&mut windows, task);
            let state = |(stage, holds)| StateReading { stage, place: place.clone(), holds };
            states.extend(task.state_readings().map(state));
            let times = self.times.entry(place.clone()).or_default();
            let (committed, end) = (task.committed(), end_offset(place).filter(|&end| end >= 0));
            if end.is_some_and(|end| end <= committed) {
                times.caught_up_ms = Some(now_ms);
            }
            let known = times.committed_ms.max(times.caught_up_ms);
            let waiting_since_ms = known.or(times.pending_ms.map(|(first, _)| first));
            partitions.push(PartitionReading { place: place.clone(), committed, end, waiting_since_ms });
        }
        let (consumer, producer) = (self.consumer.figures(), self.producer.figures());
        if let Some(census) = self.census.as_ref().filter(|_| now_ms >= self.copied_ms + COPY_INTERVAL_MS) {
            self.readings.quality = Some(Arc::new(census.counts().clone()));
            self.copied_ms = now_ms;
        }
        let answers = answers && !self.down;
        Readings { stages, partitions, states, windows, consumer, producer, answers, ..self.readings.clone() }
    }
}

fn add_usage(to: &mut [StageUsage], task: &Task) {
    for (to, usage) in to.iter_mut().zip(task.stage_usage()) {
        usage.into_iter().for_each(|usage| to.add(usage));
    }
}

fn add_windows(to: &mut [Tally], task: &Task) {
    for (stage, holds) in task.state_readings() {
        to.iter_mut().skip(stage).take(1).for_each(|to| to.add(holds.tally));
    }
}

/// Halves the number of runs: of two neighbours' timestamps the older one stays, so that latency is never told too low.
fn thin_out(runs: &mut Vec<(u64, u64)>) {
    let pairs = runs.chunks(2).map(|pair| {
        let count = pair.iter().map(|run| run.1).sum();
        (pair.iter().map(|run| run.0).min().unwrap_or_default(), count)
    });
    *runs = pairs.collect();
}

/// The wall clock.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Rows;

    fn batch(timestamps: &[i64]) -> Batch {
        let mut rows = Rows::default();
        timestamps.iter().enumerate().for_each(|(i, ms)| rows.push(i as i64, *ms, None, Some(b"v")));
        let next_offset = timestamps.len() as i64;
        Batch { topic: "t".into(), partition: 0, first_offset: 0, next_offset, rows }
    }

    #[test]
    fn latency_counts_each_record_with_a_timestamp_once_it_is_committed() {
        let mut meter = Meter::new(0, true, None);
        let now = now_ms() as i64;
        meter.batch(&batch(&[now, now, now - 10_000, -1]), Duration::ZERO);
        assert_eq!(meter.readings.latency.count(), 0);
        meter.committed(Duration::ZERO, 4);
        assert_eq!(meter.readings.latency.count(), 3);
        meter.batch(&batch(&[now]), Duration::ZERO);
        meter.undone(false);
        meter.committed(Duration::ZERO, 0);
        assert_eq!((meter.readings.latency.count(), meter.readings.aborted), (3, 1));
    }

    #[test]
    fn what_is_kept_of_a_large_block_is_bounded_and_loses_no_record() {
        let mut meter = Meter::new(0, true, None);
        for block in 0..10 {
            let timestamps: Vec<i64> = (0..5_000).map(|i| 1_000_000 + block * 5_000 + i).collect();
            meter.batch(&batch(&timestamps), Duration::ZERO);
            assert!(meter.pending.len() <= RUNS_MAX + 5_000);
        }
        meter.committed(Duration::ZERO, 50_000);
        assert_eq!(meter.readings.latency.count(), 50_000);
    }

    #[test]
    fn lag_in_time_is_bounded_by_what_was_committed_or_known_to_be_all() {
        let place = Place { topic: "t".into(), partition: 0 };
        let reading =
            |end, waiting_since_ms| PartitionReading { place: place.clone(), committed: 10, end, waiting_since_ms };
        assert_eq!(reading(Some(10), None).lag_seconds(5_000), Some(0.0));
        assert_eq!(reading(Some(12), Some(2_000)).lag_seconds(5_000), Some(3.0));
        assert_eq!(reading(Some(12), None).lag_seconds(5_000), None);
        assert_eq!((reading(None, None).lag_records(), reading(Some(9), None).lag_records()), (None, Some(0)));
    }
}
