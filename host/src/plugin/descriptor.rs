//! What a plugin says of itself, checked.

use super::abi;
use crate::record::{ColumnType, TimestampEncoding};

/// Bounds of a descriptor.
const FIELDS: usize = 256;
const OUTPUTS: usize = 64;
const NAME_BYTES: usize = 64;
const PATH_BYTES: usize = 1024;

/// What a plugin reads and writes under one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The plugin's name: `[a-z0-9_-]`, at most 64 bytes.
    pub name: String,
    /// Its version, as it likes; printable ASCII, at most 64 bytes.
    pub version: String,
    /// The fields that it sees, in the order of the columns.
    pub reads: Vec<ReadField>,
    /// The fields that it may write.
    pub writes: Vec<WriteField>,
    /// Named outputs besides the main one; `[a-z0-9_-]`.
    pub outputs: Vec<String>,
    /// Parts of the record that it sees beside its fields.
    pub raw_reads: Parts,
    /// Parts of the record that it may write.
    pub raw_writes: Parts,
    /// True where it wants tombstones too.
    pub tombstones: bool,
}

/// A field that a plugin reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadField {
    /// A JSON Pointer, whose syntax is not checked here.
    pub path: String,
    /// The values' type.
    pub ty: ColumnType,
    /// True where a record without it is rejected before the plugin sees it.
    pub required: bool,
}

/// A field that a plugin writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteField {
    /// A JSON Pointer, whose syntax is not checked here.
    pub path: String,
    /// The values' type.
    pub ty: ColumnType,
}

/// Parts of a record beside its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The key.
    pub key: bool,
    /// The value's bytes.
    pub value: bool,
    /// The headers.
    pub headers: bool,
    /// The timestamp.
    pub timestamp: bool,
}

impl From<abi::Parts> for Parts {
    fn from(parts: abi::Parts) -> Self {
        Self {
            key: parts.contains(abi::Parts::KEY),
            value: parts.contains(abi::Parts::VALUE),
            headers: parts.contains(abi::Parts::HEADERS),
            timestamp: parts.contains(abi::Parts::TIMESTAMP),
        }
    }
}

impl From<abi::ColumnType> for ColumnType {
    fn from(ty: abi::ColumnType) -> Self {
        match ty {
            abi::ColumnType::Boolean => Self::Bool,
            abi::ColumnType::Int64 => Self::Int64,
            abi::ColumnType::Float64 => Self::Float64,
            abi::ColumnType::Text => Self::Text,
            abi::ColumnType::Bytes => Self::Bytes,
            abi::ColumnType::Timestamp(encoding) => Self::Timestamp(match encoding {
                abi::TimestampEncoding::Rfc3339 => TimestampEncoding::Rfc3339,
                abi::TimestampEncoding::EpochS => TimestampEncoding::EpochS,
                abi::TimestampEncoding::EpochMs => TimestampEncoding::EpochMs,
                abi::TimestampEncoding::EpochUs => TimestampEncoding::EpochUs,
                abi::TimestampEncoding::EpochNs => TimestampEncoding::EpochNs,
            }),
            abi::ColumnType::Decimal => Self::Decimal,
            abi::ColumnType::Json => Self::Json,
        }
    }
}

/// Takes what `describe` returned, or says which rule it breaks.
pub(super) fn check(described: abi::Descriptor) -> Result<Descriptor, String> {
    check_name("name", &described.name)?;
    let version = &described.version;
    if version.is_empty() || version.len() > NAME_BYTES || !version.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("its version must be 1 to {NAME_BYTES} printable ASCII characters"));
    }
    check_fields("reads", &described.reads)?;
    check_fields("writes", &described.writes)?;
    check_distinct("writes", described.writes.iter().map(|field| field.path.as_str()))?;
    if described.outputs.len() > OUTPUTS {
        return Err(format!("it has {} outputs, and {OUTPUTS} are the most", described.outputs.len()));
    }
    described.outputs.iter().try_for_each(|output| check_name("an output's name", output))?;
    check_distinct("outputs", described.outputs.iter().map(String::as_str))?;
    let read = |field: abi::Field| ReadField { path: field.path, ty: field.of_type.into(), required: field.required };
    let write = |field: abi::Field| WriteField { path: field.path, ty: field.of_type.into() };
    Ok(Descriptor {
        name: described.name,
        version: described.version,
        reads: described.reads.into_iter().map(read).collect(),
        writes: described.writes.into_iter().map(write).collect(),
        outputs: described.outputs,
        raw_reads: described.raw_reads.into(),
        raw_writes: described.raw_writes.into(),
        tombstones: described.tombstones,
    })
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(allowed) {
        return Err(format!("{what} must be 1 to {NAME_BYTES} characters of a-z, 0-9, _ and -"));
    }
    Ok(())
}

fn check_fields(what: &str, fields: &[abi::Field]) -> Result<(), String> {
    if fields.len() > FIELDS {
        return Err(format!("it {what} {} fields, and {FIELDS} are the most", fields.len()));
    }
    match fields.iter().find(|field| field.path.len() > PATH_BYTES) {
        Some(field) => Err(format!("a path that it {what} has {} bytes, above {PATH_BYTES}", field.path.len())),
        None => Ok(()),
    }
}

fn check_distinct<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("`{name}` stands twice in its {what}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> abi::Descriptor {
        let field = |path: &str| abi::Field { path: path.into(), of_type: abi::ColumnType::Text, required: true };
        abi::Descriptor {
            name: "enrich-2".into(),
            version: "1.0.0+b".into(),
            reads: vec![field("/a"), field("/b")],
            writes: vec![field("/c")],
            outputs: vec!["late".into()],
            raw_reads: abi::Parts::KEY | abi::Parts::TIMESTAMP,
            raw_writes: abi::Parts::default(),
            tombstones: false,
        }
    }

    #[test]
    fn a_good_descriptor_comes_through() {
        let checked = check(described()).expect("it is good");
        assert_eq!(checked.reads[1].path, "/b");
        assert_eq!(checked.raw_reads, Parts { key: true, timestamp: true, ..Parts::default() });
    }

    #[test]
    fn every_rule_is_kept() {
        let broken: [fn(&mut abi::Descriptor); 9] = [
            |d| d.name = String::new(),
            |d| d.name = "Upper".into(),
            |d| d.name = "x".repeat(65),
            |d| d.version = "a b".into(),
            |d| d.outputs.push("late".into()),
            |d| d.outputs = (0..65).map(|i| format!("o{i}")).collect(),
            |d| d.writes[0].path = "x".repeat(1025),
            |d| d.writes.push(abi::Field { path: "/c".into(), of_type: abi::ColumnType::Json, required: false }),
            |d| {
                d.reads = (0..257)
                    .map(|i| abi::Field { path: format!("/{i}"), of_type: abi::ColumnType::Json, required: false })
                    .collect();
            },
        ];
        for (i, breaks) in broken.iter().enumerate() {
            let mut descriptor = described();
            breaks(&mut descriptor);
            assert!(check(descriptor).is_err(), "rule {i}");
        }
    }
}
