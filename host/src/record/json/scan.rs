//! Lexing: from a position to the end of a token, 8 bytes at a time, checking everything that JSON demands.
//!
//! Reading beyond the end gives zeros, which no token takes, so that the loops need no other test for the end.

use super::error::{Fault, JsonError};
use super::{MAX_DEPTH, words};

/// What a value is, as far as its text shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing stands there.
    #[default]
    Missing,
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    /// A number without fraction and exponent.
    Integer,
    /// Another number.
    Number,
    /// A string without a backslash.
    Text,
    /// A string with at least one backslash.
    EscapedText,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A text that is scanned; small, so that it stays in registers.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'a> {
    pub(super) bytes: &'a [u8],
}

type Scanned<T> = Result<T, JsonError>;

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The byte at `pos`, zero beyond the end.
    #[inline(always)]
    pub(super) fn byte(self, pos: u32) -> u8 {
        self.bytes.get(pos as usize).copied().unwrap_or(0)
    }

    /// 16 bytes from `pos` on, the first one lowest, zeros beyond the end.
    #[inline(always)]
    pub(super) fn block(self, pos: u32) -> u128 {
        let pos = pos as usize;
        match self.bytes.get(pos..pos + 16).and_then(|rest| rest.first_chunk()) {
            Some(block) => u128::from_le_bytes(*block),
            None => self.last_block(pos),
        }
    }

    /// 8 bytes from `pos` on, the first one lowest, zeros beyond the end.
    #[inline(always)]
    fn word(self, pos: u32) -> u64 {
        let pos = pos as usize;
        match self.bytes.get(pos..pos + 8).and_then(|rest| rest.first_chunk()) {
            Some(word) => u64::from_le_bytes(*word),
            None => self.last_block(pos) as u64,
        }
    }

    #[inline(never)]
    fn last_block(self, pos: usize) -> u128 {
        if let Some(last) = self.bytes.last_chunk() {
            let beyond = (pos + 16).saturating_sub(self.bytes.len());
            return u128::from_le_bytes(*last).checked_shr(8 * beyond as u32).unwrap_or(0);
        }
        let rest = self.bytes.get(pos..).unwrap_or_default();
        rest.iter().rev().fold(0, |block, byte| block << 8 | u128::from(*byte))
    }

    /// The first position from `pos` on that is no white space.
    #[inline(always)]
    pub(super) fn skip_space(self, pos: u32) -> u32 {
        if self.byte(pos) > b' ' {
            return pos;
        }
        if self.byte(pos) == b' ' && self.byte(pos + 1) > b' ' {
            return pos + 1;
        }
        self.skip_more_space(pos)
    }

    #[inline(never)]
    fn skip_more_space(self, mut pos: u32) -> u32 {
        while is_space(self.byte(pos)) {
            pos += 1;
        }
        pos
    }

    /// The error that `fault` at `pos` is; at the end of the text, that it ends too early.
    #[cold]
    pub(super) fn fail<T>(self, fault: Fault, pos: u32) -> Scanned<T> {
        let fault = if pos as usize >= self.bytes.len() { Fault::UnexpectedEnd } else { fault };
        Err(JsonError { fault, at: pos })
    }

    /// Scans a string whose opening quote is right before `pos`; gives the position after the closing one, and whether
    /// there is an escape.
    #[inline(always)]
    pub(super) fn string(self, mut pos: u32) -> Scanned<(u32, bool)> {
        let mut escaped = false;
        loop {
            let block = self.block(pos);
            let near = words::string_stops(block as u64);
            let far = words::string_stops((block >> 64) as u64);
            if near | far == 0 {
                pos += 16;
                continue;
            }
            let offset = if near != 0 { words::before(near) } else { 8 + words::before(far) };
            pos += offset;
            match (block >> (8 * offset)) as u8 {
                b'"' => return Ok((pos + 1, escaped)),
                b'\\' => {
                    escaped = true;
                    pos = self.escape(pos)?;
                }
                _ => return self.fail(Fault::ControlCharacter, pos),
            }
        }
    }

    /// Scans the escape whose backslash stands at `pos`.
    #[inline(never)]
    fn escape(self, pos: u32) -> Scanned<u32> {
        match self.byte(pos + 1) {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(pos + 2),
            b'u' => match self.hex4(pos + 2)? {
                0xd800..=0xdbff => {
                    if self.byte(pos + 6) != b'\\' || self.byte(pos + 7) != b'u' {
                        return self.fail(Fault::LoneSurrogate, pos + 6);
                    }
                    match self.hex4(pos + 8)? {
                        0xdc00..=0xdfff => Ok(pos + 12),
                        _ => self.fail(Fault::LoneSurrogate, pos + 6),
                    }
                }
                0xdc00..=0xdfff => self.fail(Fault::LoneSurrogate, pos),
                _ => Ok(pos + 6),
            },
            _ => self.fail(Fault::Escape, pos + 1),
        }
    }

    fn hex4(self, pos: u32) -> Scanned<u32> {
        (pos..pos + 4).try_fold(0, |value, at| match char::from(self.byte(at)).to_digit(16) {
            Some(digit) => Ok(value << 4 | digit),
            None => self.fail(Fault::Escape, at),
        })
    }

    /// The end of the digits that begin at `pos`.
    #[inline(always)]
    fn digits(self, mut pos: u32) -> u32 {
        loop {
            let stops = words::digit_stops(self.word(pos));
            if stops != 0 {
                return pos + words::before(stops);
            }
            pos += 8;
        }
    }

    /// Scans the number that begins at `start` with `lead`.
    #[inline(always)]
    fn number(self, start: u32, lead: u8) -> Scanned<(Kind, u32)> {
        let first = start + u32::from(lead == b'-');
        let end = self.digits(first);
        let count = end - first;
        if count == 0 || (count > 1 && self.byte(first) == b'0') {
            return self.fail(Fault::Number, end.min(first + 1));
        }
        match self.byte(end) {
            b'.' | b'e' | b'E' => self.long_number(start, first, end),
            _ if count > 300 => self.long_number(start, first, end),
            _ => Ok((Kind::Integer, end)),
        }
    }

    /// Scans what follows the integer digits `first..end`, and sees that the number is not beyond a double.
    fn long_number(self, start: u32, first: u32, end: u32) -> Scanned<(Kind, u32)> {
        let integer_digits = (end - first) as usize;
        let mut pos = end;
        if self.byte(pos) == b'.' {
            pos = self.digits(end + 1);
            if pos == end + 1 {
                return self.fail(Fault::Number, pos);
            }
        }
        let mut small = integer_digits <= 300;
        if matches!(self.byte(pos), b'e' | b'E') {
            let sign = self.byte(pos + 1);
            let digits = pos + 1 + u32::from(matches!(sign, b'+' | b'-'));
            pos = self.digits(digits);
            if pos == digits {
                return self.fail(Fault::Number, pos);
            }
            // Below 1e300 whatever the digits are; what may be beyond is decided by the parser that we promise to agree
            // with to the last bit.
            let exponent = &self.bytes[digits as usize..pos as usize];
            let exponent = exponent.iter().fold(0_usize, |all, digit| (all * 10 + usize::from(digit - b'0')).min(1000));
            small &= sign == b'-' || integer_digits + exponent <= 300;
        }
        if !small && serde_json::from_slice::<f64>(&self.bytes[start as usize..pos as usize]).is_err() {
            return self.fail(Fault::NumberRange, start);
        }
        Ok((if pos == end { Kind::Integer } else { Kind::Number }, pos))
    }

    /// Scans the value that begins at `pos` with the byte `lead` if it is no array and no object; for those gives the
    /// position after the bracket.
    #[inline(always)]
    pub(super) fn scalar(self, pos: u32, lead: u8) -> Scanned<(Kind, u32)> {
        match lead {
            b'"' => {
                let (end, escaped) = self.string(pos + 1)?;
                Ok((if escaped { Kind::EscapedText } else { Kind::Text }, end))
            }
            b'-' | b'0'..=b'9' => self.number(pos, lead),
            b'{' => Ok((Kind::Object, pos + 1)),
            b'[' => Ok((Kind::Array, pos + 1)),
            b't' => self.literal(pos, b"true", Kind::True),
            b'f' => self.literal(pos, b"false", Kind::False),
            b'n' => self.literal(pos, b"null", Kind::Null),
            _ => self.fail(Fault::Value, pos),
        }
    }

    #[inline(always)]
    fn literal(self, pos: u32, text: &[u8], kind: Kind) -> Scanned<(Kind, u32)> {
        match self.bytes.get(pos as usize..pos as usize + text.len()) {
            Some(found) if found == text => Ok((kind, pos + text.len() as u32)),
            _ => self.bad_literal(pos, text),
        }
    }

    #[cold]
    fn bad_literal<T>(self, pos: u32, text: &[u8]) -> Scanned<T> {
        let good = (pos..).zip(text).take_while(|(at, byte)| self.byte(*at) == **byte).count();
        self.fail(Fault::Value, pos + good as u32)
    }

    /// Scans the value that begins at `pos`, within `depth` arrays and objects, down to its last leaf.
    #[inline(always)]
    pub(super) fn value(self, pos: u32, depth: usize) -> Scanned<u32> {
        match self.byte(pos) {
            b'{' | b'[' => self.nested(pos, depth),
            lead => Ok(self.scalar(pos, lead)?.1),
        }
    }

    /// Scans an array or object; which of the two each level is stands in a bit, so that nothing is allocated or called
    /// again.
    #[inline(never)]
    fn nested(self, mut pos: u32, depth: usize) -> Scanned<u32> {
        let mut objects = 0_u128;
        let mut level = depth;
        loop {
            // A value begins at `pos`.
            let (kind, end) = self.scalar(pos, self.byte(pos))?;
            let mut after = end;
            if matches!(kind, Kind::Array | Kind::Object) {
                level += 1;
                if level > MAX_DEPTH {
                    return self.fail(Fault::Depth, pos);
                }
                objects = objects << 1 | u128::from(kind == Kind::Object);
                pos = self.skip_space(end);
                match (kind, self.byte(pos)) {
                    (Kind::Object, b'}') | (Kind::Array, b']') => {}
                    (Kind::Object, _) => {
                        pos = self.key(pos)?;
                        continue;
                    }
                    _ => continue,
                }
                after = pos;
            }
            // A value, or an opening bracket, ends at `after`: close what closes here.
            loop {
                after = self.skip_space(after);
                match (self.byte(after), objects & 1) {
                    (b',', in_object) => {
                        pos = self.skip_space(after + 1);
                        if in_object == 1 {
                            pos = self.key(pos)?;
                        }
                        break;
                    }
                    (b'}', 1) | (b']', 0) => {
                        after += 1;
                        level -= 1;
                        objects >>= 1;
                        if level == depth {
                            return Ok(after);
                        }
                    }
                    _ => return self.fail(Fault::Separator, after),
                }
            }
        }
    }

    /// Scans a key with its colon and white space; gives where the value begins.
    #[inline(always)]
    fn key(self, pos: u32) -> Scanned<u32> {
        if self.byte(pos) != b'"' {
            return self.fail(Fault::Key, pos);
        }
        let (end, _) = self.string(pos + 1)?;
        self.colon(end)
    }

    /// Scans the colon after a key and the white space around it.
    #[inline(always)]
    pub(super) fn colon(self, pos: u32) -> Scanned<u32> {
        let pos = self.skip_space(pos);
        if self.byte(pos) != b':' {
            return self.fail(Fault::Colon, pos);
        }
        Ok(self.skip_space(pos + 1))
    }

    /// Sees that nothing but white space follows `pos`.
    #[inline(always)]
    pub(super) fn finish(self, pos: u32) -> Scanned<()> {
        if pos as usize == self.bytes.len() {
            return Ok(());
        }
        match self.skip_space(pos) {
            end if end as usize == self.bytes.len() => Ok(()),
            end => self.fail(Fault::Trailing, end),
        }
    }

    /// Sees that all is UTF-8.
    #[inline(always)]
    pub(super) fn check_utf8(self) -> Scanned<()> {
        if words::is_ascii(self.bytes) {
            return Ok(());
        }
        match std::str::from_utf8(self.bytes) {
            Ok(_) => Ok(()),
            Err(error) => Err(JsonError { fault: Fault::Utf8, at: error.valid_up_to() as u32 }),
        }
    }
}

/// White space as JSON has it.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Sees that `text` is one valid value that may stand within `depth` arrays and objects.
pub(super) fn validate(text: &[u8], depth: usize) -> Result<(), JsonError> {
    let scanner = Scanner::new(text);
    scanner.check_utf8()?;
    let end = scanner.value(scanner.skip_space(0), depth)?;
    scanner.finish(end)
}

/// Sees that `text` is a number literal and nothing else; of any size, as decimals are.
pub(super) fn is_number(text: &[u8]) -> bool {
    let scanner = Scanner::new(text);
    let digits_at = u32::from(scanner.byte(0) == b'-');
    let mut end = scanner.digits(digits_at);
    let mut good = end > digits_at && (end == digits_at + 1 || scanner.byte(digits_at) != b'0');
    if scanner.byte(end) == b'.' {
        let fraction = end + 1;
        end = scanner.digits(fraction);
        good &= end > fraction;
    }
    if matches!(scanner.byte(end), b'e' | b'E') {
        let exponent = end + 1 + u32::from(matches!(scanner.byte(end + 1), b'+' | b'-'));
        end = scanner.digits(exponent);
        good &= end > exponent;
    }
    good && end as usize == text.len()
}

/// Appends what the valid string body `raw` (without quotes) stands for.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let scanner = Scanner::new(raw);
    let mut rest = 0;
    while let Some(run) = memchr::memchr(b'\\', &raw[rest..]) {
        let at = rest + run;
        out.extend_from_slice(&raw[rest..at]);
        rest = at + 2;
        let plain = match scanner.byte(at as u32 + 1) {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = scanner.hex4(at as u32 + 2).unwrap_or_default();
                rest = at + 6;
                if (0xd800..0xdc00).contains(&code) {
                    let low = scanner.hex4(at as u32 + 8).unwrap_or_default();
                    code = 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff);
                    rest = at + 12;
                }
                let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            quoted => quoted,
        };
        out.push(plain);
    }
    out.extend_from_slice(&raw[rest..]);
}
