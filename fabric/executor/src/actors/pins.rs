//! Versions that serve actors now, for turns that no API request brought about: asked for once a second, of each actor
//! function.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use weft_core::{ErrorCode, Problem, lock};
use weft_protocol::{CallTo, Pin};

use super::shared::Shared;

/// Functions whose versions are known at a time.
const MAX_PINS: usize = 1_000;
/// Age up to which a version is taken as it is.
const FRESH: Duration = Duration::from_secs(1);
/// Age up to which a version is taken while it is asked for anew.
const USABLE: Duration = Duration::from_secs(10);
/// Time in which a controller answers.
const WALL: Duration = Duration::from_secs(10);

struct Known {
    pin: Pin,
    at: Instant,
    is_renewed: bool,
}

/// Knowledge of a function.
enum Look {
    Fresh(Pin),
    /// It may be another one by now; true if nobody asks yet.
    Aged(Pin, bool),
    Unknown,
}

/// Versions by `component/function`.
#[derive(Default)]
pub(super) struct Pins(Mutex<HashMap<String, Known>>);

impl Pins {
    /// A version was told, just now.
    pub(super) fn learn(&self, function: String, pin: Pin) {
        self.learn_at(function, pin, Instant::now());
    }

    fn learn_at(&self, function: String, pin: Pin, at: Instant) {
        let mut known = lock(&self.0);
        if known.len() >= MAX_PINS && !known.contains_key(&function) {
            known.clear();
        }
        let is_renewed = false;
        let one = Known {
            pin,
            at,
            is_renewed,
        };
        known.insert(function, one);
    }

    fn look(&self, function: &str) -> Look {
        let mut known = lock(&self.0);
        let Some(one) = known.get_mut(function) else {
            return Look::Unknown;
        };
        match one.at.elapsed() {
            age if age < FRESH => Look::Fresh(one.pin.clone()),
            age if age < USABLE => {
                let is_first = !std::mem::replace(&mut one.is_renewed, true);
                Look::Aged(one.pin.clone(), is_first)
            }
            _ => Look::Unknown,
        }
    }

    /// Nobody asks for the function's version any more.
    fn not_renewed(&self, function: &str) {
        if let Some(one) = lock(&self.0).get_mut(function) {
            one.is_renewed = false;
        }
    }
}

impl Shared {
    /// The version that serves an actor function now, or did a moment ago.
    ///
    /// Errors: there is no such function, or no controller answers.
    pub(super) async fn pin(self: &Arc<Self>, function: &str) -> Result<Pin, Problem> {
        match self.pins.look(function) {
            Look::Fresh(pin) | Look::Aged(pin, false) => Ok(pin),
            Look::Aged(pin, true) => {
                let (shared, function) = (Arc::clone(self), function.to_owned());
                self.spawn("an actor's version", async move {
                    // The next one to need it hears what went wrong, once the old one is too old.
                    if shared.ask_for_pin(&function).await.is_err() {
                        shared.pins.not_renewed(&function);
                    }
                });
                Ok(pin)
            }
            Look::Unknown => self.ask_for_pin(function).await,
        }
    }

    async fn ask_for_pin(&self, function: &str) -> Result<Pin, Problem> {
        let to = CallTo::Pin {
            function: function.to_owned(),
        };
        let answer = self.outward.call(to, Vec::new(), WALL).await?;
        let pin: Pin = serde_json::from_slice(&answer).map_err(|error| {
            let detail = format!("the version of `{function}` cannot be read: {error}");
            Problem::new(ErrorCode::Internal, detail)
        })?;
        self.pins.learn(function.to_owned(), pin.clone());
        Ok(pin)
    }
}

#[cfg(test)]
mod tests {
    use weft_core::{Digest, Limits};

    use super::*;

    fn pin() -> Pin {
        Pin {
            digest: Digest::from_sha256(&[1; 32]),
            artefact: Digest::from_sha256(&[2; 32]),
            label: "bank@1.0.0/account".into(),
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_version_is_asked_for_again_by_one_alone() {
        let pins = Pins::default();
        assert!(matches!(pins.look("a/b"), Look::Unknown));
        pins.learn("a/b".into(), pin());
        assert!(matches!(pins.look("a/b"), Look::Fresh(_)));
        let Some(at) = Instant::now().checked_sub(FRESH) else {
            return;
        };
        pins.learn_at("a/b".into(), pin(), at);
        assert!(matches!(pins.look("a/b"), Look::Aged(_, true)));
        assert!(matches!(pins.look("a/b"), Look::Aged(_, false)));
        pins.not_renewed("a/b");
        assert!(matches!(pins.look("a/b"), Look::Aged(_, true)));
    }

    #[test]
    fn versions_are_bounded() {
        let pins = Pins::default();
        for number in 0..2 * MAX_PINS {
            pins.learn(number.to_string(), pin());
        }
        assert!(lock(&pins.0).len() <= MAX_PINS);
    }
}
