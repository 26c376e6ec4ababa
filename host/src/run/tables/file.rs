//! A table that is a file: read as a whole, and read again when it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::config::{FileFormat, FilesSourceConfig, InputFile, TableConfig, TableFile};
use crate::record::json::Span;
use crate::record::{Batch, Rows, SOURCE_ERROR_HEADER};
use crate::source::FilesSource;
use crate::table::{Accepts, KeyAt, RowReader, Snapshot, Table};

use super::super::watched::WatchedFile;
use super::Intake;

/// How often files are looked at; one is read once two looks in a row see the same.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A file that is gone for so many looks is not about to be replaced.
const GONE_LOOKS: u32 = 20;
/// How much of a file is taken at once.
const ROWS_AT_ONCE: usize = 4_096;
const BYTES_AT_ONCE: usize = 8 << 20;

/// Reads a file as a whole and puts its rows in force; the table stays as it is where that fails.
pub(super) fn load(config: &TableConfig, file: &TableFile, table: &Table) -> Result<(), String> {
    let started = Instant::now();
    let snapshot = read(config, file, table)?;
    let (rows, bytes) = (snapshot.rows(), snapshot.bytes());
    tracing::info!(
        "table `{}`: {rows} rows from {} in {} ms, {} bytes a row",
        config.name,
        file.path.display(),
        started.elapsed().as_millis(),
        bytes.checked_div(rows).unwrap_or(0)
    );
    table.publish(snapshot);
    table.note_load();
    Ok(())
}

fn read(config: &TableConfig, file: &TableFile, table: &Table) -> Result<Snapshot, String> {
    let accepts = match file.format {
        FileFormat::Csv => Accepts::Texts,
        FileFormat::Ndjson => Accepts::Json,
    };
    let key = KeyAt::Field(file.key.clone());
    let reader = RowReader::new(key, table.columns(), accepts, "").map_err(|why| why.to_string())?;
    let mut intake = Intake::new(config, table, reader);
    let input = InputFile { path: file.path.clone(), format: file.format };
    let files = FilesSourceConfig { files: vec![input], max_line_bytes: file.max_line_bytes };
    let mut source = FilesSource::open(&files).map_err(|why| why.to_string())?;
    let mut is_first = true;
    while let Some(batch) = source.next(ROWS_AT_ONCE, BYTES_AT_ONCE).map_err(|why| why.to_string())? {
        take(&mut intake, file, &batch, &mut is_first)?;
        intake.check_memory(intake.rows.bytes() as u64, intake.rows.rows() as u64)?;
    }
    intake.tell(table);
    Ok(table.empty().with(intake.rows))
}

fn take(intake: &mut Intake<'_>, file: &TableFile, batch: &Batch, is_first: &mut bool) -> Result<(), String> {
    for row in 0..batch.rows.len() {
        // The offset of a line is its number from 0.
        let place = || format!("{} line {}", file.path.display(), batch.rows.offsets[row] + 1);
        let value = batch.rows.values.get(row).unwrap_or_default();
        if let Some(reason) = unreadable(&batch.rows, row) {
            intake.refuse(&reason, place)?;
            continue;
        }
        let taken = intake.take(None, value, place);
        if *is_first && file.format == FileFormat::Csv {
            *is_first = false;
            check_header(intake, file, value)?;
        }
        taken?;
    }
    Ok(())
}

/// Every row of a CSV file has all its columns: what the first does not have is not in the header.
fn check_header(intake: &Intake<'_>, file: &TableFile, row: &[u8]) -> Result<(), String> {
    let Some(missing) = intake.reader.missing().next() else { return Ok(()) };
    let mut scratch = Vec::new();
    let mut names = Vec::new();
    for (name, _) in Span::of(row).unwrap_or_default().members(row) {
        names.push(String::from_utf8_lossy(name.string(row, &mut scratch).unwrap_or_default()).into_owned());
    }
    let (missing, path) = (missing.trim_start_matches('/'), file.path.display());
    Err(format!("{path} has no column `{missing}`; its header has {}", names.join(", ")))
}

fn unreadable(rows: &Rows, row: usize) -> Option<String> {
    let reason = |(name, value): (&[u8], Option<&[u8]>)| {
        let reason = || String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        (name == SOURCE_ERROR_HEADER.as_bytes()).then(reason)
    };
    rows.headers.get(row).find_map(reason)
}

/// A file that is read again when it changes.
pub(super) struct Watch {
    config: TableConfig,
    file: TableFile,
    table: Arc<Table>,
    watched: WatchedFile,
    /// For how many looks it was not there.
    gone: u32,
    /// True where it could not be read as it is.
    is_bad: bool,
}

impl Watch {
    /// Begins with the file as it is now.
    pub(super) fn new(config: &TableConfig, file: &TableFile, table: &Arc<Table>) -> Self {
        let watched = WatchedFile::new(&config.name, &file.path);
        Self { config: config.clone(), file: file.clone(), table: table.clone(), watched, gone: 0, is_bad: false }
    }

    /// Reads the file again where it has changed and was left alone since.
    fn look(&mut self) {
        if self.watched.has_settled() {
            self.gone = 0;
            let loaded = load(&self.config, &self.file, &self.table);
            self.is_bad = loaded.is_err();
            return self.note(loaded);
        }
        let is_there = self.file.path.exists();
        let was_gone = self.gone >= GONE_LOOKS;
        self.gone = if is_there { 0 } else { self.gone.saturating_add(1) };
        if self.gone == GONE_LOOKS {
            self.note(Err(format!("{} is gone", self.file.path.display())));
        } else if is_there && was_gone && !self.is_bad {
            self.note(Ok(()));
        }
    }

    fn note(&self, result: Result<(), String>) {
        match result {
            Ok(()) => drop(self.table.note_current()),
            Err(why) => {
                tracing::error!("table `{}` stays as it was: {why}", self.config.name);
                self.table.note_failure(&why);
            }
        }
    }
}

/// Looks at the files until `done`.
pub(super) fn watch(files: &mut [Watch], done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        std::thread::park_timeout(LOOK_INTERVAL);
        files.iter_mut().for_each(Watch::look);
    }
}
