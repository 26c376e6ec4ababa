//! A batch's way through all segments.

use std::borrow::Cow;
use std::sync::Arc;

use crate::plugin::StageError;
use crate::record::{OptionalBytes, Rows};

use super::segment::SegmentRun;
use super::{MAIN, OutputIndex, Pipeline, Stage};

/// Rows between two segments, or on their way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The rows.
    pub rows: Rows,
    /// The row of the batch that each came from; never falls.
    pub source_rows: Vec<u32>,
    /// The output that each leaves by.
    pub routes: Vec<OutputIndex>,
}

impl Flow {
    /// Removes all rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.source_rows.clear();
        self.routes.clear();
    }
}

/// How the codes of dead letters begin that a faulting plugin leaves.
const FAULT_CODES: &str = "plugin_";

/// A record that a stage, or the host on its behalf, turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRow {
    /// The row of the batch.
    pub source_row: u32,
    /// Index of the stage; the number of stages stands for the output.
    pub stage: usize,
    /// Short name of the reason, for counters.
    pub code: Cow<'static, str>,
    /// The reason, for people.
    pub detail: String,
}

impl DeadRow {
    /// True where the record made a plugin fault.
    pub fn is_fault(&self) -> bool {
        self.code.starts_with(FAULT_CODES)
    }
}

/// What became of the rows that entered one stage: each is in exactly one of the other counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageCounts {
    /// Rows that came in.
    pub entered: u64,
    /// Rows that went on.
    pub forwarded: u64,
    /// Rows that the stage dropped on purpose.
    pub filtered: u64,
    /// Rows that became part of a state, and went no further.
    pub folded: u64,
    /// Rows that came too late for their windows and went to an output of their own.
    pub late: u64,
    /// Rows of which one came before.
    pub deduplicated: u64,
    /// Rows that became dead letters.
    pub dead_lettered: u64,
}

impl StageCounts {
    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        self.entered += other.entered;
        self.forwarded += other.forwarded;
        self.filtered += other.filtered;
        self.folded += other.folded;
        self.late += other.late;
        self.deduplicated += other.deduplicated;
        self.dead_lettered += other.dead_lettered;
    }

    /// True when every row that came in is accounted for once.
    pub fn balances(&self) -> bool {
        let kept = self.folded + self.late + self.deduplicated;
        self.entered == self.forwarded + self.filtered + kept + self.dead_lettered
    }
}

/// The most bytes of a record, key and headers included, that each output and the dead letters take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLimits {
    outputs: Arc<[usize]>,
    dead_letters: usize,
}

impl RowLimits {
    /// One limit an output, in the pipeline's order, and that of the dead letters.
    pub fn new(outputs: Vec<usize>, dead_letters: usize) -> Self {
        Self { outputs: outputs.into(), dead_letters }
    }

    /// The same limit for all.
    pub fn same(bytes: usize) -> Self {
        Self { outputs: Arc::new([]), dead_letters: bytes }
    }

    /// What an output takes.
    pub fn output(&self, output: OutputIndex) -> usize {
        self.outputs.get(usize::from(output)).copied().unwrap_or(self.dead_letters)
    }

    /// What the dead letters take.
    pub fn dead_letters(&self) -> usize {
        self.dead_letters
    }
}

impl Default for RowLimits {
    fn default() -> Self {
        Self::same(usize::MAX)
    }
}

/// What a header costs on the wire beside its name and value, at most.
const HEADER_OVERHEAD_BYTES: usize = 16;

/// Bytes that a header takes.
pub(crate) fn header_bytes((name, value): (&[u8], Option<&[u8]>)) -> usize {
    name.len() + value.map_or(0, <[u8]>::len) + HEADER_OVERHEAD_BYTES
}

/// What comes of one batch besides the rows that go on.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub limits: RowLimits,
    pub dead: Vec<DeadRow>,
    pub counts: Vec<StageCounts>,
    pub emitted: Emissions,
}

/// Records that stages made anew.
#[derive(Debug, Default)]
pub(super) struct Emissions {
    pub source_rows: Vec<u32>,
    pub outputs: Vec<OutputIndex>,
    pub keys: OptionalBytes,
    pub values: OptionalBytes,
}

/// The scratch space of one task: runs batches through a pipeline, one at a time.
#[derive(Debug, Default)]
pub struct Run {
    segments: Vec<SegmentRun>,
    between: Vec<Flow>,
    side: Side,
    merged: Flow,
}

impl Run {
    /// Scratch space for a pipeline whose outputs take records of at most `row_bytes_max` bytes, key and headers included.
    pub fn new(row_bytes_max: usize) -> Self {
        Self::with_limits(RowLimits::same(row_bytes_max))
    }

    /// The same, where each output has a limit of its own.
    pub fn with_limits(limits: RowLimits) -> Self {
        Self { side: Side { limits, ..Side::default() }, ..Self::default() }
    }

    /// Runs `rows` through `stages`, which are those of `pipeline`, and leaves what goes out in `out`, in the order
    /// of the rows that it came from. An error is the host's trouble, never a record's.
    pub fn run(
        &mut self,
        pipeline: &Pipeline,
        stages: &mut [Stage],
        rows: &Rows,
        out: &mut Flow,
    ) -> Result<(), StageError> {
        let count = pipeline.segments.len();
        self.segments.resize_with(count, SegmentRun::default);
        self.between.resize_with(count, Flow::default);
        self.reset(pipeline);
        out.clear();
        for (index, segment) in pipeline.segments.iter().enumerate() {
            let (done, next) = self.between.split_at_mut(index);
            let from = done.last();
            let to = if index + 1 == count { &mut *out } else { &mut next[0] };
            to.clear();
            self.segments[index].run(pipeline, segment, stages, (rows, from), to, &mut self.side)?;
        }
        let output = &mut self.side.counts[pipeline.stages.len()];
        output.entered += out.rows.len() as u64;
        output.forwarded += out.rows.len() as u64;
        self.turn_away_oversized(pipeline.stages.len(), out);
        if !self.side.emitted.outputs.is_empty() {
            self.merge_emitted(rows, out);
        }
        self.side.dead.sort_by_key(|dead| dead.source_row);
        Ok(())
    }

    /// The dead letters of the last run, in the order of their rows.
    pub fn dead(&self) -> &[DeadRow] {
        &self.side.dead
    }

    /// The counts of the last run: one a stage, and one more for the output.
    pub fn counts(&self) -> &[StageCounts] {
        &self.side.counts
    }

    /// How many records the last run's stages made anew.
    pub fn emitted(&self) -> u64 {
        self.side.emitted.outputs.len() as u64
    }

    fn reset(&mut self, pipeline: &Pipeline) {
        self.side.dead.clear();
        self.side.counts.clear();
        self.side.counts.resize(pipeline.stages.len() + 1, StageCounts::default());
        let emitted = &mut self.side.emitted;
        emitted.source_rows.clear();
        emitted.outputs.clear();
        emitted.keys.clear();
        emitted.values.clear();
    }

    /// Makes dead letters of the rows that the outputs would not take: they would hold up their whole transaction.
    fn turn_away_oversized(&mut self, stage: usize, out: &mut Flow) {
        let limits = &self.side.limits;
        if (0..out.rows.len()).all(|row| row_bytes(&out.rows, row) <= limits.output(out.routes[row])) {
            return;
        }
        self.merged.clear();
        for row in 0..out.rows.len() {
            let (source_row, bytes) = (out.source_rows[row], row_bytes(&out.rows, row));
            let most = limits.output(out.routes[row]);
            if bytes <= most {
                self.merged.rows.push_from(&out.rows, row);
                self.merged.push_place(source_row, out.routes[row]);
                continue;
            }
            let detail = format!("the record has {bytes} bytes, and its topic takes at most {most}");
            self.side.dead.push(DeadRow { source_row, stage, code: Cow::Borrowed("record_too_large"), detail });
            self.side.counts[stage].forwarded -= 1;
            self.side.counts[stage].dead_lettered += 1;
        }
        std::mem::swap(&mut self.merged, out);
    }

    /// Puts emitted records before the row that they came from, so that the order per source row is fixed.
    fn merge_emitted(&mut self, rows: &Rows, out: &mut Flow) {
        let emitted = &self.side.emitted;
        let mut order: Vec<usize> = (0..emitted.outputs.len()).collect();
        order.sort_by_key(|&i| emitted.source_rows[i]);
        let mut next = order.into_iter().peekable();
        let merged = &mut self.merged;
        merged.clear();
        let emit = |merged: &mut Flow, i: usize| {
            let source = emitted.source_rows[i];
            let (offset, time) = (rows.offsets[source as usize], rows.timestamps_ms[source as usize]);
            merged.rows.push(offset, time, emitted.keys.get(i), emitted.values.get(i));
            merged.source_rows.push(source);
            merged.routes.push(emitted.outputs[i]);
        };
        for row in 0..out.rows.len() {
            while let Some(i) = next.next_if(|&i| emitted.source_rows[i] <= out.source_rows[row]) {
                emit(merged, i);
            }
            merged.rows.push_from(&out.rows, row);
            merged.source_rows.push(out.source_rows[row]);
            merged.routes.push(out.routes[row]);
        }
        next.for_each(|i| emit(merged, i));
        std::mem::swap(merged, out);
    }
}

impl Flow {
    /// Appends a row's place: what it came from and where it goes.
    pub(super) fn push_place(&mut self, source_row: u32, route: OutputIndex) {
        self.source_rows.push(source_row);
        self.routes.push(route);
    }
}

/// Bytes of a row's key, value and headers.
fn row_bytes(rows: &Rows, row: usize) -> usize {
    let bytes = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = if rows.headers.is_empty() { 0 } else { rows.headers.get(row).map(header_bytes).sum() };
    bytes(rows.keys.get(row)) + bytes(rows.values.get(row)) + headers
}

/// Where row `row` of a segment's input came from and goes to: `from` is the flow before it, none for the batch.
pub(super) fn place(from: Option<&Flow>, row: usize) -> (u32, OutputIndex) {
    from.map_or((row as u32, MAIN), |flow| (flow.source_rows[row], flow.routes[row]))
}
