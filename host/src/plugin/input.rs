//! From the host's columns to what a call takes: the part of each that one call sees.

use std::ops::Range;

use super::abi::{Batch, ColumnDataIn, ColumnIn, HeadersIn, OptionalBytesIn, PackedIn};
use super::{Parts, StageError};
use crate::record::{Bitmap, Cell, Column, ColumnData, ColumnType, Headers, OptionalBytes, Packed};

/// The rows that a stage runs.
#[derive(Clone, Copy)]
pub struct StageInput<'a> {
    /// Number of rows.
    pub rows: usize,
    /// One for each field that the descriptor reads, and behind them one for each column that it joins, with cells that are
    /// `Valid`, `Missing` or `Null` only.
    pub columns: &'a [&'a Column],
    /// Keys, if the plugin reads them.
    pub keys: Option<&'a OptionalBytes>,
    /// Values, if the plugin reads them.
    pub values: Option<&'a OptionalBytes>,
    /// Headers, if the plugin reads them.
    pub headers: Option<&'a Headers>,
    /// Milliseconds since 1970 UTC, if the plugin reads them.
    pub timestamps_ms: Option<&'a [i64]>,
}

impl StageInput<'_> {
    /// Refuses what does not fit the descriptor: a mistake of the host's.
    pub(super) fn check(&self, types: impl Iterator<Item = ColumnType>, wants: Parts) -> Result<(), StageError> {
        let bytes = |part: Option<&OptionalBytes>| part.is_some_and(|part| part.len() == self.rows);
        let column = |(column, ty): (&&Column, ColumnType)| {
            column.len() == self.rows && column.data.len() == self.rows && fits(&column.data, ty)
        };
        let types: Vec<ColumnType> = types.collect();
        if self.columns.len() != types.len() || !self.columns.iter().zip(types).all(column) {
            Err(StageError::Input("columns that are not those of its descriptor"))
        } else if wants.key && !bytes(self.keys) {
            Err(StageError::Input("no key for every row"))
        } else if wants.value && !bytes(self.values) {
            Err(StageError::Input("no value for every row"))
        } else if wants.headers && self.headers.is_none() {
            Err(StageError::Input("no headers"))
        } else if wants.timestamp && self.timestamps_ms.is_none_or(|times| times.len() != self.rows) {
            Err(StageError::Input("no timestamp for every row"))
        } else {
            Ok(())
        }
    }
}

impl StageInput<'_> {
    /// Bytes of text and the like in `rows`; fixed widths hardly matter beside them.
    pub(super) fn bytes(&self, rows: Range<usize>) -> usize {
        let length = |packed: &Packed| packed_bytes(packed, rows.clone());
        let column = |column: &&Column| match &column.data {
            ColumnData::Packed(packed) => length(packed),
            _ => 0,
        };
        let parts = [self.keys, self.values].into_iter().flatten();
        self.columns.iter().map(column).sum::<usize>() + parts.map(|part| length(&part.packed)).sum::<usize>()
    }
}

/// Bytes of the byte strings in `rows`.
pub(super) fn packed_bytes(packed: &Packed, rows: Range<usize>) -> usize {
    let start = if rows.start == 0 { 0 } else { packed.ends[rows.start - 1] };
    rows.last().map_or(0, |last| (packed.ends[last] - start) as usize)
}

/// As many rows as do not exceed `most` bytes, found by halving; at least one.
pub(super) fn fitting(mut rows: Range<usize>, most: usize, bytes: impl Fn(Range<usize>) -> usize) -> Range<usize> {
    while rows.len() > 1 && bytes(rows.clone()) > most {
        rows.end = rows.start + rows.len() / 2;
    }
    rows
}

/// True where `data` has the shape of `ty`.
pub(super) fn fits(data: &ColumnData, ty: ColumnType) -> bool {
    match data {
        ColumnData::Bool(_) => ty == ColumnType::Bool,
        ColumnData::Int64(_) => matches!(ty, ColumnType::Int64 | ColumnType::Timestamp(_)),
        ColumnData::Float64(_) => ty == ColumnType::Float64,
        ColumnData::Packed(_) => {
            matches!(ty, ColumnType::Text | ColumnType::Bytes | ColumnType::Decimal | ColumnType::Json)
        }
    }
}

/// Buffers for what has to be computed anew for each call: bitmaps, and ends that count from the call's first row.
#[derive(Default)]
pub(super) struct Scratch {
    columns: Vec<ColumnScratch>,
    key: BytesScratch,
    value: BytesScratch,
    row_ends: Vec<u32>,
    names: Vec<u32>,
    header_values: BytesScratch,
}

#[derive(Default)]
struct ColumnScratch {
    valid: Vec<u8>,
    null: Vec<u8>,
    bits: Vec<u8>,
    ends: Vec<u32>,
}

#[derive(Default)]
struct BytesScratch {
    valid: Vec<u8>,
    ends: Vec<u32>,
}

impl Scratch {
    /// What a call sees of `rows`. The input was checked.
    pub(super) fn batch<'a>(&'a mut self, input: &StageInput<'a>, wants: Parts, rows: Range<usize>) -> Batch<'a> {
        self.columns.resize_with(input.columns.len(), ColumnScratch::default);
        let columns = self.columns.iter_mut().zip(input.columns);
        Batch {
            rows: rows.len() as u32,
            columns: columns.map(|(scratch, column)| scratch.column(column, rows.clone())).collect(),
            key: input.keys.filter(|_| wants.key).map(|keys| self.key.bytes(keys, rows.clone())),
            value: input.values.filter(|_| wants.value).map(|values| self.value.bytes(values, rows.clone())),
            headers: input.headers.filter(|_| wants.headers).map(|headers| {
                headers_in(headers, rows.clone(), &mut self.row_ends, &mut self.names, &mut self.header_values)
            }),
            timestamps_ms: input.timestamps_ms.filter(|_| wants.timestamp).map(|times| &times[rows]),
        }
    }
}

impl ColumnScratch {
    fn column<'a>(&'a mut self, column: &'a Column, rows: Range<usize>) -> ColumnIn<'a> {
        let cells = &column.cells[rows.clone()];
        self.valid.clear();
        self.null.clear();
        // A cell that is neither valid nor null counts as missing: its data is the default, so nothing leaks.
        if cells.iter().any(|&cell| cell != Cell::Valid) {
            mark(cells, Cell::Valid, &mut self.valid);
        }
        if cells.contains(&Cell::Null) {
            mark(cells, Cell::Null, &mut self.null);
        }
        let data = match &column.data {
            ColumnData::Bool(bits) => {
                cut_bits(bits, rows, &mut self.bits);
                ColumnDataIn::Booleans(&self.bits)
            }
            ColumnData::Int64(values) => ColumnDataIn::Int64s(&values[rows]),
            ColumnData::Float64(values) => ColumnDataIn::Float64s(&values[rows]),
            ColumnData::Packed(packed) => ColumnDataIn::Packed(packed_in(packed, rows, &mut self.ends)),
        };
        ColumnIn { valid: &self.valid, null: &self.null, data }
    }
}

impl BytesScratch {
    fn bytes<'a>(&'a mut self, bytes: &'a OptionalBytes, rows: Range<usize>) -> OptionalBytesIn<'a> {
        self.valid.clear();
        if bytes.valid.count_ones() != bytes.valid.len() {
            cut_bits(&bytes.valid, rows.clone(), &mut self.valid);
        }
        OptionalBytesIn { valid: &self.valid, bytes: packed_in(&bytes.packed, rows, &mut self.ends) }
    }
}

/// One bit a cell: whether it is `wanted`.
fn mark(cells: &[Cell], wanted: Cell, bits: &mut Vec<u8>) {
    bits.extend(
        cells
            .chunks(8)
            .map(|eight| eight.iter().enumerate().fold(0u8, |byte, (i, &cell)| byte | (u8::from(cell == wanted) << i))),
    );
}

/// The bits of `rows`, from bit 0 on, with zeros behind.
fn cut_bits(from: &Bitmap, rows: Range<usize>, bits: &mut Vec<u8>) {
    bits.clear();
    let bytes = from.as_bytes();
    let (first, shift) = (rows.start / 8, rows.start % 8);
    for i in first..first + rows.len().div_ceil(8) {
        let high = bytes.get(i + 1).map_or(0, |&next| u16::from(next)) << 8;
        bits.push(((high | u16::from(bytes[i])) >> shift) as u8);
    }
    if let Some(last) = bits.last_mut().filter(|_| !rows.len().is_multiple_of(8)) {
        *last &= (1 << (rows.len() % 8)) - 1;
    }
}

/// The byte strings of `rows`. Ends count from the first of them, so those of a batch's first call are borrowed.
pub(super) fn packed_in<'a>(packed: &'a Packed, rows: Range<usize>, ends: &'a mut Vec<u32>) -> PackedIn<'a> {
    let start = if rows.start == 0 { 0 } else { packed.ends[rows.start - 1] };
    let end = if rows.is_empty() { start } else { packed.ends[rows.end - 1] };
    let data = &packed.data[start as usize..end as usize];
    if start == 0 {
        return PackedIn { ends: &packed.ends[rows], data };
    }
    ends.clear();
    ends.extend(packed.ends[rows].iter().map(|end| end - start));
    PackedIn { ends, data }
}

fn headers_in<'a>(
    headers: &'a Headers,
    rows: Range<usize>,
    row_ends: &'a mut Vec<u32>,
    names: &'a mut Vec<u32>,
    values: &'a mut BytesScratch,
) -> HeadersIn<'a> {
    let all = headers.names.len();
    let end = |row: usize| headers.row_ends.get(row).map_or(all, |&end| end as usize);
    let start = if rows.start == 0 { 0 } else { end(rows.start - 1) };
    row_ends.clear();
    row_ends.extend(rows.map(|row| (end(row) - start) as u32));
    let range = start..start + row_ends.last().copied().unwrap_or(0) as usize;
    HeadersIn {
        row_ends,
        names: packed_in(&headers.names, range.clone(), names),
        values: values.bytes(&headers.values, range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_cut_at_any_row() {
        let pattern: Vec<bool> = (0..100).map(|i| (i * i) % 7 < 3).collect();
        let mut bitmap = Bitmap::default();
        pattern.iter().for_each(|&bit| bitmap.push(bit));
        let mut bits = Vec::new();
        for start in 0..=100 {
            for end in start..=100 {
                cut_bits(&bitmap, start..end, &mut bits);
                let mut expected = Bitmap::default();
                pattern[start..end].iter().for_each(|&bit| expected.push(bit));
                assert_eq!(bits, expected.as_bytes(), "{start}..{end}");
            }
        }
    }

    #[test]
    fn ends_count_from_the_first_row_of_the_call() {
        let mut packed = Packed::default();
        ["a", "", "bcd", "e"].iter().for_each(|text| packed.push(text.as_bytes()));
        let mut ends = Vec::new();
        let cut = packed_in(&packed, 1..3, &mut ends);
        assert_eq!((cut.ends, cut.data), (&[0, 3][..], &b"bcd"[..]));
        let nothing = packed_in(&packed, 4..4, &mut ends);
        assert_eq!((nothing.ends.len(), nothing.data.len()), (0, 0));
    }

    #[test]
    fn rows_keep_their_own_headers() {
        let mut headers = Headers::default();
        headers.push(1, b"a", Some(b"1"));
        headers.push(3, b"b", None);
        let (mut ends, mut names, mut values) = Default::default();
        let cut = headers_in(&headers, 2..6, &mut ends, &mut names, &mut values);
        assert_eq!(cut.row_ends, [0, 1, 1, 1]);
        assert_eq!((cut.names.ends, cut.names.data), (&[1][..], &b"b"[..]));
        assert_eq!((cut.values.valid, cut.values.bytes.data), (&[0u8][..], &b""[..]));
    }
}
