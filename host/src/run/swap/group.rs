//! Whether all members of the group run the same plugins, as their commits say.

use std::time::{Duration, Instant};

use crate::config::{Config, SourceConfig};
use crate::kafka::{Admin, Connection, Partition};
use crate::worker::{Chain, Note};

/// How often the group is looked at, and how long that may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The notes that the group's members commit.
pub(in crate::run) struct Group {
    admin: Admin,
    group: String,
    places: Vec<Partition>,
    looked: Option<Instant>,
    mixed: usize,
}

impl Group {
    /// The group of a Kafka source; `None` for other sources, or where no client can be made.
    pub(in crate::run) fn new(config: &Config, partitions: i32) -> Option<Self> {
        let SourceConfig::Kafka(source) = &config.source else { return None };
        let admin = Admin::new(&Connection::from(&source.connection)).ok()?;
        let places = (0..partitions).map(|partition| Partition::new(source.topic.as_str(), partition)).collect();
        Some(Self { admin, group: source.group.clone(), places, looked: None, mixed: 0 })
    }

    /// How many partitions' last commits name other plugins than `chain`, where it is time to look.
    pub(in crate::run) fn mixed(&mut self, chain: &Chain) -> Option<usize> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
            return None;
        }
        self.looked = Some(Instant::now());
        let offsets = self.admin.group_offsets(&self.group, &self.places, REQUEST_TIMEOUT).ok()?;
        let notes = offsets.iter().flatten().filter_map(|position| Note::parse(&position.metadata));
        let mixed = notes.filter(|note| note.plugins != *chain.plugins).count();
        if mixed > 0 && self.mixed == 0 {
            tracing::warn!("{mixed} partitions of the group run other plugins than this process");
        }
        self.mixed = mixed;
        Some(mixed)
    }
}
