//! A table that is fed by a source without a log, such as files: at least once. A run that fails is run again from the
//! beginning, and its blocks, cut by rows and bytes alone, have the tokens that they had before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::block::{Block, Limits};
use super::rows::RowEncoder;
use super::sender::{Target, Trouble, describe, insert};
use super::step::{Encode as _, Encoded, Sent};
use super::task::{TRIES_MAX, pause_ms};
use super::wall_ms;
use super::{DrainReadings, DrainState};
use crate::clickhouse::{BlockId, Connection};
use crate::config::{ClickHouseConfig, Delivery};
use crate::record::{Batch, Place, Rows};

/// A table, and the block that is being filled for it.
pub struct DirectTable {
    config: ClickHouseConfig,
    pipeline: String,
    limits: Limits,
    /// For a source that does not end, rows go in also when they have waited for so long.
    interval: Option<Duration>,
    connection: Connection,
    target: Target,
    encoder: RowEncoder,
    /// Where the rows of the block come from.
    place: Place,
    block: Block,
    since: Option<Instant>,
    readings: DrainReadings,
    /// Copies of `readings` for others.
    shown: Arc<Mutex<DrainReadings>>,
}

impl DirectTable {
    /// Waits for the table of `output`; `flush_by_time` where the source does not end. What it does shows in `shown`.
    pub fn open(
        config: &ClickHouseConfig,
        (pipeline, output): (&str, &str),
        of_dead_letters: bool,
        flush_by_time: bool,
        shown: Arc<Mutex<DrainReadings>>,
    ) -> Result<Self, String> {
        let config = ClickHouseConfig { delivery: Delivery::AtLeastOnce, ..config.clone() };
        let connection = Connection::new(&config).map_err(|why| why.to_string())?;
        let (target, encoder) = patiently(|| match describe(&connection, &config) {
            Err(Trouble::Wrong(why)) => Err(why),
            Err(Trouble::Passing(why)) => Ok(Err(why)),
            Ok(described) => Ok(Ok(described)),
        })?;
        Ok(Self {
            limits: Limits::new(&config),
            interval: flush_by_time.then_some(config.flush_interval),
            pipeline: pipeline.to_owned(),
            encoder: RowEncoder::new(encoder, (pipeline, output), usize::MAX, of_dead_letters),
            connection,
            target,
            place: Place { topic: "".into(), partition: 0 },
            block: Block::new(0),
            since: None,
            readings: DrainReadings { state: DrainState::Running, ..DrainReadings::new(output) },
            shown,
            config,
        })
    }

    /// Takes rows of one partition, and returns the dead letters of those that do not fit.
    pub fn take(&mut self, place: &Place, rows: Rows) -> Result<Rows, String> {
        if self.place != *place {
            self.flush()?;
            self.place = place.clone();
        }
        let Place { topic, partition } = place.clone();
        let batch = Batch { topic, partition, first_offset: 0, next_offset: 0, rows };
        let mut dead = Rows::default();
        for row in 0..batch.rows.len() {
            let offset = batch.rows.offsets[row];
            if self.block.is_empty() {
                self.block = Block::new(offset);
                self.since = Some(Instant::now());
            }
            self.block.oldest_ms = self.block.oldest_ms.min(batch.rows.timestamps_ms[row]);
            match self.encoder.row(&batch, row, &mut self.block.bytes) {
                Encoded::Row => self.block.rows.push((offset, self.block.bytes.len())),
                Encoded::Tombstone => self.block.tombstones += 1,
                Encoded::Unfit { code, why } => {
                    self.encoder.dead_letter(&batch, row, code, &why, &mut dead);
                    self.block.dead.push(offset, 0, None, None);
                    self.block.codes.push(code);
                }
            }
            self.block.next = offset + 1;
            if self.block.is_full(&self.limits) {
                self.flush()?;
            }
        }
        self.flush_if_due()?;
        Ok(dead)
    }

    /// Sends the block where it has waited for long enough.
    pub fn flush_if_due(&mut self) -> Result<(), String> {
        let waited = |since: Instant| self.interval.is_some_and(|interval| since.elapsed() >= interval);
        if self.since.is_some_and(waited) { self.flush() } else { Ok(()) }
    }

    /// Sends the block until it is in; an error where that takes too long, or can't be.
    pub fn flush(&mut self) -> Result<(), String> {
        self.since = None;
        let block = std::mem::replace(&mut self.block, Block::new(0));
        if !block.rows.is_empty() {
            let token = self.token(&block);
            let (connection, target) = (&self.connection, &self.target);
            let started = Instant::now();
            let readings = &mut self.readings;
            patiently(|| match insert(connection, target, &block.bytes, &token) {
                Sent::Done => Ok(Ok(())),
                Sent::Refused(why) | Sent::RefusedInPart(why) | Sent::OtherTable(why) => Err(why),
                Sent::Unknown(why) | Sent::NotYet(why) | Sent::Stuck(why) => {
                    readings.retries += 1;
                    Ok(Err(why))
                }
            })?;
            self.readings.insert_time.record_time(started.elapsed());
        }
        self.readings.committed(&block, wall_ms());
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.readings);
        Ok(())
    }

    /// The token of a block: of its file and range, and of what it holds, since a file may be written anew.
    fn token(&self, block: &Block) -> String {
        let block = BlockId {
            cluster_id: "file",
            topic_id: &format!("{} {}", self.place.topic, block.sum()),
            partition: self.place.partition,
            first_offset: block.first,
            last_offset: block.next - 1,
            group: "",
            pipeline: &self.pipeline,
            output: &self.readings.output,
            table_uuid: &self.target.table.uuid,
            replay_epoch: self.config.replay_epoch,
        };
        block.token()
    }
}

/// Tries again while the inner error says that it may work later.
fn patiently<T>(mut work: impl FnMut() -> Result<Result<T, String>, String>) -> Result<T, String> {
    let mut tries = 0;
    loop {
        match work()? {
            Ok(done) => return Ok(done),
            Err(why) if tries + 1 >= TRIES_MAX => return Err(why),
            Err(why) if tries == 0 => tracing::warn!("nothing goes into the table for now: {why}"),
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(pause_ms(tries)));
        tries += 1;
    }
}
