//! An aggregate that breaks the contract in every way it can, for the sandbox's promises.
//!
//! It speaks the bare contract, without the SDK's care. It sums `/number` up and counts rows. A row's `/do` says how to
//! misbehave, at once or, where it begins with `later `, when its state is merged or finished. Its states are the
//! version 2, a sum, a count and what is to be done later; those of version 1 are a sum.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, missing_docs, unreachable_pub)]

use std::hint::black_box;

use millstream_sdk::bindings::millstream::plugin::host;
use millstream_sdk::bindings::millstream::plugin::types::{
    AggregateDescriptor, Batch, ColumnData, ColumnType, Field, Finished, Folded, OptionalBytes, Packed, Rejection,
    Windows, Write,
};
use millstream_sdk::bindings_aggregate::Guest;

const VERSION: u8 = 2;

struct Hostile;

/// A state, taken apart.
#[derive(Default)]
struct State {
    sum: i64,
    count: u64,
    later: Vec<u8>,
}

impl State {
    fn of(bytes: &[u8]) -> Self {
        let number = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        assert!(bytes[0] == VERSION, "a state of version {} and not {VERSION}", bytes[0]);
        Self { sum: number(1), count: number(9) as u64, later: bytes[17..].to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        [&[VERSION][..], &self.sum.to_le_bytes(), &self.count.to_le_bytes(), &self.later].concat()
    }
}

impl Guest for Hostile {
    fn describe(config: String) -> Result<AggregateDescriptor, String> {
        let field = |path: &str, of_type| Field { path: path.into(), of_type, required: false };
        let nested = if config.contains("nested") { "/window/key" } else { "/window" };
        Ok(AggregateDescriptor {
            name: "hostile-aggregate".into(),
            version: "0.1.0".into(),
            reads: vec![field("/number", ColumnType::Int64), field("/do", ColumnType::Text)],
            writes: vec![
                field("/sum", ColumnType::Int64),
                field("/count", ColumnType::Int64),
                field(nested, ColumnType::Text),
            ],
            state_version: VERSION.into(),
            migrates_from: vec![1],
        })
    }

    fn start(config: String) -> Result<(), String> {
        if config.contains("refuse") {
            return Err("it wants another configuration".into());
        }
        std::panic::set_hook(Box::new(|panic| host::log(host::Level::Error, &panic.to_string())));
        Ok(())
    }

    fn fold(batch: Batch, groups: Vec<u32>, states: OptionalBytes) -> Folded {
        let mut columns = batch.columns.into_iter().map(|column| column.data);
        let (Some(ColumnData::Int64s(numbers)), Some(ColumnData::Packed(orders))) = (columns.next(), columns.next())
        else {
            panic!("the host gave other columns")
        };
        let given = (0..states.bytes.ends.len()).map(|group| {
            let valid = states.valid.get(group / 8).is_none_or(|bits| bits >> (group % 8) & 1 == 1);
            if valid { State::of(part(&states.bytes, group)) } else { State::default() }
        });
        let mut all: Vec<State> = given.collect();
        let mut broken = Broken::default();
        let mut rejections = Vec::new();
        for (row, (&group, &number)) in groups.iter().zip(&numbers).enumerate() {
            let order = part(&orders, row);
            let state = &mut all[group as usize];
            if order == b"reject" {
                rejections.push(rejection(row));
                continue;
            }
            state.sum = state.sum.wrapping_add(number);
            state.count += 1;
            match order.strip_prefix(b"later ") {
                Some(later) => state.later = later.to_vec(),
                None => misbehave(std::str::from_utf8(order).unwrap_or_default(), row, state, &mut broken),
            }
        }
        let mut states = pack(all.iter().map(State::bytes));
        let mut valid = Vec::new();
        broken.states.into_iter().for_each(|breaks| breaks(&mut states));
        if broken.null {
            valid = vec![0; all.len().div_ceil(8)];
        }
        if broken.bitmap {
            valid = vec![0xff; all.len() / 8 + 3];
        }
        rejections.extend(broken.rejections);
        Folded { states: OptionalBytes { valid, bytes: states }, rejections }
    }

    fn merge(left: Packed, right: Packed) -> Packed {
        let mut broken = Broken::default();
        let merged = (0..left.ends.len()).map(|pair| {
            let (mut left, right) = (State::of(part(&left, pair)), State::of(part(&right, pair)));
            left.sum = left.sum.wrapping_add(right.sum);
            left.count += right.count;
            let later = [&left.later[..], &right.later].concat();
            left.later = later.clone();
            let order = std::str::from_utf8(&later).unwrap_or_default().strip_prefix("merge ");
            misbehave(order.unwrap_or_default(), pair, &mut left, &mut broken);
            left.bytes()
        });
        let mut merged = pack(merged);
        broken.states.into_iter().for_each(|breaks| breaks(&mut merged));
        merged
    }

    fn finish(windows: Windows, states: Packed) -> Finished {
        let mut broken = Broken::default();
        let mut all = Vec::new();
        for row in 0..states.ends.len() {
            let mut state = State::of(part(&states, row));
            let later = String::from_utf8_lossy(&state.later).into_owned();
            misbehave(later.strip_prefix("finish ").unwrap_or_default(), row, &mut state, &mut broken);
            all.push(state);
        }
        let window = |row: usize| {
            let key = String::from_utf8_lossy(part(&windows.keys, row)).into_owned();
            format!("{}..{} {key}", windows.starts_us[row], windows.ends_us[row]).into_bytes()
        };
        let data = [
            ColumnData::Int64s(all.iter().map(|state| state.sum).collect()),
            ColumnData::Int64s(all.iter().map(|state| state.count as i64).collect()),
            ColumnData::Packed(pack((0..all.len()).map(window))),
        ];
        let write = |(field, data)| Write { field, ops: Vec::new(), data };
        let mut writes: Vec<Write> = (0..).zip(data).map(write).collect();
        broken.writes.into_iter().for_each(|breaks| breaks(&mut writes));
        Finished { writes }
    }

    fn migrate(from_version: u32, states: Packed) -> Result<Packed, String> {
        assert!(from_version == 1, "the host checks that");
        let sums = (0..states.ends.len())
            .map(|row| i64::from_le_bytes(part(&states, row).try_into().expect("a sum has eight bytes")));
        let sums: Vec<i64> = sums.collect();
        if sums.contains(&-1) {
            return Err("a sum of -1 is none".into());
        }
        assert!(!sums.contains(&-2), "a sum of -2 is too much");
        Ok(pack(sums.iter().map(|&sum| State { sum, ..State::default() }.bytes())))
    }
}

/// What is broken at the end of a call.
#[derive(Default)]
struct Broken {
    states: Vec<fn(&mut Packed)>,
    writes: Vec<fn(&mut Vec<Write>)>,
    rejections: Vec<Rejection>,
    null: bool,
    bitmap: bool,
}

#[inline(never)]
fn misbehave(order: &str, row: usize, state: &mut State, broken: &mut Broken) {
    match order {
        "trap" => panic!("row number {row} is too much"),
        "loop" => spin(u64::MAX),
        "slow" => spin(50_000_000),
        "bomb" => bomb(),
        "stack" => _ = black_box(deeper(black_box(u64::MAX))),
        "grow" => state.later.resize(200 << 10, b' '),
        "swell" => state.later.resize(600 << 10, b' '),
        "huge" => broken.states.push(|states| states.data.resize(4 << 20, 0)),
        "fewer" => broken.states.push(|states| _ = states.ends.pop()),
        "more" => broken.states.push(|states| states.ends.push(states.data.len() as u32)),
        "none" => broken.states.push(|states| (states.ends, states.data) = (Vec::new(), Vec::new())),
        "ends" => broken.states.push(|states| states.ends[0] = u32::MAX),
        "beyond" => broken.states.push(|states| states.data.push(0)),
        "null" => broken.null = true,
        "bitmap" => broken.bitmap = true,
        "twice" => broken.rejections = vec![rejection(row), rejection(row)],
        "nobody" => broken.rejections = vec![rejection(1 << 20)],
        "code" => broken.rejections = vec![Rejection { code: "No Code".into(), ..rejection(row) }],
        "type" => broken.writes.push(|writes| writes[0].data = ColumnData::Float64s(Vec::new())),
        "rows" => broken.writes.push(|writes| writes[1].data = ColumnData::Int64s(Vec::new())),
        "ops" => broken.writes.push(|writes| writes[1].ops = vec![9; 1 << 10]),
        "field" => broken.writes.push(|writes| writes[1].field = 99),
        "utf8" => broken.writes.push(|writes| {
            if let ColumnData::Packed(texts) = &mut writes[2].data {
                texts.data[0] = 0xff;
            }
        }),
        _ => {}
    }
}

fn rejection(row: usize) -> Rejection {
    Rejection { row: row as u32, code: "as_told".into(), detail: "it was told to".into() }
}

fn part(packed: &Packed, row: usize) -> &[u8] {
    let start = if row == 0 { 0 } else { packed.ends[row - 1] as usize };
    &packed.data[start..packed.ends[row] as usize]
}

fn pack(rows: impl Iterator<Item = Vec<u8>>) -> Packed {
    let mut packed = Packed { ends: Vec::new(), data: Vec::new() };
    for row in rows {
        packed.data.extend(row);
        packed.ends.push(packed.data.len() as u32);
    }
    packed
}

fn spin(times: u64) {
    for i in 0..times {
        black_box(i);
    }
}

fn bomb() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(Vec::<u8>::with_capacity(1 << 20)));
    }
}

#[allow(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth - 1))) + 1
}

millstream_sdk::bindings_aggregate::export_aggregate!(Hostile with_types_in millstream_sdk::bindings_aggregate);

// SAFETY: the host calls it as the canonical ABI says.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn cabi_realloc(start: *mut u8, length: usize, align: usize, wanted: usize) -> *mut u8 {
    unsafe { millstream_sdk::rt::cabi_realloc(start, length, align, wanted) }
}
