//! A member of the model's group.

use crate::memory::MemoryKafka;
use crate::record::{Batch, Place, Rows};

use super::{Committed, Event, SourceError, Start};

/// The most records that one poll of the model brings.
const RECORDS_PER_POLL_MAX: usize = 7;

/// The consumer of a simulated worker.
#[derive(Debug)]
pub struct MemorySource {
    kafka: MemoryKafka,
    member: u64,
    /// The next offset of each partition that is read.
    positions: Vec<(i32, i64)>,
    filled: bool,
}

impl MemorySource {
    /// Joins the group.
    pub fn new(kafka: &MemoryKafka) -> Self {
        Self { kafka: kafka.clone(), member: kafka.join(), positions: Vec::new(), filled: false }
    }

    /// The group's name for this member.
    pub fn member(&self) -> u64 {
        self.member
    }

    pub(super) fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), SourceError> {
        let kafka = self.kafka.clone();
        let mut model = kafka.model();
        let faults = model.faults;
        self.filled = false;
        if model.chance.happens(faults.away) {
            return Err(SourceError::Retriable("the model is away".into()));
        }
        let topic = model.topic.clone();
        let place = |partition: &i32| Place { topic: topic.clone(), partition: *partition };
        if let Some(member) = model.members.get_mut(&self.member) {
            if !member.lost.is_empty() {
                let lost = std::mem::take(&mut member.lost);
                events.push(Event::Lost(lost.iter().map(place).collect()));
                return Ok(());
            }
            if !member.new.is_empty() {
                let new = std::mem::take(&mut member.new);
                events.push(Event::Assigned(new.iter().map(place).collect()));
            }
        }
        for index in 0..self.positions.len() {
            let (partition, mut from) = self.positions[index];
            if from > 0 && model.chance.happens(faults.polled_twice) {
                from -= 1;
            }
            let count = model.chance.below(RECORDS_PER_POLL_MAX + 1);
            let rows = &model.input[partition as usize];
            let to = (from + count as i64).min(rows.len() as i64);
            if to > from {
                let mut taken = Rows::default();
                (from..to).for_each(|offset| taken.push_from(rows, offset as usize));
                self.positions[index].1 = to;
                let topic = topic.clone();
                events.push(Event::Batch(Batch { topic, partition, first_offset: from, next_offset: to, rows: taken }));
            }
        }
        self.filled = model.chance.happens(500);
        if let Some(member) = model.members.get_mut(&self.member)
            && !member.told_revoking
            && !member.revoking.is_empty()
        {
            member.told_revoking = true;
            events.push(Event::Revoked(member.revoking.iter().map(place).collect()));
        }
        Ok(())
    }

    pub(super) fn filled(&self) -> bool {
        self.filled
    }

    pub(super) fn committed(&mut self, places: &[Place]) -> Result<Vec<Option<Committed>>, SourceError> {
        let mut model = self.kafka.model();
        let faults = model.faults;
        if model.chance.happens(faults.away) {
            return Err(SourceError::Retriable("the model is away".into()));
        }
        Ok(places.iter().map(|place| model.offsets[place.partition as usize].clone()).collect())
    }

    pub(super) fn starts(&mut self, places: &[Place]) -> Result<Vec<Start>, SourceError> {
        let offsets = self.committed(places)?.into_iter();
        let start = |(place, committed): (Place, Option<Committed>)| {
            let (offset, note) = committed.map_or((0, None), |(offset, note)| (offset, Some(note)));
            Start { place, offset, note }
        };
        Ok(places.iter().cloned().zip(offsets).map(start).collect())
    }

    pub(super) fn assign(&mut self, starts: &[Start]) -> Result<(), SourceError> {
        self.positions.extend(starts.iter().map(|start| (start.place.partition, start.offset)));
        Ok(())
    }

    pub(super) fn unassign(&mut self, places: &[Place]) -> Result<(), SourceError> {
        let mut model = self.kafka.model();
        for place in places {
            let partition = place.partition;
            self.positions.retain(|(read, _)| *read != partition);
            if let Some(member) = model.members.get_mut(&self.member)
                && member.revoking.remove(&partition)
            {
                member.owned.remove(&partition);
                model.owners[partition as usize] = None;
            }
        }
        model.hand_out();
        Ok(())
    }

    pub(super) fn seek(&mut self, starts: &[(Place, i64)]) -> Result<(), SourceError> {
        for (place, offset) in starts {
            for position in self.positions.iter_mut().filter(|position| position.0 == place.partition) {
                position.1 = *offset;
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self) -> Result<(), SourceError> {
        self.kafka.crash(self.member);
        Ok(())
    }
}
