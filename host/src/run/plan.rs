//! Loads the plugins and checks the chain as a whole.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::{
    AggregateConfig, Config, JoinConfig, PluginConfig, SinkConfig, StageConfig, StageKind, WindowConfig,
};
use crate::pipeline::{Builtin, Join, Joined, Pipeline, Stage, StageSpec, fits, join_descriptor, type_name};
use crate::plugin::{
    AggregateRunner, Descriptor, Limits, Plugin, PluginError, Runtime, RuntimeConfig, StageRunner, TableField,
    user_cache_dir,
};
use crate::record::json::Pointer;
use crate::spill::{Spill, SpillFolder};
use crate::table::Tables;
use crate::task::{DeadLetterLabels, Lineage};
use crate::window::{Aggregate, Functions, PluginAggregate, Role, WindowPlan, WindowStage};
use crate::worker::{Chain, StageFactory, Watch};

use super::workers::WORKERS_MAX;
use super::{RunError, spill, states, tables};

/// A pipeline with its plugins loaded: what `validate` shows and `run` runs.
pub struct Prepared {
    /// The checked chain.
    pub pipeline: Arc<Pipeline>,
    /// What dead letters say.
    pub labels: Arc<DeadLetterLabels>,
    stages: Arc<Vec<Arc<Loaded>>>,
    tables: Arc<Tables>,
    spill: Arc<SpillFolder>,
    // Ends the ticker of deadlines when it is dropped, so it outlives every stage.
    runtime: Arc<Runtime>,
}

/// A stage that can be made any number of times.
struct Loaded {
    descriptor: Descriptor,
    digest: String,
    make: Make,
}

enum Make {
    Plugin { plugin: Plugin, config_json: String, limits: Limits },
    Builtin(StageKind),
    Join(JoinConfig),
    Window { plan: Arc<WindowPlan>, aggregate: MakeAggregate },
}

enum MakeAggregate {
    Functions(Functions),
    Plugin { plugin: Plugin, config_json: String, limits: Limits, states: StateVersions },
}

/// The versions of states that a plugin makes and takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StateVersions {
    /// The one that it makes.
    pub(super) own: u32,
    /// Older ones that it migrates.
    pub(super) older: Vec<u32>,
}

impl Prepared {
    /// Loads every plugin, asks it to describe itself under its configuration, and checks that all stages and outputs
    /// fit each other.
    pub fn new(config: &Config) -> Result<Self, RunError> {
        let runtime = Arc::new(Runtime::new(runtime_config(config)).map_err(|why| plugin_error("", why))?);
        let load = |stage: &StageConfig| Ok(Arc::new(Loaded::new(&runtime, stage, config)?));
        let stages = config.stages.iter().map(load).collect::<Result<Vec<_>, RunError>>()?;
        let tables = Arc::new(tables::make(config, stages.iter().map(|stage| &stage.descriptor)));
        let spill = spill::folder(config);
        Self::check(config, stages, (tables, spill, runtime.clone()))
    }

    /// The same pipeline with other plugins in some stages, given by the stages' names: loaded, asked to describe
    /// themselves, and checked with all the others. Fails where there is no such stage, or where it has no plugin.
    pub fn with(&self, config: &Config, components: &[(String, Vec<u8>)]) -> Result<Self, RunError> {
        let mut stages = self.stages.as_ref().clone();
        for (name, bytes) in components {
            let found = config.stages.iter().position(|stage| stage.name == *name);
            let plugin = found.and_then(|at| Some((at, config.stages[at].kind.plugin()?)));
            let Some((at, plugin)) = plugin else {
                return Err(RunError::Setting(format!("there is no stage `{name}` with a plugin")));
            };
            stages[at] = Arc::new(match &config.stages[at].kind {
                StageKind::Window(window) => {
                    let component = self.runtime.load(bytes, name).map_err(|why| plugin_error(name, why))?;
                    Loaded::window(name, window, Some(component), states::role(config, window))?
                }
                _ => load(&self.runtime, name, bytes, plugin)?,
            });
        }
        Self::check(config, stages, (self.tables.clone(), self.spill.clone(), self.runtime.clone()))
    }

    fn check(
        config: &Config,
        stages: Vec<Arc<Loaded>>,
        (tables, spill, runtime): (Arc<Tables>, Arc<SpillFolder>, Arc<Runtime>),
    ) -> Result<Self, RunError> {
        let outputs: Vec<String> = config.outputs.iter().map(|output| output.name.clone()).collect();
        let named = || config.stages.iter().zip(&stages);
        let spec = |(stage, loaded): (&StageConfig, &Arc<Loaded>)| {
            check_tables(&stage.name, &loaded.descriptor, (config, &tables))?;
            Ok(StageSpec::new(&stage.name, &loaded.descriptor, &outputs)?)
        };
        let specs = named().map(spec).collect::<Result<Vec<_>, RunError>>()?;
        let labels = named().map(|(stage, loaded)| (stage.name.clone(), loaded.digest.clone())).collect();
        let pipeline = Arc::new(Pipeline::new(specs, outputs, &key_paths(config)?)?);
        let labels = Arc::new(DeadLetterLabels { pipeline: config.pipeline.clone(), stages: labels });
        Ok(Self { pipeline, labels, stages: Arc::new(stages), tables, spill, runtime })
    }

    /// The versions of the states that each stage's plugin makes and takes, where it is an aggregate.
    pub(super) fn state_versions(&self) -> impl Iterator<Item = Option<&StateVersions>> {
        self.stages.iter().map(|stage| stage.state_versions())
    }

    /// What each stage says of itself, in order, with the plugin's digest (empty for a built-in stage).
    pub fn descriptors(&self) -> impl Iterator<Item = (&Descriptor, &str)> {
        self.stages.iter().map(|stage| (&stage.descriptor, stage.digest.as_str()))
    }

    /// The tables that stages look records up in; they have no rows until somebody reads them.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Makes the stages of a task, given its partition.
    pub fn factory(&self) -> StageFactory {
        self.factory_until(&Arc::default())
    }

    /// The same; while `stop` is raised they begin no further call of a plugin, so that one that hangs holds nothing up.
    pub(super) fn factory_until(&self, stop: &Arc<AtomicBool>) -> StageFactory {
        let (stages, tables, spill, stop) =
            (self.stages.clone(), self.tables.clone(), self.spill.clone(), stop.clone());
        Arc::new(move |partition| stages.iter().map(|stage| stage.stage((&tables, partition, &spill), &stop)).collect())
    }

    /// The second level of one of the stages, as workers run it.
    pub(super) fn merge_chain(&self, config: &Config, stage: usize) -> Result<Chain, RunError> {
        let StageConfig { name, kind: StageKind::Window(window) } = &config.stages[stage] else {
            return Err(RunError::Setting(format!("stage {stage} keeps no states")));
        };
        let loaded = self.stages[stage].in_role(name, window, Role::Merge)?;
        let spec = StageSpec::new(name, &loaded.descriptor, &self.pipeline.outputs)?;
        let outputs = self.pipeline.outputs.clone();
        let keys = vec![None; outputs.len()];
        let labels = vec![(name.clone(), loaded.digest.clone())];
        let (loaded, stop) = (Arc::new(loaded), Arc::default());
        let (tables, spill) = (self.tables.clone(), self.spill.clone());
        Ok(Chain {
            number: 0,
            pipeline: Arc::new(Pipeline::new(vec![spec], outputs, &keys)?),
            stages: Arc::new(move |partition| Ok(vec![loaded.stage((&tables, partition, &spill), &stop)?])),
            labels: Arc::new(DeadLetterLabels { pipeline: config.pipeline.clone(), stages: labels }),
            lineage: None,
            plugins: Arc::default(),
            watch: None,
            given_up: false,
            one_way: false,
        })
    }

    /// This pipeline as workers run it.
    pub(super) fn chain(&self, config: &Config, watch: Option<Arc<Watch>>, stop: &Arc<AtomicBool>) -> Chain {
        let plugins = self.labels.stages.iter().filter(|(_, digest)| !digest.is_empty()).cloned();
        let origin =
            |((name, digest), (descriptor, _)): (&(String, String), (&Descriptor, &str))| match digest.get(..12) {
                Some(digest) => format!("{name}={}@{digest}", descriptor.version),
                None => format!("{name}=built-in"),
            };
        let lineage = config.lineage.then(|| {
            let plugins: Vec<String> = self.labels.stages.iter().zip(self.descriptors()).map(origin).collect();
            Arc::new(Lineage { pipeline: config.pipeline.clone(), plugins: plugins.join(",") })
        });
        Chain {
            number: 0,
            pipeline: self.pipeline.clone(),
            stages: self.factory_until(stop),
            labels: self.labels.clone(),
            lineage,
            plugins: Arc::new(plugins.collect()),
            watch,
            given_up: false,
            one_way: false,
        }
    }
}

impl Loaded {
    fn new(runtime: &Runtime, stage: &StageConfig, config: &Config) -> Result<Self, RunError> {
        if let StageKind::Plugin(plugin) = &stage.kind {
            return load(runtime, &stage.name, &read(stage, plugin)?, plugin);
        }
        if let StageKind::Window(window) = &stage.kind {
            let component = window_plugin(stage).map(|plugin| read(stage, plugin)).transpose()?;
            let component = component.map(|bytes| runtime.load(&bytes, &stage.name)).transpose();
            let component = component.map_err(|why| plugin_error(&stage.name, why))?;
            return Self::window(&stage.name, window, component, states::role(config, window));
        }
        if let StageKind::Join(join) = &stage.kind {
            return Self::join(join, config);
        }
        let (_, descriptor) =
            builtin(&stage.kind).map_err(|why| RunError::Setting(format!("stage `{}`: {why}", stage.name)))?;
        Ok(Self { descriptor, digest: String::new(), make: Make::Builtin(stage.kind.clone()) })
    }

    fn window(name: &str, config: &WindowConfig, plugin: Option<Plugin>, role: Role) -> Result<Self, RunError> {
        let of = |(plan, descriptor): (WindowPlan, Descriptor), digest, aggregate| Self {
            descriptor,
            digest,
            make: Make::Window { plan: Arc::new(plan), aggregate },
        };
        let (plugin, wanted) = match (&config.aggregate, plugin) {
            (AggregateConfig::Plugin(wanted), Some(plugin)) => (plugin, wanted),
            _ => {
                let functions = WindowPlan::functions(config).ok_or_else(|| {
                    RunError::Setting(format!("stage `{name}`: its aggregate is neither functions nor a plugin"))
                })?;
                return Ok(of(WindowPlan::new(config, role, &[]), String::new(), MakeAggregate::Functions(functions)));
            }
        };
        let (limits, config_json) = (limits(wanted), wanted.config_json.expose().to_owned());
        let described = plugin.describe_aggregate(&config_json, &limits).map_err(|why| plugin_error(name, why))?;
        let states = StateVersions { own: described.state_version, older: described.migrates_from };
        let (plan, window) = WindowPlan::new(config, role, &described.reads);
        let descriptor = Descriptor { name: described.name, version: described.version, ..window };
        let digest = plugin.digest().to_owned();
        Ok(of((plan, descriptor), digest, MakeAggregate::Plugin { plugin, config_json, limits, states }))
    }

    /// The same window in another role.
    fn in_role(&self, name: &str, config: &WindowConfig, role: Role) -> Result<Self, RunError> {
        let plugin = match &self.make {
            Make::Window { aggregate: MakeAggregate::Plugin { plugin, .. }, .. } => Some(plugin.clone()),
            _ => None,
        };
        Self::window(name, config, plugin, role)
    }

    /// The versions of its plugin's states, if it has such.
    fn state_versions(&self) -> Option<&StateVersions> {
        match &self.make {
            Make::Window { aggregate: MakeAggregate::Plugin { states, .. }, .. } => Some(states),
            _ => None,
        }
    }

    fn join(join: &JoinConfig, config: &Config) -> Result<Self, RunError> {
        let table = config.tables.iter().find(|table| table.name == join.table);
        let table = table.ok_or_else(|| RunError::Setting(format!("there is no table `{}`", join.table)))?;
        let make = Make::Join(join.clone());
        Ok(Self { descriptor: join_descriptor(join, table), digest: String::new(), make })
    }

    fn stage(
        &self,
        (tables, partition, spill): (&Tables, i32, &Arc<SpillFolder>),
        stop: &Arc<AtomicBool>,
    ) -> Result<Stage, PluginError> {
        match &self.make {
            Make::Window { plan, aggregate } => {
                let aggregate = match aggregate {
                    MakeAggregate::Functions(functions) => Aggregate::Functions(functions.clone()),
                    MakeAggregate::Plugin { plugin, config_json, limits, .. } => {
                        let mut runner = AggregateRunner::new(plugin.clone(), config_json, limits.clone())?;
                        runner.set_interrupt(stop.clone());
                        Aggregate::Plugin(PluginAggregate::new(runner, plan.own_columns()))
                    }
                };
                let mut stage = WindowStage::new(plan.clone(), aggregate);
                stage.set_spill(|| Spill::to(spill));
                Ok(Stage::Window(Box::new(stage)))
            }
            Make::Plugin { plugin, config_json, limits } => {
                let runner = StageRunner::new(plugin.clone(), config_json, limits.clone())?;
                let mut runner = runner.with_tables(tables, partition)?;
                runner.set_interrupt(stop.clone());
                let Descriptor { joins, reads, .. } = runner.descriptor();
                let name = plugin.name().to_owned();
                let joined = Joined::new(joins, reads.len(), (tables, partition));
                let joined = joined.map_err(|reason| PluginError::Descriptor { name, reason })?;
                Ok(Stage::Plugin(Box::new(runner), joined))
            }
            // The configuration was checked: a join names one of its tables.
            Make::Join(join) => match tables.get(&join.table) {
                Some(table) => Ok(Stage::Builtin(Builtin::Join(Box::new(Join::new(join, table, partition))))),
                None => unreachable!("a checked join has its table"),
            },
            // It could be made when it was checked.
            Make::Builtin(kind) => match builtin(kind) {
                Ok((builtin, _)) => Ok(Stage::Builtin(builtin)),
                Err(why) => unreachable!("a checked stage: {why}"),
            },
        }
    }
}

/// Checks that the pipeline has the tables that a plugin joins or looks up, with the columns, in a type that can be read.
fn check_tables(stage: &str, descriptor: &Descriptor, (config, tables): (&Config, &Tables)) -> Result<(), RunError> {
    let joins = descriptor.joins.iter().map(|join| (&join.column, Some(join.ty)));
    let lookups = descriptor.lookups.iter().map(|column| (column, None));
    for (TableField { table, path }, ty) in joins.chain(lookups) {
        let fail = |why: String| {
            Err(RunError::Setting(format!("stage `{stage}` reads `{path}` of the table `{table}`, {why}")))
        };
        let of_config = config.tables.iter().find(|known| known.name == *table);
        let (Some(of_config), Some(kept)) = (of_config, tables.get(table)) else {
            return fail("which the pipeline does not have: add it under `tables`".to_owned());
        };
        if let Err(why) = Pointer::parse(path) {
            return fail(format!("which is no JSON Pointer: {why}"));
        }
        if !kept.columns().iter().any(|column| column.path == *path) {
            return fail("a column that is not kept in memory, because no stage had it when the run began; name it under the table's `columns`, and begin anew".to_owned());
        }
        let is = of_config.column_type(path);
        if let Some(ty) = ty.filter(|ty| !fits(is, *ty)) {
            return fail(format!(
                "as {}, but it holds {}; give it another type under the table's `columns`",
                type_name(ty),
                type_name(is)
            ));
        }
    }
    Ok(())
}

/// A runtime in which every worker has room for each stage's plugin, its predecessor and its candidate.
fn runtime_config(config: &Config) -> RuntimeConfig {
    let limits = config.stages.iter().filter_map(|stage| Some(stage.kind.plugin()?.limits.memory_bytes));
    let default = RuntimeConfig::default();
    let workers = config.workers.unwrap_or(WORKERS_MAX as u32);
    let stages = limits.clone().count() as u32;
    RuntimeConfig {
        cache_dir: user_cache_dir(),
        instances: default.instances.max(workers.saturating_mul(stages).saturating_mul(3)),
        memory_bytes: limits.fold(default.memory_bytes, u64::max),
    }
}

fn builtin(kind: &StageKind) -> Result<(Builtin, Descriptor), String> {
    match kind {
        StageKind::Filter(filter) => Ok(Builtin::filter(filter)),
        StageKind::Route(route) => Ok(Builtin::route(route)),
        StageKind::Select(select) => Builtin::select(select),
        StageKind::Plugin(_) | StageKind::Window(_) | StageKind::Join(_) => {
            Err("it is no stage that stands alone".to_owned())
        }
    }
}

fn load(runtime: &Runtime, stage: &str, bytes: &[u8], config: &PluginConfig) -> Result<Loaded, RunError> {
    let limits = limits(config);
    let config_json = config.config_json.expose().to_owned();
    let plugin = runtime.load(bytes, stage).map_err(|why| plugin_error(stage, why))?;
    let descriptor = plugin.describe(&config_json, &limits).map_err(|why| plugin_error(stage, why))?;
    let digest = plugin.digest().to_owned();
    Ok(Loaded { descriptor, digest, make: Make::Plugin { plugin, config_json, limits } })
}

/// What a plugin may use.
fn limits(config: &PluginConfig) -> Limits {
    let limits = &config.limits;
    Limits::new(limits.memory_bytes, limits.deadline_ms, limits.output_bytes)
}

fn window_plugin(stage: &StageConfig) -> Option<&PluginConfig> {
    stage.kind.plugin().filter(|_| matches!(stage.kind, StageKind::Window(_)))
}

/// The bytes of a stage's plugin.
fn read(stage: &StageConfig, plugin: &PluginConfig) -> Result<Vec<u8>, RunError> {
    let failed = |why| RunError::PluginFile { stage: stage.name.clone(), path: plugin.path.clone(), why };
    std::fs::read(&plugin.path).map_err(failed)
}

fn plugin_error(stage: &str, why: PluginError) -> RunError {
    RunError::Plugin { stage: stage.to_owned(), why }
}

/// The field that each output's keys come from, where one does.
pub(super) fn key_paths(config: &Config) -> Result<Vec<Option<Pointer>>, RunError> {
    let path = |sink: &SinkConfig| match sink {
        SinkConfig::Kafka(kafka) => kafka.key.clone(),
        _ => None,
    };
    let parse = |key: String| Pointer::parse(&key).map_err(|why| RunError::Setting(format!("`key: {key}`: {why}")));
    config.outputs.iter().map(|output| path(&output.sink).map(parse).transpose()).collect()
}
