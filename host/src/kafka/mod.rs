//! Kafka, by librdkafka; its types never leave this room.
//!
//! A worker owns a [`Consumer`] and a [`Producer`] and calls both from its one thread. Rows come out of a poll in flat
//! buffers, a batch a partition, and go into the producer in flat buffers: nothing is allocated, locked or logged per
//! record on our side. What costs, by measurement: the producer is cheapest when rows come in runs of one partition, so
//! it groups them; values are not copied until they are written into a request.
//!
//! Rules that others must keep:
//! - The group fences members, not partitions. A live member's commit for a partition that it gave up is accepted, and
//!   moves the offset back. Whoever commits has to drop what belongs to a revoked partition.
//! - A transactional request that was not answered in time leaves the producer in doubt: [`Producer::is_usable`] is
//!   false, and [`Producer::renew`] has to come before the next transaction.
//! - Poll while waiting: a consumer that is not polled for `max_poll_interval` is put out of the group.

mod admin;
mod config;
mod consumer;
mod error;
mod native;
mod partitioner;
mod producer;
mod statistics;
mod types;

pub use admin::{Admin, Created, TopicPlan};
pub use config::{Connection, ConsumerSettings, ProducerSettings};
pub use consumer::{CommitResult, Consumer, Polled, Rebalance};
pub use error::{Detail, KafkaError};
pub use native::{GroupMetadata, GroupState, TopicInfo};
pub use partitioner::{murmur2, partition_of};
pub use producer::{DeliveryFailure, Producer, Progress, Route, TopicId};
pub use types::{BEGINNING, COMMITTED, END, Partition, Position};

/// The version of librdkafka that is linked.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
