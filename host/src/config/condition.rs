//! What holds for a row: the comparison of a `filter`.

use std::cmp::Ordering;

use super::stage::{FieldType, FieldValue, FilterConfig, FilterOp};
use crate::record::{Cell, Column, ColumnData, ColumnType};

impl FilterConfig {
    /// As what its field is read.
    pub fn column_type(&self) -> ColumnType {
        match self.field_type {
            Some(FieldType::Bool) => ColumnType::Bool,
            Some(FieldType::Int64) => ColumnType::Int64,
            Some(FieldType::Float64) => ColumnType::Float64,
            Some(FieldType::Text) => ColumnType::Text,
            // Whether a field is there can be asked of any type.
            None => ColumnType::Json,
        }
    }

    /// True where it holds for a row of its field's column.
    pub fn holds(&self, column: &Column, row: usize) -> bool {
        if column.cells[row] != Cell::Valid {
            return self.op == FilterOp::Ne;
        }
        let compared = |value: &FieldValue| compare(column, row, value);
        let first = self.values.first().and_then(compared);
        match self.op {
            FilterOp::Exists => true,
            FilterOp::In => self.values.iter().any(|value| compared(value).is_some_and(Ordering::is_eq)),
            FilterOp::Eq => first.is_some_and(Ordering::is_eq),
            FilterOp::Ne => first.is_some_and(Ordering::is_ne),
            FilterOp::Lt => first.is_some_and(Ordering::is_lt),
            FilterOp::Le => first.is_some_and(Ordering::is_le),
            FilterOp::Gt => first.is_some_and(Ordering::is_gt),
            FilterOp::Ge => first.is_some_and(Ordering::is_ge),
        }
    }
}

/// How the row's value stands to `value`: texts by their bytes, numbers by their size.
fn compare(column: &Column, row: usize, value: &FieldValue) -> Option<Ordering> {
    match (&column.data, value) {
        (ColumnData::Bool(bits), FieldValue::Bool(value)) => Some(bits.get(row).cmp(value)),
        (ColumnData::Int64(values), FieldValue::Int64(value)) => Some(values[row].cmp(value)),
        (ColumnData::Float64(values), FieldValue::Float64(value)) => values[row].partial_cmp(value),
        (ColumnData::Packed(packed), FieldValue::Text(value)) => Some(packed.get(row).cmp(value.as_bytes())),
        _ => None,
    }
}
