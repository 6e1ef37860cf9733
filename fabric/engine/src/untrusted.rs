//! Decoders of files that Weft did not write: where one panics, the file is to blame, and only its task fails.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// True while a file of somebody else's is decoded on this thread: a panic then is caught, and no reason to end the process.
pub fn is_decoding() -> bool {
    DECODING.get()
}

struct Decoding;

impl Drop for Decoding {
    fn drop(&mut self) {
        DECODING.set(false);
    }
}

/// Runs a decoder. Errors: it panicked, with what it said. What it worked on must not be used after that.
pub(crate) fn decode<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    DECODING.set(true);
    let _decoding = Decoding;
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| format!("the decoder gave up: {}", said(&*panic)))
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it did not say why")
}
