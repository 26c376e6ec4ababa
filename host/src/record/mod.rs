//! What flows: rows of bytes as they came from a source, and typed columns as plugins see them.
//!
//! Everything here is plain data in flat buffers, laid out as Arrow lays it out (ends and data, bitmaps with the
//! least significant bit first), so that a batch costs a handful of allocations however many rows it holds, and the
//! buffers are reused from batch to batch.

mod batch;
mod bitmap;
pub(crate) mod calendar;
mod column;
mod decimal;
pub mod json;
mod lanes;
mod packed;

pub use batch::{Batch, Headers, Place, Rows};
pub use bitmap::Bitmap;
pub use column::{Cell, Column, ColumnData, ColumnType, Op, TimestampEncoding, Written};
pub(crate) use decimal::decimal;
pub use lanes::Lanes;
pub use packed::{OptionalBytes, Packed};

/// The header of a row that its source could not read as a record, with the reason as its value: it goes straight to
/// the dead letters.
pub const SOURCE_ERROR_HEADER: &str = "millstream.source.error";
