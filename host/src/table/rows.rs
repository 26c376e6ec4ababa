//! From a record to a row of a table: its key and the columns that are kept.

use std::sync::Arc;

use super::TableColumn;
use crate::record::calendar::parse_rfc3339;
use crate::record::json::{Extractor, Field, JsonError, Kind, Plan, Pointer, PointerError, Span};
use crate::record::{ColumnType, OptionalBytes};

/// Bytes of a value that a message shows.
const SHOWN_BYTES: usize = 60;

/// Where a row's key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAt {
    /// In a field of the row, which holds a scalar: its text is the key.
    Field(String),
    /// Beside the row: the record's key as it is.
    Record,
}

/// What the rows' values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// What they look like: a declared type has to be the literal's.
    Json,
    /// Texts, as CSV has them: they are converted to a declared type, and an empty one is nothing unless that is text.
    Texts,
}

/// Why a row can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Its value is no JSON.
    #[error("it is no JSON: {0}")]
    Json(#[from] JsonError),
    /// Its value is no object.
    #[error("it is no JSON object")]
    NoObject,
    /// It has no key.
    #[error("its key {at} is {found}; a key is a text, a number or a boolean")]
    NoKey {
        /// Where the key should be.
        at: String,
        /// What is there.
        found: &'static str,
    },
    /// A value is not of its column's type.
    #[error("column {path}: expected {expected}, found {found}")]
    WrongType {
        /// The column.
        path: String,
        /// The declared type.
        expected: &'static str,
        /// What is there.
        found: String,
    },
}

/// Reads rows, one at a time.
#[derive(Debug)]
pub struct RowReader {
    extractor: Extractor,
    key: KeyAt,
    columns: Vec<TableColumn>,
    accepts: Accepts,
    key_text: Vec<u8>,
    values: OptionalBytes,
    scratch: Vec<u8>,
}

/// The extractor's first read is the whole row; the columns follow, and then the key.
const WHOLE: usize = 0;

impl RowReader {
    /// A reader of rows with these columns. `under` is where in a record the row stands; empty where it is the record.
    pub fn new(key: KeyAt, columns: &[TableColumn], accepts: Accepts, under: &str) -> Result<Self, PointerError> {
        let mut reads = vec![Field { path: Pointer::parse(under)?, ty: ColumnType::Json }];
        for column in columns {
            reads.push(Field { path: Pointer::parse(&format!("{under}{}", column.path))?, ty: ColumnType::Json });
        }
        if let KeyAt::Field(path) = &key {
            reads.push(Field { path: Pointer::parse(path)?, ty: ColumnType::Json });
        }
        // Reads alone always make a plan.
        let plan = Plan::new(&reads, &[]).unwrap_or_else(|why| unreachable!("{why}"));
        Ok(Self {
            extractor: Extractor::new(Arc::new(plan)),
            key,
            columns: columns.to_vec(),
            accepts,
            key_text: Vec::new(),
            values: OptionalBytes::default(),
            scratch: Vec::new(),
        })
    }

    /// Reads a row, whose key and values can be had until the next one. `record_key` is the record's key.
    pub fn read(&mut self, record_key: Option<&[u8]>, row: &[u8]) -> Result<(), RowError> {
        self.extractor.locate(row)?;
        if self.extractor.span(WHOLE).kind != Kind::Object {
            return Err(RowError::NoObject);
        }
        self.read_key(record_key, row)?;
        self.values.clear();
        for (index, column) in self.columns.iter().enumerate() {
            let span = self.extractor.span(index + 1);
            let good = match self.accepts {
                Accepts::Json => push_json(&mut self.values, column.ty, span, row, &mut self.scratch),
                Accepts::Texts => push_text(&mut self.values, column.ty, span, row, &mut self.scratch),
            };
            if !good {
                let found = shown(span.bytes(row));
                return Err(RowError::WrongType { path: column.path.clone(), expected: type_name(column.ty), found });
            }
        }
        Ok(())
    }

    fn read_key(&mut self, record_key: Option<&[u8]>, row: &[u8]) -> Result<(), RowError> {
        self.key_text.clear();
        let path = match (&self.key, record_key) {
            (KeyAt::Record, Some(key)) => {
                self.key_text.extend_from_slice(key);
                return Ok(());
            }
            (KeyAt::Record, None) => return Err(RowError::NoKey { at: "of the record".to_owned(), found: "missing" }),
            (KeyAt::Field(path), _) => path,
        };
        let span = self.extractor.span(self.columns.len() + 1);
        let found = match key_text(span.bytes(row), &mut self.scratch) {
            Some([]) if self.accepts == Accepts::Texts => "empty",
            Some(text) => {
                self.key_text.extend_from_slice(text);
                return Ok(());
            }
            None => match span.kind {
                Kind::Missing => "missing",
                Kind::Null => "null",
                Kind::Array => "an array",
                _ => "an object",
            },
        };
        Err(RowError::NoKey { at: path.clone(), found })
    }

    /// The key of the row that was read last.
    pub fn key(&self) -> &[u8] {
        &self.key_text
    }

    /// The values of the row that was read last, as JSON text.
    pub fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.values.iter()
    }

    /// The columns, and the field with the key, that the row that was read last does not have at all.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let key = match &self.key {
            KeyAt::Field(path) => Some(path.as_str()),
            KeyAt::Record => None,
        };
        let paths = self.columns.iter().map(|column| column.path.as_str()).chain(key);
        let is_missing = |(index, _): &(usize, &str)| self.extractor.span(index + 1).kind == Kind::Missing;
        paths.enumerate().filter(is_missing).map(|(_, path)| path)
    }
}

/// What a valid JSON text stands for as a key: a string's text, another scalar as it is written; `None` for null, arrays,
/// objects and nothing.
pub fn key_text<'a>(json: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    match json.first()? {
        b'"' => {
            let kind = if memchr::memchr(b'\\', json).is_some() { Kind::EscapedText } else { Kind::Text };
            Span { kind, start: 0, end: json.len() as u32 }.string(json, scratch)
        }
        b'n' | b'[' | b'{' => None,
        _ => Some(json),
    }
}

/// Appends a value as it is; false where it is not of the type.
fn push_json(values: &mut OptionalBytes, ty: ColumnType, span: Span, row: &[u8], scratch: &mut Vec<u8>) -> bool {
    if matches!(span.kind, Kind::Missing | Kind::Null) {
        values.push(None);
        return true;
    }
    let good = match ty {
        ColumnType::Bool => matches!(span.kind, Kind::True | Kind::False),
        ColumnType::Int64 => span.int64(row).is_some(),
        ColumnType::Float64 => span.float64(row).is_some(),
        ColumnType::Text => span.is_string(),
        ColumnType::Timestamp(_) => span.string(row, scratch).and_then(parse_rfc3339).is_some(),
        _ => true,
    };
    if good {
        values.push(Some(span.bytes(row)));
    }
    good
}

/// Appends what a text holds as JSON of the type; false where it holds no such thing.
fn push_text(values: &mut OptionalBytes, ty: ColumnType, span: Span, row: &[u8], scratch: &mut Vec<u8>) -> bool {
    let Some(text) = span.string(row, scratch) else {
        // What is no text was not written by the reader of CSV.
        return push_json(values, ty, span, row, &mut Vec::new());
    };
    if ty == ColumnType::Text {
        values.push(Some(span.bytes(row)));
        return true;
    }
    if text.is_empty() {
        values.push(None);
        return true;
    }
    if let ColumnType::Timestamp(_) = ty {
        let good = parse_rfc3339(text).is_some();
        if good {
            values.push(Some(span.bytes(row)));
        }
        return good;
    }
    // What is within a JSON text may stand between spaces; a value that is kept does not.
    let Ok(value) = Span::of(text) else { return false };
    match ty {
        ColumnType::Json => {
            values.push(Some(value.bytes(text)));
            true
        }
        _ => value.bytes(text) == text && push_json(values, ty, value, text, &mut Vec::new()) && !value.is_null(),
    }
}

fn type_name(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Bool => "bool",
        ColumnType::Int64 => "int64",
        ColumnType::Float64 => "float64",
        ColumnType::Text => "text",
        ColumnType::Timestamp(_) => "a timestamp (RFC 3339)",
        _ => "json",
    }
}

/// The beginning of a value, for a message.
fn shown(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(&json[..json.len().min(SHOWN_BYTES)]);
    let dots = if json.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{}{dots}", text.escape_debug().to_string().replace("\\\"", "\""))
}
