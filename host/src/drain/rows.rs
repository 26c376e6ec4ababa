//! Records as rows and dead letters, with the clickhouse room's encoder.

use super::step::{Encode, Encoded};
use crate::clickhouse::{Encoder, Lineage, dead_letter_json};
use crate::pipeline::DeadRow;
use crate::record::{Batch, Rows};
use crate::task::DeadLetterLabels;

/// Encodes the records of one topic for one table.
pub(super) struct RowEncoder {
    encoder: Encoder,
    labels: DeadLetterLabels,
    letter_bytes_max: usize,
    /// True where the records are dead letters themselves, with the reason in their headers.
    of_dead_letters: bool,
    scratch: Vec<u8>,
}

impl RowEncoder {
    /// Rows by `encoder`; dead letters name the pipeline and, as their stage, the output's table.
    pub(super) fn new(
        encoder: Encoder,
        (pipeline, output): (&str, &str),
        letter_bytes_max: usize,
        of_dead_letters: bool,
    ) -> Self {
        let stages = vec![(format!("table:{output}"), String::new())];
        let labels = DeadLetterLabels { pipeline: pipeline.to_owned(), stages };
        Self { encoder, labels, letter_bytes_max, of_dead_letters, scratch: Vec::new() }
    }
}

impl Encode for RowEncoder {
    fn row(&mut self, batch: &Batch, row: usize, out: &mut Vec<u8>) -> Encoded {
        let rows = &batch.rows;
        let value = rows.values.get(row);
        let value = if self.of_dead_letters {
            self.scratch = dead_letter_json(rows.keys.get(row), value, rows.headers.get(row), rows.timestamps_ms[row]);
            &self.scratch
        } else {
            match value {
                Some(value) => value,
                None => return Encoded::Tombstone,
            }
        };
        let lineage = Lineage {
            topic: &batch.topic,
            partition: batch.partition,
            offset: rows.offsets[row],
            timestamp_ms: rows.timestamps_ms[row],
        };
        match self.encoder.encode(value, lineage, out) {
            Ok(()) => Encoded::Row,
            Err(misfit) => Encoded::Unfit { code: misfit.why.code(), why: misfit.to_string() },
        }
    }

    fn dead_letter(&mut self, batch: &Batch, row: usize, code: &'static str, why: &str, to: &mut Rows) {
        let dead = DeadRow { source_row: row as u32, stage: 0, code: code.into(), detail: why.to_owned() };
        self.labels.push(to, (&batch.place(), &batch.rows, row), &dead, self.letter_bytes_max);
    }
}
