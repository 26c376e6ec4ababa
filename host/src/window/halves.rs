//! Halves of pairs: the records of a key, as they lie in its state and as they are sent on, one after the other in the order
//! of time.

/// Bytes before a half's key and value: flags, time, where it was read, lengths.
const HEAD_BYTES: usize = 1 + 8 + 4 + 8 + 4 + 4;
const RIGHT: u8 = 1;
const MATCHED: u8 = 2;
const KEYED: u8 = 4;

/// A record that may be part of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half<'a> {
    /// True for the right side.
    pub right: bool,
    /// True once it was in a pair.
    pub matched: bool,
    /// When it happened, in microseconds since 1970 UTC.
    pub time_us: i64,
    /// Where it was read: the lane of its partition, and its offset.
    pub origin: (u32, i64),
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value.
    pub value: &'a [u8],
}

impl<'a> Half<'a> {
    /// Bytes that it takes in a state.
    pub(super) fn bytes(&self) -> usize {
        HEAD_BYTES + self.key.map_or(0, <[u8]>::len) + self.value.len()
    }

    /// What halves of a key are sorted by; no two are the same.
    fn order(&self) -> (i64, bool, (u32, i64)) {
        (self.time_us, self.right, self.origin)
    }

    /// True where it makes a pair with another half of its key.
    pub(super) fn meets(&self, other: &Half<'_>, within_us: i64) -> bool {
        self.right != other.right && (self.time_us - other.time_us).abs() <= within_us
    }

    /// Appends it.
    pub(super) fn push(&self, to: &mut Vec<u8>) {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        to.push(flag(self.right, RIGHT) | flag(self.matched, MATCHED) | flag(self.key.is_some(), KEYED));
        to.extend(self.time_us.to_le_bytes());
        to.extend(self.origin.0.to_le_bytes());
        to.extend(self.origin.1.to_le_bytes());
        let key = self.key.unwrap_or_default();
        to.extend((key.len() as u32).to_le_bytes());
        to.extend((self.value.len() as u32).to_le_bytes());
        to.extend_from_slice(key);
        to.extend_from_slice(self.value);
    }

    /// Reads the first of some bytes, and what follows it; `None` where there is none.
    pub(super) fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&flags, rest) = bytes.split_first()?;
        let (time_us, rest) = rest.split_first_chunk()?;
        let (lane, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (key_bytes, rest) = rest.split_first_chunk()?;
        let (value_bytes, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_bytes) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_bytes) as usize)?;
        let half = Self {
            right: flags & RIGHT != 0,
            matched: flags & MATCHED != 0,
            time_us: i64::from_le_bytes(*time_us),
            origin: (u32::from_le_bytes(*lane), i64::from_le_bytes(*offset)),
            key: (flags & KEYED != 0).then_some(key),
            value,
        };
        Some((half, rest))
    }
}

/// All halves of a state, in order.
pub(super) fn halves(state: &[u8]) -> impl Iterator<Item = Half<'_>> {
    let mut rest = state;
    std::iter::from_fn(move || {
        let (half, more) = Half::read(rest)?;
        rest = more;
        Some(half)
    })
}

/// Appends a state's halves with one more; whatever makes a pair with it is matched from now on, and so is it.
pub(super) fn push_with(state: &[u8], half: &Half<'_>, within_us: i64, to: &mut Vec<u8>) {
    let mut half = *half;
    half.matched |= halves(state).any(|other| half.meets(&other, within_us));
    let mut waiting = Some(half);
    for other in halves(state) {
        if let Some(half) = waiting.take_if(|half| half.order() < other.order()) {
            half.push(to);
        }
        Half { matched: other.matched || half.meets(&other, within_us), ..other }.push(to);
    }
    waiting.into_iter().for_each(|half| half.push(to));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(right: bool, time_us: i64, offset: i64) -> Half<'static> {
        Half { right, matched: false, time_us, origin: (7, offset), key: Some(b"k"), value: b"{}" }
    }

    #[test]
    fn a_half_can_be_read_back_and_no_part_of_it() {
        for key in [None, Some(&b""[..]), Some(b"key")] {
            let half = Half { key, matched: true, ..half(true, -5, i64::MAX) };
            let mut bytes = Vec::new();
            half.push(&mut bytes);
            assert_eq!(bytes.len(), half.bytes());
            assert_eq!(Half::read(&bytes), Some((half, &[][..])));
            (0..bytes.len()).for_each(|cut| assert_eq!(Half::read(&bytes[..cut]), None));
        }
    }

    #[test]
    fn halves_lie_in_the_order_of_time_however_they_came() {
        let times = [30, 10, 20, 10, 40];
        let (mut state, mut next) = (Vec::new(), Vec::new());
        for (offset, time_us) in times.into_iter().enumerate() {
            next.clear();
            push_with(&state, &half(time_us == 20, time_us, offset as i64), 10, &mut next);
            std::mem::swap(&mut state, &mut next);
        }
        let seen: Vec<_> = halves(&state).map(|half| (half.time_us, half.origin.1, half.matched)).collect();
        // 20 is the only one of the right side, and 40 lies too far away.
        assert_eq!(seen, [(10, 1, true), (10, 3, true), (20, 2, true), (30, 0, true), (40, 4, false)]);
    }
}
