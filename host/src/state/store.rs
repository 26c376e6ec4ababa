//! Keys and their values in memory, with a way back to the last commit.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Names an entry of a [`Store`] until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry(u32);

impl Entry {
    /// An entry of no store, for what needs a name and is in none.
    pub const NONE: Self = Self(u32::MAX);
}

/// What an entry costs beside its key and its value: its slot, its place in the index and the allocator's header.
const ENTRY_BYTES: usize = 56;

/// The states of one stage for one partition: bytes by bucket and key. What changed since the last commit is known, and can
/// be undone.
///
/// A bucket is whatever its owner sorts by, such as the start of a window. Entries of a store in buckets go with their
/// bucket; those of a store without go one by one.
#[derive(Debug, Default)]
pub struct Store {
    in_buckets: bool,
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The entries of each bucket, in no order; none where the store has no buckets.
    buckets: BTreeMap<i64, Vec<u32>>,
    undo: Undo,
    /// Where the undo log was when this was last saved, since the last commit.
    saved: Option<Saved>,
    /// Counts commits and saves; an entry that was touched since has this number.
    block: u32,
    /// Bytes of keys and values.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Slot {
    bucket: i64,
    /// The key, then the value.
    data: Box<[u8]>,
    key_bytes: u16,
    live: bool,
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

/// What entries were before they were first touched since the last commit, in the order of touching.
#[derive(Debug, Default)]
struct Undo {
    data: Vec<u8>,
    touched: Vec<Touched>,
    dropped: Vec<Vec<u32>>,
}

/// How long the parts of the undo log are.
#[derive(Clone, Copy, Debug)]
struct Saved {
    data: usize,
    touched: usize,
    dropped: usize,
}

#[derive(Clone, Copy, Debug)]
struct Touched {
    bucket: i64,
    /// Where its key begins in the log's data, and how long it is; the value follows.
    start: usize,
    key_bytes: u16,
    was: Was,
}

/// What was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    /// No such entry.
    Absent,
    /// A value of so many bytes.
    Value(u32),
    /// A whole bucket, whose entries are kept here.
    Bucket(usize),
}

impl Slot {
    fn key(&self) -> &[u8] {
        &self.data[..usize::from(self.key_bytes)]
    }

    fn value(&self) -> &[u8] {
        &self.data[usize::from(self.key_bytes)..]
    }
}

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4_096;

impl Store {
    /// An empty store, whose entries lie in buckets or not.
    pub fn new(in_buckets: bool) -> Self {
        Self { in_buckets, ..Self::default() }
    }

    /// The entry of a key.
    pub fn find(&self, bucket: i64, key: &[u8]) -> Option<Entry> {
        let hash = self.hash(bucket, key);
        let same = |&at: &u32| {
            let slot = &self.slots[at as usize];
            slot.bucket == bucket && slot.key() == key
        };
        self.index.find(hash, same).map(|&at| Entry(at))
    }

    /// An entry's value; nothing where the entry was removed.
    pub fn value(&self, entry: Entry) -> &[u8] {
        self.slots[entry.0 as usize].value()
    }

    /// An entry's bucket and key; `None` where the entry was removed.
    pub fn key(&self, entry: Entry) -> Option<(i64, &[u8])> {
        let slot = self.slots.get(entry.0 as usize).filter(|slot| slot.live)?;
        Some((slot.bucket, slot.key()))
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
        self.replace(entry, value);
    }

    /// An entry's value, to be changed in place.
    pub fn value_mut(&mut self, entry: Entry) -> &mut [u8] {
        self.touch(entry);
        let slot = &mut self.slots[entry.0 as usize];
        &mut slot.data[usize::from(slot.key_bytes)..]
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
        self.slots.iter().enumerate().filter(|(_, slot)| slot.live).map(|(at, _)| Entry(at as u32))
    }

    /// Calls `each` with the bucket, key and value of the entries in some of the slots from `from` on, until it returns false;
    /// returns the slot to go on with, or `None` at the end. What is added meanwhile may be passed over.
    pub fn sweep(&self, from: usize, mut each: impl FnMut(i64, &[u8], &[u8]) -> bool) -> Option<usize> {
        for (at, slot) in self.slots.iter().enumerate().skip(from).filter(|(_, slot)| slot.live) {
            if !each(slot.bucket, slot.key(), slot.value()) {
                return Some(at + 1);
            }
        }
        None
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
        self.bytes + self.index.len() * ENTRY_BYTES + self.undo.data.capacity()
    }

    /// Calls `each` with everything that changed since the last commit, in an order that gives the same when it is loaded
    /// again. A key may come twice, with the same value.
    pub fn changes(&self, mut each: impl FnMut(Change<'_>)) {
        // After a save an entry is noted anew.
        let mut told = self.saved.map(|_| HashSet::new());
        for touched in &self.undo.touched {
            let bucket = touched.bucket;
            let key = self.undo.key(touched);
            let entry = self.find(bucket, key);
            if let (Some(told), Some(entry)) = (&mut told, entry)
                && !told.insert(entry)
            {
                continue;
            }
            match (touched.was, entry.map(|entry| self.value(entry))) {
                (Was::Bucket(_), _) => each(Change::Drop { bucket }),
                (_, Some(value)) => each(Change::Set { bucket, key, value }),
                // It went with its bucket, or came and went.
                (Was::Absent, None) => {}
                (Was::Value(_), None) if self.in_buckets => {}
                (Was::Value(_), None) => each(Change::Remove { bucket, key }),
            }
        }
    }

    /// True where anything changed since the last commit.
    pub fn is_changed(&self) -> bool {
        !self.undo.touched.is_empty()
    }

    /// Makes what changed the state that an abort goes back to.
    pub fn commit(&mut self) {
        for listed in std::mem::take(&mut self.undo.dropped) {
            listed.into_iter().for_each(|at| self.release(at));
        }
        self.undo.clear();
        self.saved = None;
        self.block = self.block.wrapping_add(1);
    }

    /// Makes this the point that [`Store::roll_back`] goes back to; the last commit stays where it is.
    pub fn save(&mut self) {
        let Undo { data, touched, dropped } = &self.undo;
        self.saved = Some(Saved { data: data.len(), touched: touched.len(), dropped: dropped.len() });
        self.block = self.block.wrapping_add(1);
    }

    /// Puts back everything that changed since it was last saved, and calls `each` with every entry that is there again.
    pub fn roll_back(&mut self, each: impl FnMut(&Self, Entry)) {
        let Some(saved) = self.saved else { return };
        self.undo_from(saved, each);
        // What was put back is to be noted again once it is touched.
        self.block = self.block.wrapping_add(1);
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
                listed.iter().for_each(|&at| self.show(at));
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
                Some(entry) => self.replace(entry, value),
                None => drop(self.put(bucket, key, value)),
            },
            Change::Remove { bucket, key } => {
                self.find(bucket, key).into_iter().for_each(|entry| self.take_out(entry.0))
            }
            Change::Drop { bucket } => {
                for at in self.buckets.remove(&bucket).unwrap_or_default() {
                    self.hide(at);
                    self.release(at);
                }
            }
        }
    }

    fn replace(&mut self, entry: Entry, value: &[u8]) {
        let slot = &mut self.slots[entry.0 as usize];
        let key_bytes = usize::from(slot.key_bytes);
        if slot.data.len() == key_bytes + value.len() {
            slot.data[key_bytes..].copy_from_slice(value);
            return;
        }
        let before = slot.data.len();
        slot.data = [&slot.data[..key_bytes], value].concat().into();
        self.bytes = self.bytes + slot.data.len() - before;
    }

    fn put(&mut self, bucket: i64, key: &[u8], value: &[u8]) -> Entry {
        let data: Box<[u8]> = [key, value].concat().into();
        self.bytes += data.len();
        let slot = Slot { bucket, data, key_bytes: key.len() as u16, live: true, block: self.block };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.show(at);
        if self.in_buckets {
            self.buckets.entry(bucket).or_default().push(at);
        }
        Entry(at)
    }

    /// Makes a slot's entry one that can be found.
    fn show(&mut self, at: u32) {
        let (slots, hasher) = (&mut self.slots, &self.hasher);
        let slot = &mut slots[at as usize];
        slot.live = true;
        let hash = hasher.hash_one((slot.bucket, slot.key()));
        let slots = &self.slots;
        self.index.insert_unique(hash, at, |&at| {
            let slot = &slots[at as usize];
            hasher.hash_one((slot.bucket, slot.key()))
        });
    }

    /// Makes it one that can't; its slot stays.
    fn hide(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        slot.live = false;
        let hash = self.hasher.hash_one((slot.bucket, slot.key()));
        if let Ok(found) = self.index.find_entry(hash, |&other| other == at) {
            found.remove();
        }
    }

    /// Frees the slot of an entry that can't be found any more.
    fn release(&mut self, at: u32) {
        let slot = std::mem::take(&mut self.slots[at as usize]);
        self.bytes -= slot.data.len();
        self.free.push(at);
    }

    fn take_out(&mut self, at: u32) {
        if self.in_buckets {
            // What is undone came last, so this looks at the list's end.
            let bucket = self.slots[at as usize].bucket;
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
        self.release(at);
    }

    fn touch(&mut self, entry: Entry) {
        let slot = &mut self.slots[entry.0 as usize];
        if slot.block != self.block {
            slot.block = self.block;
            self.undo.note(slot.bucket, slot.key(), Some(slot.value()));
        }
    }

    fn hash(&self, bucket: i64, key: &[u8]) -> u64 {
        self.hasher.hash_one((bucket, key))
    }
}

impl Undo {
    fn note(&mut self, bucket: i64, key: &[u8], value: Option<&[u8]>) {
        let start = self.data.len();
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value.unwrap_or_default());
        let was = value.map_or(Was::Absent, |value| Was::Value(value.len() as u32));
        self.touched.push(Touched { bucket, start, key_bytes: key.len() as u16, was });
    }

    fn key(&self, touched: &Touched) -> &[u8] {
        &self.data[touched.start..][..usize::from(touched.key_bytes)]
    }

    fn value(&self, touched: &Touched) -> Option<&[u8]> {
        let start = touched.start + usize::from(touched.key_bytes);
        match touched.was {
            Was::Value(bytes) => Some(&self.data[start..][..bytes as usize]),
            Was::Absent | Was::Bucket(_) => None,
        }
    }

    fn clear(&mut self) {
        self.data.clear();
        self.touched.clear();
        self.dropped.clear();
    }
}
