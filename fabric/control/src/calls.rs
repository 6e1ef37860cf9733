//! Invocations with an idempotency key: one answer is given for a key, however often it is asked for.
//!
//! ```text
//! begin ──new──▶ running ──end──▶ ended ──begin──▶ the same outcome
//!                   │               └──its time to live is over──▶ as if it had not begun
//!                   └──end without an outcome, or begin by another server──▶ as if it had not begun
//! ```
//!
//! Keys are bounded by the bytes that they and their outputs take up. Expired keys make room with the
//! next command; they are found by an index, which a snapshot leaves out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weft_core::{ErrorCode, FieldError, Meters, Problem};
use weft_protocol::{DEADLINE_MAX, OUTPUT_BYTES_MAX};

use crate::bounds::{IDEMPOTENCY_MS, MAX_KEY_BYTES, MAX_STORED_OUTPUT_BYTES};
use crate::inline_output::InlineOutput;

/// How long a key is kept at least while its invocation runs: no deadline is as long.
const RUNNING_MS: u64 = 2 * DEADLINE_MAX.as_secs() * 1_000;
/// Time after which a call of another controller that has no answer may be made again: longer than the
/// longest deadline.
const TAKEN_OVER_MS: u64 = DEADLINE_MAX.as_secs() * 1_000 + 60_000;
/// Bytes of a record beside its texts: numbers, pointers, nodes of the maps.
const RECORD_BYTES: u64 = 512;
/// Bytes of a problem beside its texts.
const PROBLEM_BYTES: u64 = 192;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOutcome {
    /// `component@version/function`.
    pub label: String,
    /// Fault of the function, if it failed.
    pub problem: Option<Box<Problem>>,
    /// Key of the object with its output, unless that is kept here.
    pub output: Option<String>,
    /// Bytes of that object. Earlier versions did not record them: theirs count as none.
    #[serde(default)]
    pub output_bytes: u64,
    /// The output, if it is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineOutput>,
    /// Meters of the invocation.
    pub meters: Meters,
}

impl CallOutcome {
    fn record_bytes(&self) -> u64 {
        let inline = self.inline.as_ref().map(InlineOutput::as_bytes);
        let texts = [
            self.label.len(),
            self.output.as_ref().map_or(0, String::len),
            inline.map_or(0, <[u8]>::len),
        ];
        let problem = self.problem.as_deref().map_or(0, problem_bytes);
        texts.iter().sum::<usize>() as u64 + problem
    }
}

fn problem_bytes(problem: &Problem) -> u64 {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let error = |error: &FieldError| {
        error.path.len() + error.message.len() + text(&error.suggestion) + size_of::<FieldError>()
    };
    let errors: usize = problem.errors.iter().map(error).sum();
    let fields = [&problem.limit, &problem.value, &problem.function];
    let fields: usize = fields.into_iter().map(text).sum();
    PROBLEM_BYTES + (problem.detail.len() + errors + fields) as u64
}

/// State of the key of a call that wants to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begun {
    /// Nothing: the call is to be made.
    New,
    /// It is being made by the process that asks.
    Running,
    /// It is being made by another controller.
    Elsewhere,
    /// It was made.
    Ended(Box<CallOutcome>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Call {
    request: String,
    /// The server process that makes it. One that is gone will not end it. Empty once it has ended.
    by: String,
    /// When it was begun, in Unix milliseconds.
    #[serde(default)]
    begun_ms: u64,
    until_ms: u64,
    /// Seconds for which its answer is kept, if the client said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_s: Option<u32>,
    outcome: Option<Box<CallOutcome>>,
}

impl Call {
    /// Returns whether another controller than that of `by` may still be at the call: until no invocation
    /// takes as long. An earlier life of the same controller is not.
    fn may_run_elsewhere(&self, by: &str, at_ms: u64) -> bool {
        let controller = |by: &str| by.split_once(':').map(|(member, _)| member.to_owned());
        controller(&self.by) != controller(by) && at_ms < self.begun_ms + TAKEN_OVER_MS
    }

    /// Bytes of its record. The key stands in the index, too.
    fn record_bytes(&self, key: &str) -> u64 {
        let texts = 2 * key.len() + self.request.len() + self.by.len();
        let outcome = self.outcome.as_ref();
        RECORD_BYTES + texts as u64 + outcome.map_or(0, |outcome| outcome.record_bytes())
    }

    fn output_bytes(&self) -> u64 {
        self.outcome
            .as_ref()
            .map_or(0, |outcome| outcome.output_bytes)
    }
}

/// Keys of invocations that are kept, and the bytes that they take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldKeys {
    /// Number of keys.
    pub keys: u64,
    /// Bytes of their records, small outputs included.
    pub key_bytes: u64,
    /// Bytes of the outputs that are stored for them.
    pub output_bytes: u64,
}

impl HeldKeys {
    fn add(&mut self, key: &str, call: &Call) {
        self.keys += 1;
        self.key_bytes += call.record_bytes(key);
        self.output_bytes += call.output_bytes();
    }

    fn take_away(&mut self, key: &str, call: &Call) {
        self.keys -= 1;
        self.key_bytes -= call.record_bytes(key);
        self.output_bytes -= call.output_bytes();
    }
}

/// Keys by the time at which they expire, in Unix milliseconds.
type Expiry = BTreeSet<(u64, String)>;

/// Calls by key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "StoredCalls")]
pub struct KeyedCalls {
    calls: BTreeMap<String, Call>,
    /// Those without a stored output.
    #[serde(skip)]
    plain: Expiry,
    /// Those with one.
    #[serde(skip)]
    stored: Expiry,
    /// All of them, expired ones that are still here included.
    #[serde(skip)]
    held: HeldKeys,
}

/// Calls as a snapshot has them.
#[derive(Deserialize)]
struct StoredCalls {
    calls: BTreeMap<String, Call>,
}

impl From<StoredCalls> for KeyedCalls {
    fn from(StoredCalls { calls }: StoredCalls) -> Self {
        let mut restored = Self::default();
        for (key, call) in calls {
            restored.insert(key, call);
        }
        restored
    }
}

impl KeyedCalls {
    /// Records a call that is about to be made by the process `by`, unless its key is known. Its answer
    /// will be kept for `ttl_s`.
    ///
    /// Errors: `version_conflict` if the key came with another request, `busy` if keys or stored outputs
    /// take up too much; it says when the first of them expires.
    pub(crate) fn begin(
        &mut self,
        key: String,
        request: String,
        by: String,
        ttl_s: Option<u32>,
        at_ms: u64,
    ) -> Result<Begun, Problem> {
        self.expire(at_ms);
        let known = self.calls.get(&key);
        if let Some(call) = known {
            if call.request != request {
                let detail =
                    format!("the idempotency key `{key}` came before with another request");
                return Err(Problem::new(ErrorCode::VersionConflict, detail));
            }
            match &call.outcome {
                Some(outcome) => return Ok(Begun::Ended(outcome.clone())),
                None if call.by == by => return Ok(Begun::Running),
                None if call.may_run_elsewhere(&by, at_ms) => return Ok(Begun::Elsewhere),
                None => {}
            }
        }
        let call = Call {
            request,
            by,
            begun_ms: at_ms,
            until_ms: at_ms + ttl_ms(ttl_s).max(RUNNING_MS),
            ttl_s,
            outcome: None,
        };
        if known.is_none() {
            self.check_key(call.record_bytes(&key), at_ms)?;
            self.check_output(OUTPUT_BYTES_MAX as u64, at_ms)?;
        }
        self.insert(key, call);
        Ok(Begun::New)
    }

    /// Records how a call ended. Without an outcome it may be made again; a call of another process stays.
    /// Returns the outcome that stands instead, if another one was recorded before.
    ///
    /// Errors: `busy` if there is no room for its output; the call goes on running. `busy` as well if
    /// another process makes it by now: what this one has is nobody's answer.
    pub(crate) fn end(
        &mut self,
        key: &str,
        by: &str,
        outcome: Option<CallOutcome>,
        at_ms: u64,
    ) -> Result<Option<Box<CallOutcome>>, Problem> {
        let Some(call) = self.calls.get(key) else {
            return Ok(None);
        };
        if let (Some(stands), Some(_)) = (&call.outcome, &outcome) {
            return Ok(Some(stands.clone()));
        }
        if call.by != by {
            return match outcome {
                Some(_) => Err(Problem::new(
                    ErrorCode::Busy,
                    format!(
                        "another controller makes the call with the key `{key}` by now; try again"
                    ),
                )),
                None => Ok(None),
            };
        }
        if let Some(outcome) = &outcome {
            self.check_output(outcome.output_bytes, at_ms)?;
        }
        // Without an outcome nothing comes in its place.
        if let Some(call) = self.remove(key)
            && let Some(outcome) = outcome
        {
            let ended = Call {
                by: String::new(),
                until_ms: at_ms + ttl_ms(call.ttl_s),
                outcome: Some(Box::new(outcome)),
                ..call
            };
            self.insert(key.to_owned(), ended);
        }
        Ok(None)
    }

    /// Forgets keys whose time is over.
    pub(crate) fn expire(&mut self, at_ms: u64) {
        while let Some(key) = self.first_expired(at_ms) {
            self.remove(&key);
        }
    }

    fn first_expired(&self, at_ms: u64) -> Option<String> {
        let firsts = [self.plain.first(), self.stored.first()];
        let mut firsts = firsts.into_iter().flatten();
        let expired = firsts.find(|(until_ms, _)| *until_ms <= at_ms);
        expired.map(|(_, key)| key.clone())
    }

    /// Checks that an output of `bytes` may be stored. Errors: `busy`.
    pub fn check_output(&self, bytes: u64, at_ms: u64) -> Result<(), Problem> {
        let used = self.held(at_ms).output_bytes;
        if bytes == 0 || used + bytes <= MAX_STORED_OUTPUT_BYTES {
            return Ok(());
        }
        let what = "stored outputs of invocations with idempotency keys";
        let first = self.stored.iter().find(|(until_ms, _)| *until_ms > at_ms);
        Err(full(what, used, MAX_STORED_OUTPUT_BYTES, first, at_ms))
    }

    fn check_key(&self, bytes: u64, at_ms: u64) -> Result<(), Problem> {
        let used = self.held.key_bytes;
        if used + bytes <= MAX_KEY_BYTES {
            return Ok(());
        }
        let what = "idempotency keys of invocations";
        let firsts = [self.plain.first(), self.stored.first()];
        let first = firsts.into_iter().flatten().min();
        Err(full(what, used, MAX_KEY_BYTES, first, at_ms))
    }

    /// Keys of the objects that outcomes refer to, without those that have expired.
    pub fn outputs(&self, at_ms: u64) -> impl Iterator<Item = &str> {
        let live = self.calls.values();
        let live = live.filter(move |call| call.until_ms > at_ms);
        live.filter_map(|call| call.outcome.as_ref()?.output.as_deref())
    }

    /// Counts keys and bytes, without those that have expired.
    pub fn held(&self, at_ms: u64) -> HeldKeys {
        let mut held = self.held;
        for expiry in [&self.plain, &self.stored] {
            let is_expired = |(until_ms, _): &&(u64, String)| *until_ms <= at_ms;
            for (_, key) in expiry.iter().take_while(is_expired) {
                if let Some(call) = self.calls.get(key) {
                    held.take_away(key, call);
                }
            }
        }
        held
    }

    fn insert(&mut self, key: String, call: Call) {
        self.remove(&key);
        self.held.add(&key, &call);
        self.expiry(&call).insert((call.until_ms, key.clone()));
        self.calls.insert(key, call);
    }

    fn remove(&mut self, key: &str) -> Option<Call> {
        let (key, call) = self.calls.remove_entry(key)?;
        self.held.take_away(&key, &call);
        self.expiry(&call).remove(&(call.until_ms, key));
        Some(call)
    }

    /// The index that a call stands in.
    fn expiry(&mut self, call: &Call) -> &mut Expiry {
        match call.output_bytes() {
            0 => &mut self.plain,
            _ => &mut self.stored,
        }
    }
}

fn ttl_ms(ttl_s: Option<u32>) -> u64 {
    ttl_s.map_or(IDEMPOTENCY_MS, |seconds| {
        (u64::from(seconds) * 1_000).min(IDEMPOTENCY_MS)
    })
}

/// A refusal until the first key that takes up room expires.
fn full(what: &str, used: u64, most: u64, first: Option<&(u64, String)>, at_ms: u64) -> Problem {
    let until_ms = first.map_or(at_ms, |(until_ms, _)| *until_ms);
    let wait_s = until_ms.saturating_sub(at_ms).div_ceil(1_000).max(1);
    let detail = format!(
        "{what} take up {used} bytes of {most}, and the first expires in {wait_s} s; \
         a shorter `Idempotency-Key-TTL` frees them sooner"
    );
    Problem::new(ErrorCode::Busy, detail).with_retry_after_s(wait_s)
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
        calls.begin("key".into(), request.into(), by.into(), None, at_ms)
    }

    fn end(calls: &mut KeyedCalls, by: &str, outcome: Option<CallOutcome>, at_ms: u64) {
        let ended = calls.end("key", by, outcome, at_ms);
        assert_eq!(ended, Ok(None));
    }

    fn outcome() -> CallOutcome {
        CallOutcome {
            label: "a@1.0.0/b".into(),
            problem: None,
            output: Some("invocations/1".into()),
            output_bytes: 1_000,
            inline: None,
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
        end(&mut calls, "me", Some(outcome()), 2);
        end(&mut calls, "me", None, 3);
        let second = CallOutcome {
            label: "b@1.0.0/c".into(),
            ..outcome()
        };
        let stands = calls.end("key", "me", Some(second), 3);
        assert_eq!(stands, Ok(Some(Box::new(outcome()))), "the first stays");
        for at_ms in [3, 1 + IDEMPOTENCY_MS] {
            assert_eq!(
                begin(&mut calls, "r", "me", at_ms),
                Ok(Begun::Ended(Box::new(outcome())))
            );
        }
        let outputs = |calls: &KeyedCalls, at_ms| calls.outputs(at_ms).count();
        assert_eq!(calls.outputs(3).collect::<Vec<_>>(), ["invocations/1"]);
        assert_eq!(outputs(&calls, 2 + IDEMPOTENCY_MS), 0);
        assert_eq!(
            begin(&mut calls, "other", "me", 2 + IDEMPOTENCY_MS),
            Ok(Begun::New)
        );
        assert_eq!(outputs(&calls, 3), 0);
    }

    #[test]
    fn a_dead_servers_call_is_begun_again() {
        let mut calls = KeyedCalls::default();
        assert_eq!(begin(&mut calls, "r", "dead", 1), Ok(Begun::New));
        assert_eq!(begin(&mut calls, "r", "me", 2), Ok(Begun::New));
        let late = calls.end("key", "dead", Some(outcome()), 2);
        assert_eq!(late.expect_err("it is fenced").code, ErrorCode::Busy);
        assert_eq!(
            begin(&mut calls, "r", "me", 3),
            Ok(Begun::Running),
            "the dead say nothing"
        );
        end(&mut calls, "me", None, 3);
        assert_eq!(begin(&mut calls, "r", "me", 4), Ok(Begun::New));
    }

    #[test]
    fn a_call_of_another_controller_is_left_to_it_while_it_may_run() {
        let mut calls = KeyedCalls::default();
        assert_eq!(begin(&mut calls, "r", "1:a", 1), Ok(Begun::New));
        assert_eq!(begin(&mut calls, "r", "2:b", 2), Ok(Begun::Elsewhere));
        assert_eq!(
            begin(&mut calls, "r", "1:c", 3),
            Ok(Begun::New),
            "its controller has started again"
        );
        let late = 3 + TAKEN_OVER_MS;
        let early = begin(&mut calls, "r", "2:b", late - 1);
        assert_eq!(early, Ok(Begun::Elsewhere));
        assert_eq!(begin(&mut calls, "r", "2:b", late), Ok(Begun::New));
    }
}
