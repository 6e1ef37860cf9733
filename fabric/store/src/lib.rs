//! Bytes that outlive tasks: blobs in the object store, and the files of jobs' outputs.
//!
//! ```text
//! any role ──Blobs::put, writer──▶ <store>/<key> ──get, get_range──▶ any role
//!                                  a folder, or a bucket: Remote
//! shuffle objects of a bucket ──copies──▶ Tier: a folder of the node, bounded
//! any task ──Grants::find──▶ Remote: a bucket whose objects jobs may use
//!
//! any task ──StagedFile──▶ <output>/.weft-<job>/… ──publish──▶ <output>/part-…
//!                                   │                          then <output>/_weft.manifest
//!                                   └──clean──▶ removed when the job has ended
//!                 upload in parts ──publish──▶ s3://bucket/out/part-…, then s3://bucket/out/_weft.manifest
//! ```
//!
//! A blob, a published file and a manifest appear at once or not at all, and every step of a
//! publication or a clean-up can be repeated after a crash. The crate knows bytes and names,
//! nothing of rows.

mod blobs;
mod credentials;
mod file_cache;
mod grants;
mod outputs;
mod ownership;
mod probe;
mod remote;

mod absence;
mod durable;
mod error;
mod fault;
mod folder;
mod pause;
mod pending;
mod reading;
mod requests;
mod signed;
mod tier;
mod unfinished;

pub use blobs::{Background, Blobs, Entry};
pub use credentials::{HeldCredentials, Issuer};
pub use durable::move_durably;
pub use error::{Error, ErrorKind, OVER_LIMIT, Result};
pub use fault::Fault;
pub use file_cache::FileCache;
pub use grants::Grants;
pub use outputs::{
    Ended, Holding, Ledger, MANIFEST, Manifest, ManifestFile, ObjectFolder, OutputPlace,
    StagedFile, Staging, UPLOAD_FAILED, UPLOAD_FORBIDDEN, read_manifest,
};
pub use pending::PendingUploads;
pub use probe::{Access, PROBES, Probed, probe_stores, unreachable_stores};
pub use reading::{Fetch, FoundObject, FoundObjects, RemoteFile};
pub use remote::{Remote, has_credentials, with_environment};
pub use requests::{RequestKind, Requests};
pub use tier::{Tier, TierDraft};
pub use unfinished::remove_unfinished;
