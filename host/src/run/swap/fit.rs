//! Whether a chain with other plugins fits, and what it was before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::Prepared;
use super::super::plan::key_paths;
use super::store::Store;
use crate::config::Config;
use crate::plugin::{Descriptor, user_cache_dir};

/// Where what survives a restart is kept.
pub(super) fn folder(config: &Config) -> PathBuf {
    let base = config.swap.store.clone().or_else(|| user_cache_dir().map(|cache| cache.join("swap")));
    let name = format!("{}@{}", config.pipeline, config.instance);
    base.unwrap_or_else(|| std::env::temp_dir().join("millstream-swap")).join(name)
}

pub(super) fn plugin_files(config: &Config) -> impl Iterator<Item = (&str, &std::path::Path)> {
    config.stages.iter().filter_map(|stage| Some((stage.name.as_str(), stage.kind.plugin()?.path.as_path())))
}

/// A pipeline with components of the store in the place of others; `None` where there are none, or one does not load.
pub(super) fn restored(
    config: &Config,
    store: &Store,
    from: &Arc<Prepared>,
    digests: &BTreeMap<String, String>,
) -> Option<Arc<Prepared>> {
    if digests.is_empty() {
        return None;
    }
    let component = |(stage, digest): (&String, &String)| {
        let bytes = store.get(digest).map_err(|why| format!("stage `{stage}`, {digest}: {why}"))?;
        Ok((stage.clone(), bytes))
    };
    let components = digests.iter().map(component).collect::<Result<Vec<_>, String>>();
    match components.and_then(|components| from.with(config, &components).map_err(|why| why.to_string())) {
        Ok(prepared) => {
            tracing::info!(?digests, "plugins that were swapped in before this start");
            Some(Arc::new(prepared))
        }
        Err(why) => {
            tracing::warn!("a plugin that was swapped in before this start is gone, its file is used: {why}");
            None
        }
    }
}

/// The stages whose plugins differ.
pub(super) fn changed_stages(before: &Prepared, after: &Prepared) -> Vec<usize> {
    let pairs = before.labels.stages.iter().zip(&after.labels.stages).enumerate();
    pairs.filter(|(_, (before, after))| before.1 != after.1).map(|(index, _)| index).collect()
}

/// True where the plugins before could not read the states that the ones after leave: then there is no way back.
pub(super) fn is_one_way(before: &Prepared, after: &Prepared) -> bool {
    let versions = before.state_versions().zip(after.state_versions());
    let mut kept = versions.filter_map(|(old, new)| Some((old?, new?)));
    kept.any(|(old, new)| old.own != new.own && !old.older.contains(&new.own))
}

/// Fails where a new version no longer writes a field that a later stage must have, or that a sink takes its key from.
pub(super) fn fits(config: &Config, before: &Prepared, after: &Prepared) -> Result<(), String> {
    for ((stage, old), new) in config.stages.iter().zip(before.state_versions()).zip(after.state_versions()) {
        let (Some(old), Some(new)) = (old, new) else { continue };
        if new.own != old.own && !new.older.contains(&old.own) {
            let (name, old, new) = (&stage.name, old.own, new.own);
            return Err(format!(
                "stage `{name}` has states of version {old}; the new plugin makes version {new} and does not say that it \
                 migrates those: add {old} to its `migrates`"
            ));
        }
    }
    let stages: Vec<_> = config.stages.iter().zip(before.descriptors().zip(after.descriptors())).collect();
    for (index, (stage, ((old, _), (new, _)))) in stages.iter().enumerate() {
        let gone = old.writes.iter().filter(|old| !new.writes.iter().any(|new| new.path == old.path));
        for field in gone.map(|write| write.path.to_string()) {
            let reads = |(_, (_, (later, _))): &&(_, (_, (&Descriptor, _)))| {
                later.reads.iter().any(|read| read.required && read.path == field)
            };
            if let Some((later, _)) = stages[index + 1..].iter().find(reads) {
                let (stage, later) = (&stage.name, &later.name);
                return Err(format!("stage `{stage}` no longer writes `{field}`, which stage `{later}` must have"));
            }
            let keyed = key_paths(config).map_err(|why| why.to_string())?;
            if keyed.iter().flatten().any(|key| key.to_string() == field) {
                let stage = &stage.name;
                return Err(format!("stage `{stage}` no longer writes `{field}`, which an output takes its key from"));
            }
        }
    }
    Ok(())
}
