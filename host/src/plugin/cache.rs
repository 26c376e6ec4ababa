//! Compiled artefacts on disk.
//!
//! Loading one is running it, so only what this user's own process wrote is loaded: the directory has mode 0700, is our
//! own and no symlink. A file is written aside and renamed, and ends in a checksum of what comes before; the checksum is
//! against a failing disk, not against an enemy, who can't write there. Where any of that does not hold, the component is
//! compiled in memory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use wasmtime::Engine;

const CHECKSUM_BYTES: usize = 8;
/// Artefacts that are kept; a plugin has two.
const FILES: usize = 256;
/// After this time a file that was written aside belongs to nobody.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A directory of artefacts, if there is one that can be trusted.
pub(super) struct Cache {
    dir: Option<PathBuf>,
    refusal: Option<String>,
    /// The user that our files belong to.
    uid: u32,
}

impl Cache {
    /// Opens `dir`, makes it if need be, and says in the log where it is refused.
    pub(super) fn open(dir: Option<&Path>) -> Self {
        let Some(dir) = dir else { return Self { dir: None, refusal: None, uid: 0 } };
        match trusted(dir) {
            Ok(uid) => {
                tidy_up(dir);
                Self { dir: Some(dir.to_owned()), refusal: None, uid }
            }
            Err(reason) => {
                let refusal = format!("{} is not used as the plugins' cache: {reason}", dir.display());
                tracing::warn!("{refusal}; plugins are compiled in memory at each start");
                Self { dir: None, refusal: Some(refusal), uid: 0 }
            }
        }
    }

    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// The artefact of the component with this digest, as `engine` would compile it; `None` where there is none that is
    /// whole and our own.
    pub(super) fn get(&self, digest: &str, engine: &Engine, kind: &str) -> Option<Vec<u8>> {
        let path = self.dir.as_ref()?.join(file_name(digest, engine, kind));
        let named = fs::symlink_metadata(&path).ok()?;
        let mut file = File::open(&path).ok()?;
        let opened = file.metadata().ok()?;
        let same = (named.dev(), named.ino()) == (opened.dev(), opened.ino());
        if !named.is_file() || !same || opened.uid() != self.uid {
            tracing::warn!("{} is not our own file, and is not loaded", path.display());
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(opened.len()).ok()?);
        file.read_to_end(&mut bytes).ok()?;
        let body = bytes.len().checked_sub(CHECKSUM_BYTES)?;
        if checksum(&bytes[..body]) != bytes[body..] {
            tracing::warn!("{} is damaged, and is made again", path.display());
            return None;
        }
        bytes.truncate(body);
        Some(bytes)
    }

    /// Keeps an artefact. Failing to is no trouble but time, and is logged.
    pub(super) fn put(&self, digest: &str, engine: &Engine, kind: &str, artefact: &[u8]) {
        let Some(dir) = &self.dir else { return };
        let path = dir.join(file_name(digest, engine, kind));
        if let Err(error) = write_aside(&path, artefact) {
            tracing::warn!("{} could not be written: {error}", path.display());
        }
    }
}

fn file_name(digest: &str, engine: &Engine, kind: &str) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{digest}-{:016x}-{}-{kind}.cwasm", hasher.finish(), env!("CARGO_PKG_VERSION"))
}

fn checksum(artefact: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = DefaultHasher::new();
    hasher.write(artefact);
    hasher.finish().to_le_bytes()
}

/// Checks that `dir` is ours alone, and gives our user's id.
fn trusted(dir: &Path) -> Result<u32, String> {
    if !dir.exists() && fs::symlink_metadata(dir).is_err() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(dir).map_err(|error| format!("it can't be made ({error})"))?;
    }
    let found = fs::symlink_metadata(dir).map_err(|error| error.to_string())?;
    if found.file_type().is_symlink() {
        return Err("it is a symlink".into());
    }
    if !found.is_dir() {
        return Err("it is no directory".into());
    }
    if found.permissions().mode() & 0o077 != 0 {
        return Err(format!("others may use it (mode {:o}; 700 is wanted)", found.permissions().mode() & 0o7777));
    }
    let uid = own_uid(dir).map_err(|error| format!("it can't be written to ({error})"))?;
    if found.uid() != uid {
        return Err(format!("it belongs to another user ({})", found.uid()));
    }
    Ok(uid)
}

/// Our user's id, as the owner of a file that we make.
fn own_uid(dir: &Path) -> std::io::Result<u32> {
    let path = aside(&dir.join("probe"));
    let uid = create_new(&path)?.metadata()?.uid();
    fs::remove_file(&path)?;
    Ok(uid)
}

/// Removes what nobody will finish, and the oldest artefacts where there are too many. What is lost is compiled again.
fn tidy_up(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut kept = Vec::new();
    for entry in entries.flatten() {
        let (path, Ok(written)) = (entry.path(), entry.metadata().and_then(|found| found.modified())) else { continue };
        let ending = path.extension().and_then(|ending| ending.to_str());
        let abandoned = || written.elapsed().is_ok_and(|age| age > ABANDONED);
        match ending {
            Some("cwasm") => kept.push((written, path)),
            Some("tmp") if abandoned() => _ = fs::remove_file(&path),
            _ => {}
        }
    }
    kept.sort();
    let excess = kept.len().saturating_sub(FILES);
    kept.drain(..excess).for_each(|(_, path)| _ = fs::remove_file(&path));
}

fn write_aside(path: &Path, artefact: &[u8]) -> std::io::Result<()> {
    let aside = aside(path);
    let mut file = create_new(&aside)?;
    let written = file
        .write_all(artefact)
        .and_then(|()| file.write_all(&checksum(artefact)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // Best effort: what is left behind is never loaded under this name.
        let _ = fs::remove_file(&aside);
    }
    written
}

fn create_new(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A name that no other process or thread uses.
fn aside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Relaxed)));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_artefacts_and_what_was_abandoned_go() {
        let dir = std::env::temp_dir().join(format!("millstream-cache-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let old = std::time::SystemTime::now() - 2 * ABANDONED;
        let file = |name: &str, old_by: u32| {
            let file = File::create(dir.join(name)).expect("a file");
            file.set_modified(old - Duration::from_secs(u64::from(old_by))).expect("a time");
        };
        (0..FILES as u32 + 3).for_each(|i| file(&format!("{i}.cwasm"), i));
        file("half.tmp", 0);
        file("other", 0);
        tidy_up(&dir);
        let left = fs::read_dir(&dir).expect("the directory").count();
        let gone = [dir.join("half.tmp"), dir.join(format!("{}.cwasm", FILES))];
        let stays = [dir.join("other"), dir.join("0.cwasm")];
        let (gone, stays) = (gone.map(|path| path.exists()), stays.map(|path| path.exists()));
        fs::remove_dir_all(&dir).expect("own directory");
        assert_eq!((left, gone, stays), (FILES + 1, [false; 2], [true; 2]));
    }
}
