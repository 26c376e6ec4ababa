//! What a plugin might return, made up: whatever passes the check is taken without a panic and in the right shape.

use super::*;
use crate::plugin::check::Call;
use crate::plugin::{Parts, WriteField};
use crate::record::ColumnType;

/// Numbers that look random; splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// Mostly `length`, at times nothing, and now and then something else.
    fn length(&mut self, length: usize) -> usize {
        match self.roll(60) {
            0 => self.roll(12) as usize,
            _ => length,
        }
    }

    fn list<T>(&mut self, length: usize, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.length(length)).map(|_| item(self)).collect()
    }

    fn maybe<T: Default>(&mut self, item: impl FnOnce(&mut Self) -> T) -> T {
        if self.roll(3) == 0 { T::default() } else { item(self) }
    }

    fn packed(&mut self, rows: usize) -> abi::Packed {
        let mut packed = abi::Packed::default();
        for _ in 0..self.length(rows) {
            packed.data.extend(["", "a", "\u{e4}", "xyz"][self.roll(4) as usize].as_bytes());
            packed.ends.push(packed.data.len() as u32);
        }
        match self.roll(80) {
            0 => packed.data.push(0xff),
            1 => packed.ends.iter_mut().for_each(|end| *end = end.wrapping_sub(1)),
            _ => {}
        }
        packed
    }

    fn bits(&mut self, rows: usize) -> Vec<u8> {
        self.list(rows.div_ceil(8), |dice| dice.roll(256) as u8)
    }

    fn optional(&mut self, rows: usize) -> abi::OptionalBytes {
        abi::OptionalBytes { valid: self.maybe(|dice| dice.bits(rows)), bytes: self.packed(rows) }
    }

    fn ops(&mut self, rows: usize, sides: u64) -> Vec<u8> {
        self.maybe(|dice| dice.list(rows, |dice| dice.roll(sides) as u8))
    }

    fn write(&mut self, rows: usize, field: u32) -> abi::Write {
        let data = match self.length(field as usize) {
            0 => abi::ColumnData::Booleans(self.bits(rows)),
            1 => abi::ColumnData::Int64s(self.list(rows, |dice| dice.roll(9) as i64)),
            2 => abi::ColumnData::Float64s(self.list(rows, |dice| dice.roll(9) as f64)),
            _ => abi::ColumnData::Packed(self.packed(rows)),
        };
        abi::Write { field, ops: self.ops(rows, 4), data }
    }

    fn emitted(&mut self, rows: usize) -> abi::Emitted {
        let count = if rows == 0 { 0 } else { self.roll(6) as usize };
        let mut row = self.list(count, |dice| dice.roll(rows.max(1) as u64) as u32);
        row.sort_unstable();
        let output = self.list(count, |dice| if dice.roll(2) == 0 { 0 } else { MAIN_OUTPUT });
        abi::Emitted { output, row, keys: self.optional(count), values: self.optional(count) }
    }

    fn processed(&mut self, rows: usize) -> Processed {
        let verdicts = self.maybe(|dice| dice.list(rows, |dice| dice.roll(3) as u8));
        let rejected = (0..).zip(&verdicts).filter(|&(_, &verdict)| verdict == 2).map(|(row, _)| row);
        let rejection = |row| abi::Rejection { row, code: "odd".into(), detail: "\u{e4}".repeat(600) };
        let rejections = rejected.map(rejection).collect();
        let fields = self.roll(5) as u32;
        let headers = |dice: &mut Self| {
            let row_ends: Vec<u32> = dice
                .list(rows, |_| 1)
                .iter()
                .scan(0, |end, one| {
                    *end += one;
                    Some(*end)
                })
                .collect();
            let named = row_ends.len();
            abi::Headers { row_ends, names: dice.packed(named), values: dice.optional(named) }
        };
        let raw = |dice: &mut Self| abi::RawWrite { ops: dice.ops(rows, 3), bytes: dice.packed(rows) };
        Processed {
            verdicts,
            rejections,
            writes: (0..fields).map(|field| self.write(rows, field)).collect(),
            key: self.maybe(|dice| Some(raw(dice))),
            value: self.maybe(|dice| Some(raw(dice))),
            headers: self.maybe(|dice| Some(headers(dice))),
            timestamps_ms: self.maybe(|dice| Some(dice.list(rows, |dice| dice.roll(9) as i64 - 1))),
            routes: self.maybe(|dice| dice.list(rows, |dice| if dice.roll(2) == 0 { 0 } else { SAME_ROUTE })),
            emitted: self.maybe(|dice| Some(dice.emitted(rows))),
        }
    }
}

fn descriptor() -> Descriptor {
    let types = [ColumnType::Bool, ColumnType::Int64, ColumnType::Float64, ColumnType::Text];
    let all = Parts { key: true, value: true, headers: true, timestamp: true };
    Descriptor {
        name: "p".into(),
        version: "1".into(),
        reads: Vec::new(),
        writes: types.iter().map(|&ty| WriteField { path: format!("/{ty:?}"), ty }).collect(),
        outputs: vec!["late".into()],
        raw_reads: Parts::default(),
        raw_writes: all,
        tombstones: false,
        joins: Vec::new(),
        lookups: Vec::new(),
        lenient: false,
    }
}

fn assert_packed(packed: &Packed, rows: usize) {
    assert_eq!(packed.len(), rows);
    assert_eq!(packed.iter().map(<[u8]>::len).sum::<usize>(), packed.data.len());
}

fn assert_optional(bytes: &OptionalBytes, rows: usize) {
    assert_packed(&bytes.packed, rows);
    assert_eq!(bytes.valid.len(), rows);
}

/// Every list as long as it says, nothing written where nothing is forwarded.
fn assert_shape(out: &StageOutput, rows: usize) {
    let keeps = |ops: &[Op]| {
        assert_eq!(ops.len(), rows);
        let dropped = ops.iter().zip(&out.verdicts).filter(|&(_, &verdict)| verdict != Verdict::Forward);
        assert!(dropped.into_iter().all(|(&op, _)| op == Op::Keep));
    };
    assert_eq!((out.verdicts.len(), out.routes.len(), out.writes.len()), (rows, rows, 4));
    for written in &out.writes {
        keeps(&written.ops);
        assert_eq!(written.data.len(), rows);
        if let ColumnData::Packed(packed) = &written.data {
            assert_packed(packed, rows);
            assert!(packed.iter().all(|text| std::str::from_utf8(text).is_ok()));
        }
    }
    for raw in [&out.key, &out.value].into_iter().flatten() {
        keeps(&raw.ops);
        assert_packed(&raw.bytes, rows);
    }
    let headers = out.headers.as_ref().expect("it may write them");
    keeps(&headers.ops);
    assert_eq!(headers.headers.row_ends.len(), rows);
    assert_eq!((0..rows).map(|row| headers.headers.get(row).count()).sum::<usize>(), headers.headers.names.len());
    assert_optional(&headers.headers.values, headers.headers.names.len());
    let times = out.timestamps.as_ref().expect("it may write them");
    keeps(&times.ops);
    assert_eq!(times.millis.len(), rows);
    assert!(out.emitted.row.is_sorted() && out.emitted.row.iter().all(|&row| (row as usize) < rows));
    assert_optional(&out.emitted.keys, out.emitted.len());
    assert_optional(&out.emitted.values, out.emitted.len());
    let rejected = out.verdicts.iter().enumerate().filter(|&(_, &verdict)| verdict == Verdict::Reject);
    assert!(rejected.map(|(row, _)| row).eq(out.rejections.iter().map(|rejection| rejection.row)));
    assert!(out.rejections.iter().all(|rejection| rejection.detail.len() <= DETAIL_BYTES));
}

#[test]
fn whatever_passes_the_check_is_taken_in_the_right_shape() {
    let descriptor = descriptor();
    let (mut dice, mut out) = (Dice(7), StageOutput::default());
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..2_000 {
        out.prepare(&descriptor);
        let mut total = 0;
        for _ in 0..6 {
            let rows = dice.roll(20) as usize;
            let processed = dice.processed(rows);
            if (Call { descriptor: &descriptor, rows }).check(&processed).is_err() {
                refused += 1;
                out.append_failed(&descriptor, Failure::bad_output("refused".into()));
                total += 1;
                continue;
            }
            passed += 1;
            out.append(&descriptor, rows, processed);
            total += rows;
        }
        assert_shape(&out, total);
    }
    assert!(passed > 2_000 && refused > 2_000, "{passed} passed, {refused} refused");
}

#[test]
fn what_was_left_out_means_what_the_contract_says() {
    let descriptor = descriptor();
    let mut out = StageOutput::default();
    out.prepare(&descriptor);
    out.append(&descriptor, 2, Processed::default());
    assert_eq!((&out.verdicts[..], &out.routes[..]), (&[Verdict::Forward; 2][..], &[SAME_ROUTE; 2][..]));
    assert_eq!(out.writes[1].ops, [Op::Keep; 2]);
    let write = abi::Write { field: 1, ops: Vec::new(), data: abi::ColumnData::Int64s(vec![5, 6]) };
    out.append(&descriptor, 2, Processed { verdicts: vec![0, 1], writes: vec![write], ..Processed::default() });
    assert_eq!(out.writes[1].ops[2..], [Op::Set, Op::Keep], "no ops: all are set, but where a row is dropped");
    assert_eq!(out.key.expect("it may write it").ops, [Op::Keep; 4]);
}
