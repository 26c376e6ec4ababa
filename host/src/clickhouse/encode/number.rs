//! Numbers of any width, exactly: integers to 256 bits and decimals, from a JSON number's text.

use super::Reason;

/// Little-endian words of a number's magnitude.
type Wide = [u64; 4];

/// A number as text: its digits without leading and trailing zeros, and the power of ten that they count.
struct Parsed<'a> {
    negative: bool,
    /// Digits with at most one point among them.
    digits: &'a [u8],
    /// How many digits there are.
    count: i64,
    /// The number is the digits, read as an integer, times ten to this.
    exponent: i64,
}

/// Larger exponents than any that matters.
const EXPONENT_MAX: i64 = 100_000;

/// Appends `text`, a JSON number, as a signed or unsigned integer of `bytes` bytes.
pub(super) fn integer(text: &[u8], bytes: usize, signed: bool, out: &mut Vec<u8>) -> Result<(), Reason> {
    let number = parse(text);
    let magnitude = scaled(&number, 0)?;
    let negative = number.negative && magnitude != [0; 4];
    let bits = bytes * 8;
    // Below zero there is one more than above.
    let fits = match (signed, negative) {
        (false, true) => false,
        (false, false) => bit_length(&magnitude) <= bits,
        (true, _) => bit_length(&magnitude) < bits || negative && is_power_of_two(&magnitude, bits - 1),
    };
    if !fits {
        return Err(Reason::Range);
    }
    put(magnitude, negative, bytes, out);
    Ok(())
}

/// Appends `text`, a JSON number, as a decimal.
pub(super) fn decimal(text: &[u8], precision: u8, scale: u8, bytes: u8, out: &mut Vec<u8>) -> Result<(), Reason> {
    let number = parse(text);
    if number.count + number.exponent + i64::from(scale) > i64::from(precision) && number.count > 0 {
        return Err(Reason::Range);
    }
    let magnitude = scaled(&number, scale)?;
    put(magnitude, number.negative, usize::from(bytes), out);
    Ok(())
}

/// `text`, a JSON number, times ten to `scale`, if that is an integer of 128 bits.
pub(super) fn scaled_i128(text: &[u8], scale: u8) -> Result<i128, Reason> {
    let number = parse(text);
    let [low, high, 0, 0] = scaled(&number, scale)? else { return Err(Reason::Range) };
    let magnitude = u128::from(high) << 64 | u128::from(low);
    let value = i128::try_from(magnitude).map_err(|_| Reason::Range)?;
    Ok(if number.negative { -value } else { value })
}

fn parse(text: &[u8]) -> Parsed<'_> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let end = rest.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(rest.len());
    let (mut digits, exponent) = (&rest[..end], rest.get(end + 1..).map_or(0, exponent));
    // A point counts no digit; what stands behind it lowers the exponent.
    let after_point = digits.iter().position(|byte| *byte == b'.').map_or(0, |point| digits.len() - point - 1);
    let mut exponent = exponent - after_point as i64;
    while let [first @ (b'0' | b'.'), rest @ ..] = digits {
        let _ = first;
        digits = rest;
    }
    while let [rest @ .., last @ (b'0' | b'.')] = digits {
        exponent += i64::from(*last == b'0');
        digits = rest;
    }
    let count = digits.iter().filter(|byte| **byte != b'.').count() as i64;
    Parsed { negative, digits, count, exponent }
}

fn exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let value = digits.iter().fold(0, |value: i64, digit| (value * 10 + i64::from(digit - b'0')).min(EXPONENT_MAX));
    if negative { -value } else { value }
}

/// The number's magnitude times ten to `scale`.
fn scaled(number: &Parsed<'_>, scale: u8) -> Result<Wide, Reason> {
    let mut value = [0; 4];
    if number.count == 0 {
        return Ok(value);
    }
    let zeros = number.exponent + i64::from(scale);
    if zeros < 0 {
        return Err(Reason::Fraction);
    }
    // 2^256 has 78 digits.
    if number.count + zeros > 78 {
        return Err(Reason::Range);
    }
    let digits = number.digits.iter().filter(|byte| **byte != b'.').map(|byte| u64::from(byte - b'0'));
    let (mut pending, mut factor) = (0, 1);
    for digit in digits.chain(std::iter::repeat_n(0, zeros as usize)) {
        pending = pending * 10 + digit;
        factor *= 10;
        // As many digits as a word holds are added at once.
        if factor == 10_u64.pow(19) {
            multiply_add(&mut value, factor, pending)?;
            (pending, factor) = (0, 1);
        }
    }
    multiply_add(&mut value, factor, pending)?;
    Ok(value)
}

fn multiply_add(value: &mut Wide, factor: u64, addend: u64) -> Result<(), Reason> {
    let mut carry = u128::from(addend);
    for word in value {
        let sum = u128::from(*word) * u128::from(factor) + carry;
        *word = sum as u64;
        carry = sum >> 64;
    }
    if carry == 0 { Ok(()) } else { Err(Reason::Range) }
}

fn bit_length(value: &Wide) -> usize {
    let top = value.iter().rposition(|word| *word != 0);
    top.map_or(0, |at| at * 64 + 64 - value[at].leading_zeros() as usize)
}

fn is_power_of_two(value: &Wide, power: usize) -> bool {
    bit_length(value) == power + 1 && value.iter().map(|word| word.count_ones()).sum::<u32>() == 1
}

/// Appends the lowest bytes of the number in two's complement.
fn put(mut magnitude: Wide, negative: bool, bytes: usize, out: &mut Vec<u8>) {
    if negative {
        let mut carry = true;
        for word in &mut magnitude {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
    }
    let mut all = [0; 32];
    for (to, word) in all.chunks_exact_mut(8).zip(magnitude) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&all[..bytes]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(text: &str, bytes: usize, signed: bool) -> Result<Vec<u8>, Reason> {
        let mut out = Vec::new();
        integer(text.as_bytes(), bytes, signed, &mut out).map(|()| out)
    }

    #[test]
    fn integers_have_their_whole_range_and_no_more() {
        assert_eq!(int("127", 1, true), Ok(vec![127]));
        assert_eq!(int("-128", 1, true), Ok(vec![0x80]));
        assert_eq!(int("128", 1, true), Err(Reason::Range));
        assert_eq!(int("-129", 1, true), Err(Reason::Range));
        assert_eq!(int("255", 1, false), Ok(vec![255]));
        assert_eq!(int("256", 1, false), Err(Reason::Range));
        assert_eq!(int("-1", 1, false), Err(Reason::Range));
        assert_eq!(int("-0", 1, false), Ok(vec![0]));
        let power = "57896044618658097711785492504343953926634992332820282019728792003956564819968";
        assert_eq!(int(power, 32, true), Err(Reason::Range));
        let mut lowest = vec![0; 32];
        lowest[31] = 0x80;
        assert_eq!(int(&format!("-{power}"), 32, true), Ok(lowest));
        let highest = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        assert_eq!(int(highest, 32, false), Ok(vec![0xff; 32]));
        assert_eq!(int(&highest.replace("935", "936"), 32, false), Err(Reason::Range));
        assert_eq!(int("170141183460469231731687303715884105727", 16, true).map(|b| b[15]), Ok(0x7f));
    }

    #[test]
    fn an_integer_in_another_form_is_one_if_nothing_is_lost() {
        for text in ["120", "120.0", "1.2e2", "12E1", "1200e-1", "0.12e3"] {
            assert_eq!(int(text, 1, true), Ok(vec![120]), "{text}");
        }
        for text in ["0.5", "1.5", "12e-1", "1e-400"] {
            assert_eq!(int(text, 1, true), Err(Reason::Fraction), "{text}");
        }
        assert_eq!(int("1e999999999999", 32, true), Err(Reason::Range));
        assert_eq!(int("0e999999999999", 32, true), Ok(vec![0; 32]));
    }

    #[test]
    fn decimals_lose_no_digit() {
        let read = |text: &str| {
            let mut out = Vec::new();
            decimal(text.as_bytes(), 9, 2, 4, &mut out)?;
            Ok(i32::from_le_bytes([out[0], out[1], out[2], out[3]]))
        };
        assert_eq!(read("12.34"), Ok(1234));
        assert_eq!(read("-12.3"), Ok(-1230));
        assert_eq!(read("0.010"), Ok(1));
        assert_eq!(read("9999999.99"), Ok(999_999_999));
        assert_eq!(read("10000000"), Err(Reason::Range));
        assert_eq!(read("0.001"), Err(Reason::Fraction));
        assert_eq!(read("1e-3"), Err(Reason::Fraction));
        assert_eq!(read("0.00"), Ok(0));
        assert_eq!(read("0e99999"), Ok(0));
    }

    #[test]
    fn scaled_numbers_are_exact() {
        assert_eq!(scaled_i128(b"1700000000.123456789", 9), Ok(1_700_000_000_123_456_789));
        assert_eq!(scaled_i128(b"-1.5", 1), Ok(-15));
        assert_eq!(scaled_i128(b"1.55", 1), Err(Reason::Fraction));
    }
}
