//! Compiled artefacts on disk.
//!
//! Loading one is running it, so only what this user's own process wrote is loaded: the directory has mode 0700, is our
//! own and no symlink, and each file ends in the SHA-256 of what comes before. A file is written aside and renamed. Where
//! any of that does not hold, the component is compiled in memory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sha2::{Digest, Sha256};
use wasmtime::Engine;

const DIGEST_BYTES: usize = 32;

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
            Ok(uid) => Self { dir: Some(dir.to_owned()), refusal: None, uid },
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
        let body = bytes.len().checked_sub(DIGEST_BYTES)?;
        if Sha256::digest(&bytes[..body])[..] != bytes[body..] {
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

fn write_aside(path: &Path, artefact: &[u8]) -> std::io::Result<()> {
    let aside = aside(path);
    let mut file = create_new(&aside)?;
    let written = file
        .write_all(artefact)
        .and_then(|()| file.write_all(&Sha256::digest(artefact)))
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
