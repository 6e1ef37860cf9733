//! Publication of one output on an object store: uploads are completed, then the manifest is written.

use futures::{StreamExt, TryStreamExt, stream};
use weft_core::JobId;
use weft_protocol::{ManifestOutput, PublishedOutput};

use super::super::publish::published;
use super::ledger::{Change, with_publication};
use super::steps::{Answer, Completing, Completion};
use super::upload::{Pending, uploads_of};
use super::{ObjectFolder, pause};
use crate::blobs::Blobs;
use crate::error::{Error, Result};
use crate::requests::RequestKind;

/// Completions that are under way at a time.
const COMPLETIONS_AT_A_TIME: usize = 16;

impl ObjectFolder {
    /// Makes the files of one output visible, then writes its manifest.
    ///
    /// Repeating it changes nothing, whoever does it and however far somebody else has come.
    ///
    /// `blobs`: the cluster's store, which has the lists of uploads. Errors: `OutputExists` or `AppendMismatch` as the
    /// output's mode has it, `StagedFileLost`, `Withdrawn` if the job has ended.
    pub async fn publish(
        &self,
        blobs: &Blobs,
        job: &JobId,
        output: &ManifestOutput,
    ) -> Result<PublishedOutput> {
        let pending = uploads_of(blobs, job, &output.files).await?;
        let found = self.read_manifest().await?;
        // What is refused is refused before anything can be seen of it.
        if let Change::Write(_) = with_publication(found.as_ref(), job, output, &pending)? {
            let completions: Vec<_> = pending.iter().map(|one| self.complete(one)).collect();
            let completions = stream::iter(completions).buffer_unordered(COMPLETIONS_AT_A_TIME);
            completions.try_collect::<Vec<()>>().await?;
            weft_failpoint::hit("publish-completed");
            self.change(|found| with_publication(found, job, output, &pending))
                .await?;
            weft_failpoint::hit("publish-manifest");
        }
        Ok(published(output))
    }

    /// Completes the upload of one file, unless somebody has done so before.
    pub(super) async fn complete(&self, pending: &Pending) -> Result<()> {
        let upload = &pending.upload;
        let path = self.path(&upload.key)?;
        let lost = || Error::StagedFileLost(self.remote.uri_of(&path));
        let mut step = Completion::default();
        let mut failure = None;
        let mut next = Completing::Complete;
        loop {
            next = match next {
                Completing::Complete => {
                    weft_failpoint::hit("publish");
                    pause(step.tries()).await;
                    let parts = upload.part_ids();
                    let done = self.uploads().complete_multipart(&path, &upload.id, parts);
                    let done = done.await;
                    let answer = Answer::of(&done);
                    let failed = |error| self.error(RequestKind::Put, &path, error);
                    failure = done.err().map(failed);
                    step.completed(answer)
                }
                Completing::Look => {
                    pause(step.tries().saturating_sub(1)).await;
                    let (seen, error) = self.look(&path, upload.bytes, &upload.e_tag).await;
                    failure = error.or(failure);
                    step.looked(seen)
                }
                Completing::Published => return Ok(()),
                Completing::Lost => return Err(lost()),
                Completing::Foreign => {
                    return Err(Error::OutputExists(self.remote.uri_of(&path)));
                }
                Completing::GivenUp => return Err(failure.unwrap_or_else(lost)),
            };
        }
    }
}
