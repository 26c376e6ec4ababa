//! What stages wrote, laid over what was there: fields, keys, values, headers.

use std::borrow::Cow;

use crate::plugin::RawWrite;
use crate::record::{Cell, Column, ColumnData, ColumnType, Headers, Op, OptionalBytes, Written};

/// Calls `each` with every row and, where the stage saw it, its place in the call.
pub(super) fn for_each_row(call_rows: &[u32], rows: usize, mut each: impl FnMut(usize, Option<usize>)) {
    let mut call_row = 0;
    for row in 0..rows {
        let called = call_rows.get(call_row) == Some(&(row as u32));
        each(row, called.then_some(call_row));
        call_row += usize::from(called);
    }
}

/// What two stages wrote at one path, by dense row: the later one counts where it wrote.
pub(super) fn merge(old: Option<&Written>, new: &Written, ty: ColumnType, call_rows: &[u32], rows: usize) -> Written {
    let mut merged = Written::new(ty);
    for_each_row(call_rows, rows, |row, call_row| {
        let newest = call_row.filter(|&call_row| new.ops[call_row] != Op::Keep).map(|call_row| (new, call_row));
        match newest.or(old.map(|old| (old, row))) {
            Some((from, row)) => {
                merged.ops.push(from.ops[row]);
                merged.data.push_from(&from.data, row);
            }
            None => {
                merged.ops.push(Op::Keep);
                merged.data.push_default();
            }
        }
    });
    merged
}

/// The column as a later stage sees it once `written` is over it.
pub(super) fn overlay(column: &Column, written: &Written, ty: ColumnType) -> Column {
    let mut fresh = Column { cells: Vec::with_capacity(column.len()), data: ColumnData::new(ty) };
    for (row, op) in written.ops.iter().enumerate() {
        match op {
            Op::Keep => fresh.push_from(column, row),
            Op::Set => {
                fresh.cells.push(Cell::Valid);
                fresh.data.push_from(&written.data, row);
            }
            Op::Null => fresh.push_cell(Cell::Null),
            Op::Remove => fresh.push_cell(Cell::Missing),
        }
    }
    fresh
}

pub(super) fn overlay_bytes(
    old: Option<OptionalBytes>,
    input: &OptionalBytes,
    new: &RawWrite,
    call_rows: &[u32],
    input_rows: &[u32],
) -> OptionalBytes {
    let mut merged = OptionalBytes::default();
    for_each_row(call_rows, input_rows.len(), |row, call_row| {
        match call_row.map_or(Op::Keep, |call_row| new.ops[call_row]) {
            Op::Set => merged.push(call_row.map(|call_row| new.bytes.get(call_row))),
            Op::Null | Op::Remove => merged.push(None),
            Op::Keep => merged.push(match &old {
                Some(old) => old.get(row),
                None => input.get(input_rows[row] as usize),
            }),
        }
    });
    merged
}

pub(super) fn gather_bytes(
    to: &mut OptionalBytes,
    written: Option<&OptionalBytes>,
    input: &OptionalBytes,
    rows: impl Iterator<Item = (usize, usize)>,
) {
    to.clear();
    for (row, input_row) in rows {
        to.push(match written {
            Some(written) => written.get(row),
            None => input.get(input_row),
        });
    }
}

pub(super) fn gather_headers(
    to: &mut Headers,
    written: Option<&Headers>,
    input: &Headers,
    rows: impl Iterator<Item = (usize, usize)>,
) {
    to.clear();
    for (index, (row, input_row)) in rows.enumerate() {
        match written {
            Some(written) => copy_headers(to, index, written, row),
            None => copy_headers(to, index, input, input_row),
        }
    }
}

pub(super) fn copy_headers(to: &mut Headers, to_row: usize, from: &Headers, row: usize) {
    for (name, value) in from.get(row) {
        to.push(to_row, name, value);
    }
}

/// Appends a record's key from its field: a text as it is, anything else as its JSON text, nothing as null.
pub(super) fn push_key(keys: &mut OptionalBytes, column: &Column, row: usize) {
    let ColumnData::Packed(packed) = &column.data else { return keys.push(None) };
    match (column.cells[row], packed.get(row)) {
        (Cell::Valid, text) if text.first() == Some(&b'"') => match serde_json::from_slice::<Cow<'_, str>>(text) {
            Ok(text) => keys.push(Some(text.as_bytes())),
            Err(_) => keys.push(Some(text)),
        },
        (Cell::Valid, json) => keys.push(Some(json)),
        _ => keys.push(None),
    }
}
