//! What a run shows of itself while it goes on, and the switches that it obeys.
//!
//! Workers publish copies of plain numbers; whoever asks adds them up. Nothing here is on the way of a record.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::{Config, LogLevel, QualityConfig, SourceConfig};
use crate::drain::{DrainReadings, DrainState};
use crate::http::{Sender, Sent, Service, Unwilling};
use crate::metrics::{Format, Histogram, TIME};
use crate::pipeline::StageCounts;
use crate::quality::{Counts, Verdict, Watch};
use crate::record::Place;
use crate::table::TableReading;
use crate::worker::{Readings, RestoreReading};

use super::answers;
use super::drains::Shown;
use super::exposition::{self, Seen};
use super::holdings::{self, Holdings};
use super::questions::Questions;
use super::states::Level;
use super::{
    ClusterReport, Component, Origin, Prepared, Progress, Published, SwapError, SwapRequest, Swapper, lock, now_ms,
};

/// Over how long rates are told, and how often their ends move.
const RATE_SPAN: Duration = Duration::from_secs(10);
const RATE_STEP: Duration = Duration::from_secs(1);

/// What is known of a stage before it runs.
#[derive(Clone, Debug)]
pub(super) struct StageFact {
    pub(super) name: String,
    pub(super) plugin: String,
    pub(super) version: String,
    /// Empty where the stage is no plugin.
    pub(super) digest: String,
    pub(super) memory_limit_bytes: Option<u64>,
}

/// Sets the level of logs, or says why that can't be.
type SetLevel = dyn Fn(LogLevel) -> Result<(), String> + Send + Sync;

/// What changes the level of logs while the process runs.
#[derive(Clone)]
pub struct LogSwitch(Arc<SetLevel>);

impl LogSwitch {
    /// A switch that calls `set`.
    pub fn new(set: impl Fn(LogLevel) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(set))
    }
}

impl std::fmt::Debug for LogSwitch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogSwitch")
    }
}

/// The eyes and the hand brake of one run.
pub struct Sight {
    on: bool,
    log_switch: Option<LogSwitch>,
    started: Instant,
    swapper: Arc<Swapper>,
    pub(super) pipeline: String,
    pub(super) group: Option<String>,
    pub(super) lag_exporter_names: bool,
    config: Config,
    outputs: Vec<String>,
    swap_pauses: Mutex<Histogram>,
    /// Partitions of the group whose last commit names other plugins than ours.
    mixed_partitions: AtomicUsize,
    paused: AtomicBool,
    expected: AtomicUsize,
    cluster_id: Mutex<String>,
    workers: Mutex<Vec<Published>>,
    /// Those that merge what the workers send on, with their stage.
    merging: Mutex<Vec<(usize, Published)>>,
    drains: Mutex<Vec<Shown>>,
    questions: Questions,
    rates: Mutex<VecDeque<(Instant, u64, u64)>>,
    quality: Option<Quality>,
}

/// The watch over the data.
struct Quality {
    config: Arc<QualityConfig>,
    watch: Mutex<Watch>,
    /// Whether the stream was paused in this window.
    was_paused: AtomicBool,
    started_ms: u64,
}

impl Sight {
    pub(super) fn new(config: &Config, swapper: &Arc<Swapper>, log_switch: Option<LogSwitch>) -> Self {
        let group = match &config.source {
            SourceConfig::Kafka(kafka) => Some(kafka.group.clone()),
            _ => None,
        };
        Self {
            on: config.is_observed(),
            log_switch,
            started: Instant::now(),
            pipeline: config.pipeline.clone(),
            group,
            lag_exporter_names: config.observe.as_ref().is_some_and(|observe| observe.lag_exporter_names),
            config: config.clone(),
            outputs: swapper.prepared().pipeline.outputs.clone(),
            swapper: swapper.clone(),
            swap_pauses: Mutex::new(Histogram::new(&TIME)),
            mixed_partitions: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            expected: AtomicUsize::new(0),
            cluster_id: Mutex::default(),
            workers: Mutex::default(),
            merging: Mutex::default(),
            drains: Mutex::default(),
            questions: Questions::default(),
            rates: Mutex::default(),
            quality: config.quality.clone().map(|config| Quality::new(Arc::new(config))),
        }
    }

    /// So many partitions of the group run other plugins than this process.
    pub(super) fn see_mixed(&self, partitions: usize) {
        self.mixed_partitions.store(partitions, Ordering::Relaxed);
    }

    /// True where anybody may ask.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    pub(super) fn see_cluster(&self, cluster: &ClusterReport) {
        lock(&self.cluster_id).clone_from(&cluster.cluster_id);
    }

    /// So many workers are about to start.
    pub(super) fn expect(&self, workers: usize) {
        self.expected.store(workers, Ordering::Relaxed);
    }

    /// One more worker publishes here.
    pub(super) fn watch(&self, worker: Published) {
        lock(&self.workers).push(worker);
    }

    /// So does one that merges the states of a stage.
    pub(super) fn watch_merging(&self, stage: usize, worker: Published) {
        lock(&self.merging).push((stage, worker));
    }

    /// What is asked of the workers.
    pub(super) fn questions(&self) -> &Questions {
        &self.questions
    }

    /// How many workers there are on a level.
    pub(super) fn workers_of(&self, level: Level) -> usize {
        match level {
            Level::First => lock(&self.workers).len(),
            Level::Second(stage) => lock(&self.merging).iter().filter(|(of, _)| *of == stage).count(),
        }
    }

    /// A table's drain shows itself here.
    pub(super) fn watch_drain(&self, drain: Shown) {
        lock(&self.drains).push(drain);
    }

    /// What the drains last published.
    pub(super) fn tables(&self) -> Vec<DrainReadings> {
        lock(&self.drains).iter().map(|drain| lock(drain).clone()).collect()
    }

    /// True while no records are to be taken.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// True once every worker does as it was told: no record is taken any more.
    fn has_paused(&self) -> bool {
        let workers = lock(&self.workers);
        let any = !workers.is_empty() || !lock(&self.drains).is_empty();
        let merging = lock(&self.merging);
        let mut all = workers.iter().chain(merging.iter().map(|(_, worker)| worker));
        any && all.all(|worker| lock(worker).paused)
    }

    /// How far restores are, of both levels.
    fn restoring(&self) -> Vec<RestoreReading> {
        let (workers, merging) = (lock(&self.workers), lock(&self.merging));
        let all = workers.iter().chain(merging.iter().map(|(_, worker)| worker));
        all.flat_map(|worker| lock(worker).restoring.clone()).collect()
    }

    /// Takes note of how far the run is; to be called now and then.
    pub(super) fn tick(&self, progress: &Progress) {
        let (now, mut rates) = (Instant::now(), lock(&self.rates));
        if rates.back().is_some_and(|last| now - last.0 < RATE_STEP) {
            return;
        }
        self.watch_quality(progress.ledger.records_in);
        let restoring = self.restoring();
        if !restoring.is_empty() {
            let left: u64 = restoring.iter().map(|of| of.records_left).sum();
            tracing::info!(partitions = restoring.len(), "restoring: {left} records left");
        }
        let ledger = &progress.ledger;
        rates.push_back((now, ledger.records_in, ledger.outputs.iter().sum()));
        while rates.len() > 2 && now - rates[1].0 >= RATE_SPAN {
            rates.pop_front();
        }
    }

    /// Judges the data where a window is over.
    fn watch_quality(&self, records_in: u64) {
        let Some(quality) = &self.quality else { return };
        let now_ms = now_ms();
        let last =
            lock(&self.workers).iter().filter_map(|worker| lock(worker).readings.as_ref()?.last_arrival_ms).max();
        let stalled_ms = now_ms.saturating_sub(last.unwrap_or(quality.started_ms));
        let paused = self.is_paused();
        quality.was_paused.fetch_or(paused, Ordering::Relaxed);
        let mut watch = lock(&quality.watch);
        watch.note_stall(if paused { 0.0 } else { stalled_ms as f64 / 1e3 });
        if watch.is_due(now_ms) {
            let counts = self.quality_counts(&quality.config);
            watch.tick(now_ms, &counts, records_in, quality.was_paused.swap(paused, Ordering::Relaxed));
        }
    }

    /// What the workers' samples looked like, all together.
    fn quality_counts(&self, config: &QualityConfig) -> Counts {
        let mut counts = Counts::new(config.fields.len());
        for worker in lock(&self.workers).iter() {
            let worker = lock(worker);
            worker.readings.iter().filter_map(|readings| readings.quality.as_ref()).for_each(|own| counts.add(own));
        }
        counts
    }

    /// The configuration, counts and verdict, where the data are watched.
    pub(super) fn quality(&self) -> Option<(&QualityConfig, Counts, Verdict)> {
        let quality = self.quality.as_ref()?;
        let verdict = lock(&quality.watch).verdict().clone();
        Some((&quality.config, self.quality_counts(&quality.config), verdict))
    }

    /// Records in and out a second, lately.
    fn rates(&self) -> (f64, f64) {
        let rates = lock(&self.rates);
        match (rates.front(), rates.back()) {
            (Some(first), Some(last)) if last.0 > first.0 => {
                let seconds = (last.0 - first.0).as_secs_f64();
                let rate = |last: u64, first: u64| last.saturating_sub(first) as f64 / seconds;
                (rate(last.1, first.1), rate(last.2, first.2))
            }
            _ => (0.0, 0.0),
        }
    }

    /// For how long workers stood still for swaps.
    fn swap_pauses(&self) -> Histogram {
        let mut pauses = lock(&self.swap_pauses);
        for pause in self.swapper.chains().take_pauses() {
            pauses.record_time(pause);
        }
        *pauses
    }

    /// Everything that the workers published, added up.
    pub(super) fn seen(&self) -> Seen {
        let mut progress = Progress::default();
        let mut readings = Readings::new(self.config.stages.len());
        let restoring = self.restoring();
        let workers = lock(&self.workers);
        for worker in workers.iter() {
            let worker = lock(worker);
            progress.add(&worker.progress);
            worker.readings.iter().for_each(|worker| readings.add(worker));
        }
        readings.partitions.sort_by(|one, other| one.place.cmp(&other.place));
        let second: Vec<(usize, Readings)> = lock(&self.merging)
            .iter()
            .filter_map(|(stage, worker)| Some((*stage, lock(worker).readings.clone()?)))
            .collect();
        let holdings = Holdings::new(&self.config, &readings, &second, &restoring);
        holdings::add_clients((&mut readings.consumer, &mut readings.producer), &second);
        Seen {
            holdings,
            stages: facts(&self.config, &self.swapper.prepared()),
            swaps: self.swapper.counts(),
            chain_number: self.swapper.chains().number(),
            swap_pauses: self.swap_pauses(),
            mixed_partitions: self.mixed_partitions.load(Ordering::Relaxed),
            outputs: self.outputs.clone(),
            cluster_id: lock(&self.cluster_id).clone(),
            workers: workers.len(),
            paused: workers.iter().all(|worker| lock(worker).paused) && !workers.is_empty(),
            now_ms: now_ms(),
            progress,
            readings,
            tables: self.tables(),
            lookup_tables: self.swapper.prepared().tables().values().map(|table| table.reading()).collect(),
        }
    }
}

impl Service for Sight {
    fn metrics(&self, format: Format) -> String {
        let ready = self.ready().is_ok();
        exposition::render(self, &self.seen(), ready, format)
    }

    fn ready(&self) -> Result<(), &'static str> {
        let workers = lock(&self.workers);
        let merging: Vec<Published> = lock(&self.merging).iter().map(|(_, worker)| worker.clone()).collect();
        let tables = self.tables();
        if (workers.is_empty() && tables.is_empty()) || workers.len() < self.expected.load(Ordering::Relaxed) {
            return Err("the sinks have not answered yet");
        }
        let answers = |worker: &Published| lock(worker).readings.as_ref().is_some_and(|readings| readings.answers);
        if workers.iter().chain(merging.iter()).any(|worker| !lock(worker).restoring.is_empty()) {
            return Err("states are being restored");
        }
        if !workers.iter().chain(merging.iter()).all(answers) {
            return Err("the source or the sinks do not answer");
        }
        let runs = |table: &DrainReadings| table.state == DrainState::Running;
        if tables.iter().all(runs) { Ok(()) } else { Err("a table takes no rows; the status says why") }
    }

    fn pause(&self, paused: bool) {
        if self.paused.swap(paused, Ordering::Relaxed) != paused {
            tracing::info!("{}", if paused { "paused" } else { "resumed" });
        }
    }

    fn swap(&self, sent: Vec<Sent>, by: &Sender) -> Result<Value, Unwilling> {
        let component = |sent: Sent| Component { stage: sent.stage, bytes: sent.bytes, signature: sent.signature };
        let from = if by.address.to_canonical().is_loopback() { Origin::Loopback } else { Origin::Network };
        let request = SwapRequest {
            components: sent.into_iter().map(component).collect(),
            who: "admin".into(),
            from: format!("the API, {}", by.address),
            origin: from,
        };
        let swapped = self.swapper.swap(&request).map_err(unwilling)?;
        Ok(serde_json::to_value(swapped).unwrap_or_default())
    }

    fn roll_back(&self, by: &Sender) -> Result<Value, Unwilling> {
        let swapped = self.swapper.roll_back(&format!("admin ({})", by.address)).map_err(unwilling)?;
        Ok(serde_json::to_value(swapped).unwrap_or_default())
    }

    fn swaps(&self) -> Value {
        json!({ "swaps": self.swapper.history() })
    }

    fn state(&self, stage: &str, key: &str) -> Result<String, Unwilling> {
        answers::state(self, &self.config, stage, key)
    }

    fn set_log_level(&self, level: LogLevel) -> Result<(), String> {
        let switch = self.log_switch.as_ref().ok_or("the level of logs is fixed here")?;
        (switch.0)(level)
    }

    fn status(&self) -> Value {
        let seen = self.seen();
        let ledger = &seen.progress.ledger;
        // Before the first commit nothing is counted.
        let none = StageCounts::default();
        let counts = ledger.stages.iter().chain(std::iter::repeat(&none));
        let stages = seen.stages.iter().zip(counts).enumerate().map(|(index, (fact, counts))| {
            json!({
                "name": fact.name, "plugin": fact.plugin, "version": fact.version, "digest": fact.digest,
                "in": counts.entered, "forwarded": counts.forwarded, "filtered": counts.filtered,
                "folded": counts.folded, "late": counts.late, "deduplicated": counts.deduplicated,
                "dead_lettered": counts.dead_lettered, "windows": seen.holdings.status(index, seen.now_ms),
            })
        });
        let partitions = seen.readings.partitions.iter().map(|partition| {
            json!({
                "topic": &*partition.place.topic, "partition": partition.place.partition,
                "committed": partition.committed, "end": partition.end,
                "lag_records": partition.lag_records(), "lag_seconds": partition.lag_seconds(seen.now_ms),
            })
        });
        let (rate_in, rate_out) = self.rates();
        let state = match (self.is_paused(), self.ready()) {
            (true, _) if self.has_paused() => "paused",
            (true, _) => "pausing",
            (false, Ok(())) => "running",
            (false, Err(_)) => "not ready",
        };
        json!({
            "pipeline": self.pipeline, "version": env!("CARGO_PKG_VERSION"), "state": state,
            "why": self.ready().err(), "uptime_seconds": self.started.elapsed().as_secs(), "workers": seen.workers,
            "records": {
                "in": ledger.records_in, "forwarded": ledger.forwarded(), "filtered": ledger.filtered(),
                "folded": ledger.folded(), "late": ledger.late(), "deduplicated": ledger.deduplicated(),
                "dead_lettered": ledger.dead_lettered(), "emitted": ledger.emitted, "imbalance": ledger.imbalance(),
            },
            "rates": {"in_per_second": rate_in, "out_per_second": rate_out},
            "quality_breached": self.quality().map(|(_, _, verdict)| {
                let beyond = verdict.breached.iter().filter(|breached| breached.2);
                beyond.map(|(check, field, _)| json!({"check": check, "field": field})).collect::<Vec<_>>()
            }),
            "latency_p95_seconds": seen.readings.latency.quantile(0.95),
            "chain": {"number": seen.chain_number, "mixed_partitions": seen.mixed_partitions},
            "restoring": holdings::restore_status(&self.restoring()),
            "stages": stages.collect::<Vec<_>>(),
            "partitions": partitions.collect::<Vec<_>>(),
            "tables": seen.tables.iter().map(table_status).collect::<Vec<_>>(),
            "lookup_tables": seen.lookup_tables.iter().map(lookup_table_status).collect::<Vec<_>>(),
        })
    }
}

impl Quality {
    fn new(config: Arc<QualityConfig>) -> Self {
        let started_ms = now_ms();
        let watch = Mutex::new(Watch::new(config.clone(), started_ms));
        Self { config, watch, was_paused: AtomicBool::new(false), started_ms }
    }
}

fn facts(config: &Config, prepared: &Prepared) -> Vec<StageFact> {
    let fact = |(stage, (descriptor, digest)): (&crate::config::StageConfig, (&crate::plugin::Descriptor, &str))| {
        let memory_limit_bytes = stage.kind.plugin().map(|plugin| plugin.limits.memory_bytes);
        StageFact {
            name: stage.name.clone(),
            plugin: descriptor.name.clone(),
            version: descriptor.version.clone(),
            digest: digest.to_owned(),
            memory_limit_bytes,
        }
    };
    config.stages.iter().zip(prepared.descriptors()).map(fact).collect()
}

fn table_status(table: &DrainReadings) -> Value {
    let (state, why) = match &table.state {
        DrainState::Starting => ("starting", None),
        DrainState::Running => ("running", None),
        DrainState::Waiting(why) => ("waiting", Some(why)),
        DrainState::Stopped(why) => ("stopped", Some(why)),
    };
    let partition = |(place, committed, end): &(Place, i64, Option<i64>)| json!({"topic": &*place.topic, "partition": place.partition, "committed": committed, "end": end});
    json!({
        "output": table.output, "state": state, "why": why, "records": table.records, "rows": table.rows,
        "dead_lettered": table.unfit.values().sum::<u64>(), "blocks": table.blocks, "retries": table.retries,
        "imbalance": table.imbalance(), "insert_p95_seconds": table.insert_time.quantile(0.95),
        "latency_p95_seconds": table.latency.quantile(0.95),
        "partitions": table.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn lookup_table_status(table: &TableReading) -> Value {
    json!({
        "name": table.name, "rows": table.rows, "memory_bytes": table.bytes, "hits": table.hits, "misses": table.misses,
        "loads": table.loads, "failures": table.failures, "bad_rows": table.bad_rows, "changes": table.changes,
        "lag_records": table.lags.iter().map(|(_, lag)| lag).sum::<u64>(), "why_stale": table.trouble,
    })
}

fn unwilling(why: SwapError) -> Unwilling {
    let status = match why {
        SwapError::Busy | SwapError::Overtaken | SwapError::NoPrevious => 409,
        SwapError::Request(_) => 400,
        SwapError::TooLarge { .. } => 413,
        SwapError::Untrusted { .. } => 403,
        SwapError::Refused(_) => 422,
    };
    (status, why.to_string())
}
