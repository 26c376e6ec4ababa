//! The names of ClickHouse's types, as `DESCRIBE` gives them, read into a tree.

/// The type of a column, as far as it decides over a value's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `Int8` to `Int256`, by its bytes.
    Int(u8),
    /// `UInt8` to `UInt256`, by its bytes.
    UInt(u8),
    /// `Float32`.
    Float32,
    /// `Float64`.
    Float64,
    /// `Bool`.
    Bool,
    /// `Decimal(precision, scale)`, in so many bytes.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
        /// Bytes of a value.
        bytes: u8,
    },
    /// `String`.
    String,
    /// `FixedString(bytes)`.
    FixedString(u32),
    /// `UUID`.
    Uuid,
    /// `Date`.
    Date,
    /// `Date32`.
    Date32,
    /// `DateTime`, with the time zone that it names.
    DateTime(Option<String>),
    /// `DateTime64` by its digits after the second, with the time zone that it names.
    DateTime64(u8, Option<String>),
    /// `Enum8`: names and numbers, by name.
    Enum8(Vec<(String, i16)>),
    /// `Enum16`: names and numbers, by name.
    Enum16(Vec<(String, i16)>),
    /// `LowCardinality(…)`.
    LowCardinality(Box<Type>),
    /// `Nullable(…)`.
    Nullable(Box<Type>),
    /// `Array(…)`; also `Ring`, `LineString`, `Polygon` and so on.
    Array(Box<Type>),
    /// `Map(key, value)`.
    Map(Box<Type>, Box<Type>),
    /// `Tuple(…)` without names; also `Point`.
    Tuple(Vec<Type>),
    /// `Tuple(name …, …)`.
    NamedTuple(Vec<(String, Type)>),
    /// `IPv4`.
    Ipv4,
    /// `IPv6`.
    Ipv6,
    /// `JSON`, with whatever it declares.
    Json,
    /// A type that no JSON value can be written into.
    Unsupported(String),
}

/// A type's name that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the type `{0}` can't be read")]
pub struct TypeError(pub String);

/// Types within each other.
const MAX_DEPTH: usize = 64;

impl Type {
    /// Reads a type's name, such as `LowCardinality(Nullable(String))`.
    pub fn parse(text: &str) -> Result<Self, TypeError> {
        parse(text.trim(), 0).ok_or_else(|| TypeError(text.to_owned()))
    }

    /// The first part that can't be written, if there is one.
    pub fn unsupported(&self) -> Option<&str> {
        match self {
            Self::Unsupported(name) => Some(name),
            Self::LowCardinality(inner) | Self::Nullable(inner) | Self::Array(inner) => inner.unsupported(),
            Self::Map(key, value) => key.unsupported().or_else(|| value.unsupported()),
            Self::Tuple(parts) => parts.iter().find_map(Self::unsupported),
            Self::NamedTuple(parts) => parts.iter().find_map(|(_, part)| part.unsupported()),
            _ => None,
        }
    }

    /// True where a value may be NULL.
    pub fn is_nullable(&self) -> bool {
        match self {
            Self::Nullable(_) => true,
            Self::LowCardinality(inner) => inner.is_nullable(),
            _ => false,
        }
    }

    /// The type without what says how it is stored and whether it may be NULL.
    pub fn plain(&self) -> &Self {
        match self {
            Self::Nullable(inner) | Self::LowCardinality(inner) => inner.plain(),
            other => other,
        }
    }

    /// Calls `see` with every time zone that is named.
    pub fn each_zone<'a>(&'a self, see: &mut impl FnMut(&'a str)) {
        match self {
            Self::DateTime(Some(zone)) | Self::DateTime64(_, Some(zone)) => see(zone),
            Self::LowCardinality(inner) | Self::Nullable(inner) | Self::Array(inner) => inner.each_zone(see),
            Self::Map(key, value) => {
                key.each_zone(see);
                value.each_zone(see);
            }
            Self::Tuple(parts) => parts.iter().for_each(|part| part.each_zone(see)),
            Self::NamedTuple(parts) => parts.iter().for_each(|(_, part)| part.each_zone(see)),
            _ => {}
        }
    }
}

fn parse(text: &str, depth: usize) -> Option<Type> {
    if depth > MAX_DEPTH {
        return None;
    }
    let (name, args) = match text.split_once('(') {
        Some((name, rest)) => (name.trim_end(), split(rest.strip_suffix(')')?)?),
        None => (text, Vec::new()),
    };
    let inner = |arg: &str| parse(arg, depth + 1).map(Box::new);
    Some(match (name, args.as_slice()) {
        (_, []) => return simple(name),
        ("FixedString", [bytes]) => Type::FixedString(bytes.parse().ok()?),
        ("Decimal", [precision, scale]) => decimal(precision.parse().ok()?, scale.parse().ok()?)?,
        ("DateTime", [zone]) => Type::DateTime(Some(quoted(zone)?)),
        ("DateTime64", [digits]) => Type::DateTime64(sub_second_digits(digits)?, None),
        ("DateTime64", [digits, zone]) => Type::DateTime64(sub_second_digits(digits)?, Some(quoted(zone)?)),
        ("Enum8", values) => Type::Enum8(variants(values)?),
        ("Enum16", values) => Type::Enum16(variants(values)?),
        ("LowCardinality", [arg]) => Type::LowCardinality(inner(arg)?),
        ("Nullable", [arg]) => Type::Nullable(inner(arg)?),
        ("Array", [arg]) => Type::Array(inner(arg)?),
        ("Map", [key, value]) => Type::Map(inner(key)?, inner(value)?),
        ("Tuple", parts) => tuple(parts, depth)?,
        ("Nested", parts) => Type::Array(Box::new(tuple(parts, depth)?)),
        ("SimpleAggregateFunction", [_, arg]) => parse(arg, depth + 1)?,
        ("JSON", _) => Type::Json,
        (name, _) if is_identifier(name) => Type::Unsupported(text.to_owned()),
        _ => return None,
    })
}

fn simple(name: &str) -> Option<Type> {
    let point = || Type::Tuple(vec![Type::Float64, Type::Float64]);
    let array = |inner: Type| Type::Array(Box::new(inner));
    let width = |digits: &str| match digits {
        "8" => Some(1),
        "16" => Some(2),
        "32" => Some(4),
        "64" => Some(8),
        "128" => Some(16),
        "256" => Some(32),
        _ => None,
    };
    if let Some(bytes) = name.strip_prefix("UInt").and_then(width) {
        return Some(Type::UInt(bytes));
    }
    if let Some(bytes) = name.strip_prefix("Int").and_then(width) {
        return Some(Type::Int(bytes));
    }
    Some(match name {
        "Float32" => Type::Float32,
        "Float64" => Type::Float64,
        "Bool" => Type::Bool,
        "String" => Type::String,
        "UUID" => Type::Uuid,
        "Date" => Type::Date,
        "Date32" => Type::Date32,
        "DateTime" => Type::DateTime(None),
        "IPv4" => Type::Ipv4,
        "IPv6" => Type::Ipv6,
        "JSON" => Type::Json,
        "Point" => point(),
        "Ring" | "LineString" => array(point()),
        "Polygon" | "MultiLineString" => array(array(point())),
        "MultiPolygon" => array(array(array(point()))),
        "Tuple" => Type::Tuple(Vec::new()),
        other if is_identifier(other) => Type::Unsupported(other.to_owned()),
        _ => return None,
    })
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn sub_second_digits(text: &str) -> Option<u8> {
    text.parse().ok().filter(|digits| *digits <= 9)
}

fn decimal(precision: u8, scale: u8) -> Option<Type> {
    let bytes = match precision {
        1..=9 => 4,
        10..=18 => 8,
        19..=38 => 16,
        39..=76 => 32,
        _ => return None,
    };
    (scale <= precision).then_some(Type::Decimal { precision, scale, bytes })
}

/// `'name' = number` of each value, sorted by name.
fn variants(args: &[&str]) -> Option<Vec<(String, i16)>> {
    let variant = |arg: &&str| {
        let (name, number) = arg.rsplit_once('=')?;
        Some((quoted(name.trim())?, number.trim().parse().ok()?))
    };
    let mut variants = args.iter().map(variant).collect::<Option<Vec<_>>>()?;
    variants.sort();
    Some(variants)
}

fn tuple(args: &[&str], depth: usize) -> Option<Type> {
    let parts = args.iter().map(|arg| element(arg, depth)).collect::<Option<Vec<_>>>()?;
    if parts.iter().all(|(name, _)| name.is_none()) {
        return Some(Type::Tuple(parts.into_iter().map(|(_, part)| part).collect()));
    }
    let named = parts.into_iter().map(|(name, part)| name.map(|name| (name, part)));
    named.collect::<Option<Vec<_>>>().map(Type::NamedTuple)
}

/// An element of a tuple, with its name where it has one.
fn element(arg: &str, depth: usize) -> Option<(Option<String>, Type)> {
    if arg.starts_with('`') {
        let end = end_of_quoted(arg.as_bytes(), 0)?;
        let name = unescape(&arg[1..end - 1]);
        return Some((Some(name), parse(arg[end..].trim(), depth + 1)?));
    }
    // `name Type`, while no type's name has a space before its bracket.
    match arg.split_once(' ') {
        Some((name, rest)) if !name.contains(['(', '\'']) => {
            Some((Some(name.to_owned()), parse(rest.trim(), depth + 1)?))
        }
        _ => Some((None, parse(arg, depth + 1)?)),
    }
}

/// The arguments, split at the commas that stand in no bracket and in no quotes.
fn split(text: &str) -> Option<Vec<&str>> {
    let bytes = text.as_bytes();
    let (mut args, mut start, mut depth, mut at) = (Vec::new(), 0, 0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'`' | b'"' => {
                at = end_of_quoted(bytes, at)?;
                continue;
            }
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                args.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    if !text.trim().is_empty() {
        args.push(text[start..].trim());
    }
    (depth == 0 && args.iter().all(|arg| !arg.is_empty())).then_some(args)
}

/// The position after the closing quote of what is quoted from `start` on.
fn end_of_quoted(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = *bytes.get(start)?;
    let mut at = start + 1;
    loop {
        match *bytes.get(at)? {
            b'\\' => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// What a literal in single quotes holds.
fn quoted(text: &str) -> Option<String> {
    let is_whole = text.starts_with('\'') && end_of_quoted(text.as_bytes(), 0)? == text.len();
    is_whole.then(|| unescape(&text[1..text.len() - 1]))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let plain = match c {
            '\\' => match chars.next().unwrap_or('\\') {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                '0' => '\0',
                other => other,
            },
            other => other,
        };
        out.push(plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Type {
        Type::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn boxed(text: &str) -> Box<Type> {
        Box::new(read(text))
    }

    #[test]
    fn plain_types_are_read() {
        for (text, ty) in [
            ("UInt8", Type::UInt(1)),
            ("UInt256", Type::UInt(32)),
            ("Int128", Type::Int(16)),
            ("Float32", Type::Float32),
            ("Bool", Type::Bool),
            ("FixedString(16)", Type::FixedString(16)),
            ("Decimal(9, 2)", Type::Decimal { precision: 9, scale: 2, bytes: 4 }),
            ("Decimal(76, 76)", Type::Decimal { precision: 76, scale: 76, bytes: 32 }),
            ("DateTime", Type::DateTime(None)),
            ("DateTime('Europe/Berlin')", Type::DateTime(Some("Europe/Berlin".into()))),
            ("DateTime64(3)", Type::DateTime64(3, None)),
            ("DateTime64(9, 'UTC')", Type::DateTime64(9, Some("UTC".into()))),
            ("JSON", Type::Json),
            ("JSON(max_dynamic_paths=8, a.b UInt32, SKIP c)", Type::Json),
            ("Point", Type::Tuple(vec![Type::Float64, Type::Float64])),
        ] {
            assert_eq!(read(text), ty, "{text}");
        }
    }

    #[test]
    fn types_within_types_are_read() {
        assert_eq!(
            read("LowCardinality(Nullable(String))"),
            Type::LowCardinality(Box::new(Type::Nullable(boxed("String"))))
        );
        assert_eq!(
            read("Map(LowCardinality(String), Array(Tuple(UInt8, DateTime('UTC'))))"),
            Type::Map(
                boxed("LowCardinality(String)"),
                Box::new(Type::Array(Box::new(Type::Tuple(vec![Type::UInt(1), read("DateTime('UTC')")]))))
            )
        );
        let named = vec![("a".to_owned(), Type::UInt(1)), ("b c,(".to_owned(), read("Nullable(Int8)"))];
        assert_eq!(read("Tuple(a UInt8, `b c,(` Nullable(Int8))"), Type::NamedTuple(named.clone()));
        assert_eq!(read("Nested(a UInt8, `b c,(` Nullable(Int8))"), Type::Array(Box::new(Type::NamedTuple(named))));
        assert_eq!(read("SimpleAggregateFunction(sum, UInt64)"), Type::UInt(8));
        assert_eq!(read("SimpleAggregateFunction(groupArrayArray(10), Array(String))"), Type::Array(boxed("String")));
    }

    #[test]
    fn enums_are_read_with_whatever_their_names_hold() {
        let ty = read(r"Enum8('it\'s, a = (b' = -1, 'a' = 2, '' = 0)");
        let expected = vec![(String::new(), 0), ("a".into(), 2), ("it's, a = (b".into(), -1)];
        assert_eq!(ty, Type::Enum8(expected));
        assert_eq!(read("Enum16('x' = 32767)"), Type::Enum16(vec![("x".into(), 32767)]));
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        for (text, name) in [
            ("AggregateFunction(uniq, UInt64)", "AggregateFunction(uniq, UInt64)"),
            ("Array(Variant(String, UInt8))", "Variant(String, UInt8)"),
            ("Map(String, Dynamic)", "Dynamic"),
            ("Tuple(a UInt8, b Time64(3))", "Time64(3)"),
            ("Object('json')", "Object('json')"),
            ("IntervalDay", "IntervalDay"),
        ] {
            assert_eq!(read(text).unsupported(), Some(name), "{text}");
        }
        assert_eq!(read("Array(String)").unsupported(), None);
    }

    #[test]
    fn what_is_no_type_is_refused() {
        let deep = "Array(".repeat(100) + "UInt8" + &")".repeat(100);
        for text in ["", "Array(", "Array(UInt8", "Decimal(77, 1)", "Decimal(3, 4)", "Enum8('a')", "8", &deep] {
            assert!(Type::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn zones_and_nullability_are_seen() {
        let ty = read("Tuple(a DateTime('A'), b Array(DateTime64(3, 'B')), c Map(DateTime('C'), DateTime))");
        let mut zones = Vec::new();
        ty.each_zone(&mut |zone| zones.push(zone));
        assert_eq!(zones, ["A", "B", "C"]);
        assert!(read("LowCardinality(Nullable(String))").is_nullable() && !read("Array(Nullable(Int8))").is_nullable());
        assert_eq!(read("LowCardinality(Nullable(String))").plain(), &Type::String);
    }
}
