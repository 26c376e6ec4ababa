//! Files and standard input: a record a line, read once from the first line to the last.
//!
//! The offset of a record is the number of its line, from 0, so that a dead letter leads to its place. Lines that are
//! no records (a row with too many columns, a line beyond the bound) go on as their raw text with the header
//! [`SOURCE_ERROR_HEADER`], which says why: they are data that somebody has to look at, not a reason to stop.

mod csv;
mod lines;
mod stdin;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use self::csv::CsvReader;
use self::lines::{LineReader, ReadError};
use super::SourceError;
use crate::config::{FileFormat, FilesSourceConfig, InputFile, StdinSourceConfig};
use crate::record::{Batch, Place, Rows, SOURCE_ERROR_HEADER};

/// What a gzip stream begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// A batch's values lie in one packed column of at most 4 GiB; this leaves room for one more line of the largest bound.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// Files or standard input, of which file `i` is partition `i`; they are read one after the other.
pub struct FilesSource {
    inputs: Vec<Input>,
    /// The partition that is being read.
    current: usize,
    max_line_bytes: usize,
    /// Where the current partition's next batch begins.
    next_offset: i64,
    reader: Option<RecordReader>,
    failure: Option<SourceError>,
    progress: FilesProgress,
}

/// How far a [`FilesSource`] got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesProgress {
    /// Files that were read to their end.
    pub files: usize,
    /// Files in all.
    pub files_total: usize,
    /// Records that were handed out.
    pub records: u64,
}

struct Input {
    name: Arc<str>,
    /// `None` for standard input.
    path: Option<PathBuf>,
    format: FileFormat,
}

enum RecordReader {
    Ndjson(LineReader),
    Csv(CsvReader),
}

/// What a reader did with the request for one more record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A row was appended.
    Row,
    /// Nothing is there yet; more may come.
    Nothing,
    /// The end of the file.
    End,
}

impl std::fmt::Debug for FilesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.inputs.iter().map(|input| &*input.name).collect();
        f.debug_struct("FilesSource").field("inputs", &names).field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl FilesSource {
    /// Takes the files in order; fails where one of them can't be opened, before any is read.
    pub fn open(config: &FilesSourceConfig) -> Result<Self, SourceError> {
        for file in &config.files {
            File::open(&file.path).map_err(|error| unreadable(&file.path, &error))?;
        }
        let input = |InputFile { path, format }: &InputFile| Input {
            name: path.display().to_string().into(),
            path: Some(path.clone()),
            format: *format,
        };
        Ok(Self::new(config.files.iter().map(input).collect(), config.max_line_bytes))
    }

    /// Takes standard input, which is read by a thread of its own so that nobody waits for a quiet pipe.
    pub fn stdin(config: &StdinSourceConfig) -> Result<Self, SourceError> {
        let input = Input { name: "stdin".into(), path: None, format: config.format };
        Ok(Self::new(vec![input], config.max_line_bytes))
    }

    fn new(inputs: Vec<Input>, max_line_bytes: u64) -> Self {
        let progress = FilesProgress { files_total: inputs.len(), ..FilesProgress::default() };
        let max_line_bytes = usize::try_from(max_line_bytes).unwrap_or(MAX_BATCH_BYTES).min(MAX_BATCH_BYTES);
        Self { inputs, current: 0, max_line_bytes, next_offset: 0, reader: None, failure: None, progress }
    }

    /// The partitions, one a file.
    pub fn places(&self) -> Vec<Place> {
        let place = |(i, input): (usize, &Input)| Place { topic: input.name.clone(), partition: i as i32 };
        self.inputs.iter().enumerate().map(place).collect()
    }

    /// How far this source got.
    pub fn progress(&self) -> FilesProgress {
        self.progress
    }

    /// The next records of one file: as many as there are up to `max_rows`, and up to the one that brings the batch to
    /// `max_bytes`; an empty batch where standard input has none yet, `None` at the end. A file that breaks off is an
    /// error with its name and line, after what was whole.
    pub fn next(&mut self, max_rows: usize, max_bytes: usize) -> Result<Option<Batch>, SourceError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let max_bytes = max_bytes.min(MAX_BATCH_BYTES);
        while self.current < self.inputs.len() {
            let mut rows = Rows::default();
            let end = self.fill(&mut rows, max_rows.max(1), max_bytes);
            let batch = self.batch(rows);
            match end {
                Ok(Next::End) => self.finish_file(),
                Ok(_) => return Ok(Some(batch)),
                Err(error) if batch.rows.is_empty() => return Err(error),
                Err(error) => self.failure = Some(error),
            }
            if !batch.rows.is_empty() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Reads rows until a bound is reached (`Row`), nothing more is there (`Nothing`), or the file ends.
    fn fill(&mut self, rows: &mut Rows, max_rows: usize, max_bytes: usize) -> Result<Next, SourceError> {
        let input = &self.inputs[self.current];
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(RecordReader::open(input, self.max_line_bytes)?),
        };
        while rows.len() < max_rows && rows.bytes() < max_bytes {
            match reader.next(rows).map_err(|error| broken(input, reader, error))? {
                Next::Row => {}
                end => return Ok(end),
            }
        }
        Ok(Next::Row)
    }

    fn batch(&mut self, rows: Rows) -> Batch {
        let first_offset = self.next_offset;
        self.next_offset = self.reader.as_ref().map_or(first_offset, |reader| reader.line() as i64);
        self.progress.records += rows.len() as u64;
        let topic = self.inputs[self.current].name.clone();
        Batch { topic, partition: self.current as i32, first_offset, next_offset: self.next_offset, rows }
    }

    fn finish_file(&mut self) {
        self.current += 1;
        self.next_offset = 0;
        self.reader = None;
        self.progress.files += 1;
    }
}

impl RecordReader {
    fn open(input: &Input, max_line_bytes: usize) -> Result<Self, SourceError> {
        let bytes: Box<dyn Read + Send> = match &input.path {
            Some(path) => {
                let file = File::open(path).map_err(|error| unreadable(path, &error))?;
                decoded(file).map_err(|error| unreadable(path, &error))?
            }
            None => Box::new(stdin::spawn()),
        };
        let lines = LineReader::new(bytes, max_line_bytes);
        Ok(match input.format {
            FileFormat::Ndjson => Self::Ndjson(lines),
            FileFormat::Csv => Self::Csv(CsvReader::new(lines)),
        })
    }

    fn next(&mut self, rows: &mut Rows) -> Result<Next, ReadError> {
        match self {
            Self::Ndjson(lines) => lines.next_record(rows),
            Self::Csv(csv) => csv.next_record(rows),
        }
    }

    /// The number of the next line, from 0.
    fn line(&self) -> u64 {
        match self {
            Self::Ndjson(lines) => lines.line(),
            Self::Csv(csv) => csv.line(),
        }
    }
}

/// The bytes under a gzip (of one or many members), or as they are where there is none.
fn decoded(mut bytes: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut start = [0; 2];
    let mut len = 0;
    while len < start.len() {
        match bytes.read(&mut start[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let is_gzip = start[..len] == GZIP_MAGIC;
    let bytes = io::Cursor::new(start).take(len as u64).chain(bytes);
    if !is_gzip {
        return Ok(Box::new(bytes));
    }
    Ok(Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, bytes))))
}

/// Appends a line that is no record, with the reason.
fn push_broken(rows: &mut Rows, offset: u64, raw: &[u8], reason: &str) {
    let row = rows.len();
    rows.push(offset as i64, -1, None, Some(raw));
    rows.headers.push(row, SOURCE_ERROR_HEADER.as_bytes(), Some(reason.as_bytes()));
}

fn unreadable(path: &Path, error: &io::Error) -> SourceError {
    SourceError::Fatal(format!("{} can't be read: {error}", path.display()))
}

fn broken(input: &Input, reader: &RecordReader, error: ReadError) -> SourceError {
    let (name, line) = (&input.name, reader.line() + 1);
    SourceError::Fatal(match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("{name} breaks off in the middle of its gzip, in or after line {line}: {error}")
        }
        ReadError::Io(error) => format!("{name} can't be read on, in or after line {line}: {error}"),
        ReadError::Header(reason) => format!("{name}: its first line is no CSV header: {reason}"),
    })
}

#[cfg(test)]
mod tests;
