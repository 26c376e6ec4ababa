//! Tests of 8 bytes at once, in a register. Each gives the highest bit of each byte that it found; what stands above the
//! lowest of them may be wrong, because subtractions borrow upwards.

const ONES: u64 = u64::from_le_bytes([1; 8]);
/// The highest bit of each byte: set where a byte is not ASCII.
pub(super) const HIGH: u64 = ONES << 7;

const fn all(byte: u8) -> u64 {
    ONES * byte as u64
}

/// Finds where a string may end or break: a quote, a backslash or a control character.
#[inline(always)]
pub(super) fn string_stops(word: u64) -> u64 {
    let control = word.wrapping_sub(all(b' '));
    let quote = (word ^ all(b'"')).wrapping_sub(ONES);
    let backslash = (word ^ all(b'\\')).wrapping_sub(ONES);
    (control | quote | backslash) & !word & HIGH
}

/// Finds what is no digit.
#[inline(always)]
pub(super) fn digit_stops(word: u64) -> u64 {
    let value = word ^ all(b'0');
    (value.wrapping_add(all(0x80 - 10)) | value) & HIGH
}

/// How many bytes stand below the lowest one that was found.
#[inline(always)]
pub(super) fn before(found: u64) -> usize {
    found.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stop_is_found_whatever_stands_around_it() {
        let is_stop = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        let is_other = |byte: &u8| !byte.is_ascii_digit();
        for around in [b"7a!0]9 x", b"01234567", b"\x80\xff\x7f!#[]\x20", b"\0\x01\"\\\x1f\"\\/", b"99999:/9"] {
            for byte in 0..=255_u8 {
                for place in 0..8 {
                    let mut bytes = *around;
                    bytes[place] = byte;
                    let word = u64::from_le_bytes(bytes);
                    let first = |test: &dyn Fn(&u8) -> bool| bytes.iter().position(test).unwrap_or(8);
                    assert_eq!(before(string_stops(word)), first(&is_stop), "{bytes:?}");
                    assert_eq!(before(digit_stops(word)), first(&is_other), "{bytes:?}");
                }
            }
        }
    }
}
