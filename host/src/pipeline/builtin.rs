//! Stages that need no plugin: `filter`, `route`, `select`, `join`. They work on the same columns, under the same contract.

use std::sync::Arc;

use super::join::Join;
use crate::config::{FilterConfig, RouteConfig, SelectConfig};
use crate::plugin::{
    Descriptor, Parts, RawWrite, ReadField, SAME_ROUTE, StageError, StageInput, StageOutput, Verdict, WriteField,
};
use crate::record::json::{Extractor, Plan, Pointer, Sites, Splicer};
use crate::record::{Cell, Column, ColumnData, ColumnType, Op, Packed, Written};

/// A built-in stage, ready to run.
#[derive(Debug)]
pub enum Builtin {
    /// Lets pass the records for which a comparison holds.
    Filter(FilterConfig),
    /// Sends records to outputs by a field.
    Route(RouteConfig),
    /// Removes and moves fields.
    Select(SelectConfig),
    /// Makes each record anew from some of its fields.
    Keep(Box<Keep>),
    /// Adds what a table says.
    Join(Box<Join>),
}

/// Writes the kept fields into an empty object.
#[derive(Debug)]
pub struct Keep {
    splicer: Splicer,
    /// Where an empty object has the written paths: nowhere.
    sites: Sites,
}

const EMPTY: &[u8] = b"{}";

impl Builtin {
    /// A filter and what it reads.
    pub fn filter(config: &FilterConfig) -> (Self, Descriptor) {
        let reads = vec![read(&config.field, config.column_type())];
        let descriptor = Descriptor { reads, ..descriptor("filter") };
        (Self::Filter(config.clone()), descriptor)
    }

    /// A router and the outputs that it names.
    pub fn route(config: &RouteConfig) -> (Self, Descriptor) {
        let mut outputs: Vec<String> = config.outputs.values().cloned().collect();
        outputs.push(config.default.clone());
        let reads = vec![read(&config.field, ColumnType::Text)];
        (Self::Route(config.clone()), Descriptor { reads, outputs, ..descriptor("route") })
    }

    /// A selection and what it reads and writes; an error says which of its paths can't go together.
    pub fn select(config: &SelectConfig) -> Result<(Self, Descriptor), String> {
        let select = descriptor("select");
        if config.keep.is_empty() {
            let reads = config.rename.keys().map(|from| read(from, ColumnType::Json)).collect();
            let paths = config.rename.values().chain(config.rename.keys()).chain(&config.drop);
            let writes = paths.map(|path| WriteField { path: path.clone(), ty: ColumnType::Json }).collect();
            return Ok((Self::Select(config.clone()), Descriptor { reads, writes, ..select }));
        }
        if !config.drop.is_empty() {
            return Err("`keep` drops everything else already; leave `drop` out".to_owned());
        }
        if let Some(lost) = config.rename.keys().find(|from| !config.keep.contains(from)) {
            return Err(format!("`rename` moves `{lost}`, which `keep` does not keep"));
        }
        let target = |path: &String| Pointer::parse(config.rename.get(path).unwrap_or(path));
        let targets: Vec<Pointer> =
            config.keep.iter().map(target).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let plan = Arc::new(Plan::new(&[], &targets).map_err(|error| error.to_string())?);
        let mut sites = Sites::default();
        Extractor::new(plan.clone()).extract(EMPTY, &mut [], &mut sites).map_err(|error| error.to_string())?;
        let reads = config.keep.iter().map(|path| read(path, ColumnType::Json)).collect();
        let raw_writes = Parts { value: true, ..Parts::default() };
        let keep = Keep { splicer: Splicer::new(plan), sites };
        Ok((Self::Keep(Box::new(keep)), Descriptor { reads, raw_writes, ..select }))
    }

    /// Leaves one outcome for each row in `out`; an error says that the rows are to be tried again.
    pub fn run(&mut self, input: &StageInput<'_>, out: &mut StageOutput) -> Result<(), StageError> {
        *out = StageOutput { verdicts: vec![Verdict::Forward; input.rows], ..StageOutput::default() };
        match self {
            Self::Filter(config) => {
                for row in 0..input.rows {
                    if !config.holds(input.columns[0], row) {
                        out.verdicts[row] = Verdict::Drop;
                    }
                }
            }
            Self::Route(config) => {
                // The outputs stand in the order of the values, with the default behind them.
                let default = config.outputs.len() as u32;
                let values: Vec<&[u8]> = config.outputs.keys().map(String::as_bytes).collect();
                let output = |row| text(input.columns[0], row).and_then(|text| values.binary_search(&text).ok());
                out.routes = (0..input.rows).map(|row| output(row).map_or(default, |index| index as u32)).collect();
                debug_assert!(!out.routes.contains(&SAME_ROUTE));
            }
            Self::Select(config) => out.writes = select_writes(config, input),
            Self::Keep(keep) => out.value = Some(keep.run(input)),
            Self::Join(join) => join.run(input, out)?,
        }
        Ok(())
    }
}

impl Keep {
    fn run(&mut self, input: &StageInput<'_>) -> RawWrite {
        let written: Vec<Written> = input.columns.iter().map(|column| moved(column)).collect();
        let written: Vec<&Written> = written.iter().collect();
        let mut bytes = Packed::default();
        for row in 0..input.rows {
            // A field's own text is valid JSON and fits an empty object; were it not so, the record would stay empty.
            if self.splicer.splice(EMPTY, (&self.sites, 0), (&written, row), &mut bytes.data).is_err() {
                bytes.data.extend_from_slice(EMPTY);
            }
            bytes.end_row();
        }
        RawWrite { ops: vec![Op::Set; input.rows], bytes }
    }
}

/// What `select` without `keep` writes: the moved fields, then the removed ones.
fn select_writes(config: &SelectConfig, input: &StageInput<'_>) -> Vec<Written> {
    let moved = input.columns.iter().map(|column| moved(column));
    let gone = |_| Written { ty: ColumnType::Json, ops: vec![Op::Remove; input.rows], data: empty_texts(input.rows) };
    moved.chain((0..config.rename.len() + config.drop.len()).map(gone)).collect()
}

pub(super) fn descriptor(name: &str) -> Descriptor {
    Descriptor {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        reads: Vec::new(),
        writes: Vec::new(),
        outputs: Vec::new(),
        raw_reads: Parts::default(),
        raw_writes: Parts::default(),
        tombstones: false,
        joins: Vec::new(),
        lookups: Vec::new(),
        lenient: false,
    }
}

pub(super) fn read(path: &str, ty: ColumnType) -> ReadField {
    ReadField { path: path.to_owned(), ty, required: false }
}

/// A column written as it was read: what is missing is not written.
fn moved(column: &Column) -> Written {
    let op = |cell: &Cell| match cell {
        Cell::Valid => Op::Set,
        Cell::Null => Op::Null,
        _ => Op::Keep,
    };
    Written { ty: ColumnType::Json, ops: column.cells.iter().map(op).collect(), data: column.data.clone() }
}

fn empty_texts(rows: usize) -> ColumnData {
    ColumnData::Packed(Packed { ends: vec![0; rows], data: Vec::new() })
}

fn text(column: &Column, row: usize) -> Option<&[u8]> {
    match (&column.data, column.cells[row]) {
        (ColumnData::Packed(packed), Cell::Valid) => Some(packed.get(row)),
        _ => None,
    }
}
