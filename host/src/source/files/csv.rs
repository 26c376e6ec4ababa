//! CSV as RFC 4180 has it: each row under the header becomes a JSON object of strings.
//!
//! A row that does not fit goes on as its raw text. Where a quote is at fault, that is the one line it stands in: a
//! stray quote must not swallow the rows behind it.

use memchr::{memchr, memchr_iter, memchr2};

use super::lines::{LineReader, ReadError};
use super::{Next, push_broken};
use crate::record::Rows;

/// The rows of a stream.
pub(super) struct CsvReader {
    lines: LineReader,
    /// Each column's name as the beginning of a JSON member: `"name":`. Empty before the header was read.
    columns: Vec<Vec<u8>>,
    fields: Vec<Field>,
    json: Vec<u8>,
}

/// A field's place in its row, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    start: usize,
    end: usize,
    /// True where quotes within it are doubled.
    doubled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    /// A row: its length without and with its line end, and how many lines it takes.
    Row { len: usize, used: usize, lines: u64 },
    /// The row is not there as a whole.
    More,
    /// No row, with the reason.
    Bad(&'static str),
}

/// What stands next in the stream.
enum Row {
    Fields { len: usize, used: usize, lines: u64 },
    Bad(&'static str),
    Nothing,
    End,
}

impl CsvReader {
    pub(super) fn new(lines: LineReader) -> Self {
        Self { lines, columns: Vec::new(), fields: Vec::new(), json: Vec::new() }
    }

    /// The number of the next line.
    pub(super) fn line(&self) -> u64 {
        self.lines.line()
    }

    /// Appends the next row that is not blank.
    pub(super) fn next_record(&mut self, rows: &mut Rows) -> Result<Next, ReadError> {
        if self.lines.is_cutting() {
            return self.lines.next_broken(rows, "");
        }
        loop {
            let (len, used, lines) = match self.next_row()? {
                Row::Fields { len, used, lines } => (len, used, lines),
                Row::Nothing => return Ok(Next::Nothing),
                Row::End => return Ok(Next::End),
                Row::Bad(reason) if self.columns.is_empty() => return Err(ReadError::Header(reason.to_owned())),
                Row::Bad(reason) => return self.lines.next_broken(rows, reason),
            };
            let line = self.lines.line();
            let raw = &self.lines.buffered()[..len];
            let is_blank = raw.iter().all(u8::is_ascii_whitespace);
            if !is_blank && self.columns.is_empty() {
                self.columns = header(raw, &self.fields).map_err(ReadError::Header)?;
                self.lines.advance(used, lines);
                continue;
            }
            if !is_blank {
                match write_json(raw, &self.columns, &self.fields, &mut self.json) {
                    Ok(()) => rows.push(line as i64, -1, None, Some(&self.json)),
                    Err(reason) => push_broken(rows, line, raw, &reason),
                }
            }
            self.lines.advance(used, lines);
            if !is_blank {
                return Ok(Next::Row);
            }
        }
    }

    /// Finds the fields of the next row.
    fn next_row(&mut self) -> Result<Row, ReadError> {
        const BEYOND: &str = "the row does not end within the bound of a line; a quote may be missing";
        loop {
            let (at_end, window_bytes) = (self.lines.is_at_end(), self.lines.window_bytes());
            let max_line_bytes = self.lines.max_line_bytes();
            let buffered = self.lines.buffered();
            if at_end && buffered.is_empty() {
                return Ok(Row::End);
            }
            // What lies beyond the bound is not looked at, or the verdict would depend on how much happens to be there.
            let window = &buffered[..buffered.len().min(window_bytes)];
            let (is_full, at_end) = (window.len() == window_bytes, at_end && window.len() == buffered.len());
            match parse_row(window, at_end, &mut self.fields) {
                Parsed::Row { len, .. } if len > max_line_bytes => return Ok(Row::Bad(BEYOND)),
                Parsed::Row { len, used, lines } => return Ok(Row::Fields { len, used, lines }),
                Parsed::Bad(reason) => return Ok(Row::Bad(reason)),
                Parsed::More if is_full => return Ok(Row::Bad(BEYOND)),
                Parsed::More if !self.lines.fill()? => return Ok(Row::Nothing),
                Parsed::More => {}
            }
        }
    }
}

/// Splits the row at the beginning of `bytes` into fields; `at_end` says that nothing follows `bytes`.
fn parse_row(bytes: &[u8], at_end: bool, fields: &mut Vec<Field>) -> Parsed {
    fields.clear();
    let mut at = 0;
    let mut lines = 1;
    loop {
        if bytes.get(at) != Some(&b'"') {
            let (end, is_last) = match memchr2(b',', b'\n', &bytes[at..]) {
                Some(len) => (at + len, bytes[at + len] == b'\n'),
                None if at_end => (bytes.len(), true),
                None => return Parsed::More,
            };
            let field = &bytes[at..end];
            let trimmed = if is_last { field.strip_suffix(b"\r").unwrap_or(field) } else { field };
            fields.push(Field { start: at, end: at + trimmed.len(), doubled: false });
            if is_last {
                return Parsed::Row { len: at + trimmed.len(), used: (end + 1).min(bytes.len()), lines };
            }
            at = end + 1;
            continue;
        }
        let field = match quoted_field(bytes, at, at_end) {
            Ok(field) => field,
            Err(parsed) => return parsed,
        };
        lines += memchr_iter(b'\n', &bytes[field.start..field.end]).count() as u64;
        fields.push(field);
        at = field.end + 1;
        match &bytes[at..] {
            [b',', ..] => at += 1,
            [b'\n', ..] => return Parsed::Row { len: at, used: at + 1, lines },
            [b'\r', b'\n', ..] => return Parsed::Row { len: at, used: at + 2, lines },
            [] | [b'\r'] if at_end => return Parsed::Row { len: at, used: bytes.len(), lines },
            [] | [b'\r'] => return Parsed::More,
            _ => return Parsed::Bad("text follows a closing quote"),
        }
    }
}

/// The field whose opening quote is at `at`.
fn quoted_field(bytes: &[u8], at: usize, at_end: bool) -> Result<Field, Parsed> {
    let mut from = at + 1;
    let mut doubled = false;
    loop {
        let Some(quote) = memchr(b'"', &bytes[from..]).map(|quote| from + quote) else {
            return Err(if at_end { Parsed::Bad("a quoted field does not end") } else { Parsed::More });
        };
        match bytes.get(quote + 1) {
            Some(b'"') => {
                doubled = true;
                from = quote + 2;
            }
            None if !at_end => return Err(Parsed::More),
            _ => return Ok(Field { start: at + 1, end: quote, doubled }),
        }
    }
}

/// The text of `field`.
fn text<'a>(raw: &'a str, field: &Field) -> std::borrow::Cow<'a, str> {
    let text = &raw[field.start..field.end];
    if field.doubled { text.replace("\"\"", "\"").into() } else { text.into() }
}

/// Reads the columns' names.
fn header(raw: &[u8], fields: &[Field]) -> Result<Vec<Vec<u8>>, String> {
    let raw = str::from_utf8(raw).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut columns: Vec<Vec<u8>> = Vec::new();
    for field in fields {
        let mut column = serde_json::Value::from(text(raw, field)).to_string().into_bytes();
        column.push(b':');
        if columns.contains(&column) {
            return Err(format!("two columns are called `{}`", text(raw, field)));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// Writes a row as a JSON object; the error says why it is none.
fn write_json(raw: &[u8], columns: &[Vec<u8>], fields: &[Field], json: &mut Vec<u8>) -> Result<(), String> {
    if fields.len() != columns.len() {
        return Err(format!("the row has {} columns, the header has {}", fields.len(), columns.len()));
    }
    let raw = str::from_utf8(raw).map_err(|error| format!("the row is not UTF-8: {error}"))?;
    json.clear();
    for (i, (column, field)) in columns.iter().zip(fields).enumerate() {
        json.push(if i == 0 { b'{' } else { b',' });
        json.extend_from_slice(column);
        serde_json::to_writer(&mut *json, &text(raw, field)).map_err(|error| error.to_string())?;
    }
    json.push(b'}');
    Ok(())
}
