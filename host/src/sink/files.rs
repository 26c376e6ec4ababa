//! Files and standard output: a line of JSON a record.
//!
//! A run that ends (files or made-up records in, files out) is a rewrite: lines go to `NAME.partial`, which takes the
//! place of `NAME` when the source has ended. A run that was killed or stopped before has visibly left nothing but
//! `.partial`, and the next one writes the same bytes anew. A run without end (Kafka in) appends to `NAME` itself, since what it wrote before is
//! committed; lines are on the disk before the offsets are committed, so none is lost, and after a failure some may be
//! there twice.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::record::Rows;

/// Lines are handed to the system in portions of at least this size, always whole lines, so that appenders to one file
/// don't cut each other's lines.
const PORTION_BYTES: usize = 256 << 10;
/// What the names of a dead letter's own headers begin with; they become its `reason`.
const REASON_PREFIXES: [&str; 2] = ["__connect.errors.", "millstream.dlq."];

/// A file or standard output that takes records as lines.
#[derive(Debug)]
pub struct FileSink {
    out: Out,
    lines: Vec<u8>,
}

#[derive(Debug)]
enum Out {
    Rewrite { file: File, partial: PathBuf, path: PathBuf },
    Append { file: File, path: PathBuf },
    Stdout(io::Stdout),
}

impl FileSink {
    /// A sink that puts a new file in the place of `path` when it is finished; folders that are missing are made. It
    /// fails where another process is writing the same file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or_else(|| about(path, &io::ErrorKind::InvalidFilename.into()))?.to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = open(&partial, OpenOptions::new().write(true).create(true).truncate(false))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(format!("{} is being written by another run", partial.display())));
            }
            // Some file systems know no locks; two runs at a time are a mistake there that we can't see.
            Err(TryLockError::Error(_)) => {}
        }
        file.set_len(0).map_err(|error| about(&partial, &error))?;
        Ok(Self::new(Out::Rewrite { file, partial, path: path.to_owned() }))
    }

    /// A sink that adds to `path`, for sources without an end. A last line without its end, which a run that was killed
    /// may leave, is taken off: it was not committed, and comes again. Several sinks may append to one file.
    pub fn append(path: &Path) -> io::Result<Self> {
        let mut file = open(path, OpenOptions::new().read(true).append(true).create(true))?;
        let len = whole_lines(&mut file).map_err(|error| about(path, &error))?;
        file.set_len(len).map_err(|error| about(path, &error))?;
        Ok(Self::new(Out::Append { file, path: path.to_owned() }))
    }

    /// A sink to standard output.
    pub fn stdout() -> Self {
        Self::new(Out::Stdout(io::stdout()))
    }

    fn new(out: Out) -> Self {
        Self { out, lines: Vec::new() }
    }

    /// Writes each row as a line: its value, or `null` for a tombstone; with `dead`, all of the record with its reason.
    pub fn write(&mut self, rows: &Rows, dead: bool) -> io::Result<()> {
        for row in 0..rows.len() {
            if dead {
                push_dead_letter(&mut self.lines, rows, row);
            } else {
                push_value(&mut self.lines, rows.values.get(row));
            }
            if self.lines.len() >= PORTION_BYTES {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    /// Hands all lines to the system; those of a file that is appended to are on the disk afterwards.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = !self.lines.is_empty();
        self.hand_over()?;
        match &mut self.out {
            Out::Append { file, path } if written => file.sync_data().map_err(|error| about(path, &error)),
            Out::Append { .. } | Out::Rewrite { .. } => Ok(()),
            Out::Stdout(out) => out.flush(),
        }
    }

    /// Ends the output: what is written is on the disk, under its own name.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        match &self.out {
            Out::Rewrite { file, partial, path } => {
                file.sync_all().map_err(|error| about(partial, &error))?;
                std::fs::rename(partial, path).map_err(|error| about(path, &error))?;
                // The name is on the disk only when its folder is.
                File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(|error| about(path, &error))
            }
            Out::Append { file, path } => file.sync_all().map_err(|error| about(path, &error)),
            Out::Stdout(_) => Ok(()),
        }
    }

    /// Ends an output that is not whole. One that was to take another's place stays under `.partial`.
    pub fn leave(mut self) -> io::Result<()> {
        self.flush()?;
        match &self.out {
            Out::Rewrite { partial, .. } => {
                tracing::warn!("{} is a part of the output: the run was stopped before its end", partial.display());
                Ok(())
            }
            Out::Append { .. } | Out::Stdout(_) => self.finish(),
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let result = match &mut self.out {
            Out::Rewrite { file, partial: path, .. } | Out::Append { file, path } => {
                file.write_all(&self.lines).map_err(|error| about(path, &error))
            }
            Out::Stdout(out) => out.write_all(&self.lines),
        };
        self.lines.clear();
        result
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    std::fs::create_dir_all(folder(path)).and_then(|()| options.open(path)).map_err(|error| about(path, &error))
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} can't be written: {error}", path.display()))
}

/// The length of `file` up to its last line end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut chunk = [0; 4096];
    while end > 0 {
        let len = chunk.len().min(usize::try_from(end).unwrap_or(usize::MAX));
        let start = end - len as u64;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk[..len])?;
        if let Some(last) = memchr::memrchr(b'\n', &chunk[..len]) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Appends a record's value as a line; a tombstone is `null`.
pub(crate) fn push_value(lines: &mut Vec<u8>, value: Option<&[u8]>) {
    let value = value.unwrap_or(b"null");
    let start = lines.len();
    lines.extend_from_slice(value);
    // JSON has raw line ends between its tokens only, where a space does as well.
    if memchr::memchr2(b'\n', b'\r', value).is_some() {
        lines[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    }
    lines.push(b'\n');
}

/// Writes `{"reason":{…},"key":…,"value":…,"headers":[[name,value],…]}`. Bytes that are no text stand as base64 under
/// `key_base64`, `value_base64`, or `{"base64":…}` in a header. Headers are a list, since names may repeat.
fn push_dead_letter(lines: &mut Vec<u8>, rows: &Rows, row: usize) {
    let mut reason = serde_json::Map::new();
    let mut headers = Vec::new();
    for (name, value) in rows.headers.get(row) {
        match reason_name(name) {
            Some(name) => drop(reason.insert(name.to_owned(), reason_value(name, value))),
            None => headers.push(Value::from(vec![header_part(Some(name)), header_part(value)])),
        }
    }
    let mut members: Vec<(String, Value)> = vec![("reason".to_owned(), Value::Object(reason))];
    if rows.timestamps_ms[row] >= 0 {
        members.push(("timestamp_ms".to_owned(), Value::from(rows.timestamps_ms[row])));
    }
    members.push(record_part("key", rows.keys.get(row)));
    members.push(record_part("value", rows.values.get(row)));
    members.push(("headers".to_owned(), Value::Array(headers)));
    for (i, (name, value)) in members.iter().enumerate() {
        lines.push(if i == 0 { b'{' } else { b',' });
        // Writing to a vector can't fail.
        let _ = write!(lines, "\"{name}\":{value}");
    }
    lines.extend_from_slice(b"}\n");
}

/// What the reason calls a header of ours.
fn reason_name(name: &[u8]) -> Option<&str> {
    let name = str::from_utf8(name).ok()?;
    let name = REASON_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    Some(if name == "exception.message" { "message" } else { name })
}

fn reason_value(name: &str, value: Option<&[u8]>) -> Value {
    let text = String::from_utf8_lossy(value.unwrap_or_default());
    let number = matches!(name, "partition" | "offset" | "attempt").then(|| text.parse::<i64>().ok()).flatten();
    number.map_or_else(|| Value::from(text), Value::from)
}

fn record_part(name: &str, bytes: Option<&[u8]>) -> (String, Value) {
    match bytes.map(str::from_utf8) {
        None => (name.to_owned(), Value::Null),
        Some(Ok(text)) => (name.to_owned(), Value::from(text)),
        Some(Err(_)) => (format!("{name}_base64"), Value::from(base64(bytes.unwrap_or_default()))),
    }
}

fn header_part(bytes: Option<&[u8]>) -> Value {
    match record_part("", bytes) {
        (name, value) if name.is_empty() => value,
        (_, value) => Value::Object([("base64".to_owned(), value)].into_iter().collect()),
    }
}

/// Standard base64 (RFC 4648) with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| chunk.get(i).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit <= chunk.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[Option<&[u8]>]) -> Rows {
        let mut rows = Rows::default();
        values.iter().enumerate().for_each(|(i, value)| rows.push(i as i64, -1, None, *value));
        rows
    }

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("millstream-sink-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_record_is_one_line_whatever_its_layout() {
        let mut sink = FileSink::stdout();
        let value = b"{\n  \"a\":\r\n[1,\n2]\n}".as_slice();
        sink.write(&rows(&[Some(value), None, Some(b"{\"b\":\"\\n\"}")]), false).expect("memory");
        assert_eq!(String::from_utf8_lossy(&sink.lines), "{   \"a\":  [1, 2] }\nnull\n{\"b\":\"\\n\"}\n");
    }

    #[test]
    fn a_dead_letter_keeps_every_byte_and_says_why() {
        let mut rows = Rows::default();
        rows.push(7, 12, Some(b"k"), Some(b"{\"a\":\n"));
        rows.headers.push(0, b"trace", Some(b"t1"));
        rows.headers.push(0, b"trace", None);
        rows.headers.push(0, b"__connect.errors.offset", Some(b"7"));
        rows.headers.push(0, b"__connect.errors.exception.message", Some(b"unexpected end"));
        rows.headers.push(0, b"millstream.dlq.code", Some(b"json"));
        rows.push(8, -1, None, Some(b"\xff\x00\x01"));
        rows.headers.push(1, b"bin", Some(b"\xfe"));
        rows.push(9, -1, None, None);
        let mut sink = FileSink::stdout();
        sink.write(&rows, true).expect("memory");
        let expected = [
            r#"{"reason":{"code":"json","message":"unexpected end","offset":7},"timestamp_ms":12,"key":"k","#,
            r#""value":"{\"a\":\n","headers":[["trace","t1"],["trace",null]]}"#,
            "\n",
            r#"{"reason":{},"key":null,"value_base64":"/wAB","headers":[["bin",{"base64":"/g=="}]]}"#,
            "\n",
            r#"{"reason":{},"key":null,"value":null,"headers":[]}"#,
            "\n",
        ];
        assert_eq!(String::from_utf8_lossy(&sink.lines), expected.concat());
    }

    #[test]
    fn base64_is_the_standard_one() {
        let cases = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(cases, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn a_rewrite_is_there_when_it_is_whole_and_not_before() {
        let folder = temporary("rewrite");
        let path = folder.join("deep/out.ndjson");
        let partial = folder.join("deep/out.ndjson.partial");
        let mut killed = FileSink::create(&path).expect("a file");
        killed.write(&rows(&[Some(b"lost")]), false).expect("a file");
        killed.flush().expect("a file");
        let busy = FileSink::create(&path).expect_err("one at a time").to_string();
        assert!(busy.ends_with("out.ndjson.partial is being written by another run"), "{busy}");
        drop(killed);
        assert_eq!((path.exists(), std::fs::read(&partial).expect("a file")), (false, b"lost\n".to_vec()));
        let mut sink = FileSink::create(&path).expect("a file");
        let many: Vec<Option<&[u8]>> = vec![Some(b"1"); 200_000];
        sink.write(&rows(&many), false).expect("a file");
        sink.finish().expect("a file");
        assert_eq!(std::fs::read(&path).expect("a file"), b"1\n".repeat(200_000));
        assert!(!partial.exists());
        std::fs::remove_dir_all(&folder).expect("a folder");
    }

    #[test]
    fn appending_keeps_what_is_whole_and_drops_a_torn_line() {
        let folder = temporary("append");
        let path = folder.join("out.ndjson");
        let torn = [b"1\n2\n".as_slice(), &[b'3'; 10_000]].concat();
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, torn)).expect("a file");
        let mut one = FileSink::append(&path).expect("a file");
        let mut other = FileSink::append(&path).expect("a file");
        one.write(&rows(&[Some(b"4")]), false).expect("a file");
        other.write(&rows(&[Some(b"5")]), false).expect("a file");
        other.flush().expect("a file");
        one.finish().expect("a file");
        assert_eq!(std::fs::read(&path).expect("a file"), b"1\n2\n5\n4\n");
        std::fs::remove_dir_all(&folder).expect("a folder");
    }
}
