//! The one owner of standard output and standard error.
//!
//! Results go to standard output: text for people, or JSON with `--json`, and then text for people
//! goes to standard error. Progress and hints always go to standard error. A reader that goes away
//! (`weft jobs | head`) ends the command quietly, by way of [`Failure::Closed`]. Control characters
//! in text, which guests and servers choose, never reach the terminal.

use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::failure::Failure;
use crate::terminal::text::printable;

/// The streams that a command writes to.
pub(crate) struct Output {
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    json: bool,
    /// Standard output is a terminal, which what guests say must not steer.
    guards: bool,
    /// The beginning of a character, whose rest comes with the next piece.
    begun: Vec<u8>,
    redraws: bool,
    asks: bool,
    n_drawn: usize,
}

impl Output {
    /// The process's own streams.
    pub(crate) fn process(json: bool) -> Self {
        let redraws = io::stderr().is_terminal();
        Self {
            guards: io::stdout().is_terminal(),
            asks: redraws && io::stdin().is_terminal(),
            redraws,
            ..Self::new(Box::new(io::stdout()), Box::new(io::stderr()), json)
        }
    }

    /// Streams that are no terminal.
    pub(crate) fn new(stdout: Box<dyn Write>, stderr: Box<dyn Write>, json: bool) -> Self {
        Self {
            stdout,
            stderr,
            json,
            guards: false,
            begun: Vec::new(),
            redraws: false,
            asks: false,
            n_drawn: 0,
        }
    }

    /// True under `--json`.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// True where progress is redrawn in place.
    pub(crate) fn redraws(&self) -> bool {
        self.redraws
    }

    /// True where somebody sits there who can answer a question.
    pub(crate) fn asks(&self) -> bool {
        self.asks
    }

    /// Writes a result for people, one or more lines without the last line break.
    pub(crate) fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.erase();
        let text = printable(text);
        if self.json {
            write_error_line(&mut self.stderr, &text);
            return Ok(());
        }
        write_line(&mut self.stdout, &text)
    }

    /// Writes a JSON document on a line of its own, under `--json`.
    pub(crate) fn document(&mut self, json: &str) -> Result<(), Failure> {
        self.erase();
        if self.json {
            write_line(&mut self.stdout, json)
        } else {
            Ok(())
        }
    }

    /// Writes the JSON under `--json`, the text for people otherwise.
    pub(crate) fn either(
        &mut self,
        json: &str,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.document(json)
        } else {
            self.say(&text())
        }
    }

    /// Writes the JSON under `--json`, the bytes as they are otherwise; on a terminal, without what
    /// could steer it.
    pub(crate) fn raw(&mut self, json: &str, bytes: &[u8]) -> Result<(), Failure> {
        if self.json {
            return self.document(json);
        }
        self.erase();
        if self.guards {
            return write_line(
                &mut self.stdout,
                &printable(&String::from_utf8_lossy(bytes)),
            );
        }
        let written = self
            .stdout
            .write_all(bytes)
            .and_then(|()| self.stdout.flush());
        written.map_err(not_written)
    }

    /// Writes a piece of a stream as it is; on a terminal, without what could steer it.
    pub(crate) fn piece(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.erase();
        let written = match self.guards {
            true => {
                self.begun.extend_from_slice(bytes);
                let whole = whole_characters(&self.begun);
                let rest = self.begun.split_off(whole);
                let text = std::mem::replace(&mut self.begun, rest);
                let text = printable(&String::from_utf8_lossy(&text));
                self.stdout.write_all(text.as_bytes())
            }
            false => self.stdout.write_all(bytes),
        };
        let written = written.and_then(|()| self.stdout.flush());
        written.map_err(not_written)
    }

    /// Writes a hint, a warning or a line of progress to standard error.
    pub(crate) fn note(&mut self, text: &str) {
        self.erase();
        write_error_line(&mut self.stderr, &printable(text));
    }

    /// Writes a question to standard error, without a line break.
    pub(crate) fn ask(&mut self, question: &str) {
        self.erase();
        let _ = write!(self.stderr, "{question} ");
        let _ = self.stderr.flush();
    }

    /// Replaces what was drawn before by `lines`; each must fit the width of the terminal.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        self.erase();
        for line in lines {
            write_error_line(&mut self.stderr, &printable(line));
        }
        self.n_drawn = lines.len();
    }

    /// Lets what was drawn stand.
    pub(crate) fn keep(&mut self) {
        self.n_drawn = 0;
    }

    /// Takes what was drawn off the terminal.
    fn erase(&mut self) {
        if self.n_drawn > 0 {
            let up = self.n_drawn;
            let _ = write!(self.stderr, "\x1b[{up}A\r\x1b[J");
            self.n_drawn = 0;
        }
    }
}

/// How many bytes there are before a character at the end whose rest is missing.
fn whole_characters(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map(|chunk| chunk.invalid());
    let begun = last.filter(|invalid| {
        // What can still become a character.
        std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
    });
    bytes.len() - begun.map_or(0, <[u8]>::len)
}

fn write_line(stream: &mut Box<dyn Write>, text: &str) -> Result<(), Failure> {
    let written = writeln!(stream, "{text}").and_then(|()| stream.flush());
    written.map_err(not_written)
}

fn not_written(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::other(format!("cannot write to standard output: {error}")),
    }
}

/// Nothing can be said about a standard error that does not take what it is given.
fn write_error_line(stream: &mut Box<dyn Write>, text: &str) {
    let _ = writeln!(stream, "{text}");
}

#[cfg(test)]
pub(crate) mod captured {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A stream that remembers what was written to it.
    #[derive(Clone, Default)]
    pub(crate) struct Stream(Arc<Mutex<Vec<u8>>>);

    impl Stream {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no panic before").clone()).expect("text")
        }
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic before").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output together with what it writes.
    pub(crate) fn output(json: bool) -> (Output, Stream, Stream) {
        let (stdout, stderr) = (Stream::default(), Stream::default());
        let output = Output::new(Box::new(stdout.clone()), Box::new(stderr.clone()), json);
        (output, stdout, stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn people_read_standard_error_under_json() {
        let (mut output, stdout, stderr) = captured::output(true);
        output.say("text").expect("written");
        output.document("{}").expect("written");
        assert_eq!(
            (stdout.text(), stderr.text()),
            ("{}\n".into(), "text\n".into())
        );
    }

    #[test]
    fn a_broken_pipe_is_a_quiet_end() {
        let mut output = Output::new(Box::new(Broken), Box::new(Broken), false);
        output.note("nobody hears this");
        let failure = output.say("nor this").expect_err("the pipe is broken");
        assert!(failure.is_silent() && failure.exit_code() == 0, "{failure}");
    }

    #[test]
    fn a_terminal_gets_whole_characters_whatever_the_pieces() {
        let (mut output, stdout, _) = captured::output(false);
        output.guards = true;
        for piece in ["a\u{20ac}\x1b".as_bytes().chunks(2), b"\xffb\n".chunks(1)]
            .into_iter()
            .flatten()
        {
            output.piece(piece).expect("written");
        }
        assert_eq!(stdout.text(), "a\u{20ac}\u{fffd}\u{fffd}b\n");
    }

    #[test]
    fn what_was_drawn_is_replaced() {
        let (mut output, stdout, stderr) = captured::output(false);
        output.draw(&["a\x1b[2J".into(), "b".into()]);
        output.draw(&["c".into()]);
        output.say("end").expect("written");
        let expected = "a\u{fffd}[2J\nb\n\x1b[2A\r\x1b[Jc\n\x1b[1A\r\x1b[J";
        assert_eq!(
            (stderr.text(), stdout.text()),
            (expected.into(), "end\n".into())
        );
    }
}
