//! Questions and orders to a cluster: topics, groups, offsets.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::{Offset, TopicPartitionList};

use super::config::{Connection, ConsumerSettings};
use super::consumer::Consumer;
use super::error::{Detail, KafkaError, RawError, code};
use super::native::{Client, GroupState, Side, TopicInfo};
use super::types::{Partition, Position};

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Number of replicas; -1 for the broker's default.
    pub replication: i32,
    /// Its configuration by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// What came of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The topic is new.
    New,
    /// The topic was there, maybe with another configuration.
    Existing,
}

/// A client for questions to the cluster; belongs to no group.
pub struct Admin {
    client: Client,
    orders: AdminClient<Logged>,
    connection: Connection,
}

/// Sends the log of `rdkafka`'s own client where ours goes.
struct Logged;

impl ClientContext for Logged {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "kafka", client = "admin", facility, "{text}");
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(target: "kafka", client = "admin", %error, "{reason}");
    }
}

impl Admin {
    /// Makes a client; no broker is asked yet.
    pub fn new(connection: &Connection) -> Result<Self, KafkaError> {
        let reader = ConsumerSettings { read_committed: false, ..ConsumerSettings::new(connection.clone(), "") };
        let client = Client::new(Side::Consumer, &reader.properties()?)?;
        let mut config = ClientConfig::new();
        for (name, value) in connection.properties()? {
            config.set(name, value);
        }
        let orders = config.create_with_context(Logged).map_err(|error| sort(&error, "make an admin client"))?;
        Ok(Self { client, orders, connection: connection.clone() })
    }

    /// The cluster's id; also the way to find out whether the cluster can be reached and lets us in.
    pub fn cluster_id(&self, timeout: Duration) -> Result<String, KafkaError> {
        self.client.connect(timeout)?;
        self.client.cluster_id(timeout).ok_or_else(|| {
            let text = format!("{} tells no cluster id", self.connection.bootstrap);
            KafkaError::TimedOut(Detail { doing: "read the cluster's id", code: code::TIMED_OUT, text })
        })
    }

    /// Names and partition counts of all topics that we may see.
    pub fn topics(&self, timeout: Duration) -> Result<Vec<(String, i32)>, KafkaError> {
        self.client.list_topics(timeout)
    }

    /// Id and partition count of each topic, in the order asked, or why not: a topic that is not there, or one that we may
    /// not see.
    pub fn describe_topics(
        &mut self,
        names: &[&str],
        timeout: Duration,
    ) -> Result<Vec<Result<TopicInfo, KafkaError>>, KafkaError> {
        self.client.describe_topics(names, timeout)
    }

    /// The topic's configuration by Kafka's names, defaults included: `max.message.bytes`, `cleanup.policy`, …
    pub fn topic_config(&self, topic: &str, timeout: Duration) -> Result<BTreeMap<String, String>, KafkaError> {
        const DOING: &str = "read the topic's configuration";
        let resources = [ResourceSpecifier::Topic(topic)];
        let answer = block_on(self.orders.describe_configs(&resources, &options(timeout)));
        let resource = answer.map_err(|error| sort(&error, DOING))?.pop();
        match resource {
            Some(Ok(resource)) => {
                let entries = resource.entries.into_iter();
                Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
            }
            Some(Err(code)) => Err(plain(code, DOING)),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Makes topics; one that is there already stays as it is.
    pub fn create_topics(
        &self,
        plans: &[TopicPlan],
        timeout: Duration,
    ) -> Result<Vec<Result<Created, KafkaError>>, KafkaError> {
        const DOING: &str = "create the topic";
        let topics = plans.iter().map(|plan| {
            let topic = NewTopic::new(&plan.name, plan.partitions, TopicReplication::Fixed(plan.replication));
            plan.config.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
        });
        let topics: Vec<_> = topics.collect();
        let answers = block_on(self.orders.create_topics(&topics, &options(timeout)));
        let created = |answer: Result<String, (String, rdkafka::types::RDKafkaErrorCode)>| match answer {
            Ok(_) => Ok(Created::New),
            Err((_, code)) if code as i32 == code::TOPIC_EXISTS => Ok(Created::Existing),
            Err((_, code)) => Err(plain(code, DOING)),
        };
        Ok(answers.map_err(|error| sort(&error, DOING))?.into_iter().map(created).collect())
    }

    /// Deletes topics with all that is in them; one that is not there is no error.
    pub fn delete_topics(&self, names: &[&str], timeout: Duration) -> Result<(), KafkaError> {
        const DOING: &str = "delete the topic";
        let answers = block_on(self.orders.delete_topics(names, &options(timeout)));
        for answer in answers.map_err(|error| sort(&error, DOING))? {
            match answer {
                Err((_, code)) if code as i32 != code::UNKNOWN_TOPIC => return Err(plain(code, DOING)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes the records before these offsets.
    pub fn delete_records(&self, before: &[Position], timeout: Duration) -> Result<(), KafkaError> {
        const DOING: &str = "delete records";
        let mut list = TopicPartitionList::new();
        for position in before {
            let offset = Offset::Offset(position.offset);
            let added = list.add_partition_offset(&position.topic, position.partition, offset);
            added.map_err(|error| sort(&error, DOING))?;
        }
        block_on(self.orders.delete_records(&list, &options(timeout))).map_err(|error| sort(&error, DOING))?;
        Ok(())
    }

    /// The first offset of a partition and the one after its last record, committed or not.
    pub fn watermarks(&self, of: &Partition, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        self.client.watermarks(of, timeout)
    }

    /// What a group is doing and how many members it has.
    pub fn group_state(&mut self, group: &str, timeout: Duration) -> Result<GroupState, KafkaError> {
        self.client.describe_group(group, timeout)
    }

    /// A group's committed offsets with metadata, in the order asked.
    pub fn group_offsets(
        &self,
        group: &str,
        of: &[Partition],
        timeout: Duration,
    ) -> Result<Vec<Option<Position>>, KafkaError> {
        self.outsider(group)?.committed(of, timeout)
    }

    /// Sets a group's offsets; the broker refuses while the group has members.
    pub fn set_group_offsets(&self, group: &str, to: &[Position], timeout: Duration) -> Result<(), KafkaError> {
        self.outsider(group)?.commit(to, timeout)
    }

    /// For each position, whose offset is a time in milliseconds since 1970 UTC, the first offset of that time or later.
    pub fn offsets_for_times(
        &self,
        times: &[Position],
        timeout: Duration,
    ) -> Result<Vec<Option<Position>>, KafkaError> {
        self.outsider("")?.offsets_for_times(times, timeout)
    }

    /// A consumer that knows the group and is no member of it.
    fn outsider(&self, group: &str) -> Result<Consumer, KafkaError> {
        Consumer::new(&ConsumerSettings::new(self.connection.clone(), group))
    }
}

fn options(timeout: Duration) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout))
}

fn plain(code: rdkafka::types::RDKafkaErrorCode, doing: &'static str) -> KafkaError {
    RawError { code: code as i32, text: code.to_string(), ..RawError::default() }.sort(doing)
}

fn sort(error: &rdkafka::error::KafkaError, doing: &'static str) -> KafkaError {
    let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
    RawError { code, text: error.to_string(), ..RawError::default() }.sort(doing)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread; the admin client has a thread of its own that completes it.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}
