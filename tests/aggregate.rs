//! The promises of aggregates: rows come to the same result however they are cut, and what misbehaves costs the row, the
//! pair or the state that did it and nothing else.

#[path = "harness/guests.rs"]
mod guests;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use millstream::plugin::{
    AggregateRunner, FaultKind, FinishWindows, Finished, Folded, Limits, Merged, Migrated, Plugin, PluginError,
    Rejection, Runtime, RuntimeConfig, StageError, StageInput, StageRunner, World,
};
use millstream::record::{Cell, Column, ColumnData, ColumnType, Op, OptionalBytes, Packed};

/// What each order of `tests/hostile/aggregate` comes to while a row is folded.
const HOSTILE: [(&str, FaultKind); 14] = [
    ("trap", FaultKind::Trap),
    ("loop", FaultKind::Deadline),
    ("bomb", FaultKind::Memory),
    ("stack", FaultKind::Stack),
    ("huge", FaultKind::BadOutput),
    ("fewer", FaultKind::BadOutput),
    ("more", FaultKind::BadOutput),
    ("none", FaultKind::BadOutput),
    ("ends", FaultKind::BadOutput),
    ("beyond", FaultKind::BadOutput),
    ("bitmap", FaultKind::BadOutput),
    ("twice", FaultKind::BadOutput),
    ("nobody", FaultKind::BadOutput),
    ("code", FaultKind::BadOutput),
];

fn plugin(package: &str) -> Plugin {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::new(RuntimeConfig::default()).expect("a runtime"));
    runtime.load(&guests::guest(package), package).expect("it keeps the contract's letter")
}

fn hostile() -> Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| plugin("hostile-aggregate")).clone()
}

fn runner(limits: Limits) -> AggregateRunner {
    let plugin = hostile();
    let since = Instant::now();
    while !plugin.judge_ready() {
        assert!(since.elapsed() < Duration::from_secs(120), "the judge's artefact does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    AggregateRunner::new(plugin, "", limits).expect("it starts")
}

/// Short of patience, so that loops end soon.
fn limits() -> Limits {
    Limits { fuel_per_record: 20_000_000, output_bytes: 1 << 20, state_bytes: 512 << 10, ..Limits::default() }
}

/// Numbers that look random; splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}

/// A row: its group, its number, and an order where it is not empty.
type Row = (u32, i64, &'static str);

/// Rows of seven groups, which all have the same number of rows before `at` as behind.
fn rows(count: usize) -> Vec<Row> {
    (0..count).map(|row| (row as u32 % 7, row as i64 * 3 - 100, "")).collect()
}

fn with(order: &'static str, at: usize, count: usize) -> Vec<Row> {
    let mut rows = rows(count);
    rows[at].2 = order;
    rows
}

/// A state of the hostile aggregate.
fn state(sum: i64, count: u64, later: &str) -> Vec<u8> {
    [&[2][..], &sum.to_le_bytes(), &count.to_le_bytes(), later.as_bytes()].concat()
}

/// States of rows that behave, of so many groups.
fn expected(rows: &[Row], groups: usize) -> Vec<Option<Vec<u8>>> {
    let mut sums: Vec<Option<(i64, u64, &str)>> = vec![None; groups];
    for &(group, number, order) in rows.iter().filter(|row| row.2 != "reject") {
        let (sum, count, later) = sums[group as usize].get_or_insert_default();
        (*sum, *count) = (*sum + number, *count + 1);
        *later = order.strip_prefix("later ").unwrap_or(later);
    }
    sums.into_iter().map(|sum| sum.map(|(sum, count, later)| state(sum, count, later))).collect()
}

fn optional(states: &[Option<Vec<u8>>]) -> OptionalBytes {
    let mut all = OptionalBytes::default();
    states.iter().for_each(|state| all.push(state.as_deref()));
    all
}

fn packed<'a>(rows: impl IntoIterator<Item = &'a [u8]>) -> Packed {
    let mut all = Packed::default();
    rows.into_iter().for_each(|row| all.push(row));
    all
}

fn listed(states: &OptionalBytes) -> Vec<Option<Vec<u8>>> {
    states.iter().map(|state| state.map(<[u8]>::to_vec)).collect()
}

fn fold(runner: &mut AggregateRunner, rows: &[Row], states: &OptionalBytes) -> Folded {
    let (mut numbers, mut orders) = (Column::new(ColumnType::Int64), Column::new(ColumnType::Text));
    for &(_, number, order) in rows {
        if let ColumnData::Int64(numbers) = &mut numbers.data {
            numbers.push(number);
        }
        numbers.cells.push(Cell::Valid);
        match &mut orders.data {
            ColumnData::Packed(orders) if !order.is_empty() => orders.push(order.as_bytes()),
            data => data.push_default(),
        }
        orders.cells.push(if order.is_empty() { Cell::Missing } else { Cell::Valid });
    }
    let groups: Vec<u32> = rows.iter().map(|row| row.0).collect();
    let columns = [&numbers, &orders];
    let (keys, values, headers, timestamps_ms) = (None, None, None, None);
    let input = StageInput { rows: rows.len(), columns: &columns, keys, values, headers, timestamps_ms };
    let mut out = Folded::default();
    runner.fold(&input, &groups, states, &mut out).expect("no trouble of the host's");
    out
}

/// Folds rows into new states of seven groups.
fn fold_new(runner: &mut AggregateRunner, rows: &[Row]) -> Folded {
    fold(runner, rows, &optional(&[const { None }; 7]))
}

fn finish(runner: &mut AggregateRunner, states: &Packed) -> Finished {
    let mut windows = FinishWindows::default();
    for row in 0..states.len() as i64 {
        windows.starts_us.push(row * 1_000);
        windows.ends_us.push(row * 1_000 + 500);
        windows.keys.push(format!("[\"ä\",{row}]").as_bytes());
    }
    let mut out = Finished::default();
    runner.finish(&windows, states, &mut out).expect("no trouble of the host's");
    out
}

/// The rows that states were finished into: sum, count and window; nothing where nothing was written.
fn finished(out: &Finished) -> Vec<Option<(i64, i64, String)>> {
    let [sums, counts, windows] = &out.writes[..] else { panic!("{} writes", out.writes.len()) };
    let (ColumnData::Int64(sum), ColumnData::Int64(count), ColumnData::Packed(window)) =
        (&sums.data, &counts.data, &windows.data)
    else {
        panic!("columns of other types")
    };
    let row = |row: usize| {
        let ops = [sums.ops[row], counts.ops[row], windows.ops[row]];
        assert!(ops == [Op::Set; 3] || ops == [Op::Keep; 3], "{ops:?}");
        let text = || String::from_utf8(window.get(row).to_vec()).expect("checked");
        (ops[0] == Op::Set).then(|| (sum[row], count[row], text()))
    };
    (0..sums.ops.len()).map(row).collect()
}

fn window_of(row: usize) -> String {
    format!("{}..{} [\"ä\",{row}]", row * 1_000, row * 1_000 + 500)
}

fn codes(rejections: &[Rejection]) -> Vec<(usize, &str)> {
    rejections.iter().map(|rejection| (rejection.row, rejection.code.as_str())).collect()
}

/// Batches of any size, states handed from one to the next, groups whose rows went to two states: the rows are those of a
/// plain sum.
#[test]
fn however_rows_are_cut_and_states_merged_the_result_is_the_same() {
    for seed in 0..20 {
        let mut dice = Dice(seed);
        let groups = 1 + dice.roll(300);
        let rows: Vec<Row> = (0..2_000).map(|_| (dice.roll(groups) as u32, dice.roll(1_000) as i64, "")).collect();
        let mut runner = runner(Limits { rows_per_call: 1 + dice.roll(700) as u32, ..limits() });
        let mut sides = [optional(&vec![None; groups]), optional(&vec![None; groups])];
        let mut start = 0;
        while start < rows.len() {
            let end = rows.len().min(start + 1 + dice.roll(900));
            // The first thousand rows go to the left.
            let side = usize::from(start >= 1_000);
            let out = fold(&mut runner, &rows[start..end], &sides[side]);
            assert_eq!((out.rejections.len(), out.faults.total(), out.batch_faults), (0, 0, 0));
            sides[side] = out.states;
            start = end;
            if dice.roll(3) == 0 {
                runner.end_block();
            }
        }
        let both: Vec<usize> = (0..groups).filter(|&group| sides.iter().all(|side| side.valid.get(group))).collect();
        let side = |side: &OptionalBytes| packed(both.iter().map(|&group| side.packed.get(group)));
        let mut merged = Merged::default();
        runner.merge(&side(&sides[0]), &side(&sides[1]), &mut merged).expect("no trouble of the host's");
        assert!(merged.faulted.is_empty() && merged.states.len() == both.len());
        let mut all = listed(&sides[0]);
        for (state, right) in all.iter_mut().zip(sides[1].iter()).filter(|(state, _)| state.is_none()) {
            *state = right.map(<[u8]>::to_vec);
        }
        both.iter().zip(merged.states.iter()).for_each(|(&group, state)| all[group] = Some(state.to_vec()));
        assert_eq!(all, expected(&rows, groups), "seed {seed}");

        let states = packed(all.iter().flatten().map(Vec::as_slice));
        let found = finished(&finish(&mut runner, &states));
        let sums = (0..groups as u32).map(|group| rows.iter().filter(move |row| row.0 == group));
        let sums = sums.filter(|rows| rows.clone().count() > 0).enumerate();
        let plain = |(row, rows): (usize, Vec<&Row>)| {
            Some((rows.iter().map(|row| row.1).sum(), rows.len() as i64, window_of(row)))
        };
        let plain: Vec<_> = sums.map(|(row, rows)| plain((row, rows.collect()))).collect();
        assert_eq!(found, plain, "seed {seed}");
    }
}

/// The states are those that there would be without the row.
#[test]
fn each_kind_of_misbehaviour_costs_its_own_row_and_no_other() {
    let (at, count) = (700, 1_100);
    let mut without = rows(count);
    without.remove(at);
    let without = expected(&without, 7);
    let mut runner = runner(limits());
    for (order, kind) in HOSTILE {
        let out = fold_new(&mut runner, &with(order, at, count));
        assert_eq!(codes(&out.rejections), [(at, kind.code())], "{order}");
        assert_eq!(out.rejections[0].fault, Some(kind), "{order}");
        assert_eq!((out.faults.total(), out.batch_faults), (1, 0), "{order}");
        assert!(listed(&out.states) == without, "{order}: another state changed");
    }
    assert_eq!(runner.usage().faults.total(), HOSTILE.len() as u64);
}

#[test]
fn many_in_one_batch_cost_as_many() {
    let orders = ["", "trap", "fewer", "reject", "later x"];
    let rows: Vec<Row> = rows(512).into_iter().enumerate().map(|(i, row)| (row.0, row.1, orders[i % 5])).collect();
    let out = fold_new(&mut runner(limits()), &rows);
    let bad = |row: &Row| ["trap", "fewer", "reject"].contains(&row.2);
    let rejected: Vec<usize> = (0..rows.len()).filter(|&row| bad(&rows[row])).collect();
    assert_eq!(out.rejections.iter().map(|rejection| rejection.row).collect::<Vec<_>>(), rejected);
    assert_eq!((out.rejections[0].code.as_str(), out.rejections[2].code.as_str()), ("plugin_trap", "as_told"));
    assert_eq!((out.faults.trap, out.faults.bad_output), (103, 102));
    let good: Vec<Row> = rows.into_iter().filter(|row| !bad(row)).collect();
    assert!(listed(&out.states) == expected(&good, 7));
}

/// A group whose rows are all rejected keeps what it had, be that nothing.
#[test]
fn a_rejected_row_leaves_no_trace() {
    let given = optional(&[None, Some(state(5, 1, "")), Some(state(7, 2, ""))]);
    let rows = [(0, 1, "reject"), (1, 1, "reject"), (1, 1, "trap"), (2, 10, "")];
    let out = fold(&mut runner(limits()), &rows, &given);
    assert_eq!(codes(&out.rejections), [(0, "as_told"), (1, "as_told"), (2, "plugin_trap")]);
    assert_eq!(listed(&out.states), [None, Some(state(5, 1, "")), Some(state(17, 3, ""))]);
}

#[test]
fn a_new_group_without_a_state_is_a_broken_contract_and_an_old_one_unchanged() {
    let mut runner = runner(limits());
    let out = fold_new(&mut runner, &[(3, 1, "null"), (4, 1, "")]);
    assert_eq!(codes(&out.rejections), [(0, "plugin_bad_output")]);
    assert!(out.rejections[0].detail.contains("no state of a new group"), "{}", out.rejections[0].detail);
    let given = optional(&[Some(state(5, 1, ""))]);
    let out = fold(&mut runner, &[(0, 1, "null")], &given);
    assert_eq!((out.rejections.len(), out.states), (0, given));
}

/// The clock only raises a suspicion, and where a batch is cut changes nothing.
#[test]
fn no_verdict_and_no_state_depends_on_the_clock_or_the_cut() {
    let mut all = rows(64);
    for (at, order) in
        [(3, "slow"), (9, "trap"), (20, "loop"), (33, "bomb"), (50, "stack"), (51, "swell"), (52, "grow")]
    {
        all[at].2 = order;
    }
    let run = |suspect_ms, rows_per_call| {
        let suspect_after = Duration::from_millis(suspect_ms);
        let limits = Limits { suspect_after, rows_per_call, fuel_per_record: 400_000_000, ..limits() };
        let out = fold_new(&mut runner(limits), &all);
        let said: Vec<_> = out.rejections.iter().map(|r| (r.row, r.code.clone(), r.detail.clone())).collect();
        (listed(&out.states), said, out.faults)
    };
    let hasty = run(1, 512);
    assert_eq!(hasty.1.iter().map(|r| r.0).collect::<Vec<_>>(), [9, 20, 33, 50, 51]);
    assert!(hasty == run(1_000, 512) && hasty == run(1, 1) && hasty == run(1_000, 7));
}

#[test]
fn a_state_grows_to_its_limit_and_no_further() {
    let out = fold_new(&mut runner(limits()), &with("swell", 20, 40));
    assert_eq!(codes(&out.rejections), [(20, "state_too_large")]);
    let detail = &out.rejections[0].detail;
    assert!(detail.contains("614417 bytes") && detail.contains("allows 524288"), "{detail}");
    assert_eq!((out.rejections[0].fault, out.faults.total(), out.batch_faults), (None, 0, 0));
    let mut without = rows(40);
    without.remove(20);
    assert!(listed(&out.states) == expected(&without, 7));
    let roomy = Limits { output_bytes: 2 << 20, state_bytes: 1 << 20, ..limits() };
    assert_eq!(fold_new(&mut runner(roomy), &with("swell", 20, 40)).rejections, []);
}

/// Large states are given a few at a time, and outdated ones do not pile up.
#[test]
fn large_states_of_many_groups_are_folded_many_times() {
    let grow: Vec<Row> = (0..60).map(|group| (group, 1, "grow")).collect();
    for rows_per_call in [1, 64, 512] {
        let mut runner = runner(Limits { rows_per_call, suspect_after: Duration::from_secs(600), ..limits() });
        let grown = fold(&mut runner, &grow, &optional(&vec![None; 60]));
        assert_eq!(grown.rejections, []);
        let rows: Vec<Row> = (0..600).map(|row| (row * 7 % 60, 1, "")).collect();
        let out = fold(&mut runner, &rows, &grown.states);
        assert_eq!((&out.rejections[..], out.batch_faults), (&[][..], 0), "a call's states fit its output");
        let grown = state(11, 11, &" ".repeat(200 << 10));
        assert!(out.states.iter().all(|state| state == Some(&grown[..])));
    }
}

/// Rows of a group whose state is of another version fail, and say so; the state stays for whoever can read it.
#[test]
fn states_that_are_not_those_of_the_version_cost_their_rows() {
    let old = [&[1][..], &[0; 16]].concat();
    let given = optional(&[Some(old.clone()), Some(state(1, 1, "")), Some(b"\x02half".to_vec())]);
    let rows: Vec<Row> = (0..30).map(|row| (row % 3, 1, "")).collect();
    let out = fold(&mut runner(limits()), &rows, &given);
    let failed: Vec<(usize, &str)> = (0..30).filter(|row| row % 3 != 1).map(|row| (row, "plugin_trap")).collect();
    assert_eq!(codes(&out.rejections), failed);
    assert!(out.rejections[0].detail.contains("a state of version 1 and not 2"), "{}", out.rejections[0].detail);
    assert_eq!(listed(&out.states), [Some(old), Some(state(11, 11, "")), Some(b"\x02half".to_vec())]);
}

#[test]
fn a_pair_that_can_not_be_merged_keeps_its_left_state() {
    let mut runner = runner(limits());
    let ways = [
        ("trap", "plugin_trap"),
        ("loop", "plugin_deadline"),
        ("bomb", "plugin_memory"),
        ("fewer", "plugin_bad_output"),
        ("more", "plugin_bad_output"),
        ("huge", "plugin_bad_output"),
        ("swell", "state_too_large"),
    ];
    for (order, code) in ways {
        let left: Vec<Vec<u8>> = (0..600).map(|pair| state(pair, 1, "")).collect();
        let mut right: Vec<Vec<u8>> = (0..600).map(|pair| state(pair * 10, 2, "")).collect();
        right[333] = state(1, 1, &format!("merge {order}"));
        let mut out = Merged::default();
        let (lefts, rights) = (packed(left.iter().map(|s| &s[..])), packed(right.iter().map(|s| &s[..])));
        runner.merge(&lefts, &rights, &mut out).expect("no trouble of the host's");
        assert_eq!(codes(&out.faulted), [(333, code)], "{order}");
        let merged = |pair: i64| if pair == 333 { state(pair, 1, "") } else { state(pair * 11, 3, "") };
        assert!(out.states.iter().enumerate().all(|(pair, state)| *state == merged(pair as i64)), "{order}");
        assert_eq!(out.states.len(), 600);
    }
}

#[test]
fn a_state_that_can_not_be_finished_has_no_row() {
    let mut runner = runner(limits());
    let ways = [
        ("trap", "plugin_trap"),
        ("loop", "plugin_deadline"),
        ("type", "plugin_bad_output"),
        ("rows", "plugin_bad_output"),
        ("ops", "plugin_bad_output"),
        ("field", "plugin_bad_output"),
        ("utf8", "plugin_bad_output"),
    ];
    for (order, code) in ways {
        let mut states: Vec<Vec<u8>> = (0..600).map(|row| state(row * 2, 1, "")).collect();
        states[100] = state(1, 1, &format!("finish {order}"));
        let out = finish(&mut runner, &packed(states.iter().map(|state| &state[..])));
        assert_eq!(codes(&out.faulted), [(100, code)], "{order}");
        let rows = |row: usize| (row != 100).then(|| (row as i64 * 2, 1, window_of(row)));
        assert_eq!(finished(&out), (0..600).map(rows).collect::<Vec<_>>(), "{order}");
    }
}

#[test]
fn old_states_are_migrated_all_or_not_at_all() {
    let mut runner = runner(limits());
    let mut migrate = |from_version, sums: &[i64]| {
        let states: Vec<[u8; 8]> = sums.iter().map(|sum| sum.to_le_bytes()).collect();
        let mut out = Migrated::default();
        let states = packed(states.iter().map(|state| &state[..]));
        runner.migrate(from_version, &states, &mut out).expect("no trouble of the host's");
        out
    };
    let mut sums: Vec<i64> = (0..2_000).collect();
    let out = migrate(1, &sums);
    assert_eq!(out.refused, None);
    assert!(out.states.iter().enumerate().all(|(row, found)| *found == state(row as i64, 0, "")));
    assert_eq!(out.states.len(), 2_000);

    sums[1_500] = -2;
    let out = migrate(1, &sums);
    let why = out.refused.expect("it traps");
    assert!(why.starts_with("plugin_trap") && why.contains("a sum of -2 is too much"), "{why}");
    sums[1_000] = -1;
    let out = migrate(1, &sums);
    assert_eq!(out.refused.as_deref(), Some("a sum of -1 is none"));
    assert!(out.states.is_empty(), "none is migrated where one is refused");
    let why = migrate(7, &[1]).refused.expect("it knows no such version");
    assert!(why.contains("version 7") && why.contains("makes version 2 and migrates from 1"), "{why}");
}

#[test]
fn a_component_of_the_other_world_is_refused_with_the_place_that_wants_it() {
    let transform = plugin("hostile");
    assert_eq!((transform.world(), hostile().world()), (World::Transform, World::Aggregate));
    let error = AggregateRunner::new(transform, "", limits()).map(|_| ()).expect_err("it is a transform").to_string();
    let wanted =
        "`window.aggregate.plugin` needs a component of the world `aggregate`; `hostile` is one of `transform`";
    assert_eq!(error, wanted);
    let error = StageRunner::new(hostile(), "", limits()).map(|_| ()).expect_err("it is an aggregate").to_string();
    assert!(error.starts_with("a stage's `plugin` needs a component of the world `transform`"), "{error}");
}

#[test]
fn an_aggregate_that_does_not_start_says_why() {
    let start = |config: &str, limits| AggregateRunner::new(hostile(), config, limits).map(|_| ()).expect_err(config);
    assert!(matches!(start("refuse", limits()), PluginError::Config { message, .. } if message.contains("another")));
    assert!(
        matches!(start("nested", limits()), PluginError::Descriptor { reason, .. } if reason.contains("one level"))
    );
    for state_bytes in [0, (512 << 10) + 1] {
        let error = start("", Limits { state_bytes, ..limits() });
        assert!(matches!(&error, PluginError::Limits(why) if why.contains("from 1 to 524288")), "{error}");
    }
}

#[test]
fn groups_pairs_and_windows_that_do_not_fit_are_the_hosts_mistake() {
    let mut runner = runner(limits());
    let (numbers, orders) = (Column::new(ColumnType::Int64), Column::new(ColumnType::Text));
    let input = |rows| StageInput { rows, columns: &[], keys: None, values: None, headers: None, timestamps_ms: None };
    let empty = StageInput { columns: &[&numbers, &orders], ..input(0) };
    let mistake = |result: Result<(), StageError>| assert!(matches!(result, Err(StageError::Input(_))), "{result:?}");
    let (states, mut out) = (optional(&[None]), Folded::default());
    mistake(runner.fold(&input(1), &[0], &states, &mut out));
    mistake(runner.fold(&empty, &[0], &states, &mut out));
    runner.fold(&empty, &[], &states, &mut out).expect("nothing to fold is no mistake");
    assert_eq!(out.states, states);
    let one = packed([&state(1, 1, "")[..]]);
    mistake(runner.merge(&one, &Packed::default(), &mut Merged::default()));
    mistake(runner.finish(&FinishWindows::default(), &one, &mut Finished::default()));
}

/// `cargo test --release --test aggregate figures -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn figures() {
    for groups in [1, 64, 4_096] {
        let mut runner = runner(Limits::default());
        let rows: Vec<Row> = (0..8_192).map(|row| (row % groups, i64::from(row), "")).collect();
        let mut states = optional(&vec![None; groups as usize]);
        let mut best = Duration::MAX;
        for _ in 0..30 {
            let since = Instant::now();
            states = fold(&mut runner, &rows, &states).states;
            best = best.min(since.elapsed());
        }
        println!("{groups} groups: {:?} a row, making the columns included", best / rows.len() as u32);
    }
}
