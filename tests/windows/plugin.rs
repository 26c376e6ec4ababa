//! An aggregate that is a plugin gives what built-in functions give, in every kind of window, and costs the rows that it rejects.

use std::sync::Arc;

use millstream::config::{AggregateConfig, Config, Function, StageKind, WindowConfig};
use millstream::memory::Chance;
use millstream::plugin::{AggregateRunner, Limits, Plugin, Runtime, RuntimeConfig, StageInput, StageOutput, Verdict};
use millstream::record::{Cell, Column, ColumnData, ColumnType};
use millstream::window::{Aggregate, PluginAggregate, Role, StateRows, WindowPlan, WindowStage, keys_of};
use serde_json::Value;

use crate::harness::guests::guest;

const KINDS: &[&str] = &[
    "tumbling: 100ms",
    "hopping: {size: 90ms, every: 40ms}",
    "session: 30ms",
    "session: 30ms, reopen: 60ms",
    "tumbling: 100ms, reopen: 60ms, early: 50ms",
];

fn window(kind: &str) -> WindowConfig {
    let text = format!(
        "pipeline: p\nsource: {{stdin: {{format: ndjson}}}}\noutputs: {{main: {{discard: }}}}\ndead_letters: {{to: {{discard: }}}}\n\
         stages: [{{name: w, window: {{time: {{field: /t, encoding: epoch_ms}}, key: [/k], {kind}, disorder: 20ms, max_jump: off, \
         aggregate: {{n: count, spent: {{sum: /spent}}}}, output: main, keyed_topic: true}}}}]"
    );
    let config = Config::parse(std::path::Path::new("p.yaml"), &text, &|_| None).expect("a config");
    match config.stages.into_iter().next().map(|stage| stage.kind) {
        Some(StageKind::Window(window)) => *window,
        other => panic!("{other:?}"),
    }
}

fn with_plugin(window: &WindowConfig, plugin: &Plugin) -> WindowStage {
    let runner = AggregateRunner::new(plugin.clone(), "{}", Limits::default()).expect("a runner");
    let reads = runner.descriptor().reads.clone();
    // What a plugin makes of the records has no part in where windows lie.
    let window = WindowConfig { aggregate: AggregateConfig::Functions(Vec::new()), ..window.clone() };
    let (plan, _) = WindowPlan::new(&window, Role::Whole, &reads);
    let aggregate = Aggregate::Plugin(PluginAggregate::new(runner, plan.own_columns()));
    WindowStage::new(Arc::new(plan), aggregate)
}

fn with_functions(window: &WindowConfig) -> WindowStage {
    let count = ("n".to_owned(), Function::Count);
    assert!(matches!(&window.aggregate, AggregateConfig::Functions(functions) if functions.contains(&count)));
    let (plan, _) = WindowPlan::new(window, Role::Whole, &[]);
    let functions = WindowPlan::functions(window).expect("functions");
    WindowStage::new(Arc::new(plan), Aggregate::Functions(functions))
}

#[derive(Clone)]
struct Event {
    t: i64,
    k: &'static str,
    spent: i64,
}

fn stream(seed: u64) -> Vec<Event> {
    let mut chance = Chance::new(seed);
    let mut now = 1_000;
    (0..200)
        .map(|_| {
            now += chance.below(12) as i64;
            let behind = if chance.below(8) == 0 { chance.below(150) } else { chance.below(15) } as i64;
            Event { t: now - behind, k: ["a", "b", "c"][chance.below(3)], spent: chance.below(16) as i64 }
        })
        .collect()
}

/// Runs events; returns the rows and the places and codes of those rejected.
fn run(stage: &mut WindowStage, events: &[Event], first: usize) -> (Vec<Value>, Vec<(usize, String)>) {
    let cells = vec![Cell::Valid; events.len()];
    let mut keys = Column::new(ColumnType::Json);
    if let ColumnData::Packed(packed) = &mut keys.data {
        events.iter().for_each(|event| packed.push(format!("\"{}\"", event.k).as_bytes()));
    }
    keys.cells.clone_from(&cells);
    let times = events.iter().map(|event| event.t * 1_000).collect();
    let times = Column { cells: cells.clone(), data: ColumnData::Int64(times) };
    let spent = Column { cells, data: ColumnData::Int64(events.iter().map(|event| event.spent).collect()) };
    let columns = [&keys, &times, &spent];
    let (keys, values, headers, timestamps_ms) = (None, None, None, None);
    let input = StageInput { rows: events.len(), columns: &columns, keys, values, headers, timestamps_ms };
    let offsets: Vec<i64> = (first..first + events.len()).map(|offset| offset as i64).collect();
    let mut out = StageOutput::default();
    stage.run(&input, &offsets, &mut out).expect("no trouble of the host's");
    let rejected = out.rejections.iter().map(|why| (first + why.row, why.code.clone())).collect();
    let verdicts = out.verdicts.iter().filter(|verdict| **verdict == Verdict::Reject).count();
    assert_eq!(verdicts, out.rejections.len());
    let row = |row| serde_json::from_slice(out.emitted.values.get(row).expect("a value")).expect("a row is JSON");
    ((0..out.emitted.len()).map(row).collect(), rejected)
}

#[test]
fn a_plugin_gives_what_functions_give_as_if_the_rows_that_it_rejects_were_not_there() {
    let runtime = Runtime::new(RuntimeConfig::default()).expect("a runtime");
    let plugin = runtime.load(&guest("tally"), "tally").expect("it is whole");
    for (number, kind) in KINDS.iter().enumerate() {
        for seed in 0..6 {
            let window = window(kind);
            let events = stream(seed * 10 + number as u64);
            let (found, rejected) = rough_ride(with_plugin(&window, &plugin), &events, seed);
            let unlucky = |(_, code): &&(usize, String)| code == "unlucky";
            let unlucky: Vec<usize> = rejected.iter().filter(unlucky).map(|(row, _)| *row).collect();
            assert!(!unlucky.is_empty() && unlucky.iter().all(|&row| events[row].spent == 13), "{kind}");
            let mut functions = with_functions(&window);
            let mut expected = Vec::new();
            let mut late = Vec::new();
            for (offset, event) in events.iter().enumerate().filter(|(offset, _)| !unlucky.contains(offset)) {
                let (rows, turned_away) = run(&mut functions, std::slice::from_ref(event), offset);
                expected.extend(rows);
                late.extend(turned_away);
            }
            let found: Vec<Value> = found.into_iter().map(without_maker).collect();
            assert_eq!(found, expected, "{kind} seed {seed}");
            let others: Vec<_> = rejected.into_iter().filter(|(row, _)| !unlucky.contains(row)).collect();
            assert_eq!(others, late, "{kind} seed {seed}: late");
        }
    }
}

fn without_maker(mut row: Value) -> Value {
    assert_eq!(row["made_by"], 1);
    row.as_object_mut().expect("an object").remove("made_by");
    row
}

/// Runs a stream in pieces, some of which are undone.
fn rough_ride(mut stage: WindowStage, events: &[Event], seed: u64) -> (Vec<Value>, Vec<(usize, String)>) {
    let mut chance = Chance::new(!seed);
    stage.begin(0);
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    let mut pending = (Vec::new(), Vec::new());
    let (mut committed, mut position) = (0, 0);
    while committed < events.len() {
        let to = (position + 1 + chance.below(20)).min(events.len());
        let (new_rows, new_rejected) = run(&mut stage, &events[position..to], position);
        pending.0.extend(new_rows);
        pending.1.extend(new_rejected);
        position = to;
        match chance.below(3) {
            0 => {
                stage.undo();
                position = committed;
                pending = (Vec::new(), Vec::new());
            }
            1 => {
                stage.tell(position as i64, (0, 1), &mut StateRows::default());
                stage.commit();
                stage.end_block();
                committed = position;
                rows.append(&mut pending.0);
                rejected.append(&mut pending.1);
            }
            _ => {}
        }
    }
    (rows, rejected)
}

#[test]
fn what_a_plugins_windows_hold_is_told_and_changes_nothing() {
    let runtime = Runtime::new(RuntimeConfig::default()).expect("a runtime");
    let plugin = runtime.load(&guest("tally"), "tally").expect("it is whole");
    let mut compared = 0;
    for kind in KINDS {
        let window = window(kind);
        let events: Vec<Event> = stream(7).into_iter().filter(|event| event.spent != 13).collect();
        let (before, after) = events.split_at(100);
        let (mut asked, mut other) = (with_plugin(&window, &plugin), with_plugin(&window, &plugin));
        let mut functions = with_functions(&window);
        for stage in [&mut asked, &mut other, &mut functions] {
            run(stage, before, 0);
        }
        for key in ["a", "b", "c"].into_iter().flat_map(|key| keys_of(key, 1)) {
            let told = |stage: &mut WindowStage| -> Vec<(i64, i64, bool, Value)> {
                let held = stage.ask(&key, 100).expect("an answer");
                assert!(!held.more, "{kind}");
                let row = |row: Result<Vec<u8>, String>| serde_json::from_slice(&row.expect("a row")).expect("JSON");
                held.windows.into_iter().map(|of| (of.start_us, of.end_us, of.open, row(of.row))).collect()
            };
            let found: Vec<_> = told(&mut asked)
                .into_iter()
                .map(|(start, end, open, row)| (start, end, open, without_maker(row)))
                .collect();
            compared += found.len();
            assert_eq!(found, told(&mut functions), "{kind}");
        }
        assert_eq!(run(&mut asked, after, 100), run(&mut other, after, 100), "{kind}");
    }
    assert!(compared > 10, "{compared}");
}
