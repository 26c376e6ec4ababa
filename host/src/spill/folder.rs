//! The folder of the files, and what they share: memory, and room on the disk.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::SpillError;

/// The part of an owner's share that its file's own memory takes…
const CACHE_PART: usize = 8;
/// …and within these bounds.
const CACHE_BYTES: (usize, usize) = (1 << 20, 32 << 20);

/// A folder of files without names, and the bounds that hold for all of them together.
#[derive(Debug)]
pub struct SpillFolder {
    dir: PathBuf,
    memory_bytes: u64,
    disk_bytes: Option<u64>,
    owners: AtomicUsize,
    used_bytes: AtomicU64,
    files_made: AtomicU64,
}

impl SpillFolder {
    /// A folder, made when it is first needed, for owners whose entries may take `memory_bytes` together in memory and
    /// `disk_bytes` on disk.
    pub fn new(dir: PathBuf, memory_bytes: u64, disk_bytes: Option<u64>) -> Arc<Self> {
        let (owners, used_bytes, files_made) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { dir, memory_bytes, disk_bytes, owners, used_bytes, files_made })
    }

    /// Sees whether files can be made there.
    pub fn check(&self) -> Result<(), SpillError> {
        self.file().map(drop)
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    /// How many files were made so far.
    pub fn files(&self) -> u64 {
        self.files_made.load(Relaxed)
    }

    pub(super) fn join(&self) {
        self.owners.fetch_add(1, Relaxed);
    }

    pub(super) fn leave(&self) {
        self.owners.fetch_sub(1, Relaxed);
    }

    /// What one owner's entries may take in memory.
    pub(super) fn entries_bytes(&self) -> usize {
        self.share_bytes().saturating_sub(self.cache_bytes())
    }

    /// What its file may take.
    pub(super) fn cache_bytes(&self) -> usize {
        (self.share_bytes() / CACHE_PART).clamp(CACHE_BYTES.0, CACHE_BYTES.1)
    }

    fn share_bytes(&self) -> usize {
        (self.memory_bytes / self.owners.load(Relaxed).max(1) as u64) as usize
    }

    pub(super) fn shown(&self) -> String {
        self.dir.display().to_string()
    }

    /// A new file, of which nobody else knows: it has no name any more, and goes with whoever has it open.
    pub(super) fn file(&self) -> Result<File, SpillError> {
        let made = || -> io::Result<File> {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            let number = self.files_made.fetch_add(1, Relaxed);
            // Process numbers repeat where containers share a folder.
            let name = format!("{:016x}-{number}.spill", RandomState::new().hash_one(std::process::id()));
            let path = self.dir.join(name);
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        made().map_err(|why| SpillError::Make { dir: self.shown(), why: why.to_string() })
    }

    /// Takes or gives back room on the disk.
    pub(super) fn resize(&self, from_bytes: u64, to_bytes: u64) -> io::Result<()> {
        if to_bytes <= from_bytes {
            self.used_bytes.fetch_sub(from_bytes - to_bytes, Relaxed);
            return Ok(());
        }
        let used_bytes = self.used_bytes.fetch_add(to_bytes - from_bytes, Relaxed) + to_bytes - from_bytes;
        let Some(most_bytes) = self.disk_bytes.filter(|&most_bytes| used_bytes > most_bytes) else { return Ok(()) };
        self.used_bytes.fetch_sub(to_bytes - from_bytes, Relaxed);
        let why = format!("`state.disk` allows {} MiB, and these are full", most_bytes >> 20);
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }
}
