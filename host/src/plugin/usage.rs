//! What a stage has used, as plain numbers that belong to it.

use std::time::Duration;

use super::FaultCounts;
use super::instance::Instance;
use super::output::Tally;
use crate::metrics::{Histogram, STAGE_TIME};

/// What a stage has used since it was made, or several together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageUsage {
    /// How long each batch took, faults and their judgement included.
    pub time: Histogram,
    /// Calls of its functions, without those of the judge.
    pub calls: u64,
    /// Instances that were started for them.
    pub instances: u64,
    /// The most linear memory that one of them has had.
    pub memory_peak_bytes: u64,
    /// Records that the plugin failed.
    pub faults: FaultCounts,
    /// Calls that failed though no single record of theirs does.
    pub batch_faults: u64,
    /// Calls that the clock suspected and fuel acquitted.
    pub suspicions: u64,
}

impl Default for StageUsage {
    fn default() -> Self {
        Self {
            time: Histogram::new(&STAGE_TIME),
            calls: 0,
            instances: 0,
            memory_peak_bytes: 0,
            faults: FaultCounts::default(),
            batch_faults: 0,
            suspicions: 0,
        }
    }
}

impl StageUsage {
    /// Notes a batch that ran.
    pub(super) fn ran(&mut self, time: Duration, tally: &Tally) {
        self.time.record_time(time);
        self.faults.add(&tally.faults);
        self.batch_faults += tally.batch_faults;
        self.suspicions += tally.suspicions;
    }

    /// Notes what an instance has used that is not used again.
    pub(super) fn ended(&mut self, instance: &Instance) {
        self.memory_peak_bytes = self.memory_peak_bytes.max(instance.memory_bytes());
    }

    /// Adds what another used.
    pub fn add(&mut self, other: &Self) {
        self.time.add(&other.time);
        self.calls += other.calls;
        self.instances += other.instances;
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        self.faults.add(&other.faults);
        self.batch_faults += other.batch_faults;
        self.suspicions += other.suspicions;
    }
}
