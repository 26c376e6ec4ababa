//! From a value's text to a cell of the column's type.

use super::extract::Slot;
use super::scan::{Kind, Scanner, is_number, unescape};
use super::{base64, words};
use crate::record::calendar::parse_rfc3339;
use crate::record::{Cell, Column, ColumnData, ColumnType, Packed, TimestampEncoding};

/// Appends `value`, a valid JSON text with nothing around it, as `ty` to `column`: a cell as [`super::Extractor`] makes it.
pub fn push_value(column: &mut Column, ty: ColumnType, value: &[u8], scratch: &mut Vec<u8>) {
    let scanner = Scanner::new(value);
    let kind = scanner.scalar(0, scanner.byte(0)).map_or(Kind::Missing, |(kind, _)| kind);
    push(column, ty, value, &Slot::whole(kind, value.len()), scratch);
}

/// Appends what `slot` of the valid record `value` holds, as `ty`, to `column`.
#[inline(always)]
pub(super) fn push(column: &mut Column, ty: ColumnType, value: &[u8], slot: &Slot, scratch: &mut Vec<u8>) {
    let good = match (ty, slot.kind, &mut column.data) {
        (ColumnType::Text, Kind::Text, ColumnData::Packed(packed)) => {
            append(&mut packed.data, value, slot.start as usize + 1, slot.end as usize - 1);
            packed.end_row();
            true
        }
        (ColumnType::Int64, Kind::Integer, ColumnData::Int64(values)) => {
            push_some(values, int64(value, slot.start, slot.end))
        }
        (ColumnType::Timestamp(encoding), Kind::Integer, ColumnData::Int64(values)) => {
            push_some(values, int64(value, slot.start, slot.end).and_then(|epoch| from_epoch(encoding, epoch)))
        }
        (_, Kind::Missing | Kind::Null, _) => false,
        (_, _, data) => convert(data, ty, value, slot, scratch),
    };
    if !good {
        column.data.push_default();
    }
    column.cells.push(if good { Cell::Valid } else { cell_of(slot.kind) });
}

/// Appends `bytes[start..end]`; what is short without a call, by copying more than is wanted.
#[inline(always)]
fn append(to: &mut Vec<u8>, bytes: &[u8], start: usize, end: usize) {
    let kept = to.len() + (end - start);
    match bytes.get(start..start + 16).and_then(|rest| rest.first_chunk::<16>()) {
        Some(block) if end - start <= 16 => {
            to.extend_from_slice(block);
            to.truncate(kept);
        }
        _ => to.extend_from_slice(&bytes[start..end]),
    }
}

/// What a value that does not fit its column is.
fn cell_of(kind: Kind) -> Cell {
    match kind {
        Kind::Missing => Cell::Missing,
        Kind::Null => Cell::Null,
        Kind::False | Kind::True => Cell::WrongBool,
        Kind::Integer | Kind::Number => Cell::WrongNumber,
        Kind::Text | Kind::EscapedText => Cell::WrongText,
        Kind::Array => Cell::WrongArray,
        Kind::Object => Cell::WrongObject,
    }
}

/// Appends the value if it is one of `ty`; otherwise appends nothing.
#[inline(never)]
fn convert(data: &mut ColumnData, ty: ColumnType, value: &[u8], slot: &Slot, scratch: &mut Vec<u8>) -> bool {
    let kind = slot.kind;
    let text = &value[slot.start as usize..slot.end as usize];
    match (ty, data) {
        (ColumnType::Text, ColumnData::Packed(packed)) => {
            if kind == Kind::EscapedText {
                unescape(body(text), &mut packed.data);
                packed.end_row();
            }
            kind == Kind::EscapedText
        }
        (ColumnType::Int64, ColumnData::Int64(_)) => false,
        (ColumnType::Timestamp(TimestampEncoding::Rfc3339), ColumnData::Int64(values)) => {
            push_some(values, string(kind, text, scratch).and_then(parse_rfc3339))
        }
        (ColumnType::Timestamp(_), ColumnData::Int64(_)) => false,
        (ColumnType::Float64, ColumnData::Float64(values)) => {
            push_some(values, if is_numeric(kind) { float64(text) } else { None })
        }
        (ColumnType::Bool, ColumnData::Bool(bits)) => {
            let is_bool = matches!(kind, Kind::True | Kind::False);
            if is_bool {
                bits.push(kind == Kind::True);
            }
            is_bool
        }
        (ColumnType::Json, ColumnData::Packed(packed)) => {
            packed.push(text);
            true
        }
        (ColumnType::Bytes, ColumnData::Packed(packed)) => push_bytes(packed, kind, text, scratch),
        (ColumnType::Decimal, ColumnData::Packed(packed)) => push_decimal(packed, kind, text, scratch),
        _ => {
            debug_assert!(false, "the column has another shape than its read");
            false
        }
    }
}

fn is_numeric(kind: Kind) -> bool {
    matches!(kind, Kind::Integer | Kind::Number)
}

#[inline(always)]
fn push_some<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            values.push(value);
            true
        }
        None => false,
    }
}

fn push_bytes(packed: &mut Packed, kind: Kind, text: &[u8], scratch: &mut Vec<u8>) -> bool {
    let good = string(kind, text, scratch).is_some_and(|text| base64::decode(text, &mut packed.data));
    if good {
        packed.end_row();
    }
    good
}

fn push_decimal(packed: &mut Packed, kind: Kind, text: &[u8], scratch: &mut Vec<u8>) -> bool {
    if is_numeric(kind) {
        packed.push(text);
        return true;
    }
    let number = string(kind, text, scratch).filter(|text| is_number(text));
    if let Some(number) = number {
        packed.push(number);
    }
    number.is_some()
}

#[inline(always)]
fn from_epoch(encoding: TimestampEncoding, epoch: i64) -> Option<i64> {
    match encoding {
        TimestampEncoding::Rfc3339 => None,
        TimestampEncoding::EpochS => epoch.checked_mul(1_000_000),
        TimestampEncoding::EpochMs => epoch.checked_mul(1_000),
        TimestampEncoding::EpochUs => Some(epoch),
        TimestampEncoding::EpochNs => Some(epoch.div_euclid(1_000)),
    }
}

/// What the string `text` holds; `None` where it is none.
fn string<'a>(kind: Kind, text: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    match kind {
        Kind::Text => Some(body(text)),
        Kind::EscapedText => {
            scratch.clear();
            unescape(body(text), scratch);
            Some(scratch)
        }
        _ => None,
    }
}

/// A string's text without its quotes.
#[inline]
fn body(text: &[u8]) -> &[u8] {
    text.get(1..text.len() - 1).unwrap_or_default()
}

/// The value of the integer literal `text[start..end]`; `None` out of range.
#[inline(always)]
pub(super) fn int64(text: &[u8], start: u32, end: u32) -> Option<i64> {
    let (start, end) = (start as usize, end as usize);
    let negative = text[start] == b'-';
    let count = end - start - usize::from(negative);
    // What the 16 bytes before the end hold, if there are so many.
    let last = if count <= 16 { text[..end].last_chunk::<16>() } else { None };
    let Some(last) = last else { return any_int64(&text[start..end]) };
    let both = u128::from_le_bytes(*last);
    let low = words::number((both >> 64) as u64, count.min(8) as u32);
    let high = if count > 8 { words::number(both as u64, count as u32 - 8) } else { 0 };
    let value = (high * 100_000_000 + low) as i64;
    Some(if negative { -value } else { value })
}

/// `int64` for what is long, or stands near the text's beginning.
fn any_int64(literal: &[u8]) -> Option<i64> {
    // Counted downwards, because there is one more below zero than above.
    let (negative, digits) = match literal {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let value = digits.iter().try_fold(0_i64, |value, digit| {
        value.checked_mul(10).and_then(|value| value.checked_sub(i64::from(digit - b'0')))
    })?;
    if negative { Some(value) } else { value.checked_neg() }
}

/// The double that is nearest to a number literal; `None` where that is infinite.
pub(super) fn float64(text: &[u8]) -> Option<f64> {
    if let Some(value) = short_float64(text) {
        return Some(value);
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// A literal of at most 16 letters and no exponent: with a fraction it has at most 15 digits, so that they and the power
/// of ten are exact as doubles, and their quotient is correctly rounded (Clinger, "How to read floating point numbers
/// accurately", 1990); without one, nothing is rounded but the digits.
#[inline]
fn short_float64(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    if text.len() > 16 {
        return None;
    }
    let negative = text.first() == Some(&b'-');
    let (mut digits, mut fraction, mut in_fraction) = (0_u64, 0_usize, 0);
    for &byte in &text[usize::from(negative)..] {
        match byte {
            b'0'..=b'9' => {
                digits = digits * 10 + u64::from(byte - b'0');
                fraction += in_fraction;
            }
            b'.' => in_fraction = 1,
            _ => return None,
        }
    }
    let value = digits as f64 / POWERS[fraction];
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int64_has_its_whole_range_and_no_more() {
        let read = |literal: &str| {
            let alone = int64(literal.as_bytes(), 0, literal.len() as u32);
            let text = format!("{{\"some key\":-{literal},0123456789");
            assert_eq!(int64(text.as_bytes(), 13, 13 + literal.len() as u32), alone, "{literal}");
            alone
        };
        for value in (0..19).flat_map(|power| [10_i64.pow(power), 10_i64.pow(power) - 1, i64::MAX / 10_i64.pow(power)])
        {
            assert_eq!(read(&value.to_string()), Some(value));
            assert_eq!(read(&(-value).to_string()), Some(-value));
        }
        assert_eq!(read(&i64::MIN.to_string()), Some(i64::MIN));
        assert_eq!(read("-0"), Some(0));
        for literal in
            ["9223372036854775808", "-9223372036854775809", "18446744073709551616", "99999999999999999999999"]
        {
            assert_eq!(read(literal), None, "{literal}");
        }
    }

    #[test]
    fn float64_is_the_nearest_double() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "1",
            "0.1",
            "0.3",
            "123456789012345",
            "0.00000000000001",
            "99999.9999999999",
            "9007199254740993",
            "9999999999999999",
            "0.12345678901234",
            "-999999999999.99",
            "1e16",
            "1E-7",
            "179769313486231570000",
            "2.2250738585072011e-308",
            "5e-324",
            "1e-400",
            "1.7976931348623157e308",
            "0.1e1",
            "-12.5",
        ] {
            let expected: f64 = text.parse().expect("a number");
            assert_eq!(float64(text.as_bytes()).map(f64::to_bits), Some(expected.to_bits()), "{text}");
        }
        assert_eq!(float64(b"1.7976931348623159e308"), None);
    }
}
