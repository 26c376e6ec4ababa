//! Guessing the next key: records of a topic mostly have the same keys in the same order, so what followed last time
//! is compared first, and a key that is known is neither scanned nor looked up.
//!
//! What is learnt and compared is the text from the end of the value before (or from the opening brace) to the next
//! value, with comma, colon and white space; if it is the same, there is nothing left to check.

use super::scan::Scanner;

/// Keys that are learnt for one object; beyond that the oldest are forgotten.
const MOST: usize = 256;
/// Once so many are learnt, only every so-manieth is: an object whose keys are data never repeats them, and learning
/// costs more than looking up.
const SELDOM: u32 = 64;
/// Keys that are tried before the guess is given up; absent members make the right one come later.
const TRIES: usize = 8;
/// The longest text that is learnt.
const LONGEST: usize = 32;

/// The keys that one object of the plan had.
#[derive(Debug, Default)]
pub(super) struct Keys {
    entries: Vec<Entry>,
    /// Texts that came when there was no room.
    refused: u32,
}

/// What a text stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Its place in the plan, if it has one.
    pub(super) child: Option<u32>,
    /// Where in the text the key's quote stands.
    pub(super) at: u32,
    /// The text's length.
    pub(super) len: u32,
}

#[derive(Debug)]
struct Entry {
    text: [u128; 2],
    mask: [u128; 2],
    key: Key,
}

impl Keys {
    /// What the text at `pos` stands for, whose first block is `first`; `expected` is the entry to try first.
    #[inline(always)]
    pub(super) fn guess(&self, scanner: Scanner, first: u128, pos: u32, expected: &mut usize) -> Option<Key> {
        let entry = self.entries.get(*expected)?;
        if entry.matches(first, scanner, pos) {
            *expected += 1;
            return Some(entry.key);
        }
        self.guess_again(scanner, first, pos, expected)
    }

    /// Tries what comes after the entry that was expected, and then from the start.
    #[inline(never)]
    fn guess_again(&self, scanner: Scanner, first: u128, pos: u32, expected: &mut usize) -> Option<Key> {
        let entries = self.entries.iter().enumerate().cycle().skip(*expected + 1);
        let (at, entry) =
            entries.take(TRIES.min(self.entries.len())).find(|(_, entry)| entry.matches(first, scanner, pos))?;
        *expected = at + 1;
        Some(entry.key)
    }

    /// Learns `text`, which is valid, to be tried where `expected` points.
    #[cold]
    pub(super) fn learn(&mut self, text: &[u8], key: Key, expected: &mut usize) {
        if text.len() > LONGEST {
            return;
        }
        if self.entries.len() < MOST {
            let at = (*expected).min(self.entries.len());
            self.entries.insert(at, Entry::new(text, key));
            *expected = at + 1;
            return;
        }
        self.refused = self.refused.wrapping_add(1);
        if self.refused.is_multiple_of(SELDOM) {
            let at = *expected % MOST;
            self.entries[at] = Entry::new(text, key);
            *expected = at + 1;
        }
    }
}

impl Entry {
    fn new(text: &[u8], key: Key) -> Self {
        let byte = |at: usize| text.get(at).map_or(0, |&byte| u128::from(byte));
        let half = |start: usize| (0..16).fold(0, |half, i| half | byte(start + i) << (8 * i));
        let mask = |start: usize| (0..16).filter(|i| start + i < text.len()).fold(0, |mask, i| mask | 0xff << (8 * i));
        Self { text: [half(0), half(16)], mask: [mask(0), mask(16)], key }
    }

    #[inline(always)]
    fn matches(&self, first: u128, scanner: Scanner, pos: u32) -> bool {
        (first ^ self.text[0]) & self.mask[0] == 0
            && (self.key.len <= 16 || (scanner.block(pos + 16) ^ self.text[1]) & self.mask[1] == 0)
    }
}
