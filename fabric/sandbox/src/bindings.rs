//! Bindings of `wit/`, twice: calls on a fiber, and synchronous ones. Imports and types are generated once and shared.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

pub(crate) mod fiber {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "component",
        with: { "weft:fabric/data.batch": crate::host::Batch },
        imports: { default: trappable },
        exports: { default: async },
    });
}

pub(crate) mod direct {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "component",
        with: {
            "weft:fabric/data": crate::bindings::fiber::weft::fabric::data,
            "weft:fabric/output": crate::bindings::fiber::weft::fabric::output,
            "weft:fabric/log": crate::bindings::fiber::weft::fabric::log,
            "weft:fabric/meter": crate::bindings::fiber::weft::fabric::meter,
        },
    });
}

pub(crate) use fiber::weft::fabric::{data, log, meter, output};
