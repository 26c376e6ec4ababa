//! Second levels follow the swaps of the stages that they belong to.

use std::sync::Arc;

use super::super::{Prepared, lock};
use super::{SwapError, Swapper};
use crate::worker::Chains;

impl Swapper {
    /// Second levels that follow the pipeline's swaps from now on.
    pub(in crate::run) fn add_merging(&self, stage: usize, chains: Arc<Chains>) {
        lock(&self.merging).push((stage, chains));
    }

    /// Puts the second levels of a pipeline in force.
    pub(super) fn follow_merging(&self, prepared: &Prepared) -> Result<(), SwapError> {
        for (stage, chains) in lock(&self.merging).iter() {
            let chain =
                prepared.merge_chain(&self.config, *stage).map_err(|why| SwapError::Refused(why.to_string()))?;
            chains.put(chains.number(), chain);
        }
        Ok(())
    }
}
