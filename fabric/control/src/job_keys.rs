//! Idempotency keys of jobs: a submission that is repeated gets the job that it made before.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};
use weft_core::{ErrorCode, JobId, Problem};

use crate::bounds::{IDEMPOTENCY_MS, MAX_IDEMPOTENCY_KEYS};

/// An idempotency key of a job that was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    request: String,
    job: JobId,
    until_ms: u64,
}

/// Jobs by idempotency key. A snapshot has the keys alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "BTreeMap<String, Remembered>")]
pub(crate) struct JobKeys {
    keys: BTreeMap<String, Remembered>,
    /// The same by the time at which they expire, in Unix milliseconds.
    expiry: BTreeSet<(u64, String)>,
}

impl Serialize for JobKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.keys.serialize(serializer)
    }
}

impl From<BTreeMap<String, Remembered>> for JobKeys {
    fn from(keys: BTreeMap<String, Remembered>) -> Self {
        let expiry = keys.iter();
        let expiry = expiry.map(|(key, remembered)| (remembered.until_ms, key.clone()));
        Self {
            expiry: expiry.collect(),
            keys,
        }
    }
}

impl JobKeys {
    /// The job that a key stands for. Errors: `version_conflict` if it came with another request.
    pub(crate) fn job(
        &self,
        key: &str,
        request: &str,
        at_ms: u64,
    ) -> Result<Option<JobId>, Problem> {
        let known = self.keys.get(key);
        match known.filter(|remembered| remembered.until_ms > at_ms) {
            Some(remembered) if remembered.request != request => {
                let detail =
                    format!("the idempotency key `{key}` came before with another request");
                Err(Problem::new(ErrorCode::VersionConflict, detail))
            }
            known => Ok(known.map(|remembered| remembered.job.clone())),
        }
    }

    /// Makes room for one more key. Errors: `busy`, which says when the first key expires.
    pub(crate) fn make_room(&mut self, at_ms: u64) -> Result<(), Problem> {
        if self.keys.len() >= MAX_IDEMPOTENCY_KEYS {
            self.expire(at_ms);
        }
        if self.keys.len() < MAX_IDEMPOTENCY_KEYS {
            return Ok(());
        }
        let until_ms = self.expiry.first().map_or(at_ms, |(until_ms, _)| *until_ms);
        let wait_s = until_ms.saturating_sub(at_ms).div_ceil(1_000).max(1);
        let detail = format!(
            "the tenant used {MAX_IDEMPOTENCY_KEYS} idempotency keys within 24 hours, and the first expires in \
             {wait_s} s; wait, or submit without one"
        );
        Err(Problem::new(ErrorCode::Busy, detail).with_retry_after_s(wait_s))
    }

    /// Remembers the job that a key stands for from now on.
    pub(crate) fn remember(&mut self, key: String, request: String, job: JobId, at_ms: u64) {
        self.expire(at_ms);
        let until_ms = at_ms + IDEMPOTENCY_MS;
        self.expiry.insert((until_ms, key.clone()));
        let remembered = Remembered {
            request,
            job,
            until_ms,
        };
        let before = self.keys.insert(key, remembered);
        debug_assert!(
            before.is_none(),
            "a key in force is not given to another job"
        );
    }

    fn expire(&mut self, at_ms: u64) {
        let is_expired = |(until_ms, _): &(u64, String)| *until_ms <= at_ms;
        while self.expiry.first().is_some_and(is_expired) {
            if let Some((_, key)) = self.expiry.pop_first() {
                self.keys.remove(&key);
            }
        }
    }
}
