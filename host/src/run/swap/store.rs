//! What survives a restart of swaps: the components, and which of them are in force.
//!
//! A component is here before it is put in force, so that an offset that names it can be continued by the next process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plugin::digest_of;

/// A folder with the components of one pipeline and instance, named by their digests, and a file that says which run.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

/// Which components are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    /// By stage.
    pub(super) stages: BTreeMap<String, ActiveStage>,
    /// The digests that ran before the last swap, by stage; what a rollback goes back to.
    pub(super) previous: BTreeMap<String, String>,
    /// True while the last swap has yet to prove itself.
    pub(super) on_trial: bool,
}

/// The component of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ActiveStage {
    /// Of the component in force.
    pub(super) digest: String,
    /// Of the configured file at that time: once that changes, the file is what is meant.
    pub(super) file_digest: String,
}

impl Store {
    /// The store in `folder`, which need not exist yet.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// What is in force; nothing special where nothing is written or it can't be read.
    pub(super) fn active(&self) -> Active {
        match fs::read(self.folder.join("active.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|why| {
                tracing::warn!("{}: not read, the configured plugins run: {why}", self.folder.display());
                Active::default()
            }),
            Err(_) => Active::default(),
        }
    }

    /// Writes down what is in force, and forgets components that neither it nor `running`, stages with their digests, names.
    pub(super) fn put_active(&self, active: &Active, running: &[(String, String)]) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(active)?;
        write(&self.folder, "active.json", &text)?;
        let named = |digest: &str| {
            let runs = running.iter().any(|(_, running)| running == digest);
            runs || active.stages.values().any(|stage| stage.digest == digest || stage.file_digest == digest)
                || active.previous.values().any(|previous| previous == digest)
        };
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_suffix(".wasm").is_some_and(|digest| !named(digest)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// True where a component of this digest is kept.
    pub(super) fn has(&self, digest: &str) -> bool {
        self.folder.join(format!("{digest}.wasm")).exists()
    }

    /// Keeps a component.
    pub(super) fn put(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        if self.has(digest) { Ok(()) } else { write(&self.folder, &format!("{digest}.wasm"), bytes) }
    }

    /// Keeps a component that a file holds.
    pub(super) fn put_file(&self, digest: &str, path: &Path) -> io::Result<()> {
        let bytes = fs::read(path)?;
        if digest_of(&bytes) == digest {
            self.put(digest, &bytes)
        } else {
            Err(io::Error::other("the file has changed"))
        }
    }

    /// A component that is kept, if its bytes are still what they were.
    pub(super) fn get(&self, digest: &str) -> io::Result<Vec<u8>> {
        let bytes = fs::read(self.folder.join(format!("{digest}.wasm")))?;
        if digest_of(&bytes) == digest { Ok(bytes) } else { Err(io::Error::other("its bytes have changed")) }
    }
}

/// Writes a file whole or not at all.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let aside = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, folder.join(name))?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_stay_as_long_as_they_are_named() {
        let folder = std::env::temp_dir().join(format!("millstream-store-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let store = Store::new(folder.clone());
        assert_eq!(store.active(), Active::default());
        let digests = [&b"a"[..], b"b", b"c"].map(|bytes| {
            let digest = digest_of(bytes);
            store.put(&digest, bytes).expect("written");
            digest
        });
        let stage = ActiveStage { digest: digests[0].clone(), file_digest: "of the file".into() };
        let previous = [("s".to_owned(), digests[1].clone())].into();
        let active = Active { stages: [("s".to_owned(), stage)].into(), previous, on_trial: true };
        let runs = digest_of(b"d");
        store.put(&runs, b"d").expect("written");
        store.put_active(&active, &[("t".to_owned(), runs.clone())]).expect("written");
        assert_eq!(store.active(), active);
        assert_eq!(store.get(&digests[0]).expect("named"), b"a");
        assert_eq!(store.get(&digests[1]).expect("named"), b"b");
        store.get(&digests[2]).expect_err("nobody names it");
        store.get(&runs).expect("it runs");
        fs::write(folder.join(format!("{}.wasm", digests[0])), b"x").expect("written");
        store.get(&digests[0]).expect_err("not what it was");
        let _ = fs::remove_dir_all(&folder);
    }
}
