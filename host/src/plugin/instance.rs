//! A live instance: what it may use, the calls into it, and the ways in which they fail.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{ComponentNamedList, Func, Instance as Component, Lift, Lower, TypedFunc};
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, Trap};

use super::artefact::Artefact;
use super::engine::{CORE_INSTANCES, MEMORIES, TABLE_ELEMENTS, TABLES, TICK};
use super::fault::Fault;
use super::log::LogGate;
use super::{Limits, PluginError, abi};

/// What `describe` and `start` may take, where an interpreter sets itself up.
const START_TIME: Duration = Duration::from_secs(5);
const START_FUEL: u64 = 20_000_000_000;

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
    /// The last error that the plugin logged in this call, kept where nobody listens.
    pub(super) last_words: Option<String>,
}

impl State {
    fn fault(&self, error: &wasmtime::Error, explain: bool) -> Fault {
        let mut fault = Fault::new(error, self.memory_denied);
        if explain {
            fault.explain(error, self.last_words.as_deref());
        }
        fault
    }
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
        let state = State { log, memory_limit, memory_used: 0, memory_denied: false, last_words: None };
        let mut store = Store::new(&artefact.engine, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(usize::try_from(limits.output_bytes).unwrap_or(usize::MAX));
        arm(&mut store, artefact.meter, START_TIME, START_FUEL);
        let instance = artefact.pre.instantiate(&mut store).map_err(|error| not_alive(name, &error, store.data()))?;
        let mut function = |index| func(&instance, &mut store, index, name);
        let describe = function(&artefact.describe)?;
        let start = function(&artefact.start)?;
        let process = function(&artefact.process)?;
        Ok(Self { store, meter: artefact.meter, describe, start, process })
    }

    /// Bytes of linear memory that it has; it never gives any back.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.store.data().memory_used as u64
    }

    /// What the plugin says of itself, or why it does not take this configuration.
    pub(super) fn describe(&mut self, config: &str) -> Result<Result<abi::Descriptor, String>, Fault> {
        arm(&mut self.store, self.meter, START_TIME, START_FUEL);
        let (described,) = self.call::<(&str,), (Result<abi::Descriptor, String>,)>(self.describe, (config,), true)?;
        Ok(described)
    }

    /// Readies the instance for `process`.
    pub(super) fn start(&mut self, config: &str) -> Result<Result<(), String>, Fault> {
        arm(&mut self.store, self.meter, START_TIME, START_FUEL);
        let (started,) = self.call::<(&str,), (Result<(), String>,)>(self.start, (config,), true)?;
        Ok(started)
    }

    /// One call, which may take `time` or `fuel`, as the engine counts.
    pub(super) fn process(
        &mut self,
        batch: abi::Batch<'_>,
        time: Duration,
        fuel: u64,
    ) -> Result<abi::Processed, Fault> {
        arm(&mut self.store, self.meter, time, fuel);
        // Only the judge's word on a single row is final, and read.
        let explain = self.meter == Meter::Fuel && batch.rows == 1;
        let (processed,) = self.call::<(abi::Batch<'_>,), (abi::Processed,)>(self.process, (batch,), explain)?;
        Ok(processed)
    }

    #[allow(unsafe_code)]
    fn call<Params, Return>(&mut self, function: Func, params: Params, explain: bool) -> Result<Return, Fault>
    where
        Params: ComponentNamedList + Lower,
        Return: ComponentNamedList + Lift,
    {
        let state = self.store.data_mut();
        (state.memory_denied, state.last_words) = (false, None);
        // SAFETY: `Artefact::new` compared the export's type with these very parameters and results, but for their
        // lifetimes, which have no part in a component's types.
        let function = unsafe { TypedFunc::<Params, Return>::new_unchecked(function) };
        let called = function.call(&mut self.store, params);
        called.map_err(|error| self.store.data().fault(&error, explain))
    }
}

/// Gives the next call its time or its fuel.
fn arm(store: &mut Store<State>, meter: Meter, time: Duration, fuel: u64) {
    match meter {
        // The epoch ends some time within the first tick.
        Meter::Clock => store.set_epoch_deadline(time.as_micros().div_ceil(TICK.as_micros()) as u64 + 1),
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
        return state.fault(error, true).at_start(name);
    }
    let reason = if error.is::<PoolConcurrencyLimitError>() {
        format!("all are in use ({error:#})")
    } else {
        format!("{error:#}")
    };
    PluginError::NoInstance { name: name.to_owned(), reason }
}
