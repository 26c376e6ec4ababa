//! `${VAR}`, `${VAR:-default}` and `${file:/path}` in scalars, filled in after parsing: what a variable holds can never
//! become structure.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::ConfigError;
use super::node::{Content, Node, Scalar};
use super::walk::{join_index, join_key};

/// Most bytes of a file that a `${file:…}` names.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Looks an environment variable up; `None` where it is not set.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Fills in the variables of all scalars under `node`, whose key path is `path`.
pub(super) fn expand(file: &str, node: &mut Node, path: &str, variables: Variables<'_>) -> Result<(), ConfigError> {
    match &mut node.content {
        Content::Scalar(scalar) => expand_scalar(scalar, variables).map_err(|text| ConfigError {
            file: file.to_owned(),
            mark: Some(node.mark),
            key: path.to_owned(),
            text,
        }),
        Content::List(items) => {
            let mut items = items.iter_mut().enumerate();
            items.try_for_each(|(i, item)| expand(file, item, &join_index(path, i), variables))
        }
        Content::Map(entries) => {
            let mut entries = entries.iter_mut();
            entries.try_for_each(|entry| expand(file, &mut entry.value, &join_key(path, &entry.key), variables))
        }
    }
}

fn expand_scalar(scalar: &mut Scalar, variables: Variables<'_>) -> Result<(), String> {
    if !scalar.raw.contains("${") {
        return Ok(());
    }
    let mut text = String::new();
    let mut rest = scalar.raw.as_str();
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            text.push_str(before);
            text.push_str("${");
            rest = &from[2..];
            continue;
        }
        text.push_str(before);
        let end = from.find('}').ok_or("`${` has no closing `}`; write `$${` for the two characters themselves")?;
        let inner = &from[2..end];
        if let Some(path) = inner.strip_prefix("file:") {
            text.push_str(&secret_file(Path::new(path))?);
            scalar.secret = true;
        } else {
            text.push_str(&variable(inner, variables)?);
        }
        rest = &from[end + 1..];
    }
    text.push_str(rest);
    scalar.text = text;
    Ok(())
}

fn variable(inner: &str, variables: Variables<'_>) -> Result<String, String> {
    let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!(
            "`${{{inner}}}` is no variable: expected ${{NAME}}, ${{NAME:-default}} or ${{file:/path}}"
        ));
    }
    match (variables(name), default) {
        // As in a shell: a default also stands in for an empty variable.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "the environment variable {name} is not set; set it, or give a default as ${{{name}:-default}}"
        )),
    }
}

/// The text of a file without its last line ends.
fn secret_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("${{file:{shown}}} must be absolute, or it would depend on where Millstream is started"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| format!("${{file:{shown}}} can't be opened: {error}"))?;
    let read = file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("${{file:{shown}}} can't be read: {error}"))?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!("${{file:{shown}}} has more than 64 KiB, which is no secret"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("${{file:{shown}}} is not UTF-8"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(raw: &str) -> Result<(String, bool), String> {
        let variables = |name: &str| match name {
            "HOST" => Some("h1".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${HOST}: [x]".to_owned()),
            _ => None,
        };
        let mut scalar = Scalar { text: raw.to_owned(), raw: raw.to_owned(), plain: true, secret: false };
        expand_scalar(&mut scalar, &variables)?;
        Ok((scalar.text, scalar.secret))
    }

    #[test]
    fn variables_are_filled_in_once_and_never_read_again() {
        let cases = [
            ("${HOST}", "h1"),
            ("a-${HOST}:${PORT:-9092}/", "a-h1:9092/"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-}", ""),
            ("$${HOST} costs $5", "${HOST} costs $5"),
            ("$$${HOST}", "$${HOST}"),
            ("${TRICKY}", "${HOST}: [x]"),
            ("no variable", "no variable"),
        ];
        for (raw, text) in cases {
            assert_eq!(expanded(raw), Ok((text.to_owned(), false)), "{raw}");
        }
    }

    #[test]
    fn what_is_missing_or_misspelt_is_named() {
        let cases = [
            ("${NONE}", "the environment variable NONE is not set; set it, or give a default as ${NONE:-default}"),
            ("${HOST", "`${` has no closing `}`; write `$${` for the two characters themselves"),
            ("${a b}", "`${a b}` is no variable: expected ${NAME}, ${NAME:-default} or ${file:/path}"),
            ("${}", "`${}` is no variable: expected ${NAME}, ${NAME:-default} or ${file:/path}"),
            ("${file:/none}", "${file:/none} can't be opened: No such file or directory (os error 2)"),
        ];
        for (raw, text) in cases {
            assert_eq!(expanded(raw), Err(text.to_owned()), "{raw}");
        }
    }

    #[test]
    fn a_secret_file_loses_its_last_newline_and_marks_the_value() {
        let path = std::env::temp_dir().join(format!("millstream-secret-{}", std::process::id()));
        std::fs::write(&path, "s3cret\r\n").expect("temporary file");
        let result = expanded(&format!("x${{file:{}}}y", path.display()));
        std::fs::remove_file(&path).expect("temporary file");
        assert_eq!(result, Ok(("xs3crety".to_owned(), true)));
    }
}
