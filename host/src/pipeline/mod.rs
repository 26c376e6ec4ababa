//! The chain of stages: checked as a whole before it starts, then run over one batch at a time.
//!
//! The stages are cut into *segments*. Within a segment a record is parsed once, every stage reads columns, and what
//! the stages wrote is spliced into the record once, at the segment's end. A new segment begins only where a stage
//! needs what cannot be had from columns: another type of what was just written, a part or the whole of it, or the
//! raw value. Most pipelines are one segment.

mod builtin;
mod join;
mod joined;
mod overlay;
mod plan;
mod run;
mod segment;
mod stage;

pub use builtin::Builtin;
pub use join::{HOLD_MS, Join, join_descriptor};
pub use joined::Joined;
pub use plan::{Pipeline, PlanError, StageRead, StageSpec, fits, type_name};
pub(crate) use run::header_bytes;
pub use run::{DeadRow, Flow, RowLimits, Run, StageCounts};
pub use stage::Stage;

/// Where a row leaves the pipeline: an index in the pipeline's outputs, of which the first is `main`.
pub type OutputIndex = u16;

/// The pipeline's main output.
pub const MAIN: OutputIndex = 0;
