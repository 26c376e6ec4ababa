//! What reading and writing promise, first by example and then against `serde_json`.

use std::sync::Arc;

use super::{Extractor, Field, JsonError, Plan, Pointer, Sites, SpliceError, SpliceFault, Splicer};
use crate::record::{Cell, Column, ColumnData, ColumnType, Op, Written};

mod oracle;
mod reading;
mod writing;

fn path(text: &str) -> Pointer {
    Pointer::parse(text).expect("a pointer")
}

fn field(text: &str, ty: ColumnType) -> Field {
    Field { path: path(text), ty }
}

/// An extractor and a splicer that are kept from record to record, as a task keeps them.
struct Chain {
    extractor: Extractor,
    splicer: Splicer,
}

impl Chain {
    fn new(reads: &[Field], writes: &[&str]) -> Self {
        let writes: Vec<Pointer> = writes.iter().map(|text| path(text)).collect();
        let plan = Arc::new(Plan::new(reads, &writes).expect("a plan"));
        Self { extractor: Extractor::new(plan.clone()), splicer: Splicer::new(plan) }
    }

    fn read(&mut self, record: &[u8]) -> Result<(Vec<Column>, Sites), JsonError> {
        let mut columns = self.extractor.plan().columns();
        let mut sites = Sites::default();
        let result = self.extractor.extract(record, &mut columns, &mut sites);
        let rows = usize::from(result.is_ok());
        assert!(columns.iter().all(|column| column.cells.len() == rows && column.data.len() == rows));
        assert_eq!(sites.len(), rows);
        result.map(|()| (columns, sites))
    }

    fn write(&mut self, record: &[u8], written: &[Written]) -> Result<Vec<u8>, SpliceError> {
        let (_, sites) = self.read(record).expect("a record");
        let written: Vec<&Written> = written.iter().collect();
        let mut out = b"{kept".to_vec();
        let result = self.splicer.splice(record, (&sites, 0), (&written, 0), &mut out);
        assert!(result.is_ok() || out == b"{kept", "an error left something");
        result.map(|()| out.split_off(5))
    }
}

/// One row of `op`, with the value that `fill` appends.
fn one(ty: ColumnType, op: Op, fill: impl FnOnce(&mut ColumnData)) -> Written {
    let mut written = Written::new(ty);
    written.ops.push(op);
    fill(&mut written.data);
    if written.data.is_empty() {
        written.data.push_default();
    }
    written
}

fn set(ty: ColumnType, bytes: &[u8]) -> Written {
    one(ty, Op::Set, |data| match data {
        ColumnData::Packed(packed) => packed.push(bytes),
        _ => panic!("not packed"),
    })
}

fn set_int(ty: ColumnType, value: i64) -> Written {
    one(ty, Op::Set, |data| match data {
        ColumnData::Int64(values) => values.push(value),
        _ => panic!("not integers"),
    })
}

/// The value of a column's only row, as text.
fn shown(column: &Column) -> String {
    match &column.data {
        _ if column.cells != [Cell::Valid] => format!("{:?}", column.cells[0]),
        ColumnData::Bool(bits) => bits.get(0).to_string(),
        ColumnData::Int64(values) => values[0].to_string(),
        ColumnData::Float64(values) => format!("{:?}", values[0]),
        ColumnData::Packed(packed) => String::from_utf8_lossy(packed.get(0)).into_owned(),
    }
}
