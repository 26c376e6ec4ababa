//! One pipeline in one process: checks everything, starts the workers, waits for the end, counts it all.

mod answers;
mod cluster;
mod drains;
mod error;
mod exposition;
mod holdings;
mod janitor;
mod plan;
mod progress;
mod questions;
mod sight;
mod spill;
mod states;
mod swap;
mod tables;
mod watched;
mod workers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use cluster::{ClusterReport, check_cluster};
pub use drains::{Feed, check_tables, feeds};
pub use error::RunError;
pub use plan::Prepared;
pub use progress::{Progress, Report};
pub use sight::{LogSwitch, Sight};
pub use states::merging_groups;
pub use swap::{
    COMPONENT_BYTES_MAX, Component, Origin, SwapCounts, SwapError, SwapEvent, SwapRequest, SwapResult, Swapped, Swapper,
};
pub use tables::{check_table_topics, load_file_tables};

use self::janitor::Janitor;
use self::states::Merges;
use crate::config::{Config, SourceConfig};
use crate::http::{Server, Service};
use crate::worker::{Readings, RestoreReading};

/// How the process is to run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Stop once everything that a Kafka topic holds now is committed; other sources end by themselves.
    pub until_end: bool,
    /// Show live progress on standard error.
    pub progress: bool,
    /// Set from outside to end the run in order: process what was taken, commit, leave.
    pub stop: Arc<AtomicBool>,
    /// Changes the level of logs, where that can be done.
    pub log_switch: Option<LogSwitch>,
}

/// How often the end and the progress are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Runs a pipeline until its source ends, `options.stop` is set or a worker fails, and returns what it counted.
pub fn run(config: &Config, options: &RunOptions) -> Result<Report, RunError> {
    let started = Instant::now();
    let swapper = Arc::new(Swapper::new(config, Prepared::new(config)?, started, &options.stop));
    let prepared = swapper.prepared();
    let sight = Arc::new(Sight::new(config, &swapper, options.log_switch.clone()));
    let service: Arc<dyn Service> = sight.clone();
    let _server = Server::start(config.observe.as_ref(), config.admin.as_ref(), &service)?;
    drains::check(config)?;
    let cluster = cluster::prepare(config)?;
    sight.see_cluster(&cluster);
    let keepers = tables::start(config, prepared.tables(), &options.stop)?;
    let direct = drains::is_direct(config);
    let workers = workers::start(config, swapper.chains(), &cluster, &options.stop, (started, &sight))?;
    let mut merges = Merges::start(config, (&swapper, &prepared), &cluster, (started, &sight))?;
    let mut janitor = Janitor::new(config, &cluster)?;
    let mut drains = drains::start(config, &cluster, &options.stop, (started, &sight))?;
    swapper.expect(workers.len());
    let (pipeline, threads, parses) = (&config.pipeline, workers.len(), prepared.pipeline.parses());
    tracing::info!(pipeline, workers = threads, parses, "running, {} ms after the start", elapsed_ms(started));
    let mut group = swap::Group::new(config, &cluster.lanes);
    let mut ends = ends_of(config, options)?;
    let mut screen = options.progress.then(|| progress::Screen::new(&prepared));
    let mut reached = false;
    loop {
        let told_to = options.stop.load(Ordering::Relaxed) && !reached;
        let ends_by_itself = !direct || options.until_end;
        // What goes on to a second level, and from there to a table, is waited for where the run ends by itself.
        if workers.iter().all(|worker| worker.thread.is_finished())
            && merges.end(config, told_to)?
            && (told_to || drains::are_over(&mut drains, ends_by_itself)?)
        {
            break;
        }
        if merges.failed() {
            options.stop.store(true, Ordering::Relaxed);
        }
        std::thread::sleep(WATCH_INTERVAL);
        let progress = collect(&workers, &merges);
        sight.tick(&progress);
        janitor.iter_mut().for_each(Janitor::tick);
        if let Some(mixed) = group.as_mut().and_then(|group| group.mixed(&swapper.chains().current())) {
            sight.see_mixed(mixed);
        }
        if let Some(why) = swapper.tick() {
            tracing::error!("paused: {why}");
            sight.pause(true);
        }
        if let Some(screen) = &mut screen {
            screen.draw(&progress);
        }
        if let Some(ends) = &mut ends
            && !direct
            && !reached
            && ends.reached()?
        {
            reached = true;
            options.stop.store(true, Ordering::Relaxed);
        }
    }
    let last = collect(&workers, &merges);
    if let Some(screen) = &mut screen {
        screen.draw(&last);
    }
    merges.end(config, true)?;
    let ended = join(workers, drains, keepers).and(merges.join());
    ended.map(|()| Report::new(&prepared, last, sight.tables()))
}

fn elapsed_ms(since: Instant) -> u128 {
    since.elapsed().as_millis()
}

/// Where a run that is to stop at the topic's end stops.
fn ends_of(config: &Config, options: &RunOptions) -> Result<Option<cluster::Ends>, RunError> {
    let SourceConfig::Kafka(source) = &config.source else { return Ok(None) };
    let ends = || cluster::Ends::new(&source.connection, &source.topics, &source.group);
    options.until_end.then(ends).transpose()
}

/// Waits for the end of all threads, of which the drains are told to bring in what they have taken; the first error counts.
fn join(
    workers: Vec<workers::Running>,
    drains: Vec<drains::Running>,
    keepers: tables::Keepers,
) -> Result<(), RunError> {
    let mut first_error = None;
    for worker in workers {
        match worker.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => first_error = first_error.or(Some(RunError::from(error))),
            Err(_) => first_error = first_error.or(Some(RunError::Panicked)),
        }
    }
    drains.iter().for_each(drains::Running::stop);
    for drain in drains {
        if let Err(why) = drain.join() {
            first_error = first_error.or(Some(why));
        }
    }
    let kept = keepers.end();
    first_error.map_or(kept, Err)
}

fn collect(workers: &[workers::Running], merges: &Merges) -> Progress {
    let mut total = Progress::default();
    for worker in workers {
        total.add(&lock(&worker.published).progress);
    }
    total.ledger.add_merged(&merges.ledger());
    total
}

/// The wall clock, in milliseconds since 1970 UTC.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// What is kept here stays good whoever panicked since.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a worker last published.
type Published = Arc<Mutex<Worked>>;

/// What a worker has done, and what it has measured of that where anybody wants to know.
#[derive(Debug, Default)]
struct Worked {
    progress: Progress,
    readings: Option<Readings>,
    /// Partitions whose states are read back.
    restoring: Vec<RestoreReading>,
    /// True where it takes no records, because it was told so.
    paused: bool,
}
