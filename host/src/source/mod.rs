//! Where batches come from.

mod files;
mod generate;
mod insurance;
pub(crate) mod kafka;
mod local;
mod memory;
mod random;
mod state;

pub use files::{FilesProgress, FilesSource};
pub use generate::{GenerateSource, write_clickstream};
pub use insurance::{Insurance, InsuranceConfig, InsuranceCounts};
pub use kafka::{KafkaSource, StartAt};
pub use local::LocalSource;
pub use memory::MemorySource;
pub use state::{KafkaStates, MemoryStates, StateRecord, StateSource};

use crate::metrics::ClientFigures;
use crate::record::{Batch, Place};

/// Why a source can't go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It may work again: the servers are away, or the group is busy.
    #[error("{0}")]
    Retriable(String),
    /// It will not.
    #[error("{0}")]
    Fatal(String),
}

/// What a poll brings, in this order of time.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most events are batches, and a box for each would cost an allocation")]
pub enum Event {
    /// These partitions are this worker's from now on; it asks for their [`Source::starts`] and assigns them.
    Assigned(Vec<Place>),
    /// These are to be given up: the worker commits what it has and calls [`Source::unassign`].
    Revoked(Vec<Place>),
    /// These belong to somebody else already.
    Lost(Vec<Place>),
    /// Records.
    Batch(Batch),
    /// There will be no more records.
    Ended,
}

/// Where a partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The partition.
    pub place: Place,
    /// Its first record's offset.
    pub offset: i64,
    /// What was committed with that offset, where anything was.
    pub note: Option<String>,
}

/// A committed offset and the note that was committed with it.
pub type Committed = (i64, String);

/// A source of batches.
#[derive(Debug)]
pub enum Source {
    /// A member of a Kafka group.
    Kafka(Box<KafkaSource>),
    /// Files, standard input or made-up records.
    Local(Box<LocalSource>),
    /// A model of Kafka, for simulation.
    Memory(MemorySource),
}

impl Source {
    /// Waits for events, `wait_ms` at most, and appends them. Where the last poll left nothing behind, records are given
    /// `gather_ms` to come first.
    pub fn poll(&mut self, wait_ms: u64, gather_ms: u64, events: &mut Vec<Event>) -> Result<(), SourceError> {
        match self {
            Self::Kafka(source) => source.poll(wait_ms, gather_ms, events),
            Self::Local(source) => source.poll(wait_ms, events),
            Self::Memory(source) => source.poll(events),
        }
    }

    /// True when the last poll took as much as it may: there is likely more.
    pub fn filled(&self) -> bool {
        match self {
            Self::Kafka(source) => source.filled(),
            Self::Local(source) => source.filled(),
            Self::Memory(source) => source.filled(),
        }
    }

    /// Stops handing out records, or goes on; everything else goes its way, so that a group keeps its member.
    pub fn pause(&mut self, paused: bool) -> Result<(), SourceError> {
        match self {
            Self::Kafka(source) => source.pause(paused),
            Self::Local(source) => source.pause(paused),
            Self::Memory(_) => Ok(()),
        }
    }

    /// True once the source has answered: the group has said which partitions are ours, or the files are open.
    pub fn answered(&self) -> bool {
        match self {
            Self::Kafka(source) => source.answered(),
            Self::Local(_) | Self::Memory(_) => true,
        }
    }

    /// The offset after a partition's last record, as it was last heard of; none where that is unknown.
    pub fn end_offset(&self, place: &Place) -> Option<i64> {
        match self {
            Self::Kafka(source) => source.end_offset(place),
            Self::Local(_) | Self::Memory(_) => None,
        }
    }

    /// What the client says of itself, if there is news.
    pub fn figures(&mut self) -> Option<ClientFigures> {
        match self {
            Self::Kafka(source) => source.figures(),
            Self::Local(_) | Self::Memory(_) => None,
        }
    }

    /// Takes a batch's buffers back.
    pub fn recycle(&mut self, batch: Batch) {
        match self {
            Self::Kafka(source) => source.recycle(batch),
            Self::Local(_) | Self::Memory(_) => drop(batch),
        }
    }

    /// The committed offset of each partition and its note, or none where nothing was committed.
    pub fn committed(&mut self, places: &[Place]) -> Result<Vec<Option<Committed>>, SourceError> {
        match self {
            Self::Kafka(source) => source.committed(places),
            Self::Local(_) => Ok(vec![None; places.len()]),
            Self::Memory(source) => source.committed(places),
        }
    }

    /// Where to begin with each partition: at its committed offset, else where the configuration says.
    pub fn starts(&mut self, places: &[Place]) -> Result<Vec<Start>, SourceError> {
        match self {
            Self::Kafka(source) => source.starts(places),
            Self::Local(source) => Ok(source.starts(places)),
            Self::Memory(source) => source.starts(places),
        }
    }

    /// Takes assigned partitions on, each at its offset.
    pub fn assign(&mut self, starts: &[Start]) -> Result<(), SourceError> {
        match self {
            Self::Kafka(source) => source.assign(starts),
            Self::Local(_) => Ok(()),
            Self::Memory(source) => source.assign(starts),
        }
    }

    /// Gives partitions up.
    pub fn unassign(&mut self, places: &[Place]) -> Result<(), SourceError> {
        match self {
            Self::Kafka(source) => source.unassign(places),
            Self::Local(_) => Ok(()),
            Self::Memory(source) => source.unassign(places),
        }
    }

    /// Goes on at other offsets; nothing that was fetched before is handed out any more.
    pub fn seek(&mut self, starts: &[(Place, i64)]) -> Result<(), SourceError> {
        match self {
            Self::Kafka(source) => source.seek(starts),
            Self::Local(source) => source.seek(),
            Self::Memory(source) => source.seek(starts),
        }
    }

    /// True where the source has an end that was not reached, and the next run will read it all again.
    pub fn is_cut_short(&self) -> bool {
        matches!(self, Self::Local(source) if source.is_cut_short())
    }

    /// Leaves the group.
    pub fn close(&mut self) -> Result<(), SourceError> {
        match self {
            // A consumer leaves its group when it is dropped.
            Self::Kafka(_) | Self::Local(_) => Ok(()),
            Self::Memory(source) => source.close(),
        }
    }
}
