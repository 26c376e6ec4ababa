//! The records of the benches: page views and button clicks, the same for the same seed.

use std::io::Write as _;

use crate::{Random, logic};

const COUNTRIES: [&str; 7] = ["US", "CA", "UK", "DE", "FR", "JP", "XX"];
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];
/// Seconds of event time after which records have a device.
const SCHEMA_CHANGE_S: u64 = 30;
/// The event time of the first record, and how many records share a second.
const START_S: u64 = 1_700_000_000;
const RECORDS_PER_S: u64 = 1_000;
/// One record in so many is cut off in the middle.
const MALFORMED_ONCE_IN: u64 = 10_000;

/// Makes records, one after the other.
#[derive(Clone, Debug)]
pub struct Clickstream {
    random: Random,
    made: u64,
    /// More text at the end of each page's address, which makes records larger.
    padding: usize,
}

impl Clickstream {
    /// The stream that follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), made: 0, padding: 0 }
    }

    /// The same with records that are larger by `bytes`.
    pub fn padded(seed: u64, bytes: usize) -> Self {
        Self { padding: bytes, ..Self::new(seed) }
    }

    /// Writes the next record into `out`. Where `stamp` is given, it is the last part of `button_id`.
    pub fn next(&mut self, stamp: Option<u64>, out: &mut Vec<u8>) {
        let random = &mut self.random;
        let seconds = self.made / RECORDS_PER_S;
        self.made += 1;
        let kind = if random.once_in(2) { "page_view" } else { "button_click" };
        let user = 1 + random.below(1000) as i64;
        let user = if random.once_in(20) { -user } else { user };
        let (high, low) = (random.number(), random.number());
        let stamp = stamp.unwrap_or(low) & STAMP_MASK;
        let country = if random.once_in(20) { "ZZ" } else { COUNTRIES[random.below(7) as usize] };
        let device = DEVICES[random.below(3) as usize];
        let page = 1 + random.below(100);
        let device = (seconds >= SCHEMA_CHANGE_S).then_some(device);
        let timestamp_s = (START_S + seconds) as i64;
        let padding = self.padding;
        Event { kind, user, page, padding, button: (high, low & !STAMP_MASK | stamp), timestamp_s, country, device }
            .write(out);
        if random.once_in(MALFORMED_ONCE_IN) {
            out.truncate(out.len() / 2);
        }
    }
}

impl Clickstream {
    /// Writes the next record that the rules accept into `out`, enriched; `raw` is room for those before it.
    pub fn next_enriched(&mut self, raw: &mut Vec<u8>, out: &mut Vec<u8>) {
        loop {
            self.next(None, raw);
            if logic::process(raw, out).is_ok() {
                return;
            }
        }
    }
}

/// What a record says.
pub(crate) struct Event<'a> {
    pub(crate) kind: &'a str,
    pub(crate) user: i64,
    pub(crate) page: u64,
    /// How much longer the page's address is made.
    pub(crate) padding: usize,
    /// The bits of a UUID, but for those that say that it is one.
    pub(crate) button: (u64, u64),
    pub(crate) timestamp_s: i64,
    pub(crate) country: &'a str,
    pub(crate) device: Option<&'a str>,
}

impl Event<'_> {
    /// Writes the record into `out`, in place of what was there.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Self { kind, user, page, padding, button: (high, low), timestamp_s, country, device } = *self;
        out.clear();
        // Writing into a vector does not fail.
        let _ = write!(
            out,
            "{{\"event_type\": \"{kind}\", \"user_id\": {user}, \"page_url\": \"/page/{page}{:x<padding$}\", \"button_id\": \
             \"{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}\", \"timestamp\": {timestamp_s}, \"country\": \"{country}\"",
            "",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 52,
            low & STAMP_MASK,
        );
        if let Some(device) = device {
            let _ = write!(out, ", \"device_type\": \"{device}\"");
        }
        out.push(b'}');
    }
}

/// A stamp has as many bits as the last part of a UUID.
pub const STAMP_MASK: u64 = (1 << 48) - 1;

/// Reads back the stamp of a record that kept its `button_id`.
pub fn stamp_of(record: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"button_id\":";
    const UUID: usize = 36;
    let at = record.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let quote = at + record[at..].iter().position(|&byte| byte == b'"')? + 1;
    let text = std::str::from_utf8(record.get(quote + UUID - 12..quote + UUID)?).ok()?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_records_and_stamps_can_be_read_back() {
        let (mut one, mut other) = (Clickstream::new(7), Clickstream::new(7));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for i in 0..1000 {
            one.next(Some(i), &mut a);
            other.next(Some(i), &mut b);
            assert_eq!(a, b);
            if a.ends_with(b"}") {
                assert_eq!(stamp_of(&a), Some(i));
                assert!(serde_json::from_slice::<serde_json::Value>(&a).is_ok());
            }
        }
    }
}
