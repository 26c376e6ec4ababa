//! What a plugin says of itself.

use crate::{ColumnType, Descriptor, Field, Joined, Parts, TableColumn, TimestampEncoding};

/// The kind of value that a Rust type stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// An integer.
    Int64,
    /// Any number.
    Float64,
    /// UTF-8.
    Text,
    /// Bytes.
    Bytes,
    /// A moment.
    Timestamp,
    /// A decimal number, as text.
    Decimal,
    /// Any value, as JSON text.
    Json,
}

impl Kind {
    /// The column type, given what the field's attribute says of its encoding; that on any field but a timestamp is an
    /// error, at compile time.
    pub const fn column_type(self, encoding: Option<TimestampEncoding>) -> ColumnType {
        match (self, encoding) {
            (Self::Timestamp, None) => ColumnType::Timestamp(TimestampEncoding::Rfc3339),
            (Self::Timestamp, Some(encoding)) => ColumnType::Timestamp(encoding),
            (_, Some(_)) => panic!("only a field of type Timestamp has an encoding"),
            (Self::Bool, None) => ColumnType::Boolean,
            (Self::Int64, None) => ColumnType::Int64,
            (Self::Float64, None) => ColumnType::Float64,
            (Self::Text, None) => ColumnType::Text,
            (Self::Bytes, None) => ColumnType::Bytes,
            (Self::Decimal, None) => ColumnType::Decimal,
            (Self::Json, None) => ColumnType::Json,
        }
    }
}

/// A field as the derives know it, at compile time.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// JSON Pointer.
    pub path: &'static str,
    /// Type.
    pub of_type: ColumnType,
    /// True where a row without it is rejected.
    pub required: bool,
}

impl FieldSpec {
    /// The field, as the contract has it.
    pub fn field(&self) -> Field {
        Field { path: self.path.into(), of_type: self.of_type, required: self.required }
    }
}

/// A joined column as the derives know it, at compile time.
#[derive(Clone, Copy, Debug)]
pub struct JoinSpec {
    /// The column.
    pub column: LookupSpec,
    /// JSON Pointer to the field with the key.
    pub on: &'static str,
    /// Type.
    pub of_type: ColumnType,
    /// True where a row without it is rejected.
    pub required: bool,
}

impl JoinSpec {
    /// The join, as the contract has it.
    pub fn joined(&self) -> Joined {
        let Self { column, on, of_type, required } = *self;
        Joined { column: column.column(), on: on.into(), of_type, required }
    }
}

/// A table's column as the derives know it, at compile time.
#[derive(Clone, Copy, Debug)]
pub struct LookupSpec {
    /// The table.
    pub table: &'static str,
    /// JSON Pointer into its rows.
    pub path: &'static str,
}

impl LookupSpec {
    /// The column, as the contract has it.
    pub fn column(&self) -> TableColumn {
        TableColumn { table: self.table.into(), path: self.path.into() }
    }
}

impl Descriptor {
    /// A plugin that reads and writes nothing yet.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            reads: Vec::new(),
            writes: Vec::new(),
            outputs: Vec::new(),
            raw_reads: Parts::empty(),
            raw_writes: Parts::empty(),
            tombstones: false,
            joins: Vec::new(),
            lookups: Vec::new(),
        }
    }

    /// Adds a field that is read, and that every row must have.
    #[must_use]
    pub fn read(mut self, path: impl Into<String>, of_type: ColumnType) -> Self {
        self.reads.push(Field { path: path.into(), of_type, required: true });
        self
    }

    /// Adds a field that is read where it is there.
    #[must_use]
    pub fn read_optional(mut self, path: impl Into<String>, of_type: ColumnType) -> Self {
        self.reads.push(Field { path: path.into(), of_type, required: false });
        self
    }

    /// Adds a field that is written.
    #[must_use]
    pub fn write(mut self, path: impl Into<String>, of_type: ColumnType) -> Self {
        self.writes.push(Field { path: path.into(), of_type, required: false });
        self
    }

    /// Adds a column of a table, joined by the field `on`, that every row must have. Its column stands behind those of all
    /// fields that are read.
    #[must_use]
    pub fn join(
        self,
        table: impl Into<String>,
        path: impl Into<String>,
        on: impl Into<String>,
        of: ColumnType,
    ) -> Self {
        self.joined(table.into(), path.into(), on.into(), (of, true))
    }

    /// Adds one where the table has it.
    #[must_use]
    pub fn join_optional(
        self,
        table: impl Into<String>,
        path: impl Into<String>,
        on: impl Into<String>,
        of: ColumnType,
    ) -> Self {
        self.joined(table.into(), path.into(), on.into(), (of, false))
    }

    fn joined(mut self, table: String, path: String, on: String, (of_type, required): (ColumnType, bool)) -> Self {
        self.joins.push(Joined { column: TableColumn { table, path }, on, of_type, required });
        self
    }

    /// Adds a column of a table that the plugin looks up itself; the first is 0 to [`crate::Lookup::host`].
    #[must_use]
    pub fn lookup(mut self, table: impl Into<String>, path: impl Into<String>) -> Self {
        self.lookups.push(TableColumn { table: table.into(), path: path.into() });
        self
    }

    /// Adds an output.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.outputs.push(name.into());
        self
    }
}
