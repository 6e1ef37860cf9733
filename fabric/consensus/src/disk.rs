//! The disk under a member: writes that must last, and the end of the process where they do not.

use std::any::Any;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

use raft_engine::env::{DefaultFileSystem, FileSystem};

/// Files of a member: those of the machine, or of a simulation that takes the power away.
pub(crate) trait Disk: FileSystem + 'static {
    /// Makes the names in `folder` last: a file's own sync does not cover the entry of its folder.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Does slow work while the member goes on, on another thread where there are threads.
    fn in_background(&self, work: Box<dyn FnOnce() + Send>);
}

impl Disk for DefaultFileSystem {
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }

    fn in_background(&self, work: Box<dyn FnOnce() + Send>) {
        let thread = thread::Builder::new().name("raft-snapshot".into());
        written("starting a thread", || thread.spawn(work));
    }
}

/// [`Disk::sync_folder`] of the machine.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Runs a write and returns its result, or does not return.
///
/// A panic counts as a failure: raft-engine panics where a sync fails.
pub(crate) fn written<T, E: Display>(what: &str, write: impl FnOnce() -> Result<T, E>) -> T {
    match catch_unwind(AssertUnwindSafe(write)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => abort_on_failed_write(what, &error),
        Err(_panic) => abort_on_failed_write(what, &"it panicked"),
    }
}

/// Ends the process because the disk did not take what it was given.
///
/// After a failed sync nobody knows what is on the disk, and the kernel may have dropped the dirty pages, so that a second
/// sync would succeed without having written anything. Only a restart, which reads the disk, tells.
fn abort_on_failed_write(what: &str, error: &dyn Display) -> ! {
    tracing::error!(what, %error, "a write failed, ending the process");
    // The subscriber of `tracing` may buffer; standard error does not.
    eprintln!("weft-consensus: {what}: {error}: ending the process");
    std::process::abort()
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}
