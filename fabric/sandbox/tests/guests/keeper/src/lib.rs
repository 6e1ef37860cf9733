//! Uses what guests reach outside their sandbox, as it is told: state, alarms and messages of an actor, and futures.

#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../../../../wit",
        world: "component",
        pub_export_macro: true,
        default_bindings_module: "crate::bindings",
    });
}
mod actor;
mod nothing;
mod task;

use bindings::exports::weft::fabric::functions;
use bindings::weft::fabric::data::Field;

struct Keeper;

bindings::export!(Keeper with_types_in bindings);

type Params = Vec<(String, String)>;

impl functions::Guest for Keeper {
    fn describe() -> functions::Description {
        let task = |name: &str| functions::Function {
            name: name.into(),
            kind: functions::Kind::Task,
            summary: String::new(),
            deterministic: true,
        };
        functions::Description {
            name: "keeper".into(),
            version: "0.1.0".into(),
            functions: vec![task("sum"), task("first")],
        }
    }

    fn bind(function: String, _: Vec<Field>, _: Params) -> Result<Vec<Field>, String> {
        Err(format!("`{function}` is not bound"))
    }
}
