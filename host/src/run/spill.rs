//! How much memory states may take, and where those go that find no room in it.

use std::path::PathBuf;
use std::sync::Arc;

use super::{RunError, workers};
use crate::config::{Config, StageKind};
use crate::plugin::user_cache_dir;
use crate::spill::SpillFolder;

/// The part of the process's memory that states take unless the configuration says otherwise.
const MEMORY_PART: u64 = 8;

/// The folder that all states of a process share.
pub(super) fn folder(config: &Config) -> Arc<SpillFolder> {
    SpillFolder::new(dir(config), memory_bytes(config), config.state.disk_bytes)
}

/// What states take of the process's memory.
fn memory_bytes(config: &Config) -> u64 {
    config.state.memory_bytes.unwrap_or_else(|| workers::memory_limit_bytes(config) / MEMORY_PART)
}

fn dir(config: &Config) -> PathBuf {
    let dir = config.state.dir.clone().or_else(|| user_cache_dir().map(|cache| cache.join("state")));
    dir.unwrap_or_else(|| std::env::temp_dir().join("millstream-state"))
}

fn keeps_states(config: &Config) -> bool {
    config.stages.iter().any(|stage| matches!(stage.kind, StageKind::Window(_)))
}

/// Says how much of the memory is theirs; fails where they can't go to the folder that the configuration names, and not only
/// when memory is short.
pub(super) fn prepare(config: &Config) -> Result<(), RunError> {
    if !keeps_states(config) {
        return Ok(());
    }
    let (mib, dir) = (memory_bytes(config) >> 20, dir(config));
    tracing::info!("memory: states of windows take {mib} MiB of it; what has no room there moves to {}", dir.display());
    if config.state.dir.is_some() {
        folder(config).check().map_err(|why| RunError::Setting(why.to_string()))?;
    }
    Ok(())
}
