//! What a window stage is to do, as it was checked before the start.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::decimals::Decimals;
use super::functions::Functions;
use super::pair_plan::SidePlan;
use super::spec::WindowSpec;
use crate::config::{AggregateConfig, EventTime, Function, LatePolicy, TextPart, TimeEncoding, WindowConfig};
use crate::plugin::{Descriptor, Parts, ReadField};
use crate::record::{ColumnType, TimestampEncoding};

/// Where a stage stands, where a group's records are spread over partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All records of a key are here: states become rows.
    Whole,
    /// States of a partition's records are sent on with each commit.
    Partial,
    /// Such states are merged, and become rows.
    Merge,
}

/// What becomes of late records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Dead letters.
    DeadLetter,
    /// They go to the second output, and no further unless all records do.
    Output,
    /// They go on.
    Forward,
}

/// A window stage, checked.
#[derive(Clone, Debug)]
pub struct WindowPlan {
    /// How windows lie.
    pub spec: WindowSpec,
    /// What the stage is in a chain of two.
    pub role: Role,
    /// The names of the key's fields in the rows.
    pub key_names: Vec<String>,
    /// What is taken of each of its fields.
    pub(super) key_parts: Vec<Option<TextPart>>,
    /// The input column of the event time; `None` for the record's own timestamp.
    pub time_column: Option<usize>,
    /// What becomes of late records.
    pub late: Late,
    /// Records go on besides.
    pub forward: bool,
    /// The two sides of a stage that makes pairs; none of others.
    pub(super) sides: Vec<SidePlan>,
    /// What states are made by: states of another one can't be read.
    pub digest: String,
    /// The input columns of decimals.
    pub(super) decimals: Decimals,
}

/// Where a window's rows go, in the stage's outputs, and where late records do.
pub(super) const ROWS_OUTPUT: u32 = 0;
/// The output of late records.
pub(super) const LATE_OUTPUT: u32 = 1;

impl WindowPlan {
    /// The plan of a stage in this role, and what it reads and names; `plugin` is what its plugin reads, if it has one.
    pub fn new(config: &WindowConfig, role: Role, plugin: &[ReadField]) -> (Self, Descriptor) {
        let mut reads: Vec<ReadField> = Vec::new();
        let required = |path: &str, ty| ReadField { path: path.to_owned(), ty, required: true };
        let sides = SidePlan::of(config, &mut reads);
        if role == Role::Merge {
            reads.clear();
        } else if sides.is_empty() {
            reads.extend(config.key.iter().map(|key| required(&key.field, ColumnType::Json)));
            reads.extend(config.time.iter().map(|time| required(&time.field, column_type(time))));
            if let AggregateConfig::Functions(functions) = &config.aggregate {
                reads.extend(functions.iter().filter_map(|(_, function)| read_of(function)));
            }
            reads.extend_from_slice(plugin);
        }
        let late = match config.late {
            // What is late here was sent on as a record, not as part of a state.
            LatePolicy::Output(_) if role != Role::Merge || !sides.is_empty() => Late::Output,
            _ if role == Role::Merge => Late::DeadLetter,
            LatePolicy::Output(_) | LatePolicy::DeadLetter => Late::DeadLetter,
            LatePolicy::Forward => Late::Forward,
        };
        let raw = role == Role::Merge || late == Late::Output || !sides.is_empty();
        let descriptor = Descriptor {
            name: if sides.is_empty() { "window" } else { "pair" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reads,
            writes: Vec::new(),
            outputs: config.outputs().map(str::to_owned).collect(),
            raw_reads: Parts { key: raw, value: raw, timestamp: role != Role::Merge, ..Parts::default() },
            raw_writes: Parts::default(),
            tombstones: false,
            joins: Vec::new(),
            lookups: Vec::new(),
            lenient: !sides.is_empty(),
        };
        let plan = Self {
            spec: WindowSpec::new(config),
            role,
            key_names: config.key.iter().map(|key| key.name.clone()).collect(),
            key_parts: config.key.iter().map(|key| key.part.clone()).collect(),
            time_column: config.time.as_ref().map(|_| config.key.len()),
            late,
            forward: config.forward,
            sides,
            digest: digest(config),
            decimals: Decimals(if role == Role::Merge { Vec::new() } else { decimals(config) }),
        };
        (plan, descriptor)
    }

    /// The built-in functions of a configuration; `None` where it has a plugin.
    pub fn functions(config: &WindowConfig) -> Option<Functions> {
        match &config.aggregate {
            AggregateConfig::Functions(functions) => {
                Some(Functions::new(functions, config.key.len() + usize::from(config.time.is_some())))
            }
            AggregateConfig::Pairs(_) => Some(Functions::new(&[], 0)),
            AggregateConfig::Plugin(_) => None,
        }
    }

    /// The number of columns before those of the aggregate.
    pub fn own_columns(&self) -> usize {
        self.key_names.len() + usize::from(self.time_column.is_some())
    }
}

/// The input columns of functions that look at decimals.
fn decimals(config: &WindowConfig) -> Vec<(usize, String, u8)> {
    let AggregateConfig::Functions(functions) = &config.aggregate else { return Vec::new() };
    let first = config.key.len() + usize::from(config.time.is_some());
    let of_fields = functions.iter().filter_map(|(_, function)| Some((function.field()?, function.decimals())));
    let decimal =
        |(index, (field, places)): (usize, (&str, Option<u8>))| Some((first + index, field.to_owned(), places?));
    of_fields.enumerate().filter_map(decimal).collect()
}

/// What makes a state what it is: where it lies, its key, and the functions; a plugin's states have a version of their own.
fn digest(config: &WindowConfig) -> String {
    let functions = match &config.aggregate {
        AggregateConfig::Functions(functions) => format!("{functions:?}"),
        AggregateConfig::Plugin(_) => "plugin".to_owned(),
        AggregateConfig::Pairs(pairs) => format!("{:?}", pairs.sides.each_ref().map(|side| &side.key)),
    };
    let text = format!("{:?} {:?} {functions}", config.kind, config.key);
    let mut hex = String::new();
    for byte in &Sha256::digest(text)[..8] {
        // Writing to memory does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn read_of(function: &Function) -> Option<ReadField> {
    let ty = match function {
        Function::Distinct(_) => ColumnType::Json,
        _ if function.decimals().is_some() => ColumnType::Decimal,
        _ => ColumnType::Int64,
    };
    function.field().map(|path| ReadField { path: path.to_owned(), ty, required: false })
}

pub(super) fn column_type(time: &EventTime) -> ColumnType {
    ColumnType::Timestamp(match time.encoding {
        TimeEncoding::Rfc3339 => TimestampEncoding::Rfc3339,
        TimeEncoding::Epoch { per_second: 1 } => TimestampEncoding::EpochS,
        TimeEncoding::Epoch { per_second: 1_000 } => TimestampEncoding::EpochMs,
        TimeEncoding::Epoch { per_second: 1_000_000 } => TimestampEncoding::EpochUs,
        TimeEncoding::Epoch { .. } => TimestampEncoding::EpochNs,
    })
}
