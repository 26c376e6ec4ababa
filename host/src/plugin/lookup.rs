//! `tables.lookup`: columns of the pipeline's tables that a plugin asks for.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::instance::{Meter, State};
use super::{TableField, abi, wrap};
use crate::table::{Tables, View};

/// The most keys of one lookup.
const KEYS: usize = 65_536;
/// Fuel that a lookup takes from a suspect: for the call, for each key, and for each byte that it is given.
const CALL_FUEL: u64 = 1_000;
const KEY_FUEL: u64 = 100;

/// The columns that a stage's plugin may look up. Their rows stay the same until they are refreshed.
#[derive(Clone, Debug)]
pub(super) struct Lookups {
    /// One a table, so that all of its columns are those of the same rows.
    views: Vec<View>,
    /// For each of the descriptor's lookups, the view, and the column of its table.
    columns: Vec<(usize, usize)>,
}

impl Lookups {
    /// What the descriptor asks for, for a task of this partition; the error says what there is not.
    pub(super) fn new(wanted: &[TableField], (tables, partition): (&Tables, i32)) -> Result<Self, String> {
        let mut found = Self { views: Vec::new(), columns: Vec::new() };
        for TableField { table, path } in wanted {
            let own = tables.get(table).ok_or_else(|| format!("there is no table `{table}`"))?;
            let column = own.columns().iter().position(|column| column.path == *path);
            let column = column.ok_or_else(|| format!("the table `{table}` keeps no column `{path}`"))?;
            let known = found.views.iter().position(|view| view.table().name() == table);
            let view = known.unwrap_or_else(|| {
                found.views.push(View::new(own.clone(), partition));
                found.views.len() - 1
            });
            found.columns.push((view, column));
        }
        Ok(found)
    }

    /// A table that is not read yet.
    pub(super) fn unready(&self) -> Option<&str> {
        self.views.iter().find(|view| !view.is_ready()).map(|view| view.table().name())
    }

    /// Looks at the newest rows from now on.
    pub(super) fn refresh(&mut self) {
        self.views.iter_mut().for_each(View::refresh);
    }

    /// The column's value in the row of each key; fails where the values have more than `most_bytes`.
    fn look_up(&self, column: u32, keys: &abi::Packed, most_bytes: usize) -> Result<abi::OptionalBytes, String> {
        let known = self.columns.get(column as usize);
        let &(view, column) = known.ok_or_else(|| format!("it looks up column {column}, which it does not declare"))?;
        let view = &self.views[view];
        let mut found = abi::OptionalBytes::default();
        found.valid.resize(keys.ends.len().div_ceil(8), 0);
        found.bytes.ends.reserve_exact(keys.ends.len());
        let mut hits = 0;
        for row in 0..keys.ends.len() {
            let of_table = view.get(keys.get(row));
            hits += u64::from(of_table.is_some());
            if let Some(value) = of_table.and_then(|row| row.values().nth(column).flatten()) {
                found.valid[row / 8] |= 1 << (row % 8);
                found.bytes.data.extend_from_slice(value);
            }
            if found.bytes.data.len() > most_bytes {
                return Err(format!("the values that it looks up have more than {most_bytes} bytes"));
            }
            found.bytes.ends.push(found.bytes.data.len() as u32);
        }
        view.count(hits, keys.ends.len() as u64 - hits);
        Ok(found)
    }
}

/// Gives plugins the tables.
pub(super) fn link(linker: &mut Linker<State>, meter: Meter) -> wasmtime::Result<()> {
    let mut tables = linker.instance(wrap::TABLES)?;
    tables.func_wrap("lookup", move |mut store: StoreContextMut<'_, State>, (column, keys): (u32, abi::Packed)| {
        let found = answer(store.data(), column, &keys).map_err(wasmtime::Error::msg)?;
        if meter == Meter::Fuel {
            let bytes = keys.data.len() + found.bytes.data.len();
            let cost = CALL_FUEL + KEY_FUEL * keys.ends.len() as u64 + bytes as u64;
            let left = store.get_fuel()?.saturating_sub(cost);
            store.set_fuel(left)?;
        }
        Ok((found,))
    })
}

fn answer(state: &State, column: u32, keys: &abi::Packed) -> Result<abi::OptionalBytes, String> {
    let Some(lookups) = &state.lookups else {
        return Err("it looks up a table where no rows are processed".to_owned());
    };
    if keys.ends.len() > KEYS {
        return Err(format!("it looks up {} keys at once, and {KEYS} are the most", keys.ends.len()));
    }
    super::check::packed(keys, keys.ends.len()).map_err(|what| format!("it looks up keys with {what}"))?;
    lookups.look_up(column, keys, state.output_bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::ColumnType;
    use crate::table::{Table, TableColumn};

    fn keys(keys: &[&str]) -> abi::Packed {
        let mut packed = abi::Packed::default();
        for key in keys {
            packed.data.extend_from_slice(key.as_bytes());
            packed.ends.push(packed.data.len() as u32);
        }
        packed
    }

    #[test]
    fn a_lookup_finds_values_and_is_bounded() {
        let column = |path: &str| TableColumn { path: path.to_owned(), ty: ColumnType::Json };
        let table = Arc::new(Table::new("rates", vec![column("/a"), column("/b")]));
        let mut rows = table.empty().changes();
        for (key, value) in [("x", None), ("y", Some(b"12".as_slice())), ("", Some(b"\"\""))] {
            rows.set(key.as_bytes(), [Some(b"0".as_slice()), value].into_iter()).expect("there is room");
        }
        table.publish(table.empty().with(rows));
        let tables: Tables = [("rates".to_owned(), table)].into();
        let wanted = |path: &str| TableField { table: "rates".to_owned(), path: path.to_owned() };
        let lookups = Lookups::new(&[wanted("/b"), wanted("/a")], (&tables, 0)).expect("they are there");
        let asked = keys(&["y", "z", "x", "", "y", "y", "y", "y", "x", "y"]);
        let found = lookups.look_up(0, &asked, 20).expect("it fits");
        let values: Vec<Option<&[u8]>> = (0..10).map(|row| found.get(row)).collect();
        let (y, none): (Option<&[u8]>, _) = (Some(b"12"), None);
        assert_eq!(values, [y, none, none, Some(b"\"\""), y, y, y, y, none, y]);
        let why = lookups.look_up(0, &asked, 13).expect_err("too much");
        assert_eq!(why, "the values that it looks up have more than 13 bytes");
        assert!(lookups.look_up(2, &asked, 20).expect_err("no such").contains("looks up column 2, which"));
        let missing = Lookups::new(&[wanted("/c")], (&tables, 0)).expect_err("none");
        assert_eq!(missing, "the table `rates` keeps no column `/c`");
    }
}
