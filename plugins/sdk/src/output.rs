//! What became of a batch, row by row.

use std::marker::PhantomData;

use crate::bindings::millstream::plugin::types::{
    Emitted, Headers, OptionalBytes, Packed, Processed, Rejection, Write,
};
use crate::{ColumnType, Descriptor, Field, FieldWriter, Outputs, Parts, Reject, Rows};

/// What the contract calls the pipeline's main output, and "leave the route as it is".
const MAIN: u32 = u32::MAX;

const FORWARD: u8 = 0;
const DROP: u8 = 1;
const REJECT: u8 = 2;

/// What became of the rows of a batch. Rows of which nothing is said are forwarded as they are.
#[derive(Debug)]
pub struct Output {
    rows: usize,
    verdicts: Vec<u8>,
    rejections: Vec<Rejection>,
    routes: Vec<u32>,
    fields: Vec<FieldWriter>,
    key: FieldWriter,
    value: FieldWriter,
    headers: HeadersWriter,
    timestamps: TimestampsWriter,
    emitted: Emitted,
}

impl Output {
    /// For `rows` rows of a plugin that described itself so.
    pub fn new(descriptor: &Descriptor, rows: usize) -> Self {
        Self::of_fields(&descriptor.writes, rows)
    }

    /// For `rows` rows of these fields.
    pub(crate) fn of_fields(fields: &[Field], rows: usize) -> Self {
        Self {
            rows,
            verdicts: Vec::new(),
            rejections: Vec::new(),
            routes: Vec::new(),
            fields: fields.iter().map(|field| FieldWriter::new(&field.of_type, rows)).collect(),
            key: FieldWriter::new(&ColumnType::Bytes, 0),
            value: FieldWriter::new(&ColumnType::Bytes, 0),
            headers: HeadersWriter::default(),
            timestamps: TimestampsWriter::default(),
            emitted: Emitted { output: Vec::new(), row: Vec::new(), keys: no_bytes(), values: no_bytes() },
        }
    }

    /// The column of the descriptor's write `index`.
    #[inline]
    pub fn field(&mut self, index: usize) -> &mut FieldWriter {
        &mut self.fields[index]
    }

    /// The keys, for text or bytes.
    pub fn key(&mut self) -> &mut FieldWriter {
        &mut self.key
    }

    /// The values, for text or bytes.
    pub fn value(&mut self) -> &mut FieldWriter {
        &mut self.value
    }

    /// The headers.
    pub fn headers(&mut self) -> &mut HeadersWriter {
        &mut self.headers
    }

    /// The timestamps.
    pub fn timestamps(&mut self) -> &mut TimestampsWriter {
        &mut self.timestamps
    }

    /// Drops a row: the record is counted as filtered.
    pub fn drop_row(&mut self, row: usize) {
        self.verdict(row, DROP);
    }

    /// Rejects a row: the record becomes a dead letter. Rows are rejected in their order.
    pub fn reject(&mut self, row: usize, why: Reject) {
        self.verdict(row, REJECT);
        self.rejections.push(Rejection { row: row as u32, code: why.code.into(), detail: why.detail });
        // A rejected record leaves nothing but its dead letter; a redrive would emit these again.
        while self.emitted.row.last().is_some_and(|from| *from as usize == row) {
            self.take_back();
        }
    }

    /// Sends a row to the descriptor's output `output` in place of where it would go.
    pub fn route(&mut self, row: usize, output: u32) {
        if self.routes.is_empty() {
            self.routes.resize(self.rows, MAIN);
        }
        self.routes[row] = output;
    }

    /// Emits a new record that came from `row`, to the descriptor's output `output`, or the pipeline's main one.
    pub fn emit(&mut self, row: usize, output: Option<u32>, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.emitted.output.push(output.unwrap_or(MAIN));
        self.emitted.row.push(row as u32);
        push_optional(&mut self.emitted.keys, key);
        push_optional(&mut self.emitted.values, value);
    }

    #[inline]
    fn verdict(&mut self, row: usize, verdict: u8) {
        if self.verdicts.is_empty() {
            self.verdicts.resize(self.rows, FORWARD);
        }
        self.verdicts[row] = verdict;
    }

    fn take_back(&mut self) {
        self.emitted.output.pop();
        self.emitted.row.pop();
        pop_optional(&mut self.emitted.keys);
        pop_optional(&mut self.emitted.values);
    }

    /// The fields alone, as they go to the host.
    pub(crate) fn finish_fields(self) -> Vec<Write> {
        let fields = self.fields.into_iter().enumerate();
        fields.filter_map(|(index, field)| field.finish(index, self.rows)).collect()
    }

    /// What goes to the host. `rows` holds what the plugin left as it was.
    pub(crate) fn finish(self, descriptor: &Descriptor, rows: &Rows) -> Processed {
        let count = self.rows;
        let fields = self.fields.into_iter().enumerate();
        Processed {
            verdicts: self.verdicts,
            rejections: self.rejections,
            writes: fields.filter_map(|(index, field)| field.finish(index, count)).collect(),
            key: self.key.finish_raw(count),
            value: self.value.finish_raw(count),
            headers: descriptor.raw_writes.contains(Parts::HEADERS).then(|| self.headers.finish(rows)).flatten(),
            timestamps_ms: self.timestamps.finish(rows),
            routes: self.routes,
            emitted: (!self.emitted.row.is_empty()).then_some(self.emitted),
        }
    }
}

/// Emits new records, from a plugin's function: `fn f(config: &Config, row: In<'_>, emit: &mut Emit<'_, Side>)`.
#[derive(Debug)]
pub struct Emit<'o, O> {
    output: &'o mut Output,
    row: usize,
    to: PhantomData<O>,
}

impl<'o, O: Outputs> Emit<'o, O> {
    pub(crate) fn new(output: &'o mut Output, row: usize) -> Self {
        Self { output, row, to: PhantomData }
    }

    /// Emits a record to an output; no value makes a tombstone.
    pub fn to(&mut self, output: O, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.output.emit(self.row, Some(output.index()), key, value);
    }

    /// Emits a record to the pipeline's main output; no value makes a tombstone.
    pub fn to_main(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.output.emit(self.row, None, key, value);
    }
}

/// New headers of some rows.
#[derive(Debug, Default)]
pub struct HeadersWriter {
    rows: Vec<(usize, Vec<Header>)>,
}

type Header = (Vec<u8>, Option<Vec<u8>>);

impl HeadersWriter {
    /// Replaces all headers of a row; rows come in their order.
    pub fn set<'h>(&mut self, row: usize, headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>) {
        let owned = headers.map(|(name, value)| (name.as_bytes().to_vec(), value.map(<[u8]>::to_vec)));
        self.rows.push((row, owned.collect()));
    }

    fn finish(self, rows: &Rows) -> Option<Headers> {
        if self.rows.is_empty() {
            return None;
        }
        let mut all = Headers { row_ends: Vec::new(), names: no_packed(), values: no_bytes() };
        let mut push = |name: &[u8], value: Option<&[u8]>| {
            all.names.push(name);
            push_optional(&mut all.values, value);
        };
        let mut row_ends = Vec::with_capacity(rows.len());
        let mut count = 0;
        let mut new = self.rows.into_iter().peekable();
        let old = rows.headers();
        for row in 0..rows.len() {
            if let Some((_, headers)) = new.next_if(|(at, _)| *at == row) {
                count += headers.len();
                headers.iter().for_each(|(name, value)| push(name, value.as_deref()));
            } else {
                let headers = old.at(row);
                count += headers.len();
                headers.iter().for_each(|(name, value)| push(name.as_bytes(), value));
            }
            row_ends.push(count as u32);
        }
        all.row_ends = row_ends;
        Some(all)
    }
}

/// New timestamps of some rows.
#[derive(Debug, Default)]
pub struct TimestampsWriter {
    rows: Vec<(usize, i64)>,
}

impl TimestampsWriter {
    /// Sets the timestamp of a row, in milliseconds since 1970 UTC, or -1 for none.
    pub fn put(&mut self, row: usize, millis: i64) {
        self.rows.push((row, millis));
    }

    fn finish(self, rows: &Rows) -> Option<Vec<i64>> {
        if self.rows.is_empty() {
            return None;
        }
        let mut all = rows.timestamps().millis().to_vec();
        for (row, millis) in self.rows {
            all[row] = millis;
        }
        Some(all)
    }
}

pub(crate) fn no_packed() -> Packed {
    Packed { ends: Vec::new(), data: Vec::new() }
}

pub(crate) fn no_bytes() -> OptionalBytes {
    OptionalBytes { valid: Vec::new(), bytes: no_packed() }
}

/// Appends a row. `valid` is kept throughout; a bitmap without a gap is as good as an empty one.
pub(crate) fn push_optional(to: &mut OptionalBytes, bytes: Option<&[u8]>) {
    let row = to.bytes.ends.len();
    if row.is_multiple_of(8) {
        to.valid.push(0);
    }
    to.valid[row / 8] |= u8::from(bytes.is_some()) << (row % 8);
    to.bytes.push(bytes.unwrap_or_default());
}

fn pop_optional(from: &mut OptionalBytes) {
    from.bytes.ends.pop();
    let rows = from.bytes.ends.len();
    from.bytes.data.truncate(from.bytes.ends.last().map_or(0, |end| *end as usize));
    from.valid.truncate(rows.div_ceil(8));
    if let Some(last) = from.valid.last_mut().filter(|_| !rows.is_multiple_of(8)) {
        *last &= (1 << (rows % 8)) - 1;
    }
}
