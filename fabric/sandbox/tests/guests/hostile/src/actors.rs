//! Actors that lie about their names, and do nothing.

use std::cell::Cell;

use crate::Hostile;
use crate::bindings::exports::weft::fabric::actor::{Guest, Kind};

thread_local! {
    static LISTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The next `describe` lists an actor of this name.
pub(crate) fn list(name: &'static str) {
    LISTED.set(Some(name));
}

impl Guest for Hostile {
    fn describe() -> Vec<Kind> {
        let kind = |name: &str| Kind {
            name: name.into(),
            summary: String::new(),
        };
        LISTED.take().map(kind).into_iter().collect()
    }

    fn wake(_: String, _: String) -> Result<(), String> {
        Err("it sleeps".into())
    }

    fn invoke(_: String, _: Vec<u8>) -> Result<Vec<u8>, String> {
        Err("it sleeps".into())
    }

    fn alarm() -> Result<(), String> {
        Err("it sleeps".into())
    }
}
