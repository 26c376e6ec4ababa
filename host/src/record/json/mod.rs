//! JSON records: reading typed cells out of them, and writing values into them.
//!
//! A [`Plan`] says what a chain reads and writes. An [`Extractor`] goes once through a record, checks all of it (it
//! accepts exactly what `serde_json::Value` accepts), appends a cell to each read's column and notes in [`Sites`] where
//! the written paths are. A [`Splicer`] puts the written values there. Nothing is turned into a tree and nothing is
//! allocated for a record; what is not written stays byte-identical.
//!
//! Where a key occurs twice in an object the last counts. A write removes the others, and those of the path's parents
//! too, although they do not count: who removes a field must not find it in the bytes.

pub(crate) mod base64;
mod cells;
mod error;
mod extract;
mod keys;
mod plan;
mod pointer;
mod scan;
mod sites;
mod span;
mod splice;
#[cfg(test)]
mod tests;
mod words;
mod write;

pub use cells::push_value;
pub use error::{Fault, JsonError};
pub use extract::Extractor;
pub use plan::{Field, Plan, PlanError};
pub use pointer::{Pointer, PointerError};
pub use scan::Kind;
pub use sites::Sites;
pub use span::{Items, Members, Span, is_json_number};
pub use splice::{SpliceError, SpliceFault, Splicer};
pub(crate) use write::value as write_value;

/// Arrays and objects that may be open at once; `serde_json` counts to 128 and refuses that one.
const MAX_DEPTH: usize = 127;
/// Bytes of the longest record; positions have 31 bits.
const LONGEST_RECORD: usize = (1 << 31) - 1;
