//! Idempotency keys of actors: an invocation with a key is made once, and its answer is kept with what it wrote.

use sha2::{Digest as _, Sha256};
use weft_core::{ActorRef, ErrorCode, Problem};
use weft_protocol::Once;
use weft_shard::keys;

use super::commit::Kept;
use super::reads::Reads;
use super::stored::{KeptAnswer, decode};

/// State of an idempotency key.
#[derive(Debug, PartialEq)]
pub(super) enum Known {
    /// The invocation was made.
    Answer(Result<Vec<u8>, Problem>),
    /// It is to be made. There may be an answer whose time is over: until then it was kept.
    New { replaces: Option<u64> },
}

/// The digest by which a key is stored: keys are as long as clients like.
pub(super) fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Looks a key up. Errors: `version_conflict` if it was used for another request; those of the store.
pub(super) async fn look(
    reads: &dyn Reads,
    actor: &ActorRef,
    once: &Once,
    now_ms: u64,
) -> Result<Known, Problem> {
    let key = keys::answer(actor, &digest(&once.key));
    let Some(kept) = reads.get(key).await? else {
        return Ok(Known::New { replaces: None });
    };
    let kept: KeptAnswer = decode("answer", &kept)?;
    if kept.until_ms <= now_ms {
        let replaces = Some(kept.until_ms);
        return Ok(Known::New { replaces });
    }
    if !kept.is_of(&once.digest) {
        let detail = format!(
            "the idempotency key was used for another request to `{actor}`: give each request a key of its own"
        );
        return Err(Problem::new(ErrorCode::VersionConflict, detail));
    }
    Ok(Known::Answer(kept.into_result()))
}

/// The answer as it is kept. None if it is to be had anew: the platform is at fault.
pub(super) fn keep(
    once: &Once,
    result: &Result<Vec<u8>, Problem>,
    replaces: Option<u64>,
    now_ms: u64,
) -> Option<Kept> {
    if let Err(problem) = result
        && problem.code.is_platform_fault()
    {
        return None;
    }
    let until_ms = now_ms.saturating_add(u64::from(once.ttl_s) * 1_000);
    let answer = KeptAnswer::new(once.digest.clone(), until_ms, result);
    Some(Kept { answer, replaces })
}
