//! What can be learnt of a block that was sent and never answered for.

use super::checks::Guarantee;
use super::client::Client;
use super::error::RequestError;
use super::sql;
use super::table::Table;
use super::token::count_range;

/// What the server knows of a block in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Rows of the block's records; `None` where the table has no lineage columns.
    pub rows: Option<u64>,
    /// A count of the blocks that the tables on the way have ever taken.
    pub blocks: u64,
    /// True while the server still works at an insert under the block's token.
    pub running: bool,
}

/// Counts the blocks that a table and those behind it have taken: of each partition the highest block number, which rises
/// with every block. The difference to an earlier count is no less than what any one of them has taken since, unless
/// partitions were dropped in between.
pub async fn count_blocks(client: &Client, guarantee: &Guarantee) -> Result<u64, RequestError> {
    let tables: Vec<String> = guarantee
        .tables
        .iter()
        .map(|(database, table)| format!("({}, {})", sql::text(database), sql::text(table)))
        .collect();
    let sql = format!(
        "SELECT sum(highest) FROM (SELECT toUInt64(max(max_block_number)) AS highest FROM system.parts \
         WHERE (database, table) IN ({}) GROUP BY database, table, partition_id) FORMAT TabSeparated",
        tables.join(", ")
    );
    Ok(client.query(&sql, &[]).await?.text().parse().unwrap_or(0))
}

/// Looks for the rows of records `first..=last`, and for an insert of theirs that is still under way.
pub async fn look(
    client: &Client,
    (table, guarantee): (&Table, &Guarantee),
    (topic, partition): (&str, i32),
    (first, last): (i64, i64),
    token: &str,
) -> Result<Evidence, RequestError> {
    let running = "SELECT count() FROM system.processes WHERE query_id = {token:String} FORMAT TabSeparated";
    let running = client.query(running, &[("token", token)]).await?.text() != "0";
    let blocks = count_blocks(client, guarantee).await?;
    // Rows that were summed or collapsed do not tell how many there were; of replaced ones the newest stays.
    let stay = table.keeps_rows() || table.engine.contains("Replacing");
    let rows = if table.has_lineage() && stay {
        Some(count_range(client, table, topic, partition, first, last).await?.rows)
    } else {
        None
    };
    Ok(Evidence { rows, blocks, running })
}
