//! `key:` — what records are grouped by: fields, and parts of them.

use super::error::ConfigError;
use super::units;
use super::walk::At;
use super::window::RESERVED;

/// A part of a key, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedField {
    /// The name in the rows.
    pub name: String,
    /// A JSON Pointer.
    pub field: String,
    /// What is taken of the field's text; all of whatever is there where this is `None`.
    pub part: Option<TextPart>,
}

/// A part of a text; what is said is done in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextPart {
    /// What follows the first of these; all where there is none.
    pub after: Option<String>,
    /// What stands before the first of these; all where there is none.
    pub before: Option<String>,
    /// So many characters from the beginning, at most.
    pub first: Option<u32>,
    /// In small or capital letters.
    pub case: Option<Case>,
}

/// How letters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Small.
    Lower,
    /// Capital.
    Upper,
}

pub(super) const KEY_PART_KEYS: &[&str] = &["field", "after", "before", "first", "case"];
const KEY_FIELDS_MAX: usize = 16;
const FIRST_MAX: u32 = 4_096;
const WANTED: &str = "a list of JSON Pointers, or a map, name: JSON Pointer";

pub(super) fn read_key(at: &At<'_>) -> Result<Vec<NamedField>, ConfigError> {
    let mut fields: Vec<NamedField> = Vec::new();
    let items = match at.list(WANTED) {
        Ok(items) => items.into_iter().map(|at| (None, at)).collect(),
        Err(error) => match at.open_map(WANTED) {
            Ok(items) => items.into_iter().map(|(name, at)| (Some(name), at)).collect::<Vec<_>>(),
            Err(_) => return Err(error),
        },
    };
    for (name, at) in items {
        let (field, part) = match at.entry("field") {
            Some(field) => (field.pointer()?, Some(TextPart::read(&at)?)),
            None => (at.pointer()?, None),
        };
        let name = name.or(field.rsplit('/').next()).unwrap_or_default().to_owned();
        if !units::is_column(&name) || RESERVED.contains(&name.as_str()) {
            return Err(at.error(format!("`{}` can't be a column; name it: {{name: {field}}}", name.escape_debug())));
        }
        if fields.iter().any(|known| known.name == name) {
            return Err(at.error(format!("two fields are called `{name}`; name them: {{one: /a/id, other: /b/id}}")));
        }
        fields.push(NamedField { name, field, part });
    }
    if fields.len() > KEY_FIELDS_MAX {
        return Err(at.error(format!("expected at most {KEY_FIELDS_MAX} fields, found {}", fields.len())));
    }
    Ok(fields)
}

impl TextPart {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(KEY_PART_KEYS)?;
        let separator = |name: &str| match fields.optional(name) {
            Some(at) => match at.text("a text such as \"@\"")? {
                "" => Err(at.error("expected a text such as \"@\", found nothing")),
                text => Ok(Some(text.to_owned())),
            },
            None => Ok(None),
        };
        Ok(Self {
            after: separator("after")?,
            before: separator("before")?,
            first: fields.optional("first").map(|at| at.integer_u32(1..=FIRST_MAX)).transpose()?,
            case: fields
                .optional("case")
                .map(|at| at.choice(&[("lower", Case::Lower), ("upper", Case::Upper)]))
                .transpose()?,
        })
    }

    /// The part of this text.
    pub fn of(&self, text: &str) -> String {
        let text = self.after.as_ref().and_then(|after| text.split_once(after.as_str())).map_or(text, |(_, rest)| rest);
        let before = self.before.as_ref().and_then(|before| text.split_once(before.as_str()));
        let text = before.map_or(text, |(start, _)| start);
        let end =
            self.first.and_then(|first| text.char_indices().nth(first as usize)).map_or(text.len(), |(end, _)| end);
        match self.case {
            None => text[..end].to_owned(),
            Some(Case::Lower) => text[..end].to_lowercase(),
            Some(Case::Upper) => text[..end].to_uppercase(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_in_their_order() {
        let part = |after: &str, before: &str, first, case| TextPart {
            after: (!after.is_empty()).then(|| after.to_owned()),
            before: (!before.is_empty()).then(|| before.to_owned()),
            first,
            case,
        };
        for (part, text, expected) in [
            (part("@", "", None, Some(Case::Lower)), "Ann@Example.ORG", "example.org"),
            (part("@", ".", None, None), "Ann@Example.ORG", "Example"),
            (part("@", "", None, None), "no address", "no address"),
            (part("", "?", None, None), "/page?x=1?y", "/page"),
            (part("", "", Some(2), Some(Case::Upper)), "straße", "ST"),
            (part("", "", Some(9), None), "ä", "ä"),
            (part("@", "", Some(1), None), "x@", ""),
        ] {
            assert_eq!(part.of(text), expected, "{part:?}");
        }
    }
}
