//! A record that does not fit its table, and why.

use std::fmt;

use crate::record::json::{Kind, Span};

/// Why a value does not fit; the codes are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The record is no JSON.
    NotJson,
    /// The record is JSON, but no object.
    NotAnObject,
    /// There is no value, and nothing to take in its place.
    Missing,
    /// The value is null, and the column can't be.
    Null,
    /// The value is of a JSON type that the column does not take.
    Type,
    /// The number or time is beyond what the column holds.
    Range,
    /// The number has digits after the point that the column has no place for.
    Fraction,
    /// The text is not written as the column's type wants it.
    Format,
    /// The name or number is none of the enum's.
    Enum,
    /// The text is longer, or the array has another length, than the column takes.
    Length,
    /// The record has a field that no column takes.
    UnknownField,
    /// A key occurs twice where each may occur once.
    DuplicateKey,
}

impl Reason {
    /// A word for headers and metrics, which does not change.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::Missing => "missing",
            Self::Null => "null",
            Self::Type => "type",
            Self::Range => "range",
            Self::Fraction => "fraction",
            Self::Format => "format",
            Self::Enum => "enum",
            Self::Length => "length",
            Self::UnknownField => "unknown_field",
            Self::DuplicateKey => "duplicate_key",
        }
    }

    /// The same as a sentence's end.
    fn text(self) -> &'static str {
        match self {
            Self::NotJson => "the record is no JSON",
            Self::NotAnObject => "a record must be an object",
            Self::Missing => "there is no such field, and neither a default nor NULL to take in its place",
            Self::Null => "the column can't be NULL",
            Self::Type => "the column does not take such a value",
            Self::Range => "it is out of range",
            Self::Fraction => "it has more digits after the point than the column holds",
            Self::Format => "it is not written as the column wants it",
            Self::Enum => "it is none of the enum's values",
            Self::Length => "it has another length than the column takes",
            Self::UnknownField => "no column takes this field",
            Self::DuplicateKey => "a key occurs twice",
        }
    }
}

/// A record that does not fit; says nothing of the values but their types and lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The column, or the field that no column takes; empty where it is the whole record.
    pub column: String,
    /// What was found, such as "a string of 3 bytes".
    pub found: String,
    /// The column's type.
    pub wanted: String,
    /// Why the one is not the other.
    pub why: Reason,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { column, found, wanted, why } = self;
        match why {
            Reason::NotJson | Reason::NotAnObject => write!(f, "{} (found {found})", why.text()),
            Reason::UnknownField => write!(f, "field {column}: {}", why.text()),
            _ => write!(f, "column {column} ({wanted}): found {found}: {}", why.text()),
        }
    }
}

impl std::error::Error for Misfit {}

/// A value that does not fit: its place, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) span: Span,
    pub(super) why: Reason,
}

/// What a value is, without showing it.
pub(super) fn found(span: Span) -> String {
    let bytes = (span.end - span.start) as usize;
    match span.kind {
        Kind::Missing => "nothing".to_owned(),
        Kind::Null => "null".to_owned(),
        Kind::False | Kind::True => "a boolean".to_owned(),
        Kind::Integer => format!("an integer of {bytes} characters"),
        Kind::Number => format!("a number of {bytes} characters"),
        Kind::Text | Kind::EscapedText => format!("a string of {} bytes", bytes.saturating_sub(2)),
        Kind::Array => format!("an array of {bytes} bytes"),
        Kind::Object => format!("an object of {bytes} bytes"),
    }
}
