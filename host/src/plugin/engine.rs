//! The two engines, their settings, and the ticker of epochs.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig, WasmBacktraceDetails,
};

use super::PluginError;
use super::artefact::Plugin;
use super::cache::Cache;

/// Length of an epoch.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// Bytes of native stack that a plugin's calls may take.
const WASM_STACK: usize = 512 << 10;
/// Functions of a trap's stack that are looked up.
const BACKTRACE_FRAMES: usize = 20;
/// Entries of a table; large enough for an interpreter.
pub(super) const TABLE_ELEMENTS: usize = 100_000;
/// What one component may be made of. Only its memories and tables take room in the pool.
pub(super) const CORE_INSTANCES: u32 = 64;
pub(super) const MEMORIES: u32 = 2;
pub(super) const TABLES: u32 = 8;
/// Bytes of a memory, and of a table, that the pool keeps for the next instance.
const KEEP_MEMORY: usize = 2 << 20;
const KEEP_TABLE: usize = 256 << 10;

/// How large a [`Runtime`] is.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Where compiled artefacts are kept, made with mode 0700 if it does not exist; `None` compiles at each start.
    pub cache_dir: Option<PathBuf>,
    /// Instances that may live at once: workers × stages × (active, old and candidate).
    pub instances: u32,
    /// Bytes of one memory, at most; a stage's own limit may be lower, never higher.
    pub memory_bytes: u64,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { cache_dir: None, instances: 64, memory_bytes: 64 << 20 }
    }
}

/// Where a user's compiled plugins are kept: `$XDG_CACHE_HOME/millstream`, else `~/.cache/millstream`; `None` where the
/// environment names neither.
pub fn user_cache_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("millstream"))
}

/// The engines that plugins are compiled and run by. Cheap to share; its thread ends with it.
pub struct Runtime {
    pub(super) shared: Arc<Shared>,
}

/// What plugins keep alive.
pub(super) struct Shared {
    pub(super) fast: Engine,
    pub(super) judge: Engine,
    pub(super) cache: Cache,
    pub(super) memory_bytes: u64,
    _ticker: Ticker,
}

impl Runtime {
    /// Sets up both engines and starts the ticker; fails where the host can't reserve the address space.
    pub fn new(config: RuntimeConfig) -> Result<Self, PluginError> {
        let engine_error = |error: wasmtime::Error| PluginError::Engine(format!("{error:#}"));
        let fast = Engine::new(&fast_config(&config)).map_err(engine_error)?;
        let judge = Engine::new(&judge_config()).map_err(engine_error)?;
        let ticker = Ticker::start(fast.clone()).map_err(|error| PluginError::Engine(error.to_string()))?;
        let cache = Cache::open(config.cache_dir.as_deref());
        let memory_bytes = config.memory_bytes;
        Ok(Self { shared: Arc::new(Shared { fast, judge, cache, memory_bytes, _ticker: ticker }) })
    }

    /// Makes a plugin of a component, or of a core module that carries its component type. `name` is for messages.
    /// The artefact that judges faults is compiled in the background.
    pub fn load(&self, bytes: &[u8], name: &str) -> Result<Plugin, PluginError> {
        Plugin::load(&self.shared, bytes, name)
    }

    /// Why the cache directory is not used, if one was given and it can't be trusted.
    pub fn cache_refusal(&self) -> Option<&str> {
        self.shared.cache.refusal()
    }
}

/// What both engines agree on: everything that a result may depend on. Threads are not even compiled in.
fn common_config() -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .wasm_component_model(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(WASM_STACK)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .memory_init_cow(true);
    config
}

fn fast_config(runtime: &RuntimeConfig) -> Config {
    let instances = runtime.instances.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MEMORIES))
        .total_tables(instances.saturating_mul(TABLES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(usize::try_from(runtime.memory_bytes).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(KEEP_MEMORY)
        .table_keep_resident(KEEP_TABLE)
        .pagemap_scan(Enabled::Auto);
    let mut config = common_config();
    config.epoch_interruption(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// The judge's engine. It allocates on demand, so that suspects never compete with live stages for the pool. Fuel stands
/// for work: operators that become no instruction cost nothing, those that the host works for cost more, and those that
/// move memory cost by the byte.
fn judge_config() -> Config {
    let mut cost = OperatorCost::new();
    (cost.LocalGet, cost.LocalSet, cost.LocalTee) = (0, 0, 0);
    (cost.I32Const, cost.I64Const, cost.F32Const, cost.F64Const) = (0, 0, 0, 0);
    cost.MemoryGrow = 255;
    cost.TableGrow = 255;
    cost.variable.memory_grow_per_page = 255;
    let mut config = common_config();
    config.consume_fuel(true).operator_cost(cost);
    config
}

/// The thread that moves the fast engine's epoch.
struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new().name("plugin-epochs".into()).spawn(move || {
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A ticker that panicked has nothing left to stop.
            let _ = thread.join();
        }
    }
}
