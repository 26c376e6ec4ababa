//! Whether a table replaces rows that come in versions, so that only the last one of each counts.

use super::checks::CheckError;
use super::client::Client;
use super::error::RequestError;
use super::table::Table;
use crate::config::{ClickHouseConfig, VersionedRows};

/// The fields of a window's row beside its key.
const START: &str = "window_start";
const END: &str = "window_end";
const VERSION: &str = "version";

/// What the server says of how a table sorts and replaces.
struct Layout {
    engine: String,
    engine_full: String,
    sorting_key: String,
    partition_key: String,
}

/// Sees whether the table replaces each version of a window's row by the next one; all that stands against it is said in one
/// message.
pub async fn check_replaces(client: &Client, table: &Table, config: &ClickHouseConfig) -> Result<(), CheckError> {
    if config.versioned.is_empty() {
        return Ok(());
    }
    let layout = Layout::read(client, table).await?;
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let problem = |rows: &VersionedRows| {
        let problems = problems(&layout, &names, config, rows);
        (!problems.is_empty()).then(|| refusal(table, config, rows, &problems))
    };
    config.versioned.iter().find_map(problem).map_or(Ok(()), |text| Err(CheckError::Refused(text)))
}

fn refusal(table: &Table, config: &ClickHouseConfig, rows: &VersionedRows, problems: &[String]) -> String {
    let column = |field: &str| column_of(config, field).unwrap_or_else(|| field.to_owned());
    let sorting: Vec<String> = rows.key.iter().map(|key| column(key)).chain([column(START)]).collect();
    format!(
        "the windows of stage `{}` have `early` or `reopen`: each of their rows replaces the one before it, and {}.{} does \
         not do that:\n  - {}\nMake it ENGINE = ReplacingMergeTree({}) ORDER BY ({}), and read it with FINAL; or leave \
         `early` and `reopen` out; or send the rows to a topic or a file, as a log of versions",
        rows.stage,
        table.database,
        table.name,
        problems.join("\n  - "),
        column(VERSION),
        sorting.join(", ")
    )
}

/// What stands against it.
fn problems(layout: &Layout, names: &[&str], config: &ClickHouseConfig, rows: &VersionedRows) -> Vec<String> {
    let mut problems = Vec::new();
    let version = column_of(config, VERSION);
    if !layout.engine.ends_with("ReplacingMergeTree") {
        problems.push(format!("it has the engine {}, which keeps every version", layout.engine));
    } else if version.is_none() || version_column(&layout.engine_full) != version {
        let found = version_column(&layout.engine_full).map_or("no column".to_owned(), |name| format!("`{name}`"));
        problems.push(format!("it keeps the row with the highest {found}, not the one with the highest `{VERSION}`"));
    }
    let fields = rows.key.iter().map(String::as_str).chain([START]);
    let identity: Vec<String> = fields
        .filter_map(|field| {
            let column = column_of(config, field);
            if column.is_none() {
                problems.push(format!("no column takes the field `{field}`"));
            }
            column
        })
        .collect();
    let sorting = items(&layout.sorting_key);
    for column in &identity {
        if !sorting.iter().any(|item| unquoted(item) == *column) {
            problems.push(format!(
                "its sorting key ({}) lacks `{column}`: other rows would be replaced",
                layout.sorting_key
            ));
        }
    }
    // A window of one size ends where it must; a session does not.
    let end = column_of(config, END).filter(|_| !rows.is_session);
    let varies = |name: &&&str| !identity.iter().chain(&end).any(|column| column == **name);
    for (what, key) in [("sorting", &layout.sorting_key), ("partition", &layout.partition_key)] {
        let used = identifiers(key);
        for column in names.iter().filter(varies).filter(|name| used.iter().any(|used| used == *name)) {
            problems
                .push(format!("its {what} key ({key}) has `{column}`, by which two versions of a row may be two rows"));
        }
    }
    problems
}

/// The column that takes a field of the row; `None` where none of this configuration does.
fn column_of(config: &ClickHouseConfig, field: &str) -> Option<String> {
    let pointer = format!("/{field}");
    let renamed = config.columns.iter().find(|(_, rule)| rule.from.as_deref() == Some(&pointer));
    if let Some((column, _)) = renamed {
        return Some(column.clone());
    }
    let other = config.columns.get(field).is_some_and(|rule| rule.from.is_some() || rule.constant.is_some());
    (!other).then(|| field.to_owned())
}

impl Layout {
    async fn read(client: &Client, table: &Table) -> Result<Self, RequestError> {
        let sql = "SELECT engine, engine_full, sorting_key, partition_key FROM system.tables \
                   WHERE database = {database:String} AND name = {name:String} FORMAT JSONEachRow";
        let answer = client.query(sql, &[("database", &table.database), ("name", &table.name)]).await?;
        let row: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            engine: text("engine"),
            engine_full: text("engine_full"),
            sorting_key: text("sorting_key"),
            partition_key: text("partition_key"),
        })
    }
}

/// The column by which `ReplacingMergeTree(version, …)` or `ReplicatedReplacingMergeTree('path', 'replica', version, …)` keeps
/// the last row.
fn version_column(engine_full: &str) -> Option<String> {
    let (engine, rest) = engine_full.split_once('(')?;
    // Otherwise the parenthesis belongs to a key.
    if engine.contains(' ') {
        return None;
    }
    let arguments = items(rest);
    arguments.into_iter().find(|argument| !argument.starts_with('\'')).map(unquoted).filter(|name| !name.is_empty())
}

/// The parts of a list, up to its end or the parenthesis that closes it.
fn items(list: &str) -> Vec<&str> {
    let (mut items, mut start, mut depth, mut quote) = (Vec::new(), 0, 0, None);
    let mut escaped = false;
    let mut end = list.len();
    for (at, c) in list.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '`' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') if depth == 0 => {
                end = at;
                break;
            }
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                items.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(list[start..end].trim());
    items
}

/// A column's name, without its backticks.
fn unquoted(item: &str) -> String {
    match item.strip_prefix('`').and_then(|item| item.strip_suffix('`')) {
        Some(name) => name.replace("\\`", "`").replace("\\\\", "\\"),
        None => item.to_owned(),
    }
}

/// Every name in an expression: of columns, and of functions too.
fn identifiers(expression: &str) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), expression);
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '`' | '\'' | '"' => closing(&rest[1..], c).map_or(rest.len(), |at| at + 2),
            c if c.is_alphabetic() || c == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
            }
            c if c.is_ascii_digit() => rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        if c == '`' || c.is_alphabetic() || c == '_' {
            names.push(unquoted(&rest[..end]));
        }
        rest = &rest[end..];
    }
    names
}

/// Where the quote is that ends a text.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| match c {
        _ if escaped => {
            escaped = false;
            None
        }
        '\\' => {
            escaped = true;
            None
        }
        c => (c == quote).then_some(at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_column_is_found() {
        let of = |engine: &str| version_column(engine);
        assert_eq!(of("ReplacingMergeTree(version) ORDER BY (k, window_start)"), Some("version".into()));
        assert_eq!(of("ReplacingMergeTree(`a b`, deleted) ORDER BY k"), Some("a b".into()));
        assert_eq!(
            of("ReplicatedReplacingMergeTree('/p/{uuid}', '{replica}', version) ORDER BY k"),
            Some("version".into())
        );
        assert_eq!(of("ReplicatedReplacingMergeTree('/p/(x', '{replica}') ORDER BY k"), None);
        assert_eq!(of("ReplacingMergeTree ORDER BY (k, window_start)"), None);
    }

    #[test]
    fn keys_are_taken_apart() {
        assert_eq!(items("k, toDate(a, 'b,c'), `x,y`"), ["k", "toDate(a, 'b,c')", "`x,y`"]);
        assert_eq!(
            identifiers("toYYYYMM(window_start), `odd name`, 'k', 7, n"),
            ["toYYYYMM", "window_start", "odd name", "n"]
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let layout = |engine: &str, sorting_key: &str, partition_key: &str| Layout {
            engine: engine.split(['(', ' ']).next().unwrap_or_default().to_owned(),
            engine_full: format!("{engine} ORDER BY x"),
            sorting_key: sorting_key.to_owned(),
            partition_key: partition_key.to_owned(),
        };
        let names = ["k", "window_start", "window_end", "version", "n"];
        let config = ClickHouseConfig::new("http://h", "d", "t");
        let rows = VersionedRows { stage: "w".into(), key: vec!["k".into()], is_session: false };
        let count = |layout: &Layout, rows: &VersionedRows| problems(layout, &names, &config, rows).len();
        let good = layout("ReplacingMergeTree(version)", "k, window_start", "toYYYYMM(window_start)");
        assert_eq!(problems(&good, &names, &config, &rows), Vec::<String>::new());
        assert_eq!(count(&layout("MergeTree", "k, window_start", ""), &rows), 1);
        assert_eq!(count(&layout("ReplacingMergeTree", "k, window_start", ""), &rows), 1);
        assert_eq!(count(&layout("ReplacingMergeTree(n)", "toDate(window_start)", "n"), &rows), 4);
        assert_eq!(count(&layout("ReplacingMergeTree(version)", "k, window_start, n", ""), &rows), 1);
        let ends = layout("ReplacingMergeTree(version)", "k, window_start, window_end", "");
        let session = VersionedRows { is_session: true, ..rows.clone() };
        assert_eq!((count(&ends, &rows), count(&ends, &session)), (0, 1), "a session's end moves");
    }
}
