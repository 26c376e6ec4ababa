//! The states of one partition and its clock, which go back together.

use super::clock::Clock;
use super::duplicates;
use super::halves::halves;
use super::pairs;
use super::session::Sessions;
use super::spec::{Ends, Kind, WindowSpec};
use super::timers::Timers;
use crate::state::{Change, Entry, Store};

/// The states of one partition, with what is derived from them.
#[derive(Debug)]
pub(super) struct Keyed {
    /// Parts of windows by begin and key, or the sessions of each key.
    pub store: Store,
    /// How far the partition has got.
    pub clock: Clock,
    committed: Clock,
    saved: Clock,
    /// When each entry's sessions are to be looked at.
    pub timers: Timers,
    /// No window closes, and no part goes, before the watermark has passed this; `None` where that has to be looked up.
    pub next_close_us: Option<i64>,
}

impl Keyed {
    /// No states yet.
    pub(super) fn new(spec: &WindowSpec) -> Self {
        let in_buckets = matches!(spec.kind, Kind::Fixed { .. });
        Self {
            store: Store::new(in_buckets),
            clock: Clock::default(),
            committed: Clock::default(),
            saved: Clock::default(),
            timers: Timers::default(),
            next_close_us: None,
        }
    }

    /// Makes this the point that [`Keyed::roll_back`] goes back to, without forgetting the last commit.
    pub(super) fn save(&mut self) {
        self.store.save();
        self.saved.clone_from(&self.clock);
    }

    /// Undoes what happened since [`Keyed::save`].
    pub(super) fn roll_back(&mut self, spec: &WindowSpec) {
        self.clock.clone_from(&self.saved);
        let timers = &mut self.timers;
        self.store.roll_back(|store, entry| add_timer(timers, store, entry, spec));
        self.next_close_us = None;
    }

    /// Makes this the state that an abort goes back to.
    pub(super) fn commit(&mut self) {
        self.store.commit();
        self.committed.clone_from(&self.clock);
    }

    /// Undoes everything since the last commit.
    pub(super) fn undo(&mut self, spec: &WindowSpec) {
        self.clock.clone_from(&self.committed);
        let timers = &mut self.timers;
        self.store.undo(|store, entry| add_timer(timers, store, entry, spec));
        self.next_close_us = None;
    }

    /// Forgets all states, which were sent on; the clock stays.
    pub(super) fn clear_store(&mut self, spec: &WindowSpec) {
        let in_buckets = matches!(spec.kind, Kind::Fixed { .. });
        self.store = Store::new(in_buckets);
        self.timers.clear();
        self.next_close_us = None;
    }

    /// True where a commit has something to tell.
    pub(super) fn is_changed(&self) -> bool {
        self.store.is_changed() || self.clock != self.committed
    }

    /// Takes over what a changelog has; [`Keyed::loaded`] has to follow.
    pub(super) fn load(&mut self, change: Change<'_>) {
        self.store.load(change);
    }

    /// Ends loading, at this time.
    pub(super) fn loaded(&mut self, clock: Clock, spec: &WindowSpec) {
        self.clock = clock;
        // What is touched from now on can be undone.
        self.commit();
        self.next_close_us = None;
        self.timers.clear();
        let timers = &mut self.timers;
        if !matches!(spec.kind, Kind::Fixed { .. }) {
            self.store.visit(|entry, _, _, value| push_timer(timers, entry, value, spec));
        }
    }

    /// When the first window closes, or the first part goes, of those that are there, after `watermark_us`.
    pub(super) fn next_close(&mut self, watermark_us: i64, spec: &WindowSpec) -> i64 {
        if let Some(next_us) = self.next_close_us {
            return next_us;
        }
        let next_us = match spec.kind {
            Kind::Session { .. } | Kind::Duplicates { .. } | Kind::Pairs { .. } => {
                self.timers.first().map_or(i64::MAX, |(at_us, _)| at_us)
            }
            Kind::Fixed { size_us, every_us, offset_us, .. } => {
                let of = |part_us| Ends::of((size_us, every_us), offset_us, part_us);
                let next = |part_us| next_of(of(part_us), watermark_us, spec.reopen_us);
                self.store.buckets().map(next).min().unwrap_or(i64::MAX)
            }
        };
        self.next_close_us = Some(next_us);
        next_us
    }

    /// Takes note of a part that was not there before.
    pub(super) fn expect_close(&mut self, ends: Ends, spec: &WindowSpec) {
        let next_us = next_of(ends, self.clock.watermark_us, spec.reopen_us);
        self.next_close_us = self.next_close_us.map(|known_us| known_us.min(next_us));
    }
}

/// When something is to be done about a part: a window closes, or the part goes.
fn next_of(ends: Ends, watermark_us: i64, reopen_us: i64) -> i64 {
    ends.first_after(watermark_us).unwrap_or(ends.last_us + reopen_us)
}

fn add_timer(timers: &mut Timers, store: &Store, entry: Entry, spec: &WindowSpec) {
    if !matches!(spec.kind, Kind::Fixed { .. }) {
        push_timer(timers, entry, store.value(entry), spec);
    }
}

fn push_timer(timers: &mut Timers, entry: Entry, value: &[u8], spec: &WindowSpec) {
    match spec.kind {
        Kind::Fixed { .. } => {}
        Kind::Session { gap_us } => {
            let at_us = Sessions::of(value).next_timer(gap_us, spec.reopen_us);
            at_us.into_iter().for_each(|at_us| timers.push(at_us, entry));
        }
        // An entry may be looked at once too often.
        Kind::Duplicates { within_us } => {
            let forgotten = duplicates::times(value).map(|time_us| duplicates::forgotten_us(time_us, within_us));
            forgotten.for_each(|at_us| timers.push(at_us, entry));
        }
        Kind::Pairs { within_us } => {
            halves(value).for_each(|half| timers.push(pairs::over_us(half.time_us, within_us), entry));
        }
    }
}
