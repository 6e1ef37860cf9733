//! Outputs on object stores, which have no rename: S3, and what speaks its protocol.
//!
//! ```text
//! attempt: parts of an upload ──▶ list of uploads, in the cluster's store ──▶ commit, which names the list
//!                                                                                │ the job's commit is durable
//! publisher: uploads are completed, one by one ──▶ _weft.manifest, if it is still the one that was read
//!                                                                                │ the job has ended
//! clean-up: replaced files are deleted; or, of a job that failed, the manifest goes back, and its uploads
//!           are aborted, its files deleted
//! ```
//!
//! Nobody sees a file before it is completed, under a key that holds job and attempt: so a completion cannot meet
//! somebody else's file, and repeating it does no harm. Readers that list keys see the files of a job appear one by
//! one; those that read the manifest see all of them or none. Uploads of attempts that were never committed are found
//! by the job's id in their keys, and aborted when the job has ended.

mod cleanup;
mod ledger;
mod publish;
mod steps;
mod swap;
mod upload;
mod uploader;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path as FsPath;

use futures::TryStreamExt;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{MultipartId, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use weft_core::{JobId, StoreKind};

pub use self::cleanup::Ended;
use self::ledger::Change;
pub use self::ledger::Ledger;
pub(super) use self::ledger::holds_output;
use self::steps::Seen;
use self::swap::{Swap, Turn, Written};
pub use self::uploader::{UPLOAD_FAILED, UPLOAD_FORBIDDEN};
pub(super) use self::uploader::{UploadFile, Uploader};
use super::folder::Holding;
use super::manifest::{MANIFEST, MANIFEST_BYTES_MAX, Manifest, ManifestFile, decode_manifest};
use crate::error::{Error, Result};
use crate::pause::pause;
use crate::remote::{Remote, fetch_ranges, range_of};
use crate::requests::RequestKind;

/// Characters of a job's id after `job-`.
const JOB_DIGITS: usize = 26;
/// Objects that a look into a folder passes over. A folder with more that no reader sees is taken for somebody else's.
const MAX_PASSED: usize = 10_000;

/// The folder of an output on an object store: a beginning of keys. Clones share the connections.
#[derive(Debug, Clone)]
pub struct ObjectFolder {
    remote: Remote,
    root: Path,
    /// It lies in the cluster's own store, where a missing right is not the user's.
    is_of_cluster: bool,
}

/// A manifest that was read, and its version.
struct Found {
    manifest: Manifest,
    version: UpdateVersion,
}

impl ObjectFolder {
    /// The folder with these whole keys.
    ///
    /// Errors: `Unpublishable` for a kind of store on which nothing can be published.
    pub(crate) fn new(remote: Remote, root: Path) -> Result<Self> {
        match remote.location().kind {
            StoreKind::S3 => Ok(Self {
                remote,
                root,
                is_of_cluster: false,
            }),
            // An abort does nothing on Azure: what was withdrawn could be completed still. On Google's store, nothing
            // of this has been tried.
            StoreKind::Gcs | StoreKind::Azure => Err(Error::Unpublishable(remote.uri_of(&root))),
        }
    }

    /// The same folder, of the cluster's own store.
    pub(crate) fn of_cluster(self) -> Self {
        Self {
            is_of_cluster: true,
            ..self
        }
    }

    /// The location, for people: `s3://bucket/out`.
    pub fn uri(&self) -> String {
        self.remote.uri_of(&self.root)
    }

    /// The folder's own whole key.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The store that it lies in.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The whole key of a file of the folder. Errors: the name is not one of a key.
    pub fn path(&self, key: &str) -> Result<Path> {
        let root: &str = self.root.as_ref();
        let whole = match root {
            "" => key.to_owned(),
            root => format!("{root}/{key}"),
        };
        Path::parse(&whole).map_err(|error| Error::Encoding(error.to_string()))
    }

    /// Objects of the bucket, for a request that is counted.
    fn objects(&self, request: RequestKind) -> &dyn ObjectStore {
        self.remote.requests().count(request);
        self.remote.objects.as_ref()
    }

    /// Uploads of the bucket, for a request that is counted: each writes something.
    fn uploads(&self) -> &dyn MultipartStore {
        self.remote.requests().count(RequestKind::Put);
        self.remote.uploads.as_ref()
    }

    /// Aborts an upload. Providers charge for it as little as for a removal.
    async fn abort(&self, path: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.remote.requests().count(RequestKind::Delete);
        self.remote.uploads.abort_multipart(path, id).await
    }

    /// The error of a request about a whole key. A missing right is the user's in folders that a job names.
    fn error(&self, request: RequestKind, path: &Path, source: object_store::Error) -> Error {
        let error = self.remote.error(path, source);
        match self.is_of_cluster {
            true => error,
            false => error.of_output(request.right()),
        }
    }

    /// Starts an upload and aborts it, so that a folder that cannot be written to is found out before the work is
    /// done.
    pub async fn prepare(&self, job: &JobId) -> Result<()> {
        let path = self.path(&probe_of(job))?;
        let failed = |error| self.error(RequestKind::Put, &path, error);
        let id = self.uploads().create_multipart(&path).await;
        let id = id.map_err(failed)?;
        // One that stays is found by the job's id when the job has ended.
        let _ = self.abort(&path, &id).await;
        Ok(())
    }

    /// Looks into the folder, as a new job finds it.
    pub async fn look_into(&self) -> Result<Holding> {
        if let Some(manifest) = self.read_manifest().await?
            && holds_output(&manifest)
        {
            return Ok(Holding::Output(Box::new(manifest)));
        }
        let failed = |error| self.error(RequestKind::List, &self.root, error);
        let mut objects = self.objects(RequestKind::List).list(Some(&self.root));
        let mut is_unfinished = false;
        for _ in 0..MAX_PASSED {
            let Some(object) = objects.try_next().await.map_err(failed)? else {
                return Ok(match is_unfinished {
                    true => Holding::Unfinished,
                    false => Holding::Nothing,
                });
            };
            let (key, root): (&str, &str) = (object.location.as_ref(), self.root.as_ref());
            let key = key.strip_prefix(root).unwrap_or(key);
            let key = key.trim_start_matches('/');
            if key.starts_with('.') || key == MANIFEST {
                continue;
            }
            if job_of(key).is_none() {
                return Ok(Holding::Foreign);
            }
            is_unfinished = true;
        }
        Ok(Holding::Foreign)
    }

    /// The manifest of the folder, if it has one.
    pub async fn read_manifest(&self) -> Result<Option<Manifest>> {
        Ok(self.read().await?.map(|found| found.manifest))
    }

    /// The manifest of the folder, for a thread that waits. Must not be called on the runtime that drives the
    /// connections.
    pub fn wait_for_manifest(&self) -> Result<Option<Manifest>> {
        let (send, found) = std::sync::mpsc::sync_channel(1);
        let folder = self.clone();
        self.remote.io().spawn(async move {
            // Whoever asked may have gone.
            let _ = send.send(folder.read_manifest().await);
        });
        let closed = |_| Error::Encoding("the store's connections are closed".into());
        found.recv().map_err(closed)?
    }

    /// Writes a file that the manifest lists to `to`, which must not be there. It is fetched in ranges, as a request
    /// has a time limit, and appears whole or not at all.
    ///
    /// Errors: `StagedFileLost` if it is not there as the manifest says.
    pub async fn fetch(&self, file: &ManifestFile, to: &FsPath) -> Result<()> {
        let unwritten = |error| Error::file(to, error);
        let folder = to.parent().unwrap_or(to);
        std::fs::create_dir_all(folder).map_err(unwritten)?;
        let draft = tempfile::NamedTempFile::new_in(folder).map_err(unwritten)?;
        self.write_ranges(file, draft.as_file(), to).await?;
        let kept = draft.persist_noclobber(to);
        kept.map(drop).map_err(|error| unwritten(error.error))
    }

    async fn write_ranges(
        &self,
        file: &ManifestFile,
        mut written: &std::fs::File,
        to: &FsPath,
    ) -> Result<()> {
        let path = self.path(file.key())?;
        let failed = |error| self.remote.error(&path, error);
        let lost = || Error::StagedFileLost(self.remote.uri_of(&path));
        let mut e_tag = None;
        for range in fetch_ranges(file.bytes) {
            let objects = self.objects(RequestKind::Get);
            let found = objects.get_opts(&path, range_of(range, e_tag)).await;
            let found = match found {
                Err(object_store::Error::Precondition { .. }) => return Err(lost()),
                found => found.map_err(failed)?,
            };
            if found.meta.size != file.bytes {
                return Err(lost());
            }
            e_tag = found.meta.e_tag.clone();
            let bytes = found.bytes().await.map_err(failed)?;
            let done = written.write_all(&bytes);
            done.map_err(|error| Error::file(to, error))?;
        }
        Ok(())
    }

    async fn read(&self) -> Result<Option<Found>> {
        let path = self.path(MANIFEST)?;
        let failed = |error| self.error(RequestKind::Get, &path, error);
        let wrong = |what: &str| Error::ForeignManifest {
            uri: self.remote.uri_of(&path),
            what: what.to_owned(),
        };
        let found = match self.objects(RequestKind::Get).get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(failed)?,
        };
        if found.meta.size > MANIFEST_BYTES_MAX {
            return Err(wrong("it is too large"));
        }
        let version = UpdateVersion {
            e_tag: found.meta.e_tag.clone(),
            version: found.meta.version.clone(),
        };
        let written = u64::try_from(found.meta.last_modified.timestamp()).unwrap_or(0);
        let text = found.bytes().await.map_err(failed)?;
        let mut manifest = decode_manifest(&text).map_err(|what| wrong(&what))?;
        if let Some(ledger) = &mut manifest.ledger {
            ledger.stamp(written);
        }
        Ok(Some(Found { manifest, version }))
    }

    /// Changes the manifest, whoever else does. `decide` is asked anew whenever it was read, and must know its own
    /// change when it sees it.
    async fn change(
        &self,
        decide: impl Fn(Option<&Manifest>) -> Result<Change> + Send + Sync,
    ) -> Result<()> {
        let path = self.path(MANIFEST)?;
        let mut swap = Swap::default();
        let mut version = None;
        let mut failure: Option<Error> = None;
        let mut turn = Turn::Read;
        loop {
            turn = match turn {
                Turn::Read => {
                    pause(swap.tries()).await;
                    match self.read().await {
                        Ok(found) => {
                            let (manifest, of) =
                                found.map(|found| (found.manifest, found.version)).unzip();
                            version = of;
                            let change = match decide(manifest.as_ref())? {
                                Change::Nothing => None,
                                Change::Write(manifest) => Some(manifest),
                            };
                            // It was refused before, not done unseen, and would be again.
                            match failure.take_if(|error| is_refusal(error)) {
                                Some(refused) if change.is_some() => return Err(refused),
                                _ => swap.decided(change),
                            }
                        }
                        Err(error) if error.kind() == crate::ErrorKind::Unavailable => {
                            failure = Some(error);
                            swap.unread()
                        }
                        Err(error) => return Err(error),
                    }
                }
                Turn::Write(manifest) => {
                    let text = encode(&manifest)?;
                    let mode = version.take().map_or(PutMode::Create, PutMode::Update);
                    let objects = self.objects(RequestKind::Put);
                    let put = objects.put_opts(&path, text.into(), mode.into()).await;
                    let answer = Written::of(&put);
                    let failed = |error| self.error(RequestKind::Put, &path, error);
                    failure = put.err().map(failed);
                    swap.written(answer)
                }
                Turn::Done => return Ok(()),
                Turn::GivenUp => {
                    return Err(failure
                        .unwrap_or_else(|| Error::Encoding("a manifest was not written".into())));
                }
            };
        }
    }

    /// Looks at an object that may be what an attempt wrote.
    async fn look(&self, path: &Path, bytes: u64, e_tag: &str) -> (Seen, Option<Error>) {
        match self.objects(RequestKind::Head).head(path).await {
            Ok(found) => {
                let is_ours = found.size == bytes || found.e_tag.as_deref() == Some(e_tag);
                (Seen::There { is_ours }, None)
            }
            Err(object_store::Error::NotFound { .. }) => (Seen::Missing, None),
            Err(error) => {
                let error = self.error(RequestKind::Head, path, error);
                (Seen::Unknown, Some(error))
            }
        }
    }
}

fn is_refusal(error: &Error) -> bool {
    error.kind() == crate::ErrorKind::Refused
}

/// Encodes a manifest. Errors: readers would refuse it for its size.
fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    let text = serde_json::to_vec_pretty(manifest);
    let text = text.map_err(|error| Error::Encoding(error.to_string()))?;
    let is_small = u64::try_from(text.len()).is_ok_and(|bytes| bytes <= MANIFEST_BYTES_MAX);
    match is_small {
        true => Ok(text),
        false => Err(Error::OverLimit {
            what: format!(
                "the manifest would have {} bytes; {MANIFEST_BYTES_MAX} are allowed: start another folder",
                text.len()
            ),
        }),
    }
}

/// The job whose attempt writes to a key. Its last part says so: the folders before are values of `partition_by`.
fn job_of(key: &str) -> Option<&str> {
    let name = key.rsplit('/').next().unwrap_or(key);
    let (_, id) = name.strip_prefix("part-")?.rsplit_once("-job-")?;
    let start = name.len() - id.len() - "job-".len();
    let end = start + "job-".len() + JOB_DIGITS;
    let id = name.get(start..end)?;
    let has_digits = !id["job-".len()..].contains('-') && id.parse::<JobId>().is_ok();
    (has_digits && name[end..].starts_with('-')).then_some(id)
}

/// Returns whether a key is one that attempts of this job write to.
fn is_of(job: &JobId, key: &str) -> bool {
    job_of(key) == Some(job.as_str())
}

/// The key of the upload by which a job tries whether it can write to a folder.
fn probe_of(job: &JobId) -> String {
    format!(".weft-{job}/probe")
}

/// The key of a file that an attempt writes, by the file's name: `part-days-00000.csv` becomes
/// `part-days-00000-<job>-<attempt>.csv`.
fn key_of(name: &str, job: &JobId, attempt: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}-{job}-{attempt}.{extension}"),
        None => format!("{name}-{job}-{attempt}"),
    }
}
