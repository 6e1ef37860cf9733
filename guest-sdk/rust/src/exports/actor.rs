//! The interface `actor`: one instance in a sandbox, made by `wake`.

use std::cell::RefCell;

use crate::Result;
use crate::actor::{Context, State};
use crate::bindings::exports::weft::fabric::actor;
use crate::component::{ActorInstance, Body, Function};

use super::{Exports, find, log_panics, missing, summary, text};

/// The actor of this sandbox.
struct Awake {
    instance: Box<dyn ActorInstance>,
    cx: Context,
}

thread_local! {
    static AWAKE: RefCell<Option<Awake>> = const { RefCell::new(None) };
}

impl<E: Exports> actor::Guest for E {
    fn describe() -> Vec<actor::Kind> {
        log_panics();
        let functions = E::COMPONENT.functions.iter();
        let actors = functions.filter(|function| matches!(function.body, Body::Actor { .. }));
        actors.map(describe).collect()
    }

    fn wake(actor: String, key: String) -> Result<(), String> {
        log_panics();
        let Some(Body::Actor { wake }) = find::<E>(&actor).map(|function| &function.body) else {
            return Err(missing("actor ", &actor));
        };
        let cx = Context::new(key);
        let instance = text(wake(cx.key(), &State::new()))?;
        AWAKE.set(Some(Awake { instance, cx }));
        Ok(())
    }

    fn invoke(method: String, input: Vec<u8>) -> Result<Vec<u8>, String> {
        awake(|Awake { instance, cx }| instance.invoke(&method, input, cx))
    }

    fn alarm() -> Result<(), String> {
        awake(|Awake { instance, cx }| instance.alarm(cx))
    }
}

fn describe(function: &Function) -> actor::Kind {
    actor::Kind {
        name: function.name.into(),
        summary: summary(function),
    }
}

/// Runs a turn of the actor that is awake.
fn awake<T>(turn: impl FnOnce(&mut Awake) -> Result<T>) -> Result<T, String> {
    AWAKE.with_borrow_mut(|awake| match awake {
        Some(awake) => text(turn(awake)),
        None => Err("the actor is not awake".into()),
    })
}
