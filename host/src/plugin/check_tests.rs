//! One violation at a time.

use super::*;
use crate::plugin::{Parts, WriteField};

const ROWS: usize = 10;

fn descriptor() -> Descriptor {
    let types = [
        ColumnType::Bool,
        ColumnType::Int64,
        ColumnType::Float64,
        ColumnType::Text,
        ColumnType::Bytes,
        ColumnType::Decimal,
        ColumnType::Json,
    ];
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

fn packed_of(rows: usize, text: &str) -> Packed {
    Packed { ends: (1..=rows).map(|row| (row * text.len()) as u32).collect(), data: text.repeat(rows).into_bytes() }
}

fn optional_of(rows: usize) -> abi::OptionalBytes {
    abi::OptionalBytes { valid: vec![0xff; rows.div_ceil(8)], bytes: packed_of(rows, "v") }
}

/// Writes everything that can be written.
fn good() -> Processed {
    let bits = || vec![0u8; ROWS.div_ceil(8)];
    let data = [
        ColumnData::Booleans(bits()),
        ColumnData::Int64s(vec![1; ROWS]),
        ColumnData::Float64s(vec![f64::NAN; ROWS]),
        ColumnData::Packed(packed_of(ROWS, "ä")),
        ColumnData::Packed(packed_of(ROWS, "b")),
        ColumnData::Packed(packed_of(ROWS, "1")),
        ColumnData::Packed(packed_of(ROWS, "{}")),
    ];
    let write = |(field, data)| abi::Write { field: field as u32, ops: vec![3; ROWS], data };
    let mut verdicts = vec![0; ROWS];
    (verdicts[2], verdicts[5]) = (2, 1);
    Processed {
        verdicts,
        rejections: vec![abi::Rejection { row: 2, code: "too_old_1".into(), detail: String::new() }],
        writes: data.into_iter().enumerate().map(write).collect(),
        key: Some(abi::RawWrite { ops: vec![2; ROWS], bytes: packed_of(ROWS, "k") }),
        value: Some(abi::RawWrite { ops: Vec::new(), bytes: packed_of(ROWS, "v") }),
        headers: Some(abi::Headers {
            row_ends: (1..=ROWS as u32).collect(),
            names: packed_of(ROWS, "n"),
            values: optional_of(ROWS),
        }),
        timestamps_ms: Some(vec![-1; ROWS]),
        routes: vec![0; ROWS],
        emitted: Some(abi::Emitted {
            output: vec![0, MAIN_OUTPUT],
            row: vec![3, 3],
            keys: abi::OptionalBytes::default(),
            values: optional_of(2),
        }),
    }
}

fn checked(processed: &Processed) -> Checked {
    Call { descriptor: &descriptor(), rows: ROWS }.check(processed)
}

fn write(processed: &mut Processed, field: usize) -> &mut abi::Write {
    &mut processed.writes[field]
}

fn packed_write(processed: &mut Processed, field: usize) -> &mut Packed {
    match &mut write(processed, field).data {
        ColumnData::Packed(packed) => packed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_keeps_all_rules_passes() {
    let mut processed = good();
    let keys = abi::OptionalBytes { valid: Vec::new(), bytes: packed_of(2, "") };
    processed.emitted.as_mut().expect("it emits").keys = keys;
    assert_eq!(checked(&processed), Ok(()));
    assert_eq!(checked(&Processed::default()), Ok(()));
}

type Breaks = fn(&mut Processed);

#[test]
fn every_violation_is_seen() {
    let violations: &[(&str, Breaks)] = &[
        ("verdicts for", |p| p.verdicts.truncate(9)),
        ("none of 0, 1 and 2", |p| p.verdicts[0] = 3),
        ("fewer rejections", |p| p.rejections.clear()),
        ("does not match", |p| p.rejections[0].row = 3),
        ("does not match", |p| p.verdicts[2] = 0),
        ("does not match", |p| p.rejections.push(p.rejections[0].clone())),
        ("code", |p| p.rejections[0].code = "Too Old".into()),
        ("code", |p| p.rejections[0].code = String::new()),
        ("code", |p| p.rejections[0].code = "x".repeat(65)),
        ("which is none", |p| write(p, 0).field = 7),
        ("writes to 7", |p| p.writes.push(p.writes[0].clone())),
        ("two writes", |p| p.writes[6] = p.writes[0].clone()),
        ("ops for", |p| write(p, 0).ops.truncate(1)),
        ("an op above 3", |p| write(p, 0).ops[9] = 4),
        ("another type", |p| write(p, 0).data = ColumnData::Int64s(vec![0; ROWS])),
        ("bitmap", |p| write(p, 0).data = ColumnData::Booleans(vec![0])),
        ("values for", |p| write(p, 1).data = ColumnData::Int64s(vec![0; 11])),
        ("values for", |p| write(p, 2).data = ColumnData::Float64s(Vec::new())),
        ("ends where", |p| packed_write(p, 3).ends.truncate(9)),
        ("ends that fall", |p| packed_write(p, 4).ends[3] = 9),
        ("ends that reach", |p| packed_write(p, 4).ends[9] = 11),
        ("ends that reach", |p| packed_write(p, 4).data.push(b'x')),
        ("not UTF-8", |p| packed_write(p, 3).data[0] = 0xff),
        ("within a character", |p| packed_write(p, 3).ends[0] = 1),
        ("not UTF-8", |p| packed_write(p, 5).data[0] = 0xff),
        ("not UTF-8", |p| packed_write(p, 6).data[0] = 0xff),
        ("an op above 2", |p| p.key.as_mut().expect("key").ops[0] = 3),
        ("for the value", |p| p.value.as_mut().expect("value").bytes.ends.truncate(3)),
        ("in the headers", |p| p.headers.as_mut().expect("headers").row_ends[9] = 9),
        ("in the headers", |p| p.headers.as_mut().expect("headers").row_ends[0] = 9),
        ("in the headers", |p| p.headers.as_mut().expect("headers").names.data[0] = 0xff),
        ("in the headers", |p| p.headers.as_mut().expect("headers").values.valid.push(0)),
        ("timestamps for", |p| p.timestamps_ms.as_mut().expect("times").truncate(9)),
        ("before 1970", |p| p.timestamps_ms.as_mut().expect("times")[0] = -2),
        ("routes for", |p| p.routes.truncate(9)),
        ("does not declare", |p| p.routes[0] = 1),
        ("as many emitted", |p| p.emitted.as_mut().expect("emitted").row.truncate(1)),
        ("does not declare", |p| p.emitted.as_mut().expect("emitted").output[0] = 1),
        ("out of the order", |p| p.emitted.as_mut().expect("emitted").row = vec![4, 3]),
        ("a row that is none", |p| p.emitted.as_mut().expect("emitted").row = vec![3, 10]),
        ("in the emitted", |p| p.emitted.as_mut().expect("emitted").values = optional_of(3)),
    ];
    for (i, (words, breaks)) in violations.iter().enumerate() {
        let mut processed = good();
        processed.emitted.as_mut().expect("it emits").keys = optional_of(2);
        breaks(&mut processed);
        let broken = checked(&processed).expect_err(words);
        assert!(broken.contains(words), "violation {i}: {broken:?} where {words:?} was expected");
    }
}

#[test]
fn what_is_not_declared_is_not_written() {
    let mut descriptor = descriptor();
    descriptor.raw_writes = Parts::default();
    let undeclared: [Breaks; 4] = [
        |p| (p.value, p.headers, p.timestamps_ms) = (None, None, None),
        |p| (p.key, p.headers, p.timestamps_ms) = (None, None, None),
        |p| (p.key, p.value, p.timestamps_ms) = (None, None, None),
        |p| (p.key, p.value, p.headers) = (None, None, None),
    ];
    for leaves in undeclared {
        let mut processed = good();
        processed.emitted = None;
        leaves(&mut processed);
        let broken = Call { descriptor: &descriptor, rows: ROWS }.check(&processed).expect_err("undeclared");
        assert!(broken.contains("does not declare to write"), "{broken}");
    }
}
