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
//! | `swaps` | what a request to swap plugins carries |
//! | `client` | the other side, for the command line |

mod answer;
mod client;
mod guard;
mod routes;
mod server;
mod swaps;

use serde_json::Value;

use crate::config::LogLevel;
use crate::metrics::Format;

pub use client::{Client, ClientError};
pub use server::{ListenError, Server};

/// A component that is sent for a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The stage's name.
    pub stage: String,
    /// The component.
    pub bytes: Vec<u8>,
    /// A signature of its bytes.
    pub signature: Option<Vec<u8>>,
}

/// Who sends something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The address that the connection comes from.
    pub address: std::net::IpAddr,
}

/// Why something that was asked for is not done: a status code and the reason.
pub type Unwilling = (u16, String);

/// What the listeners show and do. Every call returns at once, but for `swap`, `roll_back` and `state`, which are called
/// where one may wait.
pub trait Service: Send + Sync + 'static {
    /// All metrics.
    fn metrics(&self, format: Format) -> String;
    /// `Ok` while source and sinks answer, else why not.
    fn ready(&self) -> Result<(), &'static str>;
    /// Where the run stands.
    fn status(&self) -> Value;
    /// Stops taking records, or goes on.
    fn pause(&self, paused: bool);
    /// Puts components in force, as one.
    fn swap(&self, sent: Vec<Sent>, by: &Sender) -> Result<Value, Unwilling>;
    /// Brings the version before the last swap back.
    fn roll_back(&self, by: &Sender) -> Result<Value, Unwilling>;
    /// The last swaps.
    fn swaps(&self) -> Value;
    /// What is held for a key of a stage, as JSON; waits for the workers.
    fn state(&self, stage: &str, key: &str) -> Result<String, Unwilling>;
    /// Logs at another level from now on, or says why not.
    fn set_log_level(&self, level: LogLevel) -> Result<(), String>;
}
