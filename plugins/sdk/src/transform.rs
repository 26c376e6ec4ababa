//! A plugin as the SDK sees it, whether an attribute made it of a function or it was written by hand.

use crate::{Descriptor, Emit, Fate, FromConfig, Output, Outputs, Parts, ReadRow, Reply, RowWriter, Rows, WriteRow};

/// A plugin. `#[plugin]` implements it for a function; by hand, the fields may depend on the configuration:
///
/// ```
/// use millstream_sdk::{ColumnType, Config, Descriptor, Output, ReadValue, Rows, Transform};
///
/// /// Puts a mask over the fields that the configuration names.
/// #[derive(Config)]
/// struct Mask {
///     paths: Vec<String>,
/// }
///
/// impl Transform for Mask {
///     fn describe(&self) -> Descriptor {
///         let new = Descriptor::new("mask", "1.0.0");
///         self.paths.iter().fold(new, |all, path| {
///             all.read_optional(path, ColumnType::Text).write(path, ColumnType::Text)
///         })
///     }
///
///     fn process(&self, rows: &Rows, output: &mut Output) {
///         for field in 0..self.paths.len() {
///             let texts = rows.column::<Option<&str>>(field);
///             for row in 0..rows.len() {
///                 if Option::<&str>::at(&texts, row).is_some() {
///                     output.field(field).set(row, "***");
///                 }
///             }
///         }
///     }
/// }
///
/// millstream_sdk::export!(Mask);
/// ```
pub trait Transform: FromConfig {
    /// What the plugin reads and writes.
    fn describe(&self) -> Descriptor;

    /// Processes rows. The same rows, in whatever batches, must give the same results.
    fn process(&self, rows: &Rows, output: &mut Output);
}

/// Describes a function from `I` to `R` that emits to `E`.
#[doc(hidden)]
pub fn describe_rows<'a, I: ReadRow<'a>, R: Reply, E: Outputs>(name: &str, version: &str) -> Descriptor {
    const {
        assert!(
            R::Outputs::NAMES.is_empty() || E::NAMES.is_empty() || same(R::Outputs::NAMES, E::NAMES),
            "the function routes rows by one set of outputs and emits records to another"
        );
    }
    let mut all = Descriptor::new(name, version);
    all.reads = I::FIELDS.iter().map(|field| field.field()).collect();
    all.writes = <R::Row as WriteRow>::FIELDS.iter().map(|field| field.field()).collect();
    let names = if E::NAMES.is_empty() { R::Outputs::NAMES } else { E::NAMES };
    all.outputs = names.iter().map(|name| (*name).into()).collect();
    all.joins = I::JOINS.iter().map(|join| join.joined()).collect();
    all.lookups = I::LOOKUPS.iter().map(|lookup| lookup.column()).collect();
    all.raw_writes = <R::Row as WriteRow>::PARTS;
    // Rows that keep their headers or timestamp get them back from us: the contract writes those for all rows or none.
    let written = Parts::from_bits_retain(all.raw_writes.bits() & (Parts::HEADERS | Parts::TIMESTAMP).bits());
    all.raw_reads = I::PARTS.union(written);
    all
}

const fn same(left: &[&str], right: &[&str]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut name = 0;
    while name < left.len() {
        let (one, other) = (left[name].as_bytes(), right[name].as_bytes());
        if one.len() != other.len() {
            return false;
        }
        let mut byte = 0;
        while byte < one.len() {
            if one[byte] != other[byte] {
                return false;
            }
            byte += 1;
        }
        name += 1;
    }
    true
}

/// Runs a function over all rows.
#[doc(hidden)]
pub fn each_row<'a, I: ReadRow<'a>, R: Reply, E: Outputs>(
    rows: &'a Rows,
    output: &mut Output,
    mut function: impl FnMut(I, &mut Emit<'_, E>) -> R,
) {
    let columns = I::columns(rows);
    for row in 0..rows.len() {
        match function(I::at(&columns, row), &mut Emit::new(output, row)).fate() {
            Fate::Forward(write, to) => {
                if let Some(to) = to {
                    output.route(row, to.index());
                }
                write.write(&mut RowWriter { output, row });
            }
            Fate::Drop => output.drop_row(row),
            Fate::Reject(why) => output.reject(row, why),
        }
    }
}
