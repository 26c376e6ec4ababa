//! Lines of a byte stream, within a bound.

use std::io::{self, Read};

use memchr::memchr;

use super::{Next, push_broken};
use crate::record::Rows;

/// How much is read at once, at least.
const CHUNK_BYTES: usize = 128 << 10;

/// Some editors begin a file with this.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why reading can't go on.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The stream failed.
    Io(io::Error),
    /// The first line of a CSV file says nothing of use.
    Header(String),
}

/// A stream with what was read of it and not used yet.
pub(super) struct LineReader {
    bytes: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What is left to use: `buffer[start..end]`.
    start: usize,
    end: usize,
    at_end: bool,
    max_line_bytes: usize,
    /// The number of the line at `start`.
    line: u64,
    /// How much of what is left is known to have no line end.
    scanned: usize,
    cut: Option<Cut>,
    /// True once the beginning was looked at for a byte order mark.
    begun: bool,
}

/// A line beyond the bound: its beginning, and how much of it was passed over, beginning included.
struct Cut {
    beginning: Vec<u8>,
    passed_bytes: u64,
    /// True where the last byte that was passed over is a carriage return, which may belong to the line's end.
    ends_in_return: bool,
}

/// A line's place in the buffer.
enum Found {
    /// Its length without and with its end.
    Line {
        len: usize,
        used: usize,
    },
    Nothing,
    End,
}

impl LineReader {
    pub(super) fn new(bytes: Box<dyn Read + Send>, max_line_bytes: usize) -> Self {
        let buffer = Vec::new();
        Self {
            bytes,
            buffer,
            start: 0,
            end: 0,
            at_end: false,
            max_line_bytes,
            line: 0,
            scanned: 0,
            cut: None,
            begun: false,
        }
    }

    /// The number of the next line.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// What was read and not used yet, without the mark that some editors write at the beginning of a file.
    pub(super) fn buffered(&mut self) -> &[u8] {
        if !self.begun && self.end - self.start >= BYTE_ORDER_MARK.len() {
            self.begun = true;
            if self.buffer[self.start..self.end].starts_with(BYTE_ORDER_MARK) {
                self.start += BYTE_ORDER_MARK.len();
                self.scanned = 0;
            }
        }
        &self.buffer[self.start..self.end]
    }

    /// True when nothing more will come than what is buffered.
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// Most bytes of a line.
    pub(super) fn max_line_bytes(&self) -> usize {
        self.max_line_bytes
    }

    /// Bytes after which a line without an end is beyond the bound, its end included (a carriage return and a newline).
    pub(super) fn window_bytes(&self) -> usize {
        self.max_line_bytes + 2
    }

    /// True when more is buffered than a line may have.
    pub(super) fn is_beyond_bound(&self) -> bool {
        self.end - self.start >= self.window_bytes()
    }

    /// True in the middle of a line that is beyond the bound.
    pub(super) fn is_cutting(&self) -> bool {
        self.cut.is_some()
    }

    /// Uses `bytes` of the buffer, which hold `lines` line ends (the end of the file counts as one).
    pub(super) fn advance(&mut self, bytes: usize, lines: u64) {
        self.start += bytes;
        self.line += lines;
        self.scanned = 0;
    }

    /// Reads more; false where nothing is there yet. At the end of the stream it is true, and [`Self::is_at_end`].
    pub(super) fn fill(&mut self) -> Result<bool, ReadError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // Doubling keeps the work on one huge line proportional to its length.
        let room = CHUNK_BYTES.max(self.end);
        if self.buffer.len() < self.end + room {
            self.buffer.resize(self.end + room, 0);
        }
        loop {
            match self.bytes.read(&mut self.buffer[self.end..]) {
                Ok(more) => {
                    self.at_end = more == 0;
                    self.end += more;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
    }

    /// Appends the next line that is not blank as a row.
    pub(super) fn next_record(&mut self, rows: &mut Rows) -> Result<Next, ReadError> {
        loop {
            let (len, used) = match self.find_line()? {
                Found::Line { len, used } => (len, used),
                Found::Nothing => return Ok(Next::Nothing),
                Found::End => return Ok(Next::End),
            };
            let line = without_return(&self.buffer[self.start..self.start + len]);
            let appended = if self.cut.is_some() || line.len() > self.max_line_bytes {
                self.push_broken_line(rows, len, "");
                true
            } else if line.iter().all(u8::is_ascii_whitespace) {
                false
            } else {
                rows.push(self.line as i64, -1, None, Some(line));
                true
            };
            self.advance(used, 1);
            if appended {
                return Ok(Next::Row);
            }
        }
    }

    /// Appends the next line as a row that is no record, for `reason`.
    pub(super) fn next_broken(&mut self, rows: &mut Rows, reason: &str) -> Result<Next, ReadError> {
        Ok(match self.find_line()? {
            Found::Line { len, used } => {
                self.push_broken_line(rows, len, reason);
                self.advance(used, 1);
                Next::Row
            }
            Found::Nothing => Next::Nothing,
            Found::End => Next::End,
        })
    }

    fn push_broken_line(&mut self, rows: &mut Rows, len: usize, reason: &str) {
        let line = without_return(&self.buffer[self.start..self.start + len]);
        let cut = self.cut.take();
        let passed_bytes = cut.as_ref().map_or(0, |cut| {
            let is_line_end = cut.ends_in_return && len == 0;
            cut.passed_bytes - u64::from(is_line_end)
        });
        let all_bytes = passed_bytes + line.len() as u64;
        if all_bytes <= self.max_line_bytes as u64 {
            return push_broken(rows, self.line, line, reason);
        }
        let beginning = cut.as_ref().map_or(line, |cut| &cut.beginning);
        let beginning = &beginning[..beginning.len().min(self.max_line_bytes)];
        let reason = format!("the line has {all_bytes} bytes, of which these are the first {}", beginning.len());
        push_broken(rows, self.line, beginning, &reason);
    }

    /// Finds the end of the next line; one beyond the bound is not kept in memory.
    fn find_line(&mut self) -> Result<Found, ReadError> {
        loop {
            let scanned = self.scanned;
            let left = self.buffered();
            let len = left.len();
            // The mark at the beginning may have been taken off since.
            let scanned = scanned.min(len);
            if let Some(end) = memchr(b'\n', &left[scanned..]).map(|end| scanned + end) {
                return Ok(Found::Line { len: end, used: end + 1 });
            }
            self.scanned = len;
            if self.at_end {
                let end = len == 0 && self.cut.is_none();
                return Ok(if end { Found::End } else { Found::Line { len, used: len } });
            }
            if self.is_beyond_bound() {
                self.pass_over();
            }
            if !self.fill()? {
                return Ok(Found::Nothing);
            }
        }
    }

    /// Uses up what is buffered as a part of a line beyond the bound.
    fn pass_over(&mut self) {
        let left = &self.buffer[self.start..self.end];
        let cut = self.cut.get_or_insert_with(|| Cut {
            beginning: left[..left.len().min(self.max_line_bytes)].to_vec(),
            passed_bytes: 0,
            ends_in_return: false,
        });
        cut.passed_bytes += left.len() as u64;
        cut.ends_in_return = left.last().map_or(cut.ends_in_return, |&byte| byte == b'\r');
        self.start = self.end;
        self.scanned = 0;
    }
}

/// A line without the carriage return before its end.
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
