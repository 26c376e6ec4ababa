//! YAML text into a tree that remembers where each value stood.
//!
//! A config is written by people and read once, so this takes the plain part of YAML only: one document of maps, lists
//! and scalars. Anchors, aliases and tags are refused: they save typing at the price of surprise (and aliases can blow
//! up a small file into a huge tree). The parser below keeps its own stack, so nesting can't overflow ours.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::error::{ConfigError, Mark};

/// Most bytes of a config file.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;
/// Most maps and lists within each other.
pub(super) const MAX_DEPTH: usize = 64;

/// A value and where it began.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar before and after its variables were put in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scalar {
    /// The text with variables filled in.
    pub(super) text: String,
    /// The text as it stands in the file, which is what errors show.
    pub(super) raw: String,
    /// True where it was written without quotes, so that `1`, `true` and `null` mean what they look like.
    pub(super) plain: bool,
    /// True where part of it came from a `${file:…}`.
    pub(super) secret: bool,
}

impl Scalar {
    /// True for what YAML takes as "no value". A variable that is empty is an empty string, not this.
    pub(super) fn is_null(&self) -> bool {
        self.plain && matches!(self.raw.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_mark: Mark,
    pub(super) value: Node,
}

/// A map or list that is still open.
enum Open {
    List { mark: Mark, items: Vec<Node> },
    Map { mark: Mark, entries: Vec<Entry>, seen: HashSet<String>, key: Option<(String, Mark)> },
}

/// Reads `text` as one document; `file` is for the errors.
pub(super) fn parse(file: &str, text: &str) -> Result<Node, ConfigError> {
    if text.len() > MAX_FILE_BYTES {
        let text = format!("the file has {} bytes; a config may have 1 MiB", text.len());
        return Err(ConfigError { file: file.to_owned(), mark: None, key: String::new(), text });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { file, open: Vec::new(), root: None };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let mark = mark(error.marker().line(), error.marker().col());
            builder.error(mark, format!("not valid YAML: {}{}", error.info(), quoting_hint(text, mark.line)))
        })?;
        builder.event(event, span)?;
    }
    builder.root.take().ok_or_else(|| builder.error(Mark { line: 1, column: 1 }, "the file is empty"))
}

/// The mistake that variables invite: `{a: ${B}}` is a map in a map to YAML.
fn quoting_hint(text: &str, line: usize) -> &'static str {
    let has_variable = text.lines().nth(line.saturating_sub(1)).is_some_and(|line| line.contains("${"));
    if has_variable { " (within [] and {}, variables must be quoted: \"${NAME}\")" } else { "" }
}

fn mark(line: usize, col: usize) -> Mark {
    Mark { line, column: col + 1 }
}

struct Builder<'a> {
    file: &'a str,
    open: Vec<Open>,
    root: Option<Node>,
}

impl Builder<'_> {
    fn error(&self, mark: Mark, text: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.to_owned(), mark: Some(mark), key: String::new(), text: text.into() }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), ConfigError> {
        let at = mark(span.start.line(), span.start.col());
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(self.error(at, "a second document begins here; a config is one document"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Alias(_) => Err(self.error(at, "aliases (*name) are not allowed; write the value out")),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_anchor_and_tag(at, anchor, tag.is_some())?;
                self.scalar(at, text.into_owned(), style)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_anchor_and_tag(at, anchor, tag.is_some())?;
                self.open(at, Open::List { mark: at, items: Vec::new() })
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_anchor_and_tag(at, anchor, tag.is_some())?;
                self.open(at, Open::Map { mark: at, entries: Vec::new(), seen: HashSet::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { mark, items }) => self.value(Node { mark, content: Content::List(items) }),
                Some(Open::Map { mark, entries, .. }) => self.value(Node { mark, content: Content::Map(entries) }),
                None => Err(self.error(at, "not valid YAML: an end without a beginning")),
            },
        }
    }

    fn refuse_anchor_and_tag(&self, at: Mark, anchor: usize, tagged: bool) -> Result<(), ConfigError> {
        if anchor != 0 {
            return Err(self.error(at, "anchors (&name) are not allowed; write the value out where it is needed"));
        }
        if tagged {
            return Err(self.error(at, "tags (!name) are not allowed"));
        }
        Ok(())
    }

    fn open(&mut self, at: Mark, open: Open) -> Result<(), ConfigError> {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err(self.error(at, "a key must be a plain string"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(self.error(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(open);
        Ok(())
    }

    fn scalar(&mut self, at: Mark, text: String, style: ScalarStyle) -> Result<(), ConfigError> {
        if let Some(Open::Map { seen, key: key @ None, .. }) = self.open.last_mut() {
            if !seen.insert(text.clone()) {
                return Err(self.error(at, format!("the key `{text}` is given twice")));
            }
            *key = Some((text, at));
            return Ok(());
        }
        let plain = style == ScalarStyle::Plain;
        let scalar = Scalar { raw: text.clone(), text, plain, secret: false };
        self.value(Node { mark: at, content: Content::Scalar(scalar) })
    }

    /// Puts a finished value where it belongs.
    fn value(&mut self, value: Node) -> Result<(), ConfigError> {
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some((key, key_mark)) => entries.push(Entry { key, key_mark, value }),
                None => return Err(self.error(value.mark, "a key must be a plain string")),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        parse("f", text).expect_err("must be refused").to_string()
    }

    #[test]
    fn what_makes_yaml_surprising_is_refused_where_it_stands() {
        assert_eq!(fails(""), "f:1:1: the file is empty");
        assert_eq!(fails("a: 1\nb: 2\na: 3"), "f:3:1: the key `a` is given twice");
        assert_eq!(fails("a: &x 1"), "f:1:4: anchors (&name) are not allowed; write the value out where it is needed");
        assert_eq!(fails("a: !!str 1"), "f:1:4: tags (!name) are not allowed");
        assert_eq!(fails("a: 1\n---\nb: 1"), "f:2:1: a second document begins here; a config is one document");
        assert_eq!(fails("? [a]\n: 1"), "f:1:3: a key must be a plain string");
        assert!(fails("a: *x").contains("f:1:4"), "{}", fails("a: *x"));
        assert_eq!(
            fails("a: [${B}]"),
            "f:1:6: not valid YAML: while parsing a flow sequence, expected ',' or ']' (within [] and {}, variables must \
             be quoted: \"${NAME}\")"
        );
        assert!(fails("a: [1, 2").contains("not valid YAML"), "{}", fails("a: [1, 2"));
    }

    #[test]
    fn nesting_is_bounded_however_deep_the_file_goes() {
        let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        parse("f", &deep).expect("64 levels are allowed");
        assert_eq!(fails(&"[".repeat(MAX_DEPTH + 1)), "f:1:65: nested deeper than 64 levels");
        assert_eq!(fails(&"[".repeat(MAX_FILE_BYTES)), "f:1:256: not valid YAML: recursion limit exceeded");
    }

    #[test]
    fn a_config_above_one_mebibyte_is_refused() {
        let large = "a".repeat(MAX_FILE_BYTES + 1);
        assert_eq!(fails(&large), "f: the file has 1048577 bytes; a config may have 1 MiB");
    }
}
