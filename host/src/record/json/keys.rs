//! Guessing the next key: records of a topic mostly have the same keys in the same order, so what followed last time
//! is compared first, and a key that is known is neither scanned nor looked up.

use super::scan::Scanner;

/// Keys that are learnt for one object; beyond that the oldest are forgotten.
const MOST: usize = 256;
/// Keys that are tried before the guess is given up; absent members make the right one come later.
const TRIES: usize = 8;
/// A key's text from its quote to the value; what is longer is not learnt.
const LONGEST: usize = 32;

/// The keys that one object of the plan had.
#[derive(Debug, Default)]
pub(super) struct Keys {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    text: [u128; 2],
    mask: [u128; 2],
    len: u32,
    child: Option<u32>,
}

impl Keys {
    /// The child and the length of the key that stands at `pos`, up to the value; `expected` is the entry to try
    /// first.
    #[inline(always)]
    pub(super) fn guess(&self, scanner: &Scanner, pos: usize, expected: &mut usize) -> Option<(Option<u32>, usize)> {
        let first = scanner.block(pos);
        let mut at = *expected;
        for _ in 0..TRIES.min(self.entries.len()) {
            if at >= self.entries.len() {
                at = 0;
            }
            let entry = &self.entries[at];
            at += 1;
            if entry.matches(first, scanner, pos) {
                *expected = at;
                return Some((entry.child, entry.len as usize));
            }
        }
        None
    }

    /// Learns the key `text` (with quotes, colon and white space), to be tried where `expected` points.
    #[cold]
    pub(super) fn learn(&mut self, text: &[u8], child: Option<u32>, expected: &mut usize) {
        // What is compared must be known to be valid, and of other bytes that is only known at the record's end.
        if text.len() > LONGEST || !text.is_ascii() {
            return;
        }
        let entry = Entry::new(text, child);
        if self.entries.len() < MOST {
            let at = (*expected).min(self.entries.len());
            self.entries.insert(at, entry);
            *expected = at + 1;
        } else {
            let at = *expected % MOST;
            self.entries[at] = entry;
            *expected = at + 1;
        }
    }
}

impl Entry {
    fn new(text: &[u8], child: Option<u32>) -> Self {
        let word = |bytes: &[u8], at: usize| bytes.get(at).map_or(0, |&byte| u128::from(byte));
        let half = |start: usize| (0..16).fold(0, |half, i| half | word(text, start + i) << (8 * i));
        let mask = |start: usize| (0..16).filter(|i| start + i < text.len()).fold(0, |mask, i| mask | 0xff << (8 * i));
        Self { text: [half(0), half(16)], mask: [mask(0), mask(16)], len: text.len() as u32, child }
    }

    #[inline(always)]
    fn matches(&self, first: u128, scanner: &Scanner, pos: usize) -> bool {
        if (first ^ self.text[0]) & self.mask[0] != 0 {
            return false;
        }
        self.len <= 16 || {
            let second = scanner.block(pos + 16);
            (second ^ self.text[1]) & self.mask[1] == 0
        }
    }
}
