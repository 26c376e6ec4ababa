//! Where states go that memory has no room for: a file of an embedded store for each stage of a task.
//!
//! The changelog is the truth about states, so that a file here is nothing but memory that is slower: it has no name, nothing
//! waits for the disk, and it is gone with the process. The only user of the store's crate.

mod file;
mod folder;

use std::sync::Arc;

use file::SpillFile;
pub use folder::SpillFolder;

/// Where entries go that no memory is left for.
#[derive(Debug, Default)]
pub enum Spill {
    /// Nowhere: memory has to do.
    #[default]
    None,
    /// Into a file.
    Disk(Disk),
}

/// One owner's file in a folder, made when it is first needed.
#[derive(Debug)]
pub struct Disk {
    folder: Arc<SpillFolder>,
    file: Option<Box<SpillFile>>,
}

/// Why entries could not be moved out of memory, or back into it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpillError {
    /// No file can be made.
    #[error(
        "states can't be moved out of memory into `{dir}`: {why}. Set `state.dir` to a folder on a disk that can be written to, \
         or raise `state.memory`. Nothing is lost: the changelog has all states"
    )]
    Make {
        /// The folder.
        dir: String,
        /// What the system says.
        why: String,
    },
    /// A file can't be written.
    #[error(
        "states can't be moved out of memory into `{dir}`: {why}. Make room there, set `state.dir` to another folder, or raise \
         `state.memory`. Nothing is lost: the changelog has all states"
    )]
    Write {
        /// The folder.
        dir: String,
        /// What the store says.
        why: String,
    },
    /// A file can't be read.
    #[error(
        "states that were moved out of memory into `{dir}` can't be read: {why}. Look at that disk and start again. Nothing is \
         lost: the changelog has all states"
    )]
    Read {
        /// The folder.
        dir: String,
        /// What the store says.
        why: String,
    },
}

impl Spill {
    /// A file in a folder, whose memory is shared by all who have one.
    pub fn to(folder: &Arc<SpillFolder>) -> Self {
        folder.join();
        Self::Disk(Disk { folder: folder.clone(), file: None })
    }

    /// How much memory its owner's entries may take, in bytes; `None` where there is no bound.
    pub fn memory_bytes(&self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Disk(disk) => Some(disk.folder.entries_bytes()),
        }
    }

    /// Keeps entries under these numbers; what a number named before is replaced. On an error nothing can be relied on.
    pub fn write<'a>(&mut self, entries: impl Iterator<Item = (u32, &'a [u8])>) -> Result<(), SpillError> {
        let Self::Disk(Disk { folder, file }) = self else { return Ok(()) };
        let file = match file {
            Some(file) => file,
            None => file.insert(Box::new(SpillFile::make(folder)?)),
        };
        file.write(entries).map_err(|why| SpillError::Write { dir: folder.shown(), why })
    }

    /// Calls `with` with the entry of a number.
    pub fn read<T>(&self, number: u32, with: impl FnOnce(&[u8]) -> T) -> Result<T, SpillError> {
        let (dir, read) = match self {
            Self::Disk(Disk { folder, file: Some(file) }) => (folder.shown(), file.read(number, with)),
            Self::Disk(Disk { folder, file: None }) => (folder.shown(), Err("there is no file".to_owned())),
            Self::None => ("".to_owned(), Err("there is no folder".to_owned())),
        };
        read.map_err(|why| SpillError::Read { dir, why })
    }

    /// Gives back the file, whose entries nobody needs any more.
    pub fn clear(&mut self) {
        if let Self::Disk(disk) = self {
            disk.file = None;
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.folder.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("millstream-spill-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_was_written_last_is_read_and_no_file_is_left_to_be_seen() {
        let dir = dir("last");
        let folder = SpillFolder::new(dir.clone(), 1 << 20, None);
        let mut spill = Spill::to(&folder);
        let text = |round: u32, number: u32| format!("{round} {number}").repeat(1 + number as usize % 9);
        for round in 0..3 {
            let texts: Vec<(u32, String)> =
                (round..2_000).step_by(3).map(|number| (number, text(round, number))).collect();
            spill.write(texts.iter().map(|(number, text)| (*number, text.as_bytes()))).expect("written");
        }
        for number in 0..2_000 {
            let found = spill.read(number, |data| String::from_utf8_lossy(data).into_owned()).expect("read");
            assert_eq!(found, text(number % 3, number));
        }
        assert!(matches!(spill.read(2_000, |_| ()), Err(SpillError::Read { .. })), "nobody wrote that");
        assert_eq!(std::fs::read_dir(&dir).expect("the folder").count(), 0);
        spill.clear();
        assert!(spill.read(0, |_| ()).is_err());
        assert_eq!(folder.used_bytes(), 0);
        std::fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_file_does_not_grow_by_what_is_replaced() {
        let dir = dir("replaced");
        let folder = SpillFolder::new(dir.clone(), 1 << 20, None);
        let mut spill = Spill::to(&folder);
        let mut grown = Vec::new();
        for round in 0..40_u32 {
            let data = vec![round as u8; 400 + round as usize * 7 % 200];
            spill
                .write((0..4_000).filter(|number| number % 4 == round % 4).map(|number| (number, &data[..])))
                .expect("written");
            grown.push(folder.used_bytes());
        }
        assert_eq!(grown[39], grown[9], "{grown:?}");
        std::fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn processes_may_share_a_folder() {
        let dir = dir("processes");
        let mut spills = [0, 1].map(|_| Spill::to(&SpillFolder::new(dir.clone(), 1 << 20, None)));
        for (spill, data) in spills.iter_mut().zip(["first", "second"]) {
            spill.write([(0, data.as_bytes())].into_iter()).expect("written");
        }
        let found = spills.each_ref().map(|spill| spill.read(0, <[u8]>::to_vec).expect("read"));
        assert_eq!(found, [b"first".to_vec(), b"second".to_vec()]);
        std::fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn memory_is_shared_by_those_who_are_there() {
        let folder = SpillFolder::new(dir("shared"), 64 << 20, None);
        let one = Spill::to(&folder);
        // The rest is the files' own.
        assert_eq!(one.memory_bytes(), Some(56 << 20));
        let other = Spill::to(&folder);
        assert_eq!((one.memory_bytes(), other.memory_bytes()), (Some(28 << 20), Some(28 << 20)));
        drop(other);
        assert_eq!(one.memory_bytes(), Some(56 << 20));
        assert_eq!(Spill::None.memory_bytes(), None);
    }

    #[test]
    fn a_folder_that_takes_no_more_says_what_to_do() {
        let dir = dir("full");
        let folder = SpillFolder::new(dir.clone(), 1 << 20, Some(4 << 20));
        let mut spill = Spill::to(&folder);
        let data = [7; 1_000];
        let full = (0..100).try_for_each(|batch| spill.write((0..1_000).map(|at| (batch * 1_000 + at, &data[..]))));
        let why = full.expect_err("100 MB do not fit").to_string();
        assert!(why.contains("Make room there") && why.contains("4 MiB"), "{why}");
        drop(spill);
        assert_eq!(folder.used_bytes(), 0, "the room can be used again");
        std::fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told_at_the_start() {
        let file = dir("file");
        std::fs::write(&file, "no folder").expect("written");
        let why = SpillFolder::new(file.join("inside"), 1, None).check().expect_err("a file is no folder").to_string();
        assert!(why.contains("state.dir") && why.contains("inside"), "{why}");
        std::fs::remove_file(file).expect("removed");
    }
}
