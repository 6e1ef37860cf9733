//! Does what no SDK would: breaks every rule of the contract, on request. `fabric/sandbox/tests` says what must come of it.

#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../../../../wit",
        world: "component",
        pub_export_macro: true,
        default_bindings_module: "crate::bindings",
    });
}
mod actors;
mod columns;
mod descriptions;
mod maps;
mod scalars;
mod schemas;
mod tasks;

struct Hostile;

bindings::export!(Hostile with_types_in bindings);

type Params = Vec<(String, String)>;
