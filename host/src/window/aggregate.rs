//! What makes states of records: built-in functions.

use super::functions::Functions;
use crate::plugin::StageError;
use crate::record::{Column, Packed};

/// What folds records into states, merges them and finishes them.
#[derive(Debug)]
pub enum Aggregate {
    /// Built-in functions.
    Functions(Functions),
}

impl Aggregate {
    /// True where folding may turn a record away.
    pub fn may_reject(&self) -> bool {
        match self {
            Self::Functions(functions) => !functions.is_fixed(),
        }
    }

    /// Appends the state of no records.
    pub fn push_empty(&self, to: &mut Vec<u8>) {
        match self {
            Self::Functions(functions) => functions.push_empty(to),
        }
    }

    /// True where a state never changes its size, and a record can be added in place.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::Functions(functions) => functions.is_fixed(),
        }
    }

    /// Adds a record to a state in place, where states never change their size; false where they may.
    pub fn fold_state(&self, state: &mut [u8], columns: &[&Column], row: usize) -> bool {
        match self {
            Self::Functions(functions) if functions.is_fixed() => {
                functions.fold_fixed(state, columns, row);
                true
            }
            Self::Functions(_) => false,
        }
    }

    /// Appends what becomes of a state with one more record, or says why it can't take it.
    pub fn fold(&self, state: &[u8], columns: &[&Column], row: usize, to: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Functions(functions) => functions.fold(state, columns, row, to),
        }
    }

    /// Appends the state of two states' records together.
    pub fn merge(&self, left: &[u8], right: &[u8], to: &mut Vec<u8>) -> Result<(), StageError> {
        match self {
            Self::Functions(functions) => functions.merge(left, right, to),
        }
        Ok(())
    }

    /// True where these bytes can be a state.
    pub fn fits(&self, state: &[u8]) -> bool {
        match self {
            Self::Functions(functions) => functions.fits(state),
        }
    }

    /// Appends, for the row of a window of `window_us`, its columns, each as `,"name":value`.
    pub fn push_columns(&self, states: &Packed, row: usize, window_us: i64, to: &mut Vec<u8>) {
        match self {
            Self::Functions(functions) => functions.push_columns(states.get(row), window_us, to),
        }
    }
}
