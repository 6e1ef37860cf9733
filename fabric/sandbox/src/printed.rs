//! What a guest prints, line by line in its task's log.

use std::sync::{Arc, Mutex};
use weft_core::lock;

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::log::{Flood, LINE_BYTES_MAX, TaskLog};

/// Bytes that a guest may print at a time.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Standard output or standard error of one guest; its copies print to the same place.
#[derive(Clone)]
pub(crate) struct Printed(Arc<Printer>);

struct Printer {
    log: Mutex<Arc<TaskLog>>,
    function: String,
    level: &'static str,
    /// The line that has not ended, of at most `LINE_BYTES_MAX`.
    line: Mutex<Vec<u8>>,
}

impl Printed {
    pub(crate) fn new(log: Arc<TaskLog>, function: String, level: &'static str) -> Printed {
        Printed(Arc::new(Printer {
            log: Mutex::new(log),
            function,
            level,
            line: Mutex::default(),
        }))
    }

    /// From now on lines go to this log.
    pub(crate) fn print_to(&self, log: &Arc<TaskLog>) {
        *lock(&self.0.log) = Arc::clone(log);
    }

    fn print(&self, bytes: &[u8]) -> Result<(), Flood> {
        let mut line = lock(&self.0.line);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n");
            let mut rest = text.unwrap_or(piece);
            while line.len() + rest.len() > LINE_BYTES_MAX {
                let (fits, more) = rest.split_at(LINE_BYTES_MAX - line.len());
                line.extend_from_slice(fits);
                rest = more;
                let end = whole_characters(&line);
                let begun = line.split_off(end);
                self.write(&mut line)?;
                *line = begun;
            }
            line.extend_from_slice(rest);
            if text.is_some() {
                self.write(&mut line)?;
            }
        }
        Ok(())
    }

    /// Ends the line that has begun, if one has: its call is over.
    pub(crate) fn end_line(&self) -> Result<(), Flood> {
        let mut line = lock(&self.0.line);
        match line.is_empty() {
            true => Ok(()),
            false => self.write(&mut line),
        }
    }

    fn write(&self, line: &mut Vec<u8>) -> Result<(), Flood> {
        let text = String::from_utf8_lossy(line);
        let log = Arc::clone(&lock(&self.0.log));
        let written = log.write(self.0.level, &self.0.function, &text);
        line.clear();
        written
    }
}

/// Where the last character begins, if it has not ended; else the end.
fn whole_characters(text: &[u8]) -> usize {
    let ends = text
        .utf8_chunks()
        .last()
        .map_or(&[][..], |last| last.invalid());
    let is_begun = std::str::from_utf8(ends).is_err_and(|error| error.error_len().is_none());
    if is_begun {
        text.len() - ends.len()
    } else {
        text.len()
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
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(StreamError::trap("more was printed at a time than may be"));
        }
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
        let (lines, dropped) = log.take();
        let lines: Vec<_> = lines.into_iter().map(|line| line.message).collect();
        assert_eq!(lines, ["one", "two", "", "caf\u{e9}", "last"]);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        for n in [
            LINE_BYTES_MAX - 1,
            LINE_BYTES_MAX,
            LINE_BYTES_MAX + 1,
            20_000,
        ] {
            for text in ["x".repeat(n), format!("a{}", "\u{e9}".repeat(n))] {
                let log = Arc::new(TaskLog::default());
                let printed = Printed::new(Arc::clone(&log), "f".into(), "info");
                let whole = format!("{text}\nnext\n");
                for part in whole.as_bytes().chunks(5_001) {
                    printed.print(part).expect("it fits");
                }
                let (lines, dropped) = log.take();
                let lines: Vec<_> = lines.into_iter().map(|line| line.message).collect();
                let (last, parts) = lines.split_last().expect("two lines");
                assert!(parts.concat() == text, "{n}: {} parts", parts.len());
                assert_eq!((last.as_str(), dropped), ("next", 0));
                assert_eq!(parts.len(), text.len().div_ceil(LINE_BYTES_MAX), "{n}");
            }
        }
    }

    #[test]
    fn printing_without_end_is_a_flood() {
        let printed = Printed::new(Arc::new(TaskLog::default()), "f".into(), "info");
        let lines = b"\n".repeat(WRITE_BYTES_MAX);
        let calls = (0..100).take_while(|_| printed.print(&lines).is_ok());
        assert_eq!(calls.count(), 16);
    }
}
