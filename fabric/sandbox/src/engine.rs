//! The one engine of a process, and the thread that makes its epochs pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::fault::{Fault, Result};
use crate::limiter::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// How often guests are looked at: a limit is enforced at most two ticks late.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Instances that may be alive at a time in one process.
const INSTANCES_MAX: u32 = 512;
const MEMORY_BYTES_MAX: usize = 4 << 30;
pub(crate) const WASM_STACK_BYTES: usize = 512 << 10;

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
        .async_stack_zeroing(true)
        .wasm_memory64(false);
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
    // As much for each as one may have: no component can take what another one needs.
    let each = |most: usize| instances * u32::try_from(most).expect("a small number");
    let most = |most: usize| u32::try_from(most).expect("a small number");
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(each(CORE_INSTANCES_MAX))
        .total_memories(each(MEMORIES_MAX))
        .total_tables(each(TABLES_MAX))
        .total_stacks(instances)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .max_core_instances_per_component(most(CORE_INSTANCES_MAX))
        .max_memories_per_module(most(MEMORIES_MAX))
        .max_memories_per_component(most(MEMORIES_MAX))
        .max_tables_per_module(most(TABLES_MAX))
        .max_tables_per_component(most(TABLES_MAX))
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
        // Without the ticker no limit of time would hold.
        let ticker = match role {
            Role::Compiler => None,
            Role::Executor | Role::Both => {
                let started = Ticker::start(wasmtime.clone());
                Some(Arc::new(started.map_err(|error| {
                    Fault::Host(format!("the thread that makes epochs pass: {error}"))
                })?))
            }
        };
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
    fn start(engine: wasmtime::Engine) -> std::io::Result<Self> {
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
            .spawn(tick)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
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
