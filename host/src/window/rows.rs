//! Keys of groups, and the rows of windows as JSON.

use std::borrow::Cow;
use std::io::Write as _;

use crate::config::TextPart;
use crate::record::calendar::push_rfc3339;
use crate::record::{Cell, Column, ColumnData, Packed};
use crate::state::KEY_BYTES_MAX;

/// Ends each field of a key; no JSON text holds it.
const FIELD_END: u8 = 0;

/// Appends the key of a row's group: each field's JSON text, or that of the part that is taken of it, ended by a zero byte. An
/// error says why a record can't be grouped.
pub(super) fn push_key(
    (columns, parts): (&[&Column], &[Option<TextPart>]),
    row: usize,
    to: &mut Vec<u8>,
) -> Result<(), (&'static str, String)> {
    let start = to.len();
    for (column, part) in columns.iter().zip(parts) {
        let ColumnData::Packed(packed) = &column.data else { continue };
        debug_assert_eq!(column.cells[row], Cell::Valid, "a key's fields are required");
        let json = packed.get(row);
        if matches!(json.first(), Some(b'{' | b'[')) {
            return Err((
                "key_not_scalar",
                "a group's key is an object or an array; it can be a text, a number or a boolean".into(),
            ));
        }
        match part {
            None => to.extend_from_slice(&canonical(json)),
            Some(part) => {
                let text = serde_json::from_slice::<String>(json);
                let part = text.and_then(|text| serde_json::to_vec(&part.of(&text)));
                let why = "a part of a text is a group's key, and the field holds no text";
                to.extend(part.map_err(|_| ("key_not_text", why.to_owned()))?);
            }
        }
        to.push(FIELD_END);
    }
    if to.len() - start > KEY_BYTES_MAX {
        let bytes = to.len() - start;
        return Err(("key_too_large", format!("a group's key has {bytes} bytes; at most {KEY_BYTES_MAX} are allowed")));
    }
    Ok(())
}

/// A scalar's JSON text, the same for the same text however it was escaped.
pub(super) fn canonical(json: &[u8]) -> Cow<'_, [u8]> {
    if !json.contains(&b'\\') {
        return Cow::Borrowed(json);
    }
    match serde_json::from_slice::<String>(json).and_then(|text| serde_json::to_vec(&text)) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(json),
    }
}

/// Ends the key of a group whose state counts for the later windows of its part only: no UTF-8 text holds it.
const LATER: u8 = 0xFF;

/// Makes a group's key that of the state that counts from the window on that ends at `first_end_us`.
pub(super) fn push_later(key: &mut Vec<u8>, first_end_us: i64) {
    key.push(LATER);
    key.extend(first_end_us.to_be_bytes());
}

/// A group's key, and the end of the first window that its state counts for, where that is not the part's first.
pub(super) fn split_later(key: &[u8]) -> (&[u8], Option<i64>) {
    match key.split_last_chunk::<9>() {
        Some((group, [LATER, end_us @ ..])) => (group, Some(i64::from_be_bytes(*end_us))),
        _ => (key, None),
    }
}

/// The key of fields that are JSON texts.
pub(super) fn key_of(fields: &[Vec<u8>]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.iter().copied().chain([FIELD_END])).collect()
}

/// The fields of a key, each as JSON text.
pub(super) fn key_fields(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.strip_suffix(&[FIELD_END]).map(|key| key.split(|&byte| byte == FIELD_END)).into_iter().flatten()
}

/// Appends a key's fields as a JSON array.
pub(super) fn push_key_array(key: &[u8], to: &mut Vec<u8>) {
    to.push(b'[');
    for (index, field) in key_fields(key).enumerate() {
        if index > 0 {
            to.push(b',');
        }
        to.extend_from_slice(field);
    }
    to.push(b']');
}

/// A key as a record's key: one field's text as it is, several as a JSON array.
pub(super) fn record_key(key: &[u8]) -> Option<Vec<u8>> {
    let mut fields = key_fields(key);
    let first = fields.next()?;
    let mut text = match fields.next() {
        None if first.starts_with(b"\"") => {
            return Some(serde_json::from_slice::<String>(first).map_or_else(|_| first.to_vec(), String::into_bytes));
        }
        None => return Some(first.to_vec()),
        Some(second) => [b"[", first, b",", second].concat(),
    };
    for field in fields {
        text.push(b',');
        text.extend_from_slice(field);
    }
    text.push(b']');
    Some(text)
}

/// Rows of windows on their way out: one entry a row in every list.
#[derive(Clone, Debug, Default)]
pub(super) struct Due {
    /// Where each window begins, in microseconds since 1970 UTC.
    pub starts_us: Vec<i64>,
    /// Where it ends.
    pub ends_us: Vec<i64>,
    /// The key of its group.
    pub keys: Packed,
    /// Its state.
    pub states: Packed,
    /// True where the row takes an earlier one back, because its session begins elsewhere now.
    pub retracted: Vec<bool>,
}

impl Due {
    /// Adds a row.
    pub(super) fn push(&mut self, (start_us, end_us): (i64, i64), key: &[u8], state: &[u8], retracted: bool) {
        self.starts_us.push(start_us);
        self.ends_us.push(end_us);
        self.keys.push(key);
        self.states.push(state);
        self.retracted.push(retracted);
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.starts_us.len()
    }

    /// True where there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.starts_us.is_empty()
    }

    /// Removes all rows and keeps the buffers.
    pub(super) fn clear(&mut self) {
        self.starts_us.clear();
        self.ends_us.clear();
        self.keys.clear();
        self.states.clear();
        self.retracted.clear();
    }
}

/// Appends the beginning of a row: the key, the window and, where rows have one, the version. `,"name":value` may follow, and
/// a brace has to.
pub(super) fn push_head(names: &[String], due: &Due, row: usize, version: Option<i64>, to: &mut Vec<u8>) {
    to.push(b'{');
    for (name, field) in names.iter().zip(key_fields(due.keys.get(row))) {
        to.push(b'"');
        to.extend_from_slice(name.as_bytes());
        to.extend_from_slice(b"\":");
        to.extend_from_slice(field);
        to.push(b',');
    }
    to.extend_from_slice(b"\"window_start\":\"");
    push_rfc3339(to, due.starts_us[row]);
    to.extend_from_slice(b"\",\"window_end\":\"");
    push_rfc3339(to, due.ends_us[row]);
    to.push(b'"');
    if let Some(version) = version {
        // Writing to memory does not fail.
        let _ = write!(to, ",\"version\":{version},\"retracted\":{}", due.retracted[row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ColumnType;

    fn key(fields: &[&str]) -> Result<Vec<u8>, &'static str> {
        let columns: Vec<Column> = fields
            .iter()
            .map(|json| {
                let mut column = Column::new(ColumnType::Json);
                column.cells.push(Cell::Valid);
                if let ColumnData::Packed(packed) = &mut column.data {
                    packed.push(json.as_bytes());
                }
                column
            })
            .collect();
        let mut to = Vec::new();
        let columns: Vec<&Column> = columns.iter().collect();
        push_key((&columns, &vec![None; columns.len()]), 0, &mut to).map(|()| to).map_err(|why| why.0)
    }

    #[test]
    fn a_key_is_the_same_however_its_text_is_escaped() {
        assert_eq!(key(&[r#""D\u0045""#]), key(&[r#""DE""#]));
        assert_ne!(key(&["1"]), key(&["\"1\""]));
        assert_eq!(key(&["{}"]), Err("key_not_scalar"));
        assert_eq!(key(&[&format!("\"{}\"", "x".repeat(5_000))]), Err("key_too_large"));
    }

    #[test]
    fn a_records_key_is_its_only_field_or_all_of_them() {
        let record_key = |fields: &[&str]| record_key(&key(fields).expect("a key"));
        assert_eq!(record_key(&[]), None);
        assert_eq!(record_key(&[r#""DE""#]).as_deref(), Some(&b"DE"[..]));
        assert_eq!(record_key(&["7"]).as_deref(), Some(&b"7"[..]));
        assert_eq!(record_key(&[r#""a,b""#, "7", "true"]).as_deref(), Some(&br#"["a,b",7,true]"#[..]));
    }
}
