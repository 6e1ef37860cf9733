//! Invocations with an idempotency key: one answer is given for a key, however often it is asked for.
//!
//! ```text
//! begin ──new──▶ running ──end──▶ ended ──begin──▶ the same outcome
//!                   └──end without an outcome, or begin by another server──▶ as if it had not begun
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::{ErrorCode, Meters, Problem};

use crate::bounds::{IDEMPOTENCY_MS, MAX_IDEMPOTENCY_KEYS};

/// How often keys that have expired are looked for.
const PRUNE_MS: u64 = 3_600_000;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOutcome {
    /// `component@version/function`.
    pub label: String,
    /// What the function did wrong, if it did.
    pub problem: Option<Problem>,
    /// Key of the object with its output.
    pub output: Option<String>,
    /// What it used.
    pub meters: Meters,
}

/// What the key of a call that wants to begin is known for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begun {
    /// Nothing: the call is to be made.
    New,
    /// It is being made.
    Running,
    /// It was made.
    Ended(Box<CallOutcome>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Call {
    request: String,
    /// The server process that makes it. One that is gone will not end it.
    by: String,
    until_ms: u64,
    outcome: Option<CallOutcome>,
}

/// Calls by key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyedCalls {
    calls: BTreeMap<String, Call>,
    pruned_ms: u64,
}

impl KeyedCalls {
    /// Takes note of a call that is about to be made by the process `by`, unless its key is known.
    ///
    /// Errors: `version_conflict` where the key came with another request, `busy` where there are too many keys.
    pub(crate) fn begin(
        &mut self,
        key: String,
        request: String,
        by: String,
        at_ms: u64,
    ) -> Result<Begun, Problem> {
        self.prune(at_ms);
        if let Some(call) = self.calls.get(&key).filter(|call| call.until_ms > at_ms) {
            if call.request != request {
                let detail =
                    format!("the idempotency key `{key}` came before with another request");
                return Err(Problem::new(ErrorCode::VersionConflict, detail));
            }
            match &call.outcome {
                Some(outcome) => return Ok(Begun::Ended(Box::new(outcome.clone()))),
                None if call.by == by => return Ok(Begun::Running),
                None => {}
            }
        }
        if self.calls.len() >= MAX_IDEMPOTENCY_KEYS && !self.calls.contains_key(&key) {
            let detail = format!(
                "the tenant used {MAX_IDEMPOTENCY_KEYS} idempotency keys within 24 hours; wait, or call without one"
            );
            return Err(Problem::new(ErrorCode::Busy, detail));
        }
        let call = Call {
            request,
            by,
            until_ms: at_ms + IDEMPOTENCY_MS,
            outcome: None,
        };
        self.calls.insert(key, call);
        Ok(Begun::New)
    }

    /// Takes note of how a call ended. Without an outcome it may be made again; what another process began stays.
    pub(crate) fn end(&mut self, key: &str, by: &str, outcome: Option<CallOutcome>) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        if call.by != by || call.outcome.is_some() {
            return;
        }
        match outcome {
            Some(outcome) => call.outcome = Some(outcome),
            None => {
                self.calls.remove(key);
            }
        }
    }

    /// Keys of the objects that outcomes refer to.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        let outcomes = self.calls.values().filter_map(|call| call.outcome.as_ref());
        outcomes.filter_map(|outcome| outcome.output.as_deref())
    }

    fn prune(&mut self, at_ms: u64) {
        if at_ms.saturating_sub(self.pruned_ms) >= PRUNE_MS
            || self.calls.len() >= MAX_IDEMPOTENCY_KEYS
        {
            self.pruned_ms = at_ms;
            self.calls.retain(|_, call| call.until_ms > at_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(
        calls: &mut KeyedCalls,
        request: &str,
        by: &str,
        at_ms: u64,
    ) -> Result<Begun, Problem> {
        calls.begin("key".into(), request.into(), by.into(), at_ms)
    }

    fn outcome() -> CallOutcome {
        CallOutcome {
            label: "a@1.0.0/b".into(),
            problem: None,
            output: Some("invocations/1".into()),
            meters: Meters::default(),
        }
    }

    #[test]
    fn a_key_is_answered_once_and_for_a_day() {
        let mut calls = KeyedCalls::default();
        assert_eq!(begin(&mut calls, "r", "me", 1), Ok(Begun::New));
        assert_eq!(begin(&mut calls, "r", "me", 2), Ok(Begun::Running));
        let conflict = begin(&mut calls, "other", "me", 2).expect_err("another request");
        assert_eq!(conflict.code, ErrorCode::VersionConflict);
        calls.end("key", "me", Some(outcome()));
        calls.end("key", "me", None);
        for at_ms in [3, IDEMPOTENCY_MS] {
            assert_eq!(
                begin(&mut calls, "r", "me", at_ms),
                Ok(Begun::Ended(Box::new(outcome())))
            );
        }
        assert_eq!(calls.outputs().collect::<Vec<_>>(), ["invocations/1"]);
        assert_eq!(
            begin(&mut calls, "other", "me", 1 + IDEMPOTENCY_MS),
            Ok(Begun::New)
        );
        assert_eq!(calls.outputs().count(), 0);
    }

    #[test]
    fn what_a_dead_server_began_is_begun_again() {
        let mut calls = KeyedCalls::default();
        assert_eq!(begin(&mut calls, "r", "dead", 1), Ok(Begun::New));
        assert_eq!(begin(&mut calls, "r", "me", 2), Ok(Begun::New));
        calls.end("key", "dead", Some(outcome()));
        assert_eq!(
            begin(&mut calls, "r", "me", 3),
            Ok(Begun::Running),
            "the dead say nothing"
        );
        calls.end("key", "me", None);
        assert_eq!(begin(&mut calls, "r", "me", 4), Ok(Begun::New));
    }
}
