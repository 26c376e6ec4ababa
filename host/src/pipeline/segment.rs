//! Some stages over one parse of the records: extract, run each stage on columns, splice.

use std::borrow::Cow;

use crate::plugin::{MAIN_OUTPUT, SAME_ROUTE, StageError, StageInput, StageOutput, TableField, Verdict};
use crate::record::json::{Extractor, Sites, Splicer};
use crate::record::{Cell, Column, Headers, Op, OptionalBytes, Rows, SOURCE_ERROR_HEADER, Written};

use super::join::{NO_MATCH, shown};
use super::joined::value;
use super::overlay::{
    copy_headers, for_each_row, gather_bytes, gather_headers, merge, overlay, overlay_bytes, push_key,
};
use super::plan::{Segment, StagePlan, StageSpec, type_name};
use super::run::{DeadRow, Flow, Side, place};
use super::{OutputIndex, Pipeline, Stage};

/// Scratch space of one segment; "dense" rows are those that could be parsed.
#[derive(Debug, Default)]
pub(super) struct SegmentRun {
    json: Option<(Extractor, Splicer)>,
    sites: Sites,
    columns: Vec<Column>,
    /// What the current stage joins, by dense row.
    joined: Vec<Column>,
    /// Row of the segment's input for each dense row.
    input_rows: Vec<u32>,
    source_rows: Vec<u32>,
    routes: Vec<OutputIndex>,
    alive: Vec<bool>,
    tombstones: Vec<bool>,
    written: Vec<Option<Written>>,
    parts: PartsWritten,
    /// The dense rows that the current stage is called with.
    call_rows: Vec<u32>,
    gathered: Gathered,
    output: StageOutput,
}

/// Parts of the records that stages replaced, by dense row.
#[derive(Debug, Default)]
struct PartsWritten {
    keys: Option<OptionalBytes>,
    values: Option<OptionalBytes>,
    headers: Option<Headers>,
    timestamps_ms: Option<Vec<i64>>,
}

/// A stage's input where it is not all rows.
#[derive(Debug, Default)]
struct Gathered {
    columns: Vec<Column>,
    keys: OptionalBytes,
    values: OptionalBytes,
    headers: Headers,
    timestamps_ms: Vec<i64>,
    offsets: Vec<i64>,
}

impl SegmentRun {
    /// Runs the segment's stages over the batch's rows, or over those that the segment before left.
    pub(super) fn run(
        &mut self,
        pipeline: &Pipeline,
        segment: &Segment,
        stages: &mut [Stage],
        (rows, from): (&Rows, Option<&Flow>),
        to: &mut Flow,
        side: &mut Side,
    ) -> Result<(), StageError> {
        let input = from.map_or(rows, |flow| &flow.rows);
        let first_stage = segment.stages.first().map_or(pipeline.stages.len(), |plan| plan.index);
        self.parse(segment, input, from, first_stage, side);
        for plan in &segment.stages {
            let spec = &pipeline.stages[plan.index];
            self.joined.clear();
            if let Some(joined) = stages[plan.index].joined().filter(|_| !spec.joins.is_empty()) {
                let reads: Vec<&Column> = plan.reads.iter().map(|&slot| &self.columns[slot]).collect();
                joined.look_up(&reads, &self.alive, &mut self.joined);
            }
            self.admit(spec, plan, side);
            if !self.call_rows.is_empty() {
                self.call(spec, plan, &mut stages[plan.index], input)?;
                self.apply_verdicts(spec, plan.index, side);
                self.apply_writes(segment, plan);
                self.apply_parts(input);
                self.take_emitted(spec, plan.index, side);
            }
        }
        let next_stage = segment.stages.last().map_or(pipeline.stages.len(), |plan| plan.index + 1);
        self.leave(segment, input, to, next_stage, side);
        Ok(())
    }

    /// Extracts the segment's fields from every record that is JSON; the others become dead letters.
    fn parse(&mut self, segment: &Segment, input: &Rows, from: Option<&Flow>, stage: usize, side: &mut Side) {
        self.reset(segment);
        for row in 0..input.len() {
            let (source_row, route) = place(from, row);
            let value = input.values.get(row);
            if let Some(reason) = unreadable(input, row).filter(|_| from.is_none()) {
                turn_away(side, source_row, stage, "unreadable", reason);
                continue;
            }
            if let Some((extractor, _)) = &mut self.json {
                let json = value.unwrap_or(b"{}");
                let parsed = extractor.extract(json, &mut self.columns, &mut self.sites);
                if let Err(error) = parsed {
                    turn_away(side, source_row, stage, "invalid_json", error.to_string());
                    continue;
                }
            }
            self.input_rows.push(row as u32);
            self.source_rows.push(source_row);
            self.routes.push(route);
            self.alive.push(true);
            self.tombstones.push(value.is_none());
        }
    }

    fn reset(&mut self, segment: &Segment) {
        if let (Some(plan), None) = (&segment.json, &self.json) {
            self.json = Some((Extractor::new(plan.clone()), Splicer::new(plan.clone())));
        }
        if self.columns.len() != segment.slots.len() {
            self.columns = segment.slots.iter().map(|slot| Column::new(slot.ty)).collect();
        }
        self.columns.iter_mut().for_each(Column::clear);
        self.sites.clear();
        self.input_rows.clear();
        self.source_rows.clear();
        self.routes.clear();
        self.alive.clear();
        self.tombstones.clear();
        self.written.clear();
        self.written.resize_with(segment.writes.len(), || None);
        self.parts = PartsWritten::default();
    }

    /// Chooses the rows that the stage sees: those that hold what it reads, in the type that it reads.
    fn admit(&mut self, spec: &StageSpec, plan: &StagePlan, side: &mut Side) {
        self.call_rows.clear();
        let counts = &mut side.counts[plan.index];
        for row in 0..self.alive.len() {
            if !self.alive[row] {
                continue;
            }
            counts.entered += 1;
            if self.tombstones[row] {
                if spec.tombstones {
                    self.call_rows.push(row as u32);
                } else {
                    counts.forwarded += 1;
                }
                continue;
            }
            let judged = if spec.lenient { 0 } else { plan.reads.len() };
            let fault = (0..judged).find_map(|i| {
                let cell = self.columns[plan.reads[i]].cells[row];
                field_fault(cell, spec.reads[i].required).map(|code| (i, cell, code))
            });
            let unjoined = || self.unjoined(spec, plan, row);
            let Some((code, detail)) =
                fault.map(|(read, cell, code)| (code, wrong_field(spec, read, cell))).or_else(unjoined)
            else {
                self.call_rows.push(row as u32);
                continue;
            };
            self.alive[row] = false;
            counts.dead_lettered += 1;
            let (source_row, code) = (self.source_rows[row], Cow::Borrowed(code));
            side.dead.push(DeadRow { source_row, stage: plan.index, code, detail });
        }
    }

    /// Why a row lacks what the stage joins, where it does.
    fn unjoined(&self, spec: &StageSpec, plan: &StagePlan, row: usize) -> Option<(&'static str, String)> {
        let mut joins = spec.joins.iter().zip(&self.joined);
        let (join, cell, code) = joins.find_map(|(join, column)| {
            let cell = column.cells[row];
            Some((join, cell, field_fault(cell, join.required)?))
        })?;
        let TableField { table, path } = &join.column;
        let on = spec.reads[spec.own_reads..].iter().position(|read| read.field.path.to_string() == join.on);
        let key = on.and_then(|on| value(&self.columns[plan.reads[spec.own_reads + on]], row));
        if matches!(key, Some([b'[' | b'{', ..])) {
            return Some((code, format!("field `{}`: {} is no key", join.on, found(cell))));
        }
        if code == "wrong_type" {
            let (ty, found) = (type_name(join.ty), found(cell));
            return Some((
                code,
                format!("column `{path}` of table `{table}`, by `{}`: expected {ty}, found {found}", join.on),
            ));
        }
        let whose = key.map_or(format!("a record without `{}`", join.on), |key| format!("the key {}", shown(key)));
        let what = if cell == Cell::Null { format!("`{path}`") } else { "row".to_owned() };
        Some((NO_MATCH, format!("table `{table}` has no {what} for {whose}")))
    }

    /// Hands the admitted rows to the stage.
    fn call(&mut self, spec: &StageSpec, plan: &StagePlan, stage: &mut Stage, input: &Rows) -> Result<(), StageError> {
        let all = self.call_rows.len() == self.alive.len();
        if !all {
            let own = plan.reads[..spec.own_reads].iter().map(|&slot| &self.columns[slot]);
            self.gathered.gather_columns(own.chain(&self.joined), &self.call_rows);
        }
        let raw = &spec.raw_reads;
        let gathered = &mut self.gathered;
        let rows = || self.call_rows.iter().map(|&row| (row as usize, self.input_rows[row as usize] as usize));
        if raw.key {
            gather_bytes(&mut gathered.keys, self.parts.keys.as_ref(), &input.keys, rows());
        }
        if raw.value {
            gather_bytes(&mut gathered.values, self.parts.values.as_ref(), &input.values, rows());
        }
        if raw.headers {
            gather_headers(&mut gathered.headers, self.parts.headers.as_ref(), &input.headers, rows());
        }
        if raw.timestamp {
            let from = |(row, input_row): (usize, usize)| match &self.parts.timestamps_ms {
                Some(written) => written[row],
                None => input.timestamps_ms[input_row],
            };
            gathered.timestamps_ms.clear();
            gathered.timestamps_ms.extend(rows().map(from));
        }
        gathered.offsets.clear();
        if stage.wants_offsets() {
            gathered.offsets.extend(rows().map(|(_, input_row)| input.offsets[input_row]));
        }
        let columns: Vec<&Column> = if all {
            plan.reads[..spec.own_reads].iter().map(|&slot| &self.columns[slot]).chain(&self.joined).collect()
        } else {
            gathered.columns.iter().collect()
        };
        let input = StageInput {
            rows: self.call_rows.len(),
            columns: &columns,
            keys: raw.key.then_some(&gathered.keys),
            values: raw.value.then_some(&gathered.values),
            headers: raw.headers.then_some(&gathered.headers),
            timestamps_ms: raw.timestamp.then_some(&gathered.timestamps_ms),
        };
        stage.run(&input, &gathered.offsets, &mut self.output)
    }

    fn apply_verdicts(&mut self, spec: &StageSpec, stage: usize, side: &mut Side) {
        let counts = &mut side.counts[stage];
        for (verdict, &row) in self.output.verdicts.iter().zip(&self.call_rows) {
            self.alive[row as usize] = *verdict == Verdict::Forward;
            match verdict {
                Verdict::Forward => counts.forwarded += 1,
                Verdict::Drop => counts.filtered += 1,
                Verdict::Fold => counts.folded += 1,
                Verdict::Late => counts.late += 1,
                Verdict::Duplicate => counts.deduplicated += 1,
                Verdict::Reject => counts.dead_lettered += 1,
            }
        }
        for rejection in self.output.rejections.drain(..) {
            let source_row = self.source_rows[self.call_rows[rejection.row] as usize];
            let code = Cow::Owned(rejection.code);
            side.dead.push(DeadRow { source_row, stage, code, detail: rejection.detail });
        }
        for (&route, &row) in self.output.routes.iter().zip(&self.call_rows) {
            if route != SAME_ROUTE {
                self.routes[row as usize] = spec.outputs[route as usize];
            }
        }
    }

    /// Keeps what the stage wrote, over what stages before it wrote, and shows it to the stages after it.
    fn apply_writes(&mut self, segment: &Segment, plan: &StagePlan) {
        let rows = self.alive.len();
        for (new, &(write, feeds)) in self.output.writes.iter_mut().zip(&plan.writes) {
            let old = self.written[write].take();
            let ty = segment.writes[write].ty;
            let merged = match old {
                None if self.call_rows.len() == rows => std::mem::replace(new, Written::new(ty)),
                old => merge(old.as_ref(), new, ty, &self.call_rows, rows),
            };
            if let Some(slot) = feeds {
                self.columns[slot] = overlay(&self.columns[slot], &merged, ty);
            }
            self.written[write] = Some(merged);
        }
    }

    fn apply_parts(&mut self, input: &Rows) {
        let rows = self.alive.len();
        let (call_rows, input_rows) = (&self.call_rows, &self.input_rows);
        if let Some(new) = &self.output.key {
            self.parts.keys = Some(overlay_bytes(self.parts.keys.take(), &input.keys, new, call_rows, input_rows));
        }
        if let Some(new) = &self.output.value {
            let values = overlay_bytes(self.parts.values.take(), &input.values, new, call_rows, input_rows);
            self.parts.values = Some(values);
        }
        if let Some(new) = &self.output.headers {
            let old = self.parts.headers.take();
            let mut merged = Headers::default();
            for_each_row(call_rows, rows, |row, call_row| {
                match (call_row.filter(|&call_row| new.ops[call_row] == Op::Set), &old) {
                    (Some(call_row), _) => copy_headers(&mut merged, row, &new.headers, call_row),
                    (None, Some(old)) => copy_headers(&mut merged, row, old, row),
                    (None, None) => copy_headers(&mut merged, row, &input.headers, input_rows[row] as usize),
                }
            });
            self.parts.headers = Some(merged);
        }
        if let Some(new) = &self.output.timestamps {
            let old = self.parts.timestamps_ms.take();
            let mut merged = Vec::with_capacity(rows);
            for_each_row(call_rows, rows, |row, call_row| {
                merged.push(match (call_row.filter(|&call_row| new.ops[call_row] == Op::Set), &old) {
                    (Some(call_row), _) => new.millis[call_row],
                    (None, Some(old)) => old[row],
                    (None, None) => input.timestamps_ms[input_rows[row] as usize],
                });
            });
            self.parts.timestamps_ms = Some(merged);
        }
    }

    /// Takes the records that the stage made anew. One that its output would not take costs the row it came from.
    fn take_emitted(&mut self, spec: &StageSpec, stage: usize, side: &mut Side) {
        let emitted = &self.output.emitted;
        for i in 0..emitted.output.len() {
            let call_row = emitted.row[i] as usize;
            let row = self.call_rows[call_row] as usize;
            let source_row = self.source_rows[row];
            let bytes = emitted.keys.packed.get(i).len() + emitted.values.packed.get(i).len();
            let output = match emitted.output[i] {
                MAIN_OUTPUT => super::MAIN,
                output => spec.outputs[output as usize],
            };
            if bytes > side.limits.output(output) {
                let counts = &mut side.counts[stage];
                match self.output.verdicts[call_row] {
                    Verdict::Forward => counts.forwarded -= 1,
                    Verdict::Drop => counts.filtered -= 1,
                    Verdict::Fold => counts.folded -= 1,
                    Verdict::Late => counts.late -= 1,
                    Verdict::Duplicate => counts.deduplicated -= 1,
                    Verdict::Reject => continue,
                }
                counts.dead_lettered += 1;
                self.output.verdicts[call_row] = Verdict::Reject;
                self.alive[row] = false;
                let detail = format!("a record made from this one has {bytes} bytes: too many for its topic");
                side.dead.push(DeadRow { source_row, stage, code: Cow::Borrowed("record_too_large"), detail });
                continue;
            }
            side.emitted.source_rows.push(source_row);
            side.emitted.outputs.push(output);
            side.emitted.keys.push(emitted.keys.get(i));
            side.emitted.values.push(emitted.values.get(i));
        }
    }

    /// Writes the rows that are left, with all that was written to them, to the next segment or to the output.
    fn leave(&mut self, segment: &Segment, input: &Rows, to: &mut Flow, next_stage: usize, side: &mut Side) {
        let rows = self.alive.len();
        for (index, written) in self.written.iter_mut().enumerate() {
            let ty = segment.writes[index].ty;
            written.get_or_insert_with(|| merge(None, &Written::new(ty), ty, &[], rows));
        }
        // Room for all rows with a quarter more for what was written: growing by doubling costs copies, and keeps up to twice
        // the memory for as long as the rows wait to be delivered.
        to.rows.values.packed.data.reserve_exact(input.values.packed.data.len() * 5 / 4);
        // Taken out for the loop, which borrows the rest of `self`.
        let written = std::mem::take(&mut self.written);
        let mut json = self.json.take();
        let columns: Vec<&Written> = written.iter().flatten().collect();
        for row in (0..rows).filter(|&row| self.alive[row]) {
            let value = match &self.parts.values {
                Some(values) => values.get(row),
                None => input.values.get(self.input_rows[row] as usize),
            };
            let splicer = json.as_mut().map(|(_, splicer)| splicer).filter(|_| !columns.is_empty());
            let refused = match (value, splicer) {
                (Some(value), Some(splicer)) => {
                    let out = &mut to.rows.values.packed.data;
                    let spliced = splicer.splice(value, (&self.sites, row), (&columns, row), out);
                    spliced.map(|()| to.rows.values.end_row()).err().map(|error| (error.write, error.to_string()))
                }
                (None, Some(_)) if columns.iter().any(|written| written.ops[row] != Op::Keep) => {
                    let write = columns.iter().position(|written| written.ops[row] != Op::Keep);
                    Some((write.unwrap_or_default(), "a tombstone has no fields".to_owned()))
                }
                (value, _) => {
                    to.rows.values.push(value);
                    None
                }
            };
            let Some((write, why)) = refused else {
                self.leave_parts(segment, input, row, to);
                continue;
            };
            let detail = format!("field `{}` can't be written: {why}", segment.writes[write].path);
            turn_away(side, self.source_rows[row], next_stage, "write_refused", detail);
        }
        self.written = written;
        self.json = json;
    }

    fn leave_parts(&self, segment: &Segment, input: &Rows, row: usize, to: &mut Flow) {
        let input_row = self.input_rows[row] as usize;
        let route = self.routes[row];
        to.push_place(self.source_rows[row], route);
        to.rows.offsets.push(input.offsets[input_row]);
        to.rows.timestamps_ms.push(match &self.parts.timestamps_ms {
            Some(written) => written[row],
            None => input.timestamps_ms[input_row],
        });
        let key_slot = segment.key_slots.get(usize::from(route)).copied().flatten();
        match (key_slot, &self.parts.keys) {
            (Some(slot), _) => push_key(&mut to.rows.keys, &self.columns[slot], row),
            (None, Some(keys)) => to.rows.keys.push(keys.get(row)),
            (None, None) => to.rows.keys.push(input.keys.get(input_row)),
        }
        let to_row = to.rows.len() - 1;
        match &self.parts.headers {
            Some(headers) => copy_headers(&mut to.rows.headers, to_row, headers, row),
            None if input.headers.is_empty() => {}
            None => copy_headers(&mut to.rows.headers, to_row, &input.headers, input_row),
        }
    }
}

impl Gathered {
    fn gather_columns<'a>(&mut self, columns: impl Iterator<Item = &'a Column>, rows: &[u32]) {
        self.columns.clear();
        for from in columns {
            let mut to = Column { cells: Vec::with_capacity(rows.len()), data: from.data.new_like() };
            rows.iter().for_each(|&row| to.push_from(from, row as usize));
            self.columns.push(to);
        }
    }
}

/// Makes a dead letter of a row that `stage` never saw.
fn turn_away(side: &mut Side, source_row: u32, stage: usize, code: &'static str, detail: String) {
    side.dead.push(DeadRow { source_row, stage, code: Cow::Borrowed(code), detail });
    side.counts[stage].entered += 1;
    side.counts[stage].dead_lettered += 1;
}

/// Why the source could not read a row as a record, where it could not.
fn unreadable(input: &Rows, row: usize) -> Option<String> {
    if input.headers.is_empty() {
        return None;
    }
    let reason = |(name, value): (&[u8], Option<&[u8]>)| {
        let reason = || String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        (name == SOURCE_ERROR_HEADER.as_bytes()).then(reason)
    };
    input.headers.get(row).find_map(reason)
}

/// What is said of a field that is not as the stage reads it.
fn wrong_field(spec: &StageSpec, read: usize, cell: Cell) -> String {
    let field = &spec.reads[read].field;
    format!("field `{}`: expected {}, found {}", field.path, type_name(field.ty), found(cell))
}

/// The reason for which a stage can't see a row with this cell, if there is one.
fn field_fault(cell: Cell, required: bool) -> Option<&'static str> {
    match cell {
        Cell::Valid => None,
        Cell::Missing => required.then_some("missing_field"),
        Cell::Null => required.then_some("null_field"),
        _ => Some("wrong_type"),
    }
}

fn found(cell: Cell) -> &'static str {
    match cell {
        Cell::Valid => "a value",
        Cell::Missing => "nothing",
        Cell::Null => "null",
        Cell::WrongBool => "a boolean",
        Cell::WrongNumber => "a number of another form or range",
        Cell::WrongText => "a text",
        Cell::WrongArray => "an array",
        Cell::WrongObject => "an object",
    }
}
