//! Places in Kafka.

use std::sync::Arc;

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl Partition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The place `offset` in this partition, without metadata.
    pub fn at(&self, offset: i64) -> Position {
        Position { topic: self.topic.clone(), partition: self.partition, offset, metadata: String::new() }
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// The first offset that the broker still has.
pub const BEGINNING: i64 = -2;
/// The offset of the next record that will be written.
pub const END: i64 = -1;
/// Where the group's committed offset says, or else what `auto.offset.reset` says.
pub const COMMITTED: i64 = -1000;

/// A place in a partition, and the note that goes with it in the group's commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// The offset of the next record to read; or [`BEGINNING`], [`END`], [`COMMITTED`] where a start is meant.
    pub offset: i64,
    /// What is committed with the offset: UTF-8, at most 4,096 bytes by the broker's default; empty for none.
    pub metadata: String,
}

impl Position {
    /// The partition.
    pub fn place(&self) -> Partition {
        Partition { topic: self.topic.clone(), partition: self.partition }
    }
}
