//! Numbers and ids that follow from a seed, the same on every machine.

/// Shares are told in parts of a million.
const MILLION: u64 = 1_000_000;

/// A UUID (RFC 9562).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uuid {
    high: u64,
    low: u64,
}

impl Uuid {
    /// A random one, version 4.
    pub(super) fn v4(high: u64, low: u64) -> Self {
        Self { high: (high & !0xf000) | 0x4000, low: (low >> 2) | (1 << 63) }
    }

    /// One that begins with its time, in milliseconds since 1970 UTC: version 7.
    pub(super) fn v7(time_ms: i64, high: u64, low: u64) -> Self {
        let time = (time_ms as u64) << 16;
        Self { high: time | 0x7000 | (high & 0xfff), low: (low >> 2) | (1 << 63) }
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { high, low } = self;
        let (first, second, third) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
        write!(f, "{first:08x}-{second:04x}-{third:04x}-{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff)
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): eight bytes of state
/// that any number can start, which is what a record at any offset needs.
pub(super) struct Random {
    state: u64,
}

impl Random {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The numbers of record `i`. Both parts are mixed, so that the streams of neighbours have nothing in common.
    pub(super) fn of_record(seed: u64, i: u64) -> Self {
        Self { state: mix(mix(seed.wrapping_add(Self::GAMMA)) ^ mix(i.wrapping_add(Self::GAMMA)).rotate_left(32)) }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::GAMMA);
        mix(self.state)
    }

    /// A number below `bound`. The bias of multiplying and shifting is below `bound` in 2^64.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True in `per_million` of a million cases.
    pub(super) fn happens(&mut self, per_million: u32) -> bool {
        self.below(MILLION) < u64::from(per_million)
    }

    /// One of `all`, each as often as the others.
    pub(super) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// The output function of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_is_the_published_one() {
        let mut random = Random { state: 1_234_567 };
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn ids_say_their_version_and_sort_by_their_time() {
        assert_eq!(Uuid::v4(0, 0).to_string(), "00000000-0000-4000-8000-000000000000");
        // The example of RFC 9562, appendix A.6.
        let known = Uuid::v7(0x017f_22e2_79b0, 0xcc3, 0x18c4_dc0c_0c07_398f << 2);
        assert_eq!(known.to_string(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert!(Uuid::v7(1, u64::MAX, u64::MAX).to_string() < Uuid::v7(2, 0, 0).to_string());
    }
}
