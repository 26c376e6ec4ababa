//! A drain: it reads a topic and brings its records into a ClickHouse table, each exactly once.
//!
//! ClickHouse knows no transactions with Kafka, but it drops a block whose token it has seen. So a block that is sent again
//! must be the same block, whoever sends it. Each goes through four steps, and a crash between any two of them is mended
//! by the next owner of the partition:
//!
//! 1. *Encode* the rows; records that do not fit are set aside.
//! 2. *Plan*: the offset of the block's first record is committed again, with the plan as its metadata. Only a member of
//!    the group can.
//! 3. *Send* it as one insert under its token, until it is in.
//! 4. *Commit* the offset after it, in one transaction with the dead letters.
//!
//! | module | what |
//! | --- | --- |
//! | `plan` | what is committed before a block is sent |
//! | `block` | encoded rows |
//! | `task`, `step` | one partition's state: what to do next, pure |
//! | `table` | what is asked of the table, and what follows from the answers |
//! | `doubt` | what settles whether a block is there |
//! | `direct` | a table that a source without a log feeds |
//! | `rows` | records as rows and dead letters |
//! | `sender` | the thread that talks to ClickHouse |
//! | `letters` | dead letters and the offset, as one |
//! | `readings` | what is measured |

mod block;
mod direct;
mod doubt;
mod letters;
mod plan;
mod readings;
mod rows;
mod sender;
mod step;
mod table;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use block::Limits;
pub use direct::DirectTable;
use letters::{Letters, Outcome};
pub use readings::{DrainReadings, DrainState};
use rows::RowEncoder;
use sender::{Ask, Sender, Target};
pub use sender::{Trouble, check_table};
use step::{Action, Moment};
use task::Task;

use crate::config::{ClickHouseConfig, Delivery};
use crate::kafka::{KafkaError, ProducerSettings};
use crate::record::{Batch, Place};
use crate::source::{Event, KafkaSource, SourceError, Start};

/// The longest that a poll waits where nothing is due sooner, and where an answer of ClickHouse is awaited.
const POLL_WAIT_MS: u64 = 100;
const ANSWER_WAIT_MS: u64 = 5;
/// How long a partition that is given up waits for a block that is on its way.
const REVOKE_WAIT: Duration = Duration::from_secs(3);
/// The least bytes of a block, however many partitions share the memory.
const BLOCK_BYTES_MIN: usize = 256 << 10;
/// Blocks of a partition that may be in memory: one is filled, one waits, one is sent.
const BLOCKS_PER_TASK: usize = 3;

/// Why a drain ends, although it was not told to.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The topic can't be read any more.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Dead letters can't be delivered.
    #[error("dead letters can't be delivered to topic `{topic}`: {why}")]
    Letters {
        /// The topic.
        topic: String,
        /// The client's reason.
        why: KafkaError,
    },
    /// The client can't be made.
    #[error("{0}")]
    Client(String),
    /// The thread that talks to ClickHouse does not do its work.
    #[error("the thread that talks to ClickHouse: {0}")]
    Thread(String),
    /// The topic's records do not follow each other.
    #[error("{0}: records are missing between what was read before and what came now; is the topic compacted or cut?")]
    Gap(Place),
}

/// All that a drain has to know.
pub struct DrainSettings {
    /// The output's name.
    pub output: String,
    /// The table and how it is fed.
    pub table: ClickHouseConfig,
    /// The pipeline's name.
    pub pipeline: String,
    /// The group under which the topic is read.
    pub group: String,
    /// Ids of the cluster and of the topic: parts of every token.
    pub cluster_id: String,
    /// See `cluster_id`.
    pub topic_id: String,
    /// The topic of dead letters, with a transactional producer's settings; `None` where they are discarded, or where the
    /// topic that is read is theirs.
    pub letters: Option<(ProducerSettings, String)>,
    /// The most bytes of a dead letter.
    pub letter_bytes_max: usize,
    /// True where the topic that is read holds dead letters.
    pub of_dead_letters: bool,
    /// Bytes that all blocks may take.
    pub memory_bytes: usize,
}

/// One topic on its way into one table.
pub struct Drain {
    settings: DrainSettings,
    source: KafkaSource,
    letters: Option<Letters>,
    sender: Sender,
    target: Option<Arc<Target>>,
    encoder: Option<RowEncoder>,
    tasks: BTreeMap<Place, Task>,
    /// What ClickHouse was asked for last, for each partition that awaits an answer.
    tickets: BTreeMap<Place, Arc<()>>,
    awaiting: Vec<Place>,
    paused: bool,
    commit_failed: bool,
    describing: bool,
    describe_at_ms: u64,
    /// Offsets of commits with dead letters of which nobody knows whether they took effect.
    unknown_ends: BTreeMap<Place, i64>,
    /// Why the table can't be had, or can't keep its promise.
    table_trouble: Option<Trouble>,
    /// Why blocks do not go in.
    trouble: Option<String>,
    events: Vec<Event>,
    readings: DrainReadings,
}

impl Drain {
    /// A drain that has no partition yet.
    pub fn new(settings: DrainSettings, source: KafkaSource) -> Result<Self, DrainError> {
        let sender = Sender::start(&settings.output, &settings.table)?;
        let letters = settings.letters.as_ref().map(|(producer, topic)| Letters::new(producer.clone(), topic));
        let readings = DrainReadings::new(&settings.output);
        Ok(Self {
            settings,
            source,
            letters,
            sender,
            target: None,
            encoder: None,
            tasks: BTreeMap::new(),
            tickets: BTreeMap::new(),
            awaiting: Vec::new(),
            paused: false,
            commit_failed: false,
            describing: false,
            describe_at_ms: 0,
            unknown_ends: BTreeMap::new(),
            table_trouble: None,
            trouble: None,
            events: Vec::new(),
            readings,
        })
    }

    /// What it has done and measured, as of now.
    pub fn readings(&mut self) -> DrainReadings {
        let stopped = self.tasks.values().find_map(Task::stopped);
        // What went wrong with a block that was given up since is somebody else's trouble.
        let waits = self.tasks.values().any(|task| task.block().is_some());
        let trouble = self.trouble.as_deref().filter(|_| waits);
        let trouble = self.table_trouble.as_ref().map(Trouble::text).or(trouble);
        let state = match (stopped, trouble, &self.target) {
            (Some(why), ..) => DrainState::Stopped(why.to_owned()),
            (None, Some(why), _) => DrainState::Waiting(why.to_owned()),
            (None, None, None) => DrainState::Starting,
            (None, None, Some(_)) => DrainState::Running,
        };
        if let DrainState::Stopped(why) = &state
            && self.readings.state != state
        {
            tracing::error!(output = self.settings.output, "{why}");
        }
        self.readings.state = state;
        let partition = |task: &Task| (task.place.clone(), task.committed(), self.source.end_offset(&task.place));
        self.readings.partitions = self.tasks.values().map(partition).collect();
        self.readings.clone()
    }

    /// Stops taking records, or goes on; what was taken is inserted.
    pub fn pause(&mut self, paused: bool) -> Result<(), DrainError> {
        self.paused = paused;
        tolerate(self.source.pause(paused))
    }

    /// One round: what ClickHouse said, what the topic has, what is due. `now_ms` never falls.
    pub fn step(&mut self, now_ms: u64) -> Result<(), DrainError> {
        while let Some(told) = self.sender.told(Duration::ZERO)? {
            self.hear(told, now_ms)?;
        }
        self.describe(now_ms)?;
        self.poll(now_ms)?;
        self.start_awaiting()?;
        self.act(now_ms, false)?;
        self.throttle()
    }

    /// Brings in what was taken, for as long as that may take, and gives everything up.
    pub fn finish(&mut self, now_ms: u64, patience: Duration) -> Result<(), DrainError> {
        let started = Instant::now();
        while started.elapsed() < patience
            && self.tasks.values().any(|task| !task.is_idle() && task.stopped().is_none())
        {
            let now_ms = now_ms + started.elapsed().as_millis() as u64;
            self.act(now_ms, true)?;
            if let Some(told) = self.sender.told(Duration::from_millis(ANSWER_WAIT_MS))? {
                self.hear(told, now_ms)?;
            }
        }
        Ok(())
    }

    fn poll(&mut self, now_ms: u64) -> Result<(), DrainError> {
        let mut events = std::mem::take(&mut self.events);
        let answers_awaited = self.describing || self.tasks.values().any(Task::is_busy);
        let wait_ms = if answers_awaited { ANSWER_WAIT_MS } else { POLL_WAIT_MS.min(self.due_in_ms(now_ms)) };
        let polled = self.source.poll(wait_ms, 0, &mut events);
        for event in events.drain(..) {
            self.handle(event, now_ms)?;
        }
        self.events = events;
        match polled {
            Err(SourceError::Retriable(why)) => tracing::warn!("the topic does not answer, trying again: {why}"),
            polled => polled?,
        }
        Ok(())
    }

    /// When the next block has waited for long enough.
    fn due_in_ms(&self, now_ms: u64) -> u64 {
        let due = self.tasks.values().filter_map(Task::due_ms).min();
        due.map_or(POLL_WAIT_MS, |due| due.saturating_sub(now_ms).max(1))
    }

    fn handle(&mut self, event: Event, now_ms: u64) -> Result<(), DrainError> {
        match event {
            Event::Batch(batch) => self.take(batch, now_ms)?,
            Event::Assigned(places) => self.awaiting.extend(places),
            Event::Revoked(places) => {
                self.settle(&places, now_ms)?;
                self.give_up(&places)?;
            }
            // Others have them: nothing may be committed for them any more.
            Event::Lost(places) => self.give_up(&places)?,
            Event::Ended => {}
        }
        Ok(())
    }

    fn take(&mut self, batch: Batch, now_ms: u64) -> Result<(), DrainError> {
        let place = batch.place();
        match (self.tasks.get_mut(&place), &mut self.encoder) {
            (Some(task), Some(encoder)) => {
                if !task.take(&batch, now_ms, encoder) {
                    return Err(DrainError::Gap(place));
                }
            }
            // Nobody knows yet what the table is like.
            (Some(task), None) => task.reread_later(),
            (None, _) => {}
        }
        self.source.recycle(batch);
        Ok(())
    }

    /// Waits for blocks that are on their way, and commits what has arrived.
    fn settle(&mut self, places: &[Place], now_ms: u64) -> Result<(), DrainError> {
        let until = Instant::now() + REVOKE_WAIT;
        let is_busy =
            |tasks: &BTreeMap<Place, Task>| places.iter().any(|place| tasks.get(place).is_some_and(Task::is_busy));
        while is_busy(&self.tasks) && Instant::now() < until {
            if let Some(told) = self.sender.told(until.saturating_duration_since(Instant::now()))? {
                self.hear(told, now_ms)?;
            }
        }
        for place in places {
            if self.tasks.get(place).is_some_and(Task::is_sent) {
                self.commit_end(place, now_ms)?;
            }
        }
        Ok(())
    }

    fn give_up(&mut self, places: &[Place]) -> Result<(), DrainError> {
        for place in places {
            self.tasks.remove(place);
            self.unknown_ends.remove(place);
            self.tickets.remove(place);
        }
        self.awaiting.retain(|place| !places.contains(place));
        self.share_memory();
        tolerate(self.source.unassign(places))
    }

    fn start_awaiting(&mut self) -> Result<(), DrainError> {
        if self.awaiting.is_empty() {
            return Ok(());
        }
        let starts = match self.source.starts(&self.awaiting) {
            Err(SourceError::Retriable(why)) => {
                tracing::warn!("no offsets to start from yet: {why}");
                return Ok(());
            }
            starts => starts?,
        };
        let exactly_once = self.settings.table.delivery == Delivery::ExactlyOnce;
        for Start { place, offset, note } in &starts {
            let limits = Limits::new(&self.settings.table);
            let task = Task::new(place.clone(), *offset, note.as_deref(), limits, exactly_once);
            self.tasks.insert(place.clone(), task);
        }
        self.share_memory();
        match self.source.assign(&starts) {
            Err(SourceError::Retriable(why)) => {
                tracing::warn!("the partitions are not taken yet: {why}");
                self.awaiting.iter().for_each(|place| drop(self.tasks.remove(place)));
                return Ok(());
            }
            assigned => assigned?,
        }
        self.awaiting.clear();
        Ok(())
    }

    /// Divides the memory among the partitions.
    fn share_memory(&mut self) {
        let share = self.settings.memory_bytes / (self.tasks.len().max(1) * BLOCKS_PER_TASK);
        let bytes = (self.settings.table.flush_bytes as usize).min(share.max(BLOCK_BYTES_MIN));
        self.tasks.values_mut().for_each(|task| task.set_block_bytes(bytes));
    }

    fn act(&mut self, now_ms: u64, all: bool) -> Result<(), DrainError> {
        let places: Vec<Place> = self.tasks.keys().cloned().collect();
        self.commit_failed = false;
        for place in places {
            // A group that does not answer is asked once a round, so that polling goes on.
            if self.commit_failed {
                break;
            }
            self.act_on(&place, now_ms, all)?;
        }
        Ok(())
    }

    /// Does what a partition wants until it wants nothing more, or an answer is awaited.
    fn act_on(&mut self, place: &Place, now_ms: u64, all: bool) -> Result<(), DrainError> {
        loop {
            // Nothing is sent to a table that can't keep its promise.
            let is_blocked = self.commit_failed || matches!(self.table_trouble, Some(Trouble::Wrong(_)));
            let Some(target) = self.target.clone().filter(|_| !is_blocked) else { return Ok(()) };
            let Some(task) = self.tasks.get_mut(place) else { return Ok(()) };
            let settings = &self.settings;
            let token = |first, last| settings.token(&target, place, first, last);
            let moment = Moment { now_ms, wall_ms: wall_ms(), blocks: self.sender.blocks(), token: &token };
            let Some(action) = task.next(all, &moment) else { return Ok(()) };
            match action {
                Action::Plan { first, plan } => {
                    let done = self.commit(place, first, &plan.text());
                    self.task(place, |task| task.planned(done, now_ms));
                }
                Action::Commit => self.commit_end(place, now_ms)?,
                Action::Reread(offset) => match self.source.seek(&[(place.clone(), offset)]) {
                    Err(SourceError::Retriable(why)) => {
                        tracing::warn!("{place}: can't go back to {offset} yet: {why}");
                        self.task(place, Task::reread_later);
                        return Ok(());
                    }
                    sought => sought?,
                },
                Action::Look { first, last } => {
                    let token = token(first, last);
                    let ticket = self.ticket(place);
                    return self.sender.ask(Ask::Look { ticket, place: place.clone(), first, last, token });
                }
                Action::Send { first, last, bytes } => {
                    let token = token(first, last);
                    let ticket = self.ticket(place);
                    return self.sender.ask(Ask::Send { ticket, target, bytes, token });
                }
            }
        }
    }

    fn task(&mut self, place: &Place, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tasks.get_mut(place) {
            change(task);
        }
    }

    /// Commits an offset with a note; false where that has to be tried again.
    fn commit(&mut self, place: &Place, offset: i64, note: &str) -> bool {
        match self.source.commit_at(place, offset, note) {
            Ok(()) => true,
            Err(why) => {
                tracing::warn!("{place}: offset {offset} is not committed yet: {why}");
                self.commit_failed = true;
                false
            }
        }
    }

    /// Commits the end of a block that is in, with its dead letters.
    fn commit_end(&mut self, place: &Place, now_ms: u64) -> Result<(), DrainError> {
        let Some(block) = self.tasks.get(place).and_then(Task::block) else { return Ok(()) };
        let (next, has_letters) = (block.next, !block.dead.is_empty());
        let done = match &self.letters {
            Some(_) if has_letters => self.commit_with_letters(place, next)?,
            _ => self.commit(place, next, ""),
        };
        let Some(task) = self.tasks.get_mut(place) else { return Ok(()) };
        if let Some(block) = task.committed_end(done, now_ms) {
            self.readings.committed(&block, wall_ms());
        }
        Ok(())
    }

    /// The same with dead letters, which would be there twice if they were sent before it is known what became of them.
    fn commit_with_letters(&mut self, place: &Place, next: i64) -> Result<bool, DrainError> {
        if let Some(unknown) = self.unknown_ends.get(place).copied() {
            match self.source.committed(std::slice::from_ref(place)) {
                Ok(offsets) if offsets.first().and_then(Option::as_ref).map(|(offset, _)| *offset) == Some(unknown) => {
                    self.unknown_ends.remove(place);
                    return Ok(unknown == next);
                }
                Ok(_) => drop(self.unknown_ends.remove(place)),
                Err(why) => {
                    tracing::warn!("{place}: it is not known yet what was committed: {why}");
                    self.commit_failed = true;
                    return Ok(false);
                }
            }
        }
        // A member that was put out has no metadata any more; its work is not wanted.
        let Some(group) = self.source.group_metadata() else { return Ok(false) };
        let position = self.source.position_at(place, next);
        let (Some(letters), Some(block)) = (&mut self.letters, self.tasks.get(place).and_then(Task::block)) else {
            return Ok(false);
        };
        let outcome = letters.commit(block.dead.clone(), &position, &group)?;
        if outcome == Outcome::Unknown {
            self.unknown_ends.insert(place.clone(), next);
        }
        self.commit_failed |= outcome != Outcome::Committed;
        Ok(outcome == Outcome::Committed)
    }

    /// Leaves partitions alone whose blocks wait, and goes on with those that have room again.
    fn throttle(&mut self) -> Result<(), DrainError> {
        if self.paused {
            return Ok(());
        }
        let known = self.encoder.is_some();
        let full = self.tasks.values().filter(|task| !known || task.is_full()).map(|task| task.place.clone());
        tolerate(self.source.hold(&full.collect::<Vec<_>>()))
    }
}

/// What did not work now is done again in the next round.
fn tolerate(result: Result<(), SourceError>) -> Result<(), DrainError> {
    match result {
        Err(SourceError::Retriable(why)) => {
            tracing::warn!("the topic's client does not do as it is told yet: {why}");
            Ok(())
        }
        result => Ok(result?),
    }
}

/// The wall clock, in milliseconds since 1970 UTC.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}
