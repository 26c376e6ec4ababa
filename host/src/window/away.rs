//! States outside of memory.

use super::log::LoadError;
use super::plan::Role;
use super::stage::WindowStage;
use crate::plugin::StageError;
use crate::spill::Spill;

impl WindowStage {
    /// Has states move out of memory where that is short; there must be none yet. What is sent on with each commit is never
    /// moved out.
    pub fn set_spill(&mut self, spill: impl FnOnce() -> Spill) {
        if self.plan.role != Role::Partial {
            self.keyed.store.set_spill(spill());
        }
    }

    /// Fails where states could not be moved: what was made of them is not to be relied on.
    pub(super) fn sound(&self) -> Result<(), StageError> {
        match self.keyed.store.trouble() {
            Some(why) => Err(StageError::Memory(why.to_string())),
            None => Ok(()),
        }
    }

    /// The same while a changelog is read.
    pub(super) fn sound_so_far(&self) -> Result<(), LoadError> {
        match self.keyed.store.trouble() {
            Some(why) => Err(LoadError::Memory(why.to_string())),
            None => Ok(()),
        }
    }
}
