//! Fields that are written: which types they may have, and how a value gets into its column.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use crate::bindings::millstream::plugin::types::{ColumnData, Packed, RawWrite, Write};
use crate::output::{HeadersWriter, Output, TimestampsWriter};
use crate::{ColumnType, Decimal, FieldSpec, Json, Kind, Parts, Text, Timestamp};

/// A struct of what a plugin writes; `#[derive(Write)]` makes it.
///
/// Each field of the struct says where it goes: `#[field("/path")]`, or `#[key]` and `#[value]` (text or bytes),
/// `#[headers]` (a list of names and values, in place of all that there were) or `#[timestamp]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a plugin's function returns",
    note = "return a struct that derives Write, or () to write nothing; Option of it to drop rows by None; Result of it \
            with Reject; Routed of it"
)]
pub trait WriteRow {
    /// The fields.
    const FIELDS: &'static [FieldSpec];
    /// The parts of the record beside its fields.
    const PARTS: Parts;

    /// Writes a row.
    fn write(self, to: &mut RowWriter<'_>);
}

impl WriteRow for () {
    const FIELDS: &'static [FieldSpec] = &[];
    const PARTS: Parts = Parts::empty();

    fn write(self, _: &mut RowWriter<'_>) {}
}

/// Where a row is written.
#[derive(Debug)]
pub struct RowWriter<'o> {
    pub(crate) output: &'o mut Output,
    pub(crate) row: usize,
}

impl RowWriter<'_> {
    /// Writes to the descriptor's write `index`.
    #[inline]
    pub fn field(&mut self, index: usize, cell: impl WriteCell) {
        cell.write(self.output.field(index), self.row);
    }

    /// Writes the record's key.
    pub fn key(&mut self, cell: impl WriteCell) {
        cell.write(self.output.key(), self.row);
    }

    /// Writes the record's value.
    pub fn value(&mut self, cell: impl WriteCell) {
        cell.write(self.output.value(), self.row);
    }

    /// Writes the record's headers.
    pub fn headers(&mut self, headers: impl WriteHeaders) {
        headers.write(self.output.headers(), self.row);
    }

    /// Writes the record's timestamp.
    pub fn timestamp(&mut self, at: impl Into<Set<Timestamp>>) {
        self.output.timestamps().set(self.row, at.into());
    }
}

/// What happens to a field in one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Set<T> {
    /// It gets this value.
    To(T),
    /// It becomes null.
    Null,
    /// It is removed from the record; a key or value becomes null.
    Remove,
    /// It stays as it is.
    #[default]
    Keep,
}

impl<T> From<T> for Set<T> {
    fn from(value: T) -> Self {
        Self::To(value)
    }
}

impl<T> From<Option<T>> for Set<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::To)
    }
}

/// What a field that is written may be: a [`WriteValue`], an `Option` of one, whose `None` is null, or a [`Set`] of one.
///
/// ```compile_fail
/// #[derive(millstream_sdk::Write)]
/// struct Out {
///     #[field("/tags")]
///     tags: Vec<String>, // Json of it is.
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a plugin can't write a field as `{Self}`",
    label = "not a type of fields",
    note = "use bool, i64, f64, text, bytes, Timestamp, Decimal, Json or Text, or an Option or Set of one"
)]
pub trait WriteCell {
    /// What the type stands for.
    const KIND: Kind;

    /// Writes a row.
    fn write(self, to: &mut FieldWriter, row: usize);
}

/// A value of a field: `bool`, `i64`, `f64`, text, bytes, [`Timestamp`], [`Decimal`], [`Json`] or [`Text`].
#[diagnostic::on_unimplemented(
    message = "a plugin can't write a field as `{Self}`",
    label = "not a type of fields",
    note = "use bool, i64, f64, text, bytes, Timestamp, Decimal, Json or Text, or an Option or Set of one"
)]
pub trait WriteValue {
    /// What the type stands for.
    const KIND: Kind;

    /// Appends the value to a column of that kind.
    fn append(self, to: &mut FieldWriter);
}

impl<T: WriteValue> WriteCell for T {
    const KIND: Kind = T::KIND;

    #[inline]
    fn write(self, to: &mut FieldWriter, row: usize) {
        to.set(row, self);
    }
}

impl<T: WriteValue> WriteCell for Option<T> {
    const KIND: Kind = T::KIND;

    #[inline]
    fn write(self, to: &mut FieldWriter, row: usize) {
        match self {
            Some(value) => to.set(row, value),
            None => to.null(row),
        }
    }
}

impl<T: WriteValue> WriteCell for Set<T> {
    const KIND: Kind = T::KIND;

    #[inline]
    fn write(self, to: &mut FieldWriter, row: usize) {
        match self {
            Self::To(value) => to.set(row, value),
            Self::Null => to.null(row),
            Self::Remove => to.remove(row),
            Self::Keep => {}
        }
    }
}

const KEEP: u8 = 0;
const SET: u8 = 1;
const NULL: u8 = 2;
const REMOVE: u8 = 3;

/// The column of one field that is written, row by row from the first on; rows that are passed over keep what they have.
#[derive(Debug)]
pub struct FieldWriter {
    rows: usize,
    /// Empty as long as every row was set.
    ops: Vec<u8>,
    touched: bool,
    data: ColumnData,
}

impl FieldWriter {
    pub(crate) fn new(of_type: &ColumnType, rows: usize) -> Self {
        let data = match of_type {
            ColumnType::Boolean => ColumnData::Booleans(Vec::with_capacity(rows.div_ceil(8))),
            ColumnType::Int64 | ColumnType::Timestamp(_) => ColumnData::Int64s(Vec::with_capacity(rows)),
            ColumnType::Float64 => ColumnData::Float64s(Vec::with_capacity(rows)),
            _ => ColumnData::Packed(Packed { ends: Vec::with_capacity(rows), data: Vec::with_capacity(rows * 8) }),
        };
        Self { rows: 0, ops: Vec::new(), touched: false, data }
    }

    /// Sets the field in a row.
    #[inline]
    pub fn set<T: WriteValue>(&mut self, row: usize, value: T) {
        self.pass_to(row);
        value.append(self);
        if !self.ops.is_empty() {
            self.ops.push(SET);
        }
        self.rows += 1;
        self.touched = true;
    }

    /// Sets the field to null in a row.
    pub fn null(&mut self, row: usize) {
        self.pass_to(row);
        self.no_value(NULL);
    }

    /// Removes the field from a row.
    pub fn remove(&mut self, row: usize) {
        self.pass_to(row);
        self.no_value(REMOVE);
    }

    #[inline]
    fn pass_to(&mut self, row: usize) {
        assert!(row >= self.rows, "a field is written twice in a row, or rows are not written in their order");
        while self.rows < row {
            self.no_value(KEEP);
        }
    }

    fn no_value(&mut self, op: u8) {
        if self.ops.is_empty() {
            self.ops.resize(self.rows, SET);
        }
        self.ops.push(op);
        self.touched |= op != KEEP;
        match &mut self.data {
            ColumnData::Booleans(_) => self.push_bool(false),
            ColumnData::Int64s(values) => values.push(0),
            ColumnData::Float64s(values) => values.push(0.0),
            ColumnData::Packed(packed) => packed.end_row(),
        }
        self.rows += 1;
    }

    fn push_bool(&mut self, value: bool) {
        let ColumnData::Booleans(bits) = &mut self.data else { other_type() };
        if self.rows.is_multiple_of(8) {
            bits.push(0);
        }
        bits[self.rows / 8] |= u8::from(value) << (self.rows % 8);
    }

    fn packed(&mut self) -> &mut Packed {
        match &mut self.data {
            ColumnData::Packed(packed) => packed,
            _ => other_type(),
        }
    }

    /// What goes to the host; nothing where every row keeps what it has.
    pub(crate) fn finish(mut self, field: usize, rows: usize) -> Option<Write> {
        if !self.touched {
            return None;
        }
        self.pass_to(rows);
        Some(Write { field: field as u32, ops: self.ops, data: self.data })
    }

    /// The same for a key or value.
    pub(crate) fn finish_raw(self, rows: usize) -> Option<RawWrite> {
        let mut write = self.finish(0, rows)?;
        for op in &mut write.ops {
            if *op == REMOVE {
                *op = NULL;
            }
        }
        match write.data {
            ColumnData::Packed(bytes) => Some(RawWrite { ops: write.ops, bytes }),
            _ => other_type(),
        }
    }
}

/// The derives never get here; a hand-written transform does, with a value that its descriptor doesn't announce.
#[cold]
fn other_type() -> ! {
    panic!("the value is of another type than the descriptor says of this field")
}

impl Packed {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.end_row();
    }

    pub(crate) fn end_row(&mut self) {
        match u32::try_from(self.data.len()) {
            Ok(end) => self.ends.push(end),
            Err(_) => panic!("a column holds more than 4 GiB"),
        }
    }
}

impl WriteValue for bool {
    const KIND: Kind = Kind::Bool;

    #[inline]
    fn append(self, to: &mut FieldWriter) {
        to.push_bool(self);
    }
}

/// A type whose values stand side by side as numbers.
macro_rules! number {
    ($type:ty, $kind:ident, $data:ident, $number:expr) => {
        impl WriteValue for $type {
            const KIND: Kind = Kind::$kind;

            #[inline]
            fn append(self, to: &mut FieldWriter) {
                match &mut to.data {
                    ColumnData::$data(values) => values.push($number(self)),
                    _ => other_type(),
                }
            }
        }
    };
}
number!(i64, Int64, Int64s, std::convert::identity);
number!(f64, Float64, Float64s, std::convert::identity);
number!(Timestamp, Timestamp, Int64s, Timestamp::micros);

/// A type that is a string of bytes.
macro_rules! bytes {
    ($($type:ty, $kind:ident;)*) => {$(
        impl WriteValue for $type {
            const KIND: Kind = Kind::$kind;

            #[inline]
            fn append(self, to: &mut FieldWriter) {
                to.packed().push(self.as_ref());
            }
        }
    )*};
}
bytes! {
    &str, Text;
    String, Text;
    &String, Text;
    &[u8], Bytes;
    Vec<u8>, Bytes;
    &Vec<u8>, Bytes;
    Cow<'_, [u8]>, Bytes;
}

impl WriteValue for Cow<'_, str> {
    const KIND: Kind = Kind::Text;

    #[inline]
    fn append(self, to: &mut FieldWriter) {
        to.packed().push(self.as_bytes());
    }
}

/// Takes text as the end of a packed column.
struct Tail<'d>(&'d mut Vec<u8>);

impl std::fmt::Write for Tail<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A type that is written as it displays itself.
macro_rules! displayed {
    ($name:ident) => {
        impl<T: Display> WriteValue for $name<T> {
            const KIND: Kind = Kind::$name;

            fn append(self, to: &mut FieldWriter) {
                let packed = to.packed();
                if write!(Tail(&mut packed.data), "{}", self.0).is_err() {
                    panic!("a Display failed without a reason to")
                }
                packed.end_row();
            }
        }
    };
}
displayed!(Decimal);
displayed!(Json);
displayed!(Text);

/// Headers to write: a [`crate::HeaderList`] or another list of names and values, or a [`Set`] of one; null removes them all.
pub trait WriteHeaders {
    /// Writes a row.
    fn write(self, to: &mut HeadersWriter, row: usize);
}

impl<N: AsRef<str>, V: AsRef<[u8]>> WriteHeaders for Vec<(N, Option<V>)> {
    fn write(self, to: &mut HeadersWriter, row: usize) {
        to.set(row, self.iter().map(|(name, value)| (name.as_ref(), value.as_ref().map(AsRef::as_ref))));
    }
}

impl WriteHeaders for crate::Headers<'_> {
    fn write(self, to: &mut HeadersWriter, row: usize) {
        to.set(row, self.iter());
    }
}

impl<H: WriteHeaders> WriteHeaders for Set<H> {
    fn write(self, to: &mut HeadersWriter, row: usize) {
        match self {
            Self::To(headers) => headers.write(to, row),
            Self::Null | Self::Remove => to.set(row, std::iter::empty()),
            Self::Keep => {}
        }
    }
}

impl TimestampsWriter {
    fn set(&mut self, row: usize, at: Set<Timestamp>) {
        match at {
            Set::To(at) if at.micros() < 0 => panic!("a record's timestamp can't be before 1970"),
            Set::To(at) => self.put(row, at.millis()),
            Set::Null | Set::Remove => self.put(row, -1),
            Set::Keep => {}
        }
    }
}
