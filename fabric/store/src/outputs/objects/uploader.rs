//! Uploads of one attempt for one output: parts go out while rows are still coming.
//!
//! ```text
//! encoder ──▶ UploadFile: an unnamed file of at most one part ──part──▶ worker ──▶ store
//!                 waits while MAX_PARTS_SENT are on their way ◀──done─────┘
//! ```
//!
//! Rows are encoded on a thread that may wait and has no connections; a worker on the runtime of the store's
//! connections sends. A sink may have many files open, so what is less than a part waits on the disk, and memory holds
//! the parts that are on their way only.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path as FsPath;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc as replies};

use bytes::Bytes;
use md5::{Digest, Md5};
use tokio::sync::mpsc;
use weft_core::{JobId, lock};
use weft_protocol::SinkFile;
use xxhash_rust::xxh3::Xxh3;

use super::upload::{Upload, UploadList, e_tag_of};
use super::{ObjectFolder, key_of};
use crate::blobs::Blobs;
use crate::error::{Error, Result};
use crate::requests::RequestKind;

/// Bytes of a part but the last. Stores take no parts below 5 MiB, and some want all of one size.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file, which S3 bounds.
const MAX_PARTS: usize = 10_000;
/// Parts of one sink that are on their way; past it, its rows wait. Each is in memory once.
const MAX_PARTS_SENT: usize = 2;
/// Requests that the worker has not taken: parts on their way, the end of a file, the end of all.
const MAX_REQUESTS: usize = MAX_PARTS_SENT + 2;
/// How errors of an upload begin, which encoders wrap in errors of their own.
pub const UPLOAD_FAILED: &str = "an upload to the object store failed";
/// The same of an upload for which the user lacks a right.
pub const UPLOAD_FORBIDDEN: &str = "an upload to the object store is not allowed";
/// Bytes of a key, which S3 bounds.
const MAX_KEY_BYTES: usize = 1024;

/// Work that the worker is asked for. Each has one reply.
struct Request {
    work: Work,
    reply: replies::SyncSender<Result<()>>,
}

enum Work {
    /// The next part of a file, in order.
    Part { key: String, part: Bytes },
    /// All parts of a file are there.
    End { key: String, upload: Box<Upload> },
    /// All files have ended: their list is written under this key.
    Seal { key: String },
}

/// The way to the worker, which files of a sink share.
struct Line {
    requests: mpsc::Sender<Request>,
    /// Replies to parts that are on their way, oldest first.
    sent: VecDeque<replies::Receiver<Result<()>>>,
}

fn gone() -> Error {
    Error::Encoding("the uploads of an output were stopped".into())
}

impl Line {
    fn request(&self, work: Work) -> Result<replies::Receiver<Result<()>>> {
        let (reply, answer) = replies::sync_channel(1);
        let sent = self.requests.try_send(Request { work, reply });
        sent.map_err(|_| gone())?;
        Ok(answer)
    }

    /// Sends a part. Waits while enough are on their way, and reports one that failed.
    fn part(&mut self, key: &str, part: Bytes) -> Result<()> {
        self.wait_until(MAX_PARTS_SENT - 1)?;
        let key = key.to_owned();
        let answer = self.request(Work::Part { key, part })?;
        self.sent.push_back(answer);
        Ok(())
    }

    /// Waits until so few parts are on their way.
    fn wait_until(&mut self, left: usize) -> Result<()> {
        while self.sent.len() > left {
            let oldest = self.sent.pop_front().expect("there are some");
            oldest.recv().unwrap_or_else(|_| Err(gone()))?;
        }
        Ok(())
    }

    /// Has something done after all that was sent, and waits for it.
    fn finish(&mut self, work: Work) -> Result<()> {
        self.wait_until(0)?;
        let answer = self.request(work)?;
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// Uploads of one attempt for one output. If it is dropped before [`Self::finish`], they are aborted.
pub(in super::super) struct Uploader {
    line: Arc<Mutex<Line>>,
    job: JobId,
    attempt: String,
    list: String,
    spool: Arc<FsPath>,
    /// Bytes of a key that come before the folder's files.
    root_bytes: usize,
}

impl Uploader {
    /// Starts a worker on the runtime of the store's connections.
    ///
    /// `attempt`: its name, which no other attempt has. `list`: key of the list of uploads in `blobs`, the cluster's
    /// store. What is less than a part waits in unnamed files in `spool`.
    pub(in super::super) fn start(
        folder: ObjectFolder,
        blobs: Blobs,
        job: &JobId,
        attempt: &str,
        list: String,
        spool: &FsPath,
    ) -> Self {
        let (requests, queue) = mpsc::channel(MAX_REQUESTS);
        let io = folder.remote.io().clone();
        let root: &str = folder.root.as_ref();
        let root_bytes = root.len() + usize::from(!root.is_empty());
        let worker = Worker {
            folder,
            blobs,
            open: HashMap::new(),
            ended: UploadList::default(),
        };
        // It ends with the line, and its requests with the store's own bounds.
        io.spawn(worker.run(queue));
        Self {
            line: Arc::new(Mutex::new(Line {
                requests,
                sent: VecDeque::new(),
            })),
            job: job.clone(),
            attempt: attempt.to_owned(),
            list,
            spool: spool.into(),
            root_bytes,
        }
    }

    /// Starts the file `name`, as it is called once it is published.
    pub(in super::super) fn file(&self, name: &str) -> Result<UploadFile> {
        let key = key_of(name, &self.job, &self.attempt);
        let n = self.root_bytes + key.len();
        if n > MAX_KEY_BYTES {
            return Err(Error::OverLimit {
                what: format!(
                    "the key of `{key}` has {n} bytes with its folder; {MAX_KEY_BYTES} are allowed: `partition_by` \
                     columns with shorter values, or a folder with a shorter name"
                ),
            });
        }
        let failed = |error| Error::file(&self.spool, error);
        let spool = tempfile::tempfile_in(&self.spool).map_err(failed)?;
        Ok(UploadFile {
            line: Arc::clone(&self.line),
            list: self.list.clone(),
            key,
            spool: io::BufWriter::with_capacity(1 << 16, spool),
            spooled: 0,
            digests: Vec::new(),
            bytes: Arc::default(),
            hash: Xxh3::new(),
        })
    }

    /// Writes the list of the uploads whose files have ended. From now on whoever has the list owns them.
    pub(in super::super) fn finish(self) -> Result<()> {
        let key = self.list.clone();
        lock(&self.line).finish(Work::Seal { key })
    }
}

/// A file that is uploaded while it is written; counts and hashes what passes through.
pub struct UploadFile {
    line: Arc<Mutex<Line>>,
    list: String,
    key: String,
    /// The part that is being filled.
    spool: io::BufWriter<File>,
    spooled: usize,
    /// MD5 of each part that was sent.
    digests: Vec<[u8; 16]>,
    bytes: Arc<AtomicU64>,
    hash: Xxh3,
}

impl UploadFile {
    /// Bytes that were written so far, for those who have handed the file to an encoder.
    pub(in super::super) fn written_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// Fails if the file has as many parts as it may have.
    fn check_parts(&self) -> Result<()> {
        if self.digests.len() < MAX_PARTS {
            return Ok(());
        }
        let most = MAX_PARTS as u64 * PART_BYTES as u64;
        let what = format!("a file may have {most} bytes: more `partitions`");
        Err(Error::OverLimit { what })
    }

    /// Sends what is spooled as a part.
    fn send(&mut self) -> Result<()> {
        self.check_parts()?;
        let part = self.take_spooled();
        let part = part.map_err(|error| Error::file(FsPath::new(&self.key), error))?;
        self.digests.push(Md5::digest(&part).into());
        lock(&self.line).part(&self.key, part.into())
    }

    /// Takes what is spooled out of its file.
    fn take_spooled(&mut self) -> io::Result<Vec<u8>> {
        self.spool.flush()?;
        let spool = self.spool.get_mut();
        let mut part = vec![0; self.spooled];
        spool.rewind()?;
        spool.read_exact(&mut part)?;
        spool.rewind()?;
        self.spooled = 0;
        Ok(part)
    }

    /// Sends the rest and describes the file. `name`: as it is called once it is published.
    pub(in super::super) fn finish(
        mut self,
        output: &str,
        name: String,
        rows: u64,
    ) -> Result<SinkFile> {
        // A file without bytes is one empty part.
        if self.spooled > 0 || self.digests.is_empty() {
            self.send()?;
        }
        let bytes = self.bytes.load(Ordering::Relaxed);
        let upload = Upload {
            name: name.clone(),
            key: self.key.clone(),
            id: String::new(),
            parts: Vec::new(),
            bytes,
            e_tag: e_tag_of(&self.digests),
        };
        let key = self.key;
        let upload = Box::new(upload);
        lock(&self.line).finish(Work::End { key, upload })?;
        Ok(SinkFile {
            output: output.to_owned(),
            staged: self.list,
            name,
            rows,
            bytes,
            xxh3: format!("{:016x}", self.hash.digest()),
        })
    }
}

/// An error of an upload as one of a file, which is all that encoders pass on. Its first words say what it is.
fn told(error: Error) -> io::Error {
    match error {
        Error::OverLimit { .. } => io::Error::new(io::ErrorKind::FileTooLarge, error.to_string()),
        Error::Forbidden { .. } => io::Error::other(format!("{UPLOAD_FORBIDDEN}: {error}")),
        error => io::Error::other(format!("{UPLOAD_FAILED}: {error}")),
    }
}

impl Write for UploadFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = PART_BYTES - self.spooled;
        let written = self.spool.write(&buffer[..buffer.len().min(room)])?;
        self.spooled += written;
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
        self.hash.update(&buffer[..written]);
        if self.spooled == PART_BYTES {
            self.send().map_err(told)?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.spool.flush()
    }
}

/// An upload that was started: its id, and its parts so far.
#[derive(Default)]
struct Open {
    id: String,
    parts: Vec<String>,
}

/// The end of a line on the runtime of the store's connections.
struct Worker {
    folder: ObjectFolder,
    blobs: Blobs,
    open: HashMap<String, Open>,
    ended: UploadList,
}

impl Worker {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(Request { work, reply }) = requests.recv().await {
            let is_seal = matches!(work, Work::Seal { .. });
            let done = self.perform(work).await;
            let is_sealed = is_seal && done.is_ok();
            let _ = reply.send(done);
            if is_sealed {
                return;
            }
        }
        self.abort().await;
    }

    async fn perform(&mut self, work: Work) -> Result<()> {
        match work {
            Work::Part { key, part } => self.part(key, part).await,
            Work::End { key, upload } => {
                let Open { id, parts } = self.open.remove(&key).unwrap_or_default();
                self.ended.uploads.push(Upload {
                    id,
                    parts,
                    ..*upload
                });
                Ok(())
            }
            Work::Seal { key } => {
                let list = self.ended.encode()?;
                weft_failpoint::hit("uploads-listed");
                self.blobs.put_durable(&key, list.into()).await
            }
        }
    }

    async fn part(&mut self, key: String, part: Bytes) -> Result<()> {
        let path = self.folder.path(&key)?;
        let failed = |error| self.folder.error(RequestKind::Put, &path, error);
        let open = match self.open.entry(key) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let id = self.folder.uploads().create_multipart(&path).await;
                let id = id.map_err(failed)?;
                vacant.insert(Open {
                    id,
                    parts: Vec::new(),
                })
            }
        };
        let uploads = self.folder.uploads();
        let part = uploads.put_part(&path, &open.id, open.parts.len(), part.into());
        open.parts.push(part.await.map_err(failed)?.content_id);
        Ok(())
    }

    /// Aborts all uploads of an attempt that has failed. What cannot be aborted is found when the job has ended.
    async fn abort(self) {
        let open = self.open.into_iter().map(|(key, open)| (key, open.id));
        let ended = self.ended.uploads.into_iter();
        let ended = ended.map(|upload| (upload.key, upload.id));
        for (key, id) in open.chain(ended) {
            if let Ok(path) = self.folder.path(&key) {
                let _ = self.folder.abort(&path, &id).await;
            }
        }
    }
}
