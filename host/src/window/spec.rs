//! Where windows lie in time. Everything here is in microseconds since 1970 UTC.

use serde::{Deserialize, Serialize};

use crate::config::{WindowConfig, WindowKind, gcd};

/// How a stage's windows lie, and when they close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    /// How they lie.
    pub kind: Kind,
    /// How far an event may lie behind the latest one.
    pub disorder_us: i64,
    /// How far an event may lie ahead of the present.
    pub max_jump_us: Option<i64>,
    /// For how long after its end a window takes late records.
    pub reopen_us: i64,
    /// How often open windows show what they hold.
    pub early_us: Option<i64>,
    /// After how long without a record a partition's windows are closed; in milliseconds of the wall clock.
    pub close_after_ms: Option<u64>,
    /// After how long without a record a partition is idle; in milliseconds of the wall clock.
    pub idle_ms: u64,
    /// True where a row may come more than once.
    pub has_versions: bool,
}

/// How windows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Of one size. What falls into the same windows is kept together, as a *part*: the states of a window are those of
    /// its parts, merged.
    Fixed {
        /// The size of a window.
        size_us: i64,
        /// How far apart windows begin.
        every_us: i64,
        /// The size of a part: the greatest that divides both.
        part_us: i64,
        /// Where the first begins.
        offset_us: i64,
    },
    /// As long as events lie no farther apart than the gap.
    Session {
        /// The gap.
        gap_us: i64,
    },
    /// None at all: what is remembered is which keys came, and when.
    Duplicates {
        /// For how long.
        within_us: i64,
    },
    /// None at all: records wait for others that they make a pair with.
    Pairs {
        /// How far apart the two lie, at most.
        within_us: i64,
    },
}

impl WindowSpec {
    /// As the configuration says.
    pub(super) fn new(config: &WindowConfig) -> Self {
        let us = |ms: u64| ms as i64 * 1_000;
        let kind = match config.kind {
            WindowKind::Fixed { size_ms, every_ms, offset_ms } => Kind::Fixed {
                size_us: us(size_ms),
                every_us: us(every_ms),
                part_us: us(gcd(size_ms, every_ms)),
                offset_us: us(offset_ms % every_ms),
            },
            WindowKind::Session { gap_ms } => Kind::Session { gap_us: us(gap_ms) },
            WindowKind::Duplicates { within_ms } => Kind::Duplicates { within_us: us(within_ms) },
            WindowKind::Pairs { within_ms } => Kind::Pairs { within_us: us(within_ms) },
        };
        Self {
            kind,
            disorder_us: us(config.disorder_ms),
            max_jump_us: config.max_jump_ms.map(us),
            reopen_us: us(config.reopen_ms),
            early_us: config.early_ms.map(us),
            close_after_ms: config.close_after_ms,
            idle_ms: config.idle_ms,
            has_versions: config.has_versions(),
        }
    }
}

/// The window or part of size `size_us` that holds `time_us` begins here.
pub(super) fn floor(time_us: i64, size_us: i64, offset_us: i64) -> i64 {
    (time_us - offset_us).div_euclid(size_us) * size_us + offset_us
}

/// Windows of one size that hold a part or a time: the ends of the first and the last one, and how far apart they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// The end of the first window.
    pub first_us: i64,
    /// The end of the last window.
    pub last_us: i64,
    every_us: i64,
}

impl Ends {
    /// The windows that hold the part that begins at `part_us`, or a time in it.
    pub(super) fn of((size_us, every_us): (i64, i64), offset_us: i64, part_us: i64) -> Self {
        let last_us = floor(part_us, every_us, offset_us) + size_us;
        // A window holds the part where it begins no later and ends later.
        let more = (last_us - part_us - 1) / every_us;
        Self { first_us: last_us - more * every_us, last_us, every_us }
    }

    /// The end of the first window that ends after `time_us`, if one does.
    pub(super) fn first_after(&self, time_us: i64) -> Option<i64> {
        if time_us < self.first_us {
            return Some(self.first_us);
        }
        let passed = (time_us - self.first_us) / self.every_us + 1;
        let end_us = self.first_us + passed * self.every_us;
        (end_us <= self.last_us).then_some(end_us)
    }

    /// The ends after `from_us` and up to `to_us`, in order.
    pub(super) fn between(self, from_us: i64, to_us: i64) -> impl Iterator<Item = i64> {
        let last_us = self.last_us.min(to_us);
        let mut next = self.first_after(from_us);
        std::iter::from_fn(move || {
            let end_us = next.filter(|&end_us| end_us <= last_us)?;
            next = end_us.checked_add(self.every_us);
            Some(end_us)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parts_windows_are_those_that_begin_at_or_before_and_end_after_it() {
        for (size, every, offset) in [(10, 10, 0), (10, 5, 0), (10, 4, 1), (9, 6, 2), (7, 3, 0), (12, 1, 5)] {
            let part_size = gcd(size as u64, every as u64) as i64;
            for time in -40..40 {
                let part = floor(time, part_size, offset);
                let mut expected: Vec<i64> = (-100..100)
                    .map(|n| n * every + offset)
                    .filter(|start| *start <= time && time < start + size)
                    .map(|start| start + size)
                    .collect();
                expected.sort_unstable();
                let ends = Ends::of((size, every), offset, part);
                let found: Vec<i64> = ends.between(i64::MIN, i64::MAX).collect();
                assert_eq!(found, expected, "{size} {every} {offset} {time}");
                for after in -60..60 {
                    let first = expected.iter().copied().find(|end| *end > after);
                    assert_eq!(ends.first_after(after), first, "{size} {every} {offset} {time} after {after}");
                }
            }
        }
    }
}
