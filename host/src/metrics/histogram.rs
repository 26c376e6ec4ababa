//! Histograms that belong to one thread.

/// Upper bounds of a histogram's buckets, in the unit in which it is recorded.
#[derive(Debug, PartialEq, Eq)]
pub struct Buckets {
    /// The bounds, rising; what is above the last one falls into a bucket of its own.
    pub bounds: &'static [u64],
    /// How many of the recorded units make one of the unit that is shown.
    pub per_unit: u64,
}

const MICROS_PER_SECOND: u64 = 1_000_000;
const MS: u64 = 1_000;
const S: u64 = 1_000_000;

/// From a record's timestamp to its commit: close enough to tell a p95 within a third anywhere from 1 ms to 60 s.
pub static LATENCY: Buckets = Buckets {
    bounds: &[
        MS,
        2 * MS,
        3 * MS,
        5 * MS,
        7 * MS,
        10 * MS,
        15 * MS,
        20 * MS,
        30 * MS,
        40 * MS,
        50 * MS,
        75 * MS,
        100 * MS,
        150 * MS,
        200 * MS,
        300 * MS,
        500 * MS,
        750 * MS,
        S,
        3 * S / 2,
        2 * S,
        3 * S,
        5 * S,
        15 * S / 2,
        10 * S,
        20 * S,
        30 * S,
        60 * S,
    ],
    per_unit: MICROS_PER_SECOND,
};

/// From a tenth of a millisecond to a minute.
const TIMES: &[u64] = &[
    MS / 10,
    MS / 4,
    MS / 2,
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    60 * S,
];

/// How long a stage takes for a batch, which may be a handful of records.
pub static STAGE_TIME: Buckets = Buckets { bounds: TIMES, per_unit: MICROS_PER_SECOND };

/// How long a step of a worker takes: from a millisecond.
pub static TIME: Buckets = Buckets { bounds: TIMES.split_at(3).1, per_unit: MICROS_PER_SECOND };

/// How old data are when they arrive, recorded in milliseconds.
pub static FRESHNESS: Buckets = Buckets {
    bounds: &[
        100,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        20_000,
        30_000,
        45_000,
        60_000,
        90_000,
        120_000,
        180_000,
        300_000,
        600_000,
        1_800_000,
        3_600_000,
        6 * 3_600_000,
        24 * 3_600_000,
    ],
    per_unit: 1_000,
};

/// Numbers of records.
pub static RECORDS: Buckets =
    Buckets { bounds: &[1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144], per_unit: 1 };

/// Most buckets that a histogram has, the last one included.
const BUCKETS_MAX: usize = 30;

/// How many values fell into each bucket. Recording is an addition to plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: &'static Buckets,
    counts: [u64; BUCKETS_MAX],
    sum: u64,
}

impl Histogram {
    /// An empty histogram.
    pub fn new(buckets: &'static Buckets) -> Self {
        debug_assert!(buckets.bounds.len() < BUCKETS_MAX, "room for all buckets and the last one");
        Self { buckets, counts: [0; BUCKETS_MAX], sum: 0 }
    }

    /// Records `value`, in the recorded unit, `times` over.
    pub fn record(&mut self, value: u64, times: u64) {
        let bucket = self.buckets.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket] += times;
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
    }

    /// Records how long something took.
    pub fn record_time(&mut self, time: std::time::Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), 1);
    }

    /// Adds what another of the same buckets recorded.
    pub fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.buckets, other.buckets, "histograms of the same buckets");
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, other)| *own += other);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// What was recorded since an earlier copy of this histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut change = *self;
        change.counts.iter_mut().zip(&earlier.counts).for_each(|(own, earlier)| *own = own.saturating_sub(*earlier));
        change.sum = self.sum.saturating_sub(earlier.sum);
        change
    }

    /// Number of recorded values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in the unit that is shown.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / self.buckets.per_unit as f64
    }

    /// Each bucket's upper bound in the unit that is shown, with the number of values up to it; the last bound is infinite.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let per_unit = self.buckets.per_unit as f64;
        let bounds = self.buckets.bounds.iter().map(move |&bound| bound as f64 / per_unit).chain([f64::INFINITY]);
        bounds.zip(&self.counts).scan(0, |total, (bound, count)| {
            *total += count;
            Some((bound, *total))
        })
    }

    /// The value that a share of all values, from 0 to 1, does not exceed, by the straight line through its bucket as
    /// Prometheus draws it; none where nothing was recorded.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count() as f64;
        let mut below = (0.0, 0);
        for (bound, upto) in self.cumulative() {
            if upto > 0 && upto as f64 >= rank {
                let part = (rank - below.1 as f64) / (upto - below.1).max(1) as f64;
                return Some(if bound.is_finite() { below.0 + (bound - below.0) * part } else { below.0 });
            }
            below = (bound, upto);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_first_bucket_that_holds_them() {
        let mut histogram = Histogram::new(&RECORDS);
        histogram.record(0, 1);
        histogram.record(1, 1);
        histogram.record(2, 3);
        histogram.record(1 << 40, 1);
        let found: Vec<(f64, u64)> = histogram.cumulative().collect();
        assert_eq!(found[..3], [(1.0, 2), (4.0, 5), (16.0, 5)]);
        assert_eq!(found.last(), Some(&(f64::INFINITY, 6)));
        assert_eq!((histogram.count(), histogram.sum()), (6, (7 + (1_u64 << 40)) as f64));
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let mut histogram = Histogram::new(&LATENCY);
        assert_eq!(histogram.quantile(0.95), None);
        histogram.record(4_000, 95);
        histogram.record(120_000, 5);
        let p95 = histogram.quantile(0.95).expect("values");
        assert!((0.003..=0.005).contains(&p95), "{p95}");
        let p99 = histogram.quantile(0.99).expect("values");
        assert!((0.1..=0.15).contains(&p99), "{p99}");
        let before = histogram;
        histogram.record(50, 2);
        assert_eq!(histogram.since(&before).count(), 2);
    }

    #[test]
    fn buckets_rise_and_reach_from_a_millisecond_to_a_minute() {
        for buckets in [&LATENCY, &TIME, &STAGE_TIME, &FRESHNESS, &RECORDS] {
            assert!(buckets.bounds.is_sorted() && buckets.bounds.len() < BUCKETS_MAX, "{buckets:?}");
        }
        for buckets in [&LATENCY, &TIME, &STAGE_TIME] {
            assert!(buckets.bounds.contains(&MS) && buckets.bounds.last() == Some(&(60 * S)), "{buckets:?}");
        }
    }
}
