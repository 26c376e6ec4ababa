//! Rows end to end in one buffer, found by the hash of their key.
//!
//! A row is `key length * 2 + is it deleted`, the key, and for each column `0` for nothing or `length + 1` and its JSON text;
//! the numbers are LEB128. Of a deleted row only the key is left: in a layer over others it hides theirs.

/// The most bytes of a layer's rows: places have 32 bits.
const ARENA_BYTES_MAX: usize = u32::MAX as usize - 1;
/// Slots of the index of a new layer.
const SLOTS_MIN: usize = 16;
/// Replaced rows are left where they are until there are so many bytes of them, and as many as of others.
const GARBAGE_BYTES_MIN: usize = 64 << 10;

/// Rows that do not change any more.
#[derive(Debug)]
pub(super) struct Layer {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    rows: usize,
}

/// A row's place, or none.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// One more than where the row begins; 0 where there is none.
    at: u32,
}

/// A row's columns.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    bytes: &'a [u8],
    columns: usize,
}

/// The values of a row, as JSON text; `None` for null and for what the row does not have.
#[derive(Clone, Debug)]
pub struct Values<'a>(Row<'a>);

/// A layer holds no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its rows have more than {ARENA_BYTES_MAX} bytes")]
pub struct Full;

/// A layer in the making: the last word on a key counts.
#[derive(Debug)]
pub struct Builder {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    rows: usize,
    columns: usize,
    seed: u64,
    garbage: usize,
    /// The row that is being written.
    row: Vec<u8>,
}

/// The hash of a key.
pub(super) fn hash(seed: u64, key: &[u8]) -> u32 {
    (twox_hash::XxHash3_64::oneshot_with_seed(seed, key) >> 32) as u32
}

impl Layer {
    /// What it says of a key: nothing, that it is deleted, or its row.
    #[inline]
    pub(super) fn find(&self, hash: u32, key: &[u8], columns: usize) -> Option<Option<Row<'_>>> {
        let slot = probe(&self.slots, &self.arena, hash, key).ok()?;
        let (head, at) = read_head(&self.arena, self.slots[slot].at as usize - 1);
        let end = at + (head >> 1);
        Some((head & 1 == 0).then(|| Row { bytes: &self.arena[end..], columns }))
    }

    /// How many rows it has, deleted ones included.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// True where both may become one layer.
    pub(super) fn fits(&self, other: &Self) -> bool {
        self.arena.len() + other.arena.len() <= ARENA_BYTES_MAX
    }

    /// Every key, and whether it is deleted.
    pub(super) fn keys(&self, columns: usize) -> impl Iterator<Item = (&[u8], bool)> {
        self.iter(columns).map(|(key, deleted, _)| (key, deleted))
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.arena.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// All rows: key, whether it is deleted, and the bytes as they stand.
    fn iter(&self, columns: usize) -> impl Iterator<Item = (&[u8], bool, &[u8])> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let rest = self.arena.get(start..).filter(|rest| !rest.is_empty())?;
            let (key, deleted, len) = read_row(rest, columns);
            start += len;
            Some((key, deleted, &rest[..len]))
        })
    }

    /// Both as one, of which `newer` has the last word. `is_base` says that nothing lies below, so that deleted rows are
    /// left out.
    pub(super) fn merged(newer: &Self, older: &Self, (seed, columns): (u64, usize), is_base: bool) -> Self {
        let mut merged = Builder::new(seed, columns);
        merged.arena.reserve_exact(newer.arena.len() + older.arena.len());
        for (key, deleted, bytes) in newer.iter(columns) {
            if !(deleted && is_base) {
                merged.push_new(hash(seed, key), bytes);
            }
        }
        for (key, deleted, bytes) in older.iter(columns) {
            let hash = hash(seed, key);
            if !(deleted && is_base) && newer.find(hash, key, columns).is_none() {
                merged.push_new(hash, bytes);
            }
        }
        merged.freeze(false)
    }
}

impl<'a> Row<'a> {
    /// The row's values, in the order of the table's columns.
    pub fn values(self) -> Values<'a> {
        Values(self)
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.columns = self.0.columns.checked_sub(1)?;
        let (head, at) = read_head(self.0.bytes, 0);
        let Some(len) = head.checked_sub(1) else {
            self.0.bytes = &self.0.bytes[at..];
            return Some(None);
        };
        let (value, rest) = self.0.bytes[at..].split_at(len);
        self.0.bytes = rest;
        Some(Some(value))
    }
}

impl Builder {
    /// An empty layer of rows with this many columns; `seed` is that of the table.
    pub(super) fn new(seed: u64, columns: usize) -> Self {
        let slots = vec![Slot::default(); SLOTS_MIN];
        Self { arena: Vec::new(), slots, rows: 0, columns, seed, garbage: 0, row: Vec::new() }
    }

    /// True where nothing was said of any key.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Of how many keys something was said.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the rows take, without those that were replaced.
    pub fn bytes(&self) -> usize {
        self.arena.len() - self.garbage + self.rows * size_of::<Slot>() * 4 / 3
    }

    /// Sets a row; `values` has one JSON text a column, `None` for null.
    pub fn set<'a>(&mut self, key: &[u8], values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<(), Full> {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        write_number(&mut row, key.len() << 1);
        row.extend_from_slice(key);
        for value in values {
            write_number(&mut row, value.map_or(0, |value| value.len() + 1));
            row.extend_from_slice(value.unwrap_or_default());
        }
        let put = self.put(key, &row);
        self.row = row;
        put
    }

    /// Notes that there is no row with this key.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), Full> {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        write_number(&mut row, (key.len() << 1) | 1);
        row.extend_from_slice(key);
        let put = self.put(key, &row);
        self.row = row;
        put
    }

    fn put(&mut self, key: &[u8], row: &[u8]) -> Result<(), Full> {
        let hash = hash(self.seed, key);
        match probe(&self.slots, &self.arena, hash, key) {
            Ok(slot) => {
                let old = self.slots[slot].at as usize - 1;
                let old = &self.arena[old..];
                let len = read_row(old, self.columns).2;
                if &old[..len] == row {
                    return Ok(());
                }
                self.make_room(row.len())?;
                self.garbage += len;
                self.slots[slot].at = self.append(row);
                if self.garbage >= GARBAGE_BYTES_MIN && self.garbage > self.arena.len() / 2 {
                    self.collect();
                }
            }
            Err(_) => {
                self.make_room(row.len())?;
                self.push_new(hash, row);
            }
        }
        Ok(())
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), Full> {
        if self.arena.len() + bytes > ARENA_BYTES_MAX && self.garbage > 0 {
            self.collect();
        }
        if self.arena.len() + bytes > ARENA_BYTES_MAX { Err(Full) } else { Ok(()) }
    }

    /// Appends a row whose key is not there yet.
    fn push_new(&mut self, hash: u32, row: &[u8]) {
        if (self.rows + 1) * 4 > self.slots.len() * 3 {
            self.slots = index(&self.slots, self.slots.len() * 2);
        }
        let at = self.append(row);
        let free = free_slot(&self.slots, hash);
        self.slots[free] = Slot { hash, at };
        self.rows += 1;
    }

    fn append(&mut self, row: &[u8]) -> u32 {
        self.arena.extend_from_slice(row);
        (self.arena.len() - row.len() + 1) as u32
    }

    /// Rewrites the rows without those that were replaced.
    fn collect(&mut self) {
        let mut arena = Vec::with_capacity((self.arena.len() - self.garbage) * 5 / 4);
        for slot in self.slots.iter_mut().filter(|slot| slot.at > 0) {
            let row = &self.arena[slot.at as usize - 1..];
            let len = read_row(row, self.columns).2;
            slot.at = (arena.len() + 1) as u32;
            arena.extend_from_slice(&row[..len]);
        }
        self.arena = arena;
        self.garbage = 0;
    }

    /// Forgets the deleted rows: below there is nothing that they could hide.
    fn forget_deleted(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.at > 0) {
            let (_, deleted, len) = read_row(&self.arena[slot.at as usize - 1..], self.columns);
            if deleted {
                // The index is made anew behind this, so that no search misses what stands behind the gap.
                slot.at = 0;
                self.rows -= 1;
                self.garbage += len;
            }
        }
    }

    /// The finished layer, no larger than it has to be; `is_base` says that nothing lies below it.
    pub(super) fn freeze(mut self, is_base: bool) -> Layer {
        if is_base {
            self.forget_deleted();
        }
        if self.garbage > 0 {
            self.collect();
        }
        self.arena.shrink_to_fit();
        let slots = index(&self.slots, self.rows * 4 / 3 + 1);
        Layer { arena: self.arena, slots, rows: self.rows }
    }
}

/// The rows of `slots` in an index of another size.
fn index(slots: &[Slot], len: usize) -> Vec<Slot> {
    let mut index = vec![Slot::default(); len];
    for slot in slots.iter().filter(|slot| slot.at > 0) {
        let free = free_slot(&index, slot.hash);
        index[free] = *slot;
    }
    index
}

/// Where the search for a hash begins. There is always a free slot.
#[inline]
fn first_slot(slots: &[Slot], hash: u32) -> usize {
    ((u64::from(hash) * slots.len() as u64) >> 32) as usize
}

fn free_slot(slots: &[Slot], hash: u32) -> usize {
    let mut slot = first_slot(slots, hash);
    while slots[slot].at > 0 {
        slot = if slot + 1 == slots.len() { 0 } else { slot + 1 };
    }
    slot
}

/// The slot of a key, or else the free one that it would get.
#[inline]
fn probe(slots: &[Slot], arena: &[u8], hash: u32, key: &[u8]) -> Result<usize, usize> {
    let mut slot = first_slot(slots, hash);
    loop {
        let Slot { hash: found, at } = slots[slot];
        if at == 0 {
            return Err(slot);
        }
        if found == hash {
            let (head, start) = read_head(arena, at as usize - 1);
            if arena[start..].get(..head >> 1) == Some(key) {
                return Ok(slot);
            }
        }
        slot = if slot + 1 == slots.len() { 0 } else { slot + 1 };
    }
}

/// The key of the row at the beginning of `bytes`, whether it is deleted, and the row's length.
fn read_row(bytes: &[u8], columns: usize) -> (&[u8], bool, usize) {
    let (head, start) = read_head(bytes, 0);
    let mut at = start + (head >> 1);
    let (key, deleted) = (&bytes[start..at], head & 1 == 1);
    if !deleted {
        for _ in 0..columns {
            let (head, start) = read_head(bytes, at);
            at = start + head.saturating_sub(1);
        }
    }
    (key, deleted, at)
}

/// The number at `at`, and what follows it.
#[inline]
fn read_head(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[at];
        number |= usize::from(byte & 0x7f) << shift;
        at += 1;
        if byte < 0x80 {
            return (number, at);
        }
        shift += 7;
    }
}

fn write_number(to: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}
