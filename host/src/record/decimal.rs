//! A number's digits, without a heap allocation each.

/// The digits of a number, at the end of `into`; twenty bytes hold every one.
pub(crate) fn decimal(number: i64, into: &mut [u8; 20]) -> &[u8] {
    let (mut rest, mut at) = (number.unsigned_abs(), into.len());
    loop {
        at -= 1;
        into[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        into[at] = b'-';
    }
    &into[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_sign_is_written() {
        let tens = (0..19).map(|power| 10_i64.pow(power));
        let around = tens.flat_map(|ten| [ten - 1, ten, -ten, 1 - ten]);
        for number in around.chain([i64::MIN, i64::MAX]) {
            // What was there before shows nowhere.
            assert_eq!(decimal(number, &mut [b'x'; 20]), number.to_string().as_bytes());
        }
    }
}
