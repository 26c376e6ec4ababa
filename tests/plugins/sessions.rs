//! Sessions, through the real host: what a plain computation of their events gives, however they come.

use millstream::plugin::{
    AggregateRunner, FinishWindows, Finished, Folded, Limits, Merged, Migrated, Runtime, RuntimeConfig, StageInput,
};
use millstream::record::{Cell, Column, ColumnData, ColumnType, Op, OptionalBytes, Packed, TimestampEncoding};

use crate::guests;

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

#[derive(Clone, Debug)]
struct Event {
    session: usize,
    micros: i64,
    id: String,
    name: &'static str,
    channel: Option<&'static str>,
}

fn events(dice: &mut Dice, count: usize, sessions: usize) -> Vec<Event> {
    let names = ["search", "quote_view", "click \"ä\"", "purchase"];
    let channels = [None, Some("direct"), Some("email"), Some("search")];
    let event = |row: usize, dice: &mut Dice| Event {
        session: dice.roll(sessions),
        // Few times, so that ids decide often.
        micros: dice.roll(120) as i64 * 500_000,
        id: format!("{row:06}"),
        name: names[if dice.roll(40) == 0 { 3 } else { dice.roll(3) }],
        channel: channels[dice.roll(4)],
    };
    let mut events: Vec<Event> = (0..count).map(|row| event(row, dice)).collect();
    (1..count).rev().for_each(|last| events.swap(last, dice.roll(last + 1)));
    events
}

/// A session's row: duration, events, sequence, first touch, purchase.
type Row = (f64, i64, String, Option<String>, bool);

/// The row as it is computed of all events at once.
fn plain(events: &[Event], session: usize) -> Row {
    let mut events: Vec<&Event> = events.iter().filter(|event| event.session == session).collect();
    events.sort_by_key(|event| (event.micros, &event.id, event.name));
    let (first, last) = (events.first().expect("an event"), events.last().expect("an event"));
    let names: Vec<&str> = events.iter().take(256).map(|event| event.name).collect();
    let channel = events.iter().find_map(|event| event.channel);
    (
        (last.micros - first.micros) as f64 / 1e6,
        events.len() as i64,
        serde_json::to_string(&names).expect("texts"),
        channel.map(str::to_owned),
        events.iter().any(|event| event.name == "purchase"),
    )
}

fn runner(config: &str, rows_per_call: u32) -> AggregateRunner {
    let runtime = Runtime::new(RuntimeConfig { instances: 4, ..RuntimeConfig::default() }).expect("a runtime");
    let plugin = runtime.load(&guests::guest("sessions"), "sessions").expect("it keeps the contract");
    AggregateRunner::new(plugin, config, Limits { rows_per_call, ..Limits::default() }).expect("it starts")
}

fn fold(runner: &mut AggregateRunner, events: &[Event], states: &OptionalBytes) -> Folded {
    let time = ColumnType::Timestamp(TimestampEncoding::Rfc3339);
    let types = [ColumnType::Text, time, ColumnType::Text, ColumnType::Text];
    assert_eq!(runner.descriptor().reads.iter().map(|read| read.ty).collect::<Vec<_>>(), types);
    let mut columns = types.map(Column::new);
    for event in events {
        for (column, text) in columns.iter_mut().zip([Some(event.name), None, Some(&event.id), event.channel]) {
            match (&mut column.data, text) {
                (ColumnData::Packed(texts), Some(text)) => texts.push(text.as_bytes()),
                (ColumnData::Int64(times), _) => times.push(event.micros),
                (data, _) => {
                    data.push_default();
                    column.cells.push(Cell::Missing);
                    continue;
                }
            }
            column.cells.push(Cell::Valid);
        }
    }
    let columns: Vec<&Column> = columns.iter().collect();
    let groups: Vec<u32> = events.iter().map(|event| event.session as u32).collect();
    let (keys, values, headers, timestamps_ms) = (None, None, None, None);
    let input = StageInput { rows: events.len(), columns: &columns, keys, values, headers, timestamps_ms };
    let mut out = Folded::default();
    runner.fold(&input, &groups, states, &mut out).expect("no trouble of the host's");
    assert_eq!(out.faults.total(), 0, "{:?}", out.rejections);
    out
}

fn none(sessions: usize) -> OptionalBytes {
    let mut states = OptionalBytes::default();
    (0..sessions).for_each(|_| states.push(None));
    states
}

/// Merges what two sides know of the same sessions.
fn merge(runner: &mut AggregateRunner, left: &OptionalBytes, right: &OptionalBytes) -> OptionalBytes {
    let (mut lefts, mut rights) = (Packed::default(), Packed::default());
    let pairs = || left.iter().zip(right.iter());
    for (left, right) in pairs().filter_map(|(left, right)| left.zip(right)) {
        lefts.push(left);
        rights.push(right);
    }
    let mut out = Merged::default();
    runner.merge(&lefts, &rights, &mut out).expect("no trouble of the host's");
    assert_eq!(out.faulted, []);
    let mut merged = out.states.iter();
    let mut all = OptionalBytes::default();
    for (left, right) in pairs() {
        all.push(if left.and(right).is_some() { merged.next() } else { left.or(right) });
    }
    all
}

fn rows(runner: &mut AggregateRunner, states: &Packed) -> Vec<Row> {
    let count = states.len();
    let mut keys = Packed::default();
    (0..count).for_each(|row| keys.push(format!("[{row}]").as_bytes()));
    let windows = FinishWindows { starts_us: vec![0; count], ends_us: vec![1; count], keys };
    let mut out = Finished::default();
    runner.finish(&windows, states, &mut out).expect("no trouble of the host's");
    assert_eq!(out.faulted, []);
    let names: Vec<&str> = runner.descriptor().writes.iter().map(|write| write.path.as_str()).collect();
    assert_eq!(names, ["/duration_s", "/events", "/event_sequence", "/first_touch", "/has_purchase"]);
    let data: Vec<&ColumnData> = out.writes.iter().map(|write| &write.data).collect();
    let [
        ColumnData::Float64(durations),
        ColumnData::Int64(events),
        ColumnData::Packed(sequences),
        ColumnData::Packed(touches),
        ColumnData::Bool(purchases),
    ] = data[..]
    else {
        panic!("columns of other types")
    };
    let text = |packed: &Packed, row| String::from_utf8(packed.get(row).to_vec()).expect("checked");
    let touch = |row: usize| match out.writes[3].ops[row] {
        Op::Set => Some(text(touches, row)),
        op => {
            assert_eq!(op, Op::Null);
            None
        }
    };
    let row = |row| (durations[row], events[row], text(sequences, row), touch(row), purchases.get(row));
    (0..count).map(row).collect()
}

fn packed(states: &OptionalBytes) -> Packed {
    let mut packed = Packed::default();
    states.iter().flatten().for_each(|state| packed.push(state));
    packed
}

/// Some sessions have more events than a row tells, and every third event comes by another partition.
#[test]
fn sessions_are_those_of_a_plain_computation_however_events_come_and_states_are_merged() {
    for seed in 0..8 {
        let mut dice = Dice(seed);
        let sessions = [1, 5, 60, 400][dice.roll(4)];
        let events = events(&mut dice, 3_000, sessions);
        let mut runner = runner("{}", 1 + dice.roll(600) as u32);
        let mut sides = [none(sessions), none(sessions)];
        let mut start = 0;
        while start < events.len() {
            let end = events.len().min(start + 1 + dice.roll(500));
            let side = usize::from(dice.roll(3) == 0);
            let out = fold(&mut runner, &events[start..end], &sides[side]);
            assert_eq!(out.rejections, []);
            sides[side] = out.states;
            runner.end_block();
            start = end;
        }
        let turn = dice.roll(2);
        let states = merge(&mut runner, &sides[turn], &sides[1 - turn]);
        let found = rows(&mut runner, &packed(&states));
        let known: Vec<usize> = (0..sessions).filter(|&session| states.valid.get(session)).collect();
        let expected: Vec<Row> = known.iter().map(|&session| plain(&events, session)).collect();
        assert_eq!(found, expected, "seed {seed}");
    }
}

/// A session of version 1: events, last time, events' times and types, purchase.
fn of_version_1(events: &[(u8, &str)]) -> Vec<u8> {
    // Seconds as microseconds, by seven bits a byte, twice as large for the sign.
    let time = |second: u8| {
        let mut left = u64::from(second) * 2_000_000;
        let mut bytes = Vec::new();
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        bytes
    };
    let last = events.last().expect("an event").0;
    let mut bytes = [&[events.len() as u8, 1][..], &time(last), &[events.len() as u8]].concat();
    for (second, name) in events {
        bytes.extend([&time(*second)[..], &[name.len() as u8], name.as_bytes()].concat());
    }
    bytes.push(u8::from(events.iter().any(|event| event.1 == "purchase")));
    bytes
}

#[test]
fn sessions_of_version_1_go_on_in_version_2() {
    let mut runner = runner("{}", 512);
    assert_eq!((runner.descriptor().state_version, &runner.descriptor().migrates_from[..]), (2, &[1][..]));
    let mut old = Packed::default();
    old.push(&of_version_1(&[(1, "search"), (3, "purchase")]));
    old.push(&of_version_1(&[(7, "search")]));
    let mut out = Migrated::default();
    runner.migrate(1, &old, &mut out).expect("no trouble of the host's");
    assert_eq!(out.refused, None);
    let mut states = OptionalBytes::default();
    out.states.iter().for_each(|state| states.push(Some(state)));
    let late = Event { session: 1, micros: 500_000, id: "x".into(), name: "click", channel: Some("email") };
    let folded = fold(&mut runner, &[late], &states);
    let found = rows(&mut runner, &packed(&folded.states));
    let row = |seconds, events, names: &str, channel: Option<&str>, purchase| {
        (seconds, events, names.to_owned(), channel.map(str::to_owned), purchase)
    };
    let expected = [
        row(2.0, 2, r#"["search","purchase"]"#, None, true),
        row(6.5, 2, r#"["click","search"]"#, Some("email"), false),
    ];
    assert_eq!(found, expected);

    old.push(b"no session");
    runner.migrate(1, &old, &mut out).expect("no trouble of the host's");
    assert!(out.refused.expect("one can't be read").contains("no session of version 1"));
}

/// As where a state was kept by something else than the plugin.
#[test]
fn a_state_that_is_no_session_costs_its_own_events() {
    let mut runner = runner("{}", 512);
    let mut states = none(2);
    states.push(Some(b"\xff\xff"));
    let events: Vec<Event> = events(&mut Dice(1), 300, 3);
    let out = fold(&mut runner, &events, &states);
    let rejected: Vec<(usize, &str)> = out.rejections.iter().map(|why| (why.row, why.code.as_str())).collect();
    let of_the_third = (0..300).filter(|&row| events[row].session == 2);
    assert_eq!(rejected, of_the_third.map(|row| (row, "unreadable_state")).collect::<Vec<_>>());
    assert_eq!(out.states.get(2), Some(&b"\xff\xff"[..]));
    let mut good = OptionalBytes::default();
    (0..2).for_each(|session| good.push(out.states.get(session)));
    assert_eq!(rows(&mut runner, &packed(&good)), [plain(&events, 0), plain(&events, 1)]);
}
