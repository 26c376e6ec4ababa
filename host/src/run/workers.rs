//! Worker threads: what each owns, and its loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{self, Config, KafkaConnection, KafkaSourceConfig, OutOfRange, SinkConfig, SourceConfig, Start};
use crate::drain::{DirectTable, DrainReadings};
use crate::kafka::{Consumer, ConsumerSettings, KafkaError, Producer, ProducerSettings};
use crate::pipeline::RowLimits;
use crate::sink::{Delivery, FileSink, Outputs, Target};
use crate::source::{KafkaSource, LocalSource, Source, StartAt};
use crate::task::ErrorBudget;
use crate::worker::{Chains, CommitPolicy, Shared, Step, Worker, WorkerError};

use super::cluster::{self, ClusterReport};
use super::drains;
use super::spill;
use super::states::{self, Level};
use super::{Progress, Published, RunError, Sight, Worked, lock};

/// The most workers that are started unless the configuration says otherwise.
pub(super) const WORKERS_MAX: usize = 4;
/// How long the broker has to end what an earlier producer of the same name left open.
const PRODUCER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an orderly end tries to commit where the servers do not answer.
const DRAIN_ROUNDS: u32 = 5;
/// What a record costs beside its bytes, with room to spare: the producer's own check must never be the first to say no.
const RECORD_OVERHEAD_BYTES: usize = 2_048;
const MIB: u64 = 1 << 20;
/// How often a worker's readings are published, and librdkafka's statistics made.
const READINGS_INTERVAL_MS: u64 = 100;
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);

/// A worker's thread and what it last published.
pub(super) struct Running {
    pub(super) thread: JoinHandle<Result<(), WorkerError>>,
    pub(super) published: Published,
}

/// Starts the workers.
pub(super) fn start(
    config: &Config,
    chains: &Arc<Chains>,
    cluster: &ClusterReport,
    stop: &Arc<AtomicBool>,
    (started, sight): (Instant, &Arc<Sight>),
) -> Result<Vec<Running>, RunError> {
    if drains::is_direct(config) {
        return Ok(Vec::new());
    }
    let count = count(config, cluster);
    let memory = Memory::divide(config, count);
    tracing::info!(
        "memory: {} MiB in all; a worker's consumer queues {} MiB, its producer {} MiB",
        memory.limit_bytes / MIB,
        memory.consumer_kib / 1024,
        memory.producer_kib / 1024
    );
    spill::prepare(config)?;
    sight.expect(count);
    let workers = (0..count).map(|index| {
        let level = Level::First;
        let delivery = delivery(config, cluster, &memory, (level, index, sight))?;
        let source = source(config, &memory)?;
        let states = states::source(config, cluster, level)?;
        let worker = Worker::new(shared(config, chains, cluster, &memory), source, delivery).with_states(states);
        let published = Published::default();
        sight.watch(published.clone());
        spawn(worker, (format!("worker-{index}"), level), stop, published, (started, sight))
    });
    workers.collect()
}

/// Starts the workers that merge the states of a stage.
pub(super) fn start_merging(
    config: &Config,
    chains: &Arc<Chains>,
    cluster: &ClusterReport,
    (stop, stage): (&Arc<AtomicBool>, usize),
    (started, sight): (Instant, &Arc<Sight>),
) -> Result<Vec<Running>, RunError> {
    let SourceConfig::Kafka(kafka) = &config.source else { return Ok(Vec::new()) };
    let memory = Memory::divide(config, count(config, cluster) + 1);
    let level = Level::Second(stage);
    let from = KafkaSourceConfig {
        topics: vec![states::partials(config, stage)],
        group: states::group(config, stage),
        start: Some(Start::Earliest),
        on_out_of_range: OutOfRange::Stop,
        ..kafka.clone()
    };
    let source = Source::Kafka(Box::new(kafka_source(config, &from, memory.consumer_kib)?));
    let delivery = delivery(config, cluster, &memory, (level, 0, sight))?;
    let shared = Shared { budget: None, breaker: None, quality: None, ..shared(config, chains, cluster, &memory) };
    let worker = Worker::new(shared, source, delivery).with_states(states::source(config, cluster, level)?);
    let (name, published) = (format!("merge-{}", config.stages[stage].name), Published::default());
    sight.watch_merging(stage, published.clone());
    Ok(vec![spawn(worker, (name, level), stop, published, (started, sight))?])
}

/// Runs a worker in a thread of its own. One that fails takes the others with it, in order: they commit what they have.
fn spawn(
    worker: Worker,
    (name, level): (String, Level),
    stop: &Arc<AtomicBool>,
    published: Published,
    (started, sight): (Instant, &Arc<Sight>),
) -> Result<Running, RunError> {
    let (own, stop, sight) = (published.clone(), stop.clone(), sight.clone());
    let body = move || {
        let result = work((worker, level), &stop, (&own, &sight), started);
        stop.store(stop.load(Ordering::Relaxed) || result.is_err(), Ordering::Relaxed);
        result
    };
    let thread = std::thread::Builder::new().name(name).spawn(body);
    let thread = thread.map_err(|why| RunError::Io(format!("can't start a thread: {why}")))?;
    Ok(Running { thread, published })
}

fn work(
    (mut worker, level): (Worker, Level),
    stop: &AtomicBool,
    (published, sight): (&Mutex<Worked>, &Sight),
    started: Instant,
) -> Result<(), WorkerError> {
    let now_ms = || started.elapsed().as_millis() as u64;
    let mut counted = Progress::default();
    let (mut paused, mut asked) = (false, 0);
    let mut read_ms = None;
    loop {
        sight.questions().answer(level, &mut asked, &mut worker);
        let stopping = stop.load(Ordering::Relaxed);
        let step = if stopping { Ok(Step::Finished) } else { turn(&mut worker, sight, &mut paused, now_ms()) };
        let ended = match step {
            Ok(Step::Worked(_)) => None,
            Ok(Step::Finished) => Some(worker.drain(now_ms(), DRAIN_ROUNDS)),
            Err(error) => {
                worker.abandon();
                Some(Err(error))
            }
        };
        let now_ms = now_ms();
        let committed = worker.commits() != counted.commits || ended.is_some();
        if committed {
            for (taken_ms, records) in worker.take_committed() {
                counted.note_latency(now_ms.saturating_sub(taken_ms), records);
            }
            counted.commits = worker.commits();
            counted.ledger = worker.ledger();
        }
        let due = read_ms.is_none_or(|read_ms| now_ms >= read_ms + READINGS_INTERVAL_MS) || ended.is_some();
        let readings = (sight.is_on() && due).then(|| worker.readings());
        read_ms = if due { Some(now_ms) } else { read_ms };
        if committed || due {
            let mut published = lock(published);
            published.restoring = worker.restore_readings();
            published.progress.clone_from(&counted);
            published.paused = paused;
            published.readings = readings.or(published.readings.take());
        }
        if let Some(result) = ended {
            return result;
        }
    }
}

/// One round of a worker, which may have been told to pause or to go on.
fn turn(worker: &mut Worker, sight: &Sight, paused: &mut bool, now_ms: u64) -> Result<Step, WorkerError> {
    if sight.is_paused() != *paused {
        *paused = !*paused;
        worker.pause(*paused)?;
    }
    worker.step(now_ms)
}

/// As many workers as there are processors or partitions, whichever are fewer; one where the source is not Kafka.
fn count(config: &Config, cluster: &ClusterReport) -> usize {
    if !matches!(config.source, SourceConfig::Kafka(_)) {
        return 1;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = config.workers.map_or(processors.min(WORKERS_MAX), |workers| workers as usize);
    wanted.clamp(1, cluster.source_partitions.max(1) as usize)
}

/// How the process's memory is divided; librdkafka alone would take 64 MB a consumer and 1 GB a producer.
struct Memory {
    limit_bytes: u64,
    consumer_kib: usize,
    producer_kib: usize,
}

impl Memory {
    fn divide(config: &Config, workers: usize) -> Self {
        let limit_bytes = memory_limit_bytes(config);
        let share_kib = limit_bytes / 1024 / workers as u64;
        let part = |share: u64, least_mib: u64, most_mib: u64| share.clamp(least_mib * 1024, most_mib * 1024) as usize;
        Self { limit_bytes, consumer_kib: part(share_kib / 8, 2, 4), producer_kib: part(share_kib / 8, 2, 8) }
    }
}

/// Memory of the whole process.
pub(super) fn memory_limit_bytes(config: &Config) -> u64 {
    config.memory_limit_bytes.unwrap_or_else(|| cgroup_limit_bytes() * 3 / 4)
}

/// What the control group allows, or else the machine's memory.
fn cgroup_limit_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    let machine = || {
        let text = read("/proc/meminfo")?;
        let kib: u64 =
            text.lines().find(|line| line.starts_with("MemTotal"))?.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    };
    group.or_else(machine).unwrap_or(1024 * MIB)
}

fn shared(config: &Config, chains: &Arc<Chains>, cluster: &ClusterReport, memory: &Memory) -> Shared {
    Shared {
        chains: chains.clone(),
        breaker: config.breaker,
        budget: config.dead_letters.stop_above.map(|budget| ErrorBudget {
            share: f64::from(budget.share_per_million) / 1e6,
            records: budget.over_records,
        }),
        row_limits: row_limits(config, cluster),
        policy: CommitPolicy {
            min_interval_ms: config.commit.min_interval_ms,
            max_interval_ms: config.commit.max_interval_ms,
            records_max: config.commit.max_records,
            bytes_max: memory.producer_kib as u64 * 1024 / 2,
        },
        metered: config.is_observed(),
        quality: config.quality.clone().map(Arc::new),
        lanes: cluster.lanes.clone(),
    }
}

/// What each output's topic takes; other targets take anything.
fn row_limits(config: &Config, cluster: &ClusterReport) -> RowLimits {
    let limit = |sink: &SinkConfig| match sink {
        SinkConfig::Kafka(kafka) => record_bytes_max(cluster, &kafka.topic),
        _ => usize::MAX,
    };
    let outputs = config.outputs.iter().map(|output| limit(&output.sink)).collect();
    RowLimits::new(outputs, limit(&config.dead_letters.to))
}

/// The most bytes of a record that a topic takes.
pub(super) fn record_bytes_max(cluster: &ClusterReport, topic: &str) -> usize {
    let bytes = cluster.message_bytes.get(topic).copied();
    bytes.map_or(usize::MAX, |bytes| bytes.saturating_sub(RECORD_OVERHEAD_BYTES))
}

fn source(config: &Config, memory: &Memory) -> Result<Source, RunError> {
    match &config.source {
        SourceConfig::Kafka(kafka) => Ok(Source::Kafka(Box::new(kafka_source(config, kafka, memory.consumer_kib)?))),
        local => Ok(Source::Local(Box::new(LocalSource::open(local)?))),
    }
}

/// The consumer of a source's group.
pub(super) fn kafka_source(
    config: &Config,
    kafka: &KafkaSourceConfig,
    queue_kib: usize,
) -> Result<KafkaSource, RunError> {
    let mut settings = ConsumerSettings::new(cluster::connection(&kafka.connection, config), &kafka.group);
    settings.protocol = kafka.protocol;
    settings.queue_kib = queue_kib;
    settings.connection.statistics_interval = statistics_interval(config);
    // Where to begin is decided by us, per partition and in words; librdkafka must never jump on its own.
    settings.offset_reset = "error".to_owned();
    let start = match kafka.start {
        None => StartAt::Unsaid,
        Some(Start::Earliest) => StartAt::Earliest,
        Some(Start::Latest) => StartAt::Latest,
        Some(Start::TimestampMs(time_ms)) => StartAt::TimestampMs(time_ms),
    };
    let consumer = Consumer::new(&settings).map_err(|why| failed("make a consumer", why))?;
    let skip_lost = kafka.on_out_of_range == OutOfRange::Earliest;
    let topics: Vec<&str> = kafka.topics.iter().map(String::as_str).collect();
    Ok(KafkaSource::new(consumer, &topics, start, skip_lost)?)
}

fn delivery(
    config: &Config,
    cluster: &ClusterReport,
    memory: &Memory,
    (level, worker, sight): (Level, usize, &Sight),
) -> Result<Delivery, RunError> {
    let exactly_once =
        config.delivery == config::Delivery::ExactlyOnce && matches!(config.source, SourceConfig::Kafka(_));
    let written = cluster::written_topics(config);
    let state_topics = states::written(cluster, level);
    let connection = written.first().map(|kafka| &kafka.connection);
    let connection = connection.or(config.source.connection().filter(|_| !state_topics.is_empty()));
    let id = exactly_once.then(|| format!("{}-{}{}-{worker}", config.pipeline, config.instance, level.suffix(config)));
    let mut producer = match connection {
        Some(connection) => Some(producer(config, connection, cluster, memory, id)?),
        None => None,
    };
    let (mut files, mut tables) = (Vec::new(), Vec::new());
    let endless = matches!(config.source, SourceConfig::Kafka(_));
    let mut target = |name: &str, sink: &SinkConfig| match (sink, &mut producer) {
        (SinkConfig::Kafka(kafka), Some(producer)) => {
            let doing = format!("write to topic `{}`", kafka.topic);
            producer.topic(&kafka.topic, PRODUCER_TIMEOUT).map(Target::Topic).map_err(|why| failed(&doing, why))
        }
        (SinkConfig::File(file), _) => {
            // A source that ends makes its outputs anew; one that does not goes on where they end.
            let open = if endless { FileSink::append } else { FileSink::create };
            let sink =
                open(&file.path).map_err(|why| RunError::Io(format!("output {}: {why}", file.path.display())))?;
            files.push(sink);
            Ok(Target::File(files.len() - 1))
        }
        (SinkConfig::Stdout, _) => {
            files.push(FileSink::stdout());
            Ok(Target::File(files.len() - 1))
        }
        (SinkConfig::Table(table), _) => {
            let shown = Arc::new(Mutex::new(DrainReadings::new(name)));
            sight.watch_drain(shown.clone());
            // Blocks of files are cut by rows and bytes alone, so that a repeated run makes the same.
            let by_time = !matches!(config.source, SourceConfig::Files(_));
            let of_dead_letters = name == drains::DEAD_LETTERS;
            let table = DirectTable::open(table, (&config.pipeline, name), of_dead_letters, by_time, shown);
            tables.push(table.map_err(|why| RunError::Drain { output: name.to_owned(), why })?);
            Ok(Target::Table(tables.len() - 1))
        }
        (SinkConfig::Discard | SinkConfig::Kafka(_), _) => Ok(Target::Discard),
    };
    let outputs = config.outputs.iter().map(|output| target(&output.name, &output.sink));
    let targets = outputs.collect::<Result<Vec<_>, _>>()?;
    let dead_letters = target(drains::DEAD_LETTERS, &config.dead_letters.to)?;
    let mut topics = BTreeMap::new();
    for (stage, name) in state_topics {
        let Some(producer) = &mut producer else { continue };
        let topic = producer.topic(&name, PRODUCER_TIMEOUT);
        topics.insert(stage, topic.map_err(|why| failed(&format!("write to topic `{name}`"), why))?);
    }
    let outputs = Outputs::new(producer, (files, tables), targets, dead_letters, exactly_once);
    Ok(Delivery::Outputs(Box::new(outputs.with_states(topics))))
}

/// A producer; transactional where it has an id, which is stable over restarts.
fn producer(
    config: &Config,
    connection: &KafkaConnection,
    cluster: &ClusterReport,
    memory: &Memory,
    id: Option<String>,
) -> Result<Producer, RunError> {
    let mut settings = ProducerSettings::new(cluster::connection(connection, config), id.unwrap_or_default());
    settings.connection.statistics_interval = statistics_interval(config);
    let sizes = || cluster.message_bytes.values().copied();
    if let (Some(least), Some(most)) = (sizes().min(), sizes().max()) {
        settings.message_max_bytes = most;
        settings.batch_bytes = settings.batch_bytes.min(least.saturating_sub(RECORD_OVERHEAD_BYTES)).max(1);
    }
    // A queue that can't hold the largest record twice would never take it.
    settings.queue_kib = memory.producer_kib.max(settings.message_max_bytes / 512);
    Producer::new(settings, PRODUCER_TIMEOUT).map_err(|why| failed("make a producer", why))
}

/// Statistics that nobody looks at are not made.
fn statistics_interval(config: &Config) -> Duration {
    if config.is_observed() { STATISTICS_INTERVAL } else { Duration::ZERO }
}

pub(super) fn failed(doing: &str, why: KafkaError) -> RunError {
    RunError::Kafka { doing: doing.to_owned(), why }
}
