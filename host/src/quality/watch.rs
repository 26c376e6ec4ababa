//! Compares each window of time with the thresholds and with the windows before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::census::{Counts, Kinds};
use crate::config::QualityConfig;

/// What a field can do that schemas did not foresee.
pub const CHANGES: [&str; 3] = ["new", "vanished", "retyped"];

/// Samples below which shares and types say nothing.
const SAMPLES_MIN: u64 = 20;
/// Windows that make a baseline, and how much a new one weighs.
const BASELINE_WINDOWS: u32 = 5;
const BASELINE_WEIGHT: f64 = 0.1;
/// How often a field had to be expected in a window for its absence to mean that it vanished: by chance it stays away once
/// in 500 million windows.
const EXPECTED_MIN: f64 = 20.0;
/// Drift is named in the log so many times a window.
const NAMED_MAX: usize = 10;

/// What is known of a path from the windows before.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// One bit for each type that it had; null is none.
    kinds: u8,
    /// The share of samples that had it.
    share: f64,
    vanished: bool,
}

/// How the data were in the last window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Share of samples without each watched field, in the last window that had enough.
    pub null_ratios: Vec<Option<f64>>,
    /// Records by what the baseline leads to expect, once there is one.
    pub volume_ratio: Option<f64>,
    /// Time since a record last arrived, or since the start.
    pub stall_seconds: f64,
    /// How often fields did each of [`CHANGES`], since the start.
    pub drift: [u64; 3],
    /// Every check that has a threshold, the field that it looks at, and whether it is beyond.
    pub breached: Vec<(&'static str, String, bool)>,
}

/// The judge of windows. It takes time as an argument and is only as right as that.
#[derive(Debug)]
pub struct Watch {
    config: Arc<QualityConfig>,
    window_start_ms: u64,
    before: Counts,
    records_before: u64,
    /// The expected number of records in a window, and from how many windows that comes.
    baseline: (f64, u32),
    known: BTreeMap<String, Known>,
    learnt: bool,
    verdict: Verdict,
}

impl Watch {
    /// Begins to watch.
    pub fn new(config: Arc<QualityConfig>, now_ms: u64) -> Self {
        let before = Counts::new(config.fields.len());
        let verdict = Verdict { null_ratios: vec![None; config.fields.len()], ..Verdict::default() };
        Self {
            config,
            window_start_ms: now_ms,
            before,
            records_before: 0,
            baseline: (0.0, 0),
            known: BTreeMap::new(),
            learnt: false,
            verdict,
        }
    }

    /// How the data are.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// True where a window is full, so that [`Watch::tick`] wants the counts.
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.window_start_ms) >= self.config.window_s * 1_000
    }

    /// Takes note of the time since a record last arrived; a stream that is paused does not stall.
    pub fn note_stall(&mut self, seconds: f64) {
        self.verdict.stall_seconds = seconds;
        if let Some(most) = self.config.stall_after_s {
            self.breach("stall", String::new(), Some(seconds > most as f64));
        }
    }

    /// Judges the window that ends now: `counts` and `records` since the start, over all workers. A window in which the
    /// stream was paused is passed over.
    pub fn tick(&mut self, now_ms: u64, counts: &Counts, records: u64, was_paused: bool) {
        let window_s = now_ms.saturating_sub(self.window_start_ms) as f64 / 1e3;
        if !was_paused && window_s > 0.0 {
            self.judge_freshness(counts);
            self.judge_fields(counts);
            let in_window = records.saturating_sub(self.records_before) as f64;
            self.judge_volume(in_window * self.config.window_s as f64 / window_s);
            if self.config.drift {
                self.judge_drift(counts);
            }
        }
        self.window_start_ms = now_ms;
        self.before = counts.clone();
        self.records_before = records;
    }

    fn judge_freshness(&mut self, counts: &Counts) {
        let Some(most) = self.config.freshness_p95_max_s else { return };
        let window = counts.freshness.since(&self.before.freshness);
        let p95 = window.quantile(0.95).filter(|_| window.count() >= SAMPLES_MIN);
        self.breach("freshness", String::new(), p95.map(|p95| p95 > most as f64));
    }

    fn judge_fields(&mut self, counts: &Counts) {
        let config = self.config.clone();
        for (i, watched) in config.fields.iter().enumerate() {
            let (now, before) = (counts.fields[i], self.before.fields[i]);
            let absent = (now.null + now.missing).saturating_sub(before.null + before.missing);
            let all = absent + now.present.saturating_sub(before.present);
            let ratio = (all >= SAMPLES_MIN).then(|| absent as f64 / all as f64);
            self.verdict.null_ratios[i] = ratio.or(self.verdict.null_ratios[i]);
            let most = f64::from(watched.null_per_million) / 1e6;
            self.breach("null_rate", watched.field.clone(), ratio.map(|ratio| ratio > most));
        }
    }

    fn judge_volume(&mut self, records: f64) {
        let (expected, windows) = self.baseline;
        let ratio = (windows >= BASELINE_WINDOWS && expected > 0.0).then(|| records / expected);
        self.verdict.volume_ratio = ratio;
        if let Some(most) = self.config.volume_deviation_per_million {
            let most = f64::from(most) / 1e6;
            self.breach("volume", String::new(), ratio.map(|ratio| (ratio - 1.0).abs() > most));
        }
        // The first windows count alike, later ones fade.
        let weight = BASELINE_WEIGHT.max(1.0 / f64::from(windows + 1));
        self.baseline = (expected + (records - expected) * weight, windows.saturating_add(1));
    }

    /// Compares what objects hold with what they held: the first window with enough samples is what is known.
    fn judge_drift(&mut self, counts: &Counts) {
        let readable = |counts: &Counts| counts.samples - counts.unreadable;
        let samples = readable(counts).saturating_sub(readable(&self.before));
        if samples < SAMPLES_MIN {
            return;
        }
        let mut changes: Vec<(usize, &str)> = Vec::new();
        for (path, kinds) in &counts.paths {
            let before = self.before.paths.get(path).copied().unwrap_or_default();
            let window = std::array::from_fn::<u64, 6, _>(|kind| kinds[kind].saturating_sub(before[kind]));
            let share = window.iter().sum::<u64>() as f64 / samples as f64;
            let change = match self.known.get_mut(path) {
                Some(known) => known.compare(types(&window), share, samples),
                None if share == 0.0 => None,
                None => {
                    self.known.insert(path.clone(), Known { kinds: types(&window), share, vanished: false });
                    self.learnt.then_some(0)
                }
            };
            changes.extend(change.map(|change| (change, path.as_str())));
        }
        self.learnt = true;
        changes.iter().for_each(|(change, _)| self.verdict.drift[*change] += 1);
        for (change, path) in changes.into_iter().take(NAMED_MAX) {
            tracing::warn!("schema drift: the field `{}` is {}", path.escape_debug(), CHANGES[change]);
        }
    }

    /// Notes whether a check is beyond its threshold; one that says nothing this time stays as it was.
    fn breach(&mut self, check: &'static str, field: String, beyond: Option<bool>) {
        let breached = &mut self.verdict.breached;
        let at = breached.iter().position(|(known, of, _)| *known == check && *of == field).unwrap_or_else(|| {
            breached.push((check, field.clone(), false));
            breached.len() - 1
        });
        let Some(beyond) = beyond.filter(|beyond| *beyond != breached[at].2) else { return };
        breached[at].2 = beyond;
        let of = if field.is_empty() { String::new() } else { format!(" of {field}") };
        if beyond {
            tracing::warn!("data quality: {check}{of} is beyond its threshold");
        } else {
            tracing::info!("data quality: {check}{of} is within its threshold again");
        }
    }
}

impl Known {
    /// What a path did that it did not do before, as an index of [`CHANGES`].
    fn compare(&mut self, kinds: u8, share: f64, samples: u64) -> Option<usize> {
        let expected = self.share * samples as f64;
        if share == 0.0 {
            let vanishes = !self.vanished && expected >= EXPECTED_MIN;
            self.vanished |= vanishes;
            return vanishes.then_some(1);
        }
        self.share += (share - self.share) * BASELINE_WEIGHT;
        let returns = std::mem::take(&mut self.vanished);
        let retyped = kinds & !self.kinds != 0 && self.kinds != 0;
        self.kinds |= kinds;
        match (returns, retyped) {
            (true, _) => Some(0),
            (false, true) => Some(2),
            (false, false) => None,
        }
    }
}

/// A bit for each type that was seen; null is none.
fn types(window: &Kinds) -> u8 {
    (1..window.len()).filter(|&kind| window[kind] > 0).map(|kind| 1 << kind).sum()
}

#[cfg(test)]
mod tests {
    use super::super::Census;
    use super::*;
    use crate::config::{EventTime, TimeEncoding, WatchedField};
    use crate::record::{Batch, Rows};

    /// A watch over one census, a second a window.
    struct Run {
        census: Census,
        watch: Watch,
        now_ms: u64,
        records: u64,
    }

    impl Run {
        fn new() -> Self {
            let config = Arc::new(QualityConfig {
                sample: 1,
                window_s: 1,
                event_time: Some(EventTime { field: "/at".into(), encoding: TimeEncoding::Epoch { per_second: 1 } }),
                freshness_p95_max_s: Some(90),
                stall_after_s: Some(5),
                volume_deviation_per_million: Some(500_000),
                fields: vec![WatchedField { field: "/a".into(), null_per_million: 100_000 }],
                drift: true,
            });
            let now_ms = 1_000_000;
            Self { census: Census::new(config.clone()), watch: Watch::new(config, now_ms), now_ms, records: 0 }
        }

        fn window(&mut self, values: &[String]) -> &Verdict {
            let mut rows = Rows::default();
            values.iter().for_each(|value| rows.push(0, 0, None, Some(value.as_bytes())));
            let next_offset = rows.len() as i64;
            self.census
                .observe(&Batch { topic: "t".into(), partition: 0, first_offset: 0, next_offset, rows }, self.now_ms);
            self.records += values.len() as u64;
            self.now_ms += 1_000;
            assert!(self.watch.is_due(self.now_ms));
            self.watch.tick(self.now_ms, self.census.counts(), self.records, false);
            self.watch.verdict()
        }

        fn same(&mut self, value: &str, times: usize) -> &Verdict {
            self.window(&vec![value.to_owned(); times])
        }
    }

    fn breached(verdict: &Verdict, check: &str) -> bool {
        verdict.breached.iter().any(|(known, _, beyond)| *known == check && *beyond)
    }

    #[test]
    fn stale_data_and_missing_fields_are_told_and_so_is_their_end() {
        let mut run = Run::new();
        assert!(!breached(run.same(r#"{"at": 995, "a": 1}"#, 100), "freshness"));
        let stale = run.same(r#"{"at": 700}"#, 100);
        assert!(breached(stale, "freshness") && breached(stale, "null_rate"), "{stale:?}");
        assert_eq!(stale.null_ratios, [Some(1.0)]);
        let few = run.same(r#"{"at": 1001, "a": 1}"#, 3);
        assert!(breached(few, "freshness") && few.null_ratios == [Some(1.0)], "three say nothing: {few:?}");
        let fresh = run.same(r#"{"at": 1002, "a": 1}"#, 100);
        assert!(!breached(fresh, "freshness") && !breached(fresh, "null_rate"), "{fresh:?}");
    }

    #[test]
    fn volume_is_judged_by_its_own_past() {
        let mut run = Run::new();
        for _ in 0..BASELINE_WINDOWS {
            assert_eq!(run.same("{}", 100).volume_ratio, None);
        }
        assert_eq!(run.same("{}", 110).volume_ratio, Some(1.1));
        assert!(breached(run.same("{}", 300), "volume"));
        assert!(breached(run.same("{}", 10), "volume"));
        assert!(!breached(run.same("{}", 100), "volume"));
        // What lasts becomes what is expected.
        (0..60).for_each(|_| drop(run.same("{}", 1_000).clone()));
        assert!(!breached(run.same("{}", 1_000), "volume"));
    }

    #[test]
    fn fields_that_come_go_or_change_are_drift_once() {
        let mut run = Run::new();
        assert_eq!(
            run.same(r#"{"a": 1, "b": "x", "c": null}"#, 100).drift,
            [0, 0, 0],
            "the first window is what is known"
        );
        assert_eq!(run.same(r#"{"a": 1, "b": "x", "c": 5}"#, 100).drift, [0, 0, 0], "null had no type to change");
        assert_eq!(run.same(r#"{"a": 1, "b": "x", "c": 5, "d": {"e": 1}}"#, 100).drift, [2, 0, 0]);
        assert_eq!(run.same(r#"{"a": "1", "b": "x", "c": 5, "d": {"e": 1}}"#, 100).drift, [2, 0, 1]);
        assert_eq!(run.same(r#"{"a": 1, "b": "x", "c": 5, "d": {"e": 1}}"#, 100).drift, [2, 0, 1]);
        assert_eq!(run.same(r#"{"a": 1, "c": 5, "d": {"e": 1}}"#, 100).drift, [2, 1, 1]);
        assert_eq!(run.same(r#"{"a": 1, "c": 5, "d": {"e": 1}}"#, 100).drift, [2, 1, 1]);
        assert_eq!(run.same(r#"{"a": 1, "b": "x", "c": 5, "d": {"e": 1}}"#, 100).drift, [3, 1, 1], "it is back");
    }

    #[test]
    fn a_stall_is_told_and_a_pause_is_none() {
        let mut run = Run::new();
        run.watch.note_stall(6.0);
        assert!(breached(run.watch.verdict(), "stall"));
        run.watch.note_stall(0.0);
        assert!(!breached(run.watch.verdict(), "stall"));
        (0..BASELINE_WINDOWS).for_each(|_| drop(run.same("{}", 100).clone()));
        run.now_ms += 60_000;
        run.watch.tick(run.now_ms, run.census.counts(), run.records, true);
        assert!(!breached(run.same("{}", 100), "volume"));
    }
}
