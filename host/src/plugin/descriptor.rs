//! What a plugin says of itself, checked.

use std::fmt::Display;
use std::hash::Hash;

use super::abi;
use crate::record::{ColumnType, TimestampEncoding};

/// Bounds of a descriptor.
const FIELDS: usize = 256;
const OUTPUTS: usize = 64;
const NAME_BYTES: usize = 64;
const PATH_BYTES: usize = 1024;
const OLD_VERSIONS: usize = 64;

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
    /// Columns of tables that it sees with each batch, behind those of its fields.
    pub joins: Vec<JoinField>,
    /// Columns of tables that it looks up itself.
    pub lookups: Vec<TableField>,
    /// True where it judges itself what is missing or of another type; a plugin never does.
    pub lenient: bool,
}

impl Descriptor {
    /// The types of the columns that it sees: of fields, then of joins.
    pub fn column_types(&self) -> impl Iterator<Item = ColumnType> {
        self.reads.iter().map(|read| read.ty).chain(self.joins.iter().map(|join| join.ty))
    }
}

/// What an aggregate reads and writes under one configuration, and which states it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateDescriptor {
    /// The plugin's name: `[a-z0-9_-]`, at most 64 bytes.
    pub name: String,
    /// Its version, as it likes; printable ASCII, at most 64 bytes.
    pub version: String,
    /// The fields that it folds, in the order of the columns.
    pub reads: Vec<ReadField>,
    /// The fields of the rows that it makes; each path is a JSON Pointer of one level.
    pub writes: Vec<WriteField>,
    /// The version of its states.
    pub state_version: u32,
    /// The older versions that it migrates.
    pub migrates_from: Vec<u32>,
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

/// A column of one of the pipeline's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableField {
    /// The table's name.
    pub table: String,
    /// A JSON Pointer into its rows, whose syntax is not checked here.
    pub path: String,
}

/// A column of a table that is joined to each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinField {
    /// The column.
    pub column: TableField,
    /// A JSON Pointer to the field that holds the key of the table's row; its syntax is not checked here.
    pub on: String,
    /// The values' type.
    pub ty: ColumnType,
    /// True where a record without it is rejected before the plugin sees it.
    pub required: bool,
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
    check_common(&described.name, &described.version, &described.reads, &described.writes)?;
    if described.outputs.len() > OUTPUTS {
        return Err(format!("it has {} outputs, and {OUTPUTS} are the most", described.outputs.len()));
    }
    described.outputs.iter().try_for_each(|output| check_name("an output's name", output))?;
    check_distinct("outputs", described.outputs.iter().map(String::as_str))?;
    for (what, count) in [("joins", described.joins.len()), ("lookups", described.lookups.len())] {
        if count > FIELDS {
            return Err(format!("it has {count} {what}, and {FIELDS} are the most"));
        }
    }
    let joined = described.joins.iter().map(|join| &join.column);
    joined.chain(&described.lookups).try_for_each(|column| check_name("a table's name", &column.table))?;
    let paths = described.joins.iter().flat_map(|join| [&join.column.path, &join.on]);
    check_paths(paths.chain(described.lookups.iter().map(|column| &column.path)))?;
    Ok(Descriptor {
        name: described.name,
        version: described.version,
        reads: described.reads.into_iter().map(ReadField::from).collect(),
        writes: described.writes.into_iter().map(WriteField::from).collect(),
        outputs: described.outputs,
        raw_reads: described.raw_reads.into(),
        raw_writes: described.raw_writes.into(),
        tombstones: described.tombstones,
        joins: described.joins.into_iter().map(JoinField::from).collect(),
        lookups: described.lookups.into_iter().map(TableField::from).collect(),
        lenient: false,
    })
}

/// Takes what an aggregate's `describe` returned, or says which rule it breaks.
pub(super) fn check_aggregate(described: abi::AggregateDescriptor) -> Result<AggregateDescriptor, String> {
    check_common(&described.name, &described.version, &described.reads, &described.writes)?;
    if let Some(field) = described.writes.iter().find(|field| !is_one_level(&field.path)) {
        return Err(format!("it writes `{}`, and a result's path has one level, such as `/average`", field.path));
    }
    let old = &described.migrates_from;
    if old.len() > OLD_VERSIONS {
        return Err(format!("it migrates from {} versions, and {OLD_VERSIONS} are the most", old.len()));
    }
    if old.contains(&described.state_version) {
        return Err(format!("it migrates states from version {}, which is its own", described.state_version));
    }
    check_distinct("older versions", old.iter())?;
    Ok(AggregateDescriptor {
        name: described.name,
        version: described.version,
        reads: described.reads.into_iter().map(ReadField::from).collect(),
        writes: described.writes.into_iter().map(WriteField::from).collect(),
        state_version: described.state_version,
        migrates_from: described.migrates_from,
    })
}

/// True for a JSON Pointer to a member of the row itself.
fn is_one_level(path: &str) -> bool {
    let name = path.strip_prefix('/');
    name.is_some_and(|name| !name.contains('/') && name.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])))
}

fn check_common(name: &str, version: &str, reads: &[abi::Field], writes: &[abi::Field]) -> Result<(), String> {
    check_name("name", name)?;
    if version.is_empty() || version.len() > NAME_BYTES || !version.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("its version must be 1 to {NAME_BYTES} printable ASCII characters"));
    }
    check_fields("reads", reads)?;
    check_fields("writes", writes)?;
    check_distinct("writes", writes.iter().map(|field| field.path.as_str()))
}

impl From<abi::Field> for ReadField {
    fn from(field: abi::Field) -> Self {
        Self { path: field.path, ty: field.of_type.into(), required: field.required }
    }
}

impl From<abi::TableColumn> for TableField {
    fn from(column: abi::TableColumn) -> Self {
        Self { table: column.table, path: column.path }
    }
}

impl From<abi::Joined> for JoinField {
    fn from(join: abi::Joined) -> Self {
        Self { column: join.column.into(), on: join.on, ty: join.of_type.into(), required: join.required }
    }
}

impl From<abi::Field> for WriteField {
    fn from(field: abi::Field) -> Self {
        Self { path: field.path, ty: field.of_type.into() }
    }
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
    check_paths(fields.iter().map(|field| &field.path))
}

fn check_paths<'a>(mut paths: impl Iterator<Item = &'a String>) -> Result<(), String> {
    match paths.find(|path| path.len() > PATH_BYTES) {
        Some(path) => Err(format!("a path that it declares has {} bytes, above {PATH_BYTES}", path.len())),
        None => Ok(()),
    }
}

fn check_distinct<T: Display + Hash + Eq>(what: &str, names: impl Iterator<Item = T>) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if let Some(twice) = seen.replace(name) {
            return Err(format!("`{twice}` stands twice in its {what}"));
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
            joins: vec![join("users", "/city")],
            lookups: vec![abi::TableColumn { table: "rates".into(), path: "/rate".into() }],
        }
    }

    fn join(table: &str, path: &str) -> abi::Joined {
        let column = abi::TableColumn { table: table.into(), path: path.into() };
        abi::Joined { column, on: "/user_id".into(), of_type: abi::ColumnType::Text, required: true }
    }

    #[test]
    fn a_good_descriptor_comes_through() {
        let checked = check(described()).expect("it is good");
        assert_eq!(checked.reads[1].path, "/b");
        assert_eq!(checked.raw_reads, Parts { key: true, timestamp: true, ..Parts::default() });
    }

    #[test]
    fn every_rule_is_kept() {
        let broken: [fn(&mut abi::Descriptor); 13] = [
            |d| d.joins.push(join("Users", "/city")),
            |d| d.joins.push(join("users", &"x".repeat(1025))),
            |d| d.joins = (0..257).map(|_| join("users", "/city")).collect(),
            |d| d.lookups[0].table = String::new(),
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

    #[test]
    fn an_aggregate_writes_one_level_and_knows_its_versions_apart() {
        let described = |path: &str, migrates_from: &[u32]| {
            let field = |path: &str| abi::Field { path: path.into(), of_type: abi::ColumnType::Json, required: true };
            check_aggregate(abi::AggregateDescriptor {
                name: "sessions".into(),
                version: "1.0.0".into(),
                reads: vec![field("/a/b/c")],
                writes: vec![field(path)],
                state_version: 3,
                migrates_from: migrates_from.to_vec(),
            })
        };
        for path in ["/average", "/", "/a~1b~0"] {
            assert_eq!(described(path, &[2, 1]).expect(path).writes[0].path, path);
        }
        for path in ["", "average", "/a/b", "/a~", "/a~2"] {
            assert!(described(path, &[]).expect_err(path).contains("one level"));
        }
        assert!(described("/a", &[1, 3]).expect_err("its own").contains("version 3"));
        assert!(described("/a", &[1, 2, 1]).expect_err("twice").contains("`1` stands twice"));
        let many: Vec<u32> = (10..=74).collect();
        assert!(described("/a", &many).expect_err("65").contains("64 are the most"));
    }
}
