//! The paths of a JSON object, of which ClickHouse's JSON type takes each only once; one object that breaks that would
//! have the whole block refused.

use crate::record::json::{Kind, Span};

/// Buffers that are kept.
#[derive(Debug, Default)]
pub(super) struct Paths {
    path: Vec<u8>,
    /// A hash of each path that was seen; those of an object within an array are a set of their own.
    seen: Vec<u64>,
    scratch: Vec<u8>,
}

impl Paths {
    /// True where no path to a value occurs twice in `object`, whether by equal keys or by keys with points in them
    /// (`{"a": {"b": 1}, "a.b": 2}`).
    pub(super) fn are_distinct(&mut self, text: &[u8], object: Span) -> bool {
        self.path.clear();
        self.seen.clear();
        self.set(text, object)
    }

    /// The same for an object whose paths begin anew.
    fn set(&mut self, text: &[u8], object: Span) -> bool {
        let (first, path) = (self.seen.len(), self.path.len());
        // The paths of an outer object must not count here.
        self.path.push(0);
        let begin = self.path.len();
        let good = self.members(text, object, begin);
        self.path.truncate(path);
        let seen = &mut self.seen[first..];
        seen.sort_unstable();
        let good = good && seen.windows(2).all(|pair| pair[0] != pair[1]);
        self.seen.truncate(first);
        good
    }

    fn members(&mut self, text: &[u8], object: Span, begin: usize) -> bool {
        for (key, value) in object.members(text) {
            let kept = self.path.len();
            if kept > begin {
                self.path.push(b'.');
            }
            self.path.extend_from_slice(key.string(text, &mut self.scratch).unwrap_or_default());
            let good = match value.kind {
                Kind::Object => self.members(text, value, begin),
                _ => {
                    self.seen.push(hash(&self.path[begin..]));
                    value.kind != Kind::Array || self.items(text, value)
                }
            };
            self.path.truncate(kept);
            if !good {
                return false;
            }
        }
        true
    }

    fn items(&mut self, text: &[u8], array: Span) -> bool {
        array.items(text).all(|item| match item.kind {
            Kind::Object => self.set(text, item),
            Kind::Array => self.items(text, item),
            _ => true,
        })
    }
}

/// FNV-1a. Two paths of one object that share it would cost that record; nothing else would happen.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_occur_once() {
        let mut paths = Paths::default();
        let mut distinct = |text: &str| paths.are_distinct(text.as_bytes(), Span::of(text.as_bytes()).expect("valid"));
        for good in [
            "{}",
            r#"{"a":1,"b":{"a":2},"":3}"#,
            r#"{"a":1,"a":{"b":2}}"#,
            r#"{"a":[{"b":1},{"b":2}],"b":3}"#,
            r#"{"a":{"b":[{"a":1}]}}"#,
        ] {
            assert!(distinct(good), "{good}");
        }
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":{"b":1},"a.b":2}"#,
            r#"{"a":[1,[{"b":1,"b":2}]]}"#,
            r#"{"a":{"b":1},"a":{"b":1}}"#,
        ] {
            assert!(!distinct(bad), "{bad}");
        }
    }
}
