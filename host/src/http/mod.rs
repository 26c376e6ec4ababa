//! The two listeners: `observe` shows metrics and health, `admin` shows the status and obeys.
//!
//! They live in one thread with a runtime of its own and share nothing with the workers but the [`Service`], whose answers
//! are quick. A connection is one request: there is a bound on how many are open, how long each may take, and how much
//! it may send.
//!
//! | file | owns |
//! | --- | --- |
//! | `server` | the thread, accepting, bounds of time and number, TLS |
//! | `routes` | every path: its method, who may call it, what body it takes |
//! | `guard` | who is asking: Host, Origin, token |
//! | `answer` | from a request to its response |
//! | `client` | the other side, for the command line |

mod answer;
mod client;
mod guard;
mod routes;
mod server;

use serde_json::Value;

use crate::config::LogLevel;
use crate::metrics::Format;

pub use client::{Client, ClientError};
pub use server::{ListenError, Server};

/// What the listeners show and do. Every call returns at once.
pub trait Service: Send + Sync + 'static {
    /// All metrics.
    fn metrics(&self, format: Format) -> String;
    /// `Ok` while source and sinks answer, else why not.
    fn ready(&self) -> Result<(), &'static str>;
    /// Where the run stands.
    fn status(&self) -> Value;
    /// Stops taking records, or goes on.
    fn pause(&self, paused: bool);
    /// Logs at another level from now on, or says why not.
    fn set_log_level(&self, level: LogLevel) -> Result<(), String>;
}
