//! The cluster as the pipeline needs it: topics, their sizes, and the right to use them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, KafkaConnection, KafkaSinkConfig, SinkConfig, SourceConfig};
use crate::kafka::{Admin, Connection, Created, KafkaError, Partition, Position, TopicPlan};
use crate::record::Lanes;

use super::states::{self, StateTopic};
use super::{RunError, drains};

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
    /// Partitions of the source's topics, all together; 0 where the source has none.
    pub source_partitions: i32,
    /// These, numbered through.
    pub lanes: Lanes,
    /// The largest batch, and so the largest record, that each written topic takes: `max.message.bytes`.
    pub message_bytes: BTreeMap<String, usize>,
    /// The topics of stages that keep states.
    pub states: Vec<StateTopic>,
    /// Topics that are not there yet: `create_topics` is set, and a run makes them.
    pub missing: Vec<String>,
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
    inspect(config, true)
}

/// The Kafka topics that the pipeline writes.
pub(super) fn written_topics(config: &Config) -> Vec<&KafkaSinkConfig> {
    let sinks = config.outputs.iter().map(|output| &output.sink).chain([&config.dead_letters.to]);
    let kafka = sinks.filter_map(|sink| match sink {
        SinkConfig::Kafka(kafka) => Some(kafka),
        _ => None,
    });
    // Without stages the source's own topic feeds the table.
    kafka.filter(|kafka| !(kafka.is_outbox && drains::is_direct(config))).collect()
}

/// The id that the broker gave a topic when it was made.
pub(super) fn topic_id(connection: &Connection, topic: &str) -> Result<String, RunError> {
    let failed = |why| asking(&format!("learn the id of topic `{topic}`"), why);
    let mut admin = Admin::new(connection).map_err(failed)?;
    let answer = admin.describe_topics(&[topic], REQUEST_TIMEOUT).map_err(failed)?.pop();
    answer.map_or(Ok(String::new()), |info| info.map(|info| info.id)).map_err(failed)
}

fn inspect(config: &Config, create: bool) -> Result<ClusterReport, RunError> {
    let source = match &config.source {
        SourceConfig::Kafka(source) => Some((&source.connection, source.topics.as_slice())),
        _ => None,
    };
    let written = written_topics(config);
    let main = source.map(|(connection, _)| connection).or(written.first().map(|kafka| &kafka.connection));
    let Some(main) = main else { return Ok(ClusterReport::default()) };
    let mut report = ClusterReport::default();
    let mut wrong = Vec::new();
    let mut admin = Admin::new(&connection(main, config)).map_err(|why| asking("reach the cluster", why))?;
    let doing = format!("reach the cluster at {}", main.brokers);
    report.cluster_id = admin.cluster_id(REQUEST_TIMEOUT).map_err(|why| asking(&doing, why))?;
    let widest = describe_source(&mut admin, source.map_or(&[], |(_, topics)| topics), &mut report, &mut wrong);
    for KafkaSinkConfig { topic, is_outbox, .. } in written {
        if report.partitions.contains_key(topic) {
            continue;
        }
        let mut found = describe(&mut admin, topic);
        if (config.create_topics || *is_outbox) && found.as_ref().is_err_and(KafkaError::is_unknown_topic) {
            // Nothing is made for a run that can't begin.
            if !create || !wrong.is_empty() {
                report.missing.push(topic.clone());
                continue;
            }
            found = make(&mut admin, topic, widest, BTreeMap::new());
        }
        match found {
            Ok(partitions) => drop(report.partitions.insert(topic.clone(), partitions)),
            Err(why) => {
                wrong.push(complaint(topic, &why, "create it, or set `create_topics: true`"));
                continue;
            }
        }
        let bytes = admin.topic_config(topic, REQUEST_TIMEOUT).ok();
        let bytes = bytes.and_then(|config| config.get("max.message.bytes")?.parse().ok());
        report.message_bytes.insert(topic.clone(), bytes.unwrap_or(DEFAULT_MESSAGE_BYTES_MAX));
    }
    if wrong.is_empty() && report.source_partitions > 0 {
        report.states = states::topics(config);
        for StateTopic { name, .. } in report.states.clone() {
            let expected = report.source_partitions;
            let mut found = describe(&mut admin, &name);
            if found.as_ref().is_err_and(KafkaError::is_unknown_topic) {
                if !create {
                    report.missing.push(name);
                    continue;
                }
                found = make(&mut admin, &name, expected, states::topic_config());
            }
            match found {
                Ok(partitions) if partitions == expected => {
                    report.message_bytes.insert(name, states::RECORD_BYTES_MAX);
                }
                Ok(partitions) => wrong.push(format!(
                    "  topic `{name}`: it has {partitions} partitions and the source has {expected}: states lie where their \
                     records do. Give the stage another name, which begins with new states, or go back to {partitions} partitions"
                )),
                Err(why) => wrong.push(complaint(&name, &why, "it is made by Millstream, which needs the right to")),
            }
        }
    }
    if wrong.is_empty() { Ok(report) } else { Err(RunError::Cluster(wrong)) }
}

/// Learns the partitions of the topics that are read; returns how many the widest one has, 1 where nothing is read.
fn describe_source(admin: &mut Admin, topics: &[String], report: &mut ClusterReport, wrong: &mut Vec<String>) -> i32 {
    let mut read: Vec<(Arc<str>, u32)> = Vec::new();
    for topic in topics {
        match describe(admin, topic) {
            Ok(partitions) => read.push((topic.as_str().into(), partitions as u32)),
            Err(why) => wrong.push(complaint(topic, &why, "create it: `create_topics` makes those that are written")),
        }
    }
    let widest = read.iter().map(|(_, partitions)| *partitions as i32).max().unwrap_or(0).max(1);
    report.source_partitions = read.iter().map(|(_, partitions)| *partitions as i32).sum();
    report.lanes = Lanes::new(read);
    widest
}

/// The topic's number of partitions.
fn describe(admin: &mut Admin, topic: &str) -> Result<i32, KafkaError> {
    let answer = admin.describe_topics(&[topic], REQUEST_TIMEOUT)?.pop();
    answer.map_or(Ok(0), |info| info.map(|info| info.partitions))
}

/// What is wrong with a topic, and what to do.
fn complaint(topic: &str, why: &KafkaError, advice: &str) -> String {
    match why {
        KafkaError::Denied(detail) => {
            format!("  topic `{topic}`: not authorised ({detail}); ask for Describe, and Read or Write, on it")
        }
        why if why.is_unknown_topic() => format!("  topic `{topic}`: there is no such topic; {advice}"),
        why => format!("  topic `{topic}`: {why}"),
    }
}

/// Makes a topic and waits until it can be asked for.
fn make(admin: &mut Admin, topic: &str, partitions: i32, config: BTreeMap<String, String>) -> Result<i32, KafkaError> {
    let plan = TopicPlan { name: topic.to_owned(), partitions, replication: -1, config };
    admin.create_topics(&[plan], REQUEST_TIMEOUT)?.pop().unwrap_or(Ok(Created::Existing))?;
    tracing::info!("topic `{topic}` was made, with {partitions} partitions");
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        match describe(admin, topic) {
            Err(why) if why.is_unknown_topic() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            found => return found,
        }
    }
}

fn asking(doing: &str, why: KafkaError) -> RunError {
    RunError::Kafka { doing: doing.to_owned(), why }
}

/// The ends of topics' partitions at some moment, to be reached by a group.
pub(super) struct Ends {
    admin: Admin,
    group: String,
    ends: Vec<(Partition, i64)>,
}

impl Ends {
    pub(super) fn new(connection: &KafkaConnection, topics: &[impl AsRef<str>], group: &str) -> Result<Self, RunError> {
        let mut admin = Admin::new(&Connection::from(connection)).map_err(|why| asking("read the topic's end", why))?;
        let mut ends = Vec::new();
        for topic in topics.iter().map(AsRef::as_ref) {
            let partitions = describe(&mut admin, topic).map_err(|why| asking("read the topic's end", why))?;
            for partition in 0..partitions {
                let place = Partition::new(topic, partition);
                let (first, end) =
                    admin.watermarks(&place, REQUEST_TIMEOUT).map_err(|why| asking("read the topic's end", why))?;
                if end > first {
                    ends.push((place, end));
                }
            }
        }
        Ok(Self { admin, group: group.to_owned(), ends })
    }

    /// True once the group has committed everything before the ends.
    pub(super) fn reached(&mut self) -> Result<bool, RunError> {
        let places: Vec<Partition> = self.ends.iter().map(|(place, _)| place.clone()).collect();
        let offsets = match self.admin.group_offsets(&self.group, &places, REQUEST_TIMEOUT) {
            Ok(offsets) => offsets,
            Err(KafkaError::Retriable(_) | KafkaError::TimedOut(_)) => return Ok(false),
            Err(why) => return Err(asking("read the group's offsets", why)),
        };
        let done = |((place, end), position): (&(Partition, i64), &Option<Position>)| {
            position
                .as_ref()
                .is_some_and(|position| position.offset == *end || self.passed(place, *end, position.offset))
        };
        Ok(self.ends.iter().zip(&offsets).all(done))
    }

    /// True where the group is behind the end that was aimed at; not where it is behind all that there is, which the
    /// worker mends or refuses.
    fn passed(&self, place: &Partition, end: i64, offset: i64) -> bool {
        offset > end && self.admin.watermarks(place, REQUEST_TIMEOUT).is_ok_and(|(_, now)| offset <= now)
    }
}
