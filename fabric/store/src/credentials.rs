//! Credentials of executors: for a part of a bucket, for an hour, renewed while they work.
//!
//! ```text
//! agent: Issuer ──AssumeRole(role, policy)──▶ STS
//!           │   ◀──── key, session token, expiry
//!           └──ExecutorCredentials──▶ executor: HeldCredentials ──the newest──▶ requests of its stores
//! ```
//!
//! The agent has the credentials of the store itself, from settings, its environment or the role of the instance. They
//! go to executors only if the store has no `executor_role`.

mod held;
mod issuer;
mod policy;
mod sts;

pub use held::HeldCredentials;
pub use issuer::Issuer;

pub(crate) use held::NotRenewed;
