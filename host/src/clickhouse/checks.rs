//! Whether a table and a user's profile can keep the promise of exactly once.
//!
//! A token counts in each table by itself: in the one that is inserted into, and in the target of every materialized view
//! that its rows go on to, over however many views.

use std::collections::BTreeSet;
use std::time::Duration;

use super::client::{Body, Client, path};
use super::error::RequestError;
use super::insert::ServerSettings;
use super::sql;
use super::table::Table;

/// The window that is proposed where there is none.
const PROPOSED_WINDOW: u64 = 10_000;
/// A smaller window is worth a note: every insert takes a place in it, and one for each partition of the table.
const SMALL_WINDOW: u64 = 1_000;
/// Tables and views that are looked at; more hints at a mistake.
const TABLES_MAX: usize = 1_000;

/// What holds for a table that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// The least number of blocks that a table on the way remembers.
    pub window_blocks: u64,
    /// The least time for which a replicated table on the way remembers a block; `None` where none is replicated.
    pub window: Option<Duration>,
    /// True where a block that was forgotten can be settled by counting its rows.
    pub has_lineage: bool,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// The table and those behind it that remember blocks, each with its database.
    pub tables: Vec<(String, String)>,
}

/// Why the promise can't be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The server does not answer, or says no.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Something has to be changed; the text says what.
    #[error("{0}")]
    Refused(String),
}

/// Sees whether inserts into `table` can be exactly once; all that stands against it is said in one message.
pub async fn check_exactly_once(
    client: &Client,
    table: &Table,
    settings: &ServerSettings,
) -> Result<Guarantee, CheckError> {
    let mut walk = Walk::new(client);
    walk.tables(&table.database, &table.name).await?;
    if let Some(problem) = forbidden_settings(client, settings).await? {
        walk.problems.push(problem);
    }
    if !walk.problems.is_empty() {
        let name = format!("{}.{}", table.database, table.name);
        let text = format!(
            "{name} can't be written exactly once:\n  - {}\nChange that, or say `delivery: at_least_once` if rows may be \
             there twice after a failure",
            walk.problems.join("\n  - ")
        );
        return Err(CheckError::Refused(text));
    }
    let mut notes = Vec::new();
    if !table.has_lineage() {
        notes.push(format!(
            "{}.{} has no columns _topic String, _partition Int32, _offset Int64: a block whose answer was lost, and which \
             the server has forgotten since ({} blocks later), stops the output, because nothing tells whether it is there",
            table.database, table.name, walk.window_blocks
        ));
    }
    if walk.window_blocks < SMALL_WINDOW {
        notes.push(format!(
            "a table on the way remembers {} blocks only; {PROPOSED_WINDOW} cost little memory",
            walk.window_blocks
        ));
    }
    Ok(Guarantee {
        window_blocks: walk.window_blocks,
        window: walk.window,
        has_lineage: table.has_lineage(),
        notes,
        tables: walk.tables,
    })
}

/// What a user's profile has against the settings of every insert.
async fn forbidden_settings(client: &Client, settings: &ServerSettings) -> Result<Option<String>, RequestError> {
    let pairs = [("query", "SELECT 1")].into_iter().chain(settings.pinned());
    match client.send(&path(pairs), &Body::plain(Vec::new())).await {
        Ok(_) => Ok(None),
        // READONLY, QUERY_IS_PROHIBITED, SETTING_CONSTRAINT_VIOLATION
        Err(RequestError::Answered { code: Some(164 | 392 | 452), text, .. }) => Ok(Some(format!(
            "the user's profile forbids a setting that every insert has to have, without which the server may cut or repeat \
             a block: {text}"
        ))),
        Err(error) => Err(error),
    }
}

/// A way through a table, its views, their targets, and so on.
struct Walk<'a> {
    client: &'a Client,
    seen: BTreeSet<(String, String)>,
    problems: Vec<String>,
    window_blocks: u64,
    window: Option<Duration>,
    tables: Vec<(String, String)>,
}

/// A row of `system.tables`.
struct Described {
    uuid: String,
    engine: String,
    engine_full: String,
    create: String,
    views: Vec<(String, String)>,
}

impl<'a> Walk<'a> {
    fn new(client: &'a Client) -> Self {
        Self {
            client,
            seen: BTreeSet::new(),
            problems: Vec::new(),
            window_blocks: u64::MAX,
            window: None,
            tables: Vec::new(),
        }
    }

    /// Looks at a table and at everything that its rows go on to.
    async fn tables(&mut self, database: &str, name: &str) -> Result<(), RequestError> {
        let mut pending = vec![(database.to_owned(), name.to_owned())];
        while let Some((database, name)) = pending.pop() {
            if self.seen.len() >= TABLES_MAX || !self.seen.insert((database.clone(), name.clone())) {
                continue;
            }
            let Some(found) = self.describe(&database, &name).await? else {
                self.problems.push(format!("{database}.{name} is not there, or can't be seen by this user"));
                continue;
            };
            pending.extend(found.views.iter().cloned());
            if found.engine != "MaterializedView" {
                self.table(&database, &name, &found).await?;
            } else if !is_refreshed(&found.create) {
                pending.push(target(&database, &name, &found));
            }
        }
        Ok(())
    }

    /// Looks at one table that rows are written to.
    async fn table(&mut self, database: &str, name: &str, found: &Described) -> Result<(), RequestError> {
        let engine = found.engine.as_str();
        if !engine.ends_with("MergeTree") {
            self.problems.push(format!(
                "{database}.{name} has the engine {engine}, which forgets which blocks it took; it has to be one of the \
                 MergeTree family"
            ));
            return Ok(());
        }
        let is_replicated = engine.starts_with("Replicated") || engine.starts_with("Shared");
        let setting =
            if is_replicated { "replicated_deduplication_window" } else { "non_replicated_deduplication_window" };
        let blocks = self.setting(found, setting, is_replicated).await?;
        if blocks == 0 {
            let table = format!("{}.{}", sql::name(database), sql::name(name));
            self.problems.push(format!(
                "{database}.{name} forgets which blocks it took; run: ALTER TABLE {table} MODIFY SETTING {setting} = \
                 {PROPOSED_WINDOW}"
            ));
            return Ok(());
        }
        self.tables.push((database.to_owned(), name.to_owned()));
        self.window_blocks = self.window_blocks.min(blocks);
        if is_replicated {
            let seconds = self.setting(found, "replicated_deduplication_window_seconds", true).await?;
            let window = Duration::from_secs(seconds);
            self.window = Some(self.window.map_or(window, |least| least.min(window)));
        }
        Ok(())
    }

    /// A table's own setting, or else the server's.
    async fn setting(&self, found: &Described, name: &str, is_replicated: bool) -> Result<u64, RequestError> {
        if let Some(own) = own_setting(&found.engine_full, name) {
            return Ok(own);
        }
        let table = if is_replicated { "replicated_merge_tree_settings" } else { "merge_tree_settings" };
        let sql = format!("SELECT value FROM system.{table} WHERE name = {{name:String}} FORMAT TabSeparated");
        let answer = self.client.query(&sql, &[("name", name)]).await?.text();
        Ok(answer.parse().unwrap_or(0))
    }

    async fn describe(&self, database: &str, name: &str) -> Result<Option<Described>, RequestError> {
        let sql = "SELECT toString(uuid) AS uuid, engine, engine_full, create_table_query AS create, \
                   dependencies_database AS databases, dependencies_table AS views FROM system.tables \
                   WHERE database = {database:String} AND name = {name:String} FORMAT JSONEachRow";
        let answer = self.client.query(sql, &[("database", database), ("name", name)]).await?;
        let Ok(row) = serde_json::from_slice::<serde_json::Value>(&answer.body) else { return Ok(None) };
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let list = |key: &str| -> Vec<String> {
            let items = row[key].as_array().into_iter().flatten();
            items.map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
        };
        Ok(Some(Described {
            uuid: text("uuid"),
            engine: text("engine"),
            engine_full: text("engine_full"),
            create: text("create"),
            views: list("databases").into_iter().zip(list("views")).collect(),
        }))
    }
}

/// A setting in `MergeTree ORDER BY x SETTINGS a = 1, b = 2`.
fn own_setting(engine_full: &str, name: &str) -> Option<u64> {
    let (_, settings) = engine_full.rsplit_once("SETTINGS ")?;
    let mut pairs = settings.split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).and_then(|(_, value)| value.trim().parse().ok())
}

/// True for a view that is filled by a clock, not by inserts.
fn is_refreshed(create: &str) -> bool {
    head(create).contains(" REFRESH ")
}

/// A view's statement up to its columns or its query.
fn head(create: &str) -> &str {
    let end = create.find(" AS SELECT").or_else(|| create.find(" AS WITH")).unwrap_or(create.len());
    &create[..end]
}

/// The table that a view's rows go into: the one that it names, or its own.
fn target(database: &str, name: &str, view: &Described) -> (String, String) {
    if let Some((_, rest)) = head(&view.create).split_once(" TO ") {
        let (first, rest) = identifier(rest);
        return match rest.strip_prefix('.') {
            Some(rest) => (first, identifier(rest).0),
            None => (database.to_owned(), first),
        };
    }
    let has_uuid = view.uuid.bytes().any(|byte| byte != b'0' && byte != b'-');
    let inner = if has_uuid { format!(".inner_id.{}", view.uuid) } else { format!(".inner.{name}") };
    (database.to_owned(), inner)
}

/// The identifier at the beginning of `text`, and what follows it.
fn identifier(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('`') else {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '`' => return (name, &quoted[at + 1..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(create: &str, uuid: &str) -> Described {
        Described {
            uuid: uuid.into(),
            engine: "MaterializedView".into(),
            engine_full: String::new(),
            create: create.into(),
            views: Vec::new(),
        }
    }

    #[test]
    fn a_views_target_is_found() {
        let pair = |database: &str, name: &str| (database.to_owned(), name.to_owned());
        let none = "00000000-0000-0000-0000-000000000000";
        let to = |create: &str| target("d", "v", &view(create, none));
        assert_eq!(to("CREATE MATERIALIZED VIEW d.v TO e.t (`x` UInt8) AS SELECT x FROM d.a"), pair("e", "t"));
        assert_eq!(to("CREATE MATERIALIZED VIEW d.v TO `e f`.`t\\`.x` (`x` UInt8) AS SELECT 1"), pair("e f", "t`.x"));
        let inner =
            "CREATE MATERIALIZED VIEW d.v (`x` String) ENGINE = MergeTree ORDER BY x AS SELECT ' TO x' FROM d.a";
        assert_eq!(to(inner), pair("d", ".inner.v"));
        let uuid = "237d35a2-1c07-4c30-a59e-0f38f76273ec";
        assert_eq!(target("d", "v", &view(inner, uuid)), pair("d", &format!(".inner_id.{uuid}")));
    }

    #[test]
    fn a_view_that_is_filled_by_a_clock_takes_no_inserts() {
        assert!(is_refreshed("CREATE MATERIALIZED VIEW d.v REFRESH EVERY 1 HOUR TO d.t (`x` UInt8) AS SELECT 1"));
        assert!(!is_refreshed("CREATE MATERIALIZED VIEW d.v TO d.t (`x` UInt8) AS SELECT ' REFRESH '"));
    }

    #[test]
    fn a_tables_own_settings_are_read() {
        let engine =
            "MergeTree ORDER BY x SETTINGS non_replicated_deduplication_window = 100, index_granularity = 8192";
        assert_eq!(own_setting(engine, "non_replicated_deduplication_window"), Some(100));
        assert_eq!(own_setting(engine, "index_granularity"), Some(8192));
        assert_eq!(own_setting(engine, "window"), None);
        assert_eq!(own_setting("Memory", "window"), None);
    }
}
