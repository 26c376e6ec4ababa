//! Everything that a plugin returned, looked at before any of it is used.
//!
//! Whatever breaks a rule is a fault of the whole call; which record is to blame is found as with a trap. Values that
//! are well formed but do not fit their record (a NaN, JSON text that is none) are left to the splice, row by row.

use super::abi::{self, ColumnData, Packed, Processed};
use super::{Descriptor, MAIN_OUTPUT, SAME_ROUTE, WriteField};
use crate::record::ColumnType;

/// Bytes of a rejection's code.
const CODE_BYTES: usize = 64;

/// What one call was about.
pub(super) struct Call<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) rows: usize,
}

/// Which rule was broken, for a person.
pub(super) type Checked = Result<(), String>;

impl Call<'_> {
    /// Checks what a call returned.
    pub(super) fn check(&self, processed: &Processed) -> Checked {
        self.verdicts(processed)?;
        writes(&processed.writes, &self.descriptor.writes, self.rows)?;
        let may = self.descriptor.raw_writes;
        self.raw_write("key", may.key, processed.key.as_ref())?;
        self.raw_write("value", may.value, processed.value.as_ref())?;
        self.headers(processed.headers.as_ref())?;
        self.timestamps(processed.timestamps_ms.as_deref())?;
        self.routes(&processed.routes)?;
        processed.emitted.as_ref().map_or(Ok(()), |emitted| self.emitted(emitted))
    }

    fn verdicts(&self, processed: &Processed) -> Checked {
        let verdicts = &processed.verdicts;
        let all = verdicts.is_empty() || verdicts.len() == self.rows;
        rule(all, || format!("{} verdicts for {} rows", verdicts.len(), self.rows))?;
        let known = verdicts.iter().all(|&verdict| verdict <= 2);
        rule(known, || "a verdict that is none of 0, 1 and 2".into())?;
        let mut rejected = verdicts.iter().enumerate().filter(|&(_, &verdict)| verdict == 2).map(|(row, _)| row);
        for rejection in &processed.rejections {
            let in_place = rejected.next() == Some(rejection.row as usize);
            rule(in_place, || format!("a rejection of row {} that does not match the verdicts", rejection.row))?;
            code(&rejection.code)?;
        }
        rule(rejected.next().is_none(), || "fewer rejections than verdicts say".into())
    }

    fn raw_write(&self, part: &str, allowed: bool, write: Option<&abi::RawWrite>) -> Checked {
        let Some(write) = write else { return Ok(()) };
        rule(allowed, || format!("a {part}, which it does not declare to write"))?;
        ops(&write.ops, 2, self.rows)
            .and_then(|()| packed(&write.bytes, self.rows))
            .map_err(|what| format!("{what} for the {part}"))
    }

    fn headers(&self, headers: Option<&abi::Headers>) -> Checked {
        let Some(headers) = headers else { return Ok(()) };
        rule(self.descriptor.raw_writes.headers, || "headers, which it does not declare to write".into())?;
        let named = headers.names.ends.len();
        let inner = ends(&headers.row_ends, self.rows, named)
            .and_then(|()| packed(&headers.names, named))
            .and_then(|()| texts(&headers.names))
            .and_then(|()| optional_bytes(&headers.values, named));
        inner.map_err(|what| format!("{what} in the headers"))
    }

    fn timestamps(&self, times: Option<&[i64]>) -> Checked {
        let Some(times) = times else { return Ok(()) };
        rule(self.descriptor.raw_writes.timestamp, || "timestamps, which it does not declare to write".into())?;
        rule(times.len() == self.rows, || format!("{} timestamps for {} rows", times.len(), self.rows))?;
        rule(times.iter().all(|&time| time >= -1), || "a timestamp before 1970".into())
    }

    fn routes(&self, routes: &[u32]) -> Checked {
        let all = routes.is_empty() || routes.len() == self.rows;
        rule(all, || format!("{} routes for {} rows", routes.len(), self.rows))?;
        let known = routes.iter().all(|&route| route == SAME_ROUTE || self.is_output(route));
        rule(known, || "a route to an output that it does not declare".into())
    }

    fn emitted(&self, emitted: &abi::Emitted) -> Checked {
        let count = emitted.output.len();
        rule(emitted.row.len() == count, || "as many emitted rows as outputs are wanted".into())?;
        let known = emitted.output.iter().all(|&output| output == MAIN_OUTPUT || self.is_output(output));
        rule(known, || "a record emitted to an output that it does not declare".into())?;
        rule(emitted.row.is_sorted(), || "emitted records out of the order of their rows".into())?;
        let in_range = emitted.row.last().is_none_or(|&row| (row as usize) < self.rows);
        rule(in_range, || "a record emitted for a row that is none".into())?;
        optional_bytes(&emitted.keys, count)
            .and_then(|()| optional_bytes(&emitted.values, count))
            .map_err(|what| format!("{what} in the emitted records"))
    }

    fn is_output(&self, index: u32) -> bool {
        (index as usize) < self.descriptor.outputs.len()
    }
}

/// Checks what `fold` returned for `rows` rows of `groups` groups.
pub(super) fn folded(folded: &abi::Folded, rows: usize, groups: usize) -> Checked {
    optional_bytes(&folded.states, groups).map_err(|what| format!("{what} in the states"))?;
    let mut next = 0;
    for rejection in &folded.rejections {
        let row = rejection.row as usize;
        rule((next..rows).contains(&row), || format!("a rejection of row {row}, which is none or out of order"))?;
        code(&rejection.code)?;
        next = row + 1;
    }
    Ok(())
}

/// Checks what `merge` or `migrate` returned for `count` states.
pub(super) fn states(states: &Packed, count: usize) -> Checked {
    packed(states, count).map_err(|what| format!("{what} in the states"))
}

/// Checks values for `fields` in `rows` rows.
pub(super) fn writes(writes: &[abi::Write], fields: &[WriteField], rows: usize) -> Checked {
    rule(writes.len() <= fields.len(), || format!("{} writes to {} fields", writes.len(), fields.len()))?;
    // At most 256 fields, and rarely more than a few.
    for (i, write) in writes.iter().enumerate() {
        let index = write.field;
        let field = fields.get(index as usize).ok_or_else(|| format!("a write to field {index}, which is none"))?;
        let first = !writes[..i].iter().any(|other| other.field == index);
        rule(first, || format!("two writes to `{}`", field.path))?;
        ops(&write.ops, 3, rows).map_err(|what| format!("{what} for `{}`", field.path))?;
        data(&write.data, field.ty, rows).map_err(|what| format!("{what} for `{}`", field.path))?;
    }
    Ok(())
}

fn ops(ops: &[u8], most: u8, rows: usize) -> Checked {
    rule(ops.is_empty() || ops.len() == rows, || format!("{} ops for {rows} rows", ops.len()))?;
    rule(ops.iter().all(|&op| op <= most), || format!("an op above {most}"))
}

fn data(data: &ColumnData, ty: ColumnType, rows: usize) -> Checked {
    let count = |found: usize| rule(found == rows, || format!("{found} values for {rows} rows"));
    match (data, ty) {
        (ColumnData::Booleans(bits), ColumnType::Bool) => bitmap(bits, rows),
        (ColumnData::Int64s(values), ColumnType::Int64 | ColumnType::Timestamp(_)) => count(values.len()),
        (ColumnData::Float64s(values), ColumnType::Float64) => count(values.len()),
        (ColumnData::Packed(packed_data), ColumnType::Bytes) => packed(packed_data, rows),
        (ColumnData::Packed(packed_data), ColumnType::Text | ColumnType::Decimal | ColumnType::Json) => {
            packed(packed_data, rows)?;
            texts(packed_data)
        }
        _ => Err("values of another type".into()),
    }
}

fn rule(kept: bool, broken: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { Err(broken()) }
}

fn code(code: &str) -> Checked {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let kept = (1..=CODE_BYTES).contains(&code.len()) && code.bytes().all(allowed);
    rule(kept, || format!("a rejection's code that is not 1 to {CODE_BYTES} characters of a-z, 0-9 and _"))
}

fn bitmap(bits: &[u8], rows: usize) -> Checked {
    rule(bits.len() == rows.div_ceil(8), || format!("a bitmap of {} bytes for {rows} rows", bits.len()))
}

/// `count` ends that never fall and reach exactly `total`.
fn ends(ends: &[u32], count: usize, total: usize) -> Checked {
    rule(ends.len() == count, || format!("{} ends where {count} are wanted", ends.len()))?;
    rule(ends.is_sorted(), || "ends that fall".into())?;
    let last = ends.last().map_or(0, |&end| end as usize);
    rule(last == total, || format!("ends that reach {last} of {total}"))
}

pub(super) fn packed(packed: &Packed, rows: usize) -> Checked {
    ends(&packed.ends, rows, packed.data.len())
}

/// Checks that each row, not only the whole, is UTF-8. The ends were checked.
fn texts(packed: &Packed) -> Checked {
    let whole = std::str::from_utf8(&packed.data).map_err(|_| "text that is not UTF-8".to_owned())?;
    let whole_rows = packed.ends.iter().all(|&end| whole.is_char_boundary(end as usize));
    rule(whole_rows, || "text that is not UTF-8: a row ends within a character".into())
}

fn optional_bytes(bytes: &abi::OptionalBytes, rows: usize) -> Checked {
    if !bytes.valid.is_empty() {
        bitmap(&bytes.valid, rows)?;
    }
    packed(&bytes.bytes, rows)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
