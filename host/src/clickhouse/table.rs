//! What the server says of a table.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::Client;
use super::error::RequestError;
use super::sql;
use super::types::{Type, TypeError};
use super::zone::Zone;

/// A table as it is on the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// What tells it from another that had the same name before; the name itself in databases that give none.
    pub uuid: String,
    /// Its engine, such as `MergeTree`.
    pub engine: String,
    /// True where it is divided by no key, so that all rows of a block become visible at once.
    pub is_undivided: bool,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Tells whether names, types or defaults changed, as 16 hexadecimal digits.
    pub schema_digest: String,
    pub(super) zones: BTreeMap<String, Zone>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// The type's name.
    pub type_text: String,
    /// What it holds where a row has no value for it.
    pub default: DefaultKind,
}

/// What a column holds where a row has no value for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultKind {
    /// Nothing is declared.
    None,
    /// The value of an expression.
    Default,
    /// The value of an expression, always.
    Materialized,
    /// It is not stored, but computed when it is read.
    Alias,
    /// It is not stored, and only serves other columns' expressions.
    Ephemeral,
}

/// A table that can't be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// The server does not answer, or says no.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It answers what makes no sense here.
    #[error("the server describes {table} in a way that is not understood: {why}")]
    Answer {
        /// The table.
        table: String,
        /// What is not understood.
        why: String,
    },
}

/// ClickHouse's code for a table that is not there.
const UNKNOWN_TABLE: u32 = 60;

/// Seconds of UTC since 1970 at which a zone's offset changes, with the offset from then on. The days on which it does are
/// found first, and then the quarter of an hour; the offset at the first moment is always given.
const ZONE_SQL: &str = "\
SELECT toString(since), toString(ahead) FROM (
    SELECT since, timezoneOffset(toDateTime64(since, 0, {zone:String})) AS ahead,
        lagInFrame(ahead, 1, -1000000) OVER (ORDER BY since) AS before
    FROM (SELECT DISTINCT arrayJoin(arrayMap(i -> day + i * 900, range(97))) AS since FROM (
        SELECT toInt64(number) * 86400 - 2208988800 AS day FROM numbers(146096)
        WHERE number = 0 OR timezoneOffset(toDateTime64(day, 0, {zone:String}))
            != timezoneOffset(toDateTime64(day + 86400, 0, {zone:String}))))
) WHERE ahead != before ORDER BY since FORMAT TabSeparated";

impl Table {
    /// Asks for a table.
    pub async fn describe(client: &Client, database: &str, name: &str) -> Result<Self, DescribeError> {
        let table = format!("{database}.{name}");
        let wrong = |why: String| DescribeError::Answer { table: table.clone(), why };
        let schema = Schema::read(client, database, name).await?;
        let columns = schema.rows.iter().map(Column::read).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| wrong(error.to_string()))?;
        let (uuid, engine, is_undivided) = identity(client, database, name).await?;
        Ok(Self {
            database: database.to_owned(),
            name: name.to_owned(),
            uuid: if uuid.is_empty() { table.clone() } else { uuid },
            engine,
            is_undivided,
            zones: zones(client, &columns, &wrong).await?,
            columns,
            schema_digest: schema.digest,
        })
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// True where the table says of each row which record it was.
    pub fn has_lineage(&self) -> bool {
        ["_topic", "_partition", "_offset"].iter().all(|name| self.column(name).is_some())
    }

    /// The table's name in SQL.
    pub(super) fn sql_name(&self) -> String {
        format!("{}.{}", sql::name(&self.database), sql::name(&self.name))
    }
}

/// The columns of a table as the server gives them, and the digest over them.
pub(super) struct Schema {
    rows: Vec<Value>,
    pub(super) digest: String,
}

impl Schema {
    pub(super) async fn read(client: &Client, database: &str, name: &str) -> Result<Self, RequestError> {
        // DESCRIBE breaks long types into lines, for people.
        let sql = "SELECT name, type, default_kind, default_expression FROM system.columns \
                   WHERE database = {database:String} AND table = {name:String} ORDER BY position FORMAT JSONEachRow";
        let answer = client.query(sql, &[("database", database), ("name", name)]).await?;
        let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let rows = lines.map(serde_json::from_slice).collect::<Result<Vec<Value>, _>>();
        let answered = |status, code, text: String| RequestError::Answered { status, code, text };
        let rows = rows.map_err(|error| answered(200, None, format!("no JSON in the answer: {error}")))?;
        if rows.is_empty() {
            let text = format!("there is no table {database}.{name}, or this user may not see it");
            return Err(answered(404, Some(UNKNOWN_TABLE), text));
        }
        let keys = ["name", "type", "default_kind", "default_expression"];
        let texts: Vec<String> = rows.iter().flat_map(|row| keys.map(|key| text(row, key))).collect();
        let parts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        Ok(Self { digest: sql::short_digest(&parts), rows })
    }
}

impl Column {
    fn read(row: &Value) -> Result<Self, TypeError> {
        let type_text = text(row, "type");
        let default = match text(row, "default_kind").as_str() {
            "DEFAULT" => DefaultKind::Default,
            "MATERIALIZED" => DefaultKind::Materialized,
            "ALIAS" => DefaultKind::Alias,
            "EPHEMERAL" => DefaultKind::Ephemeral,
            _ => DefaultKind::None,
        };
        Ok(Self { name: text(row, "name"), ty: Type::parse(&type_text)?, type_text, default })
    }
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().to_owned()
}

/// The table's UUID (none in some databases) and engine.
async fn identity(client: &Client, database: &str, name: &str) -> Result<(String, String, bool), RequestError> {
    let sql = "SELECT if(uuid = toUUID('00000000-0000-0000-0000-000000000000'), '', toString(uuid)), engine, \
               partition_key = '' \
               FROM system.tables WHERE database = {database:String} AND name = {name:String} FORMAT TabSeparated";
    let answer = client.query(sql, &[("database", database), ("name", name)]).await?.text();
    let mut parts = answer.split('\t').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    Ok((part(), part(), part() == "1"))
}

async fn zones(
    client: &Client,
    columns: &[Column],
    wrong: &impl Fn(String) -> DescribeError,
) -> Result<BTreeMap<String, Zone>, DescribeError> {
    let mut names = Vec::new();
    columns.iter().for_each(|column| column.ty.each_zone(&mut |zone| names.push(zone.to_owned())));
    names.sort();
    names.dedup();
    let mut zones = BTreeMap::new();
    for name in names {
        let answer = client.query(ZONE_SQL, &[("zone", &name)]).await?.text();
        let change = |line: &str| {
            let (since, ahead) = line.split_once('\t')?;
            Some((since.parse().ok()?, ahead.parse().ok()?))
        };
        let changes = answer.lines().map(change).collect::<Option<Vec<_>>>();
        let changes = changes.ok_or_else(|| wrong(format!("its time zone {name}")))?;
        zones.insert(name, Zone::new(changes));
    }
    Ok(zones)
}
