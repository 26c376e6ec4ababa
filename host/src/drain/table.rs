//! What a drain asks of its table, and what follows from the answers.

use std::sync::Arc;

use super::rows::RowEncoder;
use super::sender::{Ask, Target, Ticket, Told, Trouble};
use super::step::Sent;
use super::task::Task;
use super::{Drain, DrainError, DrainSettings};
use crate::clickhouse::{BlockId, Encoder};
use crate::record::Place;

/// How often a table that can't be had is asked for again, and one that is there is looked over for new columns.
const TROUBLE_INTERVAL_MS: u64 = 1_000;
const DESCRIBE_INTERVAL_MS: u64 = 15_000;

impl Drain {
    /// Asks for the table: at first, when it can't be had, and now and then for its columns.
    pub(super) fn describe(&mut self, now_ms: u64) -> Result<(), DrainError> {
        if self.describing || now_ms < self.describe_at_ms {
            return Ok(());
        }
        self.describing = true;
        self.sender.ask(Ask::Describe)
    }

    fn described(&mut self, answer: Result<(Arc<Target>, Box<Encoder>), Trouble>, now_ms: u64) {
        self.describing = false;
        let interval_ms =
            if let Err(Trouble::Passing(_)) = answer { TROUBLE_INTERVAL_MS } else { DESCRIBE_INTERVAL_MS };
        self.describe_at_ms = now_ms + interval_ms;
        match answer {
            Ok((target, encoder)) => {
                self.table_trouble = None;
                let is_new = self.target.as_ref().is_none_or(|old| {
                    (&old.table.schema_digest, &old.table.uuid) != (&target.table.schema_digest, &target.table.uuid)
                });
                if is_new {
                    self.adopt(&target, *encoder);
                }
                self.target = Some(target);
            }
            Err(trouble) => {
                if self.table_trouble.as_ref() != Some(&trouble) {
                    let why = trouble.text();
                    tracing::warn!(output = self.settings.output, "the table can't be used: {why}");
                }
                self.table_trouble = Some(trouble);
            }
        }
    }

    /// Encodes for the table as it is now.
    fn adopt(&mut self, target: &Target, encoder: Encoder) {
        let DrainSettings { output, pipeline, letter_bytes_max, of_dead_letters, .. } = &self.settings;
        self.encoder = Some(RowEncoder::new(encoder, (pipeline, output), *letter_bytes_max, *of_dead_letters));
        if self.target.is_none() {
            target.notes().iter().for_each(|note| tracing::warn!(output, "{note}"));
        } else {
            tracing::info!(output, "the table has changed; what is not sent yet is encoded anew");
        }
        self.tickets.clear();
        self.tasks.values_mut().for_each(Task::restart_encoding);
    }

    pub(super) fn hear(&mut self, told: Told, now_ms: u64) -> Result<(), DrainError> {
        match told {
            Told::Described(answer) => self.described(answer, now_ms),
            Told::Looked { ticket, found } => {
                self.readings.doubts += 1;
                let found = found.map_err(|why| self.note_trouble(why)).ok();
                if let Some(task) = self.asker(&ticket) {
                    task.looked(found, now_ms);
                }
            }
            Told::Sent { ticket, bytes, sent, time } => {
                match &sent {
                    Sent::Done => {
                        self.readings.insert_time.record_time(time);
                        self.clear_trouble();
                    }
                    Sent::Refused(why) | Sent::RefusedInPart(why) => {
                        tracing::warn!(output = self.settings.output, "{why}")
                    }
                    Sent::Unknown(why) | Sent::NotYet(why) | Sent::Stuck(why) | Sent::OtherTable(why) => {
                        self.readings.retries += 1;
                        self.note_trouble(why.clone());
                    }
                }
                if let Some(task) = self.asker(&ticket)
                    && task.sent(bytes, sent, now_ms)
                {
                    self.describe_at_ms = now_ms;
                }
            }
        }
        Ok(())
    }

    /// The task that still waits for this answer.
    fn asker(&mut self, ticket: &Ticket) -> Option<&mut Task> {
        let asked = |(_, own): &(&Place, &Arc<()>)| std::ptr::eq(Arc::as_ptr(own), ticket.as_ptr());
        let place = self.tickets.iter().find(asked)?.0.clone();
        self.tickets.remove(&place);
        self.tasks.get_mut(&place)
    }

    pub(super) fn ticket(&mut self, place: &Place) -> Ticket {
        let own = Arc::new(());
        let ticket = Arc::downgrade(&own);
        self.tickets.insert(place.clone(), own);
        ticket
    }

    fn note_trouble(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            tracing::warn!(output = self.settings.output, "nothing goes into the table for now: {why}");
            self.trouble = Some(why);
        }
    }

    fn clear_trouble(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(output = self.settings.output, "the table takes rows again");
        }
    }
}

impl DrainSettings {
    /// The token of a block of `target`.
    pub(super) fn token(&self, target: &Target, place: &Place, first: i64, last: i64) -> String {
        let block = BlockId {
            cluster_id: &self.cluster_id,
            topic_id: &self.topic_id,
            partition: place.partition,
            first_offset: first,
            last_offset: last,
            group: &self.group,
            pipeline: &self.pipeline,
            output: &self.output,
            table_uuid: &target.table.uuid,
            replay_epoch: self.table.replay_epoch,
        };
        block.token()
    }
}
