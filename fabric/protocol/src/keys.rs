//! Keys of objects in the store, and the fingerprint of their formats.

use weft_core::{AttemptId, Digest, Incarnation, JobId, TaskId, TenantId};

/// Partition hash, plan encoding, segment format, and the DataFusion whose plans SQL stages hold: executors of
/// one job must agree on all four.
pub const FINGERPRINT: &str =
    "canonical-row59-xxh3 · plan-json-6 · ipc59-lz4-xxh3-1 · datafusion-55.2.0";

/// Fingerprints of earlier releases whose plans mean the same today: jobs that were planned before an upgrade go on.
///
/// Their plans hold no SQL, or that of the same DataFusion, and partition hash and segment format are those of
/// [`FINGERPRINT`].
pub const EARLIER_FINGERPRINTS: [&str; 2] = [
    "canonical-row59-xxh3 · plan-json-2 · ipc59-lz4-xxh3-1",
    "canonical-row59-xxh3 · plan-json-5 · ipc59-lz4-xxh3-1 · datafusion-55.2.0",
];

/// Prefix of all objects that a job needs while it runs.
pub fn job_prefix(job: &JobId) -> String {
    format!("jobs/{job}")
}

/// Folder of the store for outputs that the cluster keeps: one folder a job.
pub const KEPT_OUTPUTS: &str = "outputs";

/// Prefix of all outputs of a job that the cluster keeps.
pub fn kept_prefix(job: &JobId) -> String {
    format!("{KEPT_OUTPUTS}/{job}")
}

/// Prefix of the files of an output that the cluster keeps.
pub fn kept_output_key(job: &JobId, output: &str) -> String {
    format!("{}/{output}", kept_prefix(job))
}

/// Prefix of the shards of a tenant's actors.
pub fn shards_prefix(tenant: &TenantId) -> String {
    format!("shards/{tenant}")
}

/// Prefix of a shard: of a database that no sweep touches.
pub fn shard_prefix(tenant: &TenantId, shard: u32) -> String {
    format!("{}/{shard}", shards_prefix(tenant))
}

/// Key of an uploaded component.
pub fn component_key(digest: &Digest) -> String {
    format!("components/{}.wasm", digest.hex())
}

/// Key of a component's artefact for one engine.
pub fn artefact_key(digest: &Digest, compatibility: &str) -> String {
    format!("artefacts/{}-{compatibility}.cwasm", digest.hex())
}

/// Key of an object that one attempt writes: no other attempt ever has the same name.
pub fn attempt_key(task: &TaskId, agent: &Incarnation, attempt: AttemptId, suffix: &str) -> String {
    let AttemptId { epoch, sequence } = attempt;
    let prefix = job_prefix(&task.job);
    format!(
        "{prefix}/{}/{}-{agent}-{epoch}-{sequence}.{suffix}",
        task.stage, task.task
    )
}
