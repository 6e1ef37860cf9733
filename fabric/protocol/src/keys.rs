//! Keys of objects in the store, and the fingerprint of their formats.

use weft_core::{Digest, JobId};

/// Partition hash, plan encoding and segment format: executors of one job must agree on all three.
pub const FINGERPRINT: &str = "arrow-row59-xxh3 · plan-json-1 · ipc59-lz4-xxh3-1";

/// Where all lies that a job needs while it runs.
pub fn job_prefix(job: &JobId) -> String {
    format!("jobs/{job}")
}

/// Where an uploaded component lies.
pub fn component_key(digest: &Digest) -> String {
    format!("components/{}.wasm", digest.hex())
}

/// Where its artefact for one engine lies.
pub fn artefact_key(digest: &Digest, compatibility: &str) -> String {
    format!("artefacts/{}-{compatibility}.cwasm", digest.hex())
}
