//! Clean-up of an output on an object store when its job has ended.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use weft_core::JobId;
use weft_protocol::ManifestOutput;

use super::ledger::{replaced_by, replaces, with_withdrawal, without_replaced};
use super::steps::{Answer, Removal, Removing};
use super::upload::{Upload, remaining_uploads};
use super::{ObjectFolder, is_of, pause, probe_of};
use crate::blobs::Blobs;
use crate::error::{Error, Result};
use crate::requests::RequestKind;

/// Removals that are under way at a time.
const REMOVALS_AT_A_TIME: usize = 16;

/// How the job of an output has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The job's files stay, and those that it replaced go.
    Succeeded,
    /// The job's files go, and those that it replaced stay.
    Failed {
        /// All tasks were committed, so somebody may have published files, and may still.
        may_publish: bool,
    },
}

impl ObjectFolder {
    /// Removes what a job that has ended left in the folder. Repeating it changes nothing.
    ///
    /// `output`: with all files that its tasks committed. `blobs`: the cluster's store, which has the lists of uploads;
    /// those that are gone were cleaned up before. Uploads that no commit names stay for [`Self::abort_uploads_of`].
    ///
    /// Errors: `ForeignManifest`, once all is removed that can be removed without the folder's manifest.
    pub async fn clean(
        &self,
        blobs: &Blobs,
        job: &JobId,
        output: &ManifestOutput,
        ended: Ended,
    ) -> Result<()> {
        match ended {
            Ended::Succeeded => self.remove_replaced(job).await,
            Ended::Failed { may_publish } => {
                let uploads = remaining_uploads(blobs, job, &output.files).await?;
                self.withdraw(job, output, &uploads, may_publish).await
            }
        }
    }

    /// Removes the files that a job has replaced, and that do not come back, then forgets them.
    async fn remove_replaced(&self, job: &JobId) -> Result<()> {
        loop {
            let found = self.read_manifest().await?;
            if !replaces(found.as_ref(), job) {
                return Ok(());
            }
            let keys = replaced_by(found.as_ref(), job);
            let deletions: Vec<_> = keys.iter().map(|key| self.delete(key)).collect();
            let deletions = stream::iter(deletions).buffer_unordered(REMOVALS_AT_A_TIME);
            deletions.try_collect::<Vec<()>>().await?;
            weft_failpoint::hit("replaced-removed");
            // Each further turn is due to another job that was withdrawn meanwhile.
            self.change(|found| Ok(without_replaced(found, job, &keys)))
                .await?;
        }
    }

    /// Aborts the uploads of a job that has ended and that nobody will complete: those of attempts that were never
    /// committed. Returns how many there were; none of a store that cannot list them.
    pub async fn abort_uploads_of(&self, job: &JobId) -> Result<usize> {
        let Some(pending) = &self.remote.pending else {
            return Ok(0);
        };
        let failed = |path: &Path, error| self.remote.error(path, error);
        self.remote.requests().count(RequestKind::List);
        let root: &str = self.root.as_ref();
        let keys = match root {
            "" => String::new(),
            root => format!("{root}/"),
        };
        let listed = pending.uploads_of(&keys).await;
        let listed = listed.map_err(|error| failed(&self.root, error))?;
        let probe = self.path(&probe_of(job))?;
        let (mut aborted, mut failure) = (0, None);
        for (path, id) in listed {
            let is_below = path.prefix_matches(&self.root);
            let is_ours = path == probe || is_of(job, path.as_ref());
            if !is_below || !is_ours {
                continue;
            }
            match self.abort(&path, &id).await {
                Ok(()) => aborted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                // The others need not stay for its sake.
                Err(error) => failure = Some(failed(&path, error)),
            }
        }
        failure.map_or(Ok(aborted), Err)
    }

    /// Deletes an object; one that is not there is deleted already.
    async fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        match self.objects(RequestKind::Delete).delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.remote.error(&path, error)),
        }
    }

    /// Takes back a job that did not succeed: first the manifest, so that it never lists what is not there, and no
    /// publisher writes it any more; then the uploads and files.
    pub(super) async fn withdraw(
        &self,
        job: &JobId,
        output: &ManifestOutput,
        uploads: &[Upload],
        may_publish: bool,
    ) -> Result<()> {
        let mut foreign = None;
        // Otherwise nobody has ever published.
        if may_publish {
            let changed = self
                .change(|found| Ok(with_withdrawal(found, job, output)))
                .await;
            match changed {
                // It lists nothing of ours, and no publisher gets past it either.
                Err(error @ Error::ForeignManifest { .. }) => foreign = Some(error),
                changed => changed?,
            }
            weft_failpoint::hit("withdraw-manifest");
        }
        let removals: Vec<_> = uploads.iter().map(|upload| self.remove(upload)).collect();
        let removals = stream::iter(removals).buffer_unordered(REMOVALS_AT_A_TIME);
        removals.try_collect::<Vec<()>>().await?;
        match foreign {
            Some(error) => Err(error),
            // Somebody may have replaced the job's files for good: then what it had replaced is nobody's.
            None if may_publish => self.remove_replaced(job).await,
            None => Ok(()),
        }
    }

    /// Aborts an upload, and deletes the object if the upload was completed.
    async fn remove(&self, upload: &Upload) -> Result<()> {
        let path = self.path(&upload.key)?;
        let mut step = Removal::default();
        let mut failure = None;
        let mut next = Removing::Abort;
        loop {
            next = match next {
                Removing::Abort => {
                    weft_failpoint::hit("withdraw");
                    pause(step.tries()).await;
                    let done = self.abort(&path, &upload.id).await;
                    let answer = Answer::of(&done);
                    failure = done.err().map(|error| self.remote.error(&path, error));
                    step.aborted(answer)
                }
                Removing::Look => {
                    pause(step.tries()).await;
                    let (seen, error) = self.look(&path, upload.bytes, &upload.e_tag).await;
                    failure = error.or(failure);
                    step.looked(seen)
                }
                Removing::Delete => {
                    let done = self.objects(RequestKind::Delete).delete(&path).await;
                    failure = done.err().map(|error| self.remote.error(&path, error));
                    step.deleted()
                }
                Removing::Gone => return Ok(()),
                Removing::GivenUp => {
                    let uri = || self.remote.uri_of(&path);
                    return Err(failure.unwrap_or_else(|| Error::OutputExists(uri())));
                }
            };
        }
    }
}
