//! Pairs against every combination of records looked at one by one, at one level and over two, over random streams that are cut,
//! committed, undone and restored anywhere.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, StageKind, WindowConfig};
use crate::memory::{Chance, KeyValue};
use crate::pipeline::{Flow, Pipeline, RowLimits, Run, Stage, StageSpec};
use crate::plugin::Emitted;
use crate::record::{Rows, json::Pointer};
use crate::window::{Aggregate, Role, StateRows, TaskPlace, WindowPlan, WindowStage};

const WITHIN: i64 = 40;
const DISORDER: i64 = 20;
const OUTPUTS: [&str; 4] = ["main", "late", "lonely", "orphans"];

fn config(more: &str) -> WindowConfig {
    let text = format!(
        "pipeline: p\nsource: {{stdin: {{format: ndjson}}}}\ndead_letters: {{to: {{discard: }}}}\n\
         outputs: {{main: {{discard: }}, late: {{discard: }}, lonely: {{discard: }}, orphans: {{discard: }}}}\n\
         stages:\n  - name: both\n    pair:\n      \
         left: {{as: purchase, when: {{field: /kind, type: text, op: eq, value: buy}}, key: {{id: /order}}, \
                 time: {{field: /t, encoding: epoch_ms}}, unmatched: lonely}}\n      \
         right: {{as: order, when: {{field: /kind, type: text, op: eq, value: order}}, key: [/id], \
                 time: {{field: /at, encoding: epoch_ms}}, unmatched: orphans}}\n      \
         within: {WITHIN}ms\n      disorder: {DISORDER}ms\n      max_jump: off\n      output: main\n{more}"
    );
    let config = Config::parse(Path::new("p.yaml"), &text, &|_| None).unwrap_or_else(|why| panic!("{why}"));
    match config.stages.into_iter().next().map(|stage| stage.kind) {
        Some(StageKind::Window(window)) => *window,
        other => panic!("{other:?}"),
    }
}

/// A record of a stream; times in milliseconds.
#[derive(Clone, Debug)]
struct Event {
    right: Option<bool>,
    key: Option<u8>,
    time_ms: i64,
    text: String,
}

/// Records of both sides that mostly move on; some are of neither, some have no key, and some are very late.
fn stream(seed: u64, partition: usize, events: usize) -> Vec<Event> {
    let mut chance = Chance::new(seed.wrapping_mul(31).wrapping_add(partition as u64));
    let mut now_ms = 1_000;
    let mut event = |index: usize| {
        now_ms += if chance.below(20) == 0 { chance.below(150) } else { chance.below(9) } as i64;
        let behind = if chance.below(8) == 0 { chance.below(120) } else { chance.below(15) } as i64;
        let (time_ms, key) = (now_ms - behind, b'a' + chance.below(6) as u8);
        let key = (chance.below(25) > 0).then_some(key);
        let quoted = key.map_or("null".to_owned(), |key| format!("\"{}\"", key as char));
        let name = format!("\"n\": \"p{partition}-{index}\"");
        let (right, text) = match chance.below(9) {
            0 => (None, format!("{{\"kind\":\"view\",{name},\"t\":\"not a time\",\"id\":[]}}")),
            1..=4 => {
                (Some(false), format!("{{\"kind\":\"buy\",{name},\"t\":{time_ms},\"order\":{quoted},\"at\":\"soon\"}}"))
            }
            _ => {
                (Some(true), format!("{{\"kind\":\"order\",{name},\"at\":{time_ms},\"id\":{quoted},\"t\":\"never\"}}"))
            }
        };
        Event { right, key, time_ms, text }
    };
    (0..events).map(&mut event).collect()
}

/// What left a stage: by which output, or as a dead letter with this code; key and value.
type Out = (String, Option<Vec<u8>>, String);

/// What is late, and what is taken, of a partition.
struct Judged<'a> {
    taken: Vec<&'a Event>,
    out: Vec<Out>,
    watermark_ms: i64,
}

fn judge(events: &[Event]) -> Judged<'_> {
    let (mut taken, mut out, mut latest_ms) = (Vec::new(), Vec::new(), i64::MIN / 2);
    for event in events.iter().filter(|event| event.right.is_some()) {
        if event.key.is_none() {
            out.push(("null_field".to_owned(), None, event.text.clone()));
        } else if event.time_ms < latest_ms - DISORDER {
            out.push(("late".to_owned(), None, event.text.clone()));
        } else {
            taken.push(event);
        }
        if event.key.is_some() {
            latest_ms = latest_ms.max(event.time_ms);
        }
    }
    Judged { taken, out, watermark_ms: latest_ms - DISORDER }
}

fn meet(one: &Event, other: &Event) -> bool {
    one.key == other.key && one.right != other.right && (one.time_ms - other.time_ms).abs() <= WITHIN
}

/// All that must leave, from the definition, in no order.
fn expected(partitions: &[Vec<Event>]) -> Vec<Out> {
    let judged: Vec<Judged<'_>> = partitions.iter().map(|events| judge(events)).collect();
    let watermark_ms = judged.iter().map(|of| of.watermark_ms).min().expect("a partition");
    let all: Vec<&Event> = judged.iter().flat_map(|of| of.taken.iter().copied()).collect();
    let mut out: Vec<Out> = judged.into_iter().flat_map(|of| of.out).collect();
    for one in &all {
        let others: Vec<_> = all.iter().filter(|other| meet(one, other)).collect();
        let key = one.key.expect("a key") as char;
        if one.right == Some(false) {
            out.extend(others.iter().map(|other| {
                let row = format!("{{\"id\":\"{key}\",\"purchase\":{},\"order\":{}}}", one.text, other.text);
                ("main".to_owned(), Some(key.to_string().into_bytes()), row)
            }));
        }
        if others.is_empty() && one.time_ms + WITHIN < watermark_ms {
            let output = if one.right == Some(true) { "orphans" } else { "lonely" };
            out.push((output.to_owned(), None, one.text.clone()));
        }
    }
    out.sort();
    out
}

/// A stage of one partition and everything around it that a commit or an abort moves.
struct Runner {
    config: WindowConfig,
    role: Role,
    place: TaskPlace,
    pipeline: Pipeline,
    stages: Vec<Stage>,
    position: usize,
    committed: usize,
    changelog: Vec<KeyValue>,
    out: Vec<Out>,
    pending: Vec<Out>,
}

impl Runner {
    fn new(config: &WindowConfig, role: Role, lane: u32) -> Self {
        let (_, descriptor) = WindowPlan::new(config, role, &[]);
        let outputs = OUTPUTS.map(str::to_owned).to_vec();
        let spec = StageSpec::new("both", &descriptor, &outputs).expect("a stage");
        let keys: [Option<Pointer>; 4] = Default::default();
        let pipeline = Pipeline::new(vec![spec], outputs, &keys).expect("a pipeline");
        let place = TaskPlace { topic: "t".into(), lane, limits: Vec::new() };
        let mut runner = Self {
            config: config.clone(),
            role,
            place,
            pipeline,
            stages: Vec::new(),
            position: 0,
            committed: 0,
            changelog: Vec::new(),
            out: Vec::new(),
            pending: Vec::new(),
        };
        runner.restore();
        runner
    }

    /// Begins anew with what the changelog has.
    fn restore(&mut self) {
        let base = self.stages.first().and_then(Stage::window_ref).map_or(0, WindowStage::base);
        let (plan, _) = WindowPlan::new(&self.config, self.role, &[]);
        let functions = WindowPlan::functions(&self.config).expect("functions");
        let (_, kept) = (self.stages.pop(), self.meta());
        let mut stage = WindowStage::new(Arc::new(plan), Aggregate::Functions(functions));
        stage.begin_task(self.place.clone());
        let rest = if self.role == Role::Partial { &[][..] } else { &self.changelog[base as usize..] };
        rest.iter().for_each(|(key, value)| stage.load(key.as_deref(), value.as_deref()).expect("our own"));
        match (self.role, kept) {
            (Role::Partial, Some(meta)) => stage.take_meta(&meta, self.committed as i64).expect("as it was committed"),
            (Role::Partial, None) => {}
            _ if rest.is_empty() => stage.begin(base),
            _ => stage.loaded(base, 0, self.committed as i64).expect("as it was committed"),
        }
        self.stages = vec![Stage::Window(Box::new(stage))];
        self.position = self.committed;
        self.pending.clear();
    }

    /// What was committed with the offset, of a stage without a changelog.
    fn meta(&self) -> Option<crate::window::Meta> {
        let (_, value) = self.changelog.last().filter(|_| self.role == Role::Partial)?;
        serde_json::from_slice(value.as_deref()?).ok()
    }

    fn window(&mut self) -> &mut WindowStage {
        self.stages[0].window().expect("a window")
    }

    /// Processes some records of a log.
    fn run(&mut self, log: &[KeyValue], to: usize) {
        let mut rows = Rows::default();
        for (index, (key, value)) in log[self.position..to].iter().enumerate() {
            rows.push((self.position + index) as i64, -1, key.as_deref(), value.as_deref());
        }
        let (mut run, mut flow) = (Run::with_limits(RowLimits::same(1 << 20)), Flow::default());
        run.run(&self.pipeline, &mut self.stages, &rows, &mut flow).expect("it runs");
        assert!(run.counts()[0].balances(), "{:?}", run.counts());
        for row in 0..flow.rows.len() {
            let output = self.pipeline.outputs[usize::from(flow.routes[row])].clone();
            let value = String::from_utf8_lossy(flow.rows.values.get(row).expect("a value")).into_owned();
            self.pending.push((output, flow.rows.keys.get(row).map(<[u8]>::to_vec), value));
        }
        for dead in run.dead() {
            let value = rows.values.get(dead.source_row as usize).expect("a value");
            let (key, value) = match self.stages[0].window_ref().and_then(|window| window.original(value)) {
                Some(of) => (of.key, of.value),
                None => (None, value),
            };
            let text = String::from_utf8_lossy(value).into_owned();
            self.pending.push((dead.code.to_string(), key.map(<[u8]>::to_vec), text));
        }
        self.position = to;
    }

    /// One commit, which the servers may refuse after all; what it sends on goes to `sent`.
    fn commit(&mut self, chance: &mut Chance, lanes: u32, sent: &mut Vec<KeyValue>, marks: &mut Vec<Vec<u8>>) {
        let (mut told, position, lane) = (StateRows::default(), self.position, self.place.lane);
        let meta = self.window().meta(position as i64);
        self.window().tell(position as i64, (lane, lanes), &mut told);
        if chance.below(4) == 0 {
            self.undo();
            return;
        }
        let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let of = |row| (bytes(told.rows.keys.get(row)), bytes(told.rows.values.get(row)));
        let rows = (0..told.rows.len()).map(of);
        match self.role {
            Role::Partial => {
                sent.extend(rows);
                marks.extend((!told.mark.is_empty()).then(|| told.mark.clone()));
                self.changelog.push((None, serde_json::to_vec(&meta).ok()));
            }
            Role::Whole | Role::Merge => self.changelog.extend(rows),
        }
        self.window().commit();
        self.committed = position;
        let mut pending = std::mem::take(&mut self.pending);
        self.out.append(&mut pending);
        if self.role != Role::Partial && chance.below(6) == 0 {
            let end = self.changelog.len() as i64;
            self.window().begin_sweep(end);
        }
    }

    fn undo(&mut self) {
        self.window().undo();
        self.position = self.committed;
        self.pending.clear();
    }

    /// Something happens: records, a commit, an abort or a crash.
    fn step(&mut self, chance: &mut Chance, log: &[KeyValue], lanes: u32) -> (Vec<KeyValue>, Vec<Vec<u8>>) {
        let (mut sent, mut marks) = (Vec::new(), Vec::new());
        match chance.below(12) {
            0 => self.undo(),
            1 => self.restore(),
            2..=5 => self.commit(chance, lanes, &mut sent, &mut marks),
            _ => {
                let to = (self.position + 1 + chance.below(9)).min(log.len());
                self.run(log, to);
            }
        }
        (sent, marks)
    }
}

fn log_of(events: &[Event]) -> Vec<KeyValue> {
    events.iter().map(|event| (None, Some(event.text.clone().into_bytes()))).collect()
}

#[test]
fn one_level_gives_what_every_combination_gives_whatever_happens_on_the_way() {
    let mut seen = [0; 5];
    for seed in 0..60 {
        let events = stream(seed, 0, 250);
        let log = log_of(&events);
        let (mut runner, mut chance) = (Runner::new(&config(""), Role::Whole, 0), Chance::new(!seed));
        while runner.committed < log.len() {
            runner.step(&mut chance, &log, 1);
        }
        let mut found = runner.out;
        found.sort();
        let expected = expected(&[events]);
        for (place, what) in ["main", "lonely", "orphans", "late", "null_field"].iter().enumerate() {
            seen[place] += expected.iter().filter(|out| out.0 == *what).count();
        }
        assert_same(&found, &expected, seed);
    }
    assert!(seen.iter().all(|&count| count > 100), "little to compare: {seen:?}");
}

fn assert_same(found: &[Out], expected: &[Out], seed: u64) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "seed {seed}");
    }
    assert_eq!(found.len(), expected.len(), "seed {seed}");
}

/// Runs streams through two levels in an order by chance. Where it `forgets`, the second level takes each partition upstream for
/// the only one.
fn two_levels(seed: u64, partitions: &[Vec<Event>], forgets: bool) -> Vec<Out> {
    let (config, mut chance) = (config(""), Chance::new(!seed));
    let lanes = partitions.len() as u32;
    let logs: Vec<Vec<KeyValue>> = partitions.iter().map(|events| log_of(events)).collect();
    let mut first: Vec<Runner> = (0..lanes).map(|lane| Runner::new(&config, Role::Partial, lane)).collect();
    let mut second: Vec<Runner> = (0..2).map(|lane| Runner::new(&config, Role::Merge, lane)).collect();
    let mut between: [Vec<KeyValue>; 2] = Default::default();
    // One partition is much faster than the others, and which one depends on the seed.
    let fast = chance.below(partitions.len());
    loop {
        let at = if chance.below(2) == 0 { fast } else { chance.below(partitions.len()) };
        let (sent, marks) = first[at].step(&mut chance, &logs[at], if forgets { 1 } else { lanes });
        for (key, value) in sent {
            let to = usize::from(key.as_ref().expect("a key")[1]) % 2;
            between[to].push((key, value));
        }
        for mark in marks {
            between.iter_mut().for_each(|log| log.push((None, Some(mark.clone()))));
        }
        for (runner, log) in second.iter_mut().zip(&between) {
            runner.step(&mut chance, log, lanes);
        }
        let done = |(runner, log): (&Runner, &Vec<KeyValue>)| runner.committed == log.len();
        if first.iter().zip(&logs).all(done) && second.iter().zip(&between).all(done) {
            break;
        }
    }
    assert!(
        first.iter().flat_map(|runner| &runner.out).all(|out| !OUTPUTS.contains(&out.0.as_str()) || out.0 == "late")
    );
    let mut found: Vec<Out> = first.into_iter().chain(second).flat_map(|runner| runner.out).collect();
    found.sort();
    found
}

#[test]
fn two_levels_give_what_every_combination_gives_whichever_partition_is_faster() {
    for seed in 0..60 {
        let partitions: Vec<Vec<Event>> = (0..3).map(|partition| stream(seed, partition, 90)).collect();
        let expected = expected(&partitions);
        assert!(expected.iter().filter(|out| out.0 == "main").count() > 20, "seed {seed} shows little");
        assert_same(&two_levels(seed, &partitions, false), &expected, seed);
    }
}

#[test]
fn it_is_found_where_the_second_level_does_not_wait_for_all_partitions() {
    let wrong = (0..20).filter(|&seed| {
        let partitions: Vec<Vec<Event>> = (0..3).map(|partition| stream(seed, partition, 90)).collect();
        two_levels(seed, &partitions, true) != expected(&partitions)
    });
    assert!(wrong.count() > 10);
}

/// Runs texts at one level and commits; returns what left.
fn ran(runner: &mut Runner, texts: &[&str]) -> Vec<Out> {
    let log: Vec<KeyValue> = texts.iter().map(|text| (None, Some(text.as_bytes().to_vec()))).collect();
    (runner.position, runner.committed) = (0, 0);
    runner.run(&log, log.len());
    std::mem::take(&mut runner.pending)
}

fn codes(out: &[Out]) -> Vec<&str> {
    out.iter().map(|out| out.0.as_str()).collect()
}

#[test]
fn rows_of_one_moment_leave_in_an_order_that_does_not_depend_on_the_past() {
    let mut runner = Runner::new(&config(""), Role::Whole, 0);
    let buy = |key: &str, t: i64| format!("{{\"kind\":\"buy\",\"t\":{t},\"order\":\"{key}\"}}");
    let order = |key: &str, t: i64| format!("{{\"kind\":\"order\",\"at\":{t},\"id\":\"{key}\"}}");
    let texts =
        [buy("z", 1_010), buy("b", 1_010), order("a", 1_010), buy("b", 1_000), order("b", 1_005), buy("c", 1_100)];
    let out = ran(&mut runner, &texts.each_ref().map(String::as_str));
    let seen: Vec<_> = out.iter().map(|(output, _, text)| (output.as_str(), text.as_str())).collect();
    let pair = |left: &str| format!("{{\"id\":\"b\",\"purchase\":{left},\"order\":{}}}", texts[4]);
    let pairs = [pair(&texts[3]), pair(&texts[1])];
    let expected = [
        ("main", pairs[0].as_str()),
        ("main", pairs[1].as_str()),
        ("orphans", texts[2].as_str()),
        ("lonely", texts[0].as_str()),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn silence_ends_the_waiting_where_that_is_asked_for() {
    let mut runner = Runner::new(&config("      close_after: 5s\n"), Role::Whole, 0);
    assert_eq!(ran(&mut runner, &["{\"kind\":\"buy\",\"t\":1000,\"order\":1}"]), []);
    let mut emitted = Emitted::default();
    assert!(!runner.window().quiet(4_999, 1, &mut emitted).expect("time passes"));
    assert!(runner.window().quiet(5_000, 1, &mut emitted).expect("time passes"));
    assert_eq!((emitted.len(), emitted.output[0]), (1, 1), "the first output behind the pairs' own");
    let late = ran(&mut runner, &["{\"kind\":\"order\",\"at\":1040,\"id\":1}"]);
    assert_eq!(codes(&late), ["late"]);
}

#[test]
fn what_is_too_much_costs_the_record_that_made_it_so_and_changes_nothing() {
    let mut runner = Runner::new(&config(""), Role::Whole, 0);
    let many = vec!["{\"kind\":\"buy\",\"t\":1000,\"order\":1}"; 1_001];
    assert_eq!(codes(&ran(&mut runner, &many)), ["too_many_halves"]);
    let more = ["{\"kind\":\"order\",\"at\":9000,\"id\":1}", "{\"kind\":\"order\",\"at\":1000,\"id\":2}"];
    assert_eq!(codes(&ran(&mut runner, &more)), ["too_many_halves"], "what is not taken moves nothing");
    let over = ran(&mut runner, &["{\"kind\":\"order\",\"at\":1100,\"id\":9}"]);
    assert_eq!(over.iter().map(|out| out.0 == "lonely").filter(|lonely| *lonely).count(), 1_000);
    assert_eq!(over.len(), 1_001);
    // A large record with many small partners.
    let mut runner = Runner::new(&config(""), Role::Whole, 0);
    ran(&mut runner, &vec!["{\"kind\":\"order\",\"at\":1000,\"id\":1}"; 900]);
    let large = |bytes: usize| format!("{{\"kind\":\"buy\",\"t\":1000,\"order\":1,\"x\":\"{}\"}}", "x".repeat(bytes));
    assert_eq!(codes(&ran(&mut runner, &[&large(40_000)])), ["too_many_pairs"]);
    assert_eq!(codes(&ran(&mut runner, &[&large(30_000)])), ["main"; 900]);
    // The record itself fits, and a pair with it does not.
    let mut runner = Runner::new(&config(""), Role::Whole, 0);
    runner.place.limits = vec![200, 100, 100];
    runner.restore();
    let long = format!("{{\"kind\":\"buy\",\"t\":1000,\"order\":1,\"x\":\"{}\"}}", "x".repeat(40));
    let pair = ["{\"kind\":\"order\",\"at\":1000,\"id\":1}", long.as_str()];
    assert_eq!(codes(&ran(&mut runner, &pair)), ["main"]);
    runner.place.limits[0] = 140;
    runner.restore();
    assert_eq!(codes(&ran(&mut runner, &pair)), ["record_too_large"]);
    let after = ran(&mut runner, &["{\"kind\":\"order\",\"at\":1100,\"id\":9}"]);
    assert_eq!(codes(&after), ["orphans"], "it was in no pair");
    runner.restore();
    let larger = long.replace("xx", "xxxx");
    assert_eq!(codes(&ran(&mut runner, &[&larger])), ["record_too_large"], "it could not leave alone");
}

#[test]
fn bad_records_are_told_apart_and_others_fields_do_not_matter() {
    let mut runner = Runner::new(&config(""), Role::Whole, 0);
    let texts = [
        "{\"kind\":\"view\",\"t\":{}}",
        "{\"kind\":7}",
        "{\"kind\":\"buy\",\"order\":1}",
        "{\"kind\":\"buy\",\"t\":\"1000\",\"order\":1}",
        "{\"kind\":\"buy\",\"t\":1000}",
        "{\"kind\":\"buy\",\"t\":1000,\"order\":null}",
        "{\"kind\":\"buy\",\"t\":1000,\"order\":[1]}",
        "{\"kind\":\"buy\",\"t\":-1,\"order\":1}",
        "{\"kind\":\"order\",\"at\":1000,\"id\":1,\"t\":{},\"order\":[]}",
    ];
    let codes: Vec<String> = ran(&mut runner, &texts).into_iter().map(|out| out.0).collect();
    let expected =
        ["missing_field", "wrong_type", "missing_field", "null_field", "key_not_scalar", "event_time_negative"];
    assert_eq!(codes, expected);
    let held = runner.window().ask(&crate::window::keys_of("1", 1)[0], 9).expect("an answer");
    let rows: Vec<_> = held.windows.iter().map(|window| window.row.clone().map(String::from_utf8)).collect();
    let row = format!("{{\"matched\":false,\"order\":{}}}", texts[8]);
    assert_eq!(rows, [Ok(Ok(row))]);
}

#[test]
fn what_comes_from_an_idle_partition_too_late_leaves_as_it_came() {
    for (late, code) in [("", "late"), ("      late: {output: late}\n", "late")] {
        let config = config(late);
        let mut between: Vec<KeyValue> = Vec::new();
        let mut chance = Chance::new(5);
        let mut send = |lane: u32, text: &str, quiet: bool| {
            let mut runner = Runner::new(&config, Role::Partial, lane);
            if !text.is_empty() {
                assert_eq!(ran(&mut runner, &[text]), []);
            }
            if quiet {
                runner.window().quiet(60_000, 0, &mut Emitted::default()).expect("time passes");
            }
            let (mut sent, mut marks) = (Vec::new(), Vec::new());
            while marks.is_empty() {
                if !text.is_empty() && runner.position == 0 {
                    ran(&mut runner, &[text]);
                }
                if quiet {
                    runner.window().quiet(60_000, 0, &mut Emitted::default()).expect("time passes");
                }
                runner.commit(&mut chance, 2, &mut sent, &mut marks);
            }
            between.extend(sent);
            between.extend(marks.into_iter().map(|mark| (None, Some(mark))));
        };
        send(0, "", true);
        send(1, "{\"kind\":\"buy\",\"t\":5000,\"order\":1}", false);
        send(0, "{\"kind\":\"order\",\"at\":4000,\"id\":1}", false);
        let mut second = Runner::new(&config, Role::Merge, 0);
        second.run(&between, between.len());
        let expected = [(code.to_owned(), None, "{\"kind\":\"order\",\"at\":4000,\"id\":1}".to_owned())];
        assert_eq!(second.pending, expected, "{late}");
        let value = between.iter().rev().find_map(|(key, value)| key.as_ref().and(value.as_deref())).expect("a half");
        let original = second.window().original(value).map(|of| (of.lane, of.offset));
        assert_eq!(original, Some((0, 0)), "it says where it was read");
    }
}
