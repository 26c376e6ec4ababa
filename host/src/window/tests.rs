//! The stage against a slow and obvious computation, over random streams that are cut, committed, undone and restored anywhere.

mod ask;
mod away;
mod pairs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::log::StateRows;
use super::plan::{Role, WindowPlan};
use super::{Aggregate, WindowStage};
use crate::config::{
    AggregateConfig, EventTime, Function, LatePolicy, Measure, NamedField, TimeEncoding, WindowConfig, WindowKind,
};
use crate::memory::{Chance, KeyValue};
use crate::plugin::{Emitted, StageError, StageInput, StageOutput, Verdict};
use crate::record::{Cell, Column, ColumnData, ColumnType, TimestampEncoding};
use crate::spill::{Spill, SpillFolder};

/// Where states go that find no room in memory.
type Folder<'a> = Option<&'a Arc<SpillFolder>>;

/// One event of a stream; times in milliseconds.
#[derive(Clone, Debug)]
struct Event {
    time_ms: i64,
    key: &'static str,
    value: i64,
}

fn config(kind: WindowKind, reopen_ms: u64, early_ms: Option<u64>) -> WindowConfig {
    let field = |name: &str| format!("/{name}");
    let integers = |name: &str| Measure { field: field(name), decimals: None };
    WindowConfig {
        time: Some(EventTime { field: field("t"), encoding: TimeEncoding::Epoch { per_second: 1_000 } }),
        key: vec![NamedField { name: "k".into(), field: field("k"), part: None }],
        kind,
        disorder_ms: 20,
        max_jump_ms: None,
        late: LatePolicy::DeadLetter,
        reopen_ms,
        early_ms,
        close_after_ms: None,
        idle_ms: 1,
        aggregate: AggregateConfig::Functions(vec![
            ("n".into(), Function::Count),
            ("rate".into(), Function::Rate { per_ms: 10 }),
            ("sum".into(), Function::Sum(integers("v"))),
            ("mean".into(), Function::Mean(integers("v"))),
            ("least".into(), Function::Min(integers("v"))),
            ("most".into(), Function::Max(integers("v"))),
            ("different".into(), Function::Distinct(field("v"))),
        ]),
        output: "main".into(),
        forward: false,
        keyed_topic: true,
    }
}

fn stage(config: &WindowConfig, role: Role) -> WindowStage {
    stage_in(config, role, None)
}

fn stage_in(config: &WindowConfig, role: Role, folder: Folder<'_>) -> WindowStage {
    let (plan, _) = WindowPlan::new(config, role, &[]);
    let functions = WindowPlan::functions(config).expect("functions");
    let mut stage = WindowStage::new(plan.into(), Aggregate::Functions(functions));
    folder.into_iter().for_each(|folder| stage.set_spill(|| Spill::to(folder)));
    stage
}

fn kinds() -> Vec<WindowKind> {
    let fixed = |size_ms, every_ms, offset_ms| WindowKind::Fixed { size_ms, every_ms, offset_ms };
    vec![
        fixed(100, 100, 0),
        fixed(100, 50, 0),
        fixed(90, 40, 7),
        fixed(60, 7, 3),
        WindowKind::Session { gap_ms: 30 },
        WindowKind::Session { gap_ms: 7 },
    ]
}

/// Events that mostly move on, with disorder, ties, jumps and some that are very late.
fn stream(seed: u64, events: usize) -> Vec<Event> {
    let mut chance = Chance::new(seed);
    let mut now_ms = 1_000;
    let keys = ["a", "b", "c"];
    (0..events)
        .map(|_| {
            now_ms += match chance.below(20) {
                0 => chance.below(200) as i64,
                _ => chance.below(12) as i64,
            };
            let behind = match chance.below(10) {
                0 => chance.below(300) as i64,
                1..=4 => chance.below(25) as i64,
                _ => 0,
            };
            Event { time_ms: now_ms - behind, key: keys[chance.below(3)], value: chance.below(5) as i64 - 2 }
        })
        .collect()
}

/// Runs events whose first has this offset; returns the rows and the late ones.
fn run(stage: &mut WindowStage, events: &[Event], first_offset: i64) -> (Vec<Value>, Vec<i64>) {
    let out = output_of(stage, events, first_offset);
    let late =
        out.rejections.iter().inspect(|why| assert_eq!(why.code, "late")).map(|why| first_offset + why.row as i64);
    let late: Vec<i64> = late.collect();
    assert_eq!(out.verdicts.iter().filter(|verdict| **verdict == Verdict::Fold).count(), events.len() - late.len());
    (rows(&out.emitted), late)
}

/// Runs events and returns all that came of them.
fn output_of(stage: &mut WindowStage, events: &[Event], first_offset: i64) -> StageOutput {
    try_run(stage, events, first_offset).expect("no trouble")
}

fn try_run(stage: &mut WindowStage, events: &[Event], first_offset: i64) -> Result<StageOutput, StageError> {
    let json = |texts: Vec<String>| {
        let mut column = Column::new(ColumnType::Json);
        for text in texts {
            column.cells.push(Cell::Valid);
            if let ColumnData::Packed(packed) = &mut column.data {
                packed.push(text.as_bytes());
            }
        }
        column
    };
    let int = |ty, values: Vec<i64>| {
        let mut column = Column::new(ty);
        column.cells = vec![Cell::Valid; values.len()];
        column.data = ColumnData::Int64(values);
        column
    };
    let keys = json(events.iter().map(|event| format!("\"{}\"", event.key)).collect());
    let times = int(
        ColumnType::Timestamp(TimestampEncoding::EpochMs),
        events.iter().map(|event| event.time_ms * 1_000).collect(),
    );
    let values = || int(ColumnType::Int64, events.iter().map(|event| event.value).collect());
    let words = json(events.iter().map(|event| event.value.to_string()).collect());
    let columns = [keys, times, values(), values(), values(), values(), words];
    let columns: Vec<&Column> = columns.iter().collect();
    let (keys, values, headers, timestamps_ms) = (None, None, None, None);
    let input = StageInput { rows: events.len(), columns: &columns, keys, values, headers, timestamps_ms };
    let offsets: Vec<i64> = (0..events.len() as i64).map(|row| first_offset + row).collect();
    let mut out = StageOutput::default();
    stage.run(&input, &offsets, &mut out)?;
    Ok(out)
}

fn rows(emitted: &Emitted) -> Vec<Value> {
    (0..emitted.len())
        .map(|row| serde_json::from_slice(emitted.values.get(row).unwrap_or_default()).expect("a row is JSON"))
        .collect()
}

/// The whole stream at once, from the definition.
struct Reference<'a> {
    config: &'a WindowConfig,
    taken: Vec<Event>,
    /// Sessions by key, each with its events and whether its row was final.
    sessions: BTreeMap<&'static str, Vec<(Vec<Event>, bool)>>,
    latest_ms: Option<i64>,
    rows: Vec<Value>,
    late: Vec<i64>,
}

impl<'a> Reference<'a> {
    fn of(config: &'a WindowConfig, events: &[Event]) -> Self {
        let (taken, sessions, rows, late) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        let mut reference = Self { config, taken, sessions, latest_ms: None, rows, late };
        for (offset, event) in events.iter().enumerate() {
            reference.take(offset as i64, event);
        }
        reference
    }

    fn watermark_ms(&self) -> i64 {
        self.latest_ms.map_or(i64::MIN / 2, |latest_ms| latest_ms - self.config.disorder_ms as i64)
    }

    fn take(&mut self, offset: i64, event: &Event) {
        let (version, before_ms) = ((offset + 1) * 2, self.watermark_ms());
        let late = match self.config.kind {
            WindowKind::Session { gap_ms } => self.join(event, gap_ms as i64, version),
            WindowKind::Fixed { .. } => self.add(event, version),
            WindowKind::Duplicates { .. } | WindowKind::Pairs { .. } => unreachable!("no window"),
        };
        if late {
            self.late.push(offset);
        }
        self.latest_ms = self.latest_ms.max(Some(event.time_ms));
        let watermark_ms = self.watermark_ms();
        self.close(before_ms, watermark_ms, version);
        if let Some(early_ms) = self.config.early_ms.map(|ms| ms as i64)
            && before_ms > i64::MIN / 2
            && before_ms.div_euclid(early_ms) != watermark_ms.div_euclid(early_ms)
        {
            self.show(watermark_ms, version);
        }
    }

    /// All windows of a fixed size that hold a time, as begin and end.
    fn windows(&self, time_ms: i64) -> Vec<(i64, i64)> {
        let WindowKind::Fixed { size_ms, every_ms, offset_ms } = self.config.kind else { return Vec::new() };
        let (size, every, offset) = (size_ms as i64, every_ms as i64, (offset_ms % every_ms) as i64);
        let begins = (-1..).map(|n| n * every + offset).take_while(|begin| *begin <= time_ms);
        begins.filter(|begin| time_ms < begin + size).map(|begin| (begin, begin + size)).collect()
    }

    fn add(&mut self, event: &Event, version: i64) -> bool {
        let (watermark_ms, reopen_ms) = (self.watermark_ms(), self.config.reopen_ms as i64);
        let windows = self.windows(event.time_ms);
        if windows.iter().all(|(_, end)| end + reopen_ms <= watermark_ms) {
            return true;
        }
        self.taken.push(event.clone());
        for window in windows.iter().filter(|(_, end)| *end <= watermark_ms && watermark_ms < end + reopen_ms) {
            let row = self.row(*window, event.key, &self.of_window(*window, event.key), version, false);
            self.rows.push(row);
        }
        false
    }

    fn of_window(&self, (begin, end): (i64, i64), key: &str) -> Vec<Event> {
        let inside = |event: &&Event| event.key == key && (begin..end).contains(&event.time_ms);
        self.taken.iter().filter(inside).cloned().collect()
    }

    fn join(&mut self, event: &Event, gap_ms: i64, version: i64) -> bool {
        let (watermark_ms, reopen_ms) = (self.watermark_ms(), self.config.reopen_ms as i64);
        let bounds = |events: &[Event]| {
            let times = || events.iter().map(|event| event.time_ms);
            (times().min().unwrap_or(0), times().max().unwrap_or(0))
        };
        let sessions = self.sessions.remove(event.key).unwrap_or_default();
        let near = |(events, _): &(Vec<Event>, bool)| {
            let (first, last) = bounds(events);
            event.time_ms < last + gap_ms && first < event.time_ms + gap_ms
        };
        let (joined, mut others): (Vec<_>, Vec<_>) = sessions.into_iter().partition(near);
        let mut whole: Vec<Event> = joined.iter().flat_map(|(events, _)| events.clone()).collect();
        whole.push(event.clone());
        let (first, last) = bounds(&whole);
        if last + gap_ms + reopen_ms <= watermark_ms {
            others.extend(joined);
            self.sessions.insert(event.key, others);
            return true;
        }
        for (events, emitted) in &joined {
            let (begin, end) = bounds(events);
            if *emitted && begin != first {
                self.rows.push(self.row((begin, end + gap_ms), event.key, events, version, true));
            }
        }
        let emitted = last + gap_ms <= watermark_ms;
        if emitted {
            self.rows.push(self.row((first, last + gap_ms), event.key, &whole, version, false));
        }
        others.push((whole, emitted));
        others.sort_by_key(|(events, _)| bounds(events));
        self.sessions.insert(event.key, others);
        false
    }

    fn close(&mut self, before_ms: i64, watermark_ms: i64, version: i64) {
        let due = self.open(|end| before_ms < end && end <= watermark_ms, version);
        self.rows.extend(due);
        let WindowKind::Session { gap_ms } = self.config.kind else { return };
        let (gap_ms, reopen_ms) = (gap_ms as i64, self.config.reopen_ms as i64);
        for sessions in self.sessions.values_mut() {
            let end = |events: &[Event]| events.iter().map(|event| event.time_ms).max().unwrap_or(0) + gap_ms;
            sessions.iter_mut().for_each(|(events, emitted)| *emitted |= end(events) <= watermark_ms);
            sessions.retain(|(events, _)| end(events) + reopen_ms > watermark_ms);
        }
    }

    fn show(&mut self, watermark_ms: i64, version: i64) {
        let due = self.open(|end| end > watermark_ms, version);
        self.rows.extend(due);
    }

    /// The rows of windows whose end is wanted, and that were not final, by end and key.
    fn open(&self, wanted: impl Fn(i64) -> bool, version: i64) -> Vec<Value> {
        let mut due = Vec::new();
        match self.config.kind {
            WindowKind::Session { gap_ms } => {
                for (key, sessions) in &self.sessions {
                    for (events, _) in sessions.iter().filter(|(_, emitted)| !emitted) {
                        let times = || events.iter().map(|event| event.time_ms);
                        let (first, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
                        due.push(((first, last + gap_ms as i64), *key, events.clone()));
                    }
                }
            }
            WindowKind::Duplicates { .. } | WindowKind::Pairs { .. } => {}
            WindowKind::Fixed { .. } => {
                let all =
                    self.taken.iter().flat_map(|event| self.windows(event.time_ms).into_iter().map(|w| (w, event.key)));
                let all: BTreeSet<_> = all.collect();
                due.extend(all.into_iter().map(|(window, key)| (window, key, self.of_window(window, key))));
            }
        }
        due.retain(|((_, end), ..)| wanted(*end));
        due.sort_by_key(|((begin, end), key, _)| (*end, *key, *begin));
        due.into_iter().map(|(window, key, events)| self.row(window, key, &events, version, false)).collect()
    }

    fn row(&self, (begin, end): (i64, i64), key: &str, events: &[Event], version: i64, retracted: bool) -> Value {
        let values = || events.iter().map(|event| event.value);
        let (count, sum) = (events.len(), values().sum::<i64>());
        let mut row = json!({
            "k": key, "window_start": time(begin), "window_end": time(end),
            "n": count, "rate": count as f64 * 1e4 / (end * 1_000 - begin * 1_000) as f64,
            "sum": sum, "mean": sum as f64 / count as f64, "least": values().min(), "most": values().max(),
            "different": values().collect::<BTreeSet<_>>().len(),
        });
        if self.config.has_versions() {
            row["version"] = json!(version);
            row["retracted"] = json!(retracted);
        }
        // As text and back, because a number that is read need not be the one that was written in its last digit.
        serde_json::from_str(&row.to_string()).expect("JSON")
    }
}

fn time(ms: i64) -> String {
    let fraction = match ms.rem_euclid(1_000) {
        0 => String::new(),
        ms => format!(".{ms:03}").trim_end_matches('0').to_owned(),
    };
    format!("1970-01-01T00:{:02}:{:02}{fraction}Z", ms.div_euclid(60_000), ms.div_euclid(1_000) % 60)
}

/// Sees what all kinds of windows give on a rough ride.
fn ride_all(seeds: std::ops::Range<u64>, folder: Folder<'_>) {
    for seed in seeds {
        for kind in kinds() {
            for (reopen_ms, early_ms) in [(0, None), (50, None), (0, Some(40)), (120, Some(70))] {
                let config = config(kind, reopen_ms, early_ms);
                let events = stream(seed, 250);
                let expected = Reference::of(&config, &events);
                let (found, late) = rough_ride(&config, &events, seed, folder);
                assert_eq!(late, expected.late, "{kind:?} seed {seed}: late");
                for (at, (found, expected)) in found.iter().zip(&expected.rows).enumerate() {
                    assert_eq!(found, expected, "{kind:?} {reopen_ms} {early_ms:?} seed {seed} row {at}");
                }
                assert_eq!(found.len(), expected.rows.len(), "{kind:?} {reopen_ms} {early_ms:?} seed {seed}");
            }
        }
    }
}

#[test]
fn every_kind_of_window_gives_the_rows_of_an_obvious_computation_whatever_happens_on_the_way() {
    ride_all(0..12, None);
}

/// Runs a stream in pieces, of which some are undone, and restores the stage from its changelog now and then.
fn rough_ride(config: &WindowConfig, events: &[Event], seed: u64, folder: Folder<'_>) -> (Vec<Value>, Vec<i64>) {
    let mut chance = Chance::new(!seed);
    let mut stage_now = stage_in(config, Role::Whole, folder);
    stage_now.begin(0);
    let (mut rows, mut late) = (Vec::new(), Vec::new());
    let (mut pending_rows, mut pending_late) = (Vec::new(), Vec::new());
    let mut changelog: Vec<KeyValue> = Vec::new();
    let (mut committed, mut position) = (0, 0);
    let mut told = StateRows::default();
    while committed < events.len() {
        let to = (position + 1 + chance.below(9)).min(events.len());
        let (new_rows, new_late) = run(&mut stage_now, &events[position..to], position as i64);
        pending_rows.extend(new_rows);
        pending_late.extend(new_late);
        position = to;
        match chance.below(5) {
            0 => {
                stage_now.undo();
                position = committed;
                pending_rows.clear();
                pending_late.clear();
            }
            1 | 2 => {
                stage_now.tell(position as i64, (0, 1), &mut told);
                if chance.below(4) == 0 {
                    // The commit is refused after all.
                    stage_now.undo();
                    position = committed;
                    pending_rows.clear();
                    pending_late.clear();
                    continue;
                }
                push_told(&told, &mut changelog);
                stage_now.commit();
                rows.append(&mut pending_rows);
                late.append(&mut pending_late);
                committed = position;
                if chance.below(6) == 0 {
                    stage_now.begin_sweep(changelog.len() as i64);
                }
            }
            3 if chance.below(3) == 0 => {
                let base = stage_now.base();
                stage_now = restored_in(config, &changelog, base, committed, folder);
                position = committed;
                pending_rows.clear();
                pending_late.clear();
            }
            _ => {}
        }
    }
    (rows, late)
}

fn push_told(told: &StateRows, changelog: &mut Vec<KeyValue>) {
    let rows = &told.rows;
    let of = |row| (rows.keys.get(row).map(<[u8]>::to_vec), rows.values.get(row).map(<[u8]>::to_vec));
    changelog.extend((0..rows.len()).map(of));
}

fn restored(config: &WindowConfig, changelog: &[KeyValue], base: i64, committed: usize) -> WindowStage {
    restored_in(config, changelog, base, committed, None)
}

fn restored_in(config: &WindowConfig, log: &[KeyValue], base: i64, to: usize, folder: Folder<'_>) -> WindowStage {
    let mut stage = stage_in(config, Role::Whole, folder);
    let rest = &log[base as usize..];
    for (key, value) in rest {
        stage.load(key.as_deref(), value.as_deref()).expect("our own");
    }
    if rest.is_empty() {
        stage.begin(base);
    } else {
        stage.loaded(base, 0, to as i64).expect("as it was committed");
    }
    stage
}

#[test]
fn each_record_passes_once_and_what_can_not_be_known_any_more_is_late() {
    for seed in 0..100 {
        let within_ms = 40;
        let config = config(WindowKind::Duplicates { within_ms }, 0, None);
        let config = WindowConfig { aggregate: AggregateConfig::Functions(Vec::new()), forward: true, ..config };
        let events = stream(seed, 400);
        let (mut taken, mut latest_ms): (Vec<&Event>, i64) = (Vec::new(), i64::MIN / 2);
        let mut expected = Vec::new();
        for event in &events {
            let near =
                |other: &Event| other.key == event.key && (other.time_ms - event.time_ms).abs() < within_ms as i64;
            expected.push(if event.time_ms + within_ms as i64 <= latest_ms - config.disorder_ms as i64 {
                Verdict::Reject
            } else if taken.iter().any(|other| near(other)) {
                Verdict::Duplicate
            } else {
                taken.push(event);
                latest_ms = latest_ms.max(event.time_ms);
                Verdict::Forward
            });
        }
        assert_eq!(deduplicated(&config, &events, seed), expected, "seed {seed}");
        assert!(
            expected.contains(&Verdict::Duplicate) && expected.contains(&Verdict::Reject),
            "seed {seed} shows little"
        );
    }
}

/// Runs a stream in pieces, of which some are undone and after some of which the stage is restored; the verdict on each event.
fn deduplicated(config: &WindowConfig, events: &[Event], seed: u64) -> Vec<Verdict> {
    let mut chance = Chance::new(!seed);
    let mut once = stage(config, Role::Whole);
    once.begin(0);
    let (mut changelog, mut verdicts): (Vec<KeyValue>, Vec<Verdict>) = (Vec::new(), Vec::new());
    let mut told = StateRows::default();
    while verdicts.len() < events.len() {
        let from = verdicts.len();
        let to = (from + 1 + chance.below(30)).min(events.len());
        let found = output_of(&mut once, &events[from..to], from as i64).verdicts;
        match chance.below(4) {
            0 => once.undo(),
            1 => {
                let base = once.base();
                once = restored(config, &changelog, base, from);
            }
            _ => {
                once.tell(to as i64, (0, 1), &mut told);
                push_told(&told, &mut changelog);
                once.commit();
                verdicts.extend(found);
            }
        }
    }
    verdicts
}
