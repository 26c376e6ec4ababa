//! The model's transactional producer.

use crate::kafka::partition_of;
use crate::memory::{MemoryKafka, Producer, Visible};
use crate::record::Rows;
use crate::source::MemorySource;
use crate::task::Output;
use crate::window::StateRows;

use super::{DeliveryError, Progress};

/// The producer of a simulated worker.
#[derive(Debug)]
pub struct MemoryDelivery {
    kafka: MemoryKafka,
    id: String,
    epoch: u64,
}

impl MemoryDelivery {
    /// A producer under a transactional id; whoever had it before is fenced and its open transaction aborted.
    pub fn new(kafka: &MemoryKafka, id: &str) -> Self {
        let mut delivery = Self { kafka: kafka.clone(), id: id.to_owned(), epoch: 0 };
        delivery.begin_epoch();
        delivery
    }

    fn begin_epoch(&mut self) {
        let mut model = self.kafka.model();
        let epoch = model.producers.get(&self.id).map_or(1, |producer| producer.epoch + 1);
        model.producers.insert(self.id.clone(), Producer { epoch, ..Producer::default() });
        self.epoch = epoch;
    }

    pub(super) fn deliver(&mut self, output: &Output) -> Result<(), DeliveryError> {
        let mut model = self.kafka.model();
        let faults = model.faults;
        let visible = |rows: &Rows, row: usize, output| Visible {
            output,
            offset: rows.offsets[row],
            key: rows.keys.get(row).map(<[u8]>::to_vec),
            value: rows.values.get(row).map(<[u8]>::to_vec),
        };
        let flow = &output.flow;
        let forwarded = (0..flow.rows.len()).map(|row| visible(&flow.rows, row, Some(flow.routes[row])));
        let dead = (0..output.dead_letters.len()).map(|row| visible(&output.dead_letters, row, None));
        for record in forwarded.chain(dead) {
            if model.chance.happens(100) {
                model.arrive_late(&self.id);
            }
            if let Some(producer) = model.producers.get_mut(&self.id) {
                if producer.epoch != self.epoch {
                    return Err(DeliveryError::Fatal("fenced by another producer of the same id".into()));
                }
                producer.open.push(record);
            }
        }
        if model.chance.happens(faults.aborted) {
            return Err(DeliveryError::Aborted("the model refused a produce".into()));
        }
        Ok(())
    }

    pub(super) fn deliver_states(&mut self, lane: i32, states: &[StateRows]) -> Result<(), DeliveryError> {
        let mut model = self.kafka.model();
        let faults = model.faults;
        let partitions = model.input.len() as i32;
        let Some(producer) = model.producers.get_mut(&self.id) else { return Ok(()) };
        if producer.epoch != self.epoch {
            return Err(DeliveryError::Fatal("fenced by another producer of the same id".into()));
        }
        for (stage, state) in states.iter().enumerate() {
            for row in 0..state.rows.len() {
                let key = state.rows.keys.get(row).map(<[u8]>::to_vec);
                let value = state.rows.values.get(row).map(<[u8]>::to_vec);
                let by_key = || partition_of(key.as_deref().unwrap_or_default(), partitions);
                let partition = if state.is_changelog { lane } else { by_key() };
                producer.open_states.push((stage, partition, (key, value)));
            }
            if !state.mark.is_empty() {
                let mark = |partition| (stage, partition, (None, Some(state.mark.clone())));
                producer.open_states.extend((0..partitions).map(mark));
            }
        }
        if model.chance.happens(faults.aborted) {
            return Err(DeliveryError::Aborted("the model refused states".into()));
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, progress: &[Progress], source: &mut MemorySource) -> Result<(), DeliveryError> {
        let mut model = self.kafka.model();
        let faults = model.faults;
        if model.producers.get(&self.id).map(|producer| producer.epoch) != Some(self.epoch) {
            return Err(DeliveryError::Fatal("fenced by another producer of the same id".into()));
        }
        if model.fenced(source.member()) {
            return Err(DeliveryError::Aborted("the member's generation is stale".into()));
        }
        if model.chance.happens(faults.aborted) {
            return Err(DeliveryError::Aborted("the model refused a commit".into()));
        }
        if model.chance.happens(faults.timed_out) {
            match model.chance.below(3) {
                0 => model.end(&self.id, progress),
                1 => {}
                _ => {
                    let epoch = self.epoch;
                    if let Some(producer) = model.producers.get_mut(&self.id) {
                        producer.late_commit = Some(epoch);
                    }
                }
            }
            return Err(DeliveryError::InDoubt("the model's answer was lost".into()));
        }
        model.end(&self.id, progress);
        Ok(())
    }

    pub(super) fn abort(&mut self) -> Result<(), DeliveryError> {
        let mut model = self.kafka.model();
        if let Some(producer) = model.producers.get_mut(&self.id).filter(|producer| producer.epoch == self.epoch) {
            producer.open.clear();
            producer.open_states.clear();
        }
        Ok(())
    }

    pub(super) fn renew(&mut self) -> Result<(), DeliveryError> {
        {
            let mut model = self.kafka.model();
            let faults = model.faults;
            if model.chance.happens(faults.away) {
                return Err(DeliveryError::InDoubt("the model is away".into()));
            }
        }
        self.begin_epoch();
        Ok(())
    }
}
