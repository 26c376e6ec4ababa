//! What each column of a row is made of, worked out once from the table and the configuration's rules.

use super::misfit::{Wrong, found};
use super::value::{Value, Values};
use super::{Misfit, Reason, put_bytes, takes_lineage};
use crate::clickhouse::table::{Column, DefaultKind, Table};
use crate::clickhouse::types::Type;
use crate::config::{ClickHouseConfig, ColumnRule, TimeUnit, UnknownFields};
use crate::record::ColumnType;
use crate::record::json::{Field, Kind, Pointer, Span};

/// A table and a configuration that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncoderError {
    /// A rule for a column that is not there.
    #[error("`columns` names {0}, which the table does not have")]
    NoColumn(String),
    /// A rule for a column that nobody can insert into.
    #[error("column {0} is computed by the server (MATERIALIZED or ALIAS); take it out of `columns`")]
    Computed(String),
    /// A rule for a column that Millstream fills.
    #[error("column {0} holds where a record came from; take it out of `columns`, or call it otherwise")]
    Lineage(String),
    /// A lineage column that can't hold what it is for.
    #[error("column {column} is {found}, but has to be {wanted} to say where a record came from")]
    LineageType {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// A column whose type JSON can't be written into.
    #[error(
        "column {column}: no JSON can be written into {part} (of {found}); give the column a DEFAULT, or make it String"
    )]
    Unsupported {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The part of it that can't be written.
        part: String,
    },
    /// A default or constant that does not fit its own column.
    #[error("`columns` has a value that does not fit: {0}")]
    Value(Misfit),
    /// The column for unknown fields can't take them.
    #[error("column {0} can't take the unknown fields: it has to be of type String or JSON and have no rule")]
    Rest(String),
    /// A field that no record can have.
    #[error("{0}")]
    Plan(String),
}

/// A column of the row.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) ty: Type,
    pub(super) type_text: String,
    pub(super) unit: Option<TimeUnit>,
    pub(super) source: Source,
    pub(super) absent: Absent,
}

/// Where a column's value comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// A read of the plan.
    Read(usize),
    /// Always these bytes.
    Constant(Vec<u8>),
    /// The fields that no column takes.
    Rest,
    /// The record's topic.
    Topic,
    /// Its partition.
    Partition,
    /// Its offset.
    Offset,
    /// Its time.
    Timestamp,
}

/// What stands for a value that is not there.
#[derive(Debug)]
pub(super) enum Absent {
    /// These bytes.
    Value(Vec<u8>),
    /// What the server makes of the column's DEFAULT.
    Server,
    /// Nothing.
    Misfit,
}

/// What happens to fields that no column takes; with the keys that some column takes, sorted.
#[derive(Debug)]
pub(super) enum Unknown {
    Ignore,
    Refuse(Vec<Vec<u8>>),
    Keep(Vec<Vec<u8>>),
}

impl Unknown {
    pub(super) fn compile(fields: &UnknownFields, reads: &[Field]) -> Self {
        let first = |field: &Field| field.path.tokens().first().map(|token| token.clone().into_bytes());
        let mut known: Vec<Vec<u8>> = reads.iter().filter_map(first).collect();
        known.sort();
        match fields {
            UnknownFields::Ignore => Self::Ignore,
            UnknownFields::Refuse => Self::Refuse(known),
            UnknownFields::Column(_) => Self::Keep(known),
        }
    }
}

/// The columns of a row and what they read; the first read is the whole record.
pub(super) fn compile(
    table: &Table,
    config: &ClickHouseConfig,
    values: &mut Values,
) -> Result<(Vec<Slot>, Vec<Field>), EncoderError> {
    let is_there = |name: &str| table.columns.iter().any(|column| column.name == name);
    if let Some(missing) = config.columns.keys().find(|name| !is_there(name)) {
        return Err(EncoderError::NoColumn(missing.clone()));
    }
    let rest = match &config.unknown_fields {
        UnknownFields::Column(name) if !is_there(name) => return Err(EncoderError::NoColumn(name.clone())),
        UnknownFields::Column(name) => Some(name),
        _ => None,
    };
    let mut reads = vec![Field { path: Pointer::default(), ty: ColumnType::Json }];
    let mut slots = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        let rule = config.columns.get(&column.name);
        let is_computed = matches!(column.default, DefaultKind::Materialized | DefaultKind::Alias);
        if is_computed && (rule.is_some() || rest == Some(&column.name)) {
            return Err(EncoderError::Computed(column.name.clone()));
        }
        // What can't be written is left to its DEFAULT.
        let is_left = column.ty.unsupported().is_some() && column.has_default() && rule.is_none();
        if !is_computed && !is_left {
            let is_rest = rest == Some(&column.name);
            slots.push(slot(column, rule, is_rest, &mut reads, values)?);
        }
    }
    Ok((slots, reads))
}

fn slot(
    column: &Column,
    rule: Option<&ColumnRule>,
    is_rest: bool,
    reads: &mut Vec<Field>,
    values: &mut Values,
) -> Result<Slot, EncoderError> {
    if let Some(part) = column.ty.unsupported() {
        let (column, found) = (column.name.clone(), column.type_text.clone());
        return Err(EncoderError::Unsupported { column, found, part: part.to_owned() });
    }
    let mut slot = Slot {
        name: column.name.clone(),
        ty: column.ty.clone(),
        type_text: column.type_text.clone(),
        unit: rule.and_then(|rule| rule.unit),
        source: Source::Rest,
        absent: Absent::Misfit,
    };
    if is_rest {
        let fits = matches!(column.ty.plain(), Type::String | Type::Json) && rule.is_none();
        return if fits { Ok(slot) } else { Err(EncoderError::Rest(column.name.clone())) };
    }
    if let Some((source, wanted)) = lineage(&column.name) {
        if rule.is_some() {
            return Err(EncoderError::Lineage(column.name.clone()));
        }
        if !takes_lineage(&column.ty, &source) {
            let (column, found) = (column.name.clone(), column.type_text.clone());
            return Err(EncoderError::LineageType { column, found, wanted });
        }
        slot.unit = Some(TimeUnit::Millis);
        slot.source = source;
        return Ok(slot);
    }
    if let Some(constant) = rule.and_then(|rule| rule.constant.as_deref()) {
        slot.source = Source::Constant(fixed(&slot, constant, values)?);
        return Ok(slot);
    }
    let path = match rule.and_then(|rule| rule.from.as_deref()) {
        Some(from) => Pointer::parse(from).map_err(|error| EncoderError::Plan(error.to_string()))?,
        None => Pointer::of_tokens(&[&column.name]),
    };
    slot.source = Source::Read(reads.len());
    reads.push(Field { path, ty: ColumnType::Json });
    slot.absent = match rule.and_then(|rule| rule.default.as_deref()) {
        Some(default) => Absent::Value(fixed(&slot, default, values)?),
        None if column.has_default() => Absent::Server,
        None if column.ty.is_nullable() => Absent::Value(fixed(&slot, "null", values)?),
        None => Absent::Misfit,
    };
    Ok(slot)
}

/// The lineage column of this name, and what type it has to be.
fn lineage(name: &str) -> Option<(Source, &'static str)> {
    match name {
        "_topic" => Some((Source::Topic, "a String")),
        "_partition" => Some((Source::Partition, "an integer of 32 bits or more")),
        "_offset" => Some((Source::Offset, "an integer of 64 bits or more")),
        "_timestamp" => Some((Source::Timestamp, "a DateTime or DateTime64")),
        _ => None,
    }
}

/// The bytes of a value that the configuration gives.
fn fixed(slot: &Slot, json: &str, values: &mut Values) -> Result<Vec<u8>, EncoderError> {
    let text = json.as_bytes();
    let span = Span::of(text)
        .map_err(|error| EncoderError::Plan(format!("column {}: `{json}` is no JSON: {error}", slot.name)))?;
    let mut bytes = Vec::new();
    let value = Value { text, span, unit: slot.unit, is_key: false };
    values.encode(&slot.ty, value, &mut bytes).map_err(|wrong| EncoderError::Value(slot.misfit(wrong)))?;
    Ok(bytes)
}

/// The first field of a record that no column takes, as what is wrong with it.
pub(super) fn first_unknown(root: Span, text: &[u8], known: &[Vec<u8>]) -> Option<Misfit> {
    let mut scratch = Vec::new();
    root.members(text).find_map(|(key, value)| {
        let name = key.string(text, &mut scratch).unwrap_or_default();
        if is_known(name, known) {
            return None;
        }
        let column = String::from_utf8_lossy(name).into_owned();
        Some(Misfit { column, found: found(value), wanted: String::new(), why: Reason::UnknownField })
    })
}

/// Appends the fields that no column takes, as one JSON object.
pub(super) fn put_rest(
    slot: &Slot,
    root: Span,
    text: &[u8],
    unknown: &Unknown,
    values: &mut Values,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let known = if let Unknown::Keep(known) = unknown { known.as_slice() } else { &[] };
    let mut rest = std::mem::take(&mut values.rest);
    rest.clear();
    rest.push(b'{');
    let mut scratch = Vec::new();
    for (key, value) in root.members(text) {
        if is_known(key.string(text, &mut scratch).unwrap_or_default(), known) {
            continue;
        }
        if rest.len() > 1 {
            rest.push(b',');
        }
        rest.extend_from_slice(key.bytes(text));
        rest.push(b':');
        rest.extend_from_slice(value.bytes(text));
    }
    rest.push(b'}');
    let span = Span { kind: Kind::Object, start: 0, end: rest.len() as u32 };
    let result = match slot.ty.plain() {
        Type::Json => values.encode(&slot.ty, Value { text: &rest, span, unit: None, is_key: false }, out),
        _ => {
            if slot.ty.is_nullable() {
                out.push(0);
            }
            put_bytes(&rest, out);
            Ok(())
        }
    };
    values.rest = rest;
    result
}

fn is_known(name: &[u8], known: &[Vec<u8>]) -> bool {
    known.binary_search_by(|key| key.as_slice().cmp(name)).is_ok()
}

impl Column {
    /// True where a row may leave it out.
    fn has_default(&self) -> bool {
        matches!(self.default, DefaultKind::Default | DefaultKind::Ephemeral)
    }
}
