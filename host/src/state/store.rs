//! Keys and their values, with a way back to the last commit.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::slots::{FIRST_BLOCK, Slots};
use super::undo::{Saved, Touched, Undo, Was};
use crate::spill::{Spill, SpillError};

/// Names an entry of a [`Store`] until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry(u32);

impl Entry {
    /// An entry of no store, for what needs a name and is in none.
    pub const NONE: Self = Self(u32::MAX);
}

/// What an entry costs beside its key and its value, in a changelog and in memory.
const ENTRY_BYTES: usize = 56;

/// The states of one stage for one partition: bytes by bucket and key. What changed since the last commit is known, and can
/// be undone. Entries that nobody touches may lie outside of memory, once they are committed.
///
/// A bucket is whatever its owner sorts by, such as the start of a window. Entries of a store in buckets go with their
/// bucket; those of a store without go one by one.
#[derive(Debug)]
pub struct Store {
    in_buckets: bool,
    slots: Slots,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The entries of each bucket, in no order; none where the store has no buckets.
    buckets: BTreeMap<i64, Vec<u32>>,
    undo: Undo,
    /// How large the entries were at the last commit.
    committed_bytes: usize,
    /// Where the undo log was when this was last saved, since the last commit.
    saved: Option<Saved>,
    /// Counts commits and saves; an entry that was touched since has this number.
    block: u32,
}

/// What happened to an entry, or to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A key has this value.
    Set {
        /// The entry's bucket.
        bucket: i64,
        /// Its key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// A key is gone.
    Remove {
        /// The entry's bucket.
        bucket: i64,
        /// Its key.
        key: &'a [u8],
    },
    /// A bucket is gone with all that was in it.
    Drop {
        /// The bucket.
        bucket: i64,
    },
}

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4_096;

impl Store {
    /// An empty store, whose entries lie in buckets or not.
    pub fn new(in_buckets: bool) -> Self {
        Self {
            in_buckets,
            slots: Slots::default(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            buckets: BTreeMap::new(),
            undo: Undo::default(),
            committed_bytes: 0,
            saved: None,
            block: FIRST_BLOCK,
        }
    }

    /// Has entries move out where memory is short; there must be none yet.
    pub fn set_spill(&mut self, spill: Spill) {
        self.slots.set_spill(spill);
    }

    /// Why entries could not be moved out or back, where that was so: then the store has to be given up, and restored.
    pub fn trouble(&self) -> Option<&SpillError> {
        self.slots.trouble()
    }

    /// As if the disk had lost what is away.
    #[cfg(test)]
    pub(crate) fn lose_spill(&mut self) {
        self.slots.lose_spill();
    }

    /// The entry of a key.
    pub fn find(&self, bucket: i64, key: &[u8]) -> Option<Entry> {
        let hash = self.hash(bucket, key);
        let same = |&at: &u32| {
            self.slots.hash(at) == hash
                && self.slots.bucket(at) == bucket
                && self.slots.entry(at).is_some_and(|entry| entry.0 == key)
        };
        self.index.find(spread(hash), same).map(|&at| Entry(at))
    }

    /// An entry's value; nothing where the entry was removed.
    pub fn value(&self, entry: Entry) -> &[u8] {
        let live = Some(entry.0).filter(|&at| self.slots.is_live(at));
        live.and_then(|at| self.slots.entry(at)).map(|entry| entry.1).unwrap_or_default()
    }

    /// An entry's bucket and key; `None` where the entry was removed.
    pub fn key(&self, entry: Entry) -> Option<(i64, &[u8])> {
        let at = Some(entry.0).filter(|&at| self.slots.is_live(at))?;
        Some((self.slots.bucket(at), self.slots.entry(at)?.0))
    }

    /// Adds an entry whose key is not there; of at most [`KEY_BYTES_MAX`] bytes.
    pub fn insert(&mut self, bucket: i64, key: &[u8], value: &[u8]) -> Entry {
        debug_assert!(self.find(bucket, key).is_none() && key.len() <= KEY_BYTES_MAX);
        self.undo.note(bucket, key, None);
        self.put(bucket, key, value)
    }

    /// Replaces an entry's value.
    pub fn set(&mut self, entry: Entry, value: &[u8]) {
        self.touch(entry);
        self.slots.replace(entry.0, value);
    }

    /// An entry's value, to be changed in place.
    pub fn value_mut(&mut self, entry: Entry) -> &mut [u8] {
        self.touch(entry);
        self.slots.value_mut(entry.0)
    }

    /// Removes an entry of a store without buckets.
    pub fn remove(&mut self, entry: Entry) {
        debug_assert!(!self.in_buckets);
        self.touch(entry);
        self.take_out(entry.0);
    }

    /// Removes all entries of a bucket.
    pub fn remove_bucket(&mut self, bucket: i64) {
        let Some(listed) = self.buckets.remove(&bucket) else { return };
        for &at in &listed {
            self.hide(at);
        }
        self.undo.touched.push(Touched { bucket, start: 0, key_bytes: 0, was: Was::Bucket(self.undo.dropped.len()) });
        self.undo.dropped.push(listed);
    }

    /// The buckets that have entries, in order.
    pub fn buckets(&self) -> impl DoubleEndedIterator<Item = i64> {
        self.buckets.keys().copied()
    }

    /// The buckets in a range that have entries, in order.
    pub fn buckets_in(&self, range: std::ops::Range<i64>) -> impl Iterator<Item = i64> {
        self.buckets.range(range).map(|(&bucket, _)| bucket)
    }

    /// The entries of a bucket, in no order.
    pub fn entries(&self, bucket: i64) -> impl Iterator<Item = Entry> {
        self.buckets.get(&bucket).map(Vec::as_slice).unwrap_or_default().iter().map(|&at| Entry(at))
    }

    /// All entries, in no order that means anything.
    pub fn all(&self) -> impl Iterator<Item = Entry> {
        self.slots.live().map(Entry)
    }

    /// Calls `each` with every entry, its bucket, key and value, and leaves those outside of memory that are there.
    pub fn visit(&self, mut each: impl FnMut(Entry, i64, &[u8], &[u8])) {
        self.slots.visit(0, |at, bucket, key, value| {
            each(Entry(at), bucket, key, value);
            true
        });
    }

    /// Calls `each` with the bucket, key and value of the entries in some of the slots from `from` on, until it returns false;
    /// returns the slot to go on with, or `None` at the end. What is added meanwhile may be passed over.
    pub fn sweep(&self, from: usize, mut each: impl FnMut(i64, &[u8], &[u8]) -> bool) -> Option<usize> {
        self.slots.visit(from, |_, bucket, key, value| each(bucket, key, value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True where there is no entry.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// About how much memory the entries take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.slots.memory_bytes() + self.undo.memory_bytes()
    }

    /// About how large the entries are, wherever they lie, in bytes.
    pub fn state_bytes(&self) -> usize {
        self.slots.bytes() + self.index.len() * ENTRY_BYTES
    }

    /// Number of entries outside of memory.
    pub fn away(&self) -> usize {
        self.slots.away()
    }

    /// Calls `each` with everything that changed since the last commit, in an order that gives the same when it is loaded
    /// again. A key may come twice, with the same value.
    pub fn changes(&self, mut each: impl FnMut(Change<'_>)) {
        // After a save an entry is noted anew.
        let mut told = self.saved.map(|_| HashSet::new());
        for touched in &self.undo.touched {
            let bucket = touched.bucket;
            if let Was::Bucket(_) = touched.was {
                each(Change::Drop { bucket });
                // What came into it since is to be told after that.
                told.iter_mut().for_each(HashSet::clear);
                continue;
            }
            let key = self.undo.key(touched);
            let entry = self.find(bucket, key);
            if let (Some(told), Some(entry)) = (&mut told, entry)
                && !told.insert(entry)
            {
                continue;
            }
            match (touched.was, entry.map(|entry| self.value(entry))) {
                (_, Some(value)) => each(Change::Set { bucket, key, value }),
                // It went with its bucket, or came and went.
                (_, None) if self.in_buckets || touched.was == Was::Absent => {}
                (_, None) => each(Change::Remove { bucket, key }),
            }
        }
    }

    /// About how large what changed since the last commit is, in bytes.
    pub fn changed_bytes(&self) -> usize {
        self.undo.bytes() + self.slots.bytes().saturating_sub(self.committed_bytes)
    }

    /// True where anything changed since the last commit.
    pub fn is_changed(&self) -> bool {
        !self.undo.touched.is_empty()
    }

    /// Makes what changed the state that an abort goes back to.
    pub fn commit(&mut self) {
        for listed in std::mem::take(&mut self.undo.dropped) {
            listed.into_iter().for_each(|at| self.slots.release(at));
        }
        self.undo.clear();
        self.committed_bytes = self.slots.bytes();
        self.saved = None;
        let block = self.block;
        self.next_block();
        self.slots.make_room(block);
    }

    fn next_block(&mut self) {
        self.block = self.block.checked_add(1).unwrap_or(FIRST_BLOCK);
    }

    /// Makes this the point that [`Store::roll_back`] goes back to; the last commit stays where it is.
    pub fn save(&mut self) {
        let Undo { data, touched, dropped } = &self.undo;
        self.saved = Some(Saved { data: data.len(), touched: touched.len(), dropped: dropped.len() });
        self.next_block();
    }

    /// Puts back everything that changed since it was last saved, and calls `each` with every entry that is there again.
    pub fn roll_back(&mut self, each: impl FnMut(&Self, Entry)) {
        let Some(saved) = self.saved else { return };
        self.undo_from(saved, each);
        // What was put back is to be noted again once it is touched.
        self.next_block();
    }

    /// Puts back everything that changed since the last commit, and calls `each` with every entry that is there again.
    pub fn undo(&mut self, each: impl FnMut(&Self, Entry)) {
        self.undo_from(Saved { data: 0, touched: 0, dropped: 0 }, each);
        self.commit();
    }

    fn undo_from(&mut self, from: Saved, mut each: impl FnMut(&Self, Entry)) {
        let mut undo = std::mem::take(&mut self.undo);
        let mut dropped = std::mem::take(&mut undo.dropped);
        for touched in undo.touched[from.touched..].iter().rev() {
            let (bucket, key) = (touched.bucket, undo.key(touched));
            if let Was::Bucket(at) = touched.was {
                let listed = std::mem::take(&mut dropped[at]);
                for &at in &listed {
                    self.slots.show(at);
                    self.list(at);
                }
                self.buckets.insert(bucket, listed);
                continue;
            }
            if let Some(entry) = self.find(bucket, key) {
                self.take_out(entry.0);
            }
            if let Some(value) = undo.value(touched) {
                self.put(bucket, key, value);
            }
        }
        for touched in &undo.touched[from.touched..] {
            match touched.was {
                Was::Bucket(_) => self.entries(touched.bucket).for_each(|entry| each(self, entry)),
                _ => self.find(touched.bucket, undo.key(touched)).into_iter().for_each(|entry| each(self, entry)),
            }
        }
        undo.touched.truncate(from.touched);
        undo.data.truncate(from.data);
        dropped.truncate(from.dropped);
        self.undo = Undo { dropped, ..undo };
    }

    /// Takes over a change that a changelog has; there is no way back.
    pub fn load(&mut self, change: Change<'_>) {
        match change {
            Change::Set { bucket, key, value } => match self.find(bucket, key) {
                Some(entry) => self.slots.replace(entry.0, value),
                None => drop(self.put(bucket, key, value)),
            },
            Change::Remove { bucket, key } => {
                self.find(bucket, key).into_iter().for_each(|entry| self.take_out(entry.0))
            }
            Change::Drop { bucket } => {
                for at in self.buckets.remove(&bucket).unwrap_or_default() {
                    self.hide(at);
                    self.slots.release(at);
                }
            }
        }
        // Nothing here can be undone.
        self.slots.make_room(0);
    }

    fn put(&mut self, bucket: i64, key: &[u8], value: &[u8]) -> Entry {
        let at = self.slots.put(bucket, (key, value), self.hash(bucket, key), self.block);
        self.list(at);
        if self.in_buckets {
            self.buckets.entry(bucket).or_default().push(at);
        }
        Entry(at)
    }

    /// Makes a slot's entry one that can be found.
    fn list(&mut self, at: u32) {
        let slots = &self.slots;
        self.index.insert_unique(spread(slots.hash(at)), at, |&at| spread(slots.hash(at)));
    }

    /// Makes it one that can't; its slot stays.
    fn hide(&mut self, at: u32) {
        self.slots.hide(at);
        if let Ok(found) = self.index.find_entry(spread(self.slots.hash(at)), |&other| other == at) {
            found.remove();
        }
    }

    fn take_out(&mut self, at: u32) {
        if self.in_buckets {
            // What is undone came last, so this looks at the list's end.
            let bucket = self.slots.bucket(at);
            if let Some(listed) = self.buckets.get_mut(&bucket) {
                if let Some(found) = listed.iter().rposition(|&other| other == at) {
                    listed.swap_remove(found);
                }
                if listed.is_empty() {
                    self.buckets.remove(&bucket);
                }
            }
        }
        self.hide(at);
        self.slots.release(at);
    }

    fn touch(&mut self, entry: Entry) {
        let at = entry.0;
        if self.slots.block(at) == self.block {
            return;
        }
        if let Some((key, value)) = self.slots.entry(at) {
            self.undo.note(self.slots.bucket(at), key, Some(value));
            self.slots.set_block(at, self.block);
        }
    }

    fn hash(&self, bucket: i64, key: &[u8]) -> u32 {
        (self.hasher.hash_one((bucket, key)) >> 32) as u32
    }
}

/// Half a hash, which is kept with each entry, as a whole one: the index looks at its upper and at its lower bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
