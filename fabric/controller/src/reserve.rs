//! A reserve of the data folder's disk: a file that goes when the disk is full, so that the server can open its log,
//! clean up after jobs and archive them. This frees what they held, and the reserve is made anew.
//!
//! ```text
//! reserve ──start or archive on a full disk──▶ none ──MIN_FREE_TO_FILL_BYTES are free──▶ reserve
//! ```

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// Name of the file in a data folder.
const FILE: &str = "reserve";
/// Bytes of the reserve: some archives, and some files of a log.
const RESERVE_BYTES: u64 = 16 << 20;
/// Free bytes below which a disk counts as full when a server starts.
const MIN_FREE_BYTES: u64 = 8 << 20;
/// Free bytes with which the reserve is made: it must not fill the disk itself.
const MIN_FREE_TO_FILL_BYTES: u64 = 4 * RESERVE_BYTES;
/// Time between two looks whether there is room for the reserve.
const FILL_PERIOD: Duration = Duration::from_secs(60);

/// The reserve of a data folder. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Reserve {
    data: PathBuf,
}

impl Reserve {
    /// The reserve of a data folder, whether it is there or not.
    pub fn of(data: &Path) -> Self {
        let data = data.to_owned();
        Self { data }
    }

    /// Gives the reserve up if the disk is full. For a start, before the log is opened.
    ///
    /// Errors: the file cannot be removed, or the disk does not say what is free.
    pub fn release_if_full(&self) -> anyhow::Result<()> {
        match self.free_bytes()? < MIN_FREE_BYTES {
            true => self.release(),
            false => Ok(()),
        }
    }

    /// Gives the reserve up.
    pub(crate) fn release(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.file()) {
            Ok(()) => {
                let data = self.data.display();
                tracing::warn!(%data, "the disk is full, and the reserve of the data folder is used: free some space");
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("`{}`", self.file().display())),
        }
    }

    /// Makes the reserve whenever it is missing and there is room for it, until it is aborted.
    pub(crate) async fn keep_filled(self) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(FILL_PERIOD);
        loop {
            ticks.tick().await;
            let reserve = self.clone();
            let filled = tokio::task::spawn_blocking(move || reserve.fill()).await?;
            if let Err(error) = filled {
                tracing::warn!(%error, "the reserve of the data folder cannot be made");
            }
        }
    }

    /// Makes the reserve if it is missing and there is room for it.
    fn fill(&self) -> anyhow::Result<()> {
        let path = self.file();
        if path.exists() || self.free_bytes()? < MIN_FREE_TO_FILL_BYTES {
            return Ok(());
        }
        let made = allocated(&path);
        if made.is_err() {
            // Half a reserve is none; what cannot be removed is in the way of the next try, and does no harm.
            let _ = fs::remove_file(&path);
        }
        made.with_context(|| format!("`{}`", path.display()))
    }

    fn free_bytes(&self) -> anyhow::Result<u64> {
        let disk = statvfs(&self.data).with_context(|| format!("`{}`", self.data.display()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn file(&self) -> PathBuf {
        self.data.join(FILE)
    }
}

/// Makes a file that takes up the bytes of the reserve.
fn allocated(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        // Some file systems take up what is written, and nothing else.
        Err(Errno::OPNOTSUPP) => {
            io::copy(&mut io::repeat(0).take(RESERVE_BYTES), &mut file)?;
        }
        done => done?,
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_goes_and_comes_back() {
        let data = tempfile::tempdir().expect("a folder");
        let reserve = Reserve::of(data.path());
        let size = || {
            let found = fs::metadata(data.path().join(FILE));
            found.map(|found| found.len()).ok()
        };
        reserve.release().expect("there is none");
        for _ in 0..2 {
            // Disks of tests have room for four reserves.
            reserve.fill().expect("it is made");
            assert_eq!(size(), Some(RESERVE_BYTES));
            reserve.release_if_full().expect("it is not full");
            assert_eq!(size(), Some(RESERVE_BYTES));
            reserve.release().expect("it is removed");
            assert_eq!(size(), None);
        }
    }
}
