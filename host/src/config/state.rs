//! `state:` — how much memory the states of windows take, and where those go that find no room in it.

use std::path::PathBuf;

use super::error::ConfigError;
use super::walk::At;

/// Where states lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateConfig {
    /// The folder for states that memory has no room for; `None` for one of this user's cache.
    pub dir: Option<PathBuf>,
    /// Memory of all states together; `None` for an eighth of the process's.
    pub memory_bytes: Option<u64>,
    /// The most room that they take in the folder; `None` for as much as there is.
    pub disk_bytes: Option<u64>,
}

pub(super) const STATE_KEYS: &[&str] = &["dir", "memory", "disk"];

impl StateConfig {
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(STATE_KEYS)?;
        Ok(Self {
            dir: fields.optional("dir").map(|at| at.file_path()).transpose()?,
            memory_bytes: fields.optional("memory").map(|at| at.bytes(1 << 20..=1 << 40)).transpose()?,
            disk_bytes: fields.optional("disk").map(|at| at.bytes(16 << 20..=1 << 50)).transpose()?,
        })
    }
}
