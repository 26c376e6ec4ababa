//! When a block is committed.

/// Bounds of a commit: soon while the load is light, larger when it is heavy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPolicy {
    /// The least time between two commits.
    pub min_interval_ms: u64,
    /// The longest that a record waits for its commit.
    pub max_interval_ms: u64,
    /// The most records in one commit.
    pub records_max: u64,
    /// The most bytes of outputs and changed states in one commit: memory holds them until it is done.
    pub bytes_max: u64,
}

impl Default for CommitPolicy {
    fn default() -> Self {
        Self { min_interval_ms: 10, max_interval_ms: 1_000, records_max: 50_000, bytes_max: 8 << 20 }
    }
}

impl CommitPolicy {
    /// True when a block of `records` and `bytes`, the oldest taken `age_ms` ago, is to be committed, `gap_ms` after the
    /// last commit. While the source keeps filling batches, a commit would only make it wait.
    pub fn due(&self, (records, bytes): (u64, u64), age_ms: u64, gap_ms: u64, caught_up: bool) -> bool {
        records >= self.records_max
            || bytes >= self.bytes_max
            || age_ms >= self.max_interval_ms
            || caught_up && (gap_ms >= self.min_interval_ms || age_ms >= self.min_interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_light_load_commits_soon_and_a_heavy_one_in_bulk() {
        let policy = CommitPolicy { min_interval_ms: 10, max_interval_ms: 100, records_max: 1_000, bytes_max: 9_000 };
        assert!(policy.due((1, 1), 0, 10, true), "nothing waits behind it");
        assert!(!policy.due((1, 1), 0, 9, true), "too soon after the last one");
        assert!(!policy.due((999, 1), 50, 50, false), "more is waiting");
        assert!(policy.due((1_000, 1), 0, 0, false), "full");
        assert!(policy.due((1, 9_000), 0, 0, false), "full by its bytes");
        assert!(policy.due((1, 1), 100, 100, false), "waited long enough");
    }
}
