//! Time zones as the server knows them, so that a text without a zone means the same here as there.

/// How far a zone's clocks are ahead of UTC, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Zone {
    /// Seconds since 1970 UTC from which on the offset in seconds holds, in order; the first one holds before, too.
    changes: Vec<(i64, i32)>,
}

impl Zone {
    /// A zone that changes its offset so.
    pub(super) fn new(changes: Vec<(i64, i32)>) -> Self {
        Self { changes }
    }

    /// A zone with one offset.
    #[cfg(test)]
    pub(super) fn fixed(offset_s: i32) -> Self {
        Self::new(vec![(i64::MIN / 2, offset_s)])
    }

    /// The time in UTC when this zone's clocks show `local_s`, in seconds since 1970. As ClickHouse has it: where they
    /// show it twice, the first time; where they skip it, by the offset that holds after the skip.
    pub(super) fn to_utc(&self, local_s: i64) -> i64 {
        let at = self.changes.partition_point(|(since, offset)| since + i64::from(*offset) <= local_s);
        let offset = |at: usize| self.changes.get(at).map_or(0, |change| i64::from(change.1));
        let current = at.saturating_sub(1);
        if current > 0 && local_s - offset(current - 1) < self.changes[current].0 {
            return local_s - offset(current - 1);
        }
        let is_skipped = self.changes.get(at).is_some_and(|next| at > 0 && local_s - offset(current) >= next.0);
        local_s - offset(if is_skipped { at } else { current })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_changed_show_times_twice_or_never() {
        // UTC+1; from 1,000,000 on UTC+2; from 2,000,000 on UTC+1 again.
        let zone = Zone::new(vec![(0, 3600), (1_000_000, 7200), (2_000_000, 3600)]);
        assert_eq!(zone.to_utc(-10), -3610);
        assert_eq!(zone.to_utc(1_003_599), 999_999);
        assert_eq!(zone.to_utc(1_003_600), 996_400);
        assert_eq!(zone.to_utc(1_007_200), 1_000_000);
        assert_eq!(zone.to_utc(2_003_599), 1_996_399);
        assert_eq!(zone.to_utc(2_003_600), 1_996_400);
        assert_eq!(zone.to_utc(2_007_199), 1_999_999);
        assert_eq!(zone.to_utc(2_007_200), 2_003_600);
        assert_eq!(Zone::default().to_utc(5), 5);
    }
}
