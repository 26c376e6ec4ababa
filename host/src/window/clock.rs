//! The time that a stream tells: what of it is believed, and how far it has got.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::WindowSpec;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
const YEAR_US: i64 = 365 * DAY_US;
/// Before this an event is old enough to ask whether its unit is right: 1 January 1971.
const OLD_US: i64 = YEAR_US;
/// No event lies after the year 9999.
const LAST_US: i64 = 253_402_300_800 * SECOND_US;
/// Where nothing else is known of the present, an event of these years is taken for one: 1990 to 2100.
const PRESENT_US: std::ops::Range<i64> = 20 * YEAR_US..130 * YEAR_US;
/// How close a time must be to the present, after its unit was changed, to be taken for one of that unit.
const NEAR_US: i64 = 10 * YEAR_US;

/// How far a partition's events have got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The latest event time; none before the first event.
    pub latest_us: Option<i64>,
    /// No window that ends at or before this is open.
    pub watermark_us: i64,
    /// True where the partition was silent for so long that nobody waits for it.
    pub idle: bool,
    /// What each partition upstream said of itself; empty where events come directly.
    #[serde(default, skip_serializing_if = "Upstream::is_empty")]
    pub upstream: Upstream,
}

impl Default for Clock {
    fn default() -> Self {
        Self { latest_us: None, watermark_us: i64::MIN, idle: false, upstream: Upstream::default() }
    }
}

/// Why an event time is not believed.
pub(super) type Disbelief = (&'static str, String);

impl Clock {
    /// Looks at an event time before it may move anything: a code and a sentence where it can't be right. `timestamp_ms` is
    /// the record's own, negative where it has none.
    pub(super) fn judge(&self, event_us: i64, timestamp_ms: i64, spec: &WindowSpec) -> Result<(), Disbelief> {
        if event_us < 0 {
            return Err(("event_time_negative", format!("the event time {} lies before 1970", show(event_us))));
        }
        if event_us >= LAST_US {
            return unit_without_present(event_us);
        }
        let stamp_us = (timestamp_ms >= 0).then(|| timestamp_ms.saturating_mul(1_000));
        if event_us < OLD_US
            && let Some(unit) = unit_too_small(event_us, stamp_us)
        {
            return Err(("event_time_unit", format!("the event time {} looks like {unit}", show(event_us))));
        }
        let Some(jump_us) = spec.max_jump_us else { return Ok(()) };
        let present_us = self.latest_us.max(stamp_us);
        let Some(present_us) = present_us else { return unit_without_present(event_us) };
        if event_us <= present_us.saturating_add(jump_us) {
            return Ok(());
        }
        if let Some(unit) = unit_too_large(event_us, |us| (us - present_us).abs() < NEAR_US) {
            return Err(("event_time_unit", format!("the event time {} looks like {unit}", show(event_us))));
        }
        let detail = format!(
            "the event time {} lies more than `max_jump` ({} s) ahead of {}",
            show(event_us),
            jump_us / SECOND_US,
            show(present_us)
        );
        Err(("event_time_in_future", detail))
    }

    /// Takes note of an event; true where the watermark moved.
    pub(super) fn advance(&mut self, event_us: i64, spec: &WindowSpec) -> bool {
        self.idle = false;
        if self.latest_us.is_some_and(|latest_us| event_us <= latest_us) {
            return false;
        }
        self.latest_us = Some(event_us);
        self.raise(event_us - spec.disorder_us)
    }

    /// Moves the watermark, which never falls; true where it moved.
    pub(super) fn raise(&mut self, watermark_us: i64) -> bool {
        let moved = watermark_us > self.watermark_us;
        self.watermark_us = self.watermark_us.max(watermark_us);
        moved
    }

    /// Takes note of what a partition upstream says of itself, one of `partitions`; true where the watermark moved.
    pub(super) fn hear(&mut self, partition: u32, partitions: u32, mark: Mark) -> bool {
        self.upstream.marks.insert(partition, mark);
        self.upstream.partitions = self.upstream.partitions.max(partitions);
        match self.upstream.watermark_us() {
            Some(watermark_us) => self.raise(watermark_us),
            None => false,
        }
    }
}

/// What a partition says of itself to those who merge its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Its watermark.
    pub watermark_us: i64,
    /// True where nobody is to wait for it.
    pub idle: bool,
}

/// All partitions upstream, as they were last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    partitions: u32,
    marks: BTreeMap<u32, Mark>,
}

impl Upstream {
    fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// How far all of them have got; `None` while one was not heard yet. Where all are idle, they have said what they had.
    fn watermark_us(&self) -> Option<i64> {
        if self.marks.len() < self.partitions as usize {
            return None;
        }
        let active = self.marks.values().filter(|mark| !mark.idle).map(|mark| mark.watermark_us).min();
        active.or_else(|| self.marks.values().map(|mark| mark.watermark_us).max())
    }
}

/// The unit in which a time that lies too far ahead would be near the present.
fn unit_too_large(event_us: i64, near: impl Fn(i64) -> bool) -> Option<Cow<'static, str>> {
    let factor = [1_000, 1_000_000, 1_000_000_000].into_iter().find(|factor| near(event_us / factor))?;
    Some(format!("a number in a unit {factor} times as small as the one that is declared").into())
}

/// The unit in which a time right after 1970 would be near the present.
fn unit_too_small(event_us: i64, stamp_us: Option<i64>) -> Option<Cow<'static, str>> {
    let stamp_us = stamp_us.filter(|&stamp_us| stamp_us > PRESENT_US.start)?;
    let near = |factor: &i64| event_us.checked_mul(*factor).is_some_and(|us| (us - stamp_us).abs() < NEAR_US);
    let factor = [1_000, 1_000_000, 1_000_000_000].into_iter().find(near)?;
    Some(format!("a number in a unit {factor} times as large as the one that is declared").into())
}

/// The very first event of a partition whose records have no timestamp: only a unit that is plainly wrong is told.
fn unit_without_present(event_us: i64) -> Result<(), Disbelief> {
    if event_us < PRESENT_US.end {
        return Ok(());
    }
    match unit_too_large(event_us, |us| PRESENT_US.contains(&us)) {
        Some(unit) => Err(("event_time_unit", format!("the event time {} looks like {unit}", show(event_us)))),
        None => Err(("event_time_in_future", format!("the event time {} lies after 2100", show(event_us)))),
    }
}

/// A time for people.
pub(super) fn show(us: i64) -> String {
    let mut text = Vec::new();
    crate::record::calendar::push_rfc3339(&mut text, us);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: i64 = 1_790_000_000 * SECOND_US;

    fn spec() -> WindowSpec {
        WindowSpec {
            kind: super::super::spec::Kind::Session { gap_us: 1 },
            disorder_us: 10 * SECOND_US,
            max_jump_us: Some(DAY_US),
            reopen_us: 0,
            early_us: None,
            close_after_ms: None,
            idle_ms: 1,
            has_versions: false,
        }
    }

    #[test]
    fn times_that_cannot_be_right_are_told_apart() {
        let spec = spec();
        let clock = Clock::default();
        let code = |event_us, stamp_ms| clock.judge(event_us, stamp_ms, &spec).map_err(|why| why.0);
        let now_ms = NOW_US / 1_000;
        assert_eq!(code(NOW_US, now_ms), Ok(()));
        assert_eq!(code(NOW_US - 3 * YEAR_US, now_ms), Ok(()), "history is no mistake");
        assert_eq!(code(-1, now_ms), Err("event_time_negative"));
        assert_eq!(code(NOW_US + 2 * DAY_US, now_ms), Err("event_time_in_future"));
        assert_eq!(code(73 * YEAR_US + NOW_US, now_ms), Err("event_time_in_future"), "the year 2099");
        assert_eq!(code(NOW_US * 1_000, now_ms), Err("event_time_unit"), "ms taken for s");
        assert_eq!(code(NOW_US / 1_000, now_ms), Err("event_time_unit"), "s taken for ms");
        assert_eq!(code(NOW_US * 1_000, -1), Err("event_time_unit"), "without a timestamp, too");
        assert_eq!(code(NOW_US, -1), Ok(()));
        assert_eq!(code(5 * SECOND_US, -1), Ok(()), "a stream that begins in 1970");
    }

    #[test]
    fn the_present_is_the_latest_event_or_the_records_own_time() {
        let (spec, mut clock) = (spec(), Clock::default());
        assert!(clock.advance(NOW_US, &spec));
        let code = |event_us, stamp_ms| clock.judge(event_us, stamp_ms, &spec).map_err(|why| why.0);
        assert_eq!(code(NOW_US + DAY_US, -1), Ok(()));
        assert_eq!(code(NOW_US + DAY_US + 1, -1), Err("event_time_in_future"));
        // After a weekend the record's own time vouches for the event's.
        assert_eq!(code(NOW_US + 3 * DAY_US, (NOW_US + 3 * DAY_US) / 1_000), Ok(()));
    }

    #[test]
    fn a_watermark_waits_for_every_partition_upstream_that_is_not_idle() {
        let mut clock = Clock::default();
        let mark = |watermark_us, idle| Mark { watermark_us, idle };
        assert!(!clock.hear(0, 2, mark(100, false)), "the other one was not heard yet");
        assert!(clock.hear(1, 2, mark(50, false)));
        assert_eq!(clock.watermark_us, 50);
        assert!(clock.hear(1, 2, mark(60, true)));
        assert_eq!(clock.watermark_us, 100);
        assert!(!clock.hear(1, 2, mark(60, false)), "it never falls");
        assert!(!clock.hear(0, 2, mark(300, false)));
        assert!(clock.hear(1, 2, mark(200, true)));
        assert!(!clock.hear(0, 2, mark(300, true)));
        assert_eq!(clock.watermark_us, 300);
    }
}
