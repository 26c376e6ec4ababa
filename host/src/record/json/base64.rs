//! Base64 with the standard alphabet and padding (RFC 4648, section 4).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const NONE: u8 = 0xff;
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut i = 0;
    while i < 64 {
        values[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// Appends what `text` stands for; where it is no base64, with padding and without stray bits, false, and nothing is
/// appended.
pub(crate) fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    if !text.len().is_multiple_of(4) {
        return false;
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    let kept = out.len();
    out.reserve(text.len() / 4 * 3);
    let mut seen = 0;
    let mut stray = 0;
    for group in digits.chunks(4) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (i, &digit)| {
            let value = VALUES[usize::from(digit)];
            seen |= value;
            bits | u32::from(value & 0x3f) << (18 - 6 * i)
        });
        let bytes = bits.to_be_bytes();
        let whole = group.len() * 6 / 8;
        out.extend_from_slice(&bytes[1..=whole]);
        stray |= bytes[whole + 1..].iter().fold(0, |stray, byte| stray | byte);
    }
    if seen & 0x80 != 0 || stray != 0 {
        out.truncate(kept);
        return false;
    }
    true
}

/// Appends the base64 of `bytes`.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (i, &byte)| bits | u32::from(byte) << (16 - 8 * i));
        let mut text = [b'='; 4];
        for (i, letter) in text.iter_mut().enumerate().take(group.len() + 1) {
            *letter = ALPHABET[(bits >> (18 - 6 * i) & 0x3f) as usize];
        }
        out.extend_from_slice(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = b"kept".to_vec();
        let good = decode(text.as_bytes(), &mut out);
        assert!(good || out == b"kept", "{text}: something was left");
        good.then(|| out.split_off(4))
    }

    #[test]
    fn the_examples_of_rfc_4648_hold_both_ways() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            encode(bytes.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
            assert_eq!(decoded(text), Some(bytes.as_bytes().to_vec()));
        }
        let all: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        encode(&all, &mut text);
        assert_eq!(decoded(&String::from_utf8(text).expect("ASCII")), Some(all));
    }

    #[test]
    fn what_is_no_padded_base64_is_refused() {
        for text in ["Zg", "Zg=", "Zh==", "Zm9=", "Zg==Zg==", "Z===", "====", "=", "Zm-_", "Zm9v\n", "Zé==", "Zm 9"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
