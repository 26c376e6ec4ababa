//! Whether all members of the group run the same plugins, as their commits say.

use std::time::{Duration, Instant};

use crate::config::{Config, SourceConfig};
use crate::kafka::{Admin, Connection, Partition};
use crate::record::Lanes;
use crate::worker::{Chain, Note};

/// How often the group is looked at, and how long that may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The notes that the group's members commit.
pub(in crate::run) struct Group {
    connection: Connection,
    /// Made at the first look: a short run never needs it.
    admin: Option<Admin>,
    group: String,
    places: Vec<Partition>,
    looked: Instant,
    mixed: usize,
}

impl Group {
    /// The group of a Kafka source; `None` for other sources.
    pub(in crate::run) fn new(config: &Config, lanes: &Lanes) -> Option<Self> {
        let SourceConfig::Kafka(source) = &config.source else { return None };
        let connection = Connection::from(&source.connection);
        let places = lanes.places().map(|place| Partition { topic: place.topic, partition: place.partition }).collect();
        Some(Self { connection, admin: None, group: source.group.clone(), places, looked: Instant::now(), mixed: 0 })
    }

    /// How many partitions' last commits name other plugins than `chain`, where it is time to look.
    pub(in crate::run) fn mixed(&mut self, chain: &Chain) -> Option<usize> {
        if self.looked.elapsed() < LOOK_INTERVAL {
            return None;
        }
        self.looked = Instant::now();
        if self.admin.is_none() {
            self.admin = Admin::new(&self.connection).ok();
        }
        let offsets = self.admin.as_ref()?.group_offsets(&self.group, &self.places, REQUEST_TIMEOUT).ok()?;
        let notes = offsets.iter().flatten().filter_map(|position| Note::parse(&position.metadata));
        let mixed = notes.filter(|note| note.plugins != *chain.plugins).count();
        if mixed > 0 && self.mixed == 0 {
            tracing::warn!("{mixed} partitions of the group run other plugins than this process");
        }
        self.mixed = mixed;
        Some(mixed)
    }
}
