//! A live instance: what it may use, the calls into it, and the ways in which they fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, Func, Instance as Component, Lift, Lower, TypedFunc,
};
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, Trap};

use super::artefact::{Artefact, Functions};
use super::engine::{CORE_INSTANCES, MEMORIES, TABLE_ELEMENTS, TABLES, TICK};
use super::fault::Fault;
use super::log::LogGate;
use super::lookup::Lookups;
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
    /// The most bytes that a call may return, and a lookup.
    pub(super) output_bytes: usize,
    /// The tables that the call may look into; none where no rows are processed.
    pub(super) lookups: Option<Arc<Lookups>>,
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
    functions: Functions<Func>,
}

/// What one call may take, as the engine counts.
#[derive(Clone, Copy)]
pub(super) struct Allowance {
    pub(super) time: Duration,
    pub(super) fuel: u64,
    /// When it must have returned, where the clock has a say.
    pub(super) due: Option<Instant>,
    /// True where the plugin's fault is told in words.
    pub(super) explain: bool,
}

impl Allowance {
    /// Suspects a call that returned too late. The ticker may starve, and then only this sees it.
    pub(super) fn in_time(&self) -> Result<(), Fault> {
        if self.due.is_some_and(|due| Instant::now() > due) { Err(Fault::late()) } else { Ok(()) }
    }
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
        let output_bytes = usize::try_from(limits.output_bytes).unwrap_or(usize::MAX);
        let state = State {
            log,
            memory_limit,
            memory_used: 0,
            memory_denied: false,
            output_bytes,
            lookups: None,
            last_words: None,
        };
        let mut store = Store::new(&artefact.engine, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(output_bytes);
        arm(&mut store, artefact.meter, START_TIME, START_FUEL);
        let instance = artefact.pre.instantiate(&mut store).map_err(|error| not_alive(name, &error, store.data()))?;
        let mut function = |index: &ComponentExportIndex| func(&instance, &mut store, index, name);
        let describe = function(&artefact.describe)?;
        let start = function(&artefact.start)?;
        let functions = artefact.functions.try_map(function)?;
        Ok(Self { store, meter: artefact.meter, describe, start, functions })
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

    /// What an aggregate says of itself, or why it does not take this configuration.
    pub(super) fn describe_aggregate(
        &mut self,
        config: &str,
    ) -> Result<Result<abi::AggregateDescriptor, String>, Fault> {
        arm(&mut self.store, self.meter, START_TIME, START_FUEL);
        let (described,) =
            self.call::<(&str,), (Result<abi::AggregateDescriptor, String>,)>(self.describe, (config,), true)?;
        Ok(described)
    }

    /// Readies the instance for its other functions.
    pub(super) fn start(&mut self, config: &str) -> Result<Result<(), String>, Fault> {
        arm(&mut self.store, self.meter, START_TIME, START_FUEL);
        let (started,) = self.call::<(&str,), (Result<(), String>,)>(self.start, (config,), true)?;
        Ok(started)
    }

    /// A call of `process`, which may look into the tables.
    pub(super) fn process(
        &mut self,
        batch: abi::Batch<'_>,
        lookups: Option<Arc<Lookups>>,
        allowed: Allowance,
    ) -> Result<abi::Processed, Fault> {
        let Functions::Transform { process } = self.functions else { return Err(other_world()) };
        self.store.data_mut().lookups = lookups;
        let processed = self.metered::<(abi::Batch<'_>,), _>(process, (batch,), allowed);
        self.store.data_mut().lookups = None;
        processed
    }

    /// A call of `fold`.
    pub(super) fn fold(
        &mut self,
        batch: abi::Batch<'_>,
        groups: &[u32],
        states: abi::OptionalBytesIn<'_>,
        allowed: Allowance,
    ) -> Result<abi::Folded, Fault> {
        let Functions::Aggregate { fold, .. } = self.functions else { return Err(other_world()) };
        self.metered::<(abi::Batch<'_>, &[u32], abi::OptionalBytesIn<'_>), _>(fold, (batch, groups, states), allowed)
    }

    /// A call of `merge`.
    pub(super) fn merge(
        &mut self,
        left: abi::PackedIn<'_>,
        right: abi::PackedIn<'_>,
        allowed: Allowance,
    ) -> Result<abi::Packed, Fault> {
        let Functions::Aggregate { merge, .. } = self.functions else { return Err(other_world()) };
        self.metered::<(abi::PackedIn<'_>, abi::PackedIn<'_>), _>(merge, (left, right), allowed)
    }

    /// A call of `finish`.
    pub(super) fn finish(
        &mut self,
        windows: abi::WindowsIn<'_>,
        states: abi::PackedIn<'_>,
        allowed: Allowance,
    ) -> Result<abi::Finished, Fault> {
        let Functions::Aggregate { finish, .. } = self.functions else { return Err(other_world()) };
        self.metered::<(abi::WindowsIn<'_>, abi::PackedIn<'_>), _>(finish, (windows, states), allowed)
    }

    /// A call of `migrate`.
    pub(super) fn migrate(
        &mut self,
        from_version: u32,
        states: abi::PackedIn<'_>,
        allowed: Allowance,
    ) -> Result<Result<abi::Packed, String>, Fault> {
        let Functions::Aggregate { migrate, .. } = self.functions else { return Err(other_world()) };
        self.metered::<(u32, abi::PackedIn<'_>), _>(migrate, (from_version, states), allowed)
    }

    fn metered<Params, Return>(&mut self, function: Func, params: Params, allowed: Allowance) -> Result<Return, Fault>
    where
        Params: ComponentNamedList + Lower,
        (Return,): ComponentNamedList + Lift,
    {
        arm(&mut self.store, self.meter, allowed.time, allowed.fuel);
        let (returned,) = self.call::<Params, (Return,)>(function, params, allowed.explain)?;
        Ok(returned)
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

/// The runners ask for the world first, so that nobody sees this.
fn other_world() -> Fault {
    Fault::bad_output("it is of another world".into())
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
    index: &ComponentExportIndex,
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
