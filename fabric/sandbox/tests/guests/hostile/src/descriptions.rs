//! What the component says of itself, after a task has told it which lie to tell.

use std::cell::RefCell;

use crate::bindings::exports::weft::fabric::functions::{Description, Function, Guest, Kind};
use crate::bindings::weft::fabric::data::Field;
use crate::{Hostile, Params, actors, scalars, schemas};

thread_local! {
    static LIE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The next `describe` tells this lie.
pub(crate) fn prepare(lie: &str) {
    LIE.set(lie.into());
}

fn function(name: &str) -> Function {
    Function {
        name: name.into(),
        kind: Kind::Task,
        summary: String::new(),
        deterministic: true,
    }
}

fn description() -> Description {
    Description {
        name: "hostile".into(),
        version: "0.1.0".into(),
        functions: vec![function("spin")],
    }
}

impl Guest for Hostile {
    fn describe() -> Description {
        let mut it = description();
        match LIE.take().as_str() {
            "" => {}
            "name" => it.name = "../../etc/passwd".into(),
            "no-name" => it.name = String::new(),
            "escaping-name" => it.name = "\u{1b}[2J".into(),
            "huge-name" => it.name = "n".repeat(1 << 20),
            "version" => it.version = "1".into(),
            "huge-version" => it.version = format!("1.0.0-{}", "v".repeat(1 << 20)),
            "function-name" => it.functions.push(function("a/b")),
            "twice" => it.functions.push(function("spin")),
            "twice-of-two-kinds" => scalars::list_spin(),
            "twice-as-an-actor" => actors::list("spin"),
            "actor-name" => actors::list("a/b"),
            "no-functions" => it.functions.clear(),
            "many-functions" => {
                it.functions = (0..2000).map(|n| function(&format!("f{n}"))).collect();
            }
            "huge-summary" => it.functions[0].summary = "s".repeat(1 << 20),
            other => panic!("no lie `{other}`"),
        }
        it
    }

    fn bind(function: String, input: Vec<Field>, _: Params) -> Result<Vec<Field>, String> {
        match schemas::schema(&function) {
            Some(fields) => Ok(fields),
            None => Ok(input),
        }
    }
}
