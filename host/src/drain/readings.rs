//! What a drain has done and measured, in plain numbers of which copies are handed out.

use std::collections::BTreeMap;

use super::block::Block;
use crate::metrics::{Histogram, LATENCY, RECORDS, TIME};
use crate::record::Place;

/// How a drain is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DrainState {
    /// It has not seen its table yet.
    #[default]
    Starting,
    /// Blocks go in as they come.
    Running,
    /// It tries again and again, for this reason.
    Waiting(String),
    /// Some partitions do nothing more, for this reason.
    Stopped(String),
}

/// What a drain has done; all of it is committed.
#[derive(Clone, Debug)]
pub struct DrainReadings {
    /// The output's name.
    pub output: String,
    /// How it is.
    pub state: DrainState,
    /// Records taken from the topic.
    pub records: u64,
    /// Rows that went into the table.
    pub rows: u64,
    /// Records without a value.
    pub tombstones: u64,
    /// Records that did not fit, by the reason's code.
    pub unfit: BTreeMap<&'static str, u64>,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of the rows, encoded.
    pub bytes: u64,
    /// Inserts that were tried again.
    pub retries: u64,
    /// How often the table had to be looked at for a block in doubt.
    pub doubts: u64,
    /// Rows in a block.
    pub block_rows: Histogram,
    /// An insert that succeeded.
    pub insert_time: Histogram,
    /// From a record's timestamp to the commit of its block, for each block's oldest record.
    pub latency: Histogram,
    /// The partitions that it has: the offset that is committed, and the one after the last record, if that is known.
    pub partitions: Vec<(Place, i64, Option<i64>)>,
}

impl DrainReadings {
    /// What a drain has measured before it began.
    pub fn new(output: &str) -> Self {
        Self {
            output: output.to_owned(),
            state: DrainState::Starting,
            records: 0,
            rows: 0,
            tombstones: 0,
            unfit: BTreeMap::new(),
            blocks: 0,
            bytes: 0,
            retries: 0,
            doubts: 0,
            block_rows: Histogram::new(&RECORDS),
            insert_time: Histogram::new(&TIME),
            latency: Histogram::new(&LATENCY),
            partitions: Vec::new(),
        }
    }

    /// By how many records the accounting is off: always 0.
    pub fn imbalance(&self) -> i64 {
        let out = self.rows + self.tombstones + self.unfit.values().sum::<u64>();
        self.records as i64 - out as i64
    }

    /// Takes a block into account that is committed.
    pub(super) fn committed(&mut self, block: &Block, wall_ms: u64) {
        self.records += block.records();
        self.rows += block.rows.len() as u64;
        self.tombstones += block.tombstones;
        for code in &block.codes {
            *self.unfit.entry(code).or_default() += 1;
        }
        if !block.rows.is_empty() {
            self.blocks += 1;
            self.bytes += block.bytes.len() as u64;
            self.block_rows.record(block.rows.len() as u64, 1);
        }
        if block.records() == 0 {
            return;
        }
        let oldest_ms = u64::try_from(block.oldest_ms).unwrap_or(wall_ms);
        self.latency.record(wall_ms.saturating_sub(oldest_ms) * 1_000, 1);
    }
}
