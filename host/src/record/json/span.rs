//! A value where it stands in its text, for those who read more than cells: nothing is copied or turned into a tree.

use super::cells;
use super::error::JsonError;
use super::scan::{Kind, Scanner, is_number, unescape};

/// Where a value stands in a valid text, and what it is. All methods want that text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: u32,
    /// The byte after its last.
    pub end: u32,
}

impl Span {
    /// The value that the whole of `text` is, once it has been checked.
    pub fn of(text: &[u8]) -> Result<Self, JsonError> {
        super::scan::validate(text, 0)?;
        let scanner = Scanner::new(text);
        let start = scanner.skip_space(0);
        let kind = scanner.scalar(start, scanner.byte(start))?.0;
        Ok(Self { kind, start, end: scanner.value(start, 0)? })
    }

    /// The value's bytes.
    #[inline]
    pub fn bytes(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// What a string holds; `scratch` serves where it has escapes. `None` for what is no string.
    #[inline]
    pub fn string<'a>(self, text: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let body = || text.get(self.start as usize + 1..self.end as usize - 1).unwrap_or_default();
        match self.kind {
            Kind::Text => Some(body()),
            Kind::EscapedText => {
                scratch.clear();
                unescape(body(), scratch);
                Some(scratch)
            }
            _ => None,
        }
    }

    /// The value of an integer literal; `None` for what is none, or is out of range.
    #[inline]
    pub fn int64(self, text: &[u8]) -> Option<i64> {
        if self.kind == Kind::Integer { cells::int64(text, self.start, self.end) } else { None }
    }

    /// The double that is nearest to a number; `None` for what is no number.
    #[inline]
    pub fn float64(self, text: &[u8]) -> Option<f64> {
        if self.is_number() { cells::float64(self.bytes(text)) } else { None }
    }

    /// True for a number of any form.
    pub fn is_number(self) -> bool {
        matches!(self.kind, Kind::Integer | Kind::Number)
    }

    /// True for a string.
    pub fn is_string(self) -> bool {
        matches!(self.kind, Kind::Text | Kind::EscapedText)
    }

    /// True for null.
    pub fn is_null(self) -> bool {
        self.kind == Kind::Null
    }

    /// The elements of an array; none of anything else.
    pub fn items(self, text: &[u8]) -> Items<'_> {
        Items(Steps::new(self, text, Kind::Array))
    }

    /// The keys and values of an object; none of anything else.
    pub fn members(self, text: &[u8]) -> Members<'_> {
        Members(Steps::new(self, text, Kind::Object))
    }
}

/// True where `text` is a number as JSON writes it, of any size, and nothing else.
pub fn is_json_number(text: &[u8]) -> bool {
    is_number(text)
}

/// The values of an array, in order.
#[derive(Clone, Debug)]
pub struct Items<'a>(Steps<'a>);

/// The keys (which are strings) and values of an object, in order, duplicates included.
#[derive(Clone, Debug)]
pub struct Members<'a>(Steps<'a>);

impl Iterator for Items<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        self.0.value()
    }
}

impl Iterator for Members<'_> {
    type Item = (Span, Span);

    fn next(&mut self) -> Option<(Span, Span)> {
        self.0.skip_separator()?;
        let key = self.0.scan()?;
        self.0.at = self.0.scanner().colon(self.0.at).ok()?;
        Some((key, self.0.scan()?))
    }
}

/// A way through the values of an array or object.
#[derive(Clone, Debug)]
struct Steps<'a> {
    text: &'a [u8],
    at: u32,
    /// Where the closing bracket stands.
    end: u32,
}

impl<'a> Steps<'a> {
    fn new(span: Span, text: &'a [u8], kind: Kind) -> Self {
        let end = span.end.saturating_sub(1);
        let at = if span.kind == kind { Scanner::new(text).skip_space(span.start + 1) } else { end };
        Self { text, at, end }
    }

    fn scanner(&self) -> Scanner<'a> {
        Scanner::new(self.text)
    }

    fn value(&mut self) -> Option<Span> {
        self.skip_separator()?;
        self.scan()
    }

    fn skip_separator(&mut self) -> Option<()> {
        let scanner = self.scanner();
        self.at = scanner.skip_space(self.at);
        if self.at < self.end && scanner.byte(self.at) == b',' {
            self.at = scanner.skip_space(self.at + 1);
        }
        (self.at < self.end).then_some(())
    }

    /// Scans the value here; the text is valid, so that only a foreign text gives `None`.
    fn scan(&mut self) -> Option<Span> {
        let scanner = self.scanner();
        let start = self.at;
        let (kind, end) = scanner.scalar(start, scanner.byte(start)).ok()?;
        let end = match kind {
            Kind::Array | Kind::Object => scanner.value(start, 0).ok()?,
            _ => end,
        };
        self.at = end;
        Some(Span { kind, start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, spans: impl Iterator<Item = Span>) -> Vec<&str> {
        spans.map(|span| std::str::from_utf8(span.bytes(text.as_bytes())).expect("UTF-8")).collect()
    }

    #[test]
    fn arrays_and_objects_are_walked_in_order() {
        let text = r#" [ 1 , "a,]" ,{"b":[]}, [ ], null ] "#;
        let span = Span::of(text.as_bytes()).expect("valid");
        assert_eq!(texts(text, span.items(text.as_bytes())), ["1", "\"a,]\"", "{\"b\":[]}", "[ ]", "null"]);
        assert_eq!(span.members(text.as_bytes()).count(), 0);

        let text = r#"{ "a" : 1, "b\"" :{"c": 2 },"a":[3] }"#;
        let span = Span::of(text.as_bytes()).expect("valid");
        let (keys, values): (Vec<Span>, Vec<Span>) = span.members(text.as_bytes()).unzip();
        assert_eq!(texts(text, keys.into_iter()), ["\"a\"", "\"b\\\"\"", "\"a\""]);
        assert_eq!(texts(text, values.into_iter()), ["1", "{\"c\": 2 }", "[3]"]);
        for empty in ["{}", "[ ]", "7", "\"\""] {
            let span = Span::of(empty.as_bytes()).expect("valid");
            assert_eq!(span.items(empty.as_bytes()).count() + span.members(empty.as_bytes()).count(), 0);
        }
    }

    #[test]
    fn scalars_are_read() {
        let text = br#"["a\u00e9", "b", -12, 1.5]"#;
        let items: Vec<Span> = Span::of(text).expect("valid").items(text).collect();
        let mut scratch = Vec::new();
        assert_eq!(items[0].string(text, &mut scratch), Some("a\u{e9}".as_bytes()));
        assert_eq!(items[1].string(text, &mut scratch), Some(&b"b"[..]));
        assert_eq!(items[2].string(text, &mut scratch), None);
        assert_eq!((items[2].int64(text), items[3].int64(text)), (Some(-12), None));
        assert_eq!((items[0].float64(text), items[3].float64(text)), (None, Some(1.5)));
        assert!(Span::of(b"[1] 2").is_err());
    }
}
