//! `join`: writes columns of a table into the records that name its key.

use std::sync::Arc;

use super::builtin::{descriptor, read};
use super::joined::value;
use crate::config::{JoinConfig, NoMatch, TableConfig};
use crate::plugin::{Descriptor, Rejection, StageError, StageInput, StageOutput, Verdict, WriteField};
use crate::record::json::push_value;
use crate::record::{Cell, Column, ColumnType, Op, Written};
use crate::table::{Row, Table, View, key_text};

/// The code of a record whose key the table does not have.
pub(super) const NO_MATCH: &str = "no_match";
/// Bytes of a key that a message shows.
const SHOWN_BYTES: usize = 100;

/// How long a batch is held before it is tried again.
pub const HOLD_MS: u64 = 200;

/// How often a batch is tried again before `wait` is over.
fn tries(config: &JoinConfig) -> u32 {
    u32::try_from(config.wait_ms.div_ceil(HOLD_MS)).unwrap_or(u32::MAX)
}

/// A join, ready to run.
#[derive(Debug)]
pub struct Join {
    view: View,
    on: String,
    no_match: NoMatch,
    /// How often a batch may still be tried again for a record without a match, and how often each one may.
    tries: (u32, u32),
    /// For each column of the table, the one that it is written to.
    targets: Vec<Option<usize>>,
    types: Vec<ColumnType>,
    scratch: Vec<u8>,
}

/// What a join reads and writes. The columns are written in the order of their names.
pub fn join_descriptor(config: &JoinConfig, table: &TableConfig) -> Descriptor {
    let write = |(column, path): (&String, &String)| WriteField { path: path.clone(), ty: table.column_type(column) };
    Descriptor {
        reads: vec![read(&config.on, ColumnType::Json)],
        writes: config.columns.iter().map(write).collect(),
        ..descriptor("join")
    }
}

impl Join {
    /// A join with `table`, which keeps at least the columns that it names, for a task of this partition.
    pub fn new(config: &JoinConfig, table: &Arc<Table>, partition: i32) -> Self {
        let target = |path: &String| config.columns.keys().position(|column| column == path);
        let type_of =
            |path: &String| table.columns().iter().find(|column| column.path == *path).map(|column| column.ty);
        Self {
            targets: table.columns().iter().map(|column| target(&column.path)).collect(),
            types: config.columns.keys().map(|path| type_of(path).unwrap_or(ColumnType::Json)).collect(),
            view: View::new(table.clone(), partition),
            on: config.on.clone(),
            no_match: config.no_match,
            tries: (tries(config), tries(config)),
            scratch: Vec::new(),
        }
    }

    /// The table that is not read yet, where that is so.
    pub(super) fn unready(&self) -> Option<&str> {
        (!self.view.is_ready()).then(|| self.view.table().name())
    }

    /// Looks all rows up in the table as it is now; `out` has one verdict a row already. An error asks for another try.
    pub(super) fn run(&mut self, input: &StageInput<'_>, out: &mut StageOutput) -> Result<(), StageError> {
        self.view.refresh();
        let keys = input.columns[0];
        let mut columns: Vec<Column> = self.types.iter().map(|ty| Column::new(*ty)).collect();
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut hits = 0;
        for row in 0..input.rows {
            let json = value(keys, row);
            let key = json.and_then(|json| key_text(json, &mut scratch));
            let found = key.and_then(|key| self.view.get(key));
            hits += u64::from(found.is_some());
            if let (None, Some(key), 1..) = (found, key, self.tries.0) {
                self.tries.0 -= 1;
                self.view.count(hits, 1);
                let why = format!("table `{}` has no row for the key {}", self.view.table().name(), shown(key));
                self.scratch = scratch;
                return Err(StageError::Waiting(why));
            }
            let rejection = match found {
                Some(found) => {
                    self.write(found, &mut columns, &mut scratch);
                    continue;
                }
                None => self.rejection(json, key),
            };
            let cell = if rejection.is_some() { Cell::Missing } else { Cell::Null };
            columns.iter_mut().for_each(|column| column.push_cell(cell));
            if let Some((code, detail)) = rejection {
                out.verdicts[row] = Verdict::Reject;
                out.rejections.push(Rejection { row, code: code.to_owned(), detail, fault: None });
            }
        }
        self.scratch = scratch;
        self.tries.0 = self.tries.1;
        self.view.count(hits, input.rows as u64 - hits);
        out.writes = columns.into_iter().zip(&self.types).map(|(column, ty)| written(column, *ty)).collect();
        Ok(())
    }

    /// Appends what a row of the table has for each column.
    fn write(&self, found: Row<'_>, columns: &mut [Column], scratch: &mut Vec<u8>) {
        for (value, target) in found.values().zip(&self.targets) {
            match (target, value) {
                (Some(target), Some(json)) => push_value(&mut columns[*target], self.types[*target], json, scratch),
                (Some(target), None) => columns[*target].push_cell(Cell::Null),
                (None, _) => {}
            }
        }
    }

    /// Why a record without a match goes no further, where it does not.
    fn rejection(&self, json: Option<&[u8]>, key: Option<&[u8]>) -> Option<(&'static str, String)> {
        let table = self.view.table().name();
        let what = match (json, key) {
            // An array or an object is no key in whatever table.
            (Some(json), None) => {
                return Some(("wrong_type", format!("field `{}`: {} is no key", self.on, shown(json))));
            }
            _ if self.no_match == NoMatch::Null => return None,
            (_, Some(key)) => format!("the key {}", shown(key)),
            (None, None) => format!("a record without `{}`", self.on),
        };
        Some((NO_MATCH, format!("table `{table}` has no row for {what}")))
    }
}

/// What the joined cells do to the record: a rejected row's are missing, and nothing is done.
fn written(column: Column, ty: ColumnType) -> Written {
    let op = |cell: &Cell| match cell {
        Cell::Valid => Op::Set,
        Cell::Missing => Op::Keep,
        _ => Op::Null,
    };
    Written { ty, ops: column.cells.iter().map(op).collect(), data: column.data }
}

/// The beginning of a key, for a message.
pub(super) fn shown(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(&key[..key.len().min(SHOWN_BYTES)]);
    format!("{text:?}{}", if key.len() > SHOWN_BYTES { "…" } else { "" })
}
