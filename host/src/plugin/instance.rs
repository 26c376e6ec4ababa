//! A live instance: what it may use, the calls into it, and the ways in which they fail.

use std::sync::Arc;

use wasmtime::component::{ComponentNamedList, Func, Instance as Component, Lift, Lower, TypedFunc};
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, Trap, WasmBacktrace};

use super::artefact::Artefact;
use super::engine::{CORE_INSTANCES, MEMORIES, TABLE_ELEMENTS, TABLES, TICK};
use super::log::LogGate;
use super::{FaultKind, Limits, PluginError, abi};

/// What `describe` and `start` may take, where an interpreter sets itself up.
const START_MS: u64 = 5_000;
const START_FUEL: u64 = 20_000_000_000;
/// Functions of a trap's stack that are shown, and bytes of a fault's detail.
const FRAMES: usize = 6;
const DETAIL_BYTES: usize = 1_000;

/// How an engine stops a plugin that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meter {
    /// By epochs: cheap, and dependent on the clock.
    Clock,
    /// By fuel: the same on every machine.
    Fuel,
}

/// What the host keeps beside an instance.
pub(super) struct State {
    /// `None` where nobody listens.
    pub(super) log: Option<Arc<LogGate>>,
    memory_limit: usize,
    memory_used: usize,
    memory_denied: bool,
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        let used = (self.memory_used - current.min(self.memory_used)).saturating_add(desired);
        if used > self.memory_limit {
            self.memory_denied = true;
            return Ok(false);
        }
        self.memory_used = used;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_denied = true;
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }
}

/// How a call failed. The instance it was made to is not used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn bad_output(detail: String) -> Self {
        Self { kind: FaultKind::BadOutput, detail }
    }

    /// The same, of a plugin that did not even start.
    pub(super) fn at_start(self, name: &str) -> PluginError {
        PluginError::Fault { name: name.to_owned(), kind: self.kind, detail: self.detail }
    }

    fn new(error: &wasmtime::Error, memory_denied: bool) -> Self {
        let kind = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt | Trap::OutOfFuel) => FaultKind::Deadline,
            Some(Trap::StackOverflow) => FaultKind::Stack,
            Some(_) if memory_denied => FaultKind::Memory,
            Some(_) => FaultKind::Trap,
            None => FaultKind::BadOutput,
        };
        let mut detail = error.root_cause().to_string();
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            for (i, frame) in backtrace.frames().iter().take(FRAMES).enumerate() {
                detail.push_str(if i == 0 { "; in " } else { " < " });
                match frame.func_name() {
                    Some(name) => detail.push_str(name),
                    None => detail.push_str(&format!("function {}", frame.func_index())),
                }
            }
        }
        cut(&mut detail, DETAIL_BYTES);
        Self { kind, detail }
    }
}

/// Cuts `text` to at most `bytes`, between two characters.
pub(super) fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

/// A component's instance. It is dead after a fault.
pub(super) struct Instance {
    store: Store<State>,
    meter: Meter,
    describe: Func,
    start: Func,
    process: Func,
}

impl Instance {
    /// A fresh instance; nothing has been called but what the component itself calls when it comes to life.
    pub(super) fn new(
        name: &str,
        artefact: &Artefact,
        limits: &Limits,
        log: Option<Arc<LogGate>>,
    ) -> Result<Self, PluginError> {
        let memory_limit = usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX);
        let state = State { log, memory_limit, memory_used: 0, memory_denied: false };
        let mut store = Store::new(&artefact.engine, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(usize::try_from(limits.output_bytes).unwrap_or(usize::MAX));
        arm(&mut store, artefact.meter, START_MS, START_FUEL);
        let instance = artefact.pre.instantiate(&mut store).map_err(|error| not_alive(name, &error, store.data()))?;
        let mut function = |index| func(&instance, &mut store, index, name);
        let describe = function(&artefact.describe)?;
        let start = function(&artefact.start)?;
        let process = function(&artefact.process)?;
        Ok(Self { store, meter: artefact.meter, describe, start, process })
    }

    /// What the plugin says of itself, or why it does not take this configuration.
    pub(super) fn describe(&mut self, config: &str) -> Result<Result<abi::Descriptor, String>, Fault> {
        arm(&mut self.store, self.meter, START_MS, START_FUEL);
        let (described,) = self.call::<(&str,), (Result<abi::Descriptor, String>,)>(self.describe, (config,))?;
        Ok(described)
    }

    /// Readies the instance for `process`.
    pub(super) fn start(&mut self, config: &str) -> Result<Result<(), String>, Fault> {
        arm(&mut self.store, self.meter, START_MS, START_FUEL);
        let (started,) = self.call::<(&str,), (Result<(), String>,)>(self.start, (config,))?;
        Ok(started)
    }

    /// One call, which may take `deadline_ms` or `fuel`, as the engine counts.
    pub(super) fn process(
        &mut self,
        batch: abi::Batch<'_>,
        deadline_ms: u64,
        fuel: u64,
    ) -> Result<abi::Processed, Fault> {
        arm(&mut self.store, self.meter, deadline_ms, fuel);
        let (processed,) = self.call::<(abi::Batch<'_>,), (abi::Processed,)>(self.process, (batch,))?;
        Ok(processed)
    }

    #[allow(unsafe_code)]
    fn call<Params, Return>(&mut self, function: Func, params: Params) -> Result<Return, Fault>
    where
        Params: ComponentNamedList + Lower,
        Return: ComponentNamedList + Lift,
    {
        self.store.data_mut().memory_denied = false;
        // SAFETY: `Artefact::new` compared the export's type with these very parameters and results, but for their
        // lifetimes, which have no part in a component's types.
        let function = unsafe { TypedFunc::<Params, Return>::new_unchecked(function) };
        let called = function.call(&mut self.store, params);
        called.map_err(|error| Fault::new(&error, self.store.data().memory_denied))
    }
}

/// Gives the next call its time or its fuel.
fn arm(store: &mut Store<State>, meter: Meter, deadline_ms: u64, fuel: u64) {
    match meter {
        Meter::Clock => store.set_epoch_deadline(deadline_ms.div_ceil(TICK.as_millis() as u64).saturating_add(1)),
        Meter::Fuel => {
            let set = store.set_fuel(fuel);
            debug_assert!(set.is_ok(), "the judge's engine counts fuel");
        }
    }
}

fn func(
    instance: &Component,
    store: &mut Store<State>,
    index: &wasmtime::component::ComponentExportIndex,
    name: &str,
) -> Result<Func, PluginError> {
    instance.get_func(store, index).ok_or_else(|| PluginError::Export {
        name: name.to_owned(),
        reason: "a function that it exports is not there".into(),
    })
}

/// Why there is no instance: the pool, the limits, or the plugin itself.
fn not_alive(name: &str, error: &wasmtime::Error, state: &State) -> PluginError {
    if error.is::<Trap>() {
        return Fault::new(error, state.memory_denied).at_start(name);
    }
    let reason = if error.is::<PoolConcurrencyLimitError>() {
        format!("all are in use ({error:#})")
    } else {
        format!("{error:#}")
    };
    PluginError::NoInstance { name: name.to_owned(), reason }
}
