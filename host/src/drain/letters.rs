//! Dead letters of a drain: records that do not fit the table go to the pipeline's topic for them, in one transaction with
//! the offset after their block.

use std::time::Duration;

use super::DrainError;
use crate::kafka::{GroupMetadata, KafkaError, Position, Producer, ProducerSettings, Route, TopicId};
use crate::record::Rows;

/// How long a request of a transaction may take; beyond it its outcome is unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the broker has to end what an earlier producer of the same name left open.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to the topic of dead letters; a producer is made when the first one comes.
pub(super) struct Letters {
    settings: ProducerSettings,
    topic: String,
    producer: Option<(Producer, TopicId)>,
}

/// What came of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is committed.
    Committed,
    /// It had no effect.
    Aborted,
    /// It took effect, or not: the group has to be asked.
    Unknown,
}

impl Letters {
    pub(super) fn new(settings: ProducerSettings, topic: &str) -> Self {
        Self { settings, topic: topic.to_owned(), producer: None }
    }

    /// Delivers dead letters and commits the offset, both or neither.
    pub(super) fn commit(&mut self, dead: Rows, to: &Position, group: &GroupMetadata) -> Result<Outcome, DrainError> {
        let (producer, topic) = match self.ready() {
            Ok(ready) => ready,
            Err(why) => return self.failed(why, Outcome::Aborted),
        };
        let begun = producer
            .begin()
            .and_then(|()| producer.produce(topic, &Route::ByKey, dead).map(drop))
            .and_then(|()| producer.send_offsets(std::slice::from_ref(to), group, REQUEST_TIMEOUT));
        if let Err(why) = begun {
            return self.failed(why, Outcome::Aborted);
        }
        match producer.commit(REQUEST_TIMEOUT) {
            Ok(()) => Ok(Outcome::Committed),
            Err(why @ KafkaError::AbortRequired(_)) => self.failed(why, Outcome::Aborted),
            Err(why) => self.failed(why, Outcome::Unknown),
        }
    }

    fn ready(&mut self) -> Result<(&mut Producer, TopicId), KafkaError> {
        if self.producer.is_none() {
            let mut producer = Producer::new(self.settings.clone(), START_TIMEOUT)?;
            let topic = producer.topic(&self.topic, START_TIMEOUT)?;
            self.producer = Some((producer, topic));
        }
        // It was just made where there was none.
        let (producer, topic) = self.producer.as_mut().ok_or_else(|| unreachable!("a producer was made"))?;
        Ok((producer, *topic))
    }

    /// Another producer of the same name ends whatever this one left open, before anything else is begun.
    fn failed(&mut self, why: KafkaError, outcome: Outcome) -> Result<Outcome, DrainError> {
        self.producer = None;
        match why {
            KafkaError::Denied(_) | KafkaError::Setting { .. } | KafkaError::TooLarge { .. } => {
                Err(DrainError::Letters { topic: self.topic.clone(), why })
            }
            why => {
                tracing::warn!("dead letters for topic `{}` are delivered again: {why}", self.topic);
                Ok(outcome)
            }
        }
    }
}
