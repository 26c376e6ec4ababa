//! The static check: what every stage reads and writes, cut into segments.

use std::sync::Arc;

use crate::plugin::{Descriptor, JoinField, Parts};
use crate::record::json::{self, Field, Plan, Pointer};
use crate::record::{ColumnType, TimestampEncoding};

use super::OutputIndex;
use super::joined::key_fields;

/// Why a chain of stages cannot run as it is written.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A path is not a JSON Pointer.
    #[error("stage `{stage}` declares the path `{path}`: {why}")]
    Path {
        /// The stage's name.
        stage: String,
        /// The path as the plugin gave it.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two writes of one stage touch each other.
    #[error(
        "stage `{stage}` writes both `{first}` and `{second}`: one contains the other; write the outer one as json"
    )]
    WritesOverlap {
        /// The stage's name.
        stage: String,
        /// The one path.
        first: String,
        /// The other path.
        second: String,
    },
    /// A stage reads a field as a type that an earlier stage never writes.
    #[error(
        "stage `{reader}` reads `{path}` as {read}, but stage `{writer}` before it writes {written}; \
         change the type that one of the two declares"
    )]
    TypesDiffer {
        /// The later stage.
        reader: String,
        /// The earlier stage.
        writer: String,
        /// The field.
        path: String,
        /// The type that is read.
        read: &'static str,
        /// The type that is written.
        written: &'static str,
    },
    /// A plugin names an output that the configuration lacks.
    #[error(
        "stage `{stage}` sends records to the output `{output}`, which the pipeline does not have: add it under `outputs`"
    )]
    NoSuchOutput {
        /// The stage's name.
        stage: String,
        /// The output's name.
        output: String,
    },
    /// The fields can't be read or written together.
    #[error("{0}")]
    Fields(#[from] json::PlanError),
    /// A stage writes fields and the whole value.
    #[error("stage `{stage}` writes fields and the raw value; it can do one or the other")]
    ValueAndFields {
        /// The stage's name.
        stage: String,
    },
}

/// A field that a stage reads.
#[derive(Clone, Debug)]
pub struct StageRead {
    /// Where, and of which type.
    pub field: Field,
    /// Rows without it are rejected.
    pub required: bool,
}

/// What a stage does to a record, as its descriptor says.
#[derive(Clone, Debug)]
pub struct StageSpec {
    /// The stage's name in the configuration.
    pub name: String,
    /// Fields that are read: those that the stage sees, and behind them those that hold keys of tables.
    pub reads: Vec<StageRead>,
    /// How many of these the stage sees.
    pub own_reads: usize,
    /// Columns of tables that it sees behind them.
    pub joins: Vec<JoinField>,
    /// Fields that are written.
    pub writes: Vec<Field>,
    /// The pipeline's output for each output that the plugin names.
    pub outputs: Vec<OutputIndex>,
    /// Parts of the record that are read as bytes.
    pub raw_reads: Parts,
    /// Parts of the record that are written as bytes.
    pub raw_writes: Parts,
    /// Tombstones are shown to the stage.
    pub tombstones: bool,
    /// The stage judges itself what is missing or of another type.
    pub lenient: bool,
}

impl StageSpec {
    /// Checks what a plugin says of itself, on its own and against the pipeline's outputs.
    pub fn new(name: &str, descriptor: &Descriptor, outputs: &[String]) -> Result<Self, PlanError> {
        let path = |path: &str| {
            Pointer::parse(path).map_err(|error| PlanError::Path {
                stage: name.to_owned(),
                path: path.to_owned(),
                why: error.to_string(),
            })
        };
        let mut reads = Vec::new();
        for read in &descriptor.reads {
            let field = Field { path: path(&read.path)?, ty: read.ty };
            reads.push(StageRead { field, required: read.required });
        }
        let own_reads = reads.len();
        for on in key_fields(&descriptor.joins) {
            reads.push(StageRead { field: Field { path: path(on)?, ty: ColumnType::Json }, required: false });
        }
        let mut writes = Vec::new();
        for write in &descriptor.writes {
            writes.push(Field { path: path(&write.path)?, ty: write.ty });
        }
        let output = |output: &String| {
            outputs
                .iter()
                .position(|known| known == output)
                .map(|index| index as OutputIndex)
                .ok_or_else(|| PlanError::NoSuchOutput { stage: name.to_owned(), output: output.clone() })
        };
        let spec = Self {
            name: name.to_owned(),
            reads,
            own_reads,
            joins: descriptor.joins.clone(),
            writes,
            outputs: descriptor.outputs.iter().map(output).collect::<Result<_, _>>()?,
            raw_reads: descriptor.raw_reads,
            raw_writes: descriptor.raw_writes,
            tombstones: descriptor.tombstones,
            lenient: descriptor.lenient,
        };
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), PlanError> {
        for (i, second) in self.writes.iter().enumerate() {
            if second.path.tokens().is_empty() {
                let why = "the whole record cannot be written as a field; write the raw value instead".to_owned();
                return Err(PlanError::Path { stage: self.name.clone(), path: String::new(), why });
            }
            if let Some(first) = self.writes[..i].iter().find(|first| touch(&first.path, &second.path)) {
                return Err(PlanError::WritesOverlap {
                    stage: self.name.clone(),
                    first: first.path.to_string(),
                    second: second.path.to_string(),
                });
            }
        }
        if self.raw_writes.value && !self.writes.is_empty() {
            return Err(PlanError::ValueAndFields { stage: self.name.clone() });
        }
        Ok(())
    }
}

/// A stage's place in its segment.
#[derive(Debug)]
pub(super) struct StagePlan {
    /// Index in the pipeline's stages.
    pub index: usize,
    /// The segment's slot of each field that the stage reads.
    pub reads: Vec<usize>,
    /// The segment's write of each field that the stage writes, and the slot that it feeds, if a later stage reads it.
    pub writes: Vec<(usize, Option<usize>)>,
}

/// Stages that share one parse and one splice.
#[derive(Debug)]
pub(super) struct Segment {
    /// The fields that are extracted: one column each.
    pub slots: Vec<Field>,
    /// The fields that are spliced.
    pub writes: Vec<Field>,
    /// Extraction and splice of those, compiled; none where nothing is read or written, and records are not parsed.
    pub json: Option<Arc<Plan>>,
    /// The stages, in order.
    pub stages: Vec<StagePlan>,
    /// Per output of the pipeline, the slot that its records' keys come from; in the last segment only.
    pub key_slots: Vec<Option<usize>>,
}

/// A checked chain of stages with its outputs.
#[derive(Debug)]
pub struct Pipeline {
    /// The stages, in order.
    pub stages: Vec<StageSpec>,
    /// The outputs' names; the first is `main`.
    pub outputs: Vec<String>,
    pub(super) segments: Vec<Segment>,
}

impl Pipeline {
    /// Checks that the stages fit each other and cuts them into segments. `key_paths` has, for each output, the field
    /// that its records' keys come from, if one does.
    pub fn new(stages: Vec<StageSpec>, outputs: Vec<String>, key_paths: &[Option<Pointer>]) -> Result<Self, PlanError> {
        check_types(&stages)?;
        let mut cuts = vec![0];
        for later in 1..stages.len() {
            let open = cuts.last().copied().unwrap_or_default();
            if (open..later).any(|earlier| needs_cut(&stages[earlier], &stages[later])) {
                cuts.push(later);
            }
        }
        cuts.push(stages.len());
        let mut segments: Vec<Segment> = cuts.windows(2).map(|cut| segment(&stages, cut[0]..cut[1])).collect();
        if key_paths.iter().any(Option::is_some) {
            let ends_raw = stages.last().is_some_and(|stage| stage.raw_writes.value);
            if ends_raw || segments.last().is_none_or(|last| !last.can_read_keys(key_paths)) {
                segments.push(segment(&stages, stages.len()..stages.len()));
            }
        }
        if let Some(last) = segments.last_mut() {
            last.add_keys(key_paths);
        }
        segments.iter_mut().try_for_each(Segment::compile)?;
        Ok(Self { stages, outputs, segments })
    }

    /// How often a record is parsed on its way through.
    pub fn parses(&self) -> usize {
        self.segments.iter().filter(|segment| segment.json.is_some()).count()
    }
}

impl Segment {
    /// True when the outputs' keys can be taken from this segment's columns as they are after its last stage.
    fn can_read_keys(&self, key_paths: &[Option<Pointer>]) -> bool {
        let touched = |key: &Pointer| self.writes.iter().any(|write| touch(&write.path, key));
        !key_paths.iter().flatten().any(touched)
    }

    fn add_keys(&mut self, key_paths: &[Option<Pointer>]) {
        self.key_slots = key_paths
            .iter()
            .map(|path| {
                path.as_ref().map(|path| slot(&mut self.slots, &Field { path: path.clone(), ty: ColumnType::Json }))
            })
            .collect();
    }

    fn compile(&mut self) -> Result<(), PlanError> {
        if !self.slots.is_empty() || !self.writes.is_empty() {
            let writes: Vec<Pointer> = self.writes.iter().map(|write| write.path.clone()).collect();
            self.json = Some(Arc::new(Plan::new(&self.slots, &writes)?));
        }
        Ok(())
    }
}

fn segment(stages: &[StageSpec], range: std::ops::Range<usize>) -> Segment {
    let mut slots = Vec::new();
    let mut writes: Vec<Field> = Vec::new();
    let mut plans: Vec<StagePlan> = Vec::new();
    for index in range {
        let stage = &stages[index];
        let reads: Vec<usize> = stage.reads.iter().map(|read| slot(&mut slots, &read.field)).collect();
        // What is read here and was written before, in this segment, is fed by that write.
        for (&read, field) in reads.iter().zip(&stage.reads) {
            for earlier in &mut plans {
                for (write, feeds) in &mut earlier.writes {
                    if writes[*write].path == field.field.path {
                        *feeds = Some(read);
                    }
                }
            }
        }
        let writes = stage.writes.iter().map(|field| (slot(&mut writes, field), None)).collect();
        plans.push(StagePlan { index, reads, writes });
    }
    Segment { slots, writes, json: None, stages: plans, key_slots: Vec::new() }
}

/// The index of `field` in `fields`, which gets it where it is new.
fn slot(fields: &mut Vec<Field>, field: &Field) -> usize {
    fields.iter().position(|known| known == field).unwrap_or_else(|| {
        fields.push(field.clone());
        fields.len() - 1
    })
}

/// True when `later` can't work on the columns that it would share with `earlier`.
fn needs_cut(earlier: &StageSpec, later: &StageSpec) -> bool {
    let wrote = !earlier.writes.is_empty();
    let raw = earlier.raw_writes.value || (later.raw_reads.value || later.raw_writes.value) && wrote;
    let differs = |one: &Field, other: &Field| touch(&one.path, &other.path) && one != other;
    raw || earlier.writes.iter().any(|write| {
        later.reads.iter().any(|read| differs(write, &read.field)) || later.writes.iter().any(|new| differs(write, new))
    })
}

/// True when one path is the other or lies within it.
fn touch(one: &Pointer, other: &Pointer) -> bool {
    one.is_prefix_of(other) || other.is_prefix_of(one)
}

fn check_types(stages: &[StageSpec]) -> Result<(), PlanError> {
    for (later, reader) in stages.iter().enumerate() {
        for read in &reader.reads {
            let last_write = stages[..later].iter().rev().find_map(|writer| {
                writer.writes.iter().find(|write| write.path == read.field.path).map(|write| (writer, write.ty))
            });
            let Some((writer, written)) = last_write else { continue };
            if !fits(written, read.field.ty) {
                return Err(PlanError::TypesDiffer {
                    reader: reader.name.clone(),
                    writer: writer.name.clone(),
                    path: read.field.path.to_string(),
                    read: type_name(read.field.ty),
                    written: type_name(written),
                });
            }
        }
    }
    Ok(())
}

/// True when a value written as `written` can be read as `read`.
pub fn fits(written: ColumnType, read: ColumnType) -> bool {
    let kind = |ty| match ty {
        ColumnType::Bool => Some(0),
        ColumnType::Int64 | ColumnType::Float64 => Some(1),
        ColumnType::Timestamp(encoding) => Some(if encoding == TimestampEncoding::Rfc3339 { 2 } else { 1 }),
        ColumnType::Text | ColumnType::Bytes | ColumnType::Decimal => Some(2),
        ColumnType::Json => None,
    };
    match (kind(written), kind(read)) {
        (Some(1), _) if read == ColumnType::Decimal => true,
        (Some(written), Some(read)) => written == read,
        _ => true,
    }
}

/// The name of a type in messages.
pub fn type_name(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Bool => "bool",
        ColumnType::Int64 => "int64",
        ColumnType::Float64 => "float64",
        ColumnType::Text => "text",
        ColumnType::Bytes => "bytes (base64)",
        ColumnType::Timestamp(TimestampEncoding::Rfc3339) => "timestamp (RFC 3339)",
        ColumnType::Timestamp(TimestampEncoding::EpochS) => "timestamp (epoch seconds)",
        ColumnType::Timestamp(TimestampEncoding::EpochMs) => "timestamp (epoch milliseconds)",
        ColumnType::Timestamp(TimestampEncoding::EpochUs) => "timestamp (epoch microseconds)",
        ColumnType::Timestamp(TimestampEncoding::EpochNs) => "timestamp (epoch nanoseconds)",
        ColumnType::Decimal => "decimal",
        ColumnType::Json => "json",
    }
}
