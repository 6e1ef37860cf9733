//! Bounds of the control state.

/// Attempts that a task, a planning or a publishing has before the job is given up for the
/// platform's reasons.
pub const MAX_ATTEMPTS: u32 = 4;
/// Times that a task runs again because the store lost what it had written.
pub(crate) const MAX_RERUNS: u32 = 3;
/// Attempts of a task that meet an object which the store lost; more count as failures.
pub(crate) const MAX_MISSES: u32 = 64;
/// Files of all outputs of a job.
pub(crate) const MAX_OUTPUT_FILES: u64 = 100_000;
/// Time for which an idempotency key is kept, and the most that an invocation may ask for.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600_000;
/// Bytes of a tenant's idempotency keys of invocations, with the small outputs kept beside them.
pub const MAX_KEY_BYTES: u64 = 64 << 20;
/// Bytes of a tenant's stored outputs of invocations with idempotency keys.
pub const MAX_STORED_OUTPUT_BYTES: u64 = 1 << 30;
/// Bytes of an output that is kept beside its idempotency key rather than stored.
pub const MAX_INLINE_OUTPUT_BYTES: usize = 256;
/// Idempotency keys of jobs that a tenant has at a time.
pub const MAX_IDEMPOTENCY_KEYS: usize = 100_000;
/// Jobs of a tenant that have not ended.
pub const MAX_RUNNING_JOBS: usize = 1_000;
/// Lines of ended jobs that a tenant keeps; the oldest go first, their archive objects stay.
pub const MAX_ENDED_JOBS: usize = 10_000;
/// Answers that are kept for one origin, which proposes no more commands until some are acknowledged.
pub const MAX_ORIGIN_ANSWERS: usize = 4_096;
/// Origins that are kept; the one that was not seen for the longest time goes first.
pub const MAX_ORIGINS: usize = 16_384;
/// Time for which an origin is kept after its last command.
pub const ORIGIN_MS: u64 = 24 * 3_600_000;
/// Tables and views of a tenant.
pub const MAX_TABLES: usize = 1_000;
/// Bytes of the names and definitions of a tenant's tables and views: each planning of SQL is sent all of them.
pub const MAX_TABLES_BYTES: usize = 4 << 20;
/// Bytes of the rows that the cluster keeps for a tenant's tables.
pub(crate) const MAX_KEPT_TABLES_BYTES: u64 = 16 << 30;
/// Nodes that are known.
pub(crate) const MAX_NODES: usize = 8_192;
