//! Records of states that nobody needs any more: what lies before the base of a changelog, and what was merged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::{Config, SourceConfig};
use crate::kafka::{Admin, Connection, KafkaError, Partition, Position};
use crate::record::Place;
use crate::task::StateNote;
use crate::worker::Note;

use super::RunError;
use super::cluster::{self, ClusterReport};
use super::states::{self, Holds};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(2);

/// Deletes them, now and then. Every instance of a pipeline does; to delete what is gone already is no error.
pub(super) struct Janitor {
    admin: Admin,
    swept: Vec<Swept>,
    next: Instant,
    done: BTreeSet<(String, i32, i64)>,
}

/// A topic of states, and the group whose commits say what of it is needed.
struct Swept {
    topic: String,
    stage: String,
    group: String,
    /// What the group reads, in the order of the topic's partitions.
    read: Vec<Partition>,
    holds: Holds,
}

impl Janitor {
    /// For a pipeline that keeps states in topics; `None` for one that does not.
    pub(super) fn new(config: &Config, cluster: &ClusterReport) -> Result<Option<Self>, RunError> {
        let SourceConfig::Kafka(kafka) = &config.source else { return Ok(None) };
        if cluster.states.is_empty() {
            return Ok(None);
        }
        let swept = |topic: &states::StateTopic| {
            let (stage, holds) = (config.stages[topic.stage].name.clone(), topic.holds);
            let place = |place: Place| Partition { topic: place.topic, partition: place.partition };
            let (group, read) = match holds {
                Holds::Changelog => (kafka.group.clone(), cluster.lanes.places().map(place).collect()),
                Holds::Partials | Holds::MergedChangelog => {
                    let partials = states::partials(config, topic.stage);
                    let of = |partition| Partition::new(partials.as_str(), partition);
                    (states::group(config, topic.stage), (0..cluster.source_partitions).map(of).collect())
                }
            };
            Swept { topic: topic.name.clone(), stage, group, read, holds }
        };
        let connection = cluster::connection(&kafka.connection, config);
        let admin = Admin::new(&Connection::clone(&connection))
            .map_err(|why| RunError::Kafka { doing: "tidy up the topics of states".to_owned(), why })?;
        Ok(Some(Self {
            admin,
            swept: cluster.states.iter().map(swept).collect(),
            next: Instant::now() + INTERVAL,
            done: BTreeSet::new(),
        }))
    }

    /// Tidies up, where it is time for it. What fails is tried again the next time.
    pub(super) fn tick(&mut self) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + INTERVAL;
        for at in 0..self.swept.len() {
            if let Err(why) = self.tidy(at) {
                tracing::debug!("topic `{}` is not tidied up: {why}", self.swept[at].topic);
            }
        }
    }

    fn tidy(&mut self, at: usize) -> Result<(), KafkaError> {
        let Swept { topic, stage, group, read, holds } = &self.swept[at];
        let offsets = self.admin.group_offsets(group, read, TIMEOUT)?;
        let needed = |position: &Position| match holds {
            Holds::Partials => Some(position.offset),
            Holds::Changelog | Holds::MergedChangelog => match Note::parse(&position.metadata)?.state.get(stage)? {
                StateNote::Base(base) => Some(*base),
                StateNote::Meta(_) => None,
            },
        };
        let before = |(partition, position): (usize, &Option<Position>)| {
            let offset = needed(position.as_ref()?).filter(|&offset| offset > 0)?;
            let partition = partition as i32;
            let new = !self.done.contains(&(topic.clone(), partition, offset));
            new.then(|| Partition::new(topic.as_str(), partition).at(offset))
        };
        let before: Vec<Position> = offsets.iter().enumerate().filter_map(before).collect();
        if before.is_empty() {
            return Ok(());
        }
        self.admin.delete_records(&before, TIMEOUT)?;
        let topic = topic.clone();
        self.done.retain(|(of, ..)| *of != topic);
        self.done.extend(before.into_iter().map(|position| (topic.clone(), position.partition, position.offset)));
        Ok(())
    }
}
