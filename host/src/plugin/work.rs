//! What a seat can be given to do, whichever function of the plugin does it.

use std::ops::Range;

use super::fault::Failure;
use super::fold::Fold;
use super::instance::{Allowance, Instance};
use super::runner::Process;
use super::states::{Finish, Merge, Migrate};

/// Bytes that all calls of a run may return together, or by which they may make states larger. It guards the host's memory
/// from a plugin that blows up its input: the one verdict that depends on what else is in the batch.
pub(super) const RUN_BYTES: usize = 256 << 20;

/// Rows, or states, that a plugin is called for, in order.
pub(super) enum Work<'a> {
    Process(Process<'a>),
    Fold(Fold<'a>),
    Merge(Merge<'a>),
    Finish(Finish<'a>),
    Migrate(Migrate<'a>),
}

impl Work<'_> {
    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Process(process) => process.len(),
            Self::Fold(fold) => fold.len(),
            Self::Merge(merge) => merge.len(),
            Self::Finish(finish) => finish.len(),
            Self::Migrate(migrate) => migrate.len(),
        }
    }

    /// As many of `rows` as one call may take without exceeding `most_bytes`, and at least one.
    pub(super) fn next_call(&mut self, rows: Range<usize>, most_bytes: usize) -> Range<usize> {
        match self {
            Self::Process(process) => process.next_call(rows, most_bytes),
            Self::Fold(fold) => fold.next_call(rows, most_bytes),
            Self::Merge(merge) => merge.next_call(rows, most_bytes),
            Self::Finish(finish) => finish.next_call(rows, most_bytes),
            Self::Migrate(migrate) => migrate.next_call(rows, most_bytes),
        }
    }

    /// Makes one call, and takes its results if they are good and came in time.
    pub(super) fn attempt(
        &mut self,
        instance: &mut Instance,
        rows: Range<usize>,
        allowed: Allowance,
    ) -> Result<(), Failure> {
        match self {
            Self::Process(process) => process.attempt(instance, rows, allowed),
            Self::Fold(fold) => fold.attempt(instance, rows, allowed),
            Self::Merge(merge) => merge.attempt(instance, rows, allowed),
            Self::Finish(finish) => finish.attempt(instance, rows, allowed),
            Self::Migrate(migrate) => migrate.attempt(instance, rows, allowed),
        }
    }

    /// Notes that a row fails alone.
    pub(super) fn failed(&mut self, row: usize, failure: Failure) {
        match self {
            Self::Process(process) => process.failed(failure),
            Self::Fold(fold) => fold.failed(row, failure),
            Self::Merge(merge) => merge.failed(row, failure),
            Self::Finish(finish) => finish.failed(row, failure),
            Self::Migrate(migrate) => migrate.failed(row, failure),
        }
    }
}
