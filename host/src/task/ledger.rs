//! Total accounting: every record in is counted out exactly once.

use crate::pipeline::{Flow, Pipeline, Run, StageCounts};

/// What became of a partition's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records that came in.
    pub records_in: u64,
    /// One a stage, and one more for the output.
    pub stages: Vec<StageCounts>,
    /// Records that left by each output, new ones included.
    pub outputs: Vec<u64>,
    /// New records that stages emitted.
    pub emitted: u64,
}

impl Ledger {
    /// An empty ledger for a pipeline.
    pub fn new(pipeline: &Pipeline) -> Self {
        Self {
            stages: vec![StageCounts::default(); pipeline.stages.len() + 1],
            outputs: vec![0; pipeline.outputs.len()],
            records_in: 0,
            emitted: 0,
        }
    }

    /// Counts one batch.
    pub fn count(&mut self, records_in: u64, run: &Run, flow: &Flow) {
        self.records_in += records_in;
        self.emitted += run.emitted();
        self.stages.iter_mut().zip(run.counts()).for_each(|(stage, counts)| stage.add(counts));
        flow.routes.iter().for_each(|&route| self.outputs[usize::from(route)] += 1);
    }

    /// Adds what another ledger counted.
    pub fn add(&mut self, other: &Self) {
        self.records_in += other.records_in;
        self.emitted += other.emitted;
        self.stages.resize(self.stages.len().max(other.stages.len()), StageCounts::default());
        self.outputs.resize(self.outputs.len().max(other.outputs.len()), 0);
        self.stages.iter_mut().zip(&other.stages).for_each(|(stage, counts)| stage.add(counts));
        self.outputs.iter_mut().zip(&other.outputs).for_each(|(output, count)| *output += count);
    }

    /// Records that became dead letters, at any stage.
    pub fn dead_lettered(&self) -> u64 {
        self.stages.iter().map(|stage| stage.dead_lettered).sum()
    }

    /// Records that a stage dropped on purpose.
    pub fn filtered(&self) -> u64 {
        self.stages.iter().map(|stage| stage.filtered).sum()
    }

    /// Records that went all the way, without those that stages emitted.
    pub fn forwarded(&self) -> u64 {
        self.stages.last().map_or(0, |output| output.forwarded)
    }

    /// By how many records the two ledgers are off: 0, always.
    pub fn imbalance(&self) -> u64 {
        let answered = self.forwarded() + self.filtered() + self.dead_lettered();
        let records = self.records_in.abs_diff(answered);
        let stages: u64 = self.stages.iter().filter(|stage| !stage.balances()).count() as u64;
        let born = self.outputs.iter().sum::<u64>().abs_diff(self.forwarded() + self.emitted);
        records + stages + born
    }
}
