//! Kafka topics, read as a member of a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::kafka::{Consumer, GroupMetadata, KafkaError, Partition, Polled, Position, Rebalance};
use crate::metrics::ClientFigures;
use crate::record::{Batch, Place};

use super::{Committed, Event, SourceError, Start};

/// How long one request to the cluster may take before it is tried again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a commit with a note may take: longer than the client itself holds one back while the coordinator is away, so
/// that none takes effect after somebody gave it up.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// The most records that one poll takes.
const RECORDS_PER_POLL_MAX: usize = 4_096;

/// How often the ends of paused partitions are asked for, and how long one answer may take.
const ENDS_INTERVAL: Duration = Duration::from_secs(2);
const ENDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a partition begins that the group has no offset for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// Nowhere: the configuration has to say.
    Unsaid,
    /// At the first record.
    Earliest,
    /// After the last record.
    Latest,
    /// At the first record of this time, in milliseconds since 1970 UTC, or a later one.
    TimestampMs(i64),
}

/// The consumer of one worker.
pub struct KafkaSource {
    consumer: Consumer,
    polled: Polled,
    start: StartAt,
    /// Where the committed offset is gone: go on at what is left, instead of stopping.
    skip_lost: bool,
    filled: bool,
    paused: bool,
    /// Partitions that are left alone for now.
    held: Vec<Place>,
    /// Partitions that are read, each with its end as it was last asked for while it was paused.
    assigned: Vec<(Partition, Option<i64>)>,
    /// True once the group has said what is ours.
    answered: bool,
    ends_asked: Option<Instant>,
}

impl KafkaSource {
    /// Joins the group for these topics.
    pub fn new(mut consumer: Consumer, topics: &[&str], start: StartAt, skip_lost: bool) -> Result<Self, SourceError> {
        consumer.subscribe(topics).map_err(sort)?;
        let (polled, assigned) = (Polled::default(), Vec::new());
        Ok(Self {
            consumer,
            polled,
            start,
            skip_lost,
            filled: false,
            paused: false,
            held: Vec::new(),
            assigned,
            answered: false,
            ends_asked: None,
        })
    }

    pub(crate) fn poll(&mut self, wait_ms: u64, gather_ms: u64, events: &mut Vec<Event>) -> Result<(), SourceError> {
        if !self.filled && gather_ms > 0 {
            // Under a light load records are taken together, not one by one as they come.
            std::thread::sleep(Duration::from_millis(gather_ms));
        }
        if self.paused {
            self.ask_ends();
        }
        self.consumer.poll(Duration::from_millis(wait_ms), RECORDS_PER_POLL_MAX, &mut self.polled);
        let polled = &mut self.polled;
        self.filled = polled.batches.iter().map(|batch| batch.rows.len()).sum::<usize>() >= RECORDS_PER_POLL_MAX / 2;
        events.extend(polled.batches.drain(..).map(Event::Batch));
        for rebalance in &polled.rebalances {
            self.answered |= matches!(rebalance, Rebalance::Assigned(_));
            // The group waits for an answer to a change that brings nothing, too, and hands out no records until then.
            if *rebalance == Rebalance::Assigned(Vec::new()) {
                self.consumer.assign(&[]).map_err(sort)?;
            }
        }
        events.extend(polled.rebalances.drain(..).map(|rebalance| match rebalance {
            Rebalance::Assigned(partitions) => Event::Assigned(partitions.iter().map(place).collect()),
            Rebalance::Revoked { partitions, lost: false } => Event::Revoked(partitions.iter().map(place).collect()),
            Rebalance::Revoked { partitions, lost: true } => Event::Lost(partitions.iter().map(place).collect()),
        }));
        if let Some(stuck) = polled.unreadable.first() {
            return Err(SourceError::Fatal(format!(
                "{}/{}: the records from offset {} on can't be read: {}. They are not skipped; read the topic with a \
                 client that can, or move the group behind them with `millstream offsets reset`",
                stuck.topic,
                stuck.partition,
                stuck.offset,
                polled.errors.first().map_or("the client does not say why".to_owned(), ToString::to_string)
            )));
        }
        // The log lost what a partition was to read next: the partition starts anew, where `starts` allows it.
        for lost in polled.out_of_range.drain(..) {
            events.extend([Event::Lost(vec![place(&lost)]), Event::Assigned(vec![place(&lost)])]);
        }
        polled.errors.drain(..).try_for_each(|error| match error {
            KafkaError::Fenced(_) | KafkaError::Denied(_) | KafkaError::Setting { .. } => {
                Err(SourceError::Fatal(error.to_string()))
            }
            error => {
                tracing::warn!("kafka: {error}");
                Ok(())
            }
        })
    }

    pub(super) fn filled(&self) -> bool {
        self.filled
    }

    pub(crate) fn recycle(&mut self, batch: Batch) {
        self.consumer.recycle(batch.rows);
    }

    pub(crate) fn committed(&mut self, places: &[Place]) -> Result<Vec<Option<Committed>>, SourceError> {
        let committed = |position: Position| (position.offset, position.metadata);
        Ok(self.positions(places)?.into_iter().map(|position| position.map(committed)).collect())
    }

    fn positions(&self, places: &[Place]) -> Result<Vec<Option<Position>>, SourceError> {
        let partitions: Vec<Partition> = places.iter().map(partition).collect();
        self.consumer.committed(&partitions, REQUEST_TIMEOUT).map_err(sort)
    }

    pub(crate) fn starts(&mut self, places: &[Place]) -> Result<Vec<Start>, SourceError> {
        let committed = self.positions(places)?;
        let (mut starts, mut moving) = (Vec::new(), Vec::new());
        for (place, committed) in places.iter().zip(committed) {
            let (first, end) = self.consumer.watermarks(&partition(place), REQUEST_TIMEOUT).map_err(sort)?;
            let offset = match &committed {
                Some(position) => self.in_range(place, position.offset, (first, end))?,
                None => self.first_start(place, first, end)?,
            };
            if committed.is_none() && self.start != StartAt::Earliest {
                moving.push((place.clone(), offset));
            }
            // A note belongs to its own offset.
            let note = committed.filter(|position| position.offset == offset).map(|position| position.metadata);
            starts.push(Start { place: place.clone(), offset, note });
        }
        // The end and the first record of a time move on: where such a start was not noted, a restart before the first
        // record would begin elsewhere, and skip what came between.
        if !moving.is_empty() {
            self.commit(&positions(&moving)).map_err(sort)?;
        }
        Ok(starts)
    }

    /// The committed offset where the log still holds it, or else where to go on.
    fn in_range(&self, place: &Place, offset: i64, (first, end): (i64, i64)) -> Result<i64, SourceError> {
        // `end` is where the first open transaction begins; the group may have been set behind that.
        let log_end = || self.consumer.log_end(&partition(place), REQUEST_TIMEOUT).map_err(sort);
        let end = if offset > end { log_end()? } else { end };
        if (first..=end).contains(&offset) {
            return Ok(offset);
        }
        let what = if offset < first {
            let lost = first - offset;
            format!("the broker's first record is at {first}: {lost} offsets are gone before they were read")
        } else {
            format!("the partition ends at {end}: the topic was made anew, or the group was set ahead")
        };
        if !self.skip_lost {
            return Err(SourceError::Fatal(format!(
                "{place}: the group is at offset {offset}, but {what}. To go on at {first} set \
                 `source.kafka.on_out_of_range: earliest`, or move the group with `millstream offsets reset`"
            )));
        }
        tracing::warn!("{place}: the group is at offset {offset}, but {what}; going on at {first}");
        Ok(first)
    }

    fn first_start(&self, place: &Place, first: i64, end: i64) -> Result<i64, SourceError> {
        match self.start {
            StartAt::Earliest => Ok(first),
            StartAt::Latest => Ok(end),
            StartAt::TimestampMs(time_ms) => {
                let at = [partition(place).at(time_ms)];
                let found = self.consumer.offsets_for_times(&at, REQUEST_TIMEOUT).map_err(sort)?;
                Ok(found.into_iter().flatten().next().map_or(end, |position| position.offset))
            }
            StartAt::Unsaid => Err(SourceError::Fatal(format!(
                "{place}: the group has no offset yet; say where to begin with `source.kafka.start: earliest`, \
                 `latest` or a time such as 2026-01-31T00:00:00Z"
            ))),
        }
    }

    pub(crate) fn assign(&mut self, starts: &[Start]) -> Result<(), SourceError> {
        let positions: Vec<Position> = starts.iter().map(|start| partition(&start.place).at(start.offset)).collect();
        self.consumer.assign(&positions).map_err(sort)?;
        self.assigned.extend(starts.iter().map(|start| (partition(&start.place), None)));
        if self.paused { self.pause(true) } else { Ok(()) }
    }

    /// Stops or resumes all partitions, also those that come later; the group hears nothing of it.
    pub(crate) fn pause(&mut self, paused: bool) -> Result<(), SourceError> {
        self.paused = paused;
        self.held.clear();
        let partitions: Vec<Partition> = self.assigned.iter().map(|(partition, _)| partition.clone()).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        let done = if paused { self.consumer.pause(&partitions) } else { self.consumer.resume(&partitions) };
        done.map_err(sort)
    }

    /// Leaves these partitions alone, and reads on in all others.
    pub(crate) fn hold(&mut self, places: &[Place]) -> Result<(), SourceError> {
        if self.paused || self.held == places {
            return Ok(());
        }
        let part = |from: &[Place], not: &[Place]| -> Vec<Partition> {
            from.iter().filter(|place| !not.contains(place)).map(partition).collect()
        };
        let (now, mut again) = (part(places, &self.held), part(&self.held, places));
        again.retain(|partition| self.assigned.iter().any(|(assigned, _)| assigned == partition));
        self.held = places.to_vec();
        if !now.is_empty() {
            self.consumer.pause(&now).map_err(sort)?;
        }
        if again.is_empty() { Ok(()) } else { self.consumer.resume(&again).map_err(sort) }
    }

    pub(super) fn answered(&self) -> bool {
        self.answered
    }

    /// As the last fetch saw it; nothing is fetched of what is paused, so that it is asked for then.
    pub(crate) fn end_offset(&self, place: &Place) -> Option<i64> {
        let asked = self
            .assigned
            .iter()
            .find(|(partition, _)| partition.partition == place.partition && partition.topic == place.topic);
        let cached = || self.consumer.cached_watermarks(&partition(place)).map(|(_, end)| end);
        asked.and_then(|(_, end)| *end).filter(|_| self.paused).or_else(cached)
    }

    pub(super) fn figures(&mut self) -> Option<ClientFigures> {
        self.consumer.take_statistics()
    }

    /// Asks for the ends of paused partitions, now and then.
    fn ask_ends(&mut self) {
        if self.ends_asked.is_some_and(|asked| asked.elapsed() < ENDS_INTERVAL) {
            return;
        }
        self.ends_asked = Some(Instant::now());
        for (partition, end) in &mut self.assigned {
            match self.consumer.watermarks(partition, ENDS_TIMEOUT) {
                Ok((_, found)) => *end = Some(found),
                // The next time will do; the group must not be kept waiting for the others.
                Err(_) => return,
            }
        }
    }

    pub(crate) fn unassign(&mut self, places: &[Place]) -> Result<(), SourceError> {
        let mut partitions: Vec<Partition> = places.iter().map(partition).collect();
        // What was never taken can't be given up.
        partitions.retain(|partition| self.assigned.iter().any(|(assigned, _)| assigned == partition));
        self.assigned.retain(|(assigned, _)| !partitions.contains(assigned));
        self.held.retain(|held| !places.contains(held));
        self.consumer.unassign(&partitions).map_err(sort)
    }

    pub(crate) fn seek(&mut self, starts: &[(Place, i64)]) -> Result<(), SourceError> {
        if starts.is_empty() {
            return Ok(());
        }
        self.consumer.seek(&positions(starts), REQUEST_TIMEOUT).map_err(sort)
    }

    /// Commits offsets without a transaction.
    pub(crate) fn commit(&mut self, offsets: &[Position]) -> Result<(), KafkaError> {
        self.consumer.commit(offsets, REQUEST_TIMEOUT)
    }

    /// Commits one offset with a note, without a transaction.
    pub(crate) fn commit_at(&mut self, place: &Place, offset: i64, note: &str) -> Result<(), KafkaError> {
        let position = Position { metadata: note.to_owned(), ..self.position_at(place, offset) };
        self.consumer.commit(&[position], COMMIT_TIMEOUT)
    }

    /// An offset as a transaction takes it.
    pub(crate) fn position_at(&self, place: &Place, offset: i64) -> Position {
        partition(place).at(offset)
    }

    /// Who this member is in the group now, for a transaction.
    pub(crate) fn group_metadata(&self) -> Option<GroupMetadata> {
        // A member that was put out has none that the group could refuse: it would take anything.
        self.consumer.group_metadata().filter(|group| group.generation() >= 0 && !group.member().is_empty())
    }
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource").field("start", &self.start).finish_non_exhaustive()
    }
}

fn place(partition: &Partition) -> Place {
    Place { topic: partition.topic.clone(), partition: partition.partition }
}

fn partition(place: &Place) -> Partition {
    Partition { topic: Arc::clone(&place.topic), partition: place.partition }
}

/// Places with offsets, as the client wants them.
fn positions(offsets: &[(Place, i64)]) -> Vec<Position> {
    offsets.iter().map(|(place, offset)| partition(place).at(*offset)).collect()
}

/// Sorts an error by whether the same may be tried again.
fn sort(error: KafkaError) -> SourceError {
    match error {
        KafkaError::Fenced(_) | KafkaError::Denied(_) | KafkaError::Setting { .. } => {
            SourceError::Fatal(error.to_string())
        }
        error => SourceError::Retriable(error.to_string()),
    }
}
