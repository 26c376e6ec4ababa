//! Drains: a thread for each table that an output's records go on to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{ClickHouseConfig, Config, KafkaConnection, SinkConfig, SourceConfig};
use crate::drain::{Drain, DrainError, DrainReadings, DrainSettings, DrainState, Trouble, check_table};
use crate::kafka::{Consumer, ConsumerSettings, ProducerSettings};
use crate::source::{KafkaSource, StartAt};

use super::cluster::{self, ClusterReport, Ends};
use super::workers::{failed, kafka_source, record_bytes_max};
use super::{RunError, Sight, lock};

/// How the table of dead letters is called among the outputs.
pub(super) const DEAD_LETTERS: &str = "dead_letters";
/// Bytes that the consumer of a drain queues, and that all its blocks may take.
const CONSUMER_KIB: usize = 8 << 10;
const BLOCKS_BYTES: usize = 192 << 20;
/// How long a drain that is told to stop waits for blocks that are on their way.
const FINISH_PATIENCE: Duration = Duration::from_secs(8);
/// Properties of the source's consumer that hold for the drains' groups too.
const MEMBER_PROPERTIES: &[&str] = &["session.timeout.ms", "heartbeat.interval.ms"];
/// How often a drain's readings are published.
const READINGS_INTERVAL_MS: u64 = 100;

/// What a drain last published.
pub(super) type Shown = Arc<Mutex<DrainReadings>>;

/// A drain's thread.
pub(super) struct Running {
    thread: JoinHandle<Result<(), DrainError>>,
    shown: Shown,
    stop: Arc<AtomicBool>,
    /// Where its topic ended at some time, for a run that ends there.
    ends: Option<Ends>,
    feed: Feed,
}

/// A table, and the topic that it is fed from.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The output's name; `dead_letters` for theirs.
    pub output: String,
    /// The table.
    pub table: ClickHouseConfig,
    /// The topic's cluster.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// The group under which it is read.
    pub group: String,
    /// True where the topic holds dead letters.
    of_dead_letters: bool,
}

/// True where a pipeline does nothing with its records but to bring them into one table: then they need no topic of
/// their own on the way.
pub(super) fn is_direct(config: &Config) -> bool {
    let outbox = |sink: &SinkConfig| matches!(sink, SinkConfig::Kafka(kafka) if kafka.is_outbox);
    // A table's blocks are planned in the offsets of one topic.
    matches!(&config.source, SourceConfig::Kafka(kafka) if kafka.topics.len() == 1)
        && config.stages.is_empty()
        && matches!(&config.outputs[..], [main] if main.table.is_some() && outbox(&main.sink))
}

/// Asks the servers whether rows can go into every table, for `validate --connect`; returns what an operator should know, by
/// output.
pub fn check_tables(config: &Config) -> Result<Vec<(String, Vec<String>)>, RunError> {
    let check = |(output, table): (&str, &ClickHouseConfig)| match check_table(table) {
        Ok(notes) => Ok((output.to_owned(), notes)),
        Err(Trouble::Passing(why) | Trouble::Wrong(why)) => Err(RunError::Drain { output: output.to_owned(), why }),
    };
    let feeds = feeds(config);
    let fed = feeds.iter().map(|feed| (feed.output.as_str(), &feed.table));
    fed.chain(direct_tables(config)).map(check).collect()
}

/// The tables that no topic feeds, with their outputs' names.
fn direct_tables(config: &Config) -> impl Iterator<Item = (&str, &ClickHouseConfig)> {
    let outputs = config.outputs.iter().map(|output| (output.name.as_str(), &output.sink));
    outputs.chain([(DEAD_LETTERS, &config.dead_letters.to)]).filter_map(|(name, sink)| match sink {
        SinkConfig::Table(table) => Some((name, table.as_ref())),
        _ => None,
    })
}

/// A table that can't be used as it is ends a run before it begins; a server that is away does not.
pub(super) fn check(config: &Config) -> Result<(), RunError> {
    feeds(config).into_iter().try_for_each(|feed| match check_table(&feed.table) {
        Err(Trouble::Wrong(why)) => Err(RunError::Drain { output: feed.output, why }),
        Ok(_) | Err(Trouble::Passing(_)) => Ok(()),
    })
}

/// The tables with the topics that they are fed from.
pub fn feeds(config: &Config) -> Vec<Feed> {
    let group = match &config.source {
        SourceConfig::Kafka(source) => source.group.as_str(),
        _ => config.pipeline.as_str(),
    };
    let feed = |output: &str, sink: &SinkConfig, table: &Option<ClickHouseConfig>, of_dead_letters| match (sink, table)
    {
        (SinkConfig::Kafka(kafka), Some(table)) => Some(Feed {
            output: output.to_owned(),
            table: table.clone(),
            connection: kafka.connection.clone(),
            topic: kafka.topic.clone(),
            group: format!("{group}.{output}"),
            of_dead_letters,
        }),
        _ => None,
    };
    let outputs = config.outputs.iter().filter_map(|output| feed(&output.name, &output.sink, &output.table, false));
    let dead_letters = feed(DEAD_LETTERS, &config.dead_letters.to, &config.dead_letters.table, true);
    let mut feeds: Vec<Feed> = outputs.chain(dead_letters).collect();
    if let (true, SourceConfig::Kafka(source)) = (is_direct(config), &config.source) {
        feeds[0].connection = source.connection.clone();
        feeds[0].topic = source.topics[0].clone();
        feeds[0].group = source.group.clone();
    }
    feeds
}

/// Starts a drain for each table.
pub(super) fn start(
    config: &Config,
    cluster: &ClusterReport,
    all_stop: &Arc<AtomicBool>,
    (started, sight): (Instant, &Arc<Sight>),
) -> Result<Vec<Running>, RunError> {
    let feeds = feeds(config);
    let all_bytes = config.memory_limit_bytes.map_or(BLOCKS_BYTES, |bytes| (bytes as usize / 4).min(BLOCKS_BYTES));
    let memory_bytes = all_bytes / feeds.len().max(1);
    let spawn = |feed: Feed| {
        let (settings, source) = (settings(config, cluster, &feed, memory_bytes)?, source(config, &feed)?);
        let drain = Drain::new(settings, source).map_err(|why| drain_failed(&feed.output, why))?;
        let (stop, shown) = (Arc::<AtomicBool>::default(), Arc::new(Mutex::new(DrainReadings::new(&feed.output))));
        sight.watch_drain(shown.clone());
        let (own_stop, own_shown, sight) = (stop.clone(), shown.clone(), sight.clone());
        let all_stop = all_stop.clone();
        let body = move || {
            let result = work(drain, &own_stop, (&own_shown, &sight), started);
            // One that fails takes all others with it: nothing is to fill its topic while nobody empties it.
            all_stop.store(all_stop.load(Ordering::Relaxed) || result.is_err(), Ordering::Relaxed);
            result
        };
        let thread = std::thread::Builder::new().name(format!("drain-{}", feed.output)).spawn(body);
        let thread = thread.map_err(|why| RunError::Io(format!("can't start a thread: {why}")))?;
        Ok(Running { thread, shown, stop, ends: None, feed })
    };
    feeds.into_iter().map(spawn).collect()
}

fn work(
    mut drain: Drain,
    stop: &AtomicBool,
    (shown, sight): (&Mutex<DrainReadings>, &Sight),
    started: Instant,
) -> Result<(), DrainError> {
    let now_ms = || started.elapsed().as_millis() as u64;
    let (mut paused, mut shown_ms) = (false, 0);
    let result = loop {
        if stop.load(Ordering::Relaxed) {
            break drain.finish(now_ms(), FINISH_PATIENCE);
        }
        if sight.is_paused() != paused {
            paused = !paused;
            if let Err(why) = drain.pause(paused) {
                break Err(why);
            }
        }
        if let Err(why) = drain.step(now_ms()) {
            break Err(why);
        }
        if now_ms() >= shown_ms + READINGS_INTERVAL_MS {
            shown_ms = now_ms();
            *lock(shown) = drain.readings();
        }
    };
    let mut last = drain.readings();
    if let Err(why) = &result {
        last.state = DrainState::Stopped(why.to_string());
    }
    *lock(shown) = last;
    result
}

/// True where there is nothing more to wait for: what a run that `ends` has put into topics still goes on to the tables,
/// and one that does not end goes on for as long as any of them takes rows.
pub(super) fn are_over(drains: &mut [Running], ends: bool) -> Result<bool, RunError> {
    if !ends {
        return Ok(drains.iter().all(|drain| drain.thread.is_finished()));
    }
    for drain in drains {
        if !drain.is_done()? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Running {
    /// True once all that its topic held when this was first asked is in the table, or it does nothing more.
    fn is_done(&mut self) -> Result<bool, RunError> {
        let ends = match &mut self.ends {
            Some(ends) => ends,
            none => none.insert(Ends::new(&self.feed.connection, &[&self.feed.topic], &self.feed.group)?),
        };
        let is_stopped = matches!(lock(&self.shown).state, DrainState::Stopped(_));
        Ok(is_stopped || self.thread.is_finished() || ends.reached()?)
    }

    /// Has it bring in what it has taken, and end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end: an error where it stopped before that.
    pub(super) fn join(self) -> Result<(), RunError> {
        let output = &self.feed.output;
        self.thread.join().map_err(|_| RunError::Panicked)?.map_err(|why| drain_failed(output, why))?;
        match &lock(&self.shown).state {
            DrainState::Stopped(why) => Err(RunError::Drain { output: output.clone(), why: why.clone() }),
            _ => Ok(()),
        }
    }
}

fn drain_failed(output: &str, why: DrainError) -> RunError {
    RunError::Drain { output: output.to_owned(), why: why.to_string() }
}

/// Settings of a table's drain, whose blocks may take `memory_bytes`.
fn settings(
    config: &Config,
    cluster: &ClusterReport,
    feed: &Feed,
    memory_bytes: usize,
) -> Result<DrainSettings, RunError> {
    let letters = match &config.dead_letters.to {
        _ if feed.of_dead_letters => None,
        SinkConfig::Kafka(kafka) => {
            let id = format!("{}-{}-drain-{}", config.pipeline, config.instance, feed.output);
            let mut settings = ProducerSettings::new(cluster::connection(&kafka.connection, config), id);
            settings.message_max_bytes = cluster.message_bytes.get(&kafka.topic).copied().unwrap_or(1 << 20);
            Some((settings, kafka.topic.clone()))
        }
        SinkConfig::Discard => None,
        SinkConfig::File(_) | SinkConfig::Stdout | SinkConfig::Table(_) => {
            return Err(RunError::Setting(format!(
                "output `{}`: records that do not fit its table become dead letters, which need a topic here: \
                 `dead_letters: {{to: {{kafka: {{topic: …}}}}}}`",
                feed.output
            )));
        }
    };
    let letter_bytes_max = match &letters {
        Some((_, topic)) => record_bytes_max(cluster, topic),
        None => usize::MAX,
    };
    let topic_id = cluster::topic_id(&cluster::connection(&feed.connection, config), &feed.topic)?;
    Ok(DrainSettings {
        output: feed.output.clone(),
        table: feed.table.clone(),
        pipeline: config.pipeline.clone(),
        group: feed.group.clone(),
        cluster_id: cluster.cluster_id.clone(),
        topic_id,
        letters,
        letter_bytes_max,
        of_dead_letters: feed.of_dead_letters,
        memory_bytes,
    })
}

fn source(config: &Config, feed: &Feed) -> Result<KafkaSource, RunError> {
    if let (true, SourceConfig::Kafka(source)) = (is_direct(config), &config.source)
        && !feed.of_dead_letters
    {
        return kafka_source(config, source, CONSUMER_KIB);
    }
    let consumer = Consumer::new(&consumer_settings(config, feed)).map_err(|why| failed("make a consumer", why))?;
    Ok(KafkaSource::new(consumer, &[&*feed.topic], StartAt::Earliest, false)?)
}

/// Settings of the consumer of a topic that one of the pipeline's outputs writes.
fn consumer_settings(config: &Config, feed: &Feed) -> ConsumerSettings {
    let mut settings = ConsumerSettings::new(cluster::connection(&feed.connection, config), &feed.group);
    if let SourceConfig::Kafka(source) = &config.source {
        settings.protocol = source.protocol;
        // How soon a member that was killed is missed is one wish for all groups of a pipeline.
        let wished = cluster::connection(&source.connection, config).properties;
        for (name, value) in wished.into_iter().filter(|(name, _)| MEMBER_PROPERTIES.contains(&name.as_str())) {
            settings.connection.properties.entry(name).or_insert(value);
        }
    }
    settings.queue_kib = CONSUMER_KIB;
    settings.offset_reset = "error".to_owned();
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_misses_its_members_as_soon_as_the_source_does() {
        let text = "pipeline: p
source: {kafka: {brokers: 'k:9092', topic: t, properties: {session.timeout.ms: 7000, fetch.min.bytes: 9}}}
stages: [{name: all, filter: {field: /a, op: exists}}]
outputs: {main: {kafka: {topic: u}, clickhouse: {url: 'http://c:8123', database: d, table: t}}}
dead_letters: {to: {kafka: {topic: dead}}}
";
        let config = Config::parse(std::path::Path::new("p.yaml"), text, &|_: &str| None).expect("a pipeline");
        let settings = consumer_settings(&config, &feeds(&config)[0]);
        let properties: Vec<_> = settings.connection.properties.into_iter().collect();
        assert_eq!(properties, [("session.timeout.ms".to_owned(), "7000".to_owned())]);
    }
}
