//! The contract's types (wit/types.wit) as the canonical ABI moves them.
//!
//! What goes in borrows the host's buffers, so that lowering copies memory and allocates nothing; what comes out is
//! owned, because the guest frees its own copy when the call returns.

// Enums come to life by transmutation from the guest's discriminant, which the compiler does not see.
#![allow(dead_code)]

use wasmtime::component::{ComponentType, Lift, Lower, flags};

#[derive(ComponentType, Lift, Clone, Copy, Debug)]
#[component(enum)]
#[repr(u8)]
pub(super) enum TimestampEncoding {
    #[component(name = "rfc3339")]
    Rfc3339,
    #[component(name = "epoch-s")]
    EpochS,
    #[component(name = "epoch-ms")]
    EpochMs,
    #[component(name = "epoch-us")]
    EpochUs,
    #[component(name = "epoch-ns")]
    EpochNs,
}

#[derive(ComponentType, Lift, Clone, Copy, Debug)]
#[component(variant)]
pub(super) enum ColumnType {
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "int64")]
    Int64,
    #[component(name = "float64")]
    Float64,
    #[component(name = "text")]
    Text,
    #[component(name = "bytes")]
    Bytes,
    #[component(name = "timestamp")]
    Timestamp(TimestampEncoding),
    #[component(name = "decimal")]
    Decimal,
    #[component(name = "json")]
    Json,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub(super) struct Field {
    pub(super) path: String,
    #[component(name = "of-type")]
    pub(super) of_type: ColumnType,
    pub(super) required: bool,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub(super) struct TableColumn {
    pub(super) table: String,
    pub(super) path: String,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub(super) struct Joined {
    pub(super) column: TableColumn,
    pub(super) on: String,
    #[component(name = "of-type")]
    pub(super) of_type: ColumnType,
    pub(super) required: bool,
}

flags! {
    Parts {
        #[component(name = "key")]
        const KEY;
        #[component(name = "value")]
        const VALUE;
        #[component(name = "headers")]
        const HEADERS;
        #[component(name = "timestamp")]
        const TIMESTAMP;
    }
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub(super) struct Descriptor {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) reads: Vec<Field>,
    pub(super) writes: Vec<Field>,
    pub(super) outputs: Vec<String>,
    #[component(name = "raw-reads")]
    pub(super) raw_reads: Parts,
    #[component(name = "raw-writes")]
    pub(super) raw_writes: Parts,
    pub(super) tombstones: bool,
    pub(super) joins: Vec<Joined>,
    pub(super) lookups: Vec<TableColumn>,
}

#[derive(ComponentType, Lift, Debug)]
#[component(record)]
pub(super) struct AggregateDescriptor {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) reads: Vec<Field>,
    pub(super) writes: Vec<Field>,
    #[component(name = "state-version")]
    pub(super) state_version: u32,
    #[component(name = "migrates-from")]
    pub(super) migrates_from: Vec<u32>,
}

#[derive(ComponentType, Lower, Clone, Copy, Debug)]
#[component(record)]
pub(super) struct PackedIn<'a> {
    pub(super) ends: &'a [u32],
    pub(super) data: &'a [u8],
}

#[derive(ComponentType, Lower, Clone, Copy, Debug)]
#[component(variant)]
pub(super) enum ColumnDataIn<'a> {
    #[component(name = "booleans")]
    Booleans(&'a [u8]),
    #[component(name = "int64s")]
    Int64s(&'a [i64]),
    #[component(name = "float64s")]
    Float64s(&'a [f64]),
    #[component(name = "packed")]
    Packed(PackedIn<'a>),
}

#[derive(ComponentType, Lower, Clone, Copy, Debug)]
#[component(record)]
pub(super) struct ColumnIn<'a> {
    pub(super) valid: &'a [u8],
    pub(super) null: &'a [u8],
    pub(super) data: ColumnDataIn<'a>,
}

#[derive(ComponentType, Lower, Clone, Copy, Debug)]
#[component(record)]
pub(super) struct OptionalBytesIn<'a> {
    pub(super) valid: &'a [u8],
    pub(super) bytes: PackedIn<'a>,
}

#[derive(ComponentType, Lower, Clone, Copy, Debug)]
#[component(record)]
pub(super) struct HeadersIn<'a> {
    #[component(name = "row-ends")]
    pub(super) row_ends: &'a [u32],
    pub(super) names: PackedIn<'a>,
    pub(super) values: OptionalBytesIn<'a>,
}

#[derive(ComponentType, Lower, Debug)]
#[component(record)]
pub(super) struct Batch<'a> {
    pub(super) rows: u32,
    pub(super) columns: Vec<ColumnIn<'a>>,
    pub(super) key: Option<OptionalBytesIn<'a>>,
    pub(super) value: Option<OptionalBytesIn<'a>>,
    pub(super) headers: Option<HeadersIn<'a>>,
    #[component(name = "timestamps-ms")]
    pub(super) timestamps_ms: Option<&'a [i64]>,
}

#[derive(ComponentType, Lower, Clone, Copy, Debug)]
#[component(record)]
pub(super) struct WindowsIn<'a> {
    #[component(name = "starts-us")]
    pub(super) starts_us: &'a [i64],
    #[component(name = "ends-us")]
    pub(super) ends_us: &'a [i64],
    pub(super) keys: PackedIn<'a>,
}

#[derive(ComponentType, Lift, Lower, Clone, Debug, Default)]
#[component(record)]
pub(super) struct Packed {
    pub(super) ends: Vec<u32>,
    pub(super) data: Vec<u8>,
}

#[derive(ComponentType, Lift, Clone, Debug)]
#[component(variant)]
pub(super) enum ColumnData {
    #[component(name = "booleans")]
    Booleans(Vec<u8>),
    #[component(name = "int64s")]
    Int64s(Vec<i64>),
    #[component(name = "float64s")]
    Float64s(Vec<f64>),
    #[component(name = "packed")]
    Packed(Packed),
}

#[derive(ComponentType, Lift, Lower, Clone, Debug, Default)]
#[component(record)]
pub(super) struct OptionalBytes {
    pub(super) valid: Vec<u8>,
    pub(super) bytes: Packed,
}

#[derive(ComponentType, Lift, Clone, Debug, Default)]
#[component(record)]
pub(super) struct Headers {
    #[component(name = "row-ends")]
    pub(super) row_ends: Vec<u32>,
    pub(super) names: Packed,
    pub(super) values: OptionalBytes,
}

#[derive(ComponentType, Lift, Clone, Debug)]
#[component(record)]
pub(super) struct Rejection {
    pub(super) row: u32,
    pub(super) code: String,
    pub(super) detail: String,
}

#[derive(ComponentType, Lift, Clone, Debug)]
#[component(record)]
pub(super) struct Write {
    pub(super) field: u32,
    pub(super) ops: Vec<u8>,
    pub(super) data: ColumnData,
}

#[derive(ComponentType, Lift, Clone, Debug, Default)]
#[component(record)]
pub(super) struct RawWrite {
    pub(super) ops: Vec<u8>,
    pub(super) bytes: Packed,
}

#[derive(ComponentType, Lift, Clone, Debug, Default)]
#[component(record)]
pub(super) struct Emitted {
    pub(super) output: Vec<u32>,
    pub(super) row: Vec<u32>,
    pub(super) keys: OptionalBytes,
    pub(super) values: OptionalBytes,
}

#[derive(ComponentType, Lift, Clone, Debug, Default)]
#[component(record)]
pub(super) struct Processed {
    pub(super) verdicts: Vec<u8>,
    pub(super) rejections: Vec<Rejection>,
    pub(super) writes: Vec<Write>,
    pub(super) key: Option<RawWrite>,
    pub(super) value: Option<RawWrite>,
    pub(super) headers: Option<Headers>,
    #[component(name = "timestamps-ms")]
    pub(super) timestamps_ms: Option<Vec<i64>>,
    pub(super) routes: Vec<u32>,
    pub(super) emitted: Option<Emitted>,
}

#[derive(ComponentType, Lift, Clone, Debug, Default)]
#[component(record)]
pub(super) struct Folded {
    pub(super) states: OptionalBytes,
    pub(super) rejections: Vec<Rejection>,
}

#[derive(ComponentType, Lift, Clone, Debug, Default)]
#[component(record)]
pub(super) struct Finished {
    pub(super) writes: Vec<Write>,
}

impl Packed {
    /// The bytes of a row. The ends were checked.
    pub(super) fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.data[start..self.ends[row] as usize]
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.ends[..]) + self.data.len()
    }
}

impl ColumnData {
    fn bytes(&self) -> usize {
        match self {
            Self::Booleans(bits) => bits.len(),
            Self::Int64s(values) => size_of_val(&values[..]),
            Self::Float64s(values) => size_of_val(&values[..]),
            Self::Packed(packed) => packed.bytes(),
        }
    }
}

impl OptionalBytes {
    fn bytes(&self) -> usize {
        self.valid.len() + self.bytes.bytes()
    }

    /// The bytes of a row that is not null. Bitmap and ends were checked.
    pub(super) fn get(&self, row: usize) -> Option<&[u8]> {
        let valid = self.valid.get(row / 8).is_none_or(|bits| bits & (1 << (row % 8)) != 0);
        valid.then(|| self.bytes.get(row))
    }
}

impl Write {
    fn bytes(&self) -> usize {
        self.ops.len() + self.data.bytes()
    }
}

impl Finished {
    /// Bytes of all its lists of one entry a row.
    pub(super) fn bytes(&self) -> usize {
        self.writes.iter().map(Write::bytes).sum()
    }
}

impl Processed {
    /// Bytes of all its lists of one entry a row or more.
    pub(super) fn bytes(&self) -> usize {
        let raw = |write: &Option<RawWrite>| write.as_ref().map_or(0, |write| write.ops.len() + write.bytes.bytes());
        let headers =
            |headers: &Headers| size_of_val(&headers.row_ends[..]) + headers.names.bytes() + headers.values.bytes();
        let emitted = |new: &Emitted| 2 * size_of_val(&new.row[..]) + new.keys.bytes() + new.values.bytes();
        let rejection = |rejection: &Rejection| size_of::<Rejection>() + rejection.code.len() + rejection.detail.len();
        self.verdicts.len()
            + self.rejections.iter().map(rejection).sum::<usize>()
            + self.writes.iter().map(Write::bytes).sum::<usize>()
            + raw(&self.key)
            + raw(&self.value)
            + self.headers.as_ref().map_or(0, headers)
            + self.timestamps_ms.as_ref().map_or(0, |times| size_of_val(&times[..]))
            + size_of_val(&self.routes[..])
            + self.emitted.as_ref().map_or(0, emitted)
    }
}

#[derive(ComponentType, Lift, Clone, Copy, Debug, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
