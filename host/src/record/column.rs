//! Typed columns: one field of many records, as a plugin reads or writes it.

use super::{Bitmap, Packed};

/// The type of a field. A JSON literal of another type is a mismatch; nothing is coerced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `true` or `false`.
    Bool,
    /// An integer literal (no fraction, no exponent) from -2^63 to 2^63-1.
    Int64,
    /// Any number, as the nearest double.
    Float64,
    /// A JSON string, unescaped; UTF-8.
    Text,
    /// A JSON string in base64 (RFC 4648 §4, padded), decoded.
    Bytes,
    /// Microseconds since 1970 UTC, in the declared encoding.
    Timestamp(TimestampEncoding),
    /// A number literal, or a JSON string that holds one, as its text with every digit; written as a JSON string.
    Decimal,
    /// Any value, as its JSON text.
    Json,
}

/// How a timestamp stands in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampEncoding {
    /// A string as RFC 3339 has it; written in UTC with `Z` and as many fractional digits as are not zero.
    Rfc3339,
    /// Seconds since 1970, as an integer.
    EpochS,
    /// Milliseconds since 1970, as an integer.
    EpochMs,
    /// Microseconds since 1970, as an integer.
    EpochUs,
    /// Nanoseconds since 1970, as an integer; read down to the microsecond.
    EpochNs,
}

/// What a record has where a column looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cell {
    /// A value of the column's type.
    Valid,
    /// Nothing: a part of the path does not exist.
    #[default]
    Missing,
    /// JSON null.
    Null,
    /// A boolean where the column has another type.
    WrongBool,
    /// A number of another type, form or range than the column's.
    WrongNumber,
    /// A string where the column has another type, or one that does not hold what the type wants.
    WrongText,
    /// An array.
    WrongArray,
    /// An object.
    WrongObject,
}

/// The values of a column; a row that is not `Valid` has 0, false or no bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnData {
    /// Booleans.
    Bool(Bitmap),
    /// Integers, and timestamps in microseconds since 1970 UTC.
    Int64(Vec<i64>),
    /// Doubles; finite.
    Float64(Vec<f64>),
    /// Text, bytes, decimals and JSON.
    Packed(Packed),
}

impl ColumnData {
    /// Empty data of the shape that `ty` has.
    pub fn new(ty: ColumnType) -> Self {
        match ty {
            ColumnType::Bool => Self::Bool(Bitmap::default()),
            ColumnType::Int64 | ColumnType::Timestamp(_) => Self::Int64(Vec::new()),
            ColumnType::Float64 => Self::Float64(Vec::new()),
            ColumnType::Text | ColumnType::Bytes | ColumnType::Decimal | ColumnType::Json => {
                Self::Packed(Packed::default())
            }
        }
    }

    /// Empty data of the same shape.
    pub fn new_like(&self) -> Self {
        match self {
            Self::Bool(_) => Self::Bool(Bitmap::default()),
            Self::Int64(_) => Self::Int64(Vec::new()),
            Self::Float64(_) => Self::Float64(Vec::new()),
            Self::Packed(_) => Self::Packed(Packed::default()),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(bits) => bits.len(),
            Self::Int64(values) => values.len(),
            Self::Float64(values) => values.len(),
            Self::Packed(packed) => packed.len(),
        }
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends what a row without a valid value holds.
    #[inline]
    pub fn push_default(&mut self) {
        match self {
            Self::Bool(bits) => bits.push(false),
            Self::Int64(values) => values.push(0),
            Self::Float64(values) => values.push(0.0),
            Self::Packed(packed) => packed.end_row(),
        }
    }

    /// Appends `row` of `from`; false where the two are of different shapes, and then nothing is appended.
    pub fn push_from(&mut self, from: &Self, row: usize) -> bool {
        match (self, from) {
            (Self::Bool(to), Self::Bool(from)) => to.push(from.get(row)),
            (Self::Int64(to), Self::Int64(from)) => to.push(from[row]),
            (Self::Float64(to), Self::Float64(from)) => to.push(from[row]),
            (Self::Packed(to), Self::Packed(from)) => to.push(from.get(row)),
            _ => return false,
        }
        true
    }

    /// Removes all rows and keeps the buffers.
    pub fn clear(&mut self) {
        match self {
            Self::Bool(bits) => bits.clear(),
            Self::Int64(values) => values.clear(),
            Self::Float64(values) => values.clear(),
            Self::Packed(packed) => packed.clear(),
        }
    }
}

/// One field of many records.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// What each row has.
    pub cells: Vec<Cell>,
    /// The values; as many as there are cells.
    pub data: ColumnData,
}

impl Column {
    /// An empty column of type `ty`.
    pub fn new(ty: ColumnType) -> Self {
        Self { cells: Vec::new(), data: ColumnData::new(ty) }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Appends a row that has no valid value.
    #[inline]
    pub fn push_cell(&mut self, cell: Cell) {
        debug_assert!(cell != Cell::Valid);
        self.cells.push(cell);
        self.data.push_default();
    }

    /// Appends `row` of `from`, which is of the same shape.
    pub fn push_from(&mut self, from: &Self, row: usize) {
        let same_shape = self.data.push_from(&from.data, row);
        debug_assert!(same_shape, "columns of different shapes");
        self.cells.push(from.cells[row]);
    }

    /// Removes all rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.data.clear();
    }
}

/// What is done to one field of one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// It stays as it is.
    #[default]
    Keep,
    /// It becomes the row's value.
    Set,
    /// It becomes JSON null.
    Null,
    /// It goes, with all its duplicates.
    Remove,
}

/// What was written to one field of many records.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The values' type.
    pub ty: ColumnType,
    /// What is done to each row.
    pub ops: Vec<Op>,
    /// The values; as many as there are ops, to be ignored where the op is not `Set`.
    pub data: ColumnData,
}

impl Written {
    /// Nothing, yet, of type `ty`.
    pub fn new(ty: ColumnType) -> Self {
        Self { ty, ops: Vec::new(), data: ColumnData::new(ty) }
    }

    /// Removes all rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.data.clear();
    }
}
