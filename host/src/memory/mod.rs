//! A model of Kafka in memory: partitions, one group, transactions, and every way in which these fail, from a seed.
//!
//! It is as unkind as the real thing where that matters: a live member's offsets are taken for a partition that it
//! no longer owns; a request that timed out may take effect later, inside the next transaction of the same producer
//! epoch; a member that was expelled learns of it last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::record::Rows;
use crate::sink::Progress;

/// A seeded sequence of numbers: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_number() % bound as u64) as usize
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn happens(&mut self, per_mille: u32) -> bool {
        self.next_number() % 1_000 < u64::from(per_mille)
    }
}

/// How often each thing goes wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A request gets no answer, and has no effect.
    pub away: u32,
    /// A poll brings what was already polled.
    pub polled_twice: u32,
    /// A produce or a commit is refused; the transaction must be aborted.
    pub aborted: u32,
    /// A commit's answer is lost; it took effect, takes effect later, or never does.
    pub timed_out: u32,
}

/// A record as a transaction's reader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Visible {
    /// Index of the output; `None` for a dead letter.
    pub output: Option<u16>,
    /// Offset in the input that it came from.
    pub offset: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// A record's key and value.
pub type KeyValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The shared model.
#[derive(Clone, Debug)]
pub struct MemoryKafka(Arc<Mutex<Model>>);

#[derive(Debug)]
pub(crate) struct Model {
    pub topic: Arc<str>,
    pub input: Vec<Rows>,
    pub offsets: Vec<Option<(i64, String)>>,
    pub visible: Vec<Visible>,
    /// The committed records of stages' topics: changelogs, and states for others, by stage and partition.
    pub states: BTreeMap<(usize, i32), Vec<KeyValue>>,
    pub chance: Chance,
    pub faults: Faults,
    pub producers: BTreeMap<String, Producer>,
    pub members: BTreeMap<u64, Member>,
    /// Who has each partition; it is free while it moves.
    pub owners: Vec<Option<u64>>,
    next_member: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Producer {
    pub epoch: u64,
    pub open: Vec<Visible>,
    pub open_states: Vec<(usize, i32, KeyValue)>,
    /// A commit of this epoch that is still on its way.
    pub late_commit: Option<u64>,
}

/// What the group knows of a member.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub owned: BTreeSet<i32>,
    /// Asked to give up; still owned.
    pub revoking: BTreeSet<i32>,
    pub told_revoking: bool,
    pub new: BTreeSet<i32>,
    /// Taken away without asking: told at the next poll, and fenced until then.
    pub lost: BTreeSet<i32>,
}

impl MemoryKafka {
    /// A topic with these partitions, and failures from a seed.
    pub fn new(input: Vec<Rows>, seed: u64, faults: Faults) -> Self {
        let partitions = input.len();
        Self(Arc::new(Mutex::new(Model {
            topic: "input".into(),
            offsets: vec![None; partitions],
            owners: vec![None; partitions],
            input,
            visible: Vec::new(),
            states: BTreeMap::new(),
            chance: Chance::new(seed),
            faults,
            producers: BTreeMap::new(),
            members: BTreeMap::new(),
            next_member: 1,
        })))
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that a reader of committed records sees, in the order of the commits.
    pub fn visible(&self) -> Vec<Visible> {
        self.model().visible.clone()
    }

    /// The committed records of a stage's topic, by partition.
    pub fn states(&self, stage: usize) -> BTreeMap<i32, Vec<KeyValue>> {
        let model = self.model();
        let of = model.states.iter().filter(|((of, _), _)| *of == stage);
        of.map(|((_, partition), records)| (*partition, records.clone())).collect()
    }

    /// True when the group's offsets stand at the end of every partition.
    pub fn all_committed(&self) -> bool {
        let model = self.model();
        model
            .offsets
            .iter()
            .zip(&model.input)
            .all(|(offset, rows)| offset.as_ref().map_or(0, |(offset, _)| *offset) == rows.len() as i64)
    }

    /// Stops all failures from here on.
    pub fn calm(&self) {
        self.model().faults = Faults::default();
    }

    /// Adds a member to the group; it has no partition before the next rebalance.
    pub fn join(&self) -> u64 {
        let mut model = self.model();
        let id = model.next_member;
        model.next_member += 1;
        model.members.insert(id, Member::default());
        id
    }

    /// Removes a member as a crash does: its partitions are free at once, its transaction stays open.
    pub fn crash(&self, member: u64) {
        let mut model = self.model();
        model.members.remove(&member);
        model.owners.iter_mut().filter(|owner| **owner == Some(member)).for_each(|owner| *owner = None);
        model.hand_out();
    }

    /// Moves a partition, chosen by chance, to a member chosen by chance: politely, or as after a missed session.
    pub fn rebalance(&self, politely: bool) {
        let mut model = self.model();
        let partitions = model.input.len();
        let partition = model.chance.below(partitions);
        if let Some(owner) = model.owners[partition] {
            let partition = partition as i32;
            if politely {
                if let Some(member) = model.members.get_mut(&owner)
                    && !member.new.contains(&partition)
                {
                    member.revoking.insert(partition);
                    member.told_revoking = false;
                }
            } else if let Some(member) = model.members.get_mut(&owner) {
                // A member is expelled with all that it has.
                let owned = std::mem::take(&mut member.owned);
                member.new.clear();
                member.revoking.clear();
                member.lost.extend(owned);
                model.owners.iter_mut().filter(|has| **has == Some(owner)).for_each(|has| *has = None);
            }
        }
        model.hand_out();
    }
}

impl Model {
    /// Gives every free partition to a member chosen by chance.
    pub(crate) fn hand_out(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        for partition in 0..self.owners.len() {
            if self.owners[partition].is_none() {
                let id = ids[self.chance.below(ids.len())];
                self.owners[partition] = Some(id);
                if let Some(member) = self.members.get_mut(&id) {
                    member.owned.insert(partition as i32);
                    member.new.insert(partition as i32);
                }
            }
        }
    }

    /// True when the member has been expelled and does not know it: its generation is stale.
    pub(crate) fn fenced(&self, member: u64) -> bool {
        self.members.get(&member).is_none_or(|member| !member.lost.is_empty())
    }

    /// Lets a commit that was on its way take effect, if its producer epoch still lives.
    pub(crate) fn arrive_late(&mut self, id: &str) {
        let Some(producer) = self.producers.get_mut(id) else { return };
        if producer.late_commit.take() == Some(producer.epoch) {
            self.publish(id);
        }
    }

    fn publish(&mut self, id: &str) {
        let Some(producer) = self.producers.get_mut(id) else { return };
        self.visible.append(&mut producer.open);
        for (stage, partition, record) in producer.open_states.drain(..) {
            self.states.entry((stage, partition)).or_default().push(record);
        }
    }

    /// Ends a transaction: outputs and offsets become visible as one. Whoever commits, the offsets are taken.
    pub(crate) fn end(&mut self, id: &str, progress: &[Progress]) {
        self.publish(id);
        for progress in progress {
            let committed = (progress.next_offset, progress.note.clone());
            self.offsets[progress.place.partition as usize] = Some(committed);
        }
    }
}
