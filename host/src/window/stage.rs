//! The stage: records in, states kept, rows out when windows close.

use std::sync::Arc;

use super::aggregate::Aggregate;
use super::clock::Mark;
use super::keyed::Keyed;
use super::pair_plan::TaskPlace;
use super::plan::{LATE_OUTPUT, Late, ROWS_OUTPUT, Role, WindowPlan};
use super::plugin::PluginAggregate;
use super::rows::{self, Due};
use super::session::Sessions;
use super::shuffle::{self, Message};
use super::spec::{Ends, Kind, floor};
use crate::plugin::{Emitted, Rejection, StageError, StageInput, StageOutput, StageUsage, Verdict};
use crate::record::{Cell, ColumnData};
use crate::state::Entry;

/// A stage that aggregates one partition's records over windows.
#[derive(Debug)]
pub struct WindowStage {
    pub(super) plan: Arc<WindowPlan>,
    pub(super) aggregate: Aggregate,
    pub(super) keyed: Keyed,
    pub(super) log: super::log::Log,
    /// Rows that are due, in the order in which they leave.
    pub(super) due: Due,
    /// Pairs, and records without one, that are due; the row that each came from is told when they leave.
    pub(super) paired: Emitted,
    /// The task that this is part of.
    pub(super) origin: TaskPlace,
    /// Scratch space.
    pub(super) closing: Due,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What became of a record, or of a state that came from elsewhere.
pub(super) enum Fate {
    /// It is part of a state.
    Folded,
    /// All its windows were closed.
    Late,
    /// One like it came before.
    Duplicate,
    /// No state took it.
    Rejected(Rejection),
}

/// What is added to a state.
#[derive(Clone, Copy)]
pub(super) enum Piece<'a> {
    /// A row of the stage's input.
    Row(&'a StageInput<'a>, usize),
    /// A state that was made elsewhere.
    State(&'a [u8]),
}

impl WindowStage {
    /// A stage without states.
    pub fn new(plan: Arc<WindowPlan>, aggregate: Aggregate) -> Self {
        let keyed = Keyed::new(&plan.spec);
        let (due, closing) = (Due::default(), Due::default());
        let log = super::log::Log::default();
        let (paired, origin) = (Emitted::default(), TaskPlace::default());
        Self { plan, aggregate, keyed, log, due, paired, origin, closing, key: Vec::new(), value: Vec::new() }
    }

    /// Has it know the task that it is part of.
    pub fn begin_task(&mut self, place: TaskPlace) {
        self.origin = place;
    }

    /// What its plugin has used so far, if it has one.
    pub fn usage(&self) -> Option<&StageUsage> {
        match &self.aggregate {
            Aggregate::Functions(_) => None,
            Aggregate::Plugin(plugin) => Some(plugin.runner().usage()),
        }
    }

    /// Drops its plugin's instance; the states stay.
    pub fn end_block(&mut self) {
        self.aggregate.plugin().into_iter().for_each(PluginAggregate::end_block);
    }

    /// Takes rows, whose offsets these are, into states, and leaves what became of each, and the rows of windows that they
    /// closed, in `out`. On an error nothing has happened.
    pub fn run(&mut self, input: &StageInput<'_>, offsets: &[i64], out: &mut StageOutput) -> Result<(), StageError> {
        let (whole, rejected) = self.plan.decimals.convert(input);
        if whole.is_empty() {
            return self.run_numbers(input, offsets, rejected, out);
        }
        let mut columns = input.columns.to_vec();
        whole.iter().for_each(|(index, column)| columns[*index] = column);
        self.run_numbers(&StageInput { columns: &columns, ..*input }, offsets, rejected, out)
    }

    /// The same for rows whose numbers are integers, without those that are rejected already.
    fn run_numbers(
        &mut self,
        input: &StageInput<'_>,
        offsets: &[i64],
        mut rejected: Vec<Rejection>,
        out: &mut StageOutput,
    ) -> Result<(), StageError> {
        if self.aggregate.may_reject() {
            self.keyed.save();
        }
        loop {
            *out = StageOutput { verdicts: Vec::with_capacity(input.rows), ..StageOutput::default() };
            let passed = match self.plan.role {
                Role::Merge => self.merge_rows(input, offsets, out).map(|()| Vec::new()),
                _ if let Kind::Pairs { within_us } = self.plan.spec.kind => {
                    self.pass_halves(input, offsets, within_us, out).map(|()| Vec::new())
                }
                Role::Whole | Role::Partial => self.pass(input, offsets, &rejected, out),
            };
            match passed.and_then(|found| self.sound().map(|()| found)) {
                Ok(found) if found.is_empty() => return Ok(()),
                // As if these rows had not been there: their time counts for nothing either.
                Ok(found) => {
                    self.keyed.roll_back(&self.plan.spec);
                    self.due.clear();
                    self.aggregate.plugin().into_iter().for_each(PluginAggregate::forget);
                    rejected.extend(found);
                    rejected.sort_by_key(|rejection| rejection.row);
                }
                Err(why) => {
                    self.keyed.roll_back(&self.plan.spec);
                    self.due.clear();
                    self.aggregate.plugin().into_iter().for_each(PluginAggregate::forget);
                    return Err(why);
                }
            }
        }
    }

    /// Goes through the rows without those that were rejected; returns those that are to be, too.
    fn pass(
        &mut self,
        input: &StageInput<'_>,
        offsets: &[i64],
        rejected: &[Rejection],
        out: &mut StageOutput,
    ) -> Result<Vec<Rejection>, StageError> {
        let mut found = Vec::new();
        let mut rejected = rejected.iter().peekable();
        for (row, &offset) in offsets.iter().enumerate() {
            if let Some(why) = rejected.next_if(|why| why.row == row) {
                out.verdicts.push(Verdict::Reject);
                out.rejections.push(why.clone());
                continue;
            }
            let Some(event_us) = self.admit(input, row, out) else { continue };
            let fate = self.fold((event_us, event_us), Piece::Row(input, row))?;
            match fate {
                Fate::Folded => out.verdicts.push(if self.plan.forward { Verdict::Forward } else { Verdict::Fold }),
                Fate::Late => self.late(event_us, input, row, out),
                Fate::Duplicate => {
                    out.verdicts.push(Verdict::Duplicate);
                    continue;
                }
                Fate::Rejected(why) => {
                    out.verdicts.push(Verdict::Drop);
                    found.push(why);
                    continue;
                }
            }
            let before_us = self.keyed.clock.watermark_us;
            if self.keyed.clock.advance(event_us, &self.plan.spec) && self.is_due(before_us) {
                found.extend(self.flush(input)?);
                self.moved(before_us)?;
            }
            if !found.is_empty() {
                return Ok(found);
            }
            self.emit(row as u32, version_of(offset), &mut out.emitted)?;
        }
        found.extend(self.flush(input)?);
        Ok(found)
    }

    /// Has the plugin fold the rows that wait for it; returns those that it rejected.
    pub(super) fn flush(&mut self, input: &StageInput<'_>) -> Result<Vec<Rejection>, StageError> {
        let Some(plugin) = self.aggregate.plugin().filter(|plugin| plugin.has_pending()) else { return Ok(Vec::new()) };
        let store = &self.keyed.store;
        let is_session = matches!(self.plan.spec.kind, Kind::Session { .. });
        // Rows wait for keys with one session only.
        let only = |entry| Sessions::of(store.value(entry)).iter().next().filter(|_| is_session);
        let state = |entry| match only(entry) {
            Some(session) => &store.value(entry)[session.state],
            None => store.value(entry),
        };
        let mut made: Vec<(Entry, Vec<u8>)> = Vec::new();
        let rejections = plugin.flush(input, state, |entry, state| match only(entry) {
            Some(session) => {
                let mut value = Vec::new();
                session.push(state, &mut value);
                made.push((entry, value));
            }
            None => made.push((entry, state.to_vec())),
        })?;
        made.into_iter().for_each(|(entry, value)| self.keyed.store.set(entry, &value));
        Ok(rejections)
    }

    /// True where the watermark, which was at `before_us`, has passed something.
    fn is_due(&mut self, before_us: i64) -> bool {
        let watermark_us = self.keyed.clock.watermark_us;
        self.plan.role != Role::Partial
            && (watermark_us >= self.keyed.next_close(before_us, &self.plan.spec) || self.shows_early(before_us))
    }

    fn shows_early(&self, before_us: i64) -> bool {
        let watermark_us = self.keyed.clock.watermark_us;
        let passed = |early_us| floor(before_us, early_us, 0) != floor(watermark_us, early_us, 0);
        before_us != i64::MIN && self.plan.spec.early_us.is_some_and(passed)
    }

    /// The row's event time, with its key in `self.key`; `None` where it was rejected.
    fn admit(&mut self, input: &StageInput<'_>, row: usize, out: &mut StageOutput) -> Option<i64> {
        let stamp_ms = input.timestamps_ms.map_or(-1, |times| times[row]);
        let event_us = match self.plan.time_column.map(|column| &input.columns[column]) {
            Some(column) => match &column.data {
                ColumnData::Int64(values) if column.cells[row] == Cell::Valid => values[row],
                _ => -1,
            },
            None if stamp_ms < 0 => {
                reject(out, row, "no_event_time", "the record has no timestamp".to_owned());
                return None;
            }
            None => stamp_ms.saturating_mul(1_000),
        };
        // A record's own time can't vouch for itself.
        let stamp_ms = if self.plan.time_column.is_some() { stamp_ms } else { -1 };
        self.key.clear();
        let judged = self.keyed.clock.judge(event_us, stamp_ms, &self.plan.spec);
        let keys = (&input.columns[..self.plan.key_names.len()], self.plan.key_parts.as_slice());
        match judged.and_then(|()| rows::push_key(keys, row, &mut self.key)) {
            Ok(()) => Some(event_us),
            Err((code, detail)) => {
                reject(out, row, code, detail);
                None
            }
        }
    }

    /// Adds a piece whose events lie between two times to the state of the key in `self.key`.
    fn fold(&mut self, times_us: (i64, i64), piece: Piece<'_>) -> Result<Fate, StageError> {
        match self.plan.spec.kind {
            Kind::Fixed { size_us, every_us, part_us, offset_us } => {
                let part_us = floor(times_us.0, part_us, offset_us);
                self.fold_part(part_us, Ends::of((size_us, every_us), offset_us, part_us), piece)
            }
            Kind::Session { gap_us } => self.fold_session(times_us, gap_us, piece),
            Kind::Duplicates { within_us } => Ok(self.note_once(times_us.0, within_us)),
            // Halves are never folded: each stays the record that it is.
            Kind::Pairs { .. } => Ok(Fate::Late),
        }
    }

    /// A row that came too late for all its windows.
    pub(super) fn late(&mut self, event_us: i64, input: &StageInput<'_>, row: usize, out: &mut StageOutput) {
        let watermark_us = self.keyed.clock.watermark_us;
        if self.plan.late == Late::DeadLetter {
            let (event, watermark) = (super::clock::show(event_us), super::clock::show(watermark_us));
            let detail = format!("the event time {event} came when all before {watermark} was closed");
            return reject(out, row, "late", detail);
        }
        out.verdicts.push(if self.plan.forward { Verdict::Forward } else { Verdict::Late });
        // One that goes on is counted as late for a window.
        self.log.note_late(u64::from(self.plan.forward));
        if self.plan.late == Late::Forward {
            return;
        }
        let key = input.keys.and_then(|keys| keys.get(row));
        let value = input.values.and_then(|values| values.get(row));
        push_emitted(&mut out.emitted, (LATE_OUTPUT, row as u32), key, value);
    }

    /// Merges states that other partitions sent, and hears how far these have got.
    fn merge_rows(&mut self, input: &StageInput<'_>, offsets: &[i64], out: &mut StageOutput) -> Result<(), StageError> {
        for (row, &offset) in offsets.iter().enumerate() {
            let value = input.values.and_then(|values| values.get(row));
            let before_us = self.keyed.clock.watermark_us;
            match value.and_then(shuffle::read) {
                Some(Message::Mark { partition, partitions, mark }) => {
                    out.verdicts.push(Verdict::Drop);
                    if self.keyed.clock.hear(partition, partitions, mark) {
                        self.moved(before_us)?;
                    }
                }
                Some(Message::Half(half)) if let Kind::Pairs { within_us } = self.plan.spec.kind => {
                    self.key.clear();
                    self.key.extend_from_slice(input.keys.and_then(|keys| keys.get(row)).unwrap_or_default());
                    self.merge_half(&half, within_us, row, out);
                }
                Some(Message::Part { bucket, first_end_us, value }) => {
                    self.key.clear();
                    self.key.extend_from_slice(input.keys.and_then(|keys| keys.get(row)).unwrap_or_default());
                    if first_end_us != i64::MIN {
                        rows::push_later(&mut self.key, first_end_us);
                    }
                    self.merge_part(bucket, value, row, out)?;
                }
                Some(Message::Half(_)) | None => {
                    reject(out, row, "unreadable", "no state that this stage has written".to_owned())
                }
            }
            self.emit(row as u32, version_of(offset), &mut out.emitted)?;
        }
        Ok(())
    }

    /// Adds a state that came from another partition; a state of sessions may hold several.
    fn merge_part(&mut self, bucket: i64, value: &[u8], row: usize, out: &mut StageOutput) -> Result<(), StageError> {
        let (mut late, mut rejected) = (0, None);
        let mut add = |stage: &mut Self, times_us, state: &[u8]| -> Result<bool, StageError> {
            if !stage.aggregate.fits(state) {
                return Ok(false);
            }
            match stage.fold(times_us, Piece::State(state))? {
                Fate::Folded | Fate::Duplicate => {}
                Fate::Late => late += 1,
                Fate::Rejected(why) => rejected = Some(why),
            }
            Ok(true)
        };
        let mut readable = true;
        match self.plan.spec.kind {
            // Parts are no halves.
            Kind::Pairs { .. } => readable = false,
            Kind::Fixed { .. } | Kind::Duplicates { .. } => readable = add(self, (bucket, bucket), value)?,
            Kind::Session { .. } => {
                for session in Sessions::of(value).iter() {
                    readable &= add(self, (session.first_us, session.last_us), &value[session.state.clone()])?;
                }
            }
        }
        if let Some(why) = rejected {
            out.verdicts.push(Verdict::Reject);
            out.rejections.push(Rejection { row, ..why });
            return Ok(());
        }
        match (readable, late) {
            (true, 0) => out.verdicts.push(Verdict::Fold),
            (false, _) => reject(out, row, "unreadable", "a state that this stage can't read".to_owned()),
            (true, _) => {
                let watermark = super::clock::show(self.keyed.clock.watermark_us);
                let detail = format!("a state of records that came when all before {watermark} was closed");
                reject(out, row, "late", detail);
            }
        }
        Ok(())
    }

    /// The watermark has moved from `before_us`: closes what is due, and shows what is open where that is asked for.
    pub(super) fn moved(&mut self, before_us: i64) -> Result<(), StageError> {
        if self.plan.role == Role::Partial {
            return Ok(());
        }
        let watermark_us = self.keyed.clock.watermark_us;
        if watermark_us >= self.keyed.next_close(before_us, &self.plan.spec) {
            self.close(before_us)?;
        }
        if self.shows_early(before_us) {
            self.show_open()?;
        }
        Ok(())
    }

    /// Moves the rows that are due to the output, as made by the input's `row`.
    pub(super) fn emit(&mut self, row: u32, version: i64, to: &mut Emitted) -> Result<(), StageError> {
        if !self.paired.is_empty() {
            let paired = &mut self.paired;
            to.output.append(&mut paired.output);
            to.row.resize(to.output.len(), row);
            paired.keys.iter().for_each(|key| to.keys.push(key));
            paired.values.iter().for_each(|value| to.values.push(value));
            paired.clear();
        }
        if self.due.is_empty() {
            return Ok(());
        }
        let failed = self.aggregate.finish(&self.due)?;
        let mut failed = failed.iter().peekable();
        let version = self.plan.spec.has_versions.then_some(version);
        for at in 0..self.due.len() {
            if let Some(why) = failed.next_if(|why| why.row == at) {
                let (key, end) = (self.due.keys.get(at).escape_ascii(), super::clock::show(self.due.ends_us[at]));
                tracing::error!("the row of the window of {key} that ends at {end} can't be made: {}", why.detail);
                self.log.note_unfinished();
                continue;
            }
            let values = &mut to.values;
            rows::push_head(&self.plan.key_names, &self.due, at, version, &mut values.packed.data);
            self.aggregate.push_columns(&self.due, at, &mut values.packed.data);
            values.packed.data.push(b'}');
            values.end_row();
            to.keys.push(rows::record_key(self.due.keys.get(at)).as_deref());
            to.output.push(ROWS_OUTPUT);
            to.row.push(row);
        }
        self.due.clear();
        Ok(())
    }

    /// What the partition says of itself to those who merge its states.
    pub(super) fn mark(&self) -> Mark {
        Mark { watermark_us: self.keyed.clock.watermark_us, idle: self.keyed.clock.idle }
    }
}

/// The version of rows that the record at this offset caused; between two of them fits one that time caused.
fn version_of(offset: i64) -> i64 {
    offset.wrapping_add(1).wrapping_mul(2)
}

pub(super) fn push_emitted(to: &mut Emitted, (output, row): (u32, u32), key: Option<&[u8]>, value: Option<&[u8]>) {
    to.output.push(output);
    to.row.push(row);
    to.keys.push(key);
    to.values.push(value);
}

pub(super) fn reject(out: &mut StageOutput, row: usize, code: &str, detail: String) {
    out.verdicts.push(Verdict::Reject);
    out.rejections.push(Rejection { row, code: code.to_owned(), detail, fault: None });
}
