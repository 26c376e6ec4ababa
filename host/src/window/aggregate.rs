//! What makes states of records: built-in functions, or a plugin.

use super::functions::{Functions, STATE_BYTES_MAX};
use super::plugin::PluginAggregate;
use super::rows::Due;
use crate::plugin::{Rejection, StageError, StageInput};
use crate::record::Column;

/// What folds records into states, merges them and finishes them.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each stage of a task, not one for each record")]
pub enum Aggregate {
    /// Built-in functions.
    Functions(Functions),
    /// A plugin of the world `aggregate`.
    Plugin(PluginAggregate),
}

impl Aggregate {
    /// True where folding may turn a record away.
    pub fn may_reject(&self) -> bool {
        !self.is_fixed()
    }

    /// True where a state never changes its size, and a record can be added in place.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::Functions(functions) => functions.is_fixed(),
            Self::Plugin(_) => false,
        }
    }

    /// The plugin, where records are folded many at a time.
    pub(super) fn plugin(&mut self) -> Option<&mut PluginAggregate> {
        match self {
            Self::Functions(_) => None,
            Self::Plugin(plugin) => Some(plugin),
        }
    }

    /// Appends the state of no records.
    pub(super) fn push_empty(&self, to: &mut Vec<u8>) {
        match self {
            Self::Functions(functions) => functions.push_empty(to),
            Self::Plugin(_) => {}
        }
    }

    /// Adds a record to a state in place, where states never change their size.
    pub(super) fn fold_state(&self, state: &mut [u8], columns: &[&Column], row: usize) {
        if let Self::Functions(functions) = self {
            functions.fold_fixed(state, columns, row);
        }
    }

    /// Appends what becomes of a state with one more record, or says why it can't take it.
    pub(super) fn fold(
        &mut self,
        state: &[u8],
        (input, row): (&StageInput<'_>, usize),
        to: &mut Vec<u8>,
    ) -> Result<Result<(), Rejection>, StageError> {
        match self {
            Self::Plugin(plugin) => plugin.fold_now(state, input, row, to),
            Self::Functions(functions) => Ok(functions
                .fold(state, input.columns, row, to)
                .map_err(|detail| Rejection { row, code: "state_too_large".to_owned(), detail, fault: None })),
        }
    }

    /// Appends the state of two states' records together, or says why they can't be.
    pub(super) fn merge(
        &mut self,
        left: &[u8],
        right: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<Result<(), Rejection>, StageError> {
        match self {
            Self::Functions(functions) => {
                let start = to.len();
                functions.merge(left, right, to);
                if to.len() - start > STATE_BYTES_MAX {
                    to.truncate(start);
                    let detail = format!("merged, the states would be larger than {STATE_BYTES_MAX} bytes");
                    return Ok(Err(Rejection { row: 0, code: "state_too_large".to_owned(), detail, fault: None }));
                }
                Ok(Ok(()))
            }
            Self::Plugin(plugin) => plugin.merge(left, right, to),
        }
    }

    /// True where these bytes can be a state.
    pub(super) fn fits(&self, state: &[u8]) -> bool {
        match self {
            Self::Functions(functions) => functions.fits(state),
            Self::Plugin(plugin) => plugin.fits(state),
        }
    }

    /// Readies the rows that are due for [`Aggregate::push_columns`]; returns those that could not be made.
    pub(super) fn finish(&mut self, due: &Due) -> Result<Vec<Rejection>, StageError> {
        match self {
            Self::Functions(_) => Ok(Vec::new()),
            Self::Plugin(plugin) => plugin.finish(due),
        }
    }

    /// Appends the columns of a row that is due, each as `,"name":value`.
    pub(super) fn push_columns(&self, due: &Due, row: usize, to: &mut Vec<u8>) {
        match self {
            Self::Functions(functions) => {
                functions.push_columns(due.states.get(row), due.ends_us[row] - due.starts_us[row], to);
            }
            Self::Plugin(plugin) => plugin.push_columns(row, to),
        }
    }
}
