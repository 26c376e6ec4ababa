//! The cluster as the pipeline needs it: topics, their sizes, and the right to use them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::{Config, KafkaConnection, KafkaSourceConfig, SinkConfig, SourceConfig};
use crate::kafka::{Admin, Connection, Created, KafkaError, Partition, TopicPlan};

use super::RunError;

/// How long one question to the cluster may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What a topic takes in one batch where the broker's configuration can't be read: Kafka's default.
const DEFAULT_MESSAGE_BYTES_MAX: usize = 1_048_588;

/// What was learned of the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterReport {
    /// The cluster's id.
    pub cluster_id: String,
    /// Partitions of each topic that the pipeline uses.
    pub partitions: BTreeMap<String, i32>,
    /// Partitions of the source's topic; 0 where the source is none.
    pub source_partitions: i32,
    /// The least `max.message.bytes` of the topics that are written.
    pub message_bytes_max: Option<usize>,
    /// Topics that were made.
    pub created: Vec<String>,
}

/// The connection as the Kafka room takes it.
pub(super) fn connection(from: &KafkaConnection, config: &Config) -> Connection {
    Connection { client_id: format!("millstream-{}", config.pipeline), ..Connection::from(from) }
}

/// Checks the cluster for `validate --connect`: nothing is made.
pub fn check_cluster(config: &Config) -> Result<ClusterReport, RunError> {
    inspect(config, false)
}

/// Checks the cluster before a run and makes the topics that are missing, where the configuration allows it.
pub(super) fn prepare(config: &Config) -> Result<ClusterReport, RunError> {
    inspect(config, config.create_topics)
}

/// The Kafka topics that the pipeline writes.
pub(super) fn written_topics(config: &Config) -> Vec<(&KafkaConnection, &str)> {
    let sinks = config.outputs.iter().map(|output| &output.sink).chain([&config.dead_letters.to]);
    sinks
        .filter_map(|sink| match sink {
            SinkConfig::Kafka(kafka) => Some((&kafka.connection, kafka.topic.as_str())),
            _ => None,
        })
        .collect()
}

fn inspect(config: &Config, create: bool) -> Result<ClusterReport, RunError> {
    let source = match &config.source {
        SourceConfig::Kafka(source) => Some((&source.connection, source.topic.as_str())),
        _ => None,
    };
    let written = written_topics(config);
    let Some((main, _)) = source.or(written.first().copied()) else { return Ok(ClusterReport::default()) };
    let mut report = ClusterReport::default();
    let mut wrong = Vec::new();
    let mut admin = Admin::new(&connection(main, config)).map_err(|why| asking("reach the cluster", why))?;
    let doing = format!("reach the cluster at {}", main.brokers);
    report.cluster_id = admin.cluster_id(REQUEST_TIMEOUT).map_err(|why| asking(&doing, why))?;
    if let Some((_, topic)) = source {
        report.source_partitions = describe(&mut admin, topic, &mut wrong).unwrap_or(0);
    }
    for (_, topic) in &written {
        if report.partitions.contains_key(*topic) {
            continue;
        }
        let made = if create { make(&mut admin, topic, report.source_partitions.max(1), &mut wrong) } else { false };
        if made {
            report.created.push((*topic).to_owned());
            await_topic(&mut admin, topic);
        }
        let Some(partitions) = describe(&mut admin, topic, &mut wrong) else { continue };
        report.partitions.insert((*topic).to_owned(), partitions);
        let bytes = admin.topic_config(topic, REQUEST_TIMEOUT).ok();
        let bytes = bytes.and_then(|config| config.get("max.message.bytes")?.parse().ok());
        let bytes = bytes.unwrap_or(DEFAULT_MESSAGE_BYTES_MAX);
        report.message_bytes_max = Some(report.message_bytes_max.map_or(bytes, |least| least.min(bytes)));
    }
    if wrong.is_empty() { Ok(report) } else { Err(RunError::Cluster(wrong)) }
}

/// The topic's number of partitions; where there is none, `wrong` says why.
fn describe(admin: &mut Admin, topic: &str, wrong: &mut Vec<String>) -> Option<i32> {
    let answer = admin.describe_topics(&[topic], REQUEST_TIMEOUT).map(|mut topics| topics.pop());
    match answer {
        Ok(Some(Ok(info))) => Some(info.partitions),
        Ok(None) => None,
        Ok(Some(Err(KafkaError::Denied(detail)))) => {
            wrong.push(format!(
                "  topic `{topic}`: not authorised ({detail}); ask for Describe, and Read or Write, on it"
            ));
            None
        }
        Ok(Some(Err(why))) | Err(why) => {
            wrong.push(format!("  topic `{topic}`: {why}; create it, or set `create_topics: true`"));
            None
        }
    }
}

/// Waits until every broker that is asked knows a topic that was just made.
fn await_topic(admin: &mut Admin, topic: &str) {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    while Instant::now() < deadline && describe(admin, topic, &mut Vec::new()).is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// True where the topic is new.
fn make(admin: &mut Admin, topic: &str, partitions: i32, wrong: &mut Vec<String>) -> bool {
    let plan = TopicPlan { name: topic.to_owned(), partitions, replication: -1, config: BTreeMap::new() };
    let answer = admin.create_topics(&[plan], REQUEST_TIMEOUT).map(|mut answers| answers.pop());
    match answer {
        Ok(Some(Ok(Created::New))) => true,
        Ok(Some(Ok(Created::Existing)) | None) => false,
        Ok(Some(Err(why))) | Err(why) => {
            wrong.push(format!("  topic `{topic}` can't be created: {why}"));
            false
        }
    }
}

fn asking(doing: &str, why: KafkaError) -> RunError {
    RunError::Kafka { doing: doing.to_owned(), why }
}

/// The ends of a topic's partitions at some moment, to be reached by a group.
pub(super) struct Ends {
    admin: Admin,
    group: String,
    ends: Vec<(Partition, i64)>,
}

impl Ends {
    pub(super) fn new(source: &KafkaSourceConfig) -> Result<Self, RunError> {
        let mut admin =
            Admin::new(&Connection::from(&source.connection)).map_err(|why| asking("read the topic's end", why))?;
        let mut wrong = Vec::new();
        let partitions = describe(&mut admin, &source.topic, &mut wrong).ok_or(RunError::Cluster(wrong))?;
        let mut ends = Vec::new();
        for partition in 0..partitions {
            let place = Partition::new(source.topic.as_str(), partition);
            let (first, end) =
                admin.watermarks(&place, REQUEST_TIMEOUT).map_err(|why| asking("read the topic's end", why))?;
            if end > first {
                ends.push((place, end));
            }
        }
        Ok(Self { admin, group: source.group.clone(), ends })
    }

    /// True once the group has committed everything before the ends. A transaction's marker at the very end is no
    /// record, so that an offset one short of it will do where nothing follows.
    pub(super) fn reached(&mut self) -> Result<bool, RunError> {
        let places: Vec<Partition> = self.ends.iter().map(|(place, _)| place.clone()).collect();
        let offsets = match self.admin.group_offsets(&self.group, &places, REQUEST_TIMEOUT) {
            Ok(offsets) => offsets,
            Err(KafkaError::Retriable(_) | KafkaError::TimedOut(_)) => return Ok(false),
            Err(why) => return Err(asking("read the group's offsets", why)),
        };
        let done = |((_, end), position): (&(Partition, i64), &Option<crate::kafka::Position>)| {
            position.as_ref().is_some_and(|position| position.offset >= *end)
        };
        Ok(self.ends.iter().zip(&offsets).all(done))
    }
}
