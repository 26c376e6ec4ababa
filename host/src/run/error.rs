//! Why a pipeline does not start, or stops.

use std::path::PathBuf;

use crate::http::ListenError;
use crate::kafka::KafkaError;
use crate::pipeline::PlanError;
use crate::plugin::PluginError;
use crate::sink::DeliveryError;
use crate::source::SourceError;
use crate::worker::WorkerError;

/// Why a pipeline does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A plugin's file can't be read.
    #[error("stage `{stage}`: can't read the plugin {}: {why}; build it with `millstream build`, or mend `plugin:`", path.display())]
    PluginFile {
        /// The stage's name.
        stage: String,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// A plugin can't be loaded, or does not take its configuration.
    #[error("stage `{stage}`: {why}")]
    Plugin {
        /// The stage's name.
        stage: String,
        /// The reason.
        why: PluginError,
    },
    /// A built-in stage or an output is configured in a way that can't work.
    #[error("{0}")]
    Setting(String),
    /// The stages do not fit each other.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A table that records are looked up in can't be read.
    #[error("table `{table}`: {why}")]
    Table {
        /// The table's name.
        table: String,
        /// The reason.
        why: String,
    },
    /// Records do not come into a table any more.
    #[error("output `{output}`, its table: {why}")]
    Drain {
        /// The output.
        output: String,
        /// The reason.
        why: String,
    },
    /// A request to the cluster failed.
    #[error("{doing}: {why}")]
    Kafka {
        /// What was attempted.
        doing: String,
        /// The client's reason.
        why: KafkaError,
    },
    /// The cluster is not as the configuration needs it; all that is wrong, a line each.
    #[error("the cluster is not ready for this pipeline:\n{}", .0.join("\n"))]
    Cluster(Vec<String>),
    /// An input or output can't be opened.
    #[error("{0}")]
    Io(String),
    /// A listener that the configuration names can't start.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A source can't start.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A delivery can't start.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A worker stopped; what it had not committed is processed again by the next start.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A worker's thread ended by a panic: a bug of ours.
    #[error("a worker panicked; this is a bug in Millstream. Nothing that was not committed is lost")]
    Panicked,
}
