//! One value of a record, as RowBinary has it for a column's type.

use std::collections::BTreeMap;

use super::misfit::Wrong;
use super::paths::Paths;
use super::{Reason, number, time};
use crate::clickhouse::types::Type;
use crate::clickhouse::zone::Zone;
use crate::config::TimeUnit;
use crate::record::json::{Kind, Span, is_json_number};

/// What values are encoded with: buffers that are kept, and the zones by name.
#[derive(Debug, Default)]
pub(super) struct Values {
    zones: BTreeMap<String, Zone>,
    paths: Paths,
    scratch: Vec<u8>,
    /// The fields that no column takes, as one object.
    pub(super) rest: Vec<u8>,
    /// The elements of the named tuples that are being encoded, innermost last.
    elements: Vec<Span>,
    /// Where the keys of the maps that are being encoded stand in the output, innermost last.
    keys: Vec<(usize, usize)>,
}

/// A value that is to be encoded: where it stands, and what its column says of it.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) text: &'a [u8],
    pub(super) span: Span,
    pub(super) unit: Option<TimeUnit>,
    /// It is the key of a JSON object, and so a string whatever it stands for.
    pub(super) is_key: bool,
}

impl<'a> Value<'a> {
    fn at(self, span: Span) -> Self {
        Self { span, is_key: false, ..self }
    }

    fn key(self, span: Span) -> Self {
        Self { span, is_key: true, ..self }
    }

    fn bytes(self) -> &'a [u8] {
        self.span.bytes(self.text)
    }
}

type Encoded = Result<(), Reason>;

impl Values {
    /// Values of a table that names these zones.
    pub(super) fn new(zones: BTreeMap<String, Zone>) -> Self {
        Self { zones, ..Self::default() }
    }

    /// Appends `value` as one of `ty`; on an error something may have been appended.
    pub(super) fn encode(&mut self, ty: &Type, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
        match ty {
            Type::LowCardinality(inner) => return self.encode(inner, value, out),
            Type::Nullable(inner) => {
                let is_null = matches!(value.span.kind, Kind::Null | Kind::Missing);
                out.push(u8::from(is_null));
                return if is_null { Ok(()) } else { self.encode(inner, value, out) };
            }
            Type::Array(inner) => return self.array(inner, value, out),
            Type::Map(key, inner) => return self.map(key, inner, value, out),
            Type::Tuple(parts) => return self.tuple(parts, value, out),
            Type::NamedTuple(parts) => return self.named_tuple(parts, value, out),
            _ => {}
        }
        let wrong = |why| Err(Wrong { span: value.span, why });
        match value.span.kind {
            Kind::Null => return wrong(Reason::Null),
            Kind::Missing => return wrong(Reason::Missing),
            _ => {}
        }
        self.scalar(ty, value, out).or_else(wrong)
    }

    fn scalar(&mut self, ty: &Type, value: Value<'_>, out: &mut Vec<u8>) -> Encoded {
        match ty {
            Type::String => self.string(value, out),
            Type::Int(bytes) => self.integer(value, *bytes, true, out),
            Type::UInt(bytes) => self.integer(value, *bytes, false, out),
            Type::Float32 => float32(value, out),
            Type::Float64 => float64(value).map(|value| out.extend_from_slice(&value.to_le_bytes())),
            Type::Bool => boolean(value, out),
            Type::Decimal { precision, scale, bytes } => {
                let (precision, scale, bytes) = (*precision, *scale, *bytes);
                let text = self.number(value, bytes >= 8)?;
                number::decimal(text, precision, scale, bytes, out)
            }
            Type::FixedString(bytes) => self.fixed_string(value, *bytes as usize, out),
            Type::Uuid => uuid(self.text(value)?, out),
            Type::Ipv4 => parsed::<std::net::Ipv4Addr>(self.text(value)?)
                .map(|address| out.extend_from_slice(&u32::from(address).to_le_bytes())),
            Type::Ipv6 => ipv6(self.text(value)?, out),
            Type::Date => time::date16(self.days(value)?).map(|days| out.extend_from_slice(&days.to_le_bytes())),
            Type::Date32 => time::date32(self.days(value)?).map(|days| out.extend_from_slice(&days.to_le_bytes())),
            Type::DateTime(zone) => self.date_time(value, zone.as_deref(), out),
            Type::DateTime64(digits, zone) => self.date_time64(value, *digits, zone.as_deref(), out),
            Type::Enum8(variants) => self.variant(value, variants).map(|number| out.push(number as u8)),
            Type::Enum16(variants) => {
                self.variant(value, variants).map(|number| out.extend_from_slice(&number.to_le_bytes()))
            }
            Type::Json => self.json(value, out),
            _ => Err(Reason::Type),
        }
    }

    /// What a string holds.
    fn text<'v>(&'v mut self, value: Value<'v>) -> Result<&'v [u8], Reason> {
        value.span.string(value.text, &mut self.scratch).ok_or(Reason::Type)
    }

    /// A number's text; where they may be quoted, also out of a string, as clients write what a double can't hold.
    fn number<'v>(&'v mut self, value: Value<'v>, quoted: bool) -> Result<&'v [u8], Reason> {
        if value.span.is_number() {
            return Ok(value.bytes());
        }
        if !(quoted || value.is_key) {
            return Err(Reason::Type);
        }
        let text = self.text(value)?;
        if is_json_number(text) { Ok(text) } else { Err(Reason::Format) }
    }

    fn string(&mut self, value: Value<'_>, out: &mut Vec<u8>) -> Encoded {
        if value.span.kind == Kind::Text {
            let bytes = value.bytes();
            put_bytes(&bytes[1..bytes.len() - 1], out);
            return Ok(());
        }
        put_bytes(self.text(value)?, out);
        Ok(())
    }

    fn fixed_string(&mut self, value: Value<'_>, bytes: usize, out: &mut Vec<u8>) -> Encoded {
        let text = self.text(value)?;
        let padding = bytes.checked_sub(text.len()).ok_or(Reason::Length)?;
        out.extend_from_slice(text);
        out.resize(out.len() + padding, 0);
        Ok(())
    }

    fn integer(&mut self, value: Value<'_>, bytes: u8, signed: bool, out: &mut Vec<u8>) -> Encoded {
        let width = usize::from(bytes);
        if let Some(number) = value.span.int64(value.text).filter(|_| width <= 8) {
            let bits = 8 * u32::from(bytes);
            let fits = if signed {
                number >> (bits - 1) == number >> 63
            } else {
                number >= 0 && (bits == 64 || number >> bits == 0)
            };
            if !fits {
                return Err(Reason::Range);
            }
            out.extend_from_slice(&number.to_le_bytes()[..width]);
            return Ok(());
        }
        number::integer(self.number(value, width >= 8)?, width, signed, out)
    }

    fn json(&mut self, value: Value<'_>, out: &mut Vec<u8>) -> Encoded {
        if value.span.kind != Kind::Object {
            return Err(Reason::Type);
        }
        if !self.paths.are_distinct(value.text, value.span) {
            return Err(Reason::DuplicateKey);
        }
        put_bytes(value.bytes(), out);
        Ok(())
    }

    fn days(&mut self, value: Value<'_>) -> Result<i64, Reason> {
        if value.span.is_number() {
            // Days, seconds and milliseconds all look alike: a bare number needs its unit.
            return time::to_days(time::nanos_of_number(value.bytes(), value.unit.ok_or(Reason::Type)?)?);
        }
        time::days(self.text(value)?)
    }

    fn date_time(&mut self, value: Value<'_>, zone: Option<&str>, out: &mut Vec<u8>) -> Encoded {
        let seconds = if value.span.is_number() {
            time::to_seconds(nanos(value)?)?
        } else {
            let text = value.span.string(value.text, &mut self.scratch).ok_or(Reason::Type)?;
            time::seconds(text, zone.and_then(|zone| self.zones.get(zone)))?
        };
        let seconds = u32::try_from(seconds).map_err(|_| Reason::Range)?;
        out.extend_from_slice(&seconds.to_le_bytes());
        Ok(())
    }

    fn date_time64(&mut self, value: Value<'_>, digits: u8, zone: Option<&str>, out: &mut Vec<u8>) -> Encoded {
        let ticks = if value.span.is_number() {
            time::to_ticks(nanos(value)?, digits)?
        } else {
            let text = value.span.string(value.text, &mut self.scratch).ok_or(Reason::Type)?;
            time::ticks(text, digits, zone.and_then(|zone| self.zones.get(zone)))?
        };
        out.extend_from_slice(&ticks.to_le_bytes());
        Ok(())
    }

    fn variant(&mut self, value: Value<'_>, variants: &[(String, i16)]) -> Result<i16, Reason> {
        if value.span.is_number() {
            let number = value.span.int64(value.text).and_then(|number| i16::try_from(number).ok());
            let known = number.filter(|number| variants.iter().any(|variant| variant.1 == *number));
            return known.ok_or(Reason::Enum);
        }
        let name = self.text(value)?;
        let at = variants.binary_search_by(|variant| variant.0.as_bytes().cmp(name)).map_err(|_| Reason::Enum)?;
        Ok(variants[at].1)
    }

    fn array(&mut self, inner: &Type, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
        expect(value, Kind::Array)?;
        let start = open_list(out);
        let mut count = 0;
        for item in value.span.items(value.text) {
            self.encode(inner, value.at(item), out)?;
            count += 1;
        }
        close_list(start, count, out);
        Ok(())
    }

    fn map(&mut self, key: &Type, inner: &Type, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
        expect(value, Kind::Object)?;
        let (start, first_key) = (open_list(out), self.keys.len());
        for (name, member) in value.span.members(value.text) {
            let from = out.len();
            self.encode(key, value.key(name), out)?;
            self.keys.push((from, out.len()));
            self.encode(inner, value.at(member), out)?;
        }
        let keys = &mut self.keys[first_key..];
        let count = keys.len();
        keys.sort_unstable_by(|a, b| out[a.0..a.1].cmp(&out[b.0..b.1]));
        let is_twice = keys.windows(2).any(|pair| out[pair[0].0..pair[0].1] == out[pair[1].0..pair[1].1]);
        self.keys.truncate(first_key);
        if is_twice {
            return Err(Wrong { span: value.span, why: Reason::DuplicateKey });
        }
        close_list(start, count, out);
        Ok(())
    }

    fn tuple(&mut self, parts: &[Type], value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
        expect(value, Kind::Array)?;
        let mut items = value.span.items(value.text);
        let other_length = Wrong { span: value.span, why: Reason::Length };
        for part in parts {
            let item = items.next().ok_or(other_length)?;
            self.encode(part, value.at(item), out)?;
        }
        if items.next().is_some() { Err(other_length) } else { Ok(()) }
    }

    fn named_tuple(&mut self, parts: &[(String, Type)], value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
        expect(value, Kind::Object)?;
        let first = self.elements.len();
        self.elements.resize(first + parts.len(), Span::default());
        for (name, member) in value.span.members(value.text) {
            let name = name.string(value.text, &mut self.scratch).unwrap_or_default();
            // Where a key occurs twice the last counts.
            if let Some(at) = parts.iter().position(|part| part.0.as_bytes() == name) {
                self.elements[first + at] = member;
            }
        }
        for (at, (_, part)) in parts.iter().enumerate() {
            self.encode(part, value.at(self.elements[first + at]), out)?;
        }
        self.elements.truncate(first);
        Ok(())
    }

    /// Forgets what an error left half done.
    pub(super) fn reset(&mut self) {
        self.elements.clear();
        self.keys.clear();
    }
}

fn expect(value: Value<'_>, kind: Kind) -> Result<(), Wrong> {
    let why = match value.span.kind {
        found if found == kind => return Ok(()),
        Kind::Null => Reason::Null,
        Kind::Missing => Reason::Missing,
        _ => Reason::Type,
    };
    Err(Wrong { span: value.span, why })
}

/// Appends a length as LEB128.
pub(super) fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Appends a string.
#[inline]
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Leaves a byte for the length of a list that is not known yet.
fn open_list(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len() - 1
}

fn close_list(start: usize, count: usize, out: &mut Vec<u8>) {
    if count < 0x80 {
        out[start] = count as u8;
        return;
    }
    let end = out.len();
    put_length(count, out);
    let length = out.len() - end;
    // The length comes to the front; the byte that was left for it goes.
    out[start..].rotate_right(length);
    out.remove(start + length);
}

fn nanos(value: Value<'_>) -> Result<i128, Reason> {
    let unit = value.unit.unwrap_or(TimeUnit::Seconds);
    // Nearly all are whole numbers that a word holds, and need no arithmetic on their digits.
    match value.span.int64(value.text) {
        Some(number) => Ok(time::nanos_of_integer(number, unit)),
        None => time::nanos_of_number(value.bytes(), unit),
    }
}

fn float64(value: Value<'_>) -> Result<f64, Reason> {
    value.span.float64(value.text).ok_or(Reason::Type)
}

fn float32(value: Value<'_>, out: &mut Vec<u8>) -> Encoded {
    if !value.span.is_number() {
        return Err(Reason::Type);
    }
    // Straight from the text: by way of a double it would be rounded twice.
    let text = std::str::from_utf8(value.bytes()).map_err(|_| Reason::Format)?;
    let number: f32 = text.parse().map_err(|_| Reason::Format)?;
    if !number.is_finite() {
        return Err(Reason::Range);
    }
    out.extend_from_slice(&number.to_le_bytes());
    Ok(())
}

fn boolean(value: Value<'_>, out: &mut Vec<u8>) -> Encoded {
    match value.span.kind {
        Kind::True => out.push(1),
        Kind::False => out.push(0),
        _ => return Err(Reason::Type),
    }
    Ok(())
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Result<T, Reason> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Reason::Format)
}

fn ipv6(text: &[u8], out: &mut Vec<u8>) -> Encoded {
    let address: std::net::IpAddr = parsed(text)?;
    let address = match address {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
        std::net::IpAddr::V6(address) => address,
    };
    out.extend_from_slice(&address.octets());
    Ok(())
}

/// 32 hexadecimal digits with the usual hyphens, or with none; as two words, the high one first.
fn uuid(text: &[u8], out: &mut Vec<u8>) -> Encoded {
    let has_hyphens = text.len() == 36;
    if !has_hyphens && text.len() != 32 {
        return Err(Reason::Format);
    }
    let mut number = 0_u128;
    for (at, byte) in text.iter().enumerate() {
        if has_hyphens && matches!(at, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return Err(Reason::Format);
            }
            continue;
        }
        let digit = char::from(*byte).to_digit(16).ok_or(Reason::Format)?;
        number = number << 4 | u128::from(digit);
    }
    out.extend_from_slice(&((number >> 64) as u64).to_le_bytes());
    out.extend_from_slice(&(number as u64).to_le_bytes());
    Ok(())
}
