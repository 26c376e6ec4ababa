//! One bit a row, as Arrow has it.

/// A bitmap with the least significant bit first; bits beyond `len` are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    len: usize,
}

impl Bitmap {
    /// Makes a bitmap from packed bytes, or `None` where `bytes` is not exactly as long as `len` bits need.
    pub fn from_bytes(bytes: Vec<u8>, len: usize) -> Option<Self> {
        (bytes.len() == len.div_ceil(8)).then_some(Self { bytes, len })
    }

    /// Appends one bit.
    #[inline]
    pub fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if bit {
            let last = self.bytes.len() - 1;
            self.bytes[last] |= 1 << (self.len % 8);
        }
        self.len += 1;
    }

    /// The bit of `row`; panics where `row` is out of range.
    #[inline]
    pub fn get(&self, row: usize) -> bool {
        assert!(row < self.len, "bit {row} of {}", self.len);
        self.bytes[row / 8] & (1 << (row % 8)) != 0
    }

    /// Number of bits.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no bit at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of bits that are set.
    pub fn count_ones(&self) -> usize {
        self.bytes.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Removes all bits and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_in_order() {
        let pattern: Vec<bool> = (0..21).map(|i| i % 3 == 0).collect();
        let mut bitmap = Bitmap::default();
        pattern.iter().for_each(|&bit| bitmap.push(bit));
        assert_eq!((0..21).map(|i| bitmap.get(i)).collect::<Vec<_>>(), pattern);
        assert_eq!(bitmap.count_ones(), 7);
        assert_eq!(Bitmap::from_bytes(bitmap.as_bytes().to_vec(), 21), Some(bitmap.clone()));
        assert_eq!(Bitmap::from_bytes(bitmap.as_bytes().to_vec(), 25), None);
    }
}
