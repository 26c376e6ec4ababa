//! Where outputs go, and the commit that makes them and the source's offsets visible as one.

mod files;
mod memory;
mod outputs;

pub use files::FileSink;
pub(crate) use files::push_value;
pub use memory::MemoryDelivery;
pub use outputs::{Outputs, Target};

use crate::metrics::ClientFigures;
use crate::record::Place;
use crate::source::Source;
use crate::task::Output;
use crate::window::StateRows;

/// How a delivery fails.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The transaction can only be aborted; its records are processed again.
    #[error("{0}")]
    Aborted(String),
    /// It is unknown whether the request took effect: the delivery has to be made anew.
    #[error("{0}")]
    InDoubt(String),
    /// It can't go on.
    #[error("{0}")]
    Fatal(String),
}

/// How far a partition got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The partition.
    pub place: Place,
    /// The offset of its next record.
    pub next_offset: i64,
    /// What is committed with the offset.
    pub note: String,
}

/// The pipeline's outputs and dead letters, as one thing that commits.
#[derive(Debug)]
pub enum Delivery {
    /// Topics and files.
    Outputs(Box<Outputs>),
    /// A model of Kafka's transactions, for simulation.
    Memory(MemoryDelivery),
}

impl Delivery {
    /// Takes one batch's output, of which empty buffers are left; it becomes visible with the next commit.
    pub fn deliver(&mut self, output: &mut Output) -> Result<(), DeliveryError> {
        match self {
            Self::Outputs(outputs) => outputs.deliver(output),
            Self::Memory(delivery) => delivery.deliver(output),
        }
    }

    /// Takes what a task's stages have to say of their states, by stage, for the partition of its lane; it becomes visible with the
    /// next commit.
    pub fn deliver_states(&mut self, lane: i32, states: &mut [StateRows]) -> Result<(), DeliveryError> {
        match self {
            Self::Outputs(outputs) => outputs.deliver_states(lane, states),
            Self::Memory(delivery) => delivery.deliver_states(lane, states),
        }
    }

    /// Makes everything delivered since the last commit visible, together with the source's progress.
    pub fn commit(&mut self, progress: &[Progress], source: &mut Source) -> Result<(), DeliveryError> {
        match (self, source) {
            (Self::Outputs(outputs), source) => outputs.commit(progress, source),
            (Self::Memory(delivery), Source::Memory(source)) => delivery.commit(progress, source),
            (Self::Memory(_), _) => Err(DeliveryError::Fatal("the model delivers what the model brings".into())),
        }
    }

    /// Ends the open transaction without effect.
    pub fn abort(&mut self) -> Result<(), DeliveryError> {
        match self {
            Self::Outputs(outputs) => outputs.abort(),
            Self::Memory(delivery) => delivery.abort(),
        }
    }

    /// Makes the producer anew after a request whose outcome is unknown. Afterwards nothing is open, and nothing that
    /// was sent before can take effect any more.
    pub fn renew(&mut self) -> Result<(), DeliveryError> {
        match self {
            Self::Outputs(outputs) => outputs.renew(),
            Self::Memory(delivery) => delivery.renew(),
        }
    }

    /// What the client says of itself, if there is news.
    pub fn figures(&mut self) -> Option<ClientFigures> {
        match self {
            Self::Outputs(outputs) => outputs.figures(),
            Self::Memory(_) => None,
        }
    }

    /// Finishes; `cut_short` where the source was to end and did not, so that the outputs are not whole.
    pub fn close(&mut self, cut_short: bool) -> Result<(), DeliveryError> {
        match self {
            Self::Outputs(outputs) => outputs.close(cut_short),
            Self::Memory(delivery) => delivery.abort(),
        }
    }
}
