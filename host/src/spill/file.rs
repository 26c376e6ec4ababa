//! One file of the embedded store: data by number.
//!
//! Numbers, because a B-tree that is written in the order of its keys is written quickly: by keys that come in any order,
//! 5,000,000 entries take twenty times as long.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use redb::{Database, Error, ReadOnlyTable, ReadableDatabase, StorageBackend, TableDefinition};

use super::SpillError;
use super::folder::SpillFolder;

const ENTRIES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("entries");

/// A store without a name.
pub(super) struct SpillFile {
    /// As of the last write; the store can't use pages again while somebody could read them.
    table: Option<ReadOnlyTable<u32, &'static [u8]>>,
    database: Database,
}

impl std::fmt::Debug for SpillFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpillFile")
    }
}

impl SpillFile {
    pub(super) fn make(folder: &Arc<SpillFolder>) -> Result<Self, SpillError> {
        let bytes = AtomicU64::new(0);
        let backend = Backend { file: folder.file()?, folder: folder.clone(), bytes };
        let made = Database::builder().set_cache_size(folder.cache_bytes()).create_with_backend(backend);
        match made {
            Ok(database) => Ok(Self { table: None, database }),
            Err(why) => Err(SpillError::Make { dir: folder.shown(), why: why.to_string() }),
        }
    }

    pub(super) fn write<'a>(&mut self, entries: impl Iterator<Item = (u32, &'a [u8])>) -> Result<(), String> {
        self.table = None;
        self.try_write(entries).map_err(|why| why.to_string())
    }

    fn try_write<'a>(&mut self, entries: impl Iterator<Item = (u32, &'a [u8])>) -> Result<(), Error> {
        let writing = self.database.begin_write()?;
        {
            let mut table = writing.open_table(ENTRIES)?;
            for (number, data) in entries {
                table.insert(number, data)?;
            }
        }
        writing.commit()?;
        self.table = Some(self.database.begin_read()?.open_table(ENTRIES)?);
        Ok(())
    }

    pub(super) fn read<T>(&self, number: u32, with: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
        let table = self.table.as_ref().ok_or("it could not be written")?;
        let found = table.get(number).map_err(|why| why.to_string())?;
        found.map(|data| with(data.value())).ok_or_else(|| format!("entry {number} is not there"))
    }
}

/// A file that nobody waits for: what is in it need not outlive the process.
#[derive(Debug)]
struct Backend {
    file: File,
    folder: Arc<SpillFolder>,
    bytes: AtomicU64,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.load(Relaxed))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.folder.resize(self.bytes.load(Relaxed), bytes)?;
        self.bytes.store(bytes, Relaxed);
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Giving back never fails.
        let _ = self.folder.resize(self.bytes.load(Relaxed), 0);
    }
}
