//! Columns of tables that a plugin's descriptor joins: looked up by the host, and shown to the plugin like fields.

use crate::plugin::JoinField;
use crate::record::json::push_value;
use crate::record::{Cell, Column, ColumnData, ColumnType};
use crate::table::{Tables, View, key_text};

/// A stage's joins, ready to look up.
#[derive(Debug, Default)]
pub struct Joined {
    groups: Vec<Group>,
    types: Vec<ColumnType>,
    scratch: Vec<u8>,
}

/// The columns that come from one row of a table.
#[derive(Debug)]
struct Group {
    view: View,
    on: String,
    /// Where the key stands among the stage's reads.
    read: usize,
    /// Columns of the table, in its order, and which of the joins each is for.
    targets: Vec<(usize, usize)>,
}

/// The fields that hold the keys, each once, in the order in which they are read behind the plugin's own fields.
pub(super) fn key_fields(joins: &[JoinField]) -> Vec<&str> {
    let mut fields: Vec<&str> = Vec::new();
    for join in joins {
        if !fields.contains(&join.on.as_str()) {
            fields.push(&join.on);
        }
    }
    fields
}

impl Joined {
    /// The joins of a plugin that reads `own_reads` fields, for a task of this partition; the error says which table or column
    /// there is not.
    pub fn new(joins: &[JoinField], own_reads: usize, (tables, partition): (&Tables, i32)) -> Result<Self, String> {
        let fields = key_fields(joins);
        let mut groups: Vec<Group> = Vec::new();
        for (index, JoinField { column, on, .. }) in joins.iter().enumerate() {
            let table = tables.get(&column.table).ok_or_else(|| format!("there is no table `{}`", column.table))?;
            let place = table.columns().iter().position(|known| known.path == column.path);
            let missing = || format!("the table `{}` keeps no column `{}`", column.table, column.path);
            let place = place.ok_or_else(missing)?;
            let known = groups.iter().position(|group| group.on == *on && group.view.table().name() == column.table);
            let group = known.unwrap_or_else(|| {
                let read = own_reads + fields.iter().position(|field| field == on).unwrap_or_default();
                groups.push(Group {
                    view: View::new(table.clone(), partition),
                    on: on.clone(),
                    read,
                    targets: Vec::new(),
                });
                groups.len() - 1
            });
            groups[group].targets.push((place, index));
        }
        groups.iter_mut().for_each(|group| group.targets.sort_unstable());
        Ok(Self { groups, types: joins.iter().map(|join| join.ty).collect(), scratch: Vec::new() })
    }

    /// A table that is not read yet.
    pub(super) fn unready(&self) -> Option<&str> {
        let mut views = self.groups.iter().map(|group| &group.view);
        views.find(|view| !view.is_ready()).map(|view| view.table().name())
    }

    /// Looks up all rows that are still on their way, in the tables as they are now; `reads` has the column of each of the
    /// stage's reads. Leaves a column for each join: missing where the table has no such row, null where that has no value.
    pub(super) fn look_up(&mut self, reads: &[&Column], alive: &[bool], out: &mut Vec<Column>) {
        out.clear();
        out.extend(self.types.iter().map(|ty| Column::new(*ty)));
        for group in &mut self.groups {
            group.view.refresh();
            let (mut hits, mut misses) = (0, 0);
            for (row, alive) in alive.iter().enumerate() {
                let mut values = None;
                let mut none = Cell::Missing;
                if *alive {
                    let json = value(reads[group.read], row);
                    let key = json.and_then(|json| key_text(json, &mut self.scratch));
                    none = match (json, key) {
                        (Some([b'[', ..]), None) => Cell::WrongArray,
                        (Some(_), None) => Cell::WrongObject,
                        _ => Cell::Missing,
                    };
                    let found = key.and_then(|key| group.view.get(key));
                    values = found.map(|row| row.values());
                    *(if found.is_some() { &mut hits } else { &mut misses }) += 1;
                }
                let Some(mut values) = values else {
                    group.targets.iter().for_each(|&(_, join)| out[join].push_cell(none));
                    continue;
                };
                let (mut at, mut last) = (0, None);
                for &(place, join) in &group.targets {
                    if place >= at {
                        last = values.nth(place - at).flatten();
                        at = place + 1;
                    }
                    match last {
                        Some(json) => push_value(&mut out[join], self.types[join], json, &mut self.scratch),
                        None => out[join].push_cell(Cell::Null),
                    }
                }
            }
            group.view.count(hits, misses);
        }
    }
}

/// A row's JSON text, where it has a value that is not null.
pub(super) fn value(column: &Column, row: usize) -> Option<&[u8]> {
    match (&column.data, column.cells[row]) {
        (ColumnData::Packed(packed), Cell::Valid) => Some(packed.get(row)),
        _ => None,
    }
}
