//! What is asked of a swap, and what comes of it.

use std::collections::BTreeMap;

use serde::Serialize;

/// The largest component.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;
/// A component for a stage.
#[derive(Clone, Debug)]
pub struct Component {
    /// The stage's name.
    pub stage: String,
    /// The component, or a core module that can become one.
    pub bytes: Vec<u8>,
    /// An Ed25519 signature of the bytes.
    pub signature: Option<Vec<u8>>,
}

/// Components that replace others as one.
#[derive(Clone, Debug)]
pub struct SwapRequest {
    /// At most one for each stage.
    pub components: Vec<Component>,
    /// Who asks.
    pub who: String,
    /// Where they come from: a file, the API.
    pub from: String,
    /// How far away that is.
    pub origin: Origin,
}

/// Where components come from, as far as trust goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file of the configuration.
    File,
    /// A process of this machine.
    Loopback,
    /// Anywhere else: nothing is taken from there without `swap.trust`.
    Network,
}

/// Why nothing was swapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// Another swap is being prepared.
    #[error("another swap is being prepared; try again when it is done")]
    Busy,
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
    /// The component is too large.
    #[error("stage `{stage}`: a component of {bytes} bytes, and {COMPONENT_BYTES_MAX} are the most")]
    TooLarge {
        /// The stage.
        stage: String,
        /// The component's size.
        bytes: usize,
    },
    /// The component is not trusted.
    #[error("stage `{stage}`: {why}")]
    Untrusted {
        /// The stage.
        stage: String,
        /// What would help.
        why: String,
    },
    /// The component does not load, or the chain would not fit any more.
    #[error("{0}")]
    Refused(String),
    /// Another version was put in force in the meantime.
    #[error(
        "another version was put in force in the meantime, and nothing was changed; look at the swaps and try again"
    )]
    Overtaken,
    /// There is nothing to go back to.
    #[error("no version ran before this one")]
    NoPrevious,
}

/// What became of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapResult {
    /// It is in force.
    Done,
    /// Nothing changed.
    Refused,
    /// The version before it is in force again.
    RolledBack,
}

/// A swap that was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct SwapEvent {
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What became of it.
    pub result: SwapResult,
    /// Who asked, or `millstream`.
    pub who: String,
    /// Where the components came from.
    pub from: String,
    /// The digests by stage.
    pub plugins: BTreeMap<String, String>,
    /// Why, where something went wrong.
    pub why: Option<String>,
}

/// What a swap led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Swapped {
    /// The chain's number.
    pub number: u64,
    /// The digests by stage that are in force.
    pub plugins: BTreeMap<String, String>,
    /// Workers that run it, and all of them.
    pub workers: (usize, usize),
    /// False where these very plugins ran already.
    pub changed: bool,
}

/// How often swaps ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapCounts {
    /// Put in force.
    pub done: u64,
    /// Refused.
    pub refused: u64,
    /// Rolled back.
    pub rolled_back: u64,
}
