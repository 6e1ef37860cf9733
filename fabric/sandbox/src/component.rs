//! A loaded artefact: mapped from its file, linked once, ready to be instantiated for any number of tasks.

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::{Component as Wasm, HasSelf, InstancePre, Linker};

use crate::bindings::{direct, fiber};
use crate::engine::Engine;
use crate::fault::{Fault, Result};
use crate::host::Host;

/// The interfaces that a component exports, resolved once.
pub(crate) struct DirectExports {
    pub(crate) functions: direct::exports::weft::fabric::functions::GuestIndices,
    pub(crate) mapper: Option<direct::exports::weft::fabric::mapper::GuestIndices>,
    pub(crate) reducer: Option<direct::exports::weft::fabric::reducer::GuestIndices>,
    pub(crate) task: Option<direct::exports::weft::fabric::task::GuestIndices>,
    pub(crate) scalars: Option<direct::exports::weft::fabric::scalars::GuestIndices>,
    pub(crate) actor: Option<direct::exports::weft::fabric::actor::GuestIndices>,
}

pub(crate) struct FiberExports {
    pub(crate) functions: fiber::exports::weft::fabric::functions::GuestIndices,
    pub(crate) mapper: Option<fiber::exports::weft::fabric::mapper::GuestIndices>,
    pub(crate) reducer: Option<fiber::exports::weft::fabric::reducer::GuestIndices>,
    pub(crate) task: Option<fiber::exports::weft::fabric::task::GuestIndices>,
    pub(crate) scalars: Option<fiber::exports::weft::fabric::scalars::GuestIndices>,
    pub(crate) actor: Option<fiber::exports::weft::fabric::actor::GuestIndices>,
}

pub(crate) enum Exports {
    /// Nothing that it imports can wait: calls are synchronous.
    Direct(DirectExports),
    /// Calls run on a fiber.
    Fiber(FiberExports),
}

/// A component that is loaded and linked.
pub struct Component {
    pub(crate) engine: Engine,
    pub(crate) pre: InstancePre<Host>,
    pub(crate) exports: Exports,
}

/// True where `name` is the interface of this contract's version.
pub(crate) fn is_weft(name: &str, interface: &str) -> bool {
    name.strip_prefix("weft:fabric/")
        .and_then(|rest| rest.strip_suffix("@0.1.0"))
        == Some(interface)
}

pub(crate) fn wants_wasi(imports: &[String]) -> bool {
    imports.iter().any(|name| name.starts_with("wasi:"))
}

/// Interfaces of the contract with functions that wait.
const WAITING: [&str; 3] = ["state", "actors", "tasks"];

/// Returns whether something that is imported can wait, so that calls need a fiber.
fn can_wait(imports: &[String]) -> bool {
    let waits = |name: &String| WAITING.iter().any(|interface| is_weft(name, interface));
    wants_wasi(imports) || imports.iter().any(waits)
}

pub(crate) fn linker(engine: &Engine, wasi: bool) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(&engine.wasmtime);
    fiber::weft::fabric::data::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    fiber::weft::fabric::output::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    fiber::weft::fabric::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    fiber::weft::fabric::meter::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    fiber::weft::fabric::state::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    fiber::weft::fabric::actors::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    fiber::weft::fabric::tasks::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    if wasi {
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    }
    Ok(linker)
}

macro_rules! exports {
    ($module:ident, $kind:ident, $pre:expr) => {{
        use crate::bindings::$module::exports::weft::fabric::{
            actor, functions, mapper, reducer, scalars, task,
        };
        $kind {
            functions: functions::GuestIndices::new($pre)?,
            mapper: mapper::GuestIndices::new($pre).ok(),
            reducer: reducer::GuestIndices::new($pre).ok(),
            task: task::GuestIndices::new($pre).ok(),
            // Components of earlier SDKs have none.
            scalars: scalars::GuestIndices::new($pre).ok(),
            actor: actor::GuestIndices::new($pre).ok(),
        }
    }};
}

impl Component {
    /// Maps the artefact at `path`, which must be what this fabric's own compiler wrote there: whoever
    /// calls compares its digest first, unless it has just been compiled.
    ///
    /// Errors: `Host` where the file is missing, damaged or made by another engine.
    pub fn load(engine: &Engine, path: &Path) -> Result<Arc<Self>> {
        // SAFETY: artefacts are native code. They come from our compiler process alone, lie under the
        // digest of the component and the engine's compatibility hash in a folder that no tenant can
        // write, and uploads are never taken for one (`detect_precompiled`). Executors map none whose
        // bytes are not those that the compiler wrote.
        #[expect(
            unsafe_code,
            reason = "the one place that loads our own precompiled components"
        )]
        let wasm = unsafe { Wasm::deserialize_file(&engine.wasmtime, path) };
        let loaded = wasm.and_then(|wasm| Self::link(engine, &wasm));
        loaded.map(Arc::new).map_err(|error| {
            Fault::Host(format!("loading artefact `{}`: {error:#}", path.display()))
        })
    }

    fn link(engine: &Engine, wasm: &Wasm) -> wasmtime::Result<Self> {
        let component_type = wasm.component_type();
        let imports: Vec<String> = component_type
            .imports(&engine.wasmtime)
            .map(|(name, _)| name.to_owned())
            .collect();
        let pre = linker(engine, wants_wasi(&imports))?.instantiate_pre(wasm)?;
        wasm.initialize_copy_on_write_image()?;
        let exports = if can_wait(&imports) {
            Exports::Fiber(exports!(fiber, FiberExports, &pre))
        } else {
            Exports::Direct(exports!(direct, DirectExports, &pre))
        };
        Ok(Self {
            engine: engine.clone(),
            pre,
            exports,
        })
    }
}
