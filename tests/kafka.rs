//! Promise: between Kafka and Kafka nothing of a record is lost, changed or repeated; what can't go on says why; and who
//! comes, goes or is told to stop does so in order.
//!
//! A real broker, which all tests here share (each has its own topics and groups), and real processes.

mod harness;

#[path = "kafka/groups.rs"]
mod groups;
#[path = "kafka/records.rs"]
mod records;
#[path = "kafka/room.rs"]
mod room;
#[path = "kafka/secured.rs"]
mod secured;
#[path = "kafka/starts.rs"]
mod starts;
#[path = "kafka/stopping.rs"]
mod stopping;
