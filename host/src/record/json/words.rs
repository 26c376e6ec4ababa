//! Tests of 8 bytes at once, in a register. Each gives the highest bit of each byte that it found; what stands above the
//! lowest of them may be wrong, because subtractions borrow upwards.

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

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
pub(super) fn before(found: u64) -> u32 {
    found.trailing_zeros() / 8
}

/// True where a byte of `seen` is not ASCII.
#[inline(always)]
pub(super) fn is_high(seen: u64) -> bool {
    seen & HIGH != 0
}

/// True where all of `bytes` are ASCII.
#[inline(always)]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk() else { return bytes.is_ascii() };
    let (words, _) = bytes.as_chunks::<8>();
    let seen = words.iter().fold(u64::from_le_bytes(*last), |seen, word| seen | u64::from_le_bytes(*word));
    !is_high(seen)
}

/// The number that the last `count` digits of `word` are, at most 8; the bytes before them do not count.
#[inline(always)]
pub(super) fn number(word: u64, count: u32) -> u64 {
    // Digits to bytes, zeros before them; then neighbours are joined, by twos, by fours and by eights.
    let digits = (word ^ all(b'0')).unbounded_shr(64 - 8 * count).unbounded_shl(64 - 8 * count);
    let digits = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let pairs = (digits & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let others = (digits >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    pairs.wrapping_add(others) >> 32
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
                    let first = |test: &dyn Fn(&u8) -> bool| bytes.iter().position(test).unwrap_or(8) as u32;
                    assert_eq!(before(string_stops(word)), first(&is_stop), "{bytes:?}");
                    assert_eq!(before(digit_stops(word)), first(&is_other), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn the_last_digits_are_a_number() {
        for value in [0, 1, 9, 10, 99, 12_345_678, 99_999_999, 90_000_001, 1_234_567] {
            let text = format!("{value:08}");
            for count in 0..=8_u32 {
                let mut bytes = *b"\xff\0:,x\"9-";
                let digits = &text.as_bytes()[8 - count as usize..];
                bytes[8 - count as usize..].copy_from_slice(digits);
                let expected = value % 10_u64.pow(count);
                assert_eq!(number(u64::from_le_bytes(bytes), count), expected, "{value} {count}");
            }
        }
    }
}
