//! Bindings of `wit/`, twice: calls on a fiber, and synchronous ones. Imports and types are generated once and shared.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

pub(crate) mod fiber {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "component",
        with: { "weft:fabric/data.batch": crate::host::Batch },
        imports: {
            // These wait; the others answer at once.
            "weft:fabric/state.get": async | trappable,
            "weft:fabric/state.scan": async | trappable,
            "weft:fabric/actors.invoke": async | trappable,
            "weft:fabric/tasks.spawn": async | trappable,
            "weft:fabric/tasks.join": async | trappable,
            "weft:fabric/tasks.select": async | trappable,
            default: trappable,
        },
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
            "weft:fabric/state": crate::bindings::fiber::weft::fabric::state,
            "weft:fabric/actors": crate::bindings::fiber::weft::fabric::actors,
            "weft:fabric/tasks": crate::bindings::fiber::weft::fabric::tasks,
        },
        // As the imports ask for that wait.
        require_store_data_send: true,
    });
}

pub(crate) use fiber::weft::fabric::{actors, data, log, meter, output, state, tasks};
