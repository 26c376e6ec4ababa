//! A component, compiled once by each engine.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower, WasmStr,
};
use wasmtime::{Engine, StoreContextMut};

use super::engine::{MEMORIES, Shared, TABLES};
use super::fault::{Fault, cut};
use super::instance::{Instance, Meter, State};
use super::log::{LogGate, harmless};
use super::{AggregateDescriptor, Descriptor, Limits, PluginError, StageError, World, abi, descriptor, lookup, wrap};

/// Fuel that a call of `host.log` takes from a suspect, whatever it logs.
const LOG_FUEL: u64 = 1_000;
/// Bytes of a suspect's last logged error that are kept.
const LAST_WORDS_BYTES: usize = 400;
/// What stands for a line that is not UTF-8.
const NOT_TEXT: &str = "(a line that is not UTF-8)";
/// How long a suspect waits for the judge's artefact, which takes a Rust plugin half a second and an interpreter a minute
/// on a busy machine; and how often it looks whether it should.
const JUDGE_WAIT: Duration = Duration::from_secs(120);
const JUDGE_LOOK: Duration = Duration::from_millis(100);

/// A component that keeps the contract, ready to run. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    digest: String,
    shared: Arc<Shared>,
    fast: Artefact,
    judge: Arc<Judge>,
}

/// The judge's artefact, or the place where it will be.
struct Judge {
    slot: Mutex<Option<Result<Arc<Artefact>, String>>>,
    filled: Condvar,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({} {})", self.inner.name, self.inner.digest)
    }
}

impl Plugin {
    pub(super) fn load(shared: &Arc<Shared>, bytes: &[u8], name: &str) -> Result<Self, PluginError> {
        let digest = digest_of(bytes);
        let component = compile(shared, &shared.fast, "fast", &digest, bytes, name)?;
        let fast = Artefact::new(&component, Meter::Clock, name, shared.memory_bytes)?;
        let judge = Arc::new(Judge { slot: Mutex::new(None), filled: Condvar::new() });
        judge_in_background(shared.clone(), judge.clone(), (name.to_owned(), digest.clone(), bytes.to_vec()))?;
        let inner = Inner { name: name.to_owned(), digest, shared: shared.clone(), fast, judge };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The name that it was loaded under.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The SHA-256 of the bytes that it was loaded from, in hex.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// True once the artefact that judges faults is there, or can't be made.
    pub fn judge_ready(&self) -> bool {
        self.inner.judge.slot.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The world of the contract that it implements.
    pub fn world(&self) -> World {
        self.inner.fast.functions.world()
    }

    /// Asks the plugin what it reads and writes under this configuration (JSON text), and checks the answer.
    pub fn describe(&self, config_json: &str, limits: &Limits) -> Result<Descriptor, PluginError> {
        self.is_of(World::Transform)?;
        self.check_limits(limits)?;
        let described = self.said(|instance| instance.describe(config_json), limits)?;
        descriptor::check(described).map_err(|reason| self.wrongly(reason))
    }

    /// The same of an aggregate.
    pub fn describe_aggregate(&self, config_json: &str, limits: &Limits) -> Result<AggregateDescriptor, PluginError> {
        self.is_of(World::Aggregate)?;
        self.check_limits(limits)?;
        self.check_state_limit(limits)?;
        let described = self.said(|instance| instance.describe_aggregate(config_json), limits)?;
        descriptor::check_aggregate(described).map_err(|reason| self.wrongly(reason))
    }

    /// What `describe` said to a fresh instance.
    fn said<D>(
        &self,
        describe: impl FnOnce(&mut Instance) -> Result<Result<D, String>, Fault>,
        limits: &Limits,
    ) -> Result<D, PluginError> {
        let log = Arc::new(LogGate::new(self.name()));
        let mut instance = Instance::new(self.name(), self.fast(), limits, Some(log))?;
        describe(&mut instance)
            .map_err(|fault| fault.at_start(self.name()))?
            .map_err(|message| PluginError::Config { name: self.name().to_owned(), message })
    }

    fn wrongly(&self, reason: String) -> PluginError {
        PluginError::Descriptor { name: self.name().to_owned(), reason }
    }

    /// Refuses a plugin of another world.
    fn is_of(&self, wanted: World) -> Result<(), PluginError> {
        let found = self.world();
        if found == wanted { Ok(()) } else { Err(PluginError::World { name: self.name().to_owned(), wanted, found }) }
    }

    /// Refuses states that a call could not hold a few of.
    fn check_state_limit(&self, limits: &Limits) -> Result<(), PluginError> {
        let most = (limits.memory_bytes / 8).min(limits.output_bytes / 2);
        if (1..=most).contains(&limits.state_bytes) {
            return Ok(());
        }
        Err(PluginError::Limits(format!(
            "plugin `{}`: `state_bytes` is {}, and must be from 1 to {most}: an eighth of its memory, and half of its \
             output",
            self.name(),
            limits.state_bytes
        )))
    }

    /// Refuses limits that the runtime can't keep.
    pub(super) fn check_limits(&self, limits: &Limits) -> Result<(), PluginError> {
        let most = self.inner.shared.memory_bytes;
        let problem = if limits.memory_bytes > most {
            format!("a memory limit of {} bytes is above the runtime's {most}", limits.memory_bytes)
        } else if !(1..=65_536).contains(&limits.rows_per_call) {
            format!("rows per call must be from 1 to 65536, and are {}", limits.rows_per_call)
        } else if limits.fuel_per_record == 0 {
            "a record must have some fuel".to_owned()
        } else {
            return Ok(());
        };
        Err(PluginError::Limits(format!("plugin `{}`: {problem}", self.name())))
    }

    pub(super) fn fast(&self) -> &Artefact {
        &self.inner.fast
    }

    /// The judge's artefact. Waits for it as long as `go_on` lets it, but no longer than two minutes.
    pub(super) fn judge(&self, go_on: impl Fn() -> Result<(), StageError>) -> Result<Arc<Artefact>, StageError> {
        let judge = &self.inner.judge;
        let until = Instant::now() + JUDGE_WAIT;
        let mut slot = judge.slot.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*slot {
                Some(Ok(artefact)) => return Ok(artefact.clone()),
                Some(Err(reason)) => {
                    return Err(StageError::Judge { name: self.name().to_owned(), reason: reason.clone() });
                }
                None if Instant::now() > until => return Err(StageError::NotReady(self.name().to_owned())),
                None => go_on()?,
            }
            (slot, _) = judge.filled.wait_timeout(slot, JUDGE_LOOK).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn judge_in_background(
    shared: Arc<Shared>,
    judge: Arc<Judge>,
    (name, digest, bytes): (String, String, Vec<u8>),
) -> Result<(), PluginError> {
    let work = move || {
        let made = compile(&shared, &shared.judge, "judge", &digest, &bytes, &name)
            .and_then(|component| Artefact::new(&component, Meter::Fuel, &name, shared.memory_bytes))
            .map(Arc::new)
            .map_err(|error| error.to_string());
        if let Err(reason) = &made {
            tracing::error!(plugin = name, "the artefact that judges faults could not be made: {reason}");
        }
        *judge.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        judge.filled.notify_all();
    };
    match std::thread::Builder::new().name("plugin-compile".into()).spawn(work) {
        Ok(_) => Ok(()),
        Err(error) => Err(PluginError::Engine(error.to_string())),
    }
}

/// The component as `engine` compiles it: from the cache, or by compiling the bytes.
fn compile(
    shared: &Shared,
    engine: &Engine,
    kind: &str,
    digest: &str,
    bytes: &[u8],
    name: &str,
) -> Result<Component, PluginError> {
    let not_a_plugin = |reason: String| PluginError::NotAPlugin { name: name.to_owned(), reason };
    if let Some(artefact) = shared.cache.get(digest, engine, kind) {
        match deserialize(engine, &artefact) {
            Ok(component) => return Ok(component),
            Err(error) => tracing::warn!(plugin = name, "a cached artefact is compiled again: {error:#}"),
        }
    }
    let component = wrap(bytes, name)?;
    let component = Component::from_binary(engine, &component).map_err(|error| not_a_plugin(format!("{error:#}")))?;
    match component.serialize() {
        Ok(artefact) => shared.cache.put(digest, engine, kind, &artefact),
        Err(error) => tracing::warn!(plugin = name, "the artefact can't be kept: {error:#}"),
    }
    Ok(component)
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, artefact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes come from `Cache::get` and nowhere else: an engine of this user's own process wrote them, to a
    // directory that only this user can write to, and their checksum was compared.
    unsafe { Component::deserialize(engine, artefact) }
}

/// A component compiled by one engine, its imports resolved and its exports checked.
pub(super) struct Artefact {
    pub(super) engine: Engine,
    pub(super) meter: Meter,
    pub(super) pre: InstancePre<State>,
    pub(super) describe: ComponentExportIndex,
    pub(super) start: ComponentExportIndex,
    pub(super) functions: Functions<ComponentExportIndex>,
}

/// The functions that a plugin's world has beside `describe` and `start`: where they are, or they themselves.
#[derive(Clone, Copy)]
pub(super) enum Functions<F> {
    Transform { process: F },
    Aggregate { fold: F, merge: F, finish: F, migrate: F },
}

impl<F> Functions<F> {
    fn world(&self) -> World {
        match self {
            Self::Transform { .. } => World::Transform,
            Self::Aggregate { .. } => World::Aggregate,
        }
    }

    pub(super) fn try_map<G, E>(&self, mut map: impl FnMut(&F) -> Result<G, E>) -> Result<Functions<G>, E> {
        Ok(match self {
            Self::Transform { process } => Functions::Transform { process: map(process)? },
            Self::Aggregate { fold, merge, finish, migrate } => Functions::Aggregate {
                fold: map(fold)?,
                merge: map(merge)?,
                finish: map(finish)?,
                migrate: map(migrate)?,
            },
        })
    }
}

impl Artefact {
    fn new(component: &Component, meter: Meter, name: &str, memory_bytes: u64) -> Result<Self, PluginError> {
        wrap::check_imports(component, name)?;
        check_size(component, memory_bytes)
            .map_err(|reason| PluginError::NotAPlugin { name: name.to_owned(), reason })?;
        let (describe, functions) = functions(component, name)?;
        let start = export::<(&str,), (Result<(), String>,)>(component, "start", name)?;
        let pre = linker(component.engine(), meter)
            .and_then(|linker| linker.instantiate_pre(component))
            .map_err(|error| PluginError::Export { name: name.to_owned(), reason: format!("{error:#}") })?;
        Ok(Self { engine: component.engine().clone(), meter, pre, describe, start, functions })
    }
}

/// `describe` and the functions of the component's world, which is known by the names that it exports.
fn functions(
    component: &Component,
    name: &str,
) -> Result<(ComponentExportIndex, Functions<ComponentExportIndex>), PluginError> {
    type Bytes<'a> = abi::OptionalBytesIn<'a>;
    type Packed<'a> = abi::PackedIn<'a>;
    if component.get_export(None, "fold").is_none() {
        let describe = export::<(&str,), (Result<abi::Descriptor, String>,)>(component, "describe", name)?;
        let process = export::<(abi::Batch<'_>,), (abi::Processed,)>(component, "process", name)?;
        return Ok((describe, Functions::Transform { process }));
    }
    let describe = export::<(&str,), (Result<abi::AggregateDescriptor, String>,)>(component, "describe", name)?;
    let fold = export::<(abi::Batch<'_>, &[u32], Bytes<'_>), (abi::Folded,)>(component, "fold", name)?;
    let merge = export::<(Packed<'_>, Packed<'_>), (abi::Packed,)>(component, "merge", name)?;
    let finish = export::<(abi::WindowsIn<'_>, Packed<'_>), (abi::Finished,)>(component, "finish", name)?;
    let migrate = export::<(u32, Packed<'_>), (Result<abi::Packed, String>,)>(component, "migrate", name)?;
    Ok((describe, Functions::Aggregate { fold, merge, finish, migrate }))
}

/// The index of an exported function of the type that the contract gives it.
fn export<Params, Return>(component: &Component, export: &str, name: &str) -> Result<ComponentExportIndex, PluginError>
where
    Params: ComponentNamedList + Lower,
    Return: ComponentNamedList + Lift,
{
    let wrong = |reason: String| PluginError::Export { name: name.to_owned(), reason };
    let found = component.get_export(None, export);
    let Some((ComponentItem::ComponentFunc(function), index)) = found else {
        return Err(wrong(format!("it does not export the function `{export}`")));
    };
    function
        .typecheck::<Params, Return>(&component.component_type().instance_type())
        .map_err(|error| wrong(format!("its function `{export}` is of another type: {error:#}")))?;
    Ok(index)
}

/// Refuses what would not fit a slot of the pool.
fn check_size(component: &Component, memory_bytes: u64) -> Result<(), String> {
    let Some(needs) = component.resources_required() else {
        return Err("it brings core modules along as values, which can't be counted".into());
    };
    let memory = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(64 << 10);
    if needs.num_memories > MEMORIES {
        Err(format!("it has {} memories, and {MEMORIES} are the most", needs.num_memories))
    } else if needs.num_tables > TABLES {
        Err(format!("it has {} tables, and {TABLES} are the most", needs.num_tables))
    } else if memory > memory_bytes {
        Err(format!("its memory begins with {memory} bytes, above the limit of {memory_bytes}"))
    } else {
        Ok(())
    }
}

/// All that a plugin is given: `host.log` and `tables.lookup`. A suspect's lines were written before it was one, so that it pays and is not
/// heard; but the last error that it logs, such as a panic's message, goes into the reason of its fault.
fn linker(engine: &Engine, meter: Meter) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let mut host = linker.instance(wrap::HOST)?;
    host.func_wrap(
        "log",
        move |store: StoreContextMut<'_, State>, (level, line): (abi::Level, WasmStr)| match meter {
            Meter::Clock => {
                log_line(&store, level, &line);
                Ok(())
            }
            Meter::Fuel => keep_last_words(store, level, &line),
        },
    )?;
    lookup::link(&mut linker, meter)?;
    Ok(linker)
}

fn log_line(store: &StoreContextMut<'_, State>, level: abi::Level, line: &WasmStr) {
    if let Some(gate) = store.data().log.as_ref().filter(|gate| gate.admits()) {
        gate.write(level, line.to_str(store).as_deref().unwrap_or(NOT_TEXT));
    }
}

fn keep_last_words(mut store: StoreContextMut<'_, State>, level: abi::Level, line: &WasmStr) -> wasmtime::Result<()> {
    let mut cost = LOG_FUEL;
    if level == abi::Level::Error {
        let words = line.to_str(&store);
        let words = words.as_deref().unwrap_or(NOT_TEXT);
        cost += words.len() as u64;
        let mut words = harmless(words);
        cut(&mut words, LAST_WORDS_BYTES);
        store.data_mut().last_words = Some(words);
    }
    let left = store.get_fuel()?.saturating_sub(cost);
    store.set_fuel(left)
}

/// The SHA-256 of a component's bytes, in hex.
pub fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
