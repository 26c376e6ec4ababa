//! Changelogs, read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::kafka::{Consumer, KafkaError, Partition, Polled};
use crate::memory::MemoryKafka;

use super::SourceError;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The most records that one look brings.
const RECORDS_PER_POLL_MAX: usize = 4_096;

/// A record of a stage's changelog.
#[derive(Clone, Copy, Debug)]
pub struct StateRecord<'a> {
    /// The stage.
    pub stage: usize,
    /// The partition.
    pub partition: i32,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// The changelogs of a pipeline's stages.
#[derive(Debug)]
pub enum StateSource {
    /// There are none: states begin anew with every start.
    None,
    /// Topics, by stage.
    Kafka(Box<KafkaStates>),
    /// The model's.
    Memory(MemoryStates),
}

impl StateSource {
    /// The offset behind everything that was written, committed or not (K6).
    pub fn end(&mut self, stage: usize, partition: i32) -> Result<i64, SourceError> {
        match self {
            Self::None => Ok(0),
            Self::Kafka(kafka) => kafka.end(stage, partition),
            Self::Memory(memory) => memory.end(stage, partition),
        }
    }

    /// Begins to read a changelog from an offset on, up to `end`.
    pub fn open(&mut self, stage: usize, partition: i32, from: i64, end: i64) -> Result<(), SourceError> {
        match self {
            Self::None => Ok(()),
            Self::Kafka(kafka) => kafka.open(stage, partition, from, end),
            Self::Memory(memory) => {
                memory.positions.insert((stage, partition), from);
                Ok(())
            }
        }
    }

    /// Waits for records of the changelogs that are open, `wait_ms` at most, and calls `each` with every one; committed ones only.
    pub fn poll(&mut self, wait_ms: u64, each: impl FnMut(StateRecord<'_>)) -> Result<(), SourceError> {
        match self {
            Self::None => Ok(()),
            Self::Kafka(kafka) => kafka.poll(wait_ms, each),
            Self::Memory(memory) => memory.poll(each),
        }
    }

    /// The offset up to which an open changelog was read.
    pub fn position(&self, stage: usize, partition: i32) -> i64 {
        match self {
            Self::None => i64::MAX,
            Self::Kafka(kafka) => kafka.positions.get(&(stage, partition)).copied().unwrap_or(-1),
            Self::Memory(memory) => memory.positions.get(&(stage, partition)).copied().unwrap_or(-1),
        }
    }

    /// Ends the reading of a changelog.
    pub fn close(&mut self, stage: usize, partition: i32) -> Result<(), SourceError> {
        match self {
            Self::None => Ok(()),
            Self::Kafka(kafka) => kafka.close(stage, partition),
            Self::Memory(memory) => {
                memory.positions.remove(&(stage, partition));
                Ok(())
            }
        }
    }
}

/// Changelogs in topics, each with as many partitions as the source.
pub struct KafkaStates {
    consumer: Consumer,
    topics: BTreeMap<usize, Arc<str>>,
    polled: Polled,
    positions: BTreeMap<(usize, i32), i64>,
}

impl KafkaStates {
    /// The topics by stage; the consumer belongs to no group and reads committed records.
    pub fn new(consumer: Consumer, topics: BTreeMap<usize, String>) -> Self {
        let topics = topics.into_iter().map(|(stage, topic)| (stage, topic.into())).collect();
        Self { consumer, topics, polled: Polled::default(), positions: BTreeMap::new() }
    }

    fn place(&self, stage: usize, partition: i32) -> Result<Partition, SourceError> {
        let topic = self.topics.get(&stage);
        let topic = topic.ok_or_else(|| SourceError::Fatal(format!("stage {stage} has no changelog")))?;
        Ok(Partition { topic: topic.clone(), partition })
    }

    fn end(&self, stage: usize, partition: i32) -> Result<i64, SourceError> {
        self.consumer.log_end(&self.place(stage, partition)?, REQUEST_TIMEOUT).map_err(sort)
    }

    fn open(&mut self, stage: usize, partition: i32, from: i64, end: i64) -> Result<(), SourceError> {
        let place = self.place(stage, partition)?;
        let (first, _) = self.consumer.watermarks(&place, REQUEST_TIMEOUT).map_err(sort)?;
        if !(first..=end).contains(&from) {
            return Err(SourceError::Fatal(format!(
                "{}/{partition}: the states begin at offset {from}, but the changelog holds {first} to {end}: it was made anew, or \
                 records were deleted. `millstream offsets reset` begins with new states",
                place.topic
            )));
        }
        self.consumer.assign(&[place.at(from)]).map_err(sort)?;
        self.positions.insert((stage, partition), from);
        Ok(())
    }

    fn poll(&mut self, wait_ms: u64, mut each: impl FnMut(StateRecord<'_>)) -> Result<(), SourceError> {
        self.consumer.poll(Duration::from_millis(wait_ms), RECORDS_PER_POLL_MAX, &mut self.polled);
        for batch in self.polled.batches.drain(..) {
            let stage = self.topics.iter().find(|(_, topic)| **topic == batch.topic).map(|(stage, _)| *stage);
            if let Some(stage) = stage {
                let rows = &batch.rows;
                for row in 0..rows.len() {
                    let (key, value) = (rows.keys.get(row), rows.values.get(row));
                    each(StateRecord { stage, partition: batch.partition, key, value });
                }
                if let Some(position) = self.positions.get_mut(&(stage, batch.partition)) {
                    *position = batch.next_offset;
                }
            }
            self.consumer.recycle(batch.rows);
        }
        if let Some(stuck) = self.polled.unreadable.first() {
            let (topic, partition, offset) = (&stuck.topic, stuck.partition, stuck.offset);
            return Err(SourceError::Fatal(format!(
                "{topic}/{partition}: the states at offset {offset} can't be read"
            )));
        }
        for error in self.polled.errors.drain(..) {
            match sort(error) {
                SourceError::Retriable(why) => tracing::warn!("reading states: {why}"),
                fatal @ SourceError::Fatal(_) => return Err(fatal),
            }
        }
        Ok(())
    }

    fn close(&mut self, stage: usize, partition: i32) -> Result<(), SourceError> {
        if self.positions.remove(&(stage, partition)).is_none() {
            return Ok(());
        }
        let place = self.place(stage, partition)?;
        self.consumer.unassign(&[place]).map_err(sort)
    }
}

impl std::fmt::Debug for KafkaStates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaStates").field("topics", &self.topics).finish_non_exhaustive()
    }
}

fn sort(error: KafkaError) -> SourceError {
    match error {
        KafkaError::Fenced(_) | KafkaError::Denied(_) | KafkaError::Setting { .. } => {
            SourceError::Fatal(error.to_string())
        }
        error => SourceError::Retriable(error.to_string()),
    }
}

/// The model's changelogs.
#[derive(Debug)]
pub struct MemoryStates {
    kafka: MemoryKafka,
    positions: BTreeMap<(usize, i32), i64>,
}

impl MemoryStates {
    /// The changelogs of this model.
    pub fn new(kafka: &MemoryKafka) -> Self {
        Self { kafka: kafka.clone(), positions: BTreeMap::new() }
    }

    fn end(&self, stage: usize, partition: i32) -> Result<i64, SourceError> {
        let mut model = self.kafka.model();
        let faults = model.faults;
        if model.chance.happens(faults.away) {
            return Err(SourceError::Retriable("the model is away".into()));
        }
        Ok(model.states.get(&(stage, partition)).map_or(0, |records| records.len() as i64))
    }

    fn poll(&mut self, mut each: impl FnMut(StateRecord<'_>)) -> Result<(), SourceError> {
        let kafka = self.kafka.clone();
        let mut model = kafka.model();
        for (&(stage, partition), position) in &mut self.positions {
            let count = model.chance.below(20) as i64;
            let Some(records) = model.states.get(&(stage, partition)) else { continue };
            for (key, value) in records.iter().skip(*position as usize).take(count as usize) {
                each(StateRecord { stage, partition, key: key.as_deref(), value: value.as_deref() });
                *position += 1;
            }
        }
        Ok(())
    }
}
