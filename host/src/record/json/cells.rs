//! From a value's text to a cell of the column's type.

use super::extract::Slot;
use super::scan::{Kind, is_number, unescape};
use super::{base64, time};
use crate::record::{Cell, Column, ColumnData, ColumnType, Packed, TimestampEncoding};

/// Appends what `slot` of the valid record `value` holds, as `ty`, to `column`.
#[inline]
pub(super) fn push(column: &mut Column, ty: ColumnType, value: &[u8], slot: Slot, scratch: &mut Vec<u8>) {
    let text = &value[slot.start as usize..slot.end as usize];
    let good = match slot.kind {
        Kind::Missing | Kind::Null => false,
        kind => convert(&mut column.data, ty, kind, text, scratch),
    };
    if !good {
        column.data.push_default();
    }
    column.cells.push(if good { Cell::Valid } else { cell_of(slot.kind) });
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
#[inline]
fn convert(data: &mut ColumnData, ty: ColumnType, kind: Kind, text: &[u8], scratch: &mut Vec<u8>) -> bool {
    match (ty, data) {
        (ColumnType::Text, ColumnData::Packed(packed)) => push_text(packed, kind, text),
        (ColumnType::Int64, ColumnData::Int64(values)) => {
            push_some(values, if kind == Kind::Integer { int64(text) } else { None })
        }
        (ColumnType::Timestamp(encoding), ColumnData::Int64(values)) => {
            push_some(values, timestamp(encoding, kind, text, scratch))
        }
        (ColumnType::Float64, ColumnData::Float64(values)) => {
            push_some(values, if is_numeric(kind) { float64(text) } else { None })
        }
        (ColumnType::Bool, ColumnData::Bool(bits)) => match kind {
            Kind::True | Kind::False => {
                bits.push(kind == Kind::True);
                true
            }
            _ => false,
        },
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

#[inline]
fn push_some<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    let some = value.is_some();
    values.extend(value);
    some
}

#[inline]
fn push_text(packed: &mut Packed, kind: Kind, text: &[u8]) -> bool {
    match kind {
        Kind::Text => packed.push(body(text)),
        Kind::EscapedText => {
            unescape(body(text), &mut packed.data);
            packed.end_row();
        }
        _ => return false,
    }
    true
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

fn timestamp(encoding: TimestampEncoding, kind: Kind, text: &[u8], scratch: &mut Vec<u8>) -> Option<i64> {
    if encoding == TimestampEncoding::Rfc3339 {
        return time::parse_rfc3339(string(kind, text, scratch)?);
    }
    let epoch = if kind == Kind::Integer { int64(text)? } else { return None };
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

/// The value of an integer literal; `None` out of range.
#[inline]
fn int64(text: &[u8]) -> Option<i64> {
    let negative = text.first() == Some(&b'-');
    let digits = &text[usize::from(negative)..];
    if digits.len() <= 18 {
        let value = digits.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
        return Some(if negative { -value } else { value });
    }
    // Counted downwards, because there is one more below zero than above.
    let value = digits.iter().try_fold(0_i64, |value, digit| {
        value.checked_mul(10).and_then(|value| value.checked_sub(i64::from(digit - b'0')))
    })?;
    if negative { Some(value) } else { value.checked_neg() }
}

/// The double that is nearest to a number literal; `None` where that is infinite.
fn float64(text: &[u8]) -> Option<f64> {
    if let Some(value) = short_float64(text) {
        return Some(value);
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// A literal of at most 15 digits and no exponent: both its digits and the power of ten are exact as doubles, so that
/// their quotient is correctly rounded (Clinger, "How to read floating point numbers accurately", 1990).
#[inline]
fn short_float64(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    if text.len() > 16 {
        return None;
    }
    let negative = text.first() == Some(&b'-');
    let (mut digits, mut count, mut fraction) = (0_u64, 0_usize, 0_usize);
    let mut in_fraction = 0;
    for &byte in &text[usize::from(negative)..] {
        match byte {
            b'0'..=b'9' => {
                digits = digits * 10 + u64::from(byte - b'0');
                count += 1;
                fraction += in_fraction;
            }
            b'.' => in_fraction = 1,
            _ => return None,
        }
    }
    if count > 15 {
        return None;
    }
    let value = digits as f64 / POWERS[fraction];
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int64_has_its_whole_range_and_no_more() {
        for value in
            [0, 1, -1, 42, i64::MAX, i64::MIN, i64::MAX - 1, 999_999_999_999_999_999, 1_000_000_000_000_000_000]
        {
            assert_eq!(int64(value.to_string().as_bytes()), Some(value));
        }
        assert_eq!(int64(b"-0"), Some(0));
        for text in ["9223372036854775808", "-9223372036854775809", "18446744073709551616", "99999999999999999999999"] {
            assert_eq!(int64(text.as_bytes()), None, "{text}");
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
