//! Clicks of visitors who come, click some times, leave, and sometimes come back: the same for the same seed.
//!
//! A hundred clicks share a second of event time, and about two belong to each user. A click arrives up to five seconds
//! after it happened. Within a session less than ten minutes pass between two clicks, and more than forty between two
//! sessions: nothing depends on what becomes of a click that is exactly on a session's edge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Workload;
use crate::Random;
use crate::clickstream::Event;

/// When the first user comes, and how long after another the next one does.
const START_S: i64 = 1_700_000_000;
const NEXT_USER_MS: i64 = 20;
/// How late a click arrives, at most.
const DELAY_MS: u64 = 5_000;
/// Every other click is followed by another of the same user; one of so many after a pause.
const FOLLOWED_ONCE_IN: u64 = 2;
const PAUSE_ONCE_IN: u64 = 5;
const STEP_MS: (u64, u64) = (1_000, 600_000);
const PAUSE_MS: (u64, u64) = (2_400_000, 4_800_000);
const COUNTRIES: [&str; 16] =
    ["US", "CA", "UK", "DE", "FR", "JP", "BR", "IN", "CN", "AU", "ES", "IT", "NL", "SE", "PL", "MX"];
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];
/// How long after all others the closing records happened.
const CLOSING_AFTER_S: i64 = 7_200;

/// What a record says, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Click {
    /// Who.
    pub user: u32,
    /// Where.
    pub country: &'static str,
    /// When, in seconds since 1970.
    pub timestamp_s: i64,
}

/// Makes clicks in the order of their arrival.
#[derive(Debug)]
pub struct Clicks {
    random: Random,
    /// For what is not counted: a stream of its own, so that clicks are the same whether their records are made or not.
    rest: Random,
    users: u32,
    /// By arrival: when, who, and when it happened, in milliseconds since the first one.
    coming: BinaryHeap<Reverse<(i64, u32, i64)>>,
}

impl Clicks {
    /// The clicks that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), rest: Random::new(!seed), users: 0, coming: BinaryHeap::new() }
    }

    /// Writes the record of a click into `out`.
    pub fn record(&mut self, click: &Click, out: &mut Vec<u8>) {
        let random = &mut self.rest;
        let event = Event {
            kind: if random.once_in(2) { "page_view" } else { "button_click" },
            user: i64::from(click.user),
            page: 1 + random.below(100),
            padding: 0,
            button: (random.number(), random.number()),
            timestamp_s: click.timestamp_s,
            country: click.country,
            device: Some(DEVICES[random.below(3) as usize]),
        };
        event.write(out);
    }

    fn arrive(&mut self, user: u32, event_ms: i64) {
        let arrival_ms = event_ms + self.random.below(DELAY_MS) as i64;
        self.coming.push(Reverse((arrival_ms, user, event_ms)));
    }

    fn between(&mut self, (from, to): (u64, u64)) -> i64 {
        (from + self.random.below(to - from)) as i64
    }
}

impl Iterator for Clicks {
    type Item = Click;

    fn next(&mut self) -> Option<Click> {
        loop {
            let next_user_ms = i64::from(self.users) * NEXT_USER_MS;
            if self.coming.peek().is_some_and(|Reverse(first)| first.0 < next_user_ms) {
                break;
            }
            self.arrive(self.users, next_user_ms);
            self.users += 1;
        }
        let Reverse((_, user, event_ms)) = self.coming.pop()?;
        if self.random.once_in(FOLLOWED_ONCE_IN) {
            let pauses = self.random.once_in(PAUSE_ONCE_IN);
            let after_ms = self.between(if pauses { PAUSE_MS } else { STEP_MS });
            self.arrive(user, event_ms + after_ms);
        }
        let country = COUNTRIES[user as usize % COUNTRIES.len()];
        // Users who come one after the other don't have numbers that do: the factor is odd, so that each has its own.
        Some(Click { user: user.wrapping_mul(0x9e37_79b1), country, timestamp_s: START_S + event_ms.div_euclid(1_000) })
    }
}

/// When the closing records of so many clicks happen.
pub fn closing_s(clicks: impl Iterator<Item = Click>) -> i64 {
    clicks.map(|click| click.timestamp_s).max().unwrap_or(START_S) + CLOSING_AFTER_S
}

/// The record after a partition's last one: its time closes all windows. It has a key of its own, whose window stays open.
pub fn closing(workload: Workload, partition: i32, timestamp_s: i64, out: &mut Vec<u8>) -> String {
    const NAMES: [&str; 4] = ["Z0", "Z1", "Z2", "Z3"];
    let country = NAMES[partition as usize % NAMES.len()];
    let (kind, user, button) = ("page_view", -1 - i64::from(partition), (0, 0));
    Event { kind, user, page: 1, padding: 0, button, timestamp_s, country, device: None }.write(out);
    match workload {
        Workload::Tumbling => country.to_owned(),
        Workload::Session => user.to_string(),
    }
}
