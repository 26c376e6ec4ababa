//! JSON Pointers (RFC 6901).

use std::fmt;

/// A parsed JSON Pointer, e.g. `/user/id`; the empty one is the whole record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer {
    tokens: Vec<String>,
}

/// Why a text is no JSON Pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It is not empty and does not begin with a slash.
    #[error("the path {0:?} must be empty or begin with '/'")]
    NoSlash(String),
    /// It has a tilde that is followed neither by 0 nor by 1.
    #[error("the path {0:?} has a '~' that is neither '~0' (for '~') nor '~1' (for '/')")]
    BadEscape(String),
}

impl Pointer {
    /// Parses `text` as RFC 6901 has it (the plain form, not the URI fragment).
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PointerError::NoSlash(text.to_owned()));
        };
        let tokens = rest.split('/').map(unescape_token).collect::<Option<Vec<_>>>();
        tokens.map(|tokens| Self { tokens }).ok_or_else(|| PointerError::BadEscape(text.to_owned()))
    }

    /// The path of these tokens, as they are without escapes.
    pub fn of_tokens(tokens: &[&str]) -> Self {
        Self { tokens: tokens.iter().map(|token| (*token).to_owned()).collect() }
    }

    /// The tokens, unescaped.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// True where `other` is this path or lies below it.
    pub fn is_prefix_of(&self, other: &Pointer) -> bool {
        other.tokens.starts_with(&self.tokens)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

impl std::str::FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        Self::parse(text)
    }
}

fn unescape_token(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        unescaped.push(match part.as_bytes().first()? {
            b'0' => '~',
            b'1' => '/',
            _ => return None,
        });
        unescaped.push_str(&part[1..]);
    }
    Some(unescaped)
}

/// The array index that `token` stands for: digits without a leading zero.
pub(super) fn array_index(token: &str) -> Option<u32> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    if digits && !leading_zero { token.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_shown_as_rfc_6901_has_them() {
        for (text, tokens) in [
            ("", vec![]),
            ("/", vec![""]),
            ("/foo/0", vec!["foo", "0"]),
            ("/a~1b/m~0n/~01", vec!["a/b", "m~n", "~1"]),
            ("/a//", vec!["a", "", ""]),
            ("/é~0", vec!["é~"]),
        ] {
            let pointer = Pointer::parse(text).expect(text);
            assert_eq!(pointer.tokens(), tokens, "{text}");
            assert_eq!(pointer.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        assert_eq!(Pointer::parse("a/b"), Err(PointerError::NoSlash("a/b".into())));
        for text in ["/~", "/a~2", "/~~0", "/a~é"] {
            assert_eq!(Pointer::parse(text), Err(PointerError::BadEscape(text.into())));
        }
    }

    #[test]
    fn a_prefix_ends_at_a_token() {
        let path = |text| Pointer::parse(text).expect("a pointer");
        assert!(path("").is_prefix_of(&path("/a")));
        assert!(path("/a").is_prefix_of(&path("/a")));
        assert!(path("/a").is_prefix_of(&path("/a/b")));
        assert!(!path("/a").is_prefix_of(&path("/ab")));
        assert!(!path("/a/b").is_prefix_of(&path("/a")));
    }

    #[test]
    fn an_index_has_no_leading_zero_and_no_sign() {
        assert_eq!(array_index("0"), Some(0));
        assert_eq!(array_index("10"), Some(10));
        for token in ["", "-", "00", "01", "+1", "-1", "1a", "4294967296", "99999999999999999999"] {
            assert_eq!(array_index(token), None, "{token}");
        }
    }
}
