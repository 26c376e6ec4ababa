//! From a JSON record to a row of RowBinary, by the table's own types, so that what does not fit is found before it is
//! sent and costs one record.
//!
//! A record is scanned once; its values are converted where they stand, and nothing is allocated for a record. Nothing
//! is coerced in silence. What each type takes:
//!
//! | type | JSON |
//! | --- | --- |
//! | integers | a number that is a whole one in range; from 64 bits on also in a string |
//! | `Float32`, `Float64` | a number; the nearest one is stored, and none that would be infinite |
//! | `Decimal` | a number with no more digits than the column holds; from 64 bits (precision 10) on also in a string |
//! | `Bool` | `true`, `false` |
//! | `String`, `FixedString` | a string; a shorter one is padded with zero bytes to the fixed length |
//! | `UUID`, `IPv4`, `IPv6` | a string; an IPv4 address in an IPv6 column is mapped |
//! | `DateTime`, `DateTime64` | ISO 8601 with or without a zone (without one it is the column's, or else UTC), or a number since 1970 UTC in the rule's `unit`, seconds by default; what is finer than the column is cut off |
//! | `Date`, `Date32` | an ISO 8601 date or time (the day in UTC, or the one it names where it has no zone), or a number where the rule has a `unit` |
//! | `Enum8`, `Enum16` | a name, or one of the numbers |
//! | `Array`, `Map`, tuples | an array; an object; an object by name, or an array where the tuple has no names |
//! | `JSON` | an object, as it stands |
//!
//! A block is `RowBinaryWithNamesAndTypes`: the server refuses it as a whole where a column has another type by now, and
//! no byte is taken for what it is not. Where a column may be left to its DEFAULT it is `RowBinaryWithDefaults`, which has
//! a byte before each value, because only that lets one row have a value where another has none; it has no types, so that
//! the insert looks at the table's schema first. A `default` in the rules of such columns makes it the former.

mod misfit;
mod number;
mod paths;
mod slots;
mod time;
mod value;

use std::sync::Arc;

pub use misfit::{Misfit, Reason};
pub use slots::EncoderError;

use self::misfit::{Wrong, found};
use self::slots::{Absent, Slot, Source, Unknown};
use self::value::{Value, Values, put_bytes, put_length};
use super::table::Table;
use super::types::Type;
use crate::config::ClickHouseConfig;
use crate::record::decimal;
use crate::record::json::{Extractor, Kind, Plan, Span};

/// Where a record came from: what the lineage columns hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's time, in milliseconds since 1970 UTC; below zero where it has none.
    pub timestamp_ms: i64,
}

/// Turns records into rows of one table.
#[derive(Debug)]
pub struct Encoder {
    slots: Vec<Slot>,
    /// Whether each value has a byte before it that says whether it is the server's default.
    marks: bool,
    unknown: Unknown,
    extractor: Extractor,
    values: Values,
}

impl Encoder {
    /// An encoder for rows of `table`, by the configuration's rules.
    pub fn new(table: &Table, config: &ClickHouseConfig) -> Result<Self, EncoderError> {
        let mut values = Values::new(table.zones.clone());
        let (slots, reads) = slots::compile(table, config, &mut values)?;
        let unknown = Unknown::compile(&config.unknown_fields, &reads);
        let plan = Plan::new(&reads, &[]).map_err(|error| EncoderError::Plan(error.to_string()))?;
        let marks = slots.iter().any(|slot| matches!(slot.absent, Absent::Server));
        Ok(Self { slots, marks, unknown, extractor: Extractor::new(Arc::new(plan)), values })
    }

    /// The columns of a row, in order: the INSERT's column list.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| slot.name.as_str())
    }

    /// The name of the format that blocks are in.
    pub fn format(&self) -> &'static str {
        if self.marks { "RowBinaryWithDefaults" } else { "RowBinaryWithNamesAndTypes" }
    }

    /// What stands before a block's rows: names and types, where the format has them.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        if !self.marks {
            put_length(self.slots.len(), &mut header);
            self.slots.iter().for_each(|slot| put_bytes(slot.name.as_bytes(), &mut header));
            self.slots.iter().for_each(|slot| put_bytes(slot.type_text.as_bytes(), &mut header));
        }
        header
    }

    /// Appends the row of the JSON object `value`; where it does not fit, `out` stays as it was.
    pub fn encode(&mut self, value: &[u8], lineage: Lineage<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
        let start = out.len();
        let result = self.row(value, lineage, out);
        if result.is_err() {
            out.truncate(start);
            self.values.reset();
        }
        result
    }

    fn row(&mut self, text: &[u8], lineage: Lineage<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
        self.extractor.locate(text).map_err(|error| Misfit::record(error.to_string(), Reason::NotJson))?;
        let root = self.extractor.span(0);
        if root.kind != Kind::Object {
            return Err(Misfit::record(found(root), Reason::NotAnObject));
        }
        if let Unknown::Refuse(known) = &self.unknown
            && let Some(field) = slots::first_unknown(root, text, known)
        {
            return Err(field);
        }
        for slot in &self.slots {
            if self.marks {
                out.push(0);
            }
            match &slot.source {
                Source::Read(read) => {
                    let span = self.extractor.span(*read);
                    slot_value(slot, span, text, &mut self.values, out).map_err(|wrong| slot.misfit(wrong))?;
                }
                Source::Constant(bytes) => out.extend_from_slice(bytes),
                Source::Rest => {
                    let values = &mut self.values;
                    slots::put_rest(slot, root, text, &self.unknown, values, out)
                        .map_err(|wrong| slot.misfit(wrong))?;
                }
                lineage_source => lineage_value(slot, lineage_source, lineage, &mut self.values, out)?,
            }
        }
        Ok(())
    }
}

#[inline]
fn slot_value(slot: &Slot, span: Span, text: &[u8], values: &mut Values, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let is_absent = match span.kind {
        Kind::Missing => true,
        Kind::Null => !slot.ty.is_nullable(),
        _ => false,
    };
    match &slot.absent {
        Absent::Value(bytes) if is_absent => {
            out.extend_from_slice(bytes);
            Ok(())
        }
        Absent::Server if is_absent => {
            // The byte before it says that there is no value.
            out.pop();
            out.push(1);
            Ok(())
        }
        Absent::Misfit if span.kind == Kind::Missing => Err(Wrong { span, why: Reason::Missing }),
        _ => values.encode(&slot.ty, Value { text, span, unit: slot.unit, is_key: false }, out),
    }
}

/// Writes what a lineage column holds, by way of the JSON that it would be in a record.
fn lineage_value(
    slot: &Slot,
    source: &Source,
    lineage: Lineage<'_>,
    values: &mut Values,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    if slot.ty.is_nullable() {
        out.push(0);
    }
    let number = match source {
        Source::Partition => i64::from(lineage.partition),
        Source::Offset => lineage.offset,
        Source::Timestamp => lineage.timestamp_ms.max(0),
        _ => {
            put_bytes(lineage.topic.as_bytes(), out);
            return Ok(());
        }
    };
    let mut digits = [0; 20];
    let text = decimal(number, &mut digits);
    let span = Span { kind: Kind::Integer, start: 0, end: text.len() as u32 };
    let value = Value { text, span, unit: slot.unit, is_key: false };
    values.encode(slot.ty.plain(), value, out).map_err(|wrong| slot.misfit(wrong))
}

impl Misfit {
    fn record(found: String, why: Reason) -> Self {
        Self { column: String::new(), found, wanted: "a JSON object".to_owned(), why }
    }
}

impl Slot {
    #[cold]
    fn misfit(&self, wrong: Wrong) -> Misfit {
        Misfit { column: self.name.clone(), found: found(wrong.span), wanted: self.type_text.clone(), why: wrong.why }
    }
}

/// Types that lineage columns may have.
fn takes_lineage(ty: &Type, source: &Source) -> bool {
    match source {
        Source::Topic => matches!(ty.plain(), Type::String),
        Source::Partition => matches!(ty.plain(), Type::Int(4..) | Type::UInt(4..)),
        Source::Offset => matches!(ty.plain(), Type::Int(8..) | Type::UInt(8..)),
        _ => matches!(ty.plain(), Type::DateTime(_) | Type::DateTime64(..)),
    }
}

#[cfg(test)]
mod tests;
