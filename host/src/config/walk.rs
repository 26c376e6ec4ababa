//! A typed walk over the tree: each step knows its place, so every error can name it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, Mark};
use super::node::{Content, Entry, Node, Scalar};
use super::units;

/// A value, its key path and its file.
#[derive(Clone, Debug)]
pub(super) struct At<'a> {
    pub(super) file: &'a str,
    pub(super) path: String,
    mark: Mark,
    node: &'a Node,
}

/// A map whose keys were checked.
pub(super) struct Fields<'a> {
    at: At<'a>,
    entries: &'a [Entry],
}

/// The path of `key` under `path`; a key with odd characters is quoted.
pub(super) fn join_key(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let dot = if path.is_empty() { "" } else { "." };
    if plain { format!("{path}{dot}{key}") } else { format!("{path}{dot}{key:?}") }
}

/// The path of item `index` of the list at `path`.
pub(super) fn join_index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

impl<'a> At<'a> {
    /// The whole document.
    pub(super) fn root(file: &'a str, node: &'a Node) -> Self {
        At { file, path: String::new(), mark: node.mark, node }
    }

    /// An error at this value.
    pub(super) fn error(&self, text: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.to_owned(), mark: Some(self.mark), key: self.path.clone(), text: text.into() }
    }

    fn expected(&self, what: &str) -> ConfigError {
        self.error(format!("expected {what}, found {}", self.found()))
    }

    /// What stands here, for people: as written in the file, so that no variable's value is shown.
    fn found(&self) -> String {
        match &self.node.content {
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
            Content::Scalar(scalar) if scalar.is_null() => "nothing".to_owned(),
            Content::Scalar(scalar) => {
                let cut: String = scalar.raw.chars().take(60).collect();
                let dots = if cut.len() < scalar.raw.len() { "…" } else { "" };
                let filled_in = if scalar.raw == scalar.text { "" } else { " (after its variables were filled in)" };
                format!("`{}{dots}`{filled_in}", cut.escape_debug())
            }
        }
    }

    /// The value as it stands.
    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    pub(super) fn scalar(&self, what: &str) -> Result<&'a Scalar, ConfigError> {
        match &self.node.content {
            Content::Scalar(scalar) if !scalar.is_null() => Ok(scalar),
            _ => Err(self.expected(what)),
        }
    }

    /// A string that is not empty; `what` says of what kind, as in "a file's path".
    pub(super) fn text(&self, what: &str) -> Result<&'a str, ConfigError> {
        let text = self.scalar(what)?.text.as_str();
        if text.is_empty() { Err(self.error(format!("expected {what}, found an empty string"))) } else { Ok(text) }
    }

    /// A value that `read` understands.
    pub(super) fn parsed<T>(&self, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        read(self.text(what)?).ok_or_else(|| self.expected(what))
    }

    /// A path; a relative one is taken from the config's folder.
    pub(super) fn file_path(&self) -> Result<PathBuf, ConfigError> {
        let path = Path::new(self.text("a file's path")?);
        Ok(Path::new(self.file).parent().map_or_else(|| path.to_owned(), |folder| folder.join(path)))
    }

    pub(super) fn name(&self) -> Result<String, ConfigError> {
        let what = "a name of 1 to 64 of the characters a-z 0-9 _ -";
        self.parsed(what, |text| units::is_name(text).then(|| text.to_owned()))
    }

    pub(super) fn topic(&self) -> Result<String, ConfigError> {
        let what = "a topic's name of 1 to 249 of the characters a-z A-Z 0-9 . _ -";
        self.parsed(what, |text| units::is_topic(text).then(|| text.to_owned()))
    }

    pub(super) fn pointer(&self) -> Result<String, ConfigError> {
        let what = "a JSON Pointer such as /country or /user/id";
        self.parsed(what, |text| units::is_pointer(text).then(|| text.to_owned()))
    }

    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let what = match range.end() {
            &u64::MAX => format!("an integer from {}", range.start()),
            end => format!("an integer from {} to {end}", range.start()),
        };
        self.parsed(&what, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    pub(super) fn integer_u32(&self, range: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        self.integer(wide).map(|number| number as u32)
    }

    /// A size such as `64MiB`, in bytes.
    pub(super) fn bytes(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let what = format!("a size from {} to {}, such as 64MiB", size(*range.start()), size(*range.end()));
        self.parsed(&what, |text| units::bytes(text).filter(|bytes| range.contains(bytes)))
    }

    /// A time such as `500ms`, `1s` or `2m`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
        let what = format!("a time from {:?} to {:?}, such as 500ms, 1s or 2m", range.start(), range.end());
        self.parsed(&what, |text| units::duration(text).filter(|time| range.contains(time)))
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        self.choice(&[("true", true), ("false", false)])
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
        let what = one_of(&names);
        self.parsed(&what, |text| choices.iter().find(|choice| choice.0 == text).map(|choice| choice.1))
    }

    pub(super) fn list(&self, what: &str) -> Result<Vec<At<'a>>, ConfigError> {
        let Content::List(items) = &self.node.content else { return Err(self.expected(what)) };
        let at = |(i, node): (usize, &'a Node)| At {
            file: self.file,
            path: join_index(&self.path, i),
            mark: node.mark,
            node,
        };
        Ok(items.iter().enumerate().map(at).collect())
    }

    fn entries(&self, what: &str) -> Result<&'a [Entry], ConfigError> {
        match &self.node.content {
            Content::Map(entries) => Ok(entries),
            Content::Scalar(scalar) if scalar.is_null() => Ok(&[]),
            _ => Err(self.expected(what)),
        }
    }

    /// A map whose keys are the user's own: key and value, in the file's order.
    pub(super) fn open_map(&self, what: &str) -> Result<Vec<(&'a str, At<'a>)>, ConfigError> {
        Ok(self.entries(what)?.iter().map(|entry| (entry.key.as_str(), self.child(entry))).collect())
    }

    /// A map that may have these keys and no others.
    pub(super) fn fields(&self, keys: &[&str]) -> Result<Fields<'a>, ConfigError> {
        let entries = self.entries(&format!("a map with the keys {}", keys.join(", ")))?;
        if let Some(unknown) = entries.iter().find(|entry| !keys.contains(&entry.key.as_str())) {
            return Err(self.key_of(unknown).error(unknown_key(&unknown.key, keys)));
        }
        Ok(Fields { at: self.clone(), entries })
    }

    /// The value of `key`, if this is a map that has it.
    pub(super) fn entry(&self, key: &str) -> Option<At<'a>> {
        let Content::Map(entries) = &self.node.content else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| self.child(entry))
    }

    /// A map with exactly one of these keys, as `kafka: {…}`.
    pub(super) fn variant(&self, names: &[&str]) -> Result<(&'a str, At<'a>), ConfigError> {
        let what = format!("a map with one of the keys {}", names.join(", "));
        let fields = match &self.node.content {
            Content::Map(_) => self.fields(names)?,
            _ => return Err(self.expected(&what)),
        };
        match fields.entries {
            [] => Err(self.expected(&what)),
            [entry] => Ok((&entry.key, self.child(entry))),
            [first, second, ..] => {
                let text = format!("only one of {} can be given; `{}` is there already", names.join(", "), first.key);
                Err(self.key_of(second).error(text))
            }
        }
    }

    /// The value of `entry`; maps and lists are placed where their key is, which is where people look for them.
    fn child(&self, entry: &'a Entry) -> At<'a> {
        let is_value = matches!(&entry.value.content, Content::Scalar(scalar) if !scalar.is_null());
        let mark = if is_value { entry.value.mark } else { entry.key_mark };
        At { file: self.file, path: join_key(&self.path, &entry.key), mark, node: &entry.value }
    }

    fn key_of(&self, entry: &'a Entry) -> At<'a> {
        At { mark: entry.key_mark, ..self.child(entry) }
    }
}

impl<'a> Fields<'a> {
    /// The value of `key`, where it is given and not null.
    pub(super) fn optional(&self, key: &str) -> Option<At<'a>> {
        let at = self.any(key)?;
        let null = matches!(&at.node.content, Content::Scalar(scalar) if scalar.is_null());
        (!null).then_some(at)
    }

    /// The value of `key`, null included.
    pub(super) fn any(&self, key: &str) -> Option<At<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(self.at.child(entry))
    }

    /// The value of `key`; an error that says `what` it is where it is missing.
    pub(super) fn required(&self, key: &str, what: &str) -> Result<At<'a>, ConfigError> {
        self.optional(key).ok_or_else(|| {
            let mut error = self.at.error(format!("is required: {what}"));
            error.key = join_key(&self.at.path, key);
            error
        })
    }

    /// `read` of the value of `key`, or `default` where it is not given.
    pub(super) fn or<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&At<'a>) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        self.optional(key).map_or(Ok(default), |at| read(&at))
    }
}

/// "`a`, `b` or `c`".
pub(super) fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.iter().find(|unit| bytes != 0 && bytes.is_multiple_of(unit.1));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

fn unknown_key(key: &str, keys: &[&str]) -> String {
    let distances = keys.iter().map(|known| (distance(key, known), *known));
    match distances.min() {
        Some((distance, near)) if distance <= 1 + near.len() / 4 => format!("unknown key, did you mean `{near}`?"),
        _ => format!("unknown key; expected {}", one_of(keys)),
    }
}

/// How many characters have to be added, removed or replaced to make one word of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, from_char) in from.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to_char) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from_char != *to_char);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys_are_proposed_and_far_ones_are_not() {
        let keys = ["brokers", "topic", "on_out_of_range"];
        assert_eq!(unknown_key("topik", &keys), "unknown key, did you mean `topic`?");
        assert_eq!(unknown_key("broker", &keys), "unknown key, did you mean `brokers`?");
        assert_eq!(unknown_key("on-out-of-range", &keys), "unknown key, did you mean `on_out_of_range`?");
        assert_eq!(unknown_key("zebra", &keys), "unknown key; expected brokers, topic or on_out_of_range");
    }
}
