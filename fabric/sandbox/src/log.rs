//! A task's log: lines of guests, escaped, bounded and counted.

use std::sync::{Mutex, MutexGuard};

use weft_core::{LogLine, lock};

/// Bytes of lines that a task keeps; what comes after is dropped and counted.
pub const LOG_BYTES_MAX: usize = 256 << 10;
/// What a line costs besides its text: a flood of empty lines is a flood.
const LINE_OVERHEAD_BYTES: usize = 64;
/// Bytes of one line; the rest is cut off, and the line says so.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 10;
/// Bytes that a task may try to log before it is stopped.
const ATTEMPTED_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Default)]
struct Lines {
    kept: Vec<LogLine>,
    kept_bytes: usize,
    dropped: u64,
    attempted_bytes: u64,
    /// The last line, if it was an error: its function, and its text for a message.
    last_error: Option<(String, String)>,
}

/// The log of one task, shared by its guests.
#[derive(Debug, Default)]
pub struct TaskLog(Mutex<Lines>);

/// The task logs without end.
#[derive(Debug, thiserror::Error)]
#[error("the log is flooded")]
pub(crate) struct Flood;

impl TaskLog {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        lock(&self.0)
    }

    pub(crate) fn write(&self, level: &str, function: &str, message: &str) -> Result<(), Flood> {
        let mut lines = self.lines();
        lines.attempted_bytes += (message.len() + LINE_OVERHEAD_BYTES) as u64;
        if lines.attempted_bytes > ATTEMPTED_BYTES_MAX {
            return Err(Flood);
        }
        lines.last_error =
            (level == "error").then(|| (function.to_owned(), escape(&one_line(message))));
        let message = escape(message);
        let bytes = message.len() + LINE_OVERHEAD_BYTES;
        if lines.kept_bytes + bytes > LOG_BYTES_MAX {
            lines.dropped += 1;
            return Ok(());
        }
        lines.kept_bytes += bytes;
        lines.kept.push(LogLine {
            level: level.into(),
            function: function.into(),
            message,
        });
        Ok(())
    }

    /// Adds a line of the fabric's own.
    pub fn note(&self, level: &str, message: &str) {
        // The fabric's few lines cannot be a flood; past the bound they are counted like any other.
        let _ = self.write(level, "-", message);
    }

    /// The error that `function` logged last, in one line, if nothing was logged after it: the SDK's way to say what
    /// panicked and where.
    pub(crate) fn last_error(&self, function: &str) -> Option<String> {
        let lines = self.lines();
        let (of, text) = lines.last_error.as_ref()?;
        (of == function).then(|| text.clone())
    }

    /// The limit on what a task may try to log, for errors.
    pub(crate) fn limit_text() -> String {
        format!("{} MiB", ATTEMPTED_BYTES_MAX >> 20)
    }

    /// Takes the lines that were kept, and the number of those that were not.
    pub fn take(&self) -> (Vec<LogLine>, u64) {
        let lines = std::mem::take(&mut *self.lines());
        (lines.kept, lines.dropped)
    }
}

/// The lines of a text side by side. What a colon introduces follows it, as in `panicked at src/lib.rs:7:5: no`.
fn one_line(message: &str) -> String {
    let mut text = String::new();
    for line in message.lines().map(str::trim) {
        if line.is_empty() {
            continue;
        }
        if text.len() > LINE_BYTES_MAX {
            break;
        }
        match text.chars().next_back() {
            None => {}
            Some(':') => text.push(' '),
            Some(_) => text.push_str(" / "),
        }
        text.push_str(line);
    }
    text
}

/// Guests' text is data: nothing in it may steer a terminal or forge a line.
fn escape(message: &str) -> String {
    let mut end = message.len().min(LINE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut text = String::with_capacity(end);
    for c in message[..end].chars() {
        if c.is_control() && c != '\t' {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    if end < message.len() {
        text.push_str(&format!(" … ({} bytes cut)", message.len() - end));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_escaped_and_bounded() {
        let log = TaskLog::default();
        log.write("info", "f", "a\x1b[31m\nforged")
            .expect("it fits");
        for _ in 0..100 {
            log.write("info", "f", &"x".repeat(10_000))
                .expect("it is dropped");
        }
        let (kept, dropped) = log.take();
        assert_eq!(kept[0].message, "a\\u{1b}[31m\\nforged");
        assert!(kept[1].message.ends_with("(1808 bytes cut)"));
        assert!(dropped > 60 && kept.len() as u64 + dropped == 101);
    }

    #[test]
    fn the_last_error_is_one_line() {
        let log = TaskLog::default();
        assert_eq!(log.last_error("f"), None);
        let panic =
            "panicked at src/lib.rs:7:5:\nassertion `left == right` failed\n  left: 1\n right: 2";
        log.write("error", "f", panic).expect("it fits");
        let expected =
            "panicked at src/lib.rs:7:5: assertion `left == right` failed / left: 1 / right: 2";
        assert_eq!(log.last_error("f").as_deref(), Some(expected));
        assert_eq!(log.last_error("g"), None);
        log.write("error", "f", "C:\\new\x1b").expect("it fits");
        assert_eq!(log.last_error("f").as_deref(), Some("C:\\new\\u{1b}"));
        log.write("info", "f", "more").expect("it fits");
        assert_eq!(log.last_error("f"), None);
    }

    #[test]
    fn a_flood_is_stopped() {
        let log = TaskLog::default();
        let line = "x".repeat(1 << 20);
        let written = (0..100)
            .take_while(|_| log.write("info", "f", &line).is_ok())
            .count();
        assert_eq!(written, 63);
    }
}
