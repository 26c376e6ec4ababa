//! Rows as Rust values: which types a field may have, and how one is taken from its column.

use crate::bindings::millstream::plugin::types::{Column, ColumnData, Packed};
use crate::{Decimal, FieldSpec, JoinSpec, Json, Kind, LookupSpec, Parts, Rows, Timestamp};

/// A struct of what a plugin reads; `#[derive(Read)]` makes it.
///
/// Each field of the struct says where it comes from: `#[field("/path")]`, or `#[key]` and `#[value]` (of type
/// `Option<&[u8]>`), `#[headers]` (of type [`crate::Headers`]) or `#[timestamp]` (of type `Option<Timestamp>`).
///
/// A column of one of the pipeline's tables comes with each row by `#[joined("users", on = "/user_id", column = "/city")]`: the
/// host finds the table's row by the text of the record's field. A row without a match is rejected by the host, unless the
/// field is an `Option` or a [`Maybe`], which is `Null` where the table's row has no value and `Missing` where there is
/// no such row. `#[lookup("users", "/city")]` gives a [`crate::Lookup`], for keys that the plugin finds itself.
///
/// A path that is no JSON Pointer does not compile, nor does an encoding of what is no timestamp:
///
/// ```compile_fail
/// #[derive(millstream_sdk::Read)]
/// struct In {
///     #[field("user_id")] // It begins with `/`.
///     user_id: i64,
/// }
/// ```
///
/// ```compile_fail
/// #[derive(millstream_sdk::Read)]
/// struct In {
///     #[field("/at", epoch_s)] // Timestamp, not i64.
///     at: i64,
/// }
///
/// millstream_sdk::describe_rows::<In, (), millstream_sdk::NoOutputs>("", "");
/// ```
pub trait ReadRow<'a>: Sized {
    /// The columns, ready to take values from.
    type Columns;
    /// The fields.
    const FIELDS: &'static [FieldSpec];
    /// The parts of the record beside its fields.
    const PARTS: Parts;
    /// Columns of tables, which stand behind the fields.
    const JOINS: &'static [JoinSpec] = &[];
    /// Columns of tables that are looked up.
    const LOOKUPS: &'static [LookupSpec] = &[];

    /// Readies the columns of a batch.
    fn columns(rows: &'a Rows) -> Self::Columns;

    /// A row.
    fn at(columns: &Self::Columns, row: usize) -> Self;
}

/// What a field that is read may be: `bool`, `i64`, `f64`, `&str`, `&[u8]`, [`Timestamp`], `Decimal<&str>` or
/// `Json<&str>`; an `Option` or [`Maybe`] of one where rows without it are welcome.
///
/// ```compile_fail
/// #[derive(millstream_sdk::Read)]
/// struct In {
///     #[field("/user_id")]
///     user_id: u32, // Integers are i64.
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a plugin can't read a field as `{Self}`",
    label = "not a type of fields",
    note = "use bool, i64, f64, &str, &[u8], Timestamp, Decimal<&str> or Json<&str>, or an Option or Maybe of one"
)]
pub trait ReadValue<'a>: Sized {
    /// The column, ready to take values from.
    type Column;
    /// What the type stands for.
    const KIND: Kind;
    /// True where a row without it is rejected by the host.
    const REQUIRED: bool;

    /// Readies a column.
    fn column(column: &'a Column) -> Self::Column;

    /// The value in a row.
    fn at(column: &Self::Column, row: usize) -> Self;
}

/// A value that is there.
#[diagnostic::on_unimplemented(
    message = "a plugin can't read a field as `{Self}`",
    label = "not a type of fields",
    note = "use bool, i64, f64, &str, &[u8], Timestamp, Decimal<&str> or Json<&str>, or an Option or Maybe of one"
)]
pub trait ReadScalar<'a>: Sized {
    /// The values, whether valid or not.
    type Values;
    /// What the type stands for.
    const KIND: Kind;

    /// Readies the values.
    fn values(data: &'a ColumnData) -> Self::Values;

    /// The value in a row.
    fn get(values: &Self::Values, row: usize) -> Self;
}

/// What a field holds, for those who tell null from missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Maybe<T> {
    /// A value.
    Value(T),
    /// JSON null.
    Null,
    /// Nothing: the record has no such field.
    #[default]
    Missing,
}

impl<'a, T: ReadScalar<'a>> ReadValue<'a> for T {
    type Column = T::Values;
    const KIND: Kind = T::KIND;
    const REQUIRED: bool = true;

    fn column(column: &'a Column) -> Self::Column {
        T::values(&column.data)
    }

    #[inline]
    fn at(column: &Self::Column, row: usize) -> Self {
        T::get(column, row)
    }
}

impl<'a, T: ReadScalar<'a>> ReadValue<'a> for Option<T> {
    type Column = (&'a [u8], T::Values);
    const KIND: Kind = T::KIND;
    const REQUIRED: bool = false;

    fn column(column: &'a Column) -> Self::Column {
        (&column.valid, T::values(&column.data))
    }

    #[inline]
    fn at((valid, values): &Self::Column, row: usize) -> Self {
        (valid.is_empty() || bit(valid, row)).then(|| T::get(values, row))
    }
}

impl<'a, T: ReadScalar<'a>> ReadValue<'a> for Maybe<T> {
    type Column = (&'a Column, T::Values);
    const KIND: Kind = T::KIND;
    const REQUIRED: bool = false;

    fn column(column: &'a Column) -> Self::Column {
        (column, T::values(&column.data))
    }

    #[inline]
    fn at((column, values): &Self::Column, row: usize) -> Self {
        if column.valid.is_empty() || bit(&column.valid, row) {
            Self::Value(T::get(values, row))
        } else if !column.null.is_empty() && bit(&column.null, row) {
            Self::Null
        } else {
            Self::Missing
        }
    }
}

/// True where the row's bit is set.
#[inline]
pub(crate) fn bit(bits: &[u8], row: usize) -> bool {
    bits[row / 8] >> (row % 8) & 1 == 1
}

/// Where the row's bytes are.
#[inline]
pub(crate) fn range(ends: &[u32], row: usize) -> std::ops::Range<usize> {
    let start = if row == 0 { 0 } else { ends[row - 1] as usize };
    start..ends[row] as usize
}

/// The host keeps to the descriptor; were it not so, nothing that we do with the rows would be right.
#[cold]
fn other_type() -> ! {
    panic!("the host sent a column of another type than the descriptor says")
}

fn packed(data: &ColumnData) -> &Packed {
    match data {
        ColumnData::Packed(packed) => packed,
        _ => other_type(),
    }
}

/// Text of all rows, checked to be UTF-8 at once: a row then costs two comparisons.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    ends: &'a [u32],
    text: &'a str,
}

impl<'a> Texts<'a> {
    fn new(packed: &'a Packed) -> Self {
        match std::str::from_utf8(&packed.data) {
            Ok(text) => Self { ends: &packed.ends, text },
            Err(_) => panic!("the host sent text that is not UTF-8"),
        }
    }

    #[inline]
    fn get(&self, row: usize) -> &'a str {
        &self.text[range(self.ends, row)]
    }
}

impl<'a> ReadScalar<'a> for &'a str {
    type Values = Texts<'a>;
    const KIND: Kind = Kind::Text;

    fn values(data: &'a ColumnData) -> Texts<'a> {
        Texts::new(packed(data))
    }

    #[inline]
    fn get(values: &Texts<'a>, row: usize) -> Self {
        values.get(row)
    }
}

/// A type that is text with a meaning.
macro_rules! text_like {
    ($name:ident) => {
        impl<'a> ReadScalar<'a> for $name<&'a str> {
            type Values = Texts<'a>;
            const KIND: Kind = Kind::$name;

            fn values(data: &'a ColumnData) -> Texts<'a> {
                Texts::new(packed(data))
            }

            #[inline]
            fn get(values: &Texts<'a>, row: usize) -> Self {
                $name(values.get(row))
            }
        }
    };
}
text_like!(Decimal);
text_like!(Json);

impl<'a> ReadScalar<'a> for &'a [u8] {
    type Values = &'a Packed;
    const KIND: Kind = Kind::Bytes;

    fn values(data: &'a ColumnData) -> &'a Packed {
        packed(data)
    }

    #[inline]
    fn get(values: &&'a Packed, row: usize) -> Self {
        &values.data[range(&values.ends, row)]
    }
}

impl<'a> ReadScalar<'a> for bool {
    type Values = &'a [u8];
    const KIND: Kind = Kind::Bool;

    fn values(data: &'a ColumnData) -> &'a [u8] {
        match data {
            ColumnData::Booleans(bits) => bits,
            _ => other_type(),
        }
    }

    #[inline]
    fn get(bits: &&'a [u8], row: usize) -> Self {
        bit(bits, row)
    }
}

/// A type whose values stand side by side as numbers.
macro_rules! number {
    ($type:ty, $kind:ident, $data:ident, $number:ty, $wrap:expr) => {
        impl<'a> ReadScalar<'a> for $type {
            type Values = &'a [$number];
            const KIND: Kind = Kind::$kind;

            fn values(data: &'a ColumnData) -> &'a [$number] {
                match data {
                    ColumnData::$data(values) => values,
                    _ => other_type(),
                }
            }

            #[inline]
            fn get(values: &&'a [$number], row: usize) -> Self {
                $wrap(values[row])
            }
        }
    };
}
number!(i64, Int64, Int64s, i64, std::convert::identity);
number!(f64, Float64, Float64s, f64, std::convert::identity);
number!(Timestamp, Timestamp, Int64s, i64, Timestamp::from_micros);
