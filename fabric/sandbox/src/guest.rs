//! One guest: a fresh store and instance for one function of one task, or for one actor.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio_util::sync::CancellationToken;
use wasmtime::component::{Instance, Resource, ResourceTableError};
use wasmtime::{Store, UpdateDeadline};
use weft_core::{Description, FunctionKind, FunctionRecord, LimitKind};

use crate::account::{MemoryAccount, Reservation};
use crate::component::{Component, Exports};
use crate::cpu::CpuMeter;
use crate::description::check_description;
use crate::engine::WASM_STACK_BYTES;
use crate::expressions::{Evaluating, Expressions};
use crate::fault::{Fault, Result, advice_on};
use crate::fields;
use crate::host::{Batch, HANDLES_MAX, Host};
use crate::limiter::Limiter;
use crate::log::{Flood, TaskLog};
use crate::outside::Futures;
use crate::wasi::Wasi;

/// Bytes that a guest may hand over in one call of the host.
const HOSTCALL_BYTES_MAX: usize = 128 << 20;
/// Starting, describing and binding may wait this long: guests have nothing good to wait for.
const START_WALL_MAX: Duration = Duration::from_secs(10);
/// Any other call on a fiber.
const CALL_WALL_MAX: Duration = Duration::from_secs(600);

/// What a guest runs with.
pub struct GuestSettings {
    /// `component@version/function`, for logs and errors.
    pub label: String,
    /// The task's memory; the guest gets a child of it.
    pub account: Arc<MemoryAccount>,
    /// CPU time of all calls together, and of earlier guests under the same limit.
    pub cpu_limit_ns: u64,
    /// What earlier guests used of it.
    pub cpu_before_ns: u64,
    /// Bytes that may be emitted.
    pub output_limit_bytes: u64,
    /// Where log lines go.
    pub log: Arc<TaskLog>,
    /// Stops the guest at the next tick.
    pub cancel: CancellationToken,
    /// Seeds `wasi:random`.
    pub seed: u64,
    /// Where the wall clock stands, in Unix milliseconds.
    pub started_ms: u64,
    /// Compiles the expressions that the guest evaluates. None if it may evaluate none.
    pub expressions: Option<Arc<dyn Expressions>>,
    /// Futures that the guest spawns. None if it may spawn none.
    pub futures: Option<Box<dyn Futures>>,
}

/// What a guest has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestMeters {
    /// CPU time inside calls, host functions included and expressions not.
    pub cpu_ns: u64,
    /// CPU time of expressions: compiling and evaluating them. Under the same limit as that of the calls.
    pub native_cpu_ns: u64,
    /// CPU time of both on the thread that called the guest. Some expressions are compiled on other threads.
    pub thread_cpu_ns: u64,
    /// Calls.
    pub calls: u64,
    /// The most memory that the guest held.
    pub memory_peak_bytes: u64,
    /// Memory, integrated over time.
    pub memory_byte_ns: u128,
    /// Rows emitted.
    pub rows_out: u64,
    /// Bytes emitted.
    pub bytes_out: u64,
}

/// A call on a fiber waited for longer than guests have anything to wait for.
#[derive(Debug, thiserror::Error)]
#[error("the call waited too long")]
struct WaitedTooLong(Duration);

/// Waits for a guest on a fiber, no longer than `most` and not after its job was cancelled.
async fn wait<T>(
    call: impl Future<Output = wasmtime::Result<T>>,
    cancel: &CancellationToken,
    most: Duration,
) -> wasmtime::Result<T> {
    tokio::select! {
        result = call => result,
        () = cancel.cancelled() => Err(wasmtime::Error::msg("cancelled")),
        () = tokio::time::sleep(most) => Err(WaitedTooLong(most).into()),
    }
}

/// Params as functions get them.
type Params = [(String, String)];

macro_rules! loaded {
    ($name:ident, $module:ident) => {
        /// The interfaces that were called so far: finding their functions takes as long as a small call.
        #[derive(Default)]
        struct $name {
            functions: Option<crate::bindings::$module::exports::weft::fabric::functions::Guest>,
            mapper: Option<crate::bindings::$module::exports::weft::fabric::mapper::Guest>,
            reducer: Option<crate::bindings::$module::exports::weft::fabric::reducer::Guest>,
            task: Option<crate::bindings::$module::exports::weft::fabric::task::Guest>,
            scalars: Option<crate::bindings::$module::exports::weft::fabric::scalars::Guest>,
            actor: Option<crate::bindings::$module::exports::weft::fabric::actor::Guest>,
        }
    };
}
loaded!(LoadedDirect, direct);
loaded!(LoadedFiber, fiber);

/// One store with one instance. Drop it when a call has failed: nothing may run in it after that.
pub struct Guest {
    component: Arc<Component>,
    store: Store<Host>,
    instance: Instance,
    direct: LoadedDirect,
    fiber: LoadedFiber,
    account: Arc<MemoryAccount>,
    calls: u64,
    /// False during a call, and ever after one that failed or was dropped on its way.
    callable: bool,
}

/// Calls one export in whichever way the component is called, between two readings of the thread's clock.
macro_rules! call {
    ($guest:ident, $interface:ident, $name:literal, $method:ident ( $($argument:expr),* )) => {
        call!(@within CALL_WALL_MAX, $guest, $interface, $name, $method($($argument),*))
    };
    (@within $wall:expr, $guest:ident, $interface:ident, $name:literal, $method:ident ( $($argument:expr),* )) => {{
        $guest.begin()?;
        let component = Arc::clone(&$guest.component);
        let result = match &component.exports {
            Exports::Direct(exports) => {
                let indices = call!(@indices exports, $interface, $name);
                match call!(@load $guest, direct, $interface, indices) {
                    Ok(interface) => interface.$method(&mut $guest.store, $($argument),*).map_err(|error| wasmtime::Error::from(error)),
                    Err(error) => Err(error),
                }
            }
            Exports::Fiber(exports) => {
                let indices = call!(@indices exports, $interface, $name);
                match call!(@load $guest, fiber, $interface, indices) {
                    Ok(interface) => {
                        let cancel = $guest.store.data().cancel.clone();
                        let call = interface.$method(&mut $guest.store, $($argument),*);
                        wait(call, &cancel, $wall).await
                    }
                    Err(error) => Err(error),
                }
            }
        };
        $guest.end(result)
    }};
    (@load $guest:ident, $loaded:ident, $interface:ident, $indices:ident) => {
        match &mut $guest.$loaded.$interface {
            Some(interface) => Ok(&*interface),
            none => $indices.load(&mut $guest.store, &$guest.instance).map(|loaded| &*none.insert(loaded)),
        }
    };
    (@indices $exports:ident, functions, $name:literal) => { &$exports.functions };
    (@indices $exports:ident, $interface:ident, $name:literal) => {
        $exports.$interface.as_ref().ok_or(Fault::NotExported($name))?
    };
}

/// A component's description out of either set of bindings, which have types of their own.
macro_rules! description {
    ($module:ident, $found:expr) => {{
        use crate::bindings::$module::exports::weft::fabric::functions::{Function, Kind};
        let one = |function: Function| FunctionRecord {
            name: function.name,
            kind: match function.kind {
                Kind::MapBatches => FunctionKind::MapBatches,
                Kind::ReduceGroups => FunctionKind::ReduceGroups,
                Kind::CombineGroups => FunctionKind::CombineGroups,
                Kind::Task => FunctionKind::Task,
            },
            summary: function.summary,
            deterministic: function.deterministic,
        };
        let functions = $found.functions.into_iter().map(one).collect();
        Description {
            name: $found.name,
            version: $found.version,
            functions,
        }
    }};
}

/// Asks an interface that components may lack to describe itself. `$records` makes records out of either set of
/// bindings.
macro_rules! describe {
    ($guest:ident, $interface:ident, $records:ident) => {{
        let component = Arc::clone(&$guest.component);
        match &component.exports {
            Exports::Direct(exports) => {
                let Some(exports) = &exports.$interface else {
                    return Ok(Vec::new());
                };
                $guest.begin()?;
                let loaded = exports.load(&mut $guest.store, &$guest.instance);
                let found = loaded.and_then(|loaded| loaded.call_describe(&mut $guest.store));
                Ok($records!($guest.end(found)?))
            }
            Exports::Fiber(exports) => {
                let Some(exports) = &exports.$interface else {
                    return Ok(Vec::new());
                };
                $guest.begin()?;
                let found = match exports.load(&mut $guest.store, &$guest.instance) {
                    Ok(loaded) => {
                        let cancel = $guest.store.data().cancel.clone();
                        let call = loaded.call_describe(&mut $guest.store);
                        wait(call, &cancel, START_WALL_MAX).await
                    }
                    Err(error) => Err(error),
                };
                Ok($records!($guest.end(found)?))
            }
        }
    }};
}

// After the macros that they call guests with.
mod actor;
mod scalars;

pub use actor::TurnSettings;
pub use scalars::{BoundScalar, ScalarColumn, at_once};

impl Guest {
    /// Makes a store and an instance. Errors: limits that the component's own start already breaks, and `Host`.
    pub async fn start(component: &Arc<Component>, settings: GuestSettings) -> Result<Self> {
        let account = settings.account.child();
        let mut table = wasmtime::component::ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let host = Host {
            table,
            limiter: Limiter::new(Arc::clone(&account)),
            account: Arc::clone(&account),
            wasi: Wasi::new(settings.seed, settings.started_ms),
            log: settings.log,
            function: settings.label,
            cancel: settings.cancel,
            cpu: CpuMeter::start(settings.cpu_limit_ns, settings.cpu_before_ns),
            output_limit_bytes: settings.output_limit_bytes,
            output_bytes: 0,
            output_before_bytes: 0,
            output_rows: 0,
            output_schema: None,
            emitted: Vec::new(),
            emitted_reserved: None,
            evaluating: Evaluating::new(settings.expressions),
            turn: None,
            futures: settings.futures,
            stopped: None,
        };
        let mut store = Store::new(&component.engine.wasmtime, host);
        store.limiter(|host| &mut host.limiter);
        // What is handed over is copied before it can be charged, so no more than the task may hold at all.
        let limit_bytes = usize::try_from(account.limit_bytes()).unwrap_or(usize::MAX);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX.min(limit_bytes));
        // More than batches may be: the host's limit is met first, and can be named. Lent batches count twice.
        store.set_max_component_handles(2 * HANDLES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            let host = context.data_mut();
            match host.check() {
                Ok(()) => Ok(UpdateDeadline::Continue(1)),
                Err(fault) => {
                    host.stopped.get_or_insert(fault);
                    Ok(UpdateDeadline::Interrupt)
                }
            }
        });
        let instance = match &component.exports {
            Exports::Direct(_) => component.pre.instantiate(&mut store),
            Exports::Fiber(_) => {
                let cancel = store.data().cancel.clone();
                let started = component.pre.instantiate_async(&mut store);
                wait(started, &cancel, START_WALL_MAX).await
            }
        };
        store.data_mut().cpu.end();
        let instance = instance.map_err(|error| fault(store.data_mut(), &error))?;
        Ok(Self {
            component: Arc::clone(component),
            store,
            instance,
            direct: LoadedDirect::default(),
            fiber: LoadedFiber::default(),
            account,
            calls: 0,
            callable: true,
        })
    }

    fn begin(&mut self) -> Result<()> {
        let host = self.store.data_mut();
        if host.cancel.is_cancelled() {
            return Err(Fault::Cancelled);
        }
        // Calls that are shorter than a tick may never be looked at while they run.
        if host.cpu.was_over() {
            return Err(host.cpu_fault());
        }
        if !std::mem::replace(&mut self.callable, false) {
            return Err(Fault::Host(
                "the guest was called after a call that failed".into(),
            ));
        }
        host.limiter.refused = None;
        host.cpu.begin();
        self.store.set_epoch_deadline(1);
        self.calls += 1;
        Ok(())
    }

    fn end<T>(&mut self, result: wasmtime::Result<T>) -> Result<T> {
        let host = self.store.data_mut();
        host.cpu.end();
        let result = result.map_err(|error| fault(host, &error));
        // After the fault, which quotes what the guest logged last.
        let lines = host.wasi.end_lines();
        let result = result?;
        lines.map_err(|Flood| Fault::flood())?;
        match host.stopped.take() {
            // A guest may swallow the error that a host function gave it; the limit stands all the same.
            Some(fault) => Err(fault),
            None => {
                self.callable = true;
                Ok(result)
            }
        }
    }

    /// Asks the component what it offers, and checks the answer.
    pub async fn describe(&mut self) -> Result<Description> {
        self.begin()?;
        let component = Arc::clone(&self.component);
        let result = match &component.exports {
            Exports::Direct(exports) => {
                let loaded = exports.functions.load(&mut self.store, &self.instance);
                let found = loaded.and_then(|functions| functions.call_describe(&mut self.store));
                found.map(|found| description!(direct, found))
            }
            Exports::Fiber(exports) => {
                match exports.functions.load(&mut self.store, &self.instance) {
                    Ok(functions) => {
                        let cancel = self.store.data().cancel.clone();
                        let call = functions.call_describe(&mut self.store);
                        let found = wait(call, &cancel, START_WALL_MAX).await;
                        found.map(|found| description!(fiber, found))
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let mut description = self.end(result)?;
        description.functions.extend(self.describe_scalars().await?);
        description.functions.extend(self.describe_actors().await?);
        check_description(&description).map_err(Fault::schema)?;
        Ok(description)
    }

    /// Asks `function` for the schema of its output, given that of its input.
    pub async fn bind(
        &mut self,
        function: &str,
        input: &SchemaRef,
        params: &Params,
    ) -> Result<SchemaRef> {
        let input = fields::to_guest(input).map_err(Fault::schema)?;
        let bound = call!(
            @within START_WALL_MAX,
            self,
            functions,
            "functions",
            call_bind(function, &input, params)
        )?;
        let flat = bound.map_err(|message| self.failed(message))?;
        fields::from_guest(&flat).map_err(|message| {
            Fault::schema(format!("`bind` answered with a wrong schema: {message}"))
        })
    }

    /// Opens `function` as a mapper whose output has `output` as its schema.
    pub async fn open_mapper(
        &mut self,
        function: &str,
        params: &Params,
        output: SchemaRef,
    ) -> Result<()> {
        self.store.data_mut().output_schema = Some(output);
        call!(self, mapper, "mapper", call_open(function, params))?
            .map_err(|message| self.failed(message))
    }

    /// Opens `function` as a reducer or combiner whose output has `output` as its schema.
    pub async fn open_reducer(
        &mut self,
        function: &str,
        params: &Params,
        output: SchemaRef,
    ) -> Result<()> {
        self.store.data_mut().output_schema = Some(output);
        call!(self, reducer, "reducer", call_open(function, params))?
            .map_err(|message| self.failed(message))
    }

    fn take_in(&mut self, batch: RecordBatch) -> Result<Resource<Batch>> {
        let host = self.store.data_mut();
        host.take_in(batch).map_err(|error| fault(host, &error))
    }

    /// Pushes a batch into an open mapper.
    pub async fn push_mapper(&mut self, batch: RecordBatch) -> Result<()> {
        let input = self.take_in(batch)?;
        call!(self, mapper, "mapper", call_push(input))?.map_err(|message| self.failed(message))
    }

    /// Ends an open mapper.
    pub async fn finish_mapper(&mut self) -> Result<()> {
        call!(self, mapper, "mapper", call_finish())?.map_err(|message| self.failed(message))
    }

    /// Pushes sorted rows into an open reducer: `ends` holds the row after the last one of each group.
    pub async fn push_reducer(
        &mut self,
        batch: RecordBatch,
        ends: &[u32],
        continues: bool,
    ) -> Result<()> {
        let input = self.take_in(batch)?;
        call!(self, reducer, "reducer", call_push(input, ends, continues))?
            .map_err(|message| self.failed(message))
    }

    /// Ends an open reducer.
    pub async fn finish_reducer(&mut self) -> Result<()> {
        call!(self, reducer, "reducer", call_finish())?.map_err(|message| self.failed(message))
    }

    /// Runs a task function.
    pub async fn run_task(
        &mut self,
        function: &str,
        params: &Params,
        index: u32,
        input: &[u8],
    ) -> Result<Vec<u8>> {
        let output = call!(self, task, "task", call_run(function, params, index, input))?
            .map_err(|message| self.failed(message))?;
        let host = self.store.data_mut();
        host.output_bytes += output.len() as u64;
        if host.output_bytes > host.output_limit_bytes {
            return Err(Fault::limit(
                LimitKind::Output,
                format!("{} bytes", host.output_limit_bytes),
            ));
        }
        Ok(output)
    }

    /// Takes what was emitted since the last time, with the memory that is reserved for it.
    pub fn take_output(&mut self) -> (Vec<RecordBatch>, Option<Reservation>) {
        let host = self.store.data_mut();
        (
            std::mem::take(&mut host.emitted),
            host.emitted_reserved.take(),
        )
    }

    /// The function answered with an error. Where memory was just refused it, that is why.
    fn failed(&mut self, message: String) -> Fault {
        let refused = self.store.data_mut().limiter.refused.take();
        refused.unwrap_or_else(|| Fault::failed(message))
    }

    /// What the guest has used so far.
    pub fn meters(&self) -> GuestMeters {
        let host = self.store.data();
        let (native_cpu_ns, elsewhere_cpu_ns) = host.evaluating.cpu_ns();
        let spent_ns = host.cpu.spent_ns();
        GuestMeters {
            cpu_ns: spent_ns.saturating_sub(native_cpu_ns),
            native_cpu_ns,
            thread_cpu_ns: spent_ns.saturating_sub(elsewhere_cpu_ns),
            calls: self.calls,
            memory_peak_bytes: self.account.peak_bytes(),
            memory_byte_ns: self.account.byte_ns(),
            rows_out: host.output_rows,
            bytes_out: host.output_bytes,
        }
    }
}

/// What the error of a call means. A limit that the host enforced takes precedence over the trap that it caused.
fn fault(host: &mut Host, error: &wasmtime::Error) -> Fault {
    if let Some(stopped) = host.stopped.take() {
        return stopped;
    }
    if host.cancel.is_cancelled() {
        return Fault::Cancelled;
    }
    if let Some(refused) = host.limiter.refused.take() {
        // Out of memory shows as a trap or a panic of the guest, right after growth was refused.
        return refused;
    }
    if let Some(WaitedTooLong(most)) = error.downcast_ref() {
        let value = format!("{} s for one call", most.as_secs());
        return Fault::Limit {
            kind: LimitKind::Wall,
            value,
            advice: "; a function has nothing to wait for that long",
        };
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Fault::limit(LimitKind::Handles, format!("{HANDLES_MAX} handles"));
    }
    if error.is::<Flood>() {
        return Fault::flood();
    }
    if let Some(wasmtime::Trap::StackOverflow) = error.downcast_ref() {
        return Fault::limit(LimitKind::Stack, format!("{} KiB", WASM_STACK_BYTES >> 10));
    }
    let words = host.log.last_error(&host.function);
    let words = words.map_or_else(String::new, |words| {
        format!(": {words}{}", advice_on(&words))
    });
    let message = format!("{error:#}");
    // By type: the text quotes names that the guest chose.
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Fault::Host(message);
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => Fault::trapped(format!("{trap}{words}{}", backtrace(error))),
        None => Fault::trapped(message.lines().take(12).collect::<Vec<_>>().join("; ")),
    }
}

/// Where it was. Nothing where the component is stripped and no frame has a name.
fn backtrace(error: &wasmtime::Error) -> String {
    let frames = |trace: &wasmtime::WasmBacktrace| {
        trace
            .frames()
            .iter()
            .take(6)
            .map(|frame| {
                let name = frame.func_name();
                name.map(|name| name.split("::h").next().unwrap_or(name).to_owned())
            })
            .collect::<Vec<_>>()
    };
    error
        .downcast_ref::<wasmtime::WasmBacktrace>()
        .map(frames)
        .filter(|frames| frames.iter().any(Option::is_some))
        .map_or_else(String::new, |frames| {
            let frames: Vec<&str> = frames
                .iter()
                .map(|name| name.as_deref().unwrap_or("?"))
                .collect();
            format!("; in {}", frames.join(" < "))
        })
}
