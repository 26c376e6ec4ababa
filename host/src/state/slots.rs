//! Where entries lie: in memory, or, where that is short, in a spill, from which they come back when they are looked at.

use std::cell::{Cell, OnceCell};

use crate::spill::{Spill, SpillError};

/// What every entry costs in memory, wherever it lies: its slot and its place in the index.
const SLOT_BYTES: usize = 40;
/// What an allocation costs beside its bytes.
const ALLOCATION_BYTES: usize = 16;
/// Entries that move out together.
const BATCH: usize = 10_000;
/// The part of the memory that entries may always take, however many are away.
const LEAST_PART: usize = 8;
/// The part of the room that is made free at once, so that a commit seldom has to.
const SPARE_PART: usize = 8;

/// No slot's number.
const NO_SLOT: u32 = u32::MAX;

/// The block of an entry that can't be found.
const HIDDEN: u32 = 0;
/// The block of an entry that was last touched some time ago.
const OLD: u32 = 1;
/// Blocks are counted from here.
pub(super) const FIRST_BLOCK: u32 = 2;

/// The entries' slots, by number.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// A slot without an entry; its hash is the number of the next one.
    free: Option<u32>,
    spill: Spill,
    /// Why an entry could not be moved; nothing here can be relied on any more.
    trouble: OnceCell<SpillError>,
    here: Cell<Amount>,
    away: Cell<Amount>,
    /// The slot at which the next one is looked for that may move out.
    hand: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    entries: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Slot {
    bucket: i64,
    /// The key's length in two bytes, the key, then the value; nothing while that is away.
    data: OnceCell<Box<[u8]>>,
    hash: u32,
    /// When it was last touched.
    block: u32,
}

fn pack(key: &[u8], value: &[u8]) -> Box<[u8]> {
    [&(key.len() as u16).to_le_bytes(), key, value].concat().into()
}

/// Key and value, packed.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key_bytes, rest) = data.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*key_bytes)))
}

impl Slots {
    /// Has entries move out where memory is short.
    pub(super) fn set_spill(&mut self, spill: Spill) {
        debug_assert!(self.slots.is_empty());
        self.spill = spill;
    }

    #[cfg(test)]
    pub(super) fn lose_spill(&mut self) {
        self.spill.clear();
    }

    /// Why entries could not be moved, where that was so.
    pub(super) fn trouble(&self) -> Option<&SpillError> {
        self.trouble.get()
    }

    /// True where there is a slot of this number with an entry that can be found.
    pub(super) fn is_live(&self, at: u32) -> bool {
        self.slots.get(at as usize).is_some_and(|slot| slot.block != HIDDEN)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.block != HIDDEN).map(|(at, _)| at as u32)
    }

    pub(super) fn bucket(&self, at: u32) -> i64 {
        self.slots[at as usize].bucket
    }

    pub(super) fn hash(&self, at: u32) -> u32 {
        self.slots[at as usize].hash
    }

    pub(super) fn block(&self, at: u32) -> u32 {
        self.slots[at as usize].block
    }

    pub(super) fn set_block(&mut self, at: u32, block: u32) {
        self.slots[at as usize].block = block;
    }

    /// Makes an entry one that can't be found; it keeps its slot.
    pub(super) fn hide(&mut self, at: u32) {
        self.set_block(at, HIDDEN);
    }

    /// Makes it one that can.
    pub(super) fn show(&mut self, at: u32) {
        self.set_block(at, OLD);
    }

    /// An entry's key and value, brought back where they were away; `None` where that failed.
    pub(super) fn entry(&self, at: u32) -> Option<(&[u8], &[u8])> {
        let slot = &self.slots[at as usize];
        if let Some(data) = slot.data.get() {
            return split(data);
        }
        match self.spill.read(at, |data| Box::<[u8]>::from(data)) {
            Ok(data) => {
                self.shift(&self.away, &self.here, <[u8]>::len(&data));
                split(slot.data.get_or_init(|| data))
            }
            Err(why) => {
                let _ = self.trouble.set(why);
                None
            }
        }
    }

    fn shift(&self, from: &Cell<Amount>, to: &Cell<Amount>, bytes: usize) {
        let (before, after) = (from.get(), to.get());
        from.set(Amount { entries: before.entries - 1, bytes: before.bytes.saturating_sub(bytes) });
        to.set(Amount { entries: after.entries + 1, bytes: after.bytes + bytes });
    }

    /// A value that can be changed; nothing where it is away.
    pub(super) fn value_mut(&mut self, at: u32) -> &mut [u8] {
        let Some(data) = self.slots[at as usize].data.get_mut() else { return &mut [] };
        let key_bytes = data.first_chunk().map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)));
        data.get_mut(2 + key_bytes..).unwrap_or_default()
    }

    /// Adds an entry, and returns its number.
    pub(super) fn put(&mut self, bucket: i64, (key, value): (&[u8], &[u8]), hash: u32, block: u32) -> u32 {
        let data = pack(key, value);
        let here = self.here.get_mut();
        (here.entries, here.bytes) = (here.entries + 1, here.bytes + data.len());
        let slot = Slot { bucket, data: OnceCell::from(data), hash, block };
        match self.free {
            Some(at) => {
                let free = std::mem::replace(&mut self.slots[at as usize], slot);
                self.free = Some(free.hash).filter(|&next| next != NO_SLOT);
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        }
    }

    /// Gives an entry that is here another value.
    pub(super) fn replace(&mut self, at: u32, value: &[u8]) {
        let data = &mut self.slots[at as usize].data;
        let Some((key, old)) = data.get().and_then(|data| split(data)) else { return };
        let bytes = 2 + key.len() + old.len();
        if old.len() == value.len() {
            self.value_mut(at).copy_from_slice(value);
            return;
        }
        let new = pack(key, value);
        let here = self.here.get_mut();
        here.bytes = here.bytes + new.len() - bytes;
        *data = OnceCell::from(new);
    }

    /// Frees the slot of an entry.
    pub(super) fn release(&mut self, at: u32) {
        let free = Slot { hash: self.free.unwrap_or(NO_SLOT), ..Slot::default() };
        let slot = std::mem::replace(&mut self.slots[at as usize], free);
        self.free = Some(at);
        let (amount, bytes) = match slot.data.get() {
            Some(data) => (self.here.get_mut(), data.len()),
            None => {
                let away = self.away.get_mut();
                // How long it is would have to be read.
                let bytes = away.bytes / away.entries.max(1);
                (away, bytes)
            }
        };
        (amount.entries, amount.bytes) = (amount.entries - 1, amount.bytes - bytes);
    }

    /// Calls `each` with the entries from `from` on, until it returns false; returns the slot to go on with, or `None` at the
    /// end. What is away stays there.
    pub(super) fn visit(&self, from: usize, mut each: impl FnMut(u32, i64, &[u8], &[u8]) -> bool) -> Option<usize> {
        for (at, slot) in self.slots.iter().enumerate().skip(from).filter(|(_, slot)| slot.block != HIDDEN) {
            let mut told =
                |data: &[u8]| split(data).is_none_or(|(key, value)| each(at as u32, slot.bucket, key, value));
            let goes_on = match slot.data.get() {
                Some(data) => told(data),
                None => match self.spill.read(at as u32, told) {
                    Ok(goes_on) => goes_on,
                    Err(why) => {
                        // Whoever goes on there will not get past it.
                        let _ = self.trouble.set(why);
                        return Some(at);
                    }
                },
            };
            if !goes_on {
                return Some(at + 1);
            }
        }
        None
    }

    /// Bytes of keys and values, wherever they are.
    pub(super) fn bytes(&self) -> usize {
        self.here.get().bytes + self.away.get().bytes
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.here_bytes() + self.slots.len() * SLOT_BYTES
    }

    /// Number of entries that are away.
    pub(super) fn away(&self) -> usize {
        self.away.get().entries
    }

    fn here_bytes(&self) -> usize {
        let here = self.here.get();
        here.bytes + here.entries * ALLOCATION_BYTES
    }

    /// How many bytes have to move out.
    fn excess_bytes(&self) -> usize {
        let Some(most) = self.spill.memory_bytes() else { return 0 };
        let room = most.saturating_sub(self.slots.len() * SLOT_BYTES).max(most / LEAST_PART);
        match self.here_bytes() {
            here if here > room => here - (room - room / SPARE_PART),
            _ => 0,
        }
    }

    /// Moves entries out until the others have room, those last that were touched in the block `spared`. All must be as they
    /// were committed. An entry that can't be moved out stays.
    pub(super) fn make_room(&mut self, spared: u32) {
        if self.away.get().entries == 0 {
            self.spill.clear();
        }
        let mut excess = self.excess_bytes();
        if excess == 0 || self.trouble.get().is_some() {
            return;
        }
        let (mut batch, mut spare) = (Vec::new(), Vec::new());
        for _ in 0..self.slots.len() {
            if excess == 0 {
                break;
            }
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let slot = &self.slots[self.hand];
            let Some(data) = slot.data.get().filter(|_| slot.block != HIDDEN) else { continue };
            if slot.block == spared {
                spare.push(self.hand as u32);
                continue;
            }
            excess = excess.saturating_sub(data.len() + ALLOCATION_BYTES);
            batch.push(self.hand as u32);
            if batch.len() == BATCH && !self.move_out(&mut batch) {
                return;
            }
        }
        for at in spare {
            if excess == 0 || batch.len() == BATCH && !self.move_out(&mut batch) {
                break;
            }
            let bytes = self.slots[at as usize].data.get().map_or(0, |data| data.len());
            excess = excess.saturating_sub(bytes + ALLOCATION_BYTES);
            batch.push(at);
        }
        self.move_out(&mut batch);
    }

    /// Moves these entries out, and forgets them; false where that failed, and they stayed.
    fn move_out(&mut self, batch: &mut Vec<u32>) -> bool {
        let slots = &self.slots;
        let entries = batch.iter().filter_map(|&at| Some((at, &**slots[at as usize].data.get()?)));
        if let Err(why) = self.spill.write(entries) {
            let _ = self.trouble.set(why);
            batch.clear();
            return false;
        }
        for at in batch.drain(..) {
            if let Some(data) = self.slots[at as usize].data.take() {
                self.shift(&self.here, &self.away, data.len());
            }
        }
        true
    }
}
