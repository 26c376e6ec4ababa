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
    /// Dead letters by stage and reason.
    pub reasons: Reasons,
}

/// The most reason codes of one stage that are told apart, and the most bytes of a code.
const REASONS_MAX: usize = 50;
const REASON_BYTES_MAX: usize = 64;
/// What the codes beyond those are counted as.
const OTHER: &str = "other";

/// Dead letters by stage and reason code, of which there are boundedly many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(Vec<(usize, String, u64)>);

impl Reasons {
    /// Counts dead letters of a stage with one code.
    pub fn count(&mut self, stage: usize, code: &str, times: u64) {
        let code = &code[..code.floor_char_boundary(REASON_BYTES_MAX)];
        let find = |reasons: &Self, code: &str| reasons.0.iter().position(|known| known.0 == stage && known.1 == code);
        if let Some(at) = find(self, code) {
            self.0[at].2 += times;
            return;
        }
        let full = self.0.iter().filter(|known| known.0 == stage).count() >= REASONS_MAX;
        let code = if full { OTHER } else { code };
        match find(self, code) {
            Some(at) => self.0[at].2 += times,
            None => self.0.push((stage, code.to_owned(), times)),
        }
    }

    /// Index of the stage (the number of stages stands for the output), code, and number.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &str, u64)> {
        self.0.iter().map(|(stage, code, count)| (*stage, code.as_str(), *count))
    }
}

impl Ledger {
    /// An empty ledger for a pipeline.
    pub fn new(pipeline: &Pipeline) -> Self {
        Self {
            stages: vec![StageCounts::default(); pipeline.stages.len() + 1],
            outputs: vec![0; pipeline.outputs.len()],
            records_in: 0,
            emitted: 0,
            reasons: Reasons::default(),
        }
    }

    /// Counts one batch.
    pub fn count(&mut self, records_in: u64, run: &Run, flow: &Flow) {
        self.records_in += records_in;
        self.emitted += run.emitted();
        self.stages.iter_mut().zip(run.counts()).for_each(|(stage, counts)| stage.add(counts));
        flow.routes.iter().for_each(|&route| self.outputs[usize::from(route)] += 1);
        run.dead().iter().for_each(|dead| self.reasons.count(dead.stage, &dead.code, 1));
    }

    /// Adds the records that a second level made anew.
    pub fn add_merged(&mut self, other: &Self) {
        self.emitted += other.emitted;
        self.outputs.resize(self.outputs.len().max(other.outputs.len()), 0);
        self.outputs.iter_mut().zip(&other.outputs).for_each(|(output, count)| *output += count);
    }

    /// Adds what another ledger counted.
    pub fn add(&mut self, other: &Self) {
        self.records_in += other.records_in;
        self.emitted += other.emitted;
        self.stages.resize(self.stages.len().max(other.stages.len()), StageCounts::default());
        self.outputs.resize(self.outputs.len().max(other.outputs.len()), 0);
        self.stages.iter_mut().zip(&other.stages).for_each(|(stage, counts)| stage.add(counts));
        self.outputs.iter_mut().zip(&other.outputs).for_each(|(output, count)| *output += count);
        other.reasons.iter().for_each(|(stage, code, count)| self.reasons.count(stage, code, count));
    }

    /// Records that became dead letters, at any stage.
    pub fn dead_lettered(&self) -> u64 {
        self.stages.iter().map(|stage| stage.dead_lettered).sum()
    }

    /// Records that a stage dropped on purpose.
    pub fn filtered(&self) -> u64 {
        self.stages.iter().map(|stage| stage.filtered).sum()
    }

    /// Records that became part of a state.
    pub fn folded(&self) -> u64 {
        self.stages.iter().map(|stage| stage.folded).sum()
    }

    /// Records that came too late and went to an output of their own.
    pub fn late(&self) -> u64 {
        self.stages.iter().map(|stage| stage.late).sum()
    }

    /// Records of which one came before.
    pub fn deduplicated(&self) -> u64 {
        self.stages.iter().map(|stage| stage.deduplicated).sum()
    }

    /// Records that went all the way, without those that stages emitted.
    pub fn forwarded(&self) -> u64 {
        self.stages.last().map_or(0, |output| output.forwarded)
    }

    /// By how many records the two ledgers are off: 0, always.
    pub fn imbalance(&self) -> u64 {
        let kept = self.folded() + self.late() + self.deduplicated();
        let answered = self.forwarded() + self.filtered() + kept + self.dead_lettered();
        let records = self.records_in.abs_diff(answered);
        let stages: u64 = self.stages.iter().filter(|stage| !stage.balances()).count() as u64;
        let born = self.outputs.iter().sum::<u64>().abs_diff(self.forwarded() + self.emitted);
        records + stages + born
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_codes_are_bounded_however_many_a_plugin_makes_up() {
        let mut reasons = Reasons::default();
        (0..200).for_each(|i| reasons.count(1, &format!("code_{i}"), 1));
        reasons.count(0, &"x".repeat(1_000), 2);
        reasons.count(1, "code_3", 1);
        assert_eq!(reasons.iter().count(), REASONS_MAX + 1 + 1);
        assert!(reasons.iter().any(|found| found == (1, OTHER, 150)));
        assert!(reasons.iter().any(|found| found == (1, "code_3", 2)));
        assert!(reasons.iter().all(|(_, code, _)| code.len() <= REASON_BYTES_MAX));
    }
}
