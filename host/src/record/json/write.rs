//! From a cell that a plugin wrote to a value's text.

use super::splice::SpliceFault;
use super::{Pointer, base64, scan, words};
use crate::record::calendar::push_rfc3339;
use crate::record::{ColumnData, ColumnType, TimestampEncoding};

/// Appends `row` of `data`, a column of type `ty`, as the JSON that stands at `path`. On an error something may have been
/// appended.
pub(crate) fn value(
    ty: ColumnType,
    data: &ColumnData,
    row: usize,
    path: &Pointer,
    out: &mut Vec<u8>,
) -> Result<(), SpliceFault> {
    match (ty, data) {
        (ColumnType::Text, ColumnData::Packed(packed)) => text(packed.get(row), out),
        (ColumnType::Int64, ColumnData::Int64(values)) => int64(values[row], out),
        (ColumnType::Timestamp(encoding), ColumnData::Int64(values)) => timestamp(encoding, values[row], out),
        (ColumnType::Bool, ColumnData::Bool(bits)) => {
            out.extend_from_slice(if bits.get(row) { b"true" } else { b"false" });
            Ok(())
        }
        (ColumnType::Float64, ColumnData::Float64(values)) => float64(values[row], out),
        (ColumnType::Bytes, ColumnData::Packed(packed)) => {
            out.push(b'"');
            base64::encode(packed.get(row), out);
            out.push(b'"');
            Ok(())
        }
        (ColumnType::Decimal, ColumnData::Packed(packed)) => decimal(packed.get(row), out),
        (ColumnType::Json, ColumnData::Packed(packed)) => json(packed.get(row), path.tokens().len(), out),
        _ => {
            debug_assert!(false, "what was written has another shape than its type");
            Err(SpliceFault::Shape)
        }
    }
}

/// Appends `text` as a JSON string, escaping what must be escaped and nothing else.
fn text(text: &[u8], out: &mut Vec<u8>) -> Result<(), SpliceFault> {
    const ESCAPES: [u8; 32] = *b"uuuuuuuubtnufruuuuuuuuuuuuuuuuuu";
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text;
    let mut seen = 0;
    loop {
        let run = plain_run(rest, &mut seen);
        out.extend_from_slice(&rest[..run]);
        let Some(&special) = rest.get(run) else { break };
        match ESCAPES.get(usize::from(special)) {
            None => out.extend_from_slice(&[b'\\', special]),
            Some(b'u') => {
                let digits = [HEX[usize::from(special >> 4)], HEX[usize::from(special & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
            Some(&letter) => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = &rest[run + 1..];
    }
    out.push(b'"');
    if words::is_high(seen) && std::str::from_utf8(text).is_err() {
        return Err(SpliceFault::NotUtf8);
    }
    Ok(())
}

/// How many of the first bytes need no escape; what it looked at is laid over `seen`.
#[inline(always)]
fn plain_run(text: &[u8], seen: &mut u64) -> usize {
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (start, word) = match (rest.first_chunk(), text.last_chunk()) {
            (Some(word), _) => (at, *word),
            // The last 8 again: those of them that were looked at before are plain.
            (None, Some(word)) => (text.len() - 8, *word),
            (None, None) => {
                let mut word = [b' '; 8];
                word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                (at, word)
            }
        };
        let word = u64::from_le_bytes(word);
        *seen |= word;
        let stops = words::string_stops(word);
        if stops != 0 {
            return start + words::before(stops) as usize;
        }
        at += 8;
    }
    text.len()
}

fn int64(value: i64, out: &mut Vec<u8>) -> Result<(), SpliceFault> {
    serde_json::to_writer(out, &value).map_err(|_| SpliceFault::Shape)
}

/// Appends the shortest number that reads back as `value`.
fn float64(value: f64, out: &mut Vec<u8>) -> Result<(), SpliceFault> {
    if !value.is_finite() {
        return Err(SpliceFault::NotFinite);
    }
    serde_json::to_writer(out, &value).map_err(|_| SpliceFault::Shape)
}

fn timestamp(encoding: TimestampEncoding, micros: i64, out: &mut Vec<u8>) -> Result<(), SpliceFault> {
    let epoch = match encoding {
        TimestampEncoding::Rfc3339 => {
            out.push(b'"');
            if !push_rfc3339(out, micros) {
                return Err(SpliceFault::TimestampRange);
            }
            out.push(b'"');
            return Ok(());
        }
        TimestampEncoding::EpochS => micros.div_euclid(1_000_000),
        TimestampEncoding::EpochMs => micros.div_euclid(1_000),
        TimestampEncoding::EpochUs => micros,
        TimestampEncoding::EpochNs => micros.checked_mul(1_000).ok_or(SpliceFault::TimestampRange)?,
    };
    int64(epoch, out)
}

fn decimal(number: &[u8], out: &mut Vec<u8>) -> Result<(), SpliceFault> {
    if !scan::is_number(number) {
        return Err(SpliceFault::NotDecimal);
    }
    out.push(b'"');
    out.extend_from_slice(number);
    out.push(b'"');
    Ok(())
}

fn json(text: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), SpliceFault> {
    scan::validate(text, depth).map_err(SpliceFault::Json)?;
    out.extend_from_slice(text);
    Ok(())
}
