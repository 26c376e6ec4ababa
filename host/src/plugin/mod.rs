//! Plugins: WebAssembly components that run in a sandbox, and what comes of it when they misbehave.
//!
//! A [`Runtime`] holds two engines. The *fast* one interrupts by epoch, which costs little and depends on the clock; so
//! it only raises a suspicion. The *judge* counts fuel, which does not: a call that faulted is run again there, in
//! halves on fresh instances, until the record that did it stands alone. The same record fails on every machine, and
//! it costs nothing but itself.
//!
//! A [`Plugin`] is a component compiled for both; a [`StageRunner`] or, for a window, an [`AggregateRunner`] runs one with
//! one configuration, keeps its instance for one block and no longer, and checks all that comes back before anybody uses
//! it.
//!
//! | file | owns |
//! | --- | --- |
//! | `engine` | the engines' settings, the epoch ticker, [`Runtime`] |
//! | `wrap` | from a core module to a component, and what a component may import |
//! | `cache` | compiled artefacts on disk |
//! | `artefact` | a component compiled by one engine, its linker |
//! | `instance`, `fault` | a live instance: limits, calls, how they fail |
//! | `descriptor` | what a plugin says of itself |
//! | `abi`, `input`, `check`, `output` | the boundary: types, lowering, checks, normalised outcomes |
//! | `seat`, `work`, `usage` | calls, faults, halving; what can be called; what was used |
//! | `runner` | a stage: rows to process |
//! | `aggregate`, `fold`, `states` | an aggregate: rows to fold; states to merge, finish and migrate |

use std::time::Duration;

mod abi;
mod aggregate;
mod artefact;
mod cache;
mod check;
mod descriptor;
mod engine;
mod fault;
mod fold;
mod input;
mod instance;
mod log;
mod lookup;
mod output;
mod runner;
mod seat;
mod states;
mod usage;
mod work;
mod wrap;

pub use aggregate::AggregateRunner;
pub use artefact::{Plugin, digest_of};
pub use descriptor::{AggregateDescriptor, Descriptor, JoinField, Parts, ReadField, TableField, WriteField};
pub use engine::{Runtime, RuntimeConfig, user_cache_dir};
pub use fold::Folded;
pub use input::StageInput;
pub use output::{
    Emitted, FaultCounts, HeaderWrite, MAIN_OUTPUT, RawWrite, Rejection, SAME_ROUTE, StageOutput, TimestampWrite,
    Verdict,
};
pub use runner::StageRunner;
pub use states::{FinishWindows, Finished, Merged, Migrated};
pub use usage::StageUsage;
pub use wrap::wrap;

/// Fuel that a millisecond of deadline stands for: about what code that waits for its memory burns in one.
pub const FUEL_PER_MS: u64 = 2_000_000;
/// Fuel that no machine burns in a millisecond: five instructions a cycle, at 4 GHz.
const MOST_FUEL_PER_MS: u64 = 20_000_000;

/// What a stage may use. All of it belongs to a pipeline's identity but `suspect_after` and `rows_per_call`, on which no
/// verdict depends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one instance, all its memories together.
    pub memory_bytes: u64,
    /// Units of fuel, about one machine instruction each, that one record may take.
    pub fuel_per_record: u64,
    /// How long a call may take before it is suspected and run again under fuel.
    pub suspect_after: Duration,
    /// Bytes that one call may return.
    pub output_bytes: u64,
    /// Bytes of one state of an aggregate, looked at when a call ends.
    pub state_bytes: u64,
    /// Records that a plugin sees at a time; from 1 to 65,536.
    pub rows_per_call: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(64 << 20, 50, 32 << 20)
    }
}

impl Limits {
    /// Limits of memory and output in bytes, and of what one record may take: `deadline_ms` stands for that many times
    /// [`FUEL_PER_MS`]. A call is suspected in the time in which the fastest machine burns as much, so that what one
    /// machine lets pass no other condemns.
    pub fn new(memory_bytes: u64, deadline_ms: u64, output_bytes: u64) -> Self {
        let fuel_per_record = deadline_ms.saturating_mul(FUEL_PER_MS);
        let suspect_after = Duration::from_micros(fuel_per_record / MOST_FUEL_PER_MS.div_ceil(1000));
        Self { memory_bytes, fuel_per_record, suspect_after, output_bytes, state_bytes: 1 << 20, rows_per_call: 512 }
    }
}

/// The worlds of the contract (wit/types.wit), of which a component implements one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum World {
    /// It looks at records one by one: a stage.
    Transform,
    /// It makes one row of many: a window's.
    Aggregate,
}

impl World {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Aggregate => "aggregate",
        }
    }

    /// The setting that names a component of it.
    fn setting(self) -> &'static str {
        match self {
            Self::Transform => "a stage's `plugin`",
            Self::Aggregate => "`window.aggregate.plugin`",
        }
    }
}

/// The ways in which a plugin fails a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It trapped: `unreachable` (a panic), an access out of bounds, a division by zero.
    Trap,
    /// It used up its fuel.
    Deadline,
    /// It asked for more memory than it may have, and then failed.
    Memory,
    /// Its calls were nested too deeply.
    Stack,
    /// What it returned breaks the contract.
    BadOutput,
}

impl FaultKind {
    /// The code that a dead letter and a counter carry.
    pub fn code(self) -> &'static str {
        match self {
            Self::Trap => "plugin_trap",
            Self::Deadline => "plugin_deadline",
            Self::Memory => "plugin_memory",
            Self::Stack => "plugin_stack",
            Self::BadOutput => "plugin_bad_output",
        }
    }
}

/// Why a plugin can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PluginError {
    /// The engines could not be set up.
    #[error("the WebAssembly engine could not be set up: {0}")]
    Engine(String),
    /// The file is not a component, nor a core module that can become one.
    #[error("plugin `{name}`: {reason}")]
    NotAPlugin {
        /// The plugin's name, as given to [`Runtime::load`].
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It imports what no plugin is given.
    #[error(
        "plugin `{name}` imports `{import}`, and a plugin is given nothing but `millstream:plugin/host` and `/tables`: no WASI, no \
         clock, no random numbers, no files, no network. Build it for wasm32-unknown-unknown, or with its WASI stubbed \
         out"
    )]
    Import {
        /// The plugin's name.
        name: String,
        /// The import.
        import: String,
    },
    /// A function of the contract is missing, or of another type.
    #[error(
        "plugin `{name}`: {reason}; the contract is the world `transform` or `aggregate` of millstream:plugin@0.1.0"
    )]
    Export {
        /// The plugin's name.
        name: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// It is of another world than the place where it is used.
    #[error("{} needs a component of the world `{}`; `{name}` is one of `{}`", wanted.setting(), wanted.name(), found.name())]
    World {
        /// The plugin's name.
        name: String,
        /// The world that is needed.
        wanted: World,
        /// The world that it implements.
        found: World,
    },
    /// The plugin did not accept the stage's configuration.
    #[error("plugin `{name}` does not accept its config: {message}")]
    Config {
        /// The plugin's name.
        name: String,
        /// The plugin's words.
        message: String,
    },
    /// The plugin's descriptor breaks a rule.
    #[error("plugin `{name}` describes itself wrongly: {reason}")]
    Descriptor {
        /// The plugin's name.
        name: String,
        /// The rule.
        reason: String,
    },
    /// The plugin failed in `describe` or `start`.
    #[error("plugin `{name}` failed to start ({}): {detail}", kind.code())]
    Fault {
        /// The plugin's name.
        name: String,
        /// How it failed.
        kind: FaultKind,
        /// The trap and the functions on its stack.
        detail: String,
    },
    /// All instances that the runtime may have are in use, or the host has no memory for one.
    #[error("plugin `{name}` gets no instance: {reason}")]
    NoInstance {
        /// The plugin's name.
        name: String,
        /// What is used up.
        reason: String,
    },
    /// A limit is out of its range.
    #[error("{0}")]
    Limits(String),
}

/// Why a stage could not run its rows: trouble of the host's. Nothing of the call counts, and it may be made again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StageError {
    /// No fresh instance could be had or started.
    #[error(transparent)]
    Instance(#[from] PluginError),
    /// A call is suspected, and the artefact that decides is still being compiled.
    #[error("plugin `{0}`: the artefact that judges a fault is not compiled yet")]
    NotReady(String),
    /// The artefact that decides could not be compiled.
    #[error("plugin `{name}`: the artefact that judges a fault could not be made: {reason}")]
    Judge {
        /// The plugin's name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The input does not fit the descriptor.
    #[error("the stage was given {0}")]
    Input(&'static str),
    /// States are of a version that this plugin does not know.
    #[error("plugin `{name}`: {why}; swap in a version that migrates them, or the one that made them")]
    States {
        /// The plugin's name.
        name: String,
        /// The version, and those that it knows.
        why: String,
    },
    /// A table is not read yet, so that no row was run.
    #[error("the table `{0}` is not read yet")]
    Unready(String),
    /// A table may still get the row that a record names.
    #[error("{0}; the table may catch up")]
    Waiting(String),
    /// States could not be moved out of memory, or back into it.
    #[error("{0}")]
    Memory(String),
    /// The interrupt flag was raised.
    #[error("interrupted")]
    Interrupted,
}

impl PluginError {
    /// True where the same may succeed a little later: the pool is full, or the clock ran out on a busy machine while a
    /// plugin started that has started before.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NoInstance { .. } | Self::Fault { kind: FaultKind::Deadline, .. })
    }
}

impl StageError {
    /// True where the same rows may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Instance(why) => why.is_transient(),
            Self::NotReady(_) | Self::States { .. } | Self::Unready(_) | Self::Waiting(_) => true,
            Self::Judge { .. } | Self::Input(_) | Self::Memory(_) | Self::Interrupted => false,
        }
    }
}
