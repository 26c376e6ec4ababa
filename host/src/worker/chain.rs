//! The chain of stages in force, which a swap replaces between two blocks of each task.
//!
//! Whoever swaps puts a new [`Chain`] into [`Chains`]; every worker sees its number change, commits the block that is
//! open, and goes on with the new chain. What is committed with each offset names the plugins that led there, so that an
//! offset and the version that produced it are one write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StageFactory;
use crate::pipeline::Pipeline;
use crate::task::{DeadLetterLabels, Lineage, StageTally, StateNote};

/// Pauses that are kept until somebody asks for them.
const PAUSES_MAX: usize = 4_096;

/// All that a task needs to run its stages. Cheap to clone.
#[derive(Clone)]
pub struct Chain {
    /// Rises with every swap and every rollback of this process.
    pub number: u64,
    /// The checked chain.
    pub pipeline: Arc<Pipeline>,
    /// Makes the stages of a task.
    pub stages: StageFactory,
    /// What dead letters say.
    pub labels: Arc<DeadLetterLabels>,
    /// What outputs say of their origin, if they do.
    pub lineage: Option<Arc<Lineage>>,
    /// The digest of each stage's plugin, by the stage's name.
    pub plugins: Arc<BTreeMap<String, String>>,
    /// What is looked at while the chain has yet to prove itself.
    pub watch: Option<Arc<Watch>>,
    /// True once the chain was given up by itself: only a person brings it back.
    pub given_up: bool,
    /// True where the chain before it could not read the states that this one leaves: there is no way back.
    pub one_way: bool,
}

impl Chain {
    /// What is committed with an offset: the plugins in force since `since`, and where the stages' states are.
    pub fn note(&self, since: i64, state: BTreeMap<String, StateNote>) -> String {
        // Strings and numbers always become JSON.
        serde_json::to_string(&Note { since, plugins: self.plugins.as_ref().clone(), state }).unwrap_or_default()
    }
}

/// The note that goes with a committed offset: outputs of the records from `since` up to that offset were made by these
/// plugins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The first offset.
    pub since: i64,
    /// Digests by the stages' names.
    pub plugins: BTreeMap<String, String>,
    /// Where states are, by the stages' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<String, StateNote>,
}

impl Note {
    /// Reads a note; `None` for what others have committed.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// When a chain that is on trial is given up.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchLimits {
    /// The end of the trial, in milliseconds on the workers' clock.
    pub until_ms: u64,
    /// The most dead letters of the stages that were swapped…
    pub dead_letters: u64,
    /// …unless they are no larger a share of these stages' records than this, from 0 to 1.
    pub rate: f64,
    /// The most records at which these stages may fault.
    pub faults: u64,
}

/// Counts what the swapped stages do, over all workers, before any of it is delivered.
#[derive(Debug)]
pub struct Watch {
    /// The stages that were swapped, by their place in the chain.
    pub stages: Vec<usize>,
    /// When it is given up.
    pub limits: WatchLimits,
    seen: Mutex<StageTally>,
}

impl Watch {
    /// A watch over `stages` that has seen nothing.
    pub fn new(stages: Vec<usize>, limits: WatchLimits) -> Self {
        Self { stages, limits, seen: Mutex::default() }
    }

    /// Takes a batch into account that is about to be delivered; where that would be too much, nothing is, and the error
    /// says what.
    pub fn admit(&self, now_ms: u64, batch: StageTally) -> Result<(), String> {
        if now_ms >= self.limits.until_ms {
            return Ok(());
        }
        let mut seen = lock(&self.seen);
        let sum = seen.plus(batch);
        let WatchLimits { dead_letters, rate, faults, .. } = self.limits;
        if sum.faults > faults {
            return Err(format!("{} records made the new plugin fault, and {faults} may", sum.faults));
        }
        if sum.dead_letters > dead_letters && sum.dead_letters as f64 > rate * sum.entered as f64 {
            let StageTally { entered, dead_letters: dead, .. } = sum;
            return Err(format!(
                "{dead} of {entered} records became dead letters of the new plugin: over {dead_letters}"
            ));
        }
        *seen = sum;
        Ok(())
    }

    /// Takes back what was admitted and not delivered after all.
    pub fn release(&self, block: StageTally) {
        let mut seen = lock(&self.seen);
        *seen = seen.minus(block);
    }
}

/// Who wants the chain before the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Somebody who knows what they do.
    Person,
    /// A worker, for the harm that the chain does.
    Worker,
}

/// What became of a wish to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// The chain before is in force, under this number.
    Done(u64),
    /// Another chain is in force already.
    Overtaken,
    /// There is none before it, or that one did harm too.
    Nothing,
}

/// What happened to the chain by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEvent {
    /// A chain was given up for the one before it.
    RolledBack {
        /// The number of the chain that was given up.
        from: u64,
        /// Why.
        why: String,
    },
    /// Records fault too often, and nobody can say which version is to blame: no more are to be taken.
    Paused {
        /// Why.
        why: String,
    },
}

/// The chain that all workers of a process shall run, and the one before it.
pub struct Chains {
    number: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    current: Arc<Chain>,
    previous: Option<Arc<Chain>>,
    events: Vec<ChainEvent>,
    pauses: Vec<Duration>,
    /// Workers that run the current chain.
    followers: usize,
}

impl Chains {
    /// The chain that a process starts with; its number is 0.
    pub fn new(chain: Chain) -> Self {
        let current = Arc::new(Chain { number: 0, ..chain });
        let (events, pauses) = (Vec::new(), Vec::new());
        Self {
            number: AtomicU64::new(0),
            inner: Mutex::new(Inner { current, previous: None, events, pauses, followers: 0 }),
        }
    }

    /// The number of the chain that is to run: all that a worker looks at between swaps.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The chain that is to run.
    pub fn current(&self) -> Arc<Chain> {
        lock(&self.inner).current.clone()
    }

    /// The chain before it, if there was one; it is kept ready.
    pub fn previous(&self) -> Option<Arc<Chain>> {
        lock(&self.inner).previous.clone()
    }

    /// Puts a chain in force in the place of the one with the number `instead_of`, and returns its number; `None` where
    /// another is in force by now.
    pub fn put(&self, instead_of: u64, chain: Chain) -> Option<u64> {
        let mut inner = lock(&self.inner);
        if inner.current.number != instead_of {
            return None;
        }
        let number = instead_of + 1;
        let one_way = chain.one_way;
        let before = std::mem::replace(&mut inner.current, Arc::new(Chain { number, ..chain }));
        inner.previous = (!one_way).then_some(before);
        inner.followers = 0;
        self.number.store(number, Ordering::Release);
        Some(number)
    }

    /// Puts the chain before `from` in force again.
    pub fn roll_back(&self, from: u64, asker: Asker, why: &str) -> WayBack {
        let mut inner = lock(&self.inner);
        if inner.current.number != from {
            return WayBack::Overtaken;
        }
        let by_itself = asker == Asker::Worker;
        let Some(previous) = inner.previous.take_if(|previous| !(by_itself && previous.given_up)) else {
            return WayBack::Nothing;
        };
        let number = from + 1;
        inner.previous = Some(Arc::new(Chain { given_up: by_itself, ..inner.current.as_ref().clone() }));
        // It was proven before, so nobody watches it.
        inner.current = Arc::new(Chain { number, watch: None, given_up: false, ..previous.as_ref().clone() });
        inner.followers = 0;
        inner.events.push(ChainEvent::RolledBack { from, why: why.to_owned() });
        self.number.store(number, Ordering::Release);
        WayBack::Done(number)
    }

    /// Asks for a pause.
    pub fn pause(&self, why: &str) {
        lock(&self.inner).events.push(ChainEvent::Paused { why: why.to_owned() });
    }

    /// What happened since this was last asked.
    pub fn take_events(&self) -> Vec<ChainEvent> {
        std::mem::take(&mut lock(&self.inner).events)
    }

    /// How many workers run the chain `number` or a later one.
    pub fn followers(&self, number: u64) -> usize {
        let inner = lock(&self.inner);
        if inner.current.number == number { inner.followers } else { usize::MAX }
    }

    /// Notes that a worker runs the chain `number`, and for how long it stood still for that.
    pub fn follow(&self, number: u64, pause: Duration) {
        let mut inner = lock(&self.inner);
        inner.followers += usize::from(inner.current.number == number);
        if inner.pauses.len() < PAUSES_MAX {
            inner.pauses.push(pause);
        }
    }

    /// How long workers stood still for swaps since this was last asked.
    pub fn take_pauses(&self) -> Vec<Duration> {
        std::mem::take(&mut lock(&self.inner).pauses)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        Chain {
            number: 7,
            pipeline: Arc::new(Pipeline::new(Vec::new(), vec!["main".into()], &[None]).expect("an empty chain")),
            stages: Arc::new(|_| Ok(Vec::new())),
            labels: Arc::new(DeadLetterLabels { pipeline: "p".into(), stages: Vec::new() }),
            lineage: None,
            plugins: Arc::new([("validate".to_owned(), "ab".to_owned())].into()),
            watch: None,
            given_up: false,
            one_way: false,
        }
    }

    #[test]
    fn there_is_no_way_back_over_states_that_the_chain_before_could_not_read() {
        let chains = Chains::new(chain());
        assert_eq!(chains.put(0, Chain { one_way: true, ..chain() }), Some(1));
        assert_eq!(chains.roll_back(1, Asker::Person, "please"), WayBack::Nothing);
        assert_eq!(chains.roll_back(1, Asker::Worker, "bad"), WayBack::Nothing);
    }

    #[test]
    fn numbers_only_rise_and_only_a_person_brings_back_what_was_given_up() {
        let chains = Chains::new(chain());
        assert_eq!(chains.roll_back(0, Asker::Person, "nothing before it"), WayBack::Nothing);
        assert_eq!(chains.put(0, chain()), Some(1));
        assert_eq!(chains.put(0, chain()), None, "late");
        assert_eq!(chains.roll_back(0, Asker::Worker, "late"), WayBack::Overtaken);
        assert_eq!(chains.roll_back(1, Asker::Worker, "bad"), WayBack::Done(2));
        assert_eq!((chains.number(), chains.current().number), (2, 2));
        assert_eq!(chains.roll_back(2, Asker::Worker, "as bad"), WayBack::Nothing);
        assert_eq!(chains.roll_back(2, Asker::Person, "not so bad after all"), WayBack::Done(3));
        assert_eq!(chains.take_events().len(), 2);
    }

    #[test]
    fn a_note_can_be_read_back_and_others_notes_are_none() {
        let note = Note::parse(&chain().note(42, BTreeMap::new())).expect("our own");
        assert_eq!((note.since, note.plugins["validate"].as_str()), (42, "ab"));
        assert_eq!(Note::parse("somebody's"), None);
    }

    #[test]
    fn a_watch_admits_no_dead_letter_beyond_its_limit() {
        let limits = WatchLimits { until_ms: 1_000, dead_letters: 10, rate: 0.01, faults: 2 };
        let watch = Watch::new(vec![0], limits);
        let tally = |entered, dead_letters, faults| StageTally { entered, dead_letters, faults };
        watch.admit(0, tally(100, 10, 0)).expect("just so many");
        watch.admit(0, tally(1, 1, 0)).expect_err("one too many");
        watch.release(tally(50, 5, 0));
        watch.admit(0, tally(1, 5, 0)).expect("others were undone");
        watch.admit(0, tally(10_000, 1, 0)).expect("few of many");
        watch.admit(0, tally(0, 0, 3)).expect_err("too many faults");
        watch.admit(1_000, tally(0, 99, 99)).expect("the trial is over");
    }
}
