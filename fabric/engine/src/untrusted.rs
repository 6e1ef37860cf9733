//! Decoders of files that Weft did not write, and statements that users wrote: where one panics, the file or the
//! statement is to blame, and only its task fails.

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll};

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// True while a file of somebody else's is decoded, or a statement evaluated, on this thread: a panic then is caught,
/// and no reason to end the process.
pub fn is_decoding() -> bool {
    DECODING.get()
}

/// Decoding goes on or not, as before, when this is dropped.
struct Decoding {
    before: bool,
}

impl Drop for Decoding {
    fn drop(&mut self) {
        DECODING.set(self.before);
    }
}

/// Runs a decoder. Errors: it panicked, with what it said. What it worked on must not be used after that.
pub(crate) fn decode<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    caught(work).map_err(|said| format!("the decoder gave up: {said}"))
}

/// Runs code that plans and evaluates what users wrote. Errors: as for [`decode`].
pub(crate) async fn guarded<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    let poll = |context: &mut Context<'_>| match caught(|| future.as_mut().poll(context)) {
        Ok(polled) => polled.map(Ok),
        Err(said) => Poll::Ready(Err(format!("the query engine gave up: {said}"))),
    };
    poll_fn(poll).await
}

/// The same for code that does not wait.
pub(crate) fn evaluated<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    caught(work).map_err(|said| format!("the query engine gave up: {said}"))
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let _decoding = Decoding {
        before: DECODING.replace(true),
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| said(&*panic).to_owned())
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it did not say why")
}
