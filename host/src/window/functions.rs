//! Built-in aggregates: what is kept of a window's records, and the columns that come of it.
//!
//! A state is the functions' parts end to end, little-endian: a count in 8 bytes, a sum in 16, a least or greatest value in
//! 9 (whether there is one, then it), and the different values of a field as a number of 16-byte words, in order.

use std::io::Write as _;

use sha2::{Digest, Sha256};

use super::rows::canonical;
use crate::config::Function;
use crate::record::{Cell, Column, ColumnData};

/// The most bytes of a state: beyond it a record that would add to it is rejected.
pub(super) const STATE_BYTES_MAX: usize = 1 << 20;
const WORD: usize = 16;

/// Built-in functions over a window's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Functions {
    /// Each with its column's name and the input column that it looks at.
    parts: Vec<(String, Function, Option<usize>)>,
    is_fixed: bool,
}

/// Bytes that a part takes where its size never changes.
fn fixed_bytes(function: &Function) -> Option<usize> {
    match function {
        Function::Count | Function::Rate { .. } => Some(8),
        Function::Sum(_) => Some(16),
        Function::Mean(_) => Some(24),
        Function::Min(_) | Function::Max(_) => Some(9),
        Function::Distinct(_) => None,
    }
}

impl Functions {
    /// Columns by name; `first_column` is the input column of the first function that looks at a field.
    pub fn new(functions: &[(String, Function)], first_column: usize) -> Self {
        let mut next = first_column;
        let mut part = |(name, function): &(String, Function)| {
            let column = function.field().map(|_| {
                next += 1;
                next - 1
            });
            (name.clone(), function.clone(), column)
        };
        let parts: Vec<_> = functions.iter().map(&mut part).collect();
        let is_fixed = parts.iter().all(|(_, function, _)| fixed_bytes(function).is_some());
        Self { parts, is_fixed }
    }

    /// True where a state never changes its size, and folding never fails.
    pub fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// Appends the state of no records.
    pub fn push_empty(&self, state: &mut Vec<u8>) {
        let bytes: usize = self.parts.iter().map(|(_, function, _)| fixed_bytes(function).unwrap_or(4)).sum();
        state.resize(state.len() + bytes, 0);
    }

    /// Adds a record to a state whose size does not change.
    pub fn fold_fixed(&self, mut state: &mut [u8], columns: &[&Column], row: usize) {
        for (_, function, column) in &self.parts {
            let Some((part, rest)) = state.split_at_mut_checked(fixed_bytes(function).unwrap_or_default()) else {
                debug_assert!(false, "a state of other functions");
                return;
            };
            fold_part(function, part, column.map(|column| columns[column]), row);
            state = rest;
        }
    }

    /// Appends to `to` what becomes of a state with one more record; an error, with nothing appended, where that would be too
    /// large.
    pub fn fold(&self, state: &[u8], columns: &[&Column], row: usize, to: &mut Vec<u8>) -> Result<(), String> {
        let start = to.len();
        let mut rest = state;
        for (_, function, column) in &self.parts {
            let (part, behind) = rest.split_at(part_bytes(function, rest));
            let at = to.len();
            match (function, column.map(|column| columns[column])) {
                (Function::Distinct(_), Some(column)) => add_word(part, word(column, row), to),
                (_, column) => {
                    to.extend_from_slice(part);
                    fold_part(function, &mut to[at..], column, row);
                }
            }
            rest = behind;
        }
        if to.len() - start > STATE_BYTES_MAX {
            to.truncate(start);
            return Err(format!("the window's state would be larger than {STATE_BYTES_MAX} bytes with this record"));
        }
        Ok(())
    }

    /// Appends to `to` the state of two states' records together.
    pub fn merge(&self, left: &[u8], right: &[u8], to: &mut Vec<u8>) {
        let (mut left, mut right) = (left, right);
        for (_, function, _) in &self.parts {
            let (one, left_rest) = left.split_at(part_bytes(function, left));
            let (other, right_rest) = right.split_at(part_bytes(function, right));
            merge_part(function, one, other, to);
            (left, right) = (left_rest, right_rest);
        }
    }

    /// True where these bytes can be a state.
    pub fn fits(&self, state: &[u8]) -> bool {
        let mut rest = state;
        for (_, function, _) in &self.parts {
            let enough = fixed_bytes(function).map_or(rest.len() >= 4, |bytes| rest.len() >= bytes);
            let bytes = if enough { part_bytes(function, rest) } else { usize::MAX };
            match rest.get(bytes.min(rest.len())..) {
                Some(behind) if bytes <= rest.len() => rest = behind,
                _ => return false,
            }
        }
        rest.is_empty()
    }

    /// Appends the columns of a window's row, each as `,"name":value`.
    pub fn push_columns(&self, state: &[u8], window_us: i64, to: &mut Vec<u8>) {
        let mut rest = state;
        for (name, function, _) in &self.parts {
            let (part, behind) = rest.split_at(part_bytes(function, rest));
            to.extend_from_slice(b",\"");
            to.extend_from_slice(name.as_bytes());
            to.extend_from_slice(b"\":");
            push_value(function, part, window_us, to);
            rest = behind;
        }
    }
}

/// Bytes of the part at the beginning of `state`.
fn part_bytes(function: &Function, state: &[u8]) -> usize {
    fixed_bytes(function).unwrap_or_else(|| 4 + WORD * words(state))
}

fn words(part: &[u8]) -> usize {
    part.first_chunk().map_or(0, |count| u32::from_le_bytes(*count) as usize)
}

fn u64_at(part: &[u8]) -> u64 {
    part.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn i128_at(part: &[u8]) -> i128 {
    part.first_chunk().map_or(0, |bytes| i128::from_le_bytes(*bytes))
}

/// A least or greatest value, where there is one.
fn extreme(part: &[u8]) -> Option<i64> {
    let (&there, value) = part.split_first()?;
    (there == 1).then(|| u64_at(value) as i64)
}

fn int64(column: Option<&Column>, row: usize) -> Option<i64> {
    let column = column?;
    match &column.data {
        ColumnData::Int64(values) if column.cells[row] == Cell::Valid => Some(values[row]),
        _ => None,
    }
}

fn fold_part(function: &Function, part: &mut [u8], column: Option<&Column>, row: usize) {
    let value = int64(column, row);
    match (function, value) {
        (Function::Count | Function::Rate { .. }, _) => {
            let count = u64_at(part) + 1;
            part.copy_from_slice(&count.to_le_bytes());
        }
        (Function::Sum(_), Some(value)) => {
            let sum = i128_at(part) + i128::from(value);
            part.copy_from_slice(&sum.to_le_bytes());
        }
        (Function::Mean(_), Some(value)) => {
            let (sum, count) = part.split_at_mut(16);
            let (new_sum, new_count) = (i128_at(sum) + i128::from(value), u64_at(count) + 1);
            sum.copy_from_slice(&new_sum.to_le_bytes());
            count.copy_from_slice(&new_count.to_le_bytes());
        }
        (Function::Min(_), Some(value)) => set_extreme(part, value, i64::min),
        (Function::Max(_), Some(value)) => set_extreme(part, value, i64::max),
        // A record without the field adds nothing.
        (Function::Sum(_) | Function::Mean(_) | Function::Min(_) | Function::Max(_) | Function::Distinct(_), _) => {}
    }
}

fn set_extreme(part: &mut [u8], value: i64, choose: fn(i64, i64) -> i64) {
    let value = extreme(part).map_or(value, |old| choose(old, value));
    part[0] = 1;
    part[1..].copy_from_slice(&value.to_le_bytes());
}

fn merge_part(function: &Function, one: &[u8], other: &[u8], to: &mut Vec<u8>) {
    match function {
        Function::Count | Function::Rate { .. } => to.extend((u64_at(one) + u64_at(other)).to_le_bytes()),
        Function::Sum(_) => to.extend((i128_at(one) + i128_at(other)).to_le_bytes()),
        Function::Mean(_) => {
            to.extend((i128_at(one) + i128_at(other)).to_le_bytes());
            to.extend((u64_at(&one[16..]) + u64_at(&other[16..])).to_le_bytes());
        }
        Function::Min(_) | Function::Max(_) => {
            let at = to.len();
            to.extend_from_slice(one);
            let choose = if matches!(function, Function::Min(_)) { i64::min } else { i64::max };
            extreme(other).into_iter().for_each(|value| set_extreme(&mut to[at..], value, choose));
        }
        Function::Distinct(_) => merge_words(&one[4..], &other[4..], to),
    }
}

/// A value of a field as 16 bytes that no other value has: an integer, a short text, or a digest of what is longer.
fn word(column: &Column, row: usize) -> Option<[u8; WORD]> {
    let ColumnData::Packed(packed) = &column.data else { return None };
    if column.cells[row] != Cell::Valid {
        return None;
    }
    let json = canonical(packed.get(row));
    let mut word = [0; WORD];
    if json.len() < WORD {
        word[0] = json.len() as u8;
        word[1..=json.len()].copy_from_slice(&json);
    } else {
        // Two different values of one digest are not to be expected in the life of this universe.
        word.copy_from_slice(&Sha256::digest(&json)[..WORD]);
        word[0] |= 0x80;
    }
    Some(word)
}

/// Appends `part`, a number of words in order, with one more word where it is new.
fn add_word(part: &[u8], word: Option<[u8; WORD]>, to: &mut Vec<u8>) {
    let (sorted, _) = part[4..].as_chunks::<WORD>();
    let place = word.map(|word| (word, sorted.binary_search(&word)));
    let Some((word, Err(at))) = place else { return to.extend_from_slice(part) };
    to.extend((sorted.len() as u32 + 1).to_le_bytes());
    to.extend_from_slice(sorted[..at].as_flattened());
    to.extend_from_slice(&word);
    to.extend_from_slice(sorted[at..].as_flattened());
}

fn merge_words(one: &[u8], other: &[u8], to: &mut Vec<u8>) {
    let (mut one, mut other) = (one.as_chunks::<WORD>().0, other.as_chunks::<WORD>().0);
    let at = to.len();
    to.extend([0; 4]);
    let mut count: u32 = 0;
    loop {
        let next = match (one.first(), other.first()) {
            (Some(a), Some(b)) if a <= b => a,
            (Some(a), None) => a,
            (_, Some(b)) => b,
            (None, None) => break,
        };
        to.extend_from_slice(next);
        count += 1;
        let (a, b) = (one.first() == Some(next), other.first() == Some(next));
        (one, other) = (&one[usize::from(a)..], &other[usize::from(b)..]);
    }
    to[at..at + 4].copy_from_slice(&count.to_le_bytes());
}

fn push_value(function: &Function, part: &[u8], window_us: i64, to: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = match function {
        Function::Count => write!(to, "{}", u64_at(part)),
        Function::Sum(of) => push_whole(i128_at(part), of.decimals, to),
        Function::Distinct(_) => write!(to, "{}", words(part)),
        Function::Min(of) | Function::Max(of) => match extreme(part) {
            Some(value) => push_whole(value.into(), of.decimals, to),
            None => write!(to, "null"),
        },
        Function::Mean(of) => match u64_at(&part[16..]) {
            0 => write!(to, "null"),
            count => {
                let scale = 10_f64.powi(of.decimals.unwrap_or(0).into());
                push_float(i128_at(part) as f64 / (count as f64 * scale), to)
            }
        },
        Function::Rate { per_ms } => push_float(u64_at(part) as f64 * (*per_ms as f64 * 1e3) / window_us as f64, to),
    };
}

/// A whole number, or so many places of it behind the point.
fn push_whole(value: i128, places: Option<u8>, to: &mut Vec<u8>) -> std::io::Result<()> {
    let Some(places @ 1..) = places else { return write!(to, "{value}") };
    let (sign, ten) = (if value < 0 { "-" } else { "" }, 10_u128.pow(places.into()));
    let value = value.unsigned_abs();
    write!(to, "{sign}{}.{:0width$}", value / ten, value % ten, width = usize::from(places))
}

/// A number with a fraction, so that it reads as one of type float everywhere.
fn push_float(value: f64, to: &mut Vec<u8>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *to, &value).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ColumnType;

    #[test]
    fn a_text_is_one_value_however_it_was_escaped() {
        let functions = Functions::new(&[("n".to_owned(), Function::Distinct("/f".to_owned()))], 0);
        let long = format!("\"{}\"", "x".repeat(40));
        let texts = [r#""DE""#, r#""D\u0045""#, &long, &long.replacen('x', r"\u0078", 1), "1", r#""1""#, "true"];
        let mut column = Column::new(ColumnType::Json);
        let mut state = Vec::new();
        functions.push_empty(&mut state);
        for (row, text) in texts.iter().enumerate() {
            column.cells.push(Cell::Valid);
            let ColumnData::Packed(packed) = &mut column.data else { unreachable!("a column of JSON is packed") };
            packed.push(text.as_bytes());
            let mut next = Vec::new();
            functions.fold(&state, &[&column], row, &mut next).expect("there is room");
            state = next;
        }
        let mut shown = Vec::new();
        functions.push_columns(&state, 1, &mut shown);
        assert_eq!(String::from_utf8_lossy(&shown), ",\"n\":5");
    }
}
