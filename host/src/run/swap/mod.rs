//! Plugins replaced while the stream runs: what may come in, how it is tried, and the way back.
//!
//! A swap is checked (size, trust, that it loads, that the chain still fits), kept for a restart, and only then put in
//! force; the workers change over between two blocks. For a while the new version is watched, and given up by the
//! workers themselves where it does harm.

mod fit;
mod group;
mod merging;
mod store;
mod trust;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fit::{changed_stages, fits, folder, is_one_way, plugin_files, restored};
pub(super) use group::Group;
use store::{Active, ActiveStage, Store};
pub use types::{
    COMPONENT_BYTES_MAX, Component, Origin, SwapCounts, SwapError, SwapEvent, SwapRequest, SwapResult, Swapped,
};

use crate::config::{Config, SourceConfig};
use crate::plugin::digest_of;
use crate::worker::{Asker, Chain, ChainEvent, Chains, Watch, WatchLimits, WayBack};

use super::watched::WatchedFile;
use super::{Prepared, RunError, lock, now_ms};

/// How long a component may take to compile.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a swap waits for all workers to follow before it says how many did.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(10);
/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Swaps that are remembered.
const HISTORY_MAX: usize = 100;

/// Replaces plugins of a running pipeline.
pub struct Swapper {
    config: Config,
    chains: Arc<Chains>,
    /// The chains of second levels, with the stages that they belong to.
    merging: Mutex<Vec<(usize, Arc<Chains>)>>,
    started: Instant,
    /// Raised when the run is to end.
    stop: Arc<AtomicBool>,
    store: Store,
    /// True while a component is compiled.
    busy: Arc<AtomicBool>,
    state: Mutex<State>,
}

struct State {
    current: Arc<Prepared>,
    /// The number of `current` in [`Chains`], which moves on by itself when a worker gives a chain up.
    number: u64,
    previous: Option<Arc<Prepared>>,
    active: Active,
    /// The configured files' digests at the start, or when they were last taken.
    file_digests: BTreeMap<String, String>,
    files: Vec<WatchedFile>,
    looked: Instant,
    history: VecDeque<SwapEvent>,
    counts: SwapCounts,
    workers: usize,
    /// Why no more records are to be taken, until that is asked for.
    pause: Option<String>,
}

impl Swapper {
    /// Takes a prepared pipeline over: with what was swapped in before the last restart, unless its file has changed since.
    /// `started` is the beginning of the workers' clock, and `stop` is raised when the run is to end.
    pub(super) fn new(config: &Config, configured: Prepared, started: Instant, stop: &Arc<AtomicBool>) -> Self {
        let store = Store::new(folder(config));
        let file_digests: BTreeMap<String, String> =
            configured.labels.stages.iter().filter(|(_, digest)| !digest.is_empty()).cloned().collect();
        let mut active = store.active();
        active.stages.retain(|stage, active| file_digests.get(stage) == Some(&active.file_digest));
        let configured = Arc::new(configured);
        let overrides = active.stages.iter().filter(|(stage, active)| file_digests.get(*stage) != Some(&active.digest));
        let overrides = overrides.map(|(stage, active)| (stage.clone(), active.digest.clone())).collect();
        let current = restored(config, &store, &configured, &overrides).unwrap_or_else(|| configured.clone());
        let previous = if active.on_trial { restored(config, &store, &current, &active.previous) } else { None };
        let chains = Arc::new(Chains::new(previous.as_ref().unwrap_or(&current).chain(config, None, stop)));
        let files = if config.swap.watch_files && matches!(config.source, SourceConfig::Kafka(_)) {
            plugin_files(config).map(|(stage, path)| WatchedFile::new(stage, path)).collect()
        } else {
            Vec::new()
        };
        let state = State {
            current,
            number: chains.number(),
            previous,
            active,
            file_digests,
            files,
            looked: Instant::now(),
            history: VecDeque::new(),
            counts: SwapCounts::default(),
            workers: 0,
            pause: None,
        };
        let swapper = Self {
            config: config.clone(),
            chains,
            merging: Mutex::default(),
            started,
            stop: stop.clone(),
            store,
            busy: Arc::default(),
            state: Mutex::new(state),
        };
        swapper.keep_configured(&configured);
        swapper.resume_trial();
        swapper
    }

    /// The chain in force.
    pub fn chains(&self) -> &Arc<Chains> {
        &self.chains
    }

    /// The pipeline in force.
    pub fn prepared(&self) -> Arc<Prepared> {
        lock(&self.state).current.clone()
    }

    /// So many workers follow a swap.
    pub(super) fn expect(&self, workers: usize) {
        lock(&self.state).workers = workers;
    }

    /// The last swaps, the newest last.
    pub fn history(&self) -> Vec<SwapEvent> {
        lock(&self.state).history.iter().cloned().collect()
    }

    /// How often swaps ended in each way.
    pub fn counts(&self) -> SwapCounts {
        lock(&self.state).counts
    }

    /// Checks the components and puts them in force; waits for the workers to follow, but not for long.
    pub fn swap(&self, request: &SwapRequest) -> Result<Swapped, SwapError> {
        let plugins: BTreeMap<String, String> =
            request.components.iter().map(|one| (one.stage.clone(), digest_of(&one.bytes))).collect();
        let result = self.try_swap(request, &plugins);
        let why = result.as_ref().err().map(ToString::to_string);
        match &why {
            None => tracing::info!(who = request.who, from = request.from, ?plugins, "swapped"),
            Some(why) => tracing::warn!(who = request.who, from = request.from, ?plugins, "swap refused: {why}"),
        }
        if !matches!(&result, Ok(swapped) if !swapped.changed) {
            let outcome = if why.is_none() { SwapResult::Done } else { SwapResult::Refused };
            self.note(outcome, (&request.who, &request.from), plugins, why);
        }
        let mut swapped = result?;
        swapped.workers = self.await_workers(swapped.number);
        Ok(swapped)
    }

    /// Brings the version before the last swap back.
    pub fn roll_back(&self, who: &str) -> Result<Swapped, SwapError> {
        let number = match self.chains.roll_back(self.chains.number(), Asker::Person, &format!("{who} asked for it")) {
            WayBack::Done(number) => number,
            WayBack::Overtaken => return Err(SwapError::Overtaken),
            WayBack::Nothing => return Err(SwapError::NoPrevious),
        };
        self.take_events();
        let workers = self.await_workers(number);
        let plugins = self.chains.current().plugins.as_ref().clone();
        Ok(Swapped { number, plugins, workers, changed: true })
    }

    /// Does what is due: notes rollbacks, ends trials, looks at files. To be called a few times a second. A reason comes
    /// back where no more records are to be taken.
    pub(super) fn tick(self: &Arc<Self>) -> Option<String> {
        self.take_events();
        self.end_trial();
        let mut state = lock(&self.state);
        let pause = state.pause.take();
        let settled: Vec<(String, PathBuf)> = {
            if state.looked.elapsed() < LOOK_INTERVAL {
                return pause;
            }
            state.looked = Instant::now();
            let settled = state
                .files
                .iter_mut()
                .filter_map(|file| file.has_settled().then(|| (file.name.clone(), file.path.clone())));
            settled.collect()
        };
        drop(state);
        if !settled.is_empty() {
            let swapper = self.clone();
            let work = move || swapper.take_files(settled);
            if let Err(why) = std::thread::Builder::new().name("swap".into()).spawn(work) {
                tracing::error!("a changed plugin is not swapped in: {why}");
            }
        }
        pause
    }

    /// Swaps in the files that changed, as one.
    fn take_files(&self, changed: Vec<(String, PathBuf)>) {
        let mut components = Vec::new();
        let mut from = Vec::new();
        for (stage, path) in changed {
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(why) => {
                    tracing::warn!("{}: not swapped in: {why}", path.display());
                    continue;
                }
            };
            let digest = digest_of(&bytes);
            let mut state = lock(&self.state);
            // A file that is written again with what it held is no new version; nor is one that was rolled back before.
            if state.file_digests.insert(stage.clone(), digest.clone()) == Some(digest) {
                continue;
            }
            let signature = path.with_added_extension("sig");
            from.push(path.display().to_string());
            components.push(Component { stage, bytes, signature: std::fs::read(signature).ok() });
        }
        if !components.is_empty() {
            let request = SwapRequest { components, who: "file".into(), from: from.join(", "), origin: Origin::File };
            // What is wrong with it is in the log and the history.
            let _ = self.swap(&request);
        }
    }

    fn try_swap(&self, request: &SwapRequest, plugins: &BTreeMap<String, String>) -> Result<Swapped, SwapError> {
        if request.components.is_empty() || plugins.len() < request.components.len() {
            return Err(SwapError::Request("one component for each of some stages is expected".into()));
        }
        for Component { stage, bytes, signature } in &request.components {
            if bytes.len() > COMPONENT_BYTES_MAX {
                return Err(SwapError::TooLarge { stage: stage.clone(), bytes: bytes.len() });
            }
            let trusted = match &self.config.swap.trust {
                Some(trust) => trust::check(trust, bytes, signature.as_deref()),
                None if request.origin == Origin::Network => {
                    Err("components come over the network only where `swap.trust` says which".to_owned())
                }
                None => Ok(()),
            };
            trusted.map_err(|why| SwapError::Untrusted { stage: stage.clone(), why })?;
        }
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(SwapError::Busy);
        }
        let busy = Busy(self.busy.clone());
        self.take_events();
        let (before, number) = {
            let state = lock(&self.state);
            (state.current.clone(), state.number)
        };
        let running: BTreeMap<String, String> = before.labels.stages.iter().cloned().collect();
        if plugins.iter().all(|(stage, digest)| running.get(stage) == Some(digest)) {
            return Ok(Swapped { number, plugins: running, workers: (0, 0), changed: false });
        }
        let (prepared, busy) = self.compile(&before, request, busy)?;
        let stages: Vec<usize> = changed_stages(&before, &prepared);
        fits(&self.config, &before, &prepared).map_err(SwapError::Refused)?;
        let active_before = self
            .keep(&before, request, plugins)
            .map_err(|why| SwapError::Refused(format!("it can't be kept for a restart: {why}")))?;
        let result = self.put(number, prepared, self.watch(stages));
        if result.is_err() {
            lock(&self.state).active = active_before;
            // What overtook it writes down what is in force instead.
            self.take_events();
        }
        drop(busy);
        result
    }

    fn put(&self, instead_of: u64, prepared: Prepared, watch: Option<Arc<Watch>>) -> Result<Swapped, SwapError> {
        let mut state = lock(&self.state);
        let one_way = is_one_way(&state.current, &prepared);
        if one_way {
            tracing::warn!(
                "the plugin before this swap can't read the states that it will leave: there is no way back"
            );
        }
        let chain = Chain { one_way, ..prepared.chain(&self.config, watch, &self.stop) };
        // Those who merge states have to read what the new version sends.
        self.follow_merging(&prepared)?;
        let plugins = chain.plugins.as_ref().clone();
        let number = self.chains.put(instead_of, chain).ok_or(SwapError::Overtaken)?;
        state.number = number;
        state.previous = Some(std::mem::replace(&mut state.current, Arc::new(prepared)));
        Ok(Swapped { number, plugins, workers: (0, 0), changed: true })
    }

    /// Loads the components on a thread of its own, which may take its time and be left behind; only one does at a time.
    fn compile(
        &self,
        before: &Arc<Prepared>,
        request: &SwapRequest,
        busy: Busy,
    ) -> Result<(Prepared, Busy), SwapError> {
        let (send, receive) = mpsc::channel();
        let (config, before) = (self.config.clone(), before.clone());
        let components: Vec<(String, Vec<u8>)> =
            request.components.iter().map(|one| (one.stage.clone(), one.bytes.clone())).collect();
        let work = move || {
            let loaded = before.with(&config, &components).and_then(|prepared| {
                // An instance of each, so that what fails only at its start is found here.
                prepared.factory()(0).map_err(|why| RunError::Plugin { stage: String::new(), why })?;
                Ok(prepared)
            });
            // Nobody waits any more where it took too long.
            let _ = send.send((loaded, busy));
        };
        std::thread::Builder::new()
            .name("swap-compile".into())
            .spawn(work)
            .map_err(|why| SwapError::Refused(why.to_string()))?;
        match receive.recv_timeout(COMPILE_TIMEOUT) {
            Ok((Ok(prepared), busy)) => Ok((prepared, busy)),
            Ok((Err(why), _)) => Err(SwapError::Refused(why.to_string())),
            Err(RecvTimeoutError::Timeout) => {
                Err(SwapError::Refused(format!("it is not compiled within {COMPILE_TIMEOUT:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(SwapError::Refused("the compiler failed on it".into())),
        }
    }

    /// Keeps the new version, and writes down that it is in force, before it is; returns what was written before.
    fn keep(
        &self,
        before: &Prepared,
        request: &SwapRequest,
        plugins: &BTreeMap<String, String>,
    ) -> std::io::Result<Active> {
        let mut state = lock(&self.state);
        let mut active = state.active.clone();
        active.previous =
            before.labels.stages.iter().filter(|(stage, _)| plugins.contains_key(stage)).cloned().collect();
        active.on_trial = true;
        for Component { stage, bytes, .. } in &request.components {
            let digest = plugins[stage].clone();
            self.store.put(&digest, bytes)?;
            let file_digest = state.file_digests.get(stage).cloned().unwrap_or_default();
            active.stages.insert(stage.clone(), ActiveStage { digest, file_digest });
        }
        self.store.put_active(&active, &before.labels.stages)?;
        Ok(std::mem::replace(&mut state.active, active))
    }

    /// The configured files' components are what a rollback may go back to, when the files hold something else already.
    fn keep_configured(&self, configured: &Prepared) {
        if !matches!(self.config.source, SourceConfig::Kafka(_)) {
            return;
        }
        let digests: BTreeMap<_, _> = configured.labels.stages.iter().cloned().collect();
        for (stage, path) in plugin_files(&self.config) {
            let Some(digest) = digests.get(stage) else { continue };
            let kept = if self.store.has(digest) { Ok(()) } else { self.store.put_file(digest, path) };
            if let Err(why) = kept {
                tracing::warn!("{}: a rollback to this plugin will not outlive a restart: {why}", path.display());
            }
        }
    }

    fn watch(&self, stages: Vec<usize>) -> Option<Arc<Watch>> {
        let swap = &self.config.swap;
        let limits = WatchLimits {
            until_ms: self.started.elapsed().as_millis() as u64 + swap.window_ms,
            dead_letters: swap.dead_letters,
            rate: f64::from(swap.rate_per_million) / 1e6,
            faults: swap.faults,
        };
        (swap.window_ms > 0).then(|| Arc::new(Watch::new(stages, limits)))
    }

    /// A swap that was on trial when the process ended is on trial again.
    fn resume_trial(&self) {
        let mut state = lock(&self.state);
        if let Some(previous) = &state.previous {
            let watch = self.watch(changed_stages(previous, &state.current));
            let one_way = is_one_way(previous, &state.current);
            let chain = Chain { one_way, ..state.current.chain(&self.config, watch, &self.stop) };
            let number = self.chains.put(state.number, chain);
            // Nobody else knows of the chains yet.
            state.number = number.unwrap_or(state.number);
        }
    }

    fn end_trial(&self) {
        let mut state = lock(&self.state);
        let now_ms = self.started.elapsed().as_millis() as u64;
        let over = |watch: &Arc<Watch>| now_ms >= watch.limits.until_ms;
        if state.active.on_trial && self.chains.current().watch.as_ref().is_none_or(over) {
            state.active.on_trial = false;
            tracing::info!("the swap has proven itself");
            self.write_active(&state.active, &state.current);
        }
    }

    /// Notes what the workers decided by themselves.
    fn take_events(&self) {
        for event in self.chains.take_events() {
            match event {
                ChainEvent::Paused { why } => lock(&self.state).pause = Some(why),
                ChainEvent::RolledBack { from, why } => self.note_rollback(from, why),
            }
        }
    }

    fn note_rollback(&self, from: u64, why: String) {
        let plugins = {
            let mut state = lock(&self.state);
            let state = &mut *state;
            let Some(previous) = &mut state.previous else { return };
            std::mem::swap(previous, &mut state.current);
            state.number = from + 1;
            let given_up: BTreeMap<String, String> = previous.labels.stages.iter().cloned().collect();
            for (stage, digest) in state.current.labels.stages.iter().filter(|(stage, _)| given_up.contains_key(stage))
            {
                if given_up[stage] == *digest {
                    continue;
                }
                let file_digest = state.file_digests.get(stage).cloned().unwrap_or_default();
                state.active.stages.insert(stage.clone(), ActiveStage { digest: digest.clone(), file_digest });
                state.active.previous.insert(stage.clone(), given_up[stage].clone());
            }
            state.active.on_trial = false;
            self.write_active(&state.active, &state.current);
            if let Err(why) = self.follow_merging(&state.current) {
                tracing::error!("states are still merged by the version that was given up: {why}");
            }
            state.current.labels.stages.iter().cloned().collect()
        };
        tracing::error!(version = from, "rolled back to the version before: {why}");
        self.note(SwapResult::RolledBack, ("millstream", "the version before"), plugins, Some(why));
    }

    fn write_active(&self, active: &Active, running: &Prepared) {
        if let Err(why) = self.store.put_active(active, &running.labels.stages) {
            tracing::error!("a restart will not know which plugins are in force: {why}");
        }
    }

    fn note(
        &self,
        result: SwapResult,
        (who, from): (&str, &str),
        plugins: BTreeMap<String, String>,
        why: Option<String>,
    ) {
        let at_ms = now_ms();
        let mut state = lock(&self.state);
        match result {
            SwapResult::Done => state.counts.done += 1,
            SwapResult::Refused => state.counts.refused += 1,
            SwapResult::RolledBack => state.counts.rolled_back += 1,
        }
        if state.history.len() == HISTORY_MAX {
            state.history.pop_front();
        }
        state.history.push_back(SwapEvent { at_ms, result, who: who.into(), from: from.into(), plugins, why });
    }

    /// Workers that run the chain `number` or a later one, and all of them.
    fn await_workers(&self, number: u64) -> (usize, usize) {
        let (all, until) = (lock(&self.state).workers, Instant::now() + FOLLOW_TIMEOUT);
        loop {
            let followed = self.chains.followers(number);
            if followed >= all || Instant::now() > until {
                return (followed.min(all), all);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Makes room for the next swap when it is dropped.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
