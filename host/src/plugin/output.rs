//! What became of a stage's rows, the same shape whatever the plugin left out.

use super::abi::{self, Processed};
use super::fault::{Failure, cut};
use super::{Descriptor, FaultKind, WriteField};
use crate::record::{Bitmap, ColumnData, Headers, Op, OptionalBytes, Packed, Written};

/// In [`StageOutput::routes`]: the row leaves by the output that it would have left by.
pub const SAME_ROUTE: u32 = u32::MAX;
/// In [`Emitted::output`]: the pipeline's main output.
pub const MAIN_OUTPUT: u32 = u32::MAX;
/// Bytes of a rejection's detail; more is cut off.
const DETAIL_BYTES: usize = 1_000;

/// What a plugin decided of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, with what was written.
    Forward,
    /// It ends here, as it should.
    Drop,
    /// It is a dead letter; its [`Rejection`] says why.
    Reject,
    /// It ends here, as part of a state.
    Fold,
    /// It ends here, because it came too late for its windows; what it held went to an output of its own.
    Late,
    /// It ends here, because one like it came before.
    Duplicate,
}

/// Why a row was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The row, counted from the stage's first.
    pub row: usize,
    /// A name that a counter can carry: the plugin's, or `plugin_…` where `fault` is set.
    pub code: String,
    /// A sentence for a person, at most 1,000 bytes.
    pub detail: String,
    /// Set where the plugin failed the row rather than rejecting it.
    pub fault: Option<FaultKind>,
}

impl Rejection {
    /// The plugin's own, of a call whose rows begin with `first`.
    pub(super) fn new(first: usize, rejection: abi::Rejection) -> Self {
        let mut detail = rejection.detail;
        cut(&mut detail, DETAIL_BYTES);
        Self { row: first + rejection.row as usize, code: rejection.code, detail, fault: None }
    }
}

/// Keys or values that a plugin wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawWrite {
    /// What is done to each row: `Keep`, `Set` or `Null`.
    pub ops: Vec<Op>,
    /// The bytes of each row; none where the op is not `Set`.
    pub bytes: Packed,
}

/// Headers that a plugin wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderWrite {
    /// `Set` where the row's headers are replaced by those here, else `Keep`.
    pub ops: Vec<Op>,
    /// The headers; a row that keeps its own has none here.
    pub headers: Headers,
}

/// Timestamps that a plugin wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimestampWrite {
    /// `Set` or `Keep`.
    pub ops: Vec<Op>,
    /// Milliseconds since 1970 UTC, -1 for none; 0 where the op is `Keep`.
    pub millis: Vec<i64>,
}

/// New records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// An index in the descriptor's outputs, or [`MAIN_OUTPUT`].
    pub output: Vec<u32>,
    /// The row that each came from; never falls.
    pub row: Vec<u32>,
    /// Keys.
    pub keys: OptionalBytes,
    /// Values.
    pub values: OptionalBytes,
}

/// How often a plugin failed a single record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Records that trapped.
    pub trap: u64,
    /// Records that used up their fuel.
    pub deadline: u64,
    /// Records that wanted too much memory.
    pub memory: u64,
    /// Records that nested calls too deeply.
    pub stack: u64,
    /// Records whose results broke the contract.
    pub bad_output: u64,
}

impl FaultCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.trap + self.deadline + self.memory + self.stack + self.bad_output
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.trap += other.trap;
        self.deadline += other.deadline;
        self.memory += other.memory;
        self.stack += other.stack;
        self.bad_output += other.bad_output;
    }

    pub(super) fn count(&mut self, kind: FaultKind) {
        *match kind {
            FaultKind::Trap => &mut self.trap,
            FaultKind::Deadline => &mut self.deadline,
            FaultKind::Memory => &mut self.memory,
            FaultKind::Stack => &mut self.stack,
            FaultKind::BadOutput => &mut self.bad_output,
        } += 1;
    }
}

/// How the calls of one run failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) faults: FaultCounts,
    pub(super) batch_faults: u64,
    pub(super) suspicions: u64,
}

/// What became of a stage's rows: one entry a row in every list, and nothing is written to a row that is not forwarded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageOutput {
    /// One a row.
    pub verdicts: Vec<Verdict>,
    /// One for every row whose verdict is `Reject`, in order.
    pub rejections: Vec<Rejection>,
    /// One for each field that the descriptor writes, in its order.
    pub writes: Vec<Written>,
    /// Present where the descriptor says that keys are written.
    pub key: Option<RawWrite>,
    /// Present where the descriptor says that values are written.
    pub value: Option<RawWrite>,
    /// Present where the descriptor says that headers are written.
    pub headers: Option<HeaderWrite>,
    /// Present where the descriptor says that timestamps are written.
    pub timestamps: Option<TimestampWrite>,
    /// An index in the descriptor's outputs or [`SAME_ROUTE`]; empty where the descriptor has no outputs.
    pub routes: Vec<u32>,
    /// New records.
    pub emitted: Emitted,
    /// Single records that the plugin failed.
    pub faults: FaultCounts,
    /// Calls that failed though no single record of theirs does: the plugin kept what it should not, or is large.
    pub batch_faults: u64,
    /// Calls that the clock suspected and that no record of theirs was to blame for.
    pub suspicions: u64,
}

impl StageOutput {
    /// Empties all lists and gives them the descriptor's shape.
    pub(super) fn prepare(&mut self, descriptor: &Descriptor) {
        prepare_writes(&mut self.writes, &descriptor.writes);
        self.verdicts.clear();
        self.rejections.clear();
        prepare_raw(&mut self.key, descriptor.raw_writes.key);
        prepare_raw(&mut self.value, descriptor.raw_writes.value);
        self.headers = descriptor.raw_writes.headers.then(HeaderWrite::default);
        self.timestamps = descriptor.raw_writes.timestamp.then(TimestampWrite::default);
        self.routes.clear();
        self.emitted.clear();
        self.count(Tally::default());
    }

    /// Appends the results of `rows` rows, which were checked.
    pub(super) fn append(&mut self, descriptor: &Descriptor, rows: usize, processed: Processed) {
        let first = self.verdicts.len();
        self.append_verdicts(rows, &processed.verdicts);
        let forwarded = Forwarded(&processed.verdicts);
        append_writes(&mut self.writes, rows, &processed.writes, forwarded);
        append_raw(&mut self.key, rows, processed.key.as_ref(), forwarded);
        append_raw(&mut self.value, rows, processed.value.as_ref(), forwarded);
        if let Some(headers) = &mut self.headers {
            headers.append(first, rows, processed.headers.as_ref(), forwarded);
        }
        if let Some(timestamps) = &mut self.timestamps {
            timestamps.append(rows, processed.timestamps_ms.as_deref(), forwarded);
        }
        if !descriptor.outputs.is_empty() {
            self.routes.extend_from_slice(&processed.routes);
            self.routes.resize(first + rows, SAME_ROUTE);
        }
        if let Some(emitted) = &processed.emitted {
            self.emitted.append(first, emitted);
        }
        self.rejections.extend(processed.rejections.into_iter().map(|rejection| Rejection::new(first, rejection)));
    }

    /// Appends one row that failed.
    pub(super) fn append_failed(&mut self, descriptor: &Descriptor, failure: Failure) {
        let row = self.verdicts.len();
        self.append(descriptor, 1, Processed { verdicts: vec![1], ..Processed::default() });
        self.verdicts[row] = Verdict::Reject;
        self.rejections.push(failure.rejection(row));
    }

    /// Takes over what a run counted.
    pub(super) fn count(&mut self, tally: Tally) {
        (self.faults, self.batch_faults, self.suspicions) = (tally.faults, tally.batch_faults, tally.suspicions);
    }

    fn append_verdicts(&mut self, rows: usize, verdicts: &[u8]) {
        if verdicts.is_empty() {
            self.verdicts.resize(self.verdicts.len() + rows, Verdict::Forward);
        }
        self.verdicts.extend(verdicts.iter().map(|verdict| match verdict {
            0 => Verdict::Forward,
            1 => Verdict::Drop,
            _ => Verdict::Reject,
        }));
    }
}

/// Empties `writes` and gives them the types of `fields`.
pub(super) fn prepare_writes(writes: &mut Vec<Written>, fields: &[WriteField]) {
    if writes.iter().map(|write| write.ty).eq(fields.iter().map(|field| field.ty)) {
        writes.iter_mut().for_each(Written::clear);
    } else {
        *writes = fields.iter().map(|field| Written::new(field.ty)).collect();
    }
}

/// Appends what a call wrote to `rows` rows.
pub(super) fn append_writes(to: &mut [Written], rows: usize, writes: &[abi::Write], forwarded: Forwarded<'_>) {
    for (field, written) in to.iter_mut().enumerate() {
        let write = writes.iter().find(|write| write.field as usize == field);
        forwarded.append_ops(&mut written.ops, rows, write.map(|write| &write.ops[..]));
        match write {
            Some(write) => append_data(&mut written.data, rows, &write.data),
            None => (0..rows).for_each(|_| written.data.push_default()),
        }
    }
}

/// The verdicts of a call; where there are none, every row is forwarded.
#[derive(Clone, Copy)]
pub(super) struct Forwarded<'a>(pub(super) &'a [u8]);

impl Forwarded<'_> {
    /// Appends a call's ops: those returned, `Set` where they were left out, `Keep` where nothing was written and in
    /// rows that are not forwarded.
    fn append_ops(&self, to: &mut Vec<Op>, rows: usize, ops: Option<&[u8]>) {
        let first = to.len();
        match ops {
            None => to.resize(first + rows, Op::Keep),
            Some([]) => to.resize(first + rows, Op::Set),
            Some(ops) => to.extend(ops.iter().map(|op| match op {
                0 => Op::Keep,
                1 => Op::Set,
                2 => Op::Null,
                _ => Op::Remove,
            })),
        }
        if self.0.iter().any(|&verdict| verdict != 0) {
            for (op, _) in to[first..].iter_mut().zip(self.0).filter(|&(_, &verdict)| verdict != 0) {
                *op = Op::Keep;
            }
        }
    }
}

fn prepare_raw(write: &mut Option<RawWrite>, wanted: bool) {
    match write.as_mut().filter(|_| wanted) {
        Some(write) => {
            write.ops.clear();
            write.bytes.clear();
        }
        None => *write = wanted.then(RawWrite::default),
    }
}

fn append_raw(to: &mut Option<RawWrite>, rows: usize, write: Option<&abi::RawWrite>, forwarded: Forwarded<'_>) {
    let Some(to) = to else { return };
    forwarded.append_ops(&mut to.ops, rows, write.map(|write| &write.ops[..]));
    match write {
        Some(write) => append_packed(&mut to.bytes, &write.bytes),
        None => (0..rows).for_each(|_| to.bytes.end_row()),
    }
}

fn append_data(to: &mut ColumnData, rows: usize, data: &abi::ColumnData) {
    match (to, data) {
        (ColumnData::Bool(to), abi::ColumnData::Booleans(bits)) => append_bits(to, rows, bits),
        (ColumnData::Int64(to), abi::ColumnData::Int64s(values)) => to.extend_from_slice(values),
        (ColumnData::Float64(to), abi::ColumnData::Float64s(values)) => to.extend_from_slice(values),
        (ColumnData::Packed(to), abi::ColumnData::Packed(packed)) => append_packed(to, packed),
        _ => debug_assert!(false, "the types were checked"),
    }
}

fn append_bits(to: &mut Bitmap, rows: usize, bits: &[u8]) {
    (0..rows).for_each(|row| to.push(bits[row / 8] & (1 << (row % 8)) != 0));
}

pub(super) fn append_packed(to: &mut Packed, packed: &abi::Packed) {
    let start = to.data.len() as u32;
    to.data.extend_from_slice(&packed.data);
    to.ends.extend(packed.ends.iter().map(|end| start + end));
}

fn append_optional(to: &mut OptionalBytes, bytes: &abi::OptionalBytes) {
    let rows = bytes.bytes.ends.len();
    append_packed(&mut to.packed, &bytes.bytes);
    match &bytes.valid[..] {
        [] => (0..rows).for_each(|_| to.valid.push(true)),
        bits => append_bits(&mut to.valid, rows, bits),
    }
}

impl HeaderWrite {
    fn append(&mut self, first: usize, rows: usize, headers: Option<&abi::Headers>, forwarded: Forwarded<'_>) {
        forwarded.append_ops(&mut self.ops, rows, headers.map(|_| &[][..]));
        let start = self.headers.names.len() as u32;
        if let Some(headers) = headers {
            append_packed(&mut self.headers.names, &headers.names);
            append_optional(&mut self.headers.values, &headers.values);
            self.headers.row_ends.extend(headers.row_ends.iter().map(|end| start + end));
        }
        self.headers.row_ends.resize(first + rows, start);
    }
}

impl TimestampWrite {
    fn append(&mut self, rows: usize, times: Option<&[i64]>, forwarded: Forwarded<'_>) {
        forwarded.append_ops(&mut self.ops, rows, times.map(|_| &[][..]));
        self.millis.extend_from_slice(times.unwrap_or_default());
        self.millis.resize(self.ops.len(), 0);
    }
}

impl Emitted {
    fn append(&mut self, first: usize, emitted: &abi::Emitted) {
        self.output.extend_from_slice(&emitted.output);
        self.row.extend(emitted.row.iter().map(|row| first as u32 + row));
        append_optional(&mut self.keys, &emitted.keys);
        append_optional(&mut self.values, &emitted.values);
    }

    /// Removes all records and keeps the buffers.
    pub fn clear(&mut self) {
        self.output.clear();
        self.row.clear();
        self.keys.clear();
        self.values.clear();
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.output.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.output.is_empty()
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
