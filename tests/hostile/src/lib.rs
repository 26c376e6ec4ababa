//! A plugin that breaks the contract in every way it can, for the sandbox's promises.
//!
//! It speaks the bare contract, without the SDK's care. A row's `/do` says how to misbehave; without it the row is
//! echoed: `/number` into `/twice`, `/text` into `/echo`. The configuration is a list of words that are looked for:
//! `refuse`, `trap-start`, `loop-start`, `trap-describe`, `bad-name`, `count` (calls, into `/twice`) and `hoard`
//! (memory that is never given back).
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, missing_docs, unreachable_pub)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use millstream_sdk::bindings::millstream::plugin::host;
use millstream_sdk::bindings::millstream::plugin::types::{
    ColumnData, ColumnType, Field, Packed, Parts, Rejection, TimestampEncoding, Write,
};
use millstream_sdk::bindings::{Batch, Descriptor, Guest, Processed};

static COUNT: AtomicBool = AtomicBool::new(false);
static HOARD: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicI64 = AtomicI64::new(0);

struct Hostile;

impl Guest for Hostile {
    fn describe(config: String) -> Result<Descriptor, String> {
        if config.contains("trap-describe") {
            std::arch::wasm32::unreachable();
        }
        let field = |path: &str, of_type| Field { path: path.into(), of_type, required: false };
        let reads = vec![
            field("/number", ColumnType::Int64),
            field("/text", ColumnType::Text),
            field("/do", ColumnType::Text),
            field("/flag", ColumnType::Boolean),
            field("/at", ColumnType::Timestamp(TimestampEncoding::EpochMs)),
        ];
        let writes = vec![
            field("/twice", ColumnType::Int64),
            field("/echo", ColumnType::Text),
            field("/flag", ColumnType::Boolean),
        ];
        Ok(Descriptor {
            name: if config.contains("bad-name") { "No Name".into() } else { "hostile".into() },
            version: "0.1.0".into(),
            reads,
            writes,
            outputs: Vec::new(),
            raw_reads: Parts::empty(),
            raw_writes: Parts::empty(),
            tombstones: false,
            joins: Vec::new(),
            lookups: Vec::new(),
        })
    }

    fn start(config: String) -> Result<(), String> {
        if config.contains("refuse") {
            return Err("it wants another configuration".into());
        } else if config.contains("trap-start") {
            std::arch::wasm32::unreachable();
        } else if config.contains("loop-start") {
            spin(u64::MAX);
        }
        std::panic::set_hook(Box::new(|panic| host::log(host::Level::Error, &panic.to_string())));
        COUNT.store(config.contains("count"), Relaxed);
        HOARD.store(config.contains("hoard"), Relaxed);
        Ok(())
    }

    fn process(batch: Batch) -> Processed {
        let calls = CALLS.fetch_add(1, Relaxed) + 1;
        if HOARD.load(Relaxed) {
            std::mem::forget(black_box(vec![1u8; 1 << 20]));
        }
        let mut columns = batch.columns.into_iter().map(|column| column.data);
        let (numbers, texts, orders, flags) = (columns.next(), columns.next(), columns.next(), columns.next());
        let (Some(ColumnData::Int64s(numbers)), Some(ColumnData::Packed(texts))) = (numbers, texts) else {
            panic!("the host gave other columns")
        };
        let (Some(ColumnData::Packed(orders)), Some(flags)) = (orders, flags) else {
            panic!("the host gave other columns")
        };
        let twice = numbers.iter().map(|number| if COUNT.load(Relaxed) { calls } else { number.wrapping_mul(2) });
        let write = |(field, data)| Write { field, ops: Vec::new(), data };
        let data = [ColumnData::Int64s(twice.collect()), ColumnData::Packed(texts), flags];
        let mut processed = Processed {
            verdicts: Vec::new(),
            rejections: Vec::new(),
            writes: (0..).zip(data).map(write).collect(),
            key: None,
            value: None,
            headers: None,
            timestamps_ms: None,
            routes: Vec::new(),
            emitted: None,
        };
        let mut start = 0;
        for (row, &end) in orders.ends.iter().enumerate() {
            let order = &orders.data[start as usize..end as usize];
            start = end;
            if !order.is_empty() {
                misbehave(std::str::from_utf8(order).unwrap_or_default(), row, batch.rows, &mut processed);
            }
        }
        processed
    }
}

#[inline(never)]
fn misbehave(order: &str, row: usize, rows: u32, processed: &mut Processed) {
    match order {
        "trap" => panic!("row number {row} is too much"),
        "divide" => _ = black_box(1 / black_box(0i32).wrapping_mul(row as i32)),
        "loop" => spin(u64::MAX),
        "slow" => spin(50_000_000),
        "fill" => fill(),
        "bomb" => bomb(),
        "gulp" => _ = black_box(Vec::<u8>::with_capacity(black_box(20 << 20))),
        "stack" => _ = black_box(deeper(black_box(u64::MAX))),
        "huge" => packed(processed).data.resize(2 << 20, b'x'),
        "large" => enlarge(packed(processed), row),
        "utf8" => packed(processed).data[0] = 0xff,
        "lengths" => _ = packed(processed).ends.pop(),
        "ends" => packed(processed).ends[row] = u32::MAX,
        "type" => processed.writes[0].data = ColumnData::Float64s(vec![0.0; rows as usize]),
        "ops" => processed.writes[0].ops = vec![7; rows as usize],
        "field" => processed.writes[0].field = 99,
        "writes" => processed.writes = (0..20_000).map(|_| empty_write()).collect(),
        "verdicts" => processed.verdicts = vec![9; rows as usize],
        "routes" => processed.routes = vec![5; rows as usize],
        "wild" => wild(),
        "log" => (0..100_000).for_each(|_| host::log(host::Level::Info, "flood\n")),
        "lookup" => {
            _ = millstream_sdk::bindings::millstream::plugin::tables::lookup(
                7,
                &Packed { ends: vec![1], data: vec![b'x'] },
            )
        }
        "reject" => reject(row, rows, processed),
        _ => {}
    }
}

fn packed(processed: &mut Processed) -> &mut Packed {
    match &mut processed.writes[1].data {
        ColumnData::Packed(packed) => packed,
        _ => std::arch::wasm32::unreachable(),
    }
}

/// 3 MiB more for one row, as it may.
fn enlarge(packed: &mut Packed, row: usize) {
    let at = packed.ends[row] as usize;
    packed.data.splice(at..at, std::iter::repeat_n(b'x', 3 << 20));
    packed.ends[row..].iter_mut().for_each(|end| *end += 3 << 20);
}

fn empty_write() -> Write {
    Write { field: 0, ops: Vec::new(), data: ColumnData::Int64s(Vec::new()) }
}

fn reject(row: usize, rows: u32, processed: &mut Processed) {
    processed.verdicts.resize(rows as usize, 0);
    processed.verdicts[row] = 2;
    processed.rejections.push(Rejection { row: row as u32, code: "as_told".into(), detail: "it was told to".into() });
}

fn spin(times: u64) {
    for i in 0..times {
        black_box(i);
    }
}

/// Much work in few instructions.
fn fill() {
    let mut memory = vec![0u8; 16 << 20];
    loop {
        black_box(&mut memory).fill(1);
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

/// Reads far outside of its memory.
fn wild() {
    // SAFETY: none; the sandbox is what is tested.
    black_box(unsafe { std::ptr::read_volatile(0xffff_fff0 as *const u64) });
}

millstream_sdk::bindings::export_transform!(Hostile with_types_in millstream_sdk::bindings);

// SAFETY: the host calls it as the canonical ABI says.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn cabi_realloc(start: *mut u8, length: usize, align: usize, wanted: usize) -> *mut u8 {
    unsafe { millstream_sdk::rt::cabi_realloc(start, length, align, wanted) }
}
