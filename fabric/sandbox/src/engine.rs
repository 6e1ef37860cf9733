//! The one engine of a process, and the thread that makes its epochs pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::fault::{Fault, Result};
use crate::limiter::TABLE_ELEMENTS_MAX;

/// How often guests are looked at: a limit is enforced at most two ticks late.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Instances that may be alive at a time in one process.
const INSTANCES_MAX: u32 = 256;
const MEMORY_BYTES_MAX: usize = 4 << 30;
const WASM_STACK_BYTES: usize = 512 << 10;

/// What a process does with the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Compiles and runs nothing.
    Compiler,
    /// Runs and compiles nothing.
    Executor,
    /// Both, for tests and benches.
    Both,
}

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pooling: bool,
    _ticker: Option<Arc<Ticker>>,
}

/// The one constructor of the configuration: artefacts load only where every setting that shapes code is the same.
fn config(role: Role, pooling: bool) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .memory_reservation(MEMORY_BYTES_MAX as u64)
        .memory_guard_size(32 << 20)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(WASM_STACK_BYTES + (512 << 10))
        .async_stack_zeroing(true);
    if role == Role::Executor {
        config.enable_compiler(false);
    }
    if pooling {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(role)));
    }
    config
}

/// The compiler has a pool too, of one: what would not fit in the executors' is refused when it is uploaded.
fn pool(role: Role) -> PoolingAllocationConfig {
    let instances = if role == Role::Compiler {
        1
    } else {
        INSTANCES_MAX
    };
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(4 * instances)
        .total_memories(instances)
        .total_tables(4 * instances)
        .total_stacks(instances)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .max_core_instances_per_component(64)
        .max_memories_per_module(16)
        .max_memories_per_component(16)
        .max_tables_per_module(64)
        .max_tables_per_component(64)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10);
    pool
}

impl Engine {
    /// Makes the engine. Where the address space is too short for pooling, instances are allocated on demand.
    pub fn new(role: Role) -> Result<Self> {
        let host = |error: wasmtime::Error| Fault::Host(format!("{error:#}"));
        let pooled = wasmtime::Engine::new(&config(role, true)).ok();
        let pooling = pooled.is_some();
        let wasmtime = match pooled {
            Some(engine) => engine,
            None => wasmtime::Engine::new(&config(role, false)).map_err(host)?,
        };
        let ticker = (role != Role::Compiler).then(|| Arc::new(Ticker::start(wasmtime.clone())));
        Ok(Self {
            wasmtime,
            pooling,
            _ticker: ticker,
        })
    }

    /// True where instances come from a pool.
    pub fn is_pooling(&self) -> bool {
        self.pooling
    }
}

struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let tick = move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(TICK);
                engine.increment_epoch();
            }
        };
        let thread = std::thread::Builder::new()
            .name("weft-epochs".into())
            .spawn(tick)
            .ok();
        Self { stop, thread }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread holds nothing that could panic.
            let _ = thread.join();
        }
    }
}
