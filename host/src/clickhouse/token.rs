//! A block's token: the same for the same block, whoever sends it, and another one for any other block.

use super::client::Client;
use super::error::RequestError;
use super::sql;
use super::table::Table;

/// Everything that tells a block from all others. Offsets alone do not: they come again in another topic, in one that was
/// made anew, in another output, and in a deliberate replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId<'a> {
    /// The Kafka cluster's id.
    pub cluster_id: &'a str,
    /// The topic's id, which a topic of the same name that is made anew does not share.
    pub topic_id: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset of the block's first record.
    pub first_offset: i64,
    /// The offset of its last record.
    pub last_offset: i64,
    /// The consumer group.
    pub group: &'a str,
    /// The pipeline.
    pub pipeline: &'a str,
    /// The output.
    pub output: &'a str,
    /// The table's UUID.
    pub table_uuid: &'a str,
    /// Another number lets the same records in again.
    pub replay_epoch: u64,
}

impl BlockId<'_> {
    /// The token: a SHA-256, in hexadecimal digits.
    pub fn token(&self) -> String {
        sql::digest(&[
            self.cluster_id.as_bytes(),
            self.topic_id.as_bytes(),
            &self.partition.to_le_bytes(),
            &self.first_offset.to_le_bytes(),
            &self.last_offset.to_le_bytes(),
            self.group.as_bytes(),
            self.pipeline.as_bytes(),
            self.output.as_bytes(),
            self.table_uuid.as_bytes(),
            &self.replay_epoch.to_le_bytes(),
        ])
    }
}

/// What a table holds of a range of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeCount {
    /// Rows.
    pub rows: u64,
    /// Different offsets among them; fewer than rows where records are there more than once.
    pub offsets: u64,
}

/// Counts the rows of the records `first..=last` by the table's lineage columns. Engines that merge rows, and a TTL, may
/// have taken away rows that were there: see [`Table::keeps_rows`].
pub async fn count_range(
    client: &Client,
    table: &Table,
    topic: &str,
    partition: i32,
    first: i64,
    last: i64,
) -> Result<RangeCount, RequestError> {
    let sql = format!(
        "SELECT count(), uniqExact(_offset) FROM {} WHERE _topic = {{topic:String}} AND _partition = {{partition:Int32}} \
         AND _offset BETWEEN {{first:Int64}} AND {{last:Int64}} FORMAT TabSeparated",
        table.sql_name()
    );
    let (partition, first, last) = (partition.to_string(), first.to_string(), last.to_string());
    let parameters = [("topic", topic), ("partition", &partition), ("first", &first), ("last", &last)];
    let answer = client.query(&sql, &parameters).await?.text();
    let counts = answer.split_once('\t').and_then(|(rows, offsets)| Some((rows.parse().ok()?, offsets.parse().ok()?)));
    let (rows, offsets) = counts.ok_or_else(|| RequestError::Answered {
        status: 200,
        code: None,
        text: format!("two counts are expected, found {} bytes", answer.len()),
    })?;
    Ok(RangeCount { rows, offsets })
}

impl Table {
    /// True where rows stay as they were inserted: the engine neither replaces nor sums them. Only then does a count that is
    /// too low mean that rows were never there.
    pub fn keeps_rows(&self) -> bool {
        matches!(self.engine.as_str(), "MergeTree" | "ReplicatedMergeTree" | "SharedMergeTree")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_block_is_in_its_token() {
        let id = BlockId {
            cluster_id: "c",
            topic_id: "t",
            partition: 1,
            first_offset: 2,
            last_offset: 3,
            group: "g",
            pipeline: "p",
            output: "o",
            table_uuid: "u",
            replay_epoch: 0,
        };
        let others = [
            BlockId { cluster_id: "x", ..id },
            BlockId { topic_id: "x", ..id },
            BlockId { partition: 2, ..id },
            BlockId { first_offset: 1, ..id },
            BlockId { last_offset: 4, ..id },
            BlockId { group: "x", ..id },
            BlockId { pipeline: "x", ..id },
            BlockId { output: "x", ..id },
            BlockId { table_uuid: "x", ..id },
            BlockId { replay_epoch: 1, ..id },
        ];
        assert_eq!((id.token(), id.token().len()), (id.token(), 64));
        assert!(others.iter().all(|other| other.token() != id.token()));
    }
}
