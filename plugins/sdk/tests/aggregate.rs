//! What an aggregate's structs and functions say is what goes over the contract.

use std::collections::{BTreeMap, BTreeSet};

use millstream_sdk::bindings::millstream::plugin::types::{
    Batch, Column, ColumnData, Folded, OptionalBytes, Packed, Windows,
};
use millstream_sdk::guest_aggregate::{self, Started};
use millstream_sdk::json::Value;
use millstream_sdk::prelude::*;
use millstream_sdk::{AggregateDescriptor, ColumnType, Field, TimestampEncoding};

#[derive(State, Default, Debug, Clone, PartialEq)]
struct Everything {
    bool: bool,
    small: (u8, u16, u32, i32),
    large: Vec<u64>,
    signed: Vec<i64>,
    float: Option<f64>,
    text: String,
    at: Timestamp,
    set: BTreeSet<String>,
    map: BTreeMap<i64, (bool, Option<String>)>,
    nested: Option<Nested>,
}

#[derive(State, Default, Debug, Clone, PartialEq)]
struct Nested {
    bytes: Vec<u8>,
}

fn everything() -> Everything {
    Everything {
        bool: true,
        small: (255, 65_535, u32::MAX, i32::MIN),
        large: vec![0, 127, 128, 16_383, 16_384, u64::MAX],
        signed: vec![0, -1, 1, i64::MIN, i64::MAX],
        float: Some(-0.1),
        text: "ä\0\"".into(),
        at: Timestamp::from_millis(-1),
        set: ["b".to_owned(), "a".to_owned()].into(),
        map: [(-5, (false, None)), (7, (true, Some("x".into())))].into(),
        nested: Some(Nested { bytes: vec![0, 255] }),
    }
}

#[test]
fn a_state_comes_back_from_its_bytes_and_from_no_others() {
    for state in [everything(), Everything::default()] {
        let bytes = state.to_bytes();
        assert_eq!(Everything::from_bytes(&bytes), Some(state));
        for length in 0..bytes.len() {
            assert_eq!(Everything::from_bytes(&bytes[..length]), None, "cut off at {length}");
        }
        assert_eq!(Everything::from_bytes(&[&bytes[..], &[0]].concat()), None, "a byte too many");
    }
    assert_eq!(Everything::default().to_bytes().len(), 13, "small values take a byte each");
}

#[test]
fn what_is_no_value_is_refused() {
    assert_eq!(bool::from_bytes(&[2]), None);
    assert_eq!(String::from_bytes(&[1, 0xff]), None, "not UTF-8");
    assert_eq!(u16::from_bytes(&65_536u64.to_bytes()), None);
    assert_eq!(i32::from_bytes(&(i64::from(i32::MAX) + 1).to_bytes()), None);
    assert_eq!(u64::from_bytes(&[0xff; 11]), None, "more than 64 bits");
    assert_eq!(Vec::<u64>::from_bytes(&u64::MAX.to_bytes()), None, "a length is not trusted with memory");
    assert_eq!(String::from_bytes(&u64::MAX.to_bytes()), None);
}

/// Numbers and their texts, none above a limit. It breaks the state before it rejects a row.
#[derive(Config)]
struct Joined {
    #[config(default = 100)]
    most: i64,
    #[config(default = "/at".to_owned())]
    time: String,
}

#[derive(Read)]
struct Number<'a> {
    #[field("/number")]
    number: i64,
    #[field("/text")]
    text: Option<&'a str>,
    #[field("/at")]
    at: Timestamp,
}

#[derive(State, Default)]
struct Numbers {
    sum: i64,
    texts: Vec<String>,
    latest: Option<Timestamp>,
}

#[derive(Write)]
struct Row<'a> {
    #[field("/sum")]
    sum: i64,
    #[field("/first")]
    first: Option<&'a str>,
    #[field("/key")]
    key: Json<&'a str>,
    #[field("/late", epoch_ms)]
    latest: Set<Timestamp>,
    #[field("/minutes")]
    minutes: f64,
}

#[aggregate(version = 3, migrates = [1, 2])]
impl Aggregate for Joined {
    type Event<'a> = Number<'a>;
    type State = Numbers;
    type Row<'a> = Row<'a>;

    fn describe(&self) -> AggregateDescriptor {
        let encoding = ColumnType::Timestamp(TimestampEncoding::EpochS);
        AggregateDescriptor::of::<Self>().field("/at", &self.time, Some(encoding))
    }

    fn fold(&self, state: &mut Numbers, event: Number<'_>) -> Result<(), Reject> {
        state.sum += event.number;
        state.texts.extend(event.text.map(str::to_owned));
        state.latest = state.latest.max(Some(event.at));
        if event.number > self.most { Err(Reject::new("too_many", event.number.to_string())) } else { Ok(()) }
    }

    fn merge(&self, left: &mut Numbers, right: Numbers) {
        left.sum += right.sum;
        left.texts.extend(right.texts);
        left.latest = left.latest.max(right.latest);
    }

    fn finish<'a>(&self, window: &Window<'a>, state: &'a Numbers) -> Row<'a> {
        Row {
            sum: state.sum,
            first: state.texts.first().map(String::as_str),
            key: Json(window.key),
            latest: state.latest.map_or(Set::Remove, Set::To),
            minutes: (window.end.secs() - window.start.secs()) as f64 / 60.0,
        }
    }

    fn migrate(&self, from_version: u32, bytes: &[u8]) -> Result<Numbers, String> {
        let sum = i64::from_bytes(bytes).ok_or("it is no sum")?;
        Ok(Numbers { sum: sum * i64::from(from_version), ..Numbers::default() })
    }
}

fn joined() -> Started<Joined> {
    Started::new(Joined { most: 100, time: "/at".into() })
}

fn packed<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Packed {
    let mut all = Packed { ends: Vec::new(), data: Vec::new() };
    for item in items {
        all.data.extend_from_slice(item);
        all.ends.push(all.data.len() as u32);
    }
    all
}

fn listed(packed: &Packed) -> Vec<&[u8]> {
    let starts = [0].into_iter().chain(packed.ends.iter().copied());
    starts.zip(&packed.ends).map(|(start, end)| &packed.data[start as usize..*end as usize]).collect()
}

fn fold(numbers: &[i64], groups: &[u32], given: &[Option<Vec<u8>>]) -> Folded {
    let column = |data| Column { valid: Vec::new(), null: Vec::new(), data };
    let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
    let columns = vec![
        column(ColumnData::Int64s(numbers.to_vec())),
        column(ColumnData::Packed(packed(texts.iter().map(String::as_bytes)))),
        column(ColumnData::Int64s(numbers.iter().map(|number| number * 1_000_000).collect())),
    ];
    let rows = numbers.len() as u32;
    let batch = Batch { rows, columns, key: None, value: None, headers: None, timestamps_ms: None };
    let mut valid = vec![0; given.len().div_ceil(8)];
    given.iter().enumerate().for_each(|(group, state)| valid[group / 8] |= u8::from(state.is_some()) << (group % 8));
    let bytes = packed(given.iter().map(|state| state.as_deref().unwrap_or_default()));
    joined().fold(batch, groups, &OptionalBytes { valid, bytes })
}

/// Each group's state, taken apart.
fn states(folded: &Folded) -> Vec<Option<(i64, Vec<String>)>> {
    let state = |(group, bytes): (usize, &[u8])| {
        let valid = folded.states.valid[group / 8] >> (group % 8) & 1 == 1;
        valid.then(|| Numbers::from_bytes(bytes).expect("a state")).map(|state| (state.sum, state.texts))
    };
    listed(&folded.states.bytes).into_iter().enumerate().map(state).collect()
}

#[test]
fn the_descriptor_is_what_the_structs_and_the_configuration_say() {
    let described = guest_aggregate::describe::<Joined>(r#"{"time": "/meta/at"}"#).expect("a good configuration");
    assert_eq!((described.name.as_str(), described.version.as_str()), ("millstream-sdk", env!("CARGO_PKG_VERSION")));
    assert_eq!((described.state_version, &described.migrates_from[..]), (3, &[1, 2][..]));
    let said = |field: &Field| (field.path.clone(), format!("{:?}", field.of_type), field.required);
    let reads: Vec<_> = described.reads.iter().map(said).collect();
    assert_eq!(reads[1], ("/text".into(), "ColumnType::Text".into(), false));
    assert!(reads[2].0 == "/meta/at" && reads[2].1.contains("EpochS") && reads[2].2, "{:?}", reads[2]);
    let writes: Vec<_> = described.writes.iter().map(|field| field.path.as_str()).collect();
    assert_eq!(writes, ["/sum", "/first", "/key", "/late", "/minutes"]);
    assert!(guest_aggregate::describe::<Joined>(r#"{"tiem": ""}"#).is_err());
}

#[test]
fn rows_are_folded_into_the_states_of_their_groups() {
    let given = Numbers { sum: 5, texts: vec!["x".into()], latest: None }.to_bytes();
    let folded = fold(&[1, 2, 3], &[1, 0, 1], &[None, Some(given)]);
    assert!(folded.rejections.is_empty());
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(states(&folded), [Some((2, texts(&["2"]))), Some((9, texts(&["x", "1", "3"])))]);
}

/// However many rows are rejected, and whatever their rejection left behind.
#[test]
fn a_rejected_row_leaves_nothing_in_the_state() {
    let numbers: Vec<i64> = (0..300).map(|row| if row % 3 == 1 { 1_000 + row } else { row % 50 }).collect();
    let groups: Vec<u32> = (0..300).map(|row| row % 7 % 4).collect();
    let given = Numbers { sum: 1_000, ..Numbers::default() }.to_bytes();
    let folded = fold(&numbers, &groups, &[None, Some(given), None, None]);
    let rejected: Vec<u32> = (0..300).filter(|row| row % 3 == 1).collect();
    assert_eq!(folded.rejections.iter().map(|rejection| rejection.row).collect::<Vec<_>>(), rejected);
    assert_eq!((folded.rejections[0].code.as_str(), folded.rejections[0].detail.as_str()), ("too_many", "1001"));
    for (group, state) in states(&folded).into_iter().enumerate() {
        let (sum, texts) = state.expect("rows were folded");
        let kept = || (0..300).filter(|row| groups[*row] == group as u32 && row % 3 != 1).map(|row| numbers[row]);
        assert_eq!(sum, kept().sum::<i64>() + if group == 1 { 1_000 } else { 0 }, "group {group}");
        assert_eq!(texts, kept().map(|number| number.to_string()).collect::<Vec<_>>(), "group {group}");
    }
}

#[test]
fn a_group_without_a_folded_row_stays_as_it_was() {
    let given = Numbers { sum: 1, ..Numbers::default() }.to_bytes();
    let folded = fold(&[101, 102, 103], &[0, 1, 0], &[None, Some(given)]);
    assert_eq!((folded.rejections.len(), states(&folded)), (3, vec![None, None]), "null says so");
}

#[test]
fn bytes_that_are_no_state_cost_their_rows() {
    let folded = fold(&[1, 2, 3], &[0, 1, 0], &[Some(vec![0xff]), None]);
    let said: Vec<_> = folded.rejections.iter().map(|why| (why.row, why.code.as_str(), why.detail.as_str())).collect();
    let detail = "1 bytes that are no state of version 3";
    assert_eq!(said, [(0, "unreadable_state", detail), (2, "unreadable_state", detail)]);
    assert_eq!(states(&folded), [None, Some((2, vec!["2".to_owned()]))]);
}

#[test]
fn states_are_merged_pairwise_the_left_one_first() {
    let state = |sum: i64| Numbers { sum, texts: vec![sum.to_string()], latest: None }.to_bytes();
    let (left, right) = ([state(1), state(2)], [state(10), state(20)]);
    let side = |states: &[Vec<u8>]| packed(states.iter().map(Vec::as_slice));
    let merged = joined().merge(&side(&left), &side(&right));
    let merged: Vec<Numbers> =
        listed(&merged).into_iter().map(|bytes| Numbers::from_bytes(bytes).expect("a state")).collect();
    assert_eq!((merged[0].sum, merged[1].sum), (11, 22));
    assert_eq!(merged[1].texts, ["2", "20"]);
}

#[test]
fn states_are_finished_into_rows_of_their_windows() {
    let states = [
        Numbers { sum: 7, texts: vec!["ä".into()], latest: Some(Timestamp::from_secs(3)) }.to_bytes(),
        Numbers { sum: -7, ..Numbers::default() }.to_bytes(),
    ];
    let keys = packed([&br#"["a"]"#[..], b"[]"]);
    let windows = Windows { starts_us: vec![0, 60_000_000], ends_us: vec![60_000_000, 150_000_000], keys };
    let finished = joined().finish(&windows, &packed(states.iter().map(Vec::as_slice)));
    let write = |index: usize| (&finished.writes[index].ops[..], &finished.writes[index].data);
    let [(_, ColumnData::Int64s(sums)), (first_ops, ColumnData::Packed(firsts)), (_, ColumnData::Packed(keys))] =
        [write(0), write(1), write(2)]
    else {
        panic!("columns of other types")
    };
    let [(late_ops, ColumnData::Int64s(late)), (_, ColumnData::Float64s(minutes))] = [write(3), write(4)] else {
        panic!("columns of other types")
    };
    assert_eq!((&sums[..], &minutes[..], late[0]), (&[7, -7][..], &[1.0, 1.5][..], 3_000_000));
    assert_eq!((first_ops, late_ops), (&[1, 2][..], &[1, 3][..]), "set, null; set, not there");
    assert_eq!(listed(firsts), ["ä".as_bytes(), b""]);
    assert_eq!(listed(keys), [&br#"["a"]"#[..], b"[]"]);
}

#[test]
fn old_states_are_migrated_or_refused() {
    let old = packed([&5i64.to_bytes()[..], &6i64.to_bytes()[..]]);
    let migrated = joined().migrate(2, &old).expect("sums");
    let sums: Vec<i64> =
        listed(&migrated).into_iter().map(|bytes| Numbers::from_bytes(bytes).expect("a state").sum).collect();
    assert_eq!(sums, [10, 12]);
    assert_eq!(joined().migrate(1, &packed([&[0xff][..]])).expect_err("no sum"), "it is no sum");
}

#[test]
fn a_window_knows_its_key() {
    let window = Window { key: r#"["a",7,null]"#, ..Window::default() };
    assert_eq!(window.key_values(), [Value::String("a".into()), Value::Number("7".into()), Value::Null]);
}
