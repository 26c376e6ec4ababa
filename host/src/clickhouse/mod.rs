//! ClickHouse: the only room that knows its protocol. It turns records into rows and blocks, sends them, sorts what the
//! server answers, and sees whether a table can keep the promise of exactly once. When a block is sent, and with which
//! offsets, is the drain's affair.
//!
//! | module | what |
//! | --- | --- |
//! | `client` | requests over HTTP: one server, one connection that is kept, TLS, time-outs |
//! | `connection` | the same for those who wait |
//! | `error` | what went wrong, sorted by what can be done about it |
//! | `types`, `zone`, `table` | what the server says of a table |
//! | `encode` | a JSON record as a row of the table |
//! | `insert`, `token` | a block of rows as one insert; what tells it from all others, and whether it is there |
//! | `doubt` | what is known of a block that nobody answered for |
//! | `checks` | whether table, views and profile can keep the promise |
//! | `versions` | whether a table replaces rows that come in versions |
//! | `dead_letter` | a dead letter as a record, so that it can become a row |

mod checks;
mod client;
mod connection;
mod dead_letter;
mod doubt;
mod encode;
mod error;
mod insert;
mod sql;
mod table;
mod token;
mod types;
mod versions;
mod zone;

pub use checks::{CheckError, Guarantee, check_exactly_once};
pub use client::{Answer, Body, Client, ClientError};
pub use connection::Connection;
pub use dead_letter::dead_letter_json;
pub use doubt::{Evidence, count_blocks, look};
pub use encode::{Encoder, EncoderError, Lineage, Misfit, Reason};
pub use error::{RequestError, Verdict};
pub use insert::{Insert, InsertError, ServerSettings};
pub use sql::digest;
pub use table::{Column, DefaultKind, DescribeError, Table};
pub use token::{BlockId, RangeCount, count_range};
pub use types::{Type, TypeError};
pub use versions::check_replaces;
