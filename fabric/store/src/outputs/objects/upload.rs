//! Uploads of attempts, as their lists name them: all that somebody needs to complete or abort them.
//!
//! A list lies in the cluster's store, and the commit of the attempt names it. So the replicated state keeps neither
//! upload ids nor ETags of parts, and an upload outlives the process that made it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use md5::{Digest, Md5};
use object_store::multipart::PartId;
use serde::{Deserialize, Serialize};
use weft_core::JobId;
use weft_protocol::{SinkFile, job_prefix};

use super::super::manifest::is_within;
use super::is_of;
use crate::blobs::Blobs;
use crate::error::{Error, Result};

/// Bytes of the list of one attempt and output. Executors write lists, and controllers read them.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// Lists that are read at a time.
const READS_AT_A_TIME: usize = 16;

/// A file in the form of an upload that nobody has completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    /// The file's name, as the commit has it.
    pub(super) name: String,
    /// The key below the output's folder. No other attempt writes to it.
    pub(super) key: String,
    /// The store's id of the upload.
    pub(super) id: String,
    /// The store's ids of the parts, in order.
    pub(super) parts: Vec<String>,
    /// Size of the file.
    pub(super) bytes: u64,
    /// ETag that S3 gives to the object, unless it encrypts with keys of its own.
    pub(super) e_tag: String,
}

impl Upload {
    pub(super) fn part_ids(&self) -> Vec<PartId> {
        let ids = self.parts.iter().cloned();
        ids.map(|content_id| PartId { content_id }).collect()
    }
}

/// Uploads of one attempt for one output.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct UploadList {
    pub(super) uploads: Vec<Upload>,
}

impl UploadList {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(self).map_err(|error| Error::Encoding(error.to_string()))?;
        match text.len() as u64 <= MAX_LIST_BYTES {
            true => Ok(text),
            false => Err(Error::OverLimit {
                what: format!(
                    "the list of {} uploads has {} bytes; {MAX_LIST_BYTES} are allowed: fewer files from one task",
                    self.uploads.len(),
                    text.len()
                ),
            }),
        }
    }

    fn decode(key: &str, text: &[u8], job: &JobId) -> Result<Self> {
        let wrong = |what: &str| Error::Encoding(format!("the list of uploads `{key}`: {what}"));
        let list: Self = serde_json::from_slice(text).map_err(|error| wrong(&error.to_string()))?;
        // An executor wrote it, and a controller deletes what it names.
        let is_ours = |upload: &Upload| is_within(&upload.key) && is_of(job, &upload.key);
        match list.uploads.iter().all(is_ours) {
            true => Ok(list),
            false => Err(wrong("it names keys that are not of the job's files")),
        }
    }
}

/// A file that a commit names, and its upload.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) file: SinkFile,
    pub(super) upload: Upload,
}

/// Reads the uploads of committed files. Errors: `StagedFileLost` if no list has one of them.
pub(super) async fn uploads_of(
    blobs: &Blobs,
    job: &JobId,
    files: &[SinkFile],
) -> Result<Vec<Pending>> {
    let lists = lists(files);
    let reads: Vec<_> = lists
        .into_iter()
        .map(|key| read_list(blobs, job, key))
        .collect();
    let reads = stream::iter(reads).buffer_unordered(READS_AT_A_TIME);
    let lists: BTreeMap<String, BTreeMap<String, Upload>> = reads.try_collect().await?;
    let pending = |file: &SinkFile| {
        let list = lists.get(&file.staged);
        let upload = list.and_then(|uploads| uploads.get(&file.name));
        let upload = upload.filter(|upload| upload.bytes == file.bytes).cloned();
        Ok(Pending {
            file: file.clone(),
            upload: upload.ok_or_else(|| Error::StagedFileLost(file.name.clone()))?,
        })
    };
    files.iter().map(pending).collect()
}

/// Reads the uploads of committed files as far as there are lists: those of a job whose clean-up was repeated are gone.
pub(super) async fn remaining_uploads(
    blobs: &Blobs,
    job: &JobId,
    files: &[SinkFile],
) -> Result<Vec<Upload>> {
    let lists = lists(files).into_iter();
    let reads: Vec<_> = lists.map(|key| read_list(blobs, job, key)).collect();
    let mut reads = stream::iter(reads).buffer_unordered(READS_AT_A_TIME);
    let mut uploads = Vec::new();
    while let Some(read) = reads.next().await {
        match read {
            Ok((_, list)) => uploads.extend(list.into_values()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(uploads)
}

fn lists(files: &[SinkFile]) -> BTreeSet<String> {
    files.iter().map(|file| file.staged.clone()).collect()
}

async fn read_list(
    blobs: &Blobs,
    job: &JobId,
    key: String,
) -> Result<(String, BTreeMap<String, Upload>)> {
    let own = job_prefix(job);
    let is_own = key
        .strip_prefix(&own)
        .is_some_and(|rest| rest.starts_with('/'));
    if !is_own {
        return Err(Error::StagedFileLost(key));
    }
    let text = blobs.get_within(&key, MAX_LIST_BYTES).await?;
    let list = UploadList::decode(&key, &text, job)?;
    let uploads = list.uploads.into_iter();
    let by_name = uploads.map(|upload| (upload.name.clone(), upload));
    Ok((key, by_name.collect()))
}

/// The ETag that S3 gives to an object of parts with these MD5 digests.
pub(super) fn e_tag_of(parts: &[[u8; 16]]) -> String {
    format!("\"{}-{}\"", hex(&Md5::digest(parts.concat())), parts.len())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::key_of;
    use super::*;

    #[test]
    fn an_etag_is_foretold_as_s3_makes_it() {
        let digest = |part: &[u8]| <[u8; 16]>::from(Md5::digest(part));
        // MD5 of the MD5 of nothing.
        assert_eq!(
            e_tag_of(&[digest(b"")]),
            "\"59adb24ef3cdbe0297f05b395827453f-1\""
        );
        assert!(e_tag_of(&[digest(b"a"), digest(b"b")]).ends_with("-2\""));
    }

    #[test]
    fn keys_of_others_are_refused() {
        let (job, other) = (JobId::new(1, 1), JobId::new(1, 2));
        let upload = |key: String| Upload {
            name: "part-a-00000.csv".into(),
            key,
            id: "1".into(),
            parts: Vec::new(),
            bytes: 0,
            e_tag: String::new(),
        };
        let of = |job| key_of("day=1/part-a-00000.csv", job, "a-1-1");
        for (key, is_right) in [
            (of(&job), true),
            (of(&other), false),
            (format!("../{}", of(&job)), false),
            (format!("/{}", of(&job)), false),
            ("theirs.csv".into(), false),
        ] {
            let list = UploadList {
                uploads: vec![upload(key.clone())],
            };
            let text = list.encode().expect("JSON");
            let decoded = UploadList::decode("list", &text, &job);
            assert_eq!(decoded.is_ok(), is_right, "{key}");
        }
    }

    #[tokio::test]
    async fn a_list_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(folder.path()).expect("a store");
        blobs.put("list", "12345").await.expect("it is written");
        let read = blobs.get_within("list", 5).await;
        assert_eq!(read.expect("it fits"), "12345");
        let error = blobs.get_within("list", 4).await.expect_err("it does not");
        assert_eq!(error.kind(), crate::ErrorKind::OverLimit, "{error}");
    }
}
