//! Write Millstream plugins in Rust: a struct of what is read, a struct of what is written, and one function.
//!
//! ```
//! use millstream_sdk::prelude::*;
//!
//! #[derive(Config)]
//! struct Config {
//!     blocked_countries: Vec<String>,
//! }
//!
//! #[derive(Read)]
//! struct Visit<'a> {
//!     #[field("/user_id")]
//!     user_id: i64,
//!     #[field("/country")]
//!     country: &'a str,
//!     #[field("/device/type")]
//!     device: Option<&'a str>,
//! }
//!
//! #[derive(Write)]
//! struct Note {
//!     #[field("/mobile")]
//!     mobile: Set<bool>,
//! }
//!
//! #[plugin]
//! fn visits(config: &Config, visit: Visit<'_>) -> Result<Note, Reject> {
//!     if config.blocked_countries.iter().any(|blocked| blocked == visit.country) {
//!         return Err(Reject::new("blocked_country", format!("user {} is in {}", visit.user_id, visit.country)));
//!     }
//!     Ok(Note { mobile: visit.device.map_or(Set::Keep, |device| Set::To(device == "mobile")) })
//! }
//! ```
//!
//! | what | see |
//! | --- | --- |
//! | types of fields that are read; optional ones; null or missing | [`ReadValue`], [`Maybe`] |
//! | types of fields that are written; null, remove, keep | [`WriteCell`], [`Set`] |
//! | what the function may return: forward, drop, reject, route | [`Reply`] |
//! | new records | [`Emit`] |
//! | columns of the pipeline's tables, joined or looked up | [`ReadRow`], [`Lookup`] |
//! | key, value, headers and timestamp of the record | [`ReadRow`], [`WriteRow`] |
//! | fields that depend on the configuration | [`Transform`] |
//! | one row of many: what a window makes of its rows | [`Aggregate`], [`State`] |
//!
//! A function is tested natively with `cargo test`: call it. There is no clock, no random number and no file here, and
//! a static that changes is a bug: the same rows, in whatever batches, must give the same results.

// The code that the macros make says `millstream_sdk::`, in this crate's own tests too.
extern crate self as millstream_sdk;

mod aggregate;
#[doc(hidden)]
#[allow(missing_docs, unsafe_code, unsafe_op_in_unsafe_fn, unreachable_pub, clippy::all, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod bindings;
#[doc(hidden)]
#[allow(missing_docs, unsafe_code, unsafe_op_in_unsafe_fn, unreachable_pub, clippy::all, clippy::unwrap_used)]
#[rustfmt::skip]
pub mod bindings_aggregate;
mod config;
mod describe;
#[doc(hidden)]
pub mod guest;
#[doc(hidden)]
pub mod guest_aggregate;
pub mod json;
pub mod log;
mod lookup;
mod output;
mod read;
mod reply;
#[doc(hidden)]
pub mod parts {
    //! Columns of the parts of records.
    pub use crate::rows::{AllHeaders, Bytes, Timestamps};
}
mod rows;
#[doc(hidden)]
pub mod rt;
mod state;
mod transform;
mod value;
mod write;

pub use aggregate::{Aggregate, Window};
pub use bindings::millstream::plugin::types::{
    AggregateDescriptor, ColumnType, Descriptor, Field, Joined, Parts, TableColumn, TimestampEncoding,
};
pub use config::{ConfigValue, FromConfig};
#[doc(hidden)]
pub use config::{default_or_missing, object};
pub use describe::{FieldSpec, JoinSpec, Kind, LookupSpec};
pub use lookup::Lookup;
pub use millstream_sdk_macros::{Config, Outputs, Read, State, Write, aggregate, plugin};
pub use output::{Emit, Output};
pub use read::{Maybe, ReadRow, ReadScalar, ReadValue};
pub use reply::{Fate, NoOutputs, Outputs, Reject, Reply, Routed};
pub use rows::{HeaderList, Headers, Rows};
pub use state::State;
pub use transform::Transform;
#[doc(hidden)]
pub use transform::{describe_rows, each_row};
pub use value::{Decimal, Json, Text, Timestamp};
pub use write::{FieldWriter, RowWriter, Set, WriteCell, WriteHeaders, WriteRow, WriteValue};

/// What nearly every plugin needs.
pub mod prelude {
    pub use crate::{
        Aggregate, Config, Decimal, Emit, HeaderList, Headers, Json, Lookup, Maybe, Outputs, Read, Reject, Routed, Set,
        State, Text, Timestamp, Window, Write, aggregate, plugin,
    };
}
