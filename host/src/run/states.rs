//! Topics of states, and the workers of second levels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::config::{Config, SourceConfig, StageConfig, StageKind, WindowConfig};
use crate::kafka::{Consumer, ConsumerSettings};
use crate::source::{KafkaStates, StateSource};
use crate::task::Ledger;
use crate::window::Role;
use crate::worker::Chains;

use super::cluster::{self, ClusterReport};
use super::workers::{self, Running, failed};
use super::{Prepared, Published, RunError, Sight, Swapper, lock};

/// The most bytes of a record of states; their topics are made so.
pub(super) const RECORD_BYTES_MAX: usize = 4 << 20;
/// What the consumer that reads changelogs may hold.
const QUEUE_KIB: usize = 4 * 1024;

/// A topic that a stage keeps states in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateTopic {
    /// The stage's index in the pipeline.
    pub stage: usize,
    /// The topic.
    pub name: String,
    /// What it holds.
    pub holds: Holds,
}

/// What a topic of states holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// States, as they change, of a stage whose groups lie in one partition each.
    Changelog,
    /// States of the records of one partition and one commit, by group.
    Partials,
    /// States of the second level, as they change.
    MergedChangelog,
}

/// The role of a window in the pipeline's own workers.
pub(super) fn role(config: &Config, window: &WindowConfig) -> Role {
    let spread = matches!(config.source, SourceConfig::Kafka(_)) && !window.keyed_topic;
    if spread { Role::Partial } else { Role::Whole }
}

/// The stages that keep states, with their indices.
pub(super) fn windows(config: &Config) -> impl Iterator<Item = (usize, &StageConfig, &WindowConfig)> {
    config.stages.iter().enumerate().filter_map(|(index, stage)| match &stage.kind {
        StageKind::Window(window) => Some((index, stage, window.as_ref())),
        _ => None,
    })
}

/// The topics of a pipeline's states.
pub(super) fn topics(config: &Config) -> Vec<StateTopic> {
    let mut topics = Vec::new();
    for (stage, StageConfig { name, .. }, window) in windows(config) {
        let pipeline = &config.pipeline;
        let mut add = |holds, suffix: &str| {
            topics.push(StateTopic { stage, name: format!("{pipeline}-{name}-{suffix}"), holds });
        };
        match role(config, window) {
            Role::Whole => add(Holds::Changelog, "changelog"),
            Role::Partial | Role::Merge => {
                add(Holds::Partials, "partials");
                add(Holds::MergedChangelog, "merged-changelog");
            }
        }
    }
    topics
}

/// How such a topic is made: nothing in it goes by age or size, and a large state fits.
pub(super) fn topic_config() -> BTreeMap<String, String> {
    let set = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut config: BTreeMap<_, _> = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")]
        .into_iter()
        .map(set)
        .collect();
    config.insert("max.message.bytes".to_owned(), RECORD_BYTES_MAX.to_string());
    config
}

/// The topics that a worker's stages write, by stage; those of the second level have one stage.
pub(super) fn written(cluster: &ClusterReport, level: Level) -> BTreeMap<usize, String> {
    let ours = |topic: &&StateTopic| match (level, topic.holds) {
        (Level::First, Holds::Changelog | Holds::Partials) => true,
        (Level::Second(stage), Holds::MergedChangelog) => topic.stage == stage,
        (Level::First, Holds::MergedChangelog) | (Level::Second(_), _) => false,
    };
    let index = |topic: &StateTopic| match level {
        Level::First => topic.stage,
        Level::Second(_) => 0,
    };
    cluster.states.iter().filter(ours).map(|topic| (index(topic), topic.name.clone())).collect()
}

/// Which workers are meant: the pipeline's own, or those that merge the states of one of its stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The pipeline's own.
    First,
    /// Those behind a stage.
    Second(usize),
}

impl Level {
    /// What tells a worker's transactional id from those of the other level.
    pub(super) fn suffix(self, config: &Config) -> String {
        match self {
            Self::First => String::new(),
            Self::Second(stage) => format!("-{}", config.stages[stage].name),
        }
    }
}

/// Where workers restore their stages' states from.
pub(super) fn source(config: &Config, cluster: &ClusterReport, level: Level) -> Result<StateSource, RunError> {
    let SourceConfig::Kafka(kafka) = &config.source else { return Ok(StateSource::None) };
    let mut topics = written(cluster, level);
    topics.retain(|_, name| cluster.states.iter().any(|topic| topic.name == *name && topic.holds != Holds::Partials));
    if topics.is_empty() {
        return Ok(StateSource::None);
    }
    let mut settings = ConsumerSettings::new(cluster::connection(&kafka.connection, config), "");
    settings.queue_kib = QUEUE_KIB;
    let consumer = Consumer::new(&settings).map_err(|why| failed("make a consumer", why))?;
    Ok(StateSource::Kafka(Box::new(KafkaStates::new(consumer, topics))))
}

/// The workers that merge states of several partitions.
pub(super) struct Merges {
    stages: Vec<usize>,
    running: Vec<Running>,
    shown: Vec<Published>,
    stop: Arc<AtomicBool>,
    ends: Option<Vec<cluster::Ends>>,
    result: Result<(), RunError>,
}

impl Merges {
    /// Starts them, where a stage needs them.
    pub(super) fn start(
        config: &Config,
        (swapper, prepared): (&Swapper, &Prepared),
        cluster: &ClusterReport,
        (started, sight): (Instant, &Arc<Sight>),
    ) -> Result<Self, RunError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut stages, mut running) = (Vec::new(), Vec::new());
        for (stage, ..) in windows(config).filter(|(.., window)| role(config, window) == Role::Partial) {
            let chains = Arc::new(Chains::new(prepared.merge_chain(config, stage)?));
            swapper.add_merging(stage, chains.clone());
            running.extend(workers::start_merging(config, &chains, cluster, (&stop, stage), (started, sight))?);
            stages.push(stage);
        }
        let shown = running.iter().map(|worker| worker.published.clone()).collect();
        Ok(Self { stages, running, shown, stop, ends: None, result: Ok(()) })
    }

    /// Ends them, once the first level has ended: at once where they are told to, else after all that it has written is
    /// merged and committed. True once they have ended.
    pub(super) fn end(&mut self, config: &Config, told_to: bool) -> Result<bool, RunError> {
        if self.running.is_empty() {
            return Ok(true);
        }
        if !told_to && !self.failed() && !self.are_through(config)? {
            return Ok(false);
        }
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.running.drain(..) {
            let ended = match worker.thread.join() {
                Ok(ended) => ended.map_err(RunError::from),
                Err(_) => Err(RunError::Panicked),
            };
            if self.result.is_ok() {
                self.result = ended;
            }
        }
        Ok(true)
    }

    /// What came of them, after their end.
    pub(super) fn join(self) -> Result<(), RunError> {
        self.result
    }

    /// True where one has ended before it was told to.
    pub(super) fn failed(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && self.running.iter().any(|worker| worker.thread.is_finished())
            || self.result.is_err()
    }

    /// What they have committed.
    pub(super) fn ledger(&self) -> Ledger {
        let mut total = Ledger::default();
        self.shown.iter().for_each(|shown| total.add(&lock(shown).progress.ledger));
        total
    }

    fn are_through(&mut self, config: &Config) -> Result<bool, RunError> {
        let SourceConfig::Kafka(kafka) = &config.source else { return Ok(true) };
        if self.ends.is_none() {
            let ends = |&stage: &usize| {
                cluster::Ends::new(&kafka.connection, &[partials(config, stage)], &group(config, stage))
            };
            self.ends = Some(self.stages.iter().map(ends).collect::<Result<_, _>>()?);
        }
        let mut through = true;
        for ends in self.ends.iter_mut().flatten() {
            through &= ends.reached()?;
        }
        Ok(through)
    }
}

/// The topic between the two levels of a stage.
pub(super) fn partials(config: &Config, stage: usize) -> String {
    format!("{}-{}-partials", config.pipeline, config.stages[stage].name)
}

/// The group of those who merge a stage's states.
pub(super) fn group(config: &Config, stage: usize) -> String {
    let group = match &config.source {
        SourceConfig::Kafka(kafka) => kafka.group.as_str(),
        _ => config.pipeline.as_str(),
    };
    format!("{group}-{}", config.stages[stage].name)
}

/// The second levels of a pipeline: the topic that each reads, and its group.
pub fn merging_groups(config: &Config) -> Vec<(String, String)> {
    let merging = windows(config).filter(|(.., window)| role(config, window) == Role::Partial);
    merging.map(|(stage, ..)| (partials(config, stage), group(config, stage))).collect()
}
