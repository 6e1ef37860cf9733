//! What a guest prints, line by line in its task's log.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::log::{Flood, LINE_BYTES_MAX, TaskLog};

/// Bytes that a guest may print in one call.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Standard output or standard error of one guest; its copies print to the same place.
#[derive(Clone)]
pub(crate) struct Printed(Arc<Printer>);

struct Printer {
    log: Arc<TaskLog>,
    function: String,
    level: &'static str,
    /// The line that has not ended, shorter than `LINE_BYTES_MAX`.
    line: Mutex<Vec<u8>>,
}

impl Printed {
    pub(crate) fn new(log: Arc<TaskLog>, function: String, level: &'static str) -> Printed {
        Printed(Arc::new(Printer {
            log,
            function,
            level,
            line: Mutex::default(),
        }))
    }

    fn print(&self, bytes: &[u8]) -> Result<(), Flood> {
        let mut line = self.0.line.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                if line.len() + part.len() > LINE_BYTES_MAX {
                    self.write(&mut line)?;
                }
                line.extend_from_slice(part);
            }
            if line.ends_with(b"\n") {
                line.pop();
                self.write(&mut line)?;
            }
        }
        Ok(())
    }

    /// Ends the line that has begun, if one has: its call is over.
    pub(crate) fn end_line(&self) -> Result<(), Flood> {
        let mut line = self.0.line.lock().unwrap_or_else(PoisonError::into_inner);
        match line.is_empty() {
            true => Ok(()),
            false => self.write(&mut line),
        }
    }

    fn write(&self, line: &mut Vec<u8>) -> Result<(), Flood> {
        let text = String::from_utf8_lossy(line);
        let written = self.0.log.write(self.0.level, &self.0.function, &text);
        line.clear();
        written
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    /// Is for WASI 0.3, which guests are not offered.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.print(&bytes)
            .map_err(|flood| StreamError::Trap(flood.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_one_however_it_is_cut() {
        let log = Arc::new(TaskLog::default());
        let printed = Printed::new(Arc::clone(&log), "f".into(), "info");
        for part in ["on", "e\ntwo\n", "\n", "caf", "\u{e9}", "\nlast"] {
            printed.print(part.as_bytes()).expect("it fits");
        }
        printed.end_line().expect("it fits");
        printed.end_line().expect("there is none");
        let long = "x".repeat(3 * LINE_BYTES_MAX - 10);
        printed
            .print(format!("{long}\n").as_bytes())
            .expect("it fits");
        let (lines, dropped) = log.take();
        let lines: Vec<_> = lines.into_iter().map(|line| line.message).collect();
        assert_eq!(lines[..5], ["one", "two", "", "caf\u{e9}", "last"]);
        assert_eq!((lines[5..].concat(), dropped), (long, 0));
    }

    #[test]
    fn printing_without_end_is_a_flood() {
        let printed = Printed::new(Arc::new(TaskLog::default()), "f".into(), "info");
        let lines = b"\n".repeat(WRITE_BYTES_MAX);
        let calls = (0..100).take_while(|_| printed.print(&lines).is_ok());
        assert_eq!(calls.count(), 16);
    }
}
