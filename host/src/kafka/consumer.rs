//! A consumer that hands out batches of rows, and tells of rebalances instead of acting on them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{Connection, ConsumerSettings};
use super::error::{Detail, KafkaError, RawError, code};
use super::native::{Change, Client, GroupMetadata, Message, Side};
use super::statistics;
use super::types::{Partition, Position};
use crate::metrics::ClientFigures;
use crate::record::{Batch, Rows};

/// Emptied buffers that are kept for the next polls.
const SPARE_ROWS: usize = 8;
/// How often the client's positions are looked at where it does not report ends.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(20);

/// A change of the assignment that waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// New partitions are ours once [`Consumer::assign`] is called with them, each with the offset to begin at.
    Assigned(Vec<Partition>),
    /// Partitions go to others once [`Consumer::unassign`] is called with them. Where they are `lost` others own them
    /// already, and nothing may be committed for them. The group does *not* refuse a live member's commit for a
    /// partition that it gave up: whoever commits has to drop what belongs to it.
    Revoked {
        /// The partitions.
        partitions: Vec<Partition>,
        /// True where they belong to others already.
        lost: bool,
    },
}

/// The answer to [`Consumer::commit_async`].
#[derive(Clone, Debug)]
pub struct CommitResult {
    /// What was to be committed.
    pub positions: Vec<Position>,
    /// Whether it was.
    pub result: Result<(), KafkaError>,
}

/// What one poll brought. The batches come before the rebalances: they were read under the old assignment.
#[derive(Debug, Default)]
pub struct Polled {
    /// At most one batch a partition.
    pub batches: Vec<Batch>,
    /// Partitions whose end was reached, at the offset of the next record to come.
    pub ends: Vec<Position>,
    /// Changes of the assignment, each to be answered before the next poll but one.
    pub rebalances: Vec<Rebalance>,
    /// Answers to commits that nobody waited for.
    pub commits: Vec<CommitResult>,
    /// What went wrong in the client; it goes on by itself unless the error says that it is fenced, or the records are
    /// also among the `unreadable`.
    pub errors: Vec<KafkaError>,
    /// Where records begin that the client can't read: a compression that it was built without, or a broken batch. It stays
    /// at the former for ever; of the latter it may go on behind. Whoever promises to lose nothing stops the partition.
    pub unreadable: Vec<Position>,
    /// Partitions whose next record is no longer in the log, or not yet; nothing more is read of them.
    pub out_of_range: Vec<Partition>,
}

impl Polled {
    /// True where the poll brought nothing at all.
    pub fn is_empty(&self) -> bool {
        let Self { batches, ends, rebalances, commits, errors, unreadable, out_of_range } = self;
        batches.is_empty()
            && ends.is_empty()
            && rebalances.is_empty()
            && commits.is_empty()
            && errors.is_empty()
            && unreadable.is_empty()
            && out_of_range.is_empty()
    }

    fn clear(&mut self) {
        self.batches.clear();
        self.ends.clear();
        self.rebalances.clear();
        self.commits.clear();
        self.errors.clear();
        self.unreadable.clear();
        self.out_of_range.clear();
    }
}

/// What was read of a partition and not handed out yet.
struct Slot {
    topic: Arc<str>,
    partition: i32,
    /// Where the next batch begins; -1 while unknown.
    first_offset: i64,
    /// After the last row read.
    next_offset: i64,
    rows: Rows,
    /// The last thing that came was an error, which the client counts as a record: its position is too far.
    doubtful: bool,
}

/// A member of a group, or a reader of partitions assigned by hand. To be used from one thread at a time.
pub struct Consumer {
    client: Client,
    connection: Connection,
    slots: Vec<Slot>,
    spare: Vec<Rows>,
    unanswered_commits: usize,
    answered: VecDeque<CommitResult>,
    /// When positions were last followed; none where the client reports ends.
    followed: Option<Instant>,
}

impl Consumer {
    /// Makes a consumer; no broker is asked yet.
    pub fn new(settings: &ConsumerSettings) -> Result<Self, KafkaError> {
        let client = Client::new(Side::Consumer, &settings.properties()?)?;
        let (slots, spare, answered) = (Vec::new(), Vec::new(), VecDeque::new());
        let followed = (!settings.report_ends).then(Instant::now);
        let connection = settings.connection.clone();
        Ok(Self { client, connection, slots, spare, unanswered_commits: 0, answered, followed })
    }

    /// Waits until a broker answers. A reader that assigns by hand starts half a second sooner after this.
    pub fn connect(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.client.connect(timeout)
    }

    /// Joins the group for `topics`; what it assigns comes by [`Consumer::poll`].
    pub fn subscribe(&mut self, topics: &[&str]) -> Result<(), KafkaError> {
        self.client.subscribe(topics)
    }

    /// Adds partitions, each to be read from its offset: the answer to [`Rebalance::Assigned`], or by hand without a
    /// group. To be called with nothing at all where the group assigned nothing.
    pub fn assign(&mut self, positions: &[Position]) -> Result<(), KafkaError> {
        self.client.assign(positions)?;
        for position in positions {
            self.slots.retain(|slot| !slot.is(&position.topic, position.partition));
            self.slots.push(Slot::new(position.topic.clone(), position.partition, position.offset));
        }
        Ok(())
    }

    /// Gives partitions up: the answer to [`Rebalance::Revoked`], after the last commit for them.
    pub fn unassign(&mut self, partitions: &[Partition]) -> Result<(), KafkaError> {
        self.slots.retain(|slot| !partitions.iter().any(|partition| slot.is(&partition.topic, partition.partition)));
        self.client.unassign(partitions)
    }

    /// The partitions that are read now.
    pub fn assignment(&self) -> Result<Vec<Partition>, KafkaError> {
        self.client.assignment()
    }

    /// Takes up to `max_rows` rows that wait, or waits for the first until `timeout`, and fills `polled` anew. Returns
    /// early when the group changes the assignment. Must be called at least every `max_poll_interval`, if only with
    /// everything paused.
    pub fn poll(&mut self, timeout: Duration, max_rows: usize, polled: &mut Polled) {
        polled.clear();
        let Polled { ends, errors, unreadable, out_of_range, .. } = polled;
        let slots = &mut self.slots;
        let (mut origin, mut at) = ((0, -1), 0);
        self.client.poll(timeout, max_rows, |message| {
            if message.origin() != origin {
                origin = message.origin();
                at = slot_of(slots, message.topic(), message.partition());
            }
            match message.failure() {
                None => slots[at].push(message),
                Some(event) if event.code == code::PARTITION_EOF => {
                    ends.push(slots[at].end(message.offset()));
                }
                Some(failure) if failure.code == code::OUT_OF_RANGE => {
                    slots[at].doubtful = true;
                    out_of_range.push(Partition { topic: slots[at].topic.clone(), partition: message.partition() });
                }
                Some(failure) => {
                    slots[at].doubtful = true;
                    if is_unreadable(failure.code) {
                        let place = Partition { topic: slots[at].topic.clone(), partition: message.partition() };
                        unreadable.push(place.at(message.offset()));
                    }
                    errors.push(describe(failure, message).sort("read records"));
                }
            }
        });
        if self.followed.is_some_and(|followed| followed.elapsed() >= FOLLOW_INTERVAL) {
            self.follow_positions();
        }
        // A transaction's marker at the end is no row, but progress: the batch that says so is empty.
        let moved = |slot: &&mut Slot| !slot.rows.is_empty() || (0..slot.next_offset).contains(&slot.first_offset);
        for slot in self.slots.iter_mut().filter(moved) {
            polled.batches.push(slot.take(self.spare.pop().unwrap_or_default()));
        }
        self.take_events(polled);
    }

    /// Passes what is no row, such as a transaction's marker, of partitions that brought none: the client is behind it then.
    fn follow_positions(&mut self) {
        self.followed = Some(Instant::now());
        let idle = |slot: &&mut Slot| slot.rows.is_empty() && slot.next_offset >= 0 && !slot.doubtful;
        let slots: Vec<&mut Slot> = self.slots.iter_mut().filter(idle).collect();
        let partition = |slot: &&mut Slot| Partition { topic: slot.topic.clone(), partition: slot.partition };
        let partitions: Vec<Partition> = slots.iter().map(partition).collect();
        // Where they can't be read now, the next time will do.
        let positions = self.client.positions(&partitions).and_then(|found| known(found, "read positions"));
        for (slot, position) in slots.into_iter().zip(positions.unwrap_or_default()) {
            slot.next_offset = position.map_or(slot.next_offset, |found| slot.next_offset.max(found.offset));
        }
    }

    fn take_events(&mut self, polled: &mut Polled) {
        polled.rebalances.extend(self.client.take_changes().into_iter().map(|change| match change {
            Change::Assigned(partitions) => Rebalance::Assigned(partitions),
            Change::Revoked { partitions, lost } => Rebalance::Revoked { partitions, lost },
        }));
        polled.errors.extend(self.client.take_errors().into_iter().map(|error| error.sort("talk to the cluster")));
        while self.unanswered_commits > 0 && self.await_commit(Duration::ZERO) {}
        polled.commits.extend(self.answered.drain(..));
    }

    /// Gives the buffers of a batch back once its rows are no longer needed.
    pub fn recycle(&mut self, mut rows: Rows) {
        if self.spare.len() < SPARE_ROWS {
            rows.clear();
            self.spare.push(rows);
        }
    }

    /// Reads on from these offsets; what was fetched before is thrown away.
    pub fn seek(&mut self, positions: &[Position], timeout: Duration) -> Result<(), KafkaError> {
        self.client.seek(positions, timeout)?;
        for position in positions {
            let at = slot_of(&mut self.slots, &position.topic, position.partition);
            self.slots[at] = Slot::new(position.topic.clone(), position.partition, position.offset);
        }
        Ok(())
    }

    /// Stops reading some partitions while polling goes on.
    pub fn pause(&mut self, partitions: &[Partition]) -> Result<(), KafkaError> {
        self.client.pause(partitions, true)
    }

    /// Reads paused partitions again.
    pub fn resume(&mut self, partitions: &[Partition]) -> Result<(), KafkaError> {
        self.client.pause(partitions, false)
    }

    /// The group's committed offsets with their metadata, in the order asked; `None` where there is none. A consumer that
    /// is `read_committed` gets stable offsets only: it waits for transactions that are about to change them.
    pub fn committed(&self, of: &[Partition], timeout: Duration) -> Result<Vec<Option<Position>>, KafkaError> {
        let positions = self.client.committed(of, timeout)?;
        known(positions, "read committed offsets")
    }

    /// The offsets after the last record handed out, in the order asked; `None` where there was none.
    pub fn positions(&self, of: &[Partition]) -> Result<Vec<Option<Position>>, KafkaError> {
        known(self.client.positions(of)?, "read positions")
    }

    /// The first offset of a partition and the one after its last, asked of the broker; for a read_committed consumer
    /// the second is where the first open transaction begins.
    pub fn watermarks(&self, of: &Partition, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        self.client.watermarks(of, timeout)
    }

    /// The offset after the last record of a partition, committed or not, which a read_committed client is never told: a
    /// client that is made for the question asks it.
    pub fn log_end(&self, of: &Partition, timeout: Duration) -> Result<i64, KafkaError> {
        let plain = ConsumerSettings::new(self.connection.clone(), "");
        let settings = ConsumerSettings { read_committed: false, ..plain };
        let reader = Client::new(Side::Consumer, &settings.properties()?)?;
        reader.connect(timeout)?;
        Ok(reader.watermarks(of, timeout)?.1)
    }

    /// The same as the last fetch saw them, without asking; `None` before the first fetch.
    pub fn cached_watermarks(&self, of: &Partition) -> Option<(i64, i64)> {
        self.client.cached_watermarks(of)
    }

    /// For each position, whose offset is a time in milliseconds since 1970 UTC, the offset of the first record of that
    /// time or later; `None` where all are older.
    pub fn offsets_for_times(&self, times: &[Position], wait: Duration) -> Result<Vec<Option<Position>>, KafkaError> {
        known(self.client.offsets_for_times(times, wait)?, "find offsets by time")
    }

    /// Commits offsets with their metadata and waits for the group's answer.
    pub fn commit(&mut self, positions: &[Position], timeout: Duration) -> Result<(), KafkaError> {
        self.commit_async(positions)?;
        let deadline = Instant::now() + timeout;
        while self.unanswered_commits > 0 {
            if !self.await_commit(deadline.saturating_duration_since(Instant::now())) {
                let text = "no answer from the group".to_owned();
                return Err(KafkaError::TimedOut(Detail { doing: "commit offsets", code: code::TIMED_OUT, text }));
            }
        }
        self.answered.pop_back().map_or(Ok(()), |answer| answer.result)
    }

    /// Sends offsets with their metadata to be committed; the answer comes by [`Consumer::poll`].
    pub fn commit_async(&mut self, positions: &[Position]) -> Result<(), KafkaError> {
        self.client.commit(positions)?;
        self.unanswered_commits += 1;
        Ok(())
    }

    fn await_commit(&mut self, timeout: Duration) -> bool {
        let Some((result, positions)) = self.client.commit_result(timeout) else {
            return false;
        };
        self.unanswered_commits -= 1;
        let of_partitions = || positions.iter().find_map(|(_, result)| result.clone().err()).map_or(Ok(()), Err);
        let result = result.and_then(|()| of_partitions()).map_err(|error| error.sort("commit offsets"));
        let positions = positions.into_iter().map(|(position, _)| position).collect();
        self.answered.push_back(CommitResult { positions, result });
        true
    }

    /// Who we are in the group now, for a producer's transaction; `None` outside of a group.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        self.client.group_metadata()
    }

    /// What librdkafka's statistics say, if there are new ones.
    pub fn take_statistics(&self) -> Option<ClientFigures> {
        statistics::read(&self.client.take_statistics()?)
    }

    /// Ends without leaving the group, as a crash would: the group waits for the session timeout.
    pub fn vanish(mut self) {
        self.client.vanish();
    }
}

impl Slot {
    fn new(topic: Arc<str>, partition: i32, offset: i64) -> Self {
        let offset = offset.max(-1);
        Self { topic, partition, first_offset: offset, next_offset: offset, rows: Rows::default(), doubtful: false }
    }

    fn is(&self, topic: &str, partition: i32) -> bool {
        self.partition == partition && *self.topic == *topic
    }

    fn push(&mut self, message: &Message<'_>) {
        let (offset, row) = (message.offset(), self.rows.len());
        // A batch that begins before the one before it ended shows that the log was cut or made anew; the task refuses it.
        if row == 0 && (self.first_offset < 0 || offset < self.first_offset) {
            self.first_offset = offset;
        }
        self.next_offset = offset + 1;
        self.doubtful = false;
        self.rows.push(offset, message.timestamp_ms(), message.key(), message.value());
        message.headers(|name, value| self.rows.headers.push(row, name, value));
    }

    /// Notes the partition's end, which lies beyond the last record where a transaction's marker follows it.
    fn end(&mut self, offset: i64) -> Position {
        self.next_offset = self.next_offset.max(offset);
        Partition { topic: self.topic.clone(), partition: self.partition }.at(offset)
    }

    fn take(&mut self, empty: Rows) -> Batch {
        let batch = Batch {
            topic: self.topic.clone(),
            partition: self.partition,
            first_offset: self.first_offset,
            next_offset: self.next_offset,
            rows: std::mem::replace(&mut self.rows, empty),
        };
        self.first_offset = self.next_offset;
        batch
    }
}

fn slot_of(slots: &mut Vec<Slot>, topic: &str, partition: i32) -> usize {
    slots.iter().position(|slot| slot.is(topic, partition)).unwrap_or_else(|| {
        slots.push(Slot::new(topic.into(), partition, -1));
        slots.len() - 1
    })
}

/// An error in a message's place carries its text as the value.
fn describe(failure: RawError, message: &Message<'_>) -> RawError {
    let text = match message.value() {
        Some(text) if !text.is_empty() => String::from_utf8_lossy(text).into_owned(),
        _ => failure.text,
    };
    let text = format!("{text} in {}[{}] at offset {}", message.topic(), message.partition(), message.offset());
    RawError { text, ..failure }
}

/// True for an error that stands for records which the client can't read.
fn is_unreadable(code: i32) -> bool {
    matches!(code, code::BAD_MESSAGE | code::BAD_COMPRESSION | code::NOT_IMPLEMENTED)
}

type Known = Result<Vec<Option<Position>>, KafkaError>;

fn known(positions: Vec<(Position, Result<(), RawError>)>, doing: &'static str) -> Known {
    let of = |(position, result): (Position, Result<(), RawError>)| match result {
        Ok(()) | Err(RawError { code: code::NO_OFFSET, .. }) => Ok((position.offset >= 0).then_some(position)),
        Err(error) => Err(error.sort(doing)),
    };
    positions.into_iter().map(of).collect()
}
