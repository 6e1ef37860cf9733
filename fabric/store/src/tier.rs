//! The local tier: copies of shuffle objects on the disk of the node whose tasks wrote or read them.
//!
//! ```text
//! <tier>/total                        bytes and files that there are at most: two words, changed under a lock
//! <tier>/<job>/<stage>-<object>       a copy, whole
//! <tier>/<job>/<stage>-<object>.part  a draft, as long as the copy will be
//! ```
//!
//! The executors of a node share the folder. A copy is never the only one: an object is in the store before its commit,
//! so that any file may go at any time. Whoever reads checks the bytes by the sums that segments and indexes have, and
//! forgets a copy that is damaged. A tier that cannot be written makes reads slower and nothing else, so its errors are
//! not told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, futimens};
use weft_core::JobId;

/// Files of a tier, so that looking through them takes milliseconds.
const TIER_FILES_MAX: u64 = 65_536;
/// Part of the tier that a single object may have.
const OBJECT_SHARE: u64 = 4;
/// Part of the tier that is made free when it is full, so that it is not looked through for each object.
const FREED_SHARE: u64 = 8;
/// Name of the file with the totals.
const TOTAL: &str = "total";
/// Beginning of the keys of what jobs write.
const JOBS: &str = "jobs/";

/// Copies of shuffle objects in a folder. Clones share it.
#[derive(Clone)]
pub struct Tier(Arc<Folder>);

struct Folder {
    path: PathBuf,
    bytes_max: u64,
    files_max: u64,
    /// Number of drafts that this process began, for their names.
    drafts: AtomicU64,
}

/// Bytes and files of a tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Total {
    bytes: u64,
    files: u64,
}

/// A copy that is being written. It is gone if it is dropped before it is kept.
pub struct TierDraft {
    file: File,
    draft: PathBuf,
    copy: PathBuf,
    bytes: u64,
    written: u64,
    has_failed: bool,
}

impl TierDraft {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        self.has_failed |= self.written > self.bytes || self.file.write_all(bytes).is_err();
    }

    /// Shows the copy, if it is whole.
    pub fn keep(self) {
        if !self.has_failed && self.written == self.bytes {
            // One that was removed meanwhile is not kept.
            let _ = fs::rename(&self.draft, &self.copy);
        }
    }
}

impl Drop for TierDraft {
    fn drop(&mut self) {
        // One that is kept has another name by now.
        let _ = fs::remove_file(&self.draft);
    }
}

impl Tier {
    /// A tier of so many bytes in a folder, which is created when it is needed.
    pub fn new(folder: PathBuf, bytes_max: u64) -> Self {
        Self::with_files_max(folder, bytes_max, TIER_FILES_MAX)
    }

    fn with_files_max(path: PathBuf, bytes_max: u64, files_max: u64) -> Self {
        Self(Arc::new(Folder {
            path,
            bytes_max,
            files_max,
            drafts: AtomicU64::new(0),
        }))
    }

    /// Returns whether there is a copy of an object.
    pub fn has(&self, key: &str) -> bool {
        self.copy(key).is_some_and(|copy| copy.is_file())
    }

    /// Begins a copy of an object, and makes room for it. Nothing if it is too large, or not of a job, or if it fails.
    pub fn begin(&self, key: &str, bytes: u64) -> Option<TierDraft> {
        let copy = self.copy(key)?;
        if bytes > self.0.bytes_max / OBJECT_SHARE {
            return None;
        }
        let number = self.0.drafts.fetch_add(1, Ordering::Relaxed);
        let name = copy.file_name()?.to_str()?;
        let draft = format!("{name}.{}-{number}.part", std::process::id());
        let draft = copy.with_file_name(draft);
        let file = self.0.admit(&draft, bytes).ok()?;
        Some(TierDraft {
            file,
            draft,
            copy,
            bytes,
            written: 0,
            has_failed: false,
        })
    }

    /// Reads a range of a copy, and counts it as used. Nothing if there is none, or if it is shorter.
    pub fn read(&self, key: &str, range: Range<u64>) -> Option<Bytes> {
        let file = File::open(self.copy(key)?).ok()?;
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        if file.metadata().ok()?.len() < range.end {
            return None;
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start).ok()?;
        let now = || Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        // Without it the copy goes sooner.
        let _ = futimens(
            &file,
            &Timestamps {
                last_access: now(),
                last_modification: now(),
            },
        );
        Some(bytes.into())
    }

    /// Removes the copy of an object.
    pub fn forget(&self, key: &str) {
        if let Some(copy) = self.copy(key) {
            // Somebody else may have removed it.
            let _ = fs::remove_file(copy);
        }
    }

    /// Removes the copies of a job's objects.
    pub fn forget_job(&self, job: &JobId) {
        // There need be none.
        let _ = fs::remove_dir_all(self.0.path.join(job.to_string()));
    }

    /// The file of an object's copy. Nothing if the object is not of a job.
    fn copy(&self, key: &str) -> Option<PathBuf> {
        let (job, object) = key.strip_prefix(JOBS)?.split_once('/')?;
        Some(self.0.path.join(job).join(object.replace('/', "-")))
    }
}

impl Folder {
    /// Makes room, and a file of that length in it.
    fn admit(&self, draft: &Path, bytes: u64) -> io::Result<File> {
        fs::create_dir_all(&self.path)?;
        let options = &mut File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let totals = options.open(self.path.join(TOTAL))?;
        // Released when the file is closed.
        flock(&totals, FlockOperation::LockExclusive)?;
        let mut total = read_total(&totals);
        let is_full = |total: Total| {
            total.bytes.saturating_add(bytes) > self.bytes_max || total.files >= self.files_max
        };
        if total.is_none_or(is_full) {
            let freed = Total {
                bytes: (self.bytes_max - self.bytes_max / FREED_SHARE).saturating_sub(bytes),
                files: (self.files_max - self.files_max / FREED_SHARE).saturating_sub(1),
            };
            total = Some(self.evict(freed)?);
        }
        let total = total.unwrap_or_default();
        // What was removed beside counts until the folder is looked through again.
        let total = Total {
            bytes: total.bytes.saturating_add(bytes),
            files: total.files + 1,
        };
        write_total(&totals, total)?;
        // Only now: room may have been made by removing all that a job had.
        fs::create_dir_all(draft.parent().unwrap_or(&self.path))?;
        let file = File::create_new(draft)?;
        file.set_len(bytes)?;
        Ok(file)
    }

    /// Removes the files that nobody has used for longest until the rest fits. Returns what is left.
    fn evict(&self, most: Total) -> io::Result<Total> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for job in fs::read_dir(&self.path)? {
            // Other processes remove files and folders meanwhile.
            let Ok(entries) = job.and_then(|job| fs::read_dir(job.path())) else {
                continue;
            };
            for entry in entries.flatten() {
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut left = Total {
            bytes: files.iter().map(|(_, bytes, _)| bytes).sum(),
            files: files.len() as u64,
        };
        for (_, bytes, path) in files {
            if left.bytes <= most.bytes && left.files <= most.files {
                break;
            }
            let _ = fs::remove_file(&path);
            left.bytes -= bytes;
            left.files -= 1;
            if let Some(job) = path.parent() {
                // It is not empty, mostly.
                let _ = fs::remove_dir(job);
            }
        }
        Ok(left)
    }
}

/// The totals. Nothing if there are none yet.
fn read_total(file: &File) -> Option<Total> {
    let mut words = [0; 16];
    file.read_exact_at(&mut words, 0).ok()?;
    let (bytes, files) = words.split_first_chunk::<8>()?;
    Some(Total {
        bytes: u64::from_le_bytes(*bytes),
        files: u64::from_le_bytes(files.try_into().ok()?),
    })
}

fn write_total(file: &File, total: Total) -> io::Result<()> {
    let words = [total.bytes.to_le_bytes(), total.files.to_le_bytes()];
    file.write_all_at(words.as_flattened(), 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(job: u64, name: &str) -> String {
        format!("jobs/job-{job}/0/{name}.shuffle")
    }

    fn keep(tier: &Tier, key: &str, bytes: &[u8]) {
        let mut draft = tier.begin(key, bytes.len() as u64).expect("it fits");
        draft.write(bytes);
        draft.keep();
    }

    /// Makes the last use of a copy so many seconds after the beginning of time.
    fn used_at(tier: &Tier, key: &str, seconds: u64) {
        let file = File::options()
            .write(true)
            .open(tier.copy(key).expect("a copy"));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.expect("it is there")
            .set_modified(at)
            .expect("it is set");
    }

    fn bytes_on_disk(folder: &Path) -> u64 {
        let jobs = fs::read_dir(folder).expect("a folder").flatten();
        let folders = jobs.filter_map(|job| fs::read_dir(job.path()).ok());
        let files = folders.flatten().flatten();
        files
            .map(|file| file.metadata().expect("a file").len())
            .sum()
    }

    #[test]
    fn copies_are_whole_or_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let tier = Tier::new(folder.path().join("tier"), 1_000);
        keep(&tier, &key(1, "a"), b"0123456789");
        assert_eq!(tier.read(&key(1, "a"), 2..5).expect("it is there"), "234");
        assert_eq!(tier.read(&key(1, "a"), 8..11), None, "it is shorter");
        let mut half = tier.begin(&key(1, "b"), 10).expect("it fits");
        half.write(b"01234");
        assert!(!tier.has(&key(1, "b")));
        half.keep();
        assert!(!tier.has(&key(1, "b")), "it is not whole");
        drop(tier.begin(&key(1, "c"), 10));
        assert_eq!(
            bytes_on_disk(&folder.path().join("tier")),
            10,
            "no draft is left"
        );
        assert!(
            tier.begin(&key(1, "d"), 251).is_none(),
            "a quarter of the tier at most"
        );
        assert!(tier.begin("components/a.wasm", 1).is_none(), "not of a job");
    }

    #[test]
    fn what_nobody_used_goes_first_and_the_bound_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        // Executors are processes of their own: what they share is the folder.
        let tiers = [(); 2].map(|()| Tier::new(folder.path().to_owned(), 100));
        for (number, name) in (1..).zip(["a", "b", "c", "d", "e"]) {
            keep(&tiers[number % 2], &key(1, name), &[0; 20]);
            used_at(&tiers[0], &key(1, name), number as u64);
        }
        tiers[0].read(&key(1, "a"), 0..1).expect("it is there");
        keep(&tiers[1], &key(2, "f"), &[0; 20]);
        let left = ["a", "b", "c", "d", "e"].map(|name| tiers[0].has(&key(1, name)));
        assert_eq!(
            left,
            [true, false, false, true, true],
            "87 bytes stay at most"
        );
        assert!(tiers[0].has(&key(2, "f")));
        for name in 0..50 {
            keep(&tiers[name % 2], &key(3, &name.to_string()), &[0; 20]);
            assert!(bytes_on_disk(folder.path()) <= 100);
        }
    }

    #[test]
    fn many_small_objects_are_bounded_by_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let tier = Tier::with_files_max(folder.path().to_owned(), 1 << 20, 8);
        for name in 0..40 {
            keep(&tier, &key(1, &name.to_string()), b"0");
            assert!(bytes_on_disk(folder.path()) <= 8);
        }
    }

    #[test]
    fn a_job_whose_copies_all_go_gets_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let tier = Tier::with_files_max(folder.path().to_owned(), 1 << 20, 1);
        for name in 0..5 {
            keep(&tier, &key(1, &name.to_string()), b"0");
            assert!(tier.has(&key(1, &name.to_string())));
        }
    }

    #[test]
    fn copies_of_a_job_go_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let tier = Tier::new(folder.path().to_owned(), 1_000);
        let (job, other) = (JobId::new(1, 0), JobId::new(2, 0));
        let key = |job: &JobId| format!("jobs/{job}/0/a.shuffle");
        keep(&tier, &key(&job), b"0");
        keep(&tier, &key(&other), b"0");
        tier.forget_job(&job);
        assert_eq!(
            (tier.has(&key(&job)), tier.has(&key(&other))),
            (false, true)
        );
        tier.forget(&key(&other));
        assert!(!tier.has(&key(&other)));
    }
}
