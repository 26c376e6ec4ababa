//! Files that change: looked at now and then, and taken once they are left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What can be seen of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    changed: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// One file, of a stage or a table.
#[derive(Debug)]
pub(super) struct WatchedFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// As it was when it was last taken, or when this began.
    taken: Option<Look>,
    /// As it was at the last look.
    last: Option<Look>,
}

impl WatchedFile {
    /// Begins with the file as it is now.
    pub(super) fn new(name: &str, path: &Path) -> Self {
        let now = look(path);
        Self { name: name.to_owned(), path: path.to_owned(), taken: now, last: now }
    }

    /// True when the file has changed and was the same at the look before this one: whoever writes it is done. A file that
    /// is gone may be about to be replaced.
    pub(super) fn has_settled(&mut self) -> bool {
        let now = look(&self.path);
        let settled = now.is_some() && now == self.last && now != self.taken;
        self.last = now;
        if settled {
            self.taken = now;
        }
        settled
    }
}

fn look(path: &Path) -> Option<Look> {
    use std::os::unix::fs::MetadataExt as _;
    let found = fs::metadata(path).ok()?;
    Some(Look { changed: found.modified().ok(), bytes: found.len(), inode: found.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_once_it_is_left_alone() {
        let path = std::env::temp_dir().join(format!("millstream-watched-{}", std::process::id()));
        fs::write(&path, "old").expect("written");
        let mut file = WatchedFile::new("s", &path);
        assert!(!file.has_settled(), "nothing changed");
        fs::write(&path, "new, in part").expect("written");
        assert!(!file.has_settled(), "just changed");
        fs::write(&path, "new, as a whole").expect("written");
        assert!(!file.has_settled(), "changed again");
        assert!(file.has_settled());
        assert!(!file.has_settled(), "taken already");
        let aside = path.with_extension("aside");
        fs::write(&aside, "NEW, as a whole").expect("written");
        fs::rename(&aside, &path).expect("renamed");
        assert!(!file.has_settled());
        assert!(file.has_settled(), "replaced by a file of the same size");
        fs::remove_file(&path).expect("removed");
        assert!(!file.has_settled() && !file.has_settled(), "gone is no version");
    }
}
