//! Objects of remote stores as readers of files want them: from threads that wait, while another runtime drives the
//! connections.

use std::io::{self, ErrorKind as IoKind};
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt};
use tokio::task::JoinHandle;
use weft_core::Location;

use crate::error::{Error, ErrorKind, Result};
use crate::remote::Remote;
use crate::requests::RequestKind;

/// Lists of objects that wait for whoever reads them.
const LISTS_WAITING: usize = 4;
/// Objects of one list.
const LIST_OBJECTS: usize = 1_000;

/// An object that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundObject {
    /// The whole key of the object.
    pub key: String,
    /// Bytes of the object.
    pub bytes: u64,
    /// The object's version, if the store says it.
    pub e_tag: Option<String>,
}

impl From<ObjectMeta> for FoundObject {
    fn from(found: ObjectMeta) -> Self {
        Self {
            key: found.location.into(),
            bytes: found.size,
            e_tag: found.e_tag,
        }
    }
}

/// A result that another runtime works on. Dropping it stops the work.
struct Pending<T> {
    results: Receiver<T>,
    work: JoinHandle<()>,
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// A range of an object that is on its way.
pub struct Fetch(Pending<io::Result<Bytes>>);

impl Fetch {
    /// Waits for the bytes. The store's requests have a bound in time.
    pub fn wait(self) -> io::Result<Bytes> {
        let stopped = || io::Error::new(IoKind::TimedOut, "the store's connections are closed");
        self.0.results.recv().unwrap_or_else(|_| Err(stopped()))
    }
}

/// Objects below a folder, in the order of their keys, as lists come.
pub struct FoundObjects {
    lists: Pending<Result<Vec<FoundObject>>>,
    current: std::vec::IntoIter<FoundObject>,
}

impl Iterator for FoundObjects {
    type Item = Result<FoundObject>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.current.next() {
                return Some(Ok(found));
            }
            match self.lists.results.recv().ok()? {
                Ok(list) => self.current = list.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Remote {
    /// Lists the objects whose whole keys lie in a folder; all of the bucket's if it is empty. Must not be called on
    /// the runtime that drives the connections.
    pub fn objects_below(&self, folder: &str) -> Result<FoundObjects> {
        let prefix = self.parsed(folder)?;
        let (send, results) = sync_channel(LISTS_WAITING);
        let remote = self.clone();
        let listing = async move {
            let wanted = Some(&prefix).filter(|prefix| !prefix.is_root());
            let mut lists = remote.objects.list(wanted).chunks(LIST_OBJECTS);
            remote.requests().count(RequestKind::List);
            while let Some(list) = lists.next().await {
                if list.len() == LIST_OBJECTS {
                    remote.requests().count(RequestKind::List);
                }
                let found = list.into_iter().map(|one| one.map(FoundObject::from));
                let found = found.collect::<object_store::Result<Vec<_>>>();
                let found = found.map_err(|error| remote.error(&prefix, error));
                let is_last = found.is_err();
                // The reader may be slow, and this runtime has others to serve.
                let Some(()) = hand_over(&send, found).await else {
                    return;
                };
                if is_last {
                    return;
                }
            }
        };
        Ok(FoundObjects {
            lists: Pending {
                results,
                work: self.io().spawn(listing),
            },
            current: Vec::new().into_iter(),
        })
    }

    /// Looks for one object; nothing if it is not there. Must not be called on the runtime that drives the connections.
    pub fn find_object(&self, location: &Location) -> Result<Option<FoundObject>> {
        let path = self.parsed(&location.key)?;
        let (send, results) = sync_channel(1);
        let remote = self.clone();
        let looking = async move {
            remote.requests().count(RequestKind::Head);
            let found = remote.objects.head(&path).await;
            let found = match found.map_err(|error| remote.error(&path, error)) {
                Ok(found) => Ok(Some(FoundObject::from(found))),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            };
            // Whoever asked may have gone.
            let _ = send.send(found);
        };
        let pending = Pending {
            results,
            work: self.io().spawn(looking),
        };
        let closed = |_| Error::Encoding("the store's connections are closed".into());
        pending.results.recv().map_err(closed)?
    }

    /// An object of a known size, to be read in ranges. All must be of one version, that of the first range.
    pub fn file(&self, location: &Location, bytes: u64) -> Result<RemoteFile> {
        self.file_as_found(location, bytes, None)
    }

    /// The same. `e_tag`: the version that all ranges must have, if it is known.
    pub fn file_as_found(
        &self,
        location: &Location,
        bytes: u64,
        e_tag: Option<&str>,
    ) -> Result<RemoteFile> {
        let path = self.parsed(&location.key)?;
        let e_tag = e_tag.map(|e_tag| Some(version(e_tag)));
        Ok(RemoteFile(Arc::new(File {
            uri: self.uri_of(&path),
            remote: self.clone(),
            path,
            bytes,
            e_tag: e_tag.map_or_else(OnceLock::new, OnceLock::from),
        })))
    }

    fn parsed(&self, key: &str) -> Result<Path> {
        let wrong = |error: object_store::path::Error| {
            Error::settings(&self.location().to_string(), error.to_string())
        };
        Path::parse(key).map_err(wrong)
    }
}

/// Sends without blocking the runtime. Nothing if nobody reads.
async fn hand_over<T>(send: &std::sync::mpsc::SyncSender<T>, mut item: T) -> Option<()> {
    use std::sync::mpsc::TrySendError;
    loop {
        match send.try_send(item) {
            Ok(()) => return Some(()),
            Err(TrySendError::Disconnected(_)) => return None,
            Err(TrySendError::Full(back)) => item = back,
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// An object that is read in ranges. Clones share it.
#[derive(Clone)]
pub struct RemoteFile(Arc<File>);

struct File {
    remote: Remote,
    path: Path,
    uri: String,
    bytes: u64,
    /// The version that the object was found with, or else that the first answer had.
    e_tag: OnceLock<Option<String>>,
}

impl RemoteFile {
    /// Size of the object.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Asks for a range, which is not empty and lies within the object. Must not be waited for on the runtime that
    /// drives the connections.
    pub fn fetch(&self, range: Range<u64>) -> Fetch {
        let (send, results) = sync_channel(1);
        let file = Arc::clone(&self.0);
        let fetching = async move {
            // Whoever asked may have gone.
            let _ = send.send(file.read(range).await);
        };
        Fetch(Pending {
            results,
            work: self.0.remote.io().spawn(fetching),
        })
    }
}

impl File {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.remote.requests().count(RequestKind::Get);
        let wanted = range.end - range.start;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let failed = |error| of_store(&self.remote.error(&self.path, error));
        let found = self.remote.objects.get_opts(&self.path, options).await;
        let found = found.map_err(failed)?;
        let size = found.meta.size;
        if size != self.bytes {
            let bytes = self.bytes;
            return Err(changed(&format!(
                "had {bytes} bytes when the job was planned and has {size}"
            )));
        }
        // An answer is of one version, so its tag tells as much as a condition would, which not all servers heed.
        let e_tag = found.meta.e_tag.as_deref().map(version);
        if *self.e_tag.get_or_init(|| e_tag.clone()) != e_tag {
            return Err(changed("was written anew while the job ran"));
        }
        let bytes = found.bytes().await.map_err(failed)?;
        match u64::try_from(bytes.len()) {
            Ok(came) if came == wanted => Ok(bytes),
            _ => {
                let (uri, came) = (&self.uri, bytes.len());
                let what = format!("the store gave {came} of {wanted} bytes of `{uri}`");
                Err(io::Error::new(IoKind::TimedOut, what))
            }
        }
    }
}

/// An ETag without its quotes, which not all stores write into their lists.
fn version(e_tag: &str) -> String {
    e_tag.trim_matches('"').to_owned()
}

fn changed(what: &str) -> io::Error {
    let what = format!("it {what}: inputs must not change under a job");
    io::Error::new(IoKind::NotFound, what)
}

/// An error of a store in the terms of files: those that users can mend are missing files, the others pass.
fn of_store(error: &Error) -> io::Error {
    let kind = match error.kind() {
        _ if error.is_not_found() => IoKind::NotFound,
        ErrorKind::Refused => IoKind::PermissionDenied,
        _ => IoKind::TimedOut,
    };
    io::Error::new(kind, error.problem().detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(key: &str) -> Location {
        Location::parse(&format!("s3://lake/{key}")).expect("it is right")
    }

    async fn lake(objects: &[(&str, &str)]) -> Remote {
        let remote = Remote::in_memory("s3://lake/").expect("it opens");
        for (key, text) in objects {
            let text = Bytes::from((*text).to_owned());
            let path = Path::from(*key);
            let put = remote.objects.put(&path, text.into());
            put.await.expect("it is written");
        }
        remote
    }

    /// Runs what waits on a thread that drives nothing.
    async fn waiting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(work).await.expect("it ends")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn objects_are_found_below_whole_folders() {
        let remote = lake(&[("a/1", "x"), ("a/b/2", "yz"), ("ab/3", "")]).await;
        let found = waiting(move || {
            let below = remote.objects_below("a").expect("it begins");
            let below = below.collect::<Result<Vec<_>>>().expect("it lists");
            let one = remote.find_object(&at("ab/3")).expect("it looks");
            let none = remote.find_object(&at("a/b")).expect("it looks");
            (below, one, none)
        });
        let (below, one, none) = found.await;
        let below: Vec<_> = below
            .iter()
            .map(|one| (one.key.as_str(), one.bytes))
            .collect();
        assert_eq!(below, [("a/1", 1), ("a/b/2", 2)]);
        assert_eq!((one.map(|one| one.bytes), none), (Some(0), None));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn files_that_change_are_not_read_on() {
        let remote = lake(&[("a", "0123456789")]).await;
        let file = remote.file(&at("a"), 10).expect("a file");
        let first = waiting({
            let file = file.clone();
            move || file.fetch(2..5).wait()
        });
        assert_eq!(first.await.expect("it reads"), "234");
        let path = Path::from("a");
        let put = remote.objects.put(&path, Bytes::from("9876543210").into());
        put.await.expect("it is written");
        let again = waiting(move || file.fetch(2..5).wait()).await;
        let error = again.expect_err("it has changed");
        assert!(error.to_string().contains("written anew"), "{error}");
        // Another task begins later, and knows the version that was listed.
        let listed = remote.file_as_found(&at("a"), 10, Some("another"));
        let listed = listed.expect("a file");
        let error = waiting(move || listed.fetch(0..1).wait()).await;
        let error = error.expect_err("it is another one");
        assert!(error.to_string().contains("written anew"), "{error}");
        let found = waiting({
            let remote = remote.clone();
            move || remote.find_object(&at("a"))
        });
        let found = found.await.expect("it looks").expect("it is there");
        let e_tag = found.e_tag.expect("a version");
        let unquoted = e_tag.trim_matches('"');
        let same = remote.file_as_found(&at("a"), 10, Some(unquoted));
        let same = same.expect("a file");
        let read = waiting(move || same.fetch(0..1).wait()).await;
        assert_eq!(read.expect("it is the same"), "9");
        let other = remote.file(&at("a"), 11).expect("a file");
        let error = waiting(move || other.fetch(0..1).wait()).await;
        let error = error.expect_err("it has another size");
        assert!(error.to_string().contains("must not change"), "{error}");
        let gone = remote.file(&at("b"), 1).expect("a file");
        let error = waiting(move || gone.fetch(0..1).wait()).await;
        assert_eq!(error.expect_err("it is gone").kind(), IoKind::NotFound);
    }
}
