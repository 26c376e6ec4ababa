//! Records of states that nobody needs any more: what lies before the base of a changelog, and what was merged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::{Config, SourceConfig};
use crate::kafka::{Admin, Connection, KafkaError, Partition, Position};
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
    partitions: i32,
    next: Instant,
    done: BTreeSet<(String, i32, i64)>,
}

/// A topic of states, and the group whose commits say what of it is needed.
struct Swept {
    topic: String,
    stage: String,
    group: String,
    read_topic: String,
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
            let (group, read_topic) = match holds {
                Holds::Changelog => (kafka.group.clone(), kafka.topic.clone()),
                Holds::Partials | Holds::MergedChangelog => {
                    (states::group(config, topic.stage), states::partials(config, topic.stage))
                }
            };
            Swept { topic: topic.name.clone(), stage, group, read_topic, holds }
        };
        let connection = cluster::connection(&kafka.connection, config);
        let admin = Admin::new(&Connection::clone(&connection))
            .map_err(|why| RunError::Kafka { doing: "tidy up the topics of states".to_owned(), why })?;
        Ok(Some(Self {
            admin,
            swept: cluster.states.iter().map(swept).collect(),
            partitions: cluster.source_partitions,
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
        let Swept { topic, stage, group, read_topic, holds } = &self.swept[at];
        let places: Vec<Partition> =
            (0..self.partitions).map(|partition| Partition::new(read_topic.as_str(), partition)).collect();
        let offsets = self.admin.group_offsets(group, &places, TIMEOUT)?;
        let needed = |position: &Position| match holds {
            Holds::Partials => Some(position.offset),
            Holds::Changelog | Holds::MergedChangelog => match Note::parse(&position.metadata)?.state.get(stage)? {
                StateNote::Base(base) => Some(*base),
                StateNote::Meta(_) => None,
            },
        };
        let before = |position: &Position| {
            let offset = needed(position).filter(|&offset| offset > 0)?;
            let new = !self.done.contains(&(topic.clone(), position.partition, offset));
            new.then(|| Partition::new(topic.as_str(), position.partition).at(offset))
        };
        let before: Vec<Position> = offsets.iter().flatten().filter_map(before).collect();
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
