//! A store against a plain map, over random operations, with and without memory enough.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Change, Store};
use crate::memory::Chance;
use crate::spill::{Spill, SpillFolder};

type Model = BTreeMap<(i64, Vec<u8>), Vec<u8>>;

fn folder(name: &str, memory_bytes: u64, disk_bytes: Option<u64>) -> Arc<SpillFolder> {
    let dir = std::env::temp_dir().join(format!("millstream-store-{name}-{}", std::process::id()));
    SpillFolder::new(dir, memory_bytes, disk_bytes)
}

/// A store and what it must be, now, as saved and as committed.
struct Pair {
    store: Store,
    now: Model,
    saved: Option<Model>,
    committed: Model,
    /// What all commits told.
    changelog: Vec<(u8, i64, Vec<u8>, Vec<u8>)>,
}

impl Pair {
    fn new(in_buckets: bool, folder: Option<&Arc<SpillFolder>>) -> Self {
        Self {
            store: store(in_buckets, folder),
            now: Model::new(),
            saved: None,
            committed: Model::new(),
            changelog: Vec::new(),
        }
    }

    fn step(&mut self, chance: &mut Chance, in_buckets: bool) {
        let bucket = if in_buckets { chance.below(6) as i64 * 10 } else { 0 };
        let key = format!("key {}", chance.below(40)).into_bytes();
        let value = vec![chance.below(256) as u8; chance.below(12)];
        match (chance.below(20), self.store.find(bucket, &key)) {
            (0..10, None) => {
                self.store.insert(bucket, &key, &value);
                self.now.insert((bucket, key), value);
            }
            (0..7, Some(entry)) => {
                self.store.set(entry, &value);
                self.now.insert((bucket, key), value);
            }
            (7..10, Some(entry)) => {
                let model = self.now.get_mut(&(bucket, key)).expect("it is there");
                self.store.value_mut(entry).fill(7);
                model.fill(7);
            }
            (10 | 11, Some(entry)) if !in_buckets => {
                self.store.remove(entry);
                self.now.remove(&(bucket, key));
            }
            (10, _) if in_buckets => {
                self.store.remove_bucket(bucket);
                self.now.retain(|at, _| at.0 != bucket);
            }
            (13 | 14, _) => self.commit(),
            (15, _) => {
                self.store.undo(|_, _| ());
                self.now.clone_from(&self.committed);
                self.saved = None;
            }
            (16, _) => {
                self.store.save();
                self.saved = Some(self.now.clone());
            }
            (17, _) => {
                self.store.roll_back(|_, _| ());
                self.now = self.saved.clone().unwrap_or(std::mem::take(&mut self.now));
            }
            (_, found) => {
                let value = self.now.get(&(bucket, key.clone()));
                assert_eq!(found.map(|entry| self.store.value(entry)), value.map(Vec::as_slice));
                assert_eq!(found.and_then(|entry| self.store.key(entry)), value.map(|_| (bucket, &key[..])));
            }
        }
    }

    fn commit(&mut self) {
        let changelog = &mut self.changelog;
        self.store.changes(|change| {
            changelog.push(match change {
                Change::Set { bucket, key, value } => (0, bucket, key.to_vec(), value.to_vec()),
                Change::Remove { bucket, key } => (1, bucket, key.to_vec(), Vec::new()),
                Change::Drop { bucket } => (2, bucket, Vec::new(), Vec::new()),
            })
        });
        self.store.commit();
        self.committed.clone_from(&self.now);
        self.saved = None;
    }

    fn check(&self) {
        assert!(self.store.trouble().is_none());
        assert_eq!(self.store.len(), self.now.len());
        let mut visited = Model::new();
        self.store.visit(|entry, bucket, key, value| {
            visited.insert((bucket, key.to_vec()), value.to_vec());
            assert_eq!(self.store.find(bucket, key), Some(entry));
        });
        assert_eq!(visited, self.now);
    }
}

fn store(in_buckets: bool, folder: Option<&Arc<SpillFolder>>) -> Store {
    let mut store = Store::new(in_buckets);
    folder.into_iter().for_each(|folder| store.set_spill(Spill::to(folder)));
    store
}

/// The entries as they are listed by bucket, or all.
fn listed(store: &Store, in_buckets: bool) -> Model {
    let of = |entry| store.key(entry).map(|(bucket, key)| ((bucket, key.to_vec()), store.value(entry).to_vec()));
    match in_buckets {
        true => store.buckets().flat_map(|bucket| store.entries(bucket)).filter_map(of).collect(),
        false => store.all().filter_map(of).collect(),
    }
}

/// Runs random steps; returns the most entries that were away.
fn ride(seed: u64, in_buckets: bool, folder: Option<&Arc<SpillFolder>>) -> usize {
    let mut chance = Chance::new(seed);
    let mut pair = Pair::new(in_buckets, folder);
    let mut away = 0;
    for _ in 0..1_000 {
        pair.step(&mut chance, in_buckets);
        away = away.max(pair.store.away());
        match chance.below(40) {
            0 => pair.check(),
            1 => assert_eq!(listed(&pair.store, in_buckets), pair.now),
            2 => {
                // Read piece by piece, as a sweep does, with commits between.
                let (mut swept, mut from) = (Model::new(), Some(0));
                while let Some(at) = from {
                    from = pair.store.sweep(at, |bucket, key, value| {
                        swept.insert((bucket, key.to_vec()), value.to_vec());
                        chance.below(5) > 0
                    });
                    pair.commit();
                }
                assert_eq!(swept, pair.now);
            }
            _ => {}
        }
    }
    pair.commit();
    let mut loaded = store(in_buckets, folder);
    for (kind, bucket, key, value) in &pair.changelog {
        let bucket = *bucket;
        loaded.load(match kind {
            0 => Change::Set { bucket, key, value },
            1 => Change::Remove { bucket, key },
            _ => Change::Drop { bucket },
        });
    }
    loaded.commit();
    assert_eq!(listed(&loaded, in_buckets), pair.now, "read back from what was told");
    away
}

#[test]
fn a_store_is_what_a_plain_map_is_wherever_its_entries_lie() {
    for in_buckets in [true, false] {
        for seed in 0..3 {
            ride(seed, in_buckets, None);
            for memory_bytes in [0, 1_500] {
                let folder = folder("model", memory_bytes, None);
                let away = ride(seed, in_buckets, Some(&folder));
                assert!(away > if memory_bytes == 0 { 30 } else { 0 }, "{away} were away");
                assert_eq!(folder.used_bytes(), 0, "no file is left");
            }
        }
    }
}

#[test]
fn memory_stays_within_its_bound_and_what_was_just_touched_stays_in_it() {
    let folder = folder("bound", 4 << 20, None);
    let mut store = store(false, Some(&folder));
    let key = |number: u32| format!("key {number:08}").into_bytes();
    let mut most = 0;
    for number in 0..100_000 {
        store.insert(0, &key(number), &[1; 100]);
        if number % 1_000 == 999 {
            let hot = store.find(0, &key(5)).expect("it is there");
            store.value_mut(hot)[0] = store.value(hot)[0].wrapping_add(1);
            store.commit();
            most = most.max(store.memory_bytes());
        }
    }
    assert!(store.trouble().is_none() && store.len() == 100_000);
    // 100,000 slots alone are 4 MB: entries keep an eighth of the memory all the same.
    assert!(most < 5 << 20, "{most} bytes");
    assert!(store.away() > 90_000 && store.state_bytes() > 12 << 20);
    let away = store.away();
    let hot = store.find(0, &key(5)).expect("it is there");
    assert_eq!((store.value(hot)[0], store.away()), (101, away), "it never left");
    for number in (0..100_000).step_by(997) {
        let entry = store.find(0, &key(number)).expect("it is there");
        assert_eq!(store.value(entry)[1..], [1; 99]);
    }
    assert_eq!(store.find(0, b"another"), None);
}

#[test]
fn where_nothing_can_be_moved_out_everything_stays_and_the_reason_is_kept() {
    let folder = folder("full", 0, Some(4 << 20));
    let mut store = store(false, Some(&folder));
    let mut added = 0_u32;
    while store.trouble().is_none() {
        for _ in 0..1_000 {
            store.insert(0, &added.to_be_bytes(), &[3; 200]);
            added += 1;
        }
        store.commit();
        assert!(added < 100_000, "4 MB hold no 20 MB");
    }
    assert!(store.away() < added as usize);
    let why = store.trouble().map(ToString::to_string).unwrap_or_default();
    assert!(why.contains("state.dir") && why.contains("Nothing is lost"), "{why}");
    // What did not move is there as before.
    let last = store.find(0, &(added - 1).to_be_bytes()).expect("it stayed");
    assert_eq!(store.value(last), [3; 200]);
}

#[test]
fn what_cannot_be_read_back_is_no_entry_and_the_reason_is_kept() {
    for in_buckets in [true, false] {
        let folder = folder("lost", 0, None);
        let mut store = store(in_buckets, Some(&folder));
        let entry = store.insert(3, b"key", b"value");
        store.commit();
        assert_eq!(store.away(), 1);
        store.lose_spill();
        assert_eq!(store.find(3, b"key"), None);
        assert!(store.trouble().is_some_and(|why| why.to_string().contains("the changelog has all states")));
        assert_eq!((store.key(entry), store.value(entry)), (None, &[][..]));
        assert_eq!(store.sweep(0, |_, _, _| true), Some(0), "no sweep gets past it");
        // Nobody uses it any more, but nothing breaks either.
        store.insert(3, b"key", b"other");
        store.set(entry, b"new");
        store.value_mut(entry);
        store.undo(|_, _| ());
        store.commit();
    }
}

#[test]
fn how_much_a_block_changed_is_known_and_its_memory_is_given_back() {
    let mut store = store(false, None);
    assert_eq!(store.changed_bytes(), 0);
    let entry = store.insert(0, &[1; 100], &[2; 1_000]);
    store.commit();
    assert_eq!(store.changed_bytes(), 0);
    let before = store.memory_bytes();
    store.value_mut(entry)[0] = 3;
    assert!((1_100..1_300).contains(&store.changed_bytes()), "{} bytes", store.changed_bytes());
    store.value_mut(entry)[1] = 3;
    assert!(store.changed_bytes() < 1_300, "noted once: {} bytes", store.changed_bytes());
    for number in 0..10_000_u32 {
        store.insert(0, &number.to_be_bytes(), &[0; 500]);
        store.set(entry, &[0; 1_000]);
        store.save();
    }
    assert!(store.changed_bytes() > 10_000_000);
    store.undo(|_, _| ());
    assert!(store.memory_bytes() < before + (2 << 20), "{} bytes stay", store.memory_bytes() - before);
}
