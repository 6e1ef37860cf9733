//! The least that wasmtime needs to run the same component: a store with limits, an instance, a call.

use wasmtime::component::{Component, HasSelf, Linker, Resource};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimits,
    StoreLimitsBuilder,
};

#[allow(clippy::all, reason = "generated code")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "component",
        with: { "weft:fabric/data.batch": super::Batch },
        imports: { default: trappable },
    });
}
use bindings::ComponentPre;
use bindings::weft::fabric::{actors, data, log, meter, output, state, tasks};

#[allow(
    unreachable_pub,
    reason = "the generated bindings re-export it inside their private module"
)]
pub struct Batch;

pub(crate) struct Host {
    limits: StoreLimits,
}

fn none<T>() -> wasmtime::Result<T> {
    Err(wasmtime::Error::msg("the probe has no batches"))
}

impl data::Host for Host {}

impl data::HostBatch for Host {
    fn create(
        &mut self,
        _: Vec<data::Field>,
        _: Vec<data::Column>,
    ) -> wasmtime::Result<Result<Resource<Batch>, String>> {
        none()
    }
    fn rows(&mut self, _: Resource<Batch>) -> wasmtime::Result<u32> {
        none()
    }
    fn fields(&mut self, _: Resource<Batch>) -> wasmtime::Result<Vec<data::Field>> {
        none()
    }
    fn column(
        &mut self,
        _: Resource<Batch>,
        _: u32,
    ) -> wasmtime::Result<Result<data::Column, String>> {
        none()
    }
    fn project(
        &mut self,
        _: Resource<Batch>,
        _: Vec<u32>,
    ) -> wasmtime::Result<Result<Resource<Batch>, String>> {
        none()
    }
    fn with_column(
        &mut self,
        _: Resource<Batch>,
        _: Vec<data::Field>,
        _: data::Column,
    ) -> wasmtime::Result<Result<Resource<Batch>, String>> {
        none()
    }
    fn filter(
        &mut self,
        _: Resource<Batch>,
        _: Vec<u8>,
    ) -> wasmtime::Result<Result<Resource<Batch>, String>> {
        none()
    }
    fn take(
        &mut self,
        _: Resource<Batch>,
        _: Vec<u32>,
    ) -> wasmtime::Result<Result<Resource<Batch>, String>> {
        none()
    }
    fn eval(
        &mut self,
        _: Resource<Batch>,
        _: Vec<String>,
    ) -> wasmtime::Result<Result<Resource<Batch>, String>> {
        none()
    }
    fn drop(&mut self, _: Resource<Batch>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl output::Host for Host {
    fn emit(&mut self, _: Resource<Batch>) -> wasmtime::Result<Result<(), String>> {
        none()
    }
}

impl log::Host for Host {
    fn write(&mut self, _: log::Level, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl meter::Host for Host {
    fn spent(&mut self) -> wasmtime::Result<meter::Usage> {
        none()
    }
    fn remaining(&mut self) -> wasmtime::Result<meter::Usage> {
        none()
    }
}

impl state::Host for Host {
    fn get(&mut self, _: Vec<u8>) -> wasmtime::Result<Result<Option<Vec<u8>>, String>> {
        none()
    }
    fn put(&mut self, _: Vec<u8>, _: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        none()
    }
    fn delete(&mut self, _: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        none()
    }
    fn scan(
        &mut self,
        _: Vec<u8>,
        _: Option<Vec<u8>>,
        _: u32,
    ) -> wasmtime::Result<Result<Vec<(Vec<u8>, Vec<u8>)>, String>> {
        none()
    }
    fn answer_early(&mut self) -> wasmtime::Result<Result<(), String>> {
        none()
    }
}

impl actors::Host for Host {
    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        none()
    }
    fn set_alarm(&mut self, _: u64) -> wasmtime::Result<Result<(), String>> {
        none()
    }
    fn clear_alarm(&mut self) -> wasmtime::Result<Result<(), String>> {
        none()
    }
    fn tell(
        &mut self,
        _: String,
        _: String,
        _: String,
        _: Vec<u8>,
    ) -> wasmtime::Result<Result<(), String>> {
        none()
    }
    fn invoke(
        &mut self,
        _: String,
        _: String,
        _: String,
        _: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        none()
    }
}

impl tasks::Host for Host {
    fn spawn(&mut self, _: String, _: Vec<u8>) -> wasmtime::Result<Result<u64, String>> {
        none()
    }
    fn join(&mut self, _: u64) -> wasmtime::Result<Result<Vec<u8>, String>> {
        none()
    }
    fn select(&mut self, _: Vec<u64>) -> wasmtime::Result<Result<u32, String>> {
        none()
    }
    fn cancel(&mut self, _: u64) -> wasmtime::Result<()> {
        none()
    }
}

pub(crate) struct Probe {
    engine: Engine,
    pre: ComponentPre<Host>,
}

/// A pool of the sandbox's size, epochs, no fibers.
fn engine() -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(256)
        .total_core_instances(1024)
        .total_memories(256)
        .total_tables(1024)
        .table_elements(100_000)
        .max_memory_size(4 << 30)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

impl Probe {
    pub(crate) fn new(bytes: &[u8]) -> wasmtime::Result<Probe> {
        let engine = engine()?;
        let mut linker = Linker::new(&engine);
        bindings::Component::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
        let component = Component::new(&engine, bytes)?;
        component.initialize_copy_on_write_image()?;
        let pre = ComponentPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Probe { engine, pre })
    }

    /// Makes a store and an instance, and calls a task. The store is the caller's, so that it can live on.
    pub(crate) fn run(&self, function: &str) -> wasmtime::Result<Store<Host>> {
        let limits = StoreLimitsBuilder::new().memory_size(1 << 30).build();
        let mut store = Store::new(&self.engine, Host { limits });
        store.limiter(|host| &mut host.limits);
        store.set_epoch_deadline(1);
        let component = self.pre.instantiate(&mut store)?;
        let task = component.weft_fabric_task();
        let answer = task.call_run(&mut store, function, &[], 0, b"")?;
        answer.map_err(wasmtime::Error::msg)?;
        Ok(store)
    }
}
