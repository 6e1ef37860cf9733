//! Server-sent events: from the bytes of a stream to events.
//!
//! ```text
//! event: job          one line a field, `:` begins a comment (keep-alive)
//! data: {"id": ..}    several data lines are joined by line breaks
//!                     an empty line ends the event
//! ```
//!
//! Source: WHATWG HTML, section 9.2.6. Ids and retry times are left out: a stream begins with the
//! whole state.

/// Largest event.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The type; `message` where none is given.
    pub(crate) kind: String,
    /// The data, its lines joined by line breaks.
    pub(crate) data: String,
}

/// An event without an end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLarge;

/// Puts events together from pieces of any size.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    kind: String,
    data: String,
}

impl Parser {
    /// Takes the next piece and answers with the events that it completes.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for &byte in chunk {
            let ends_return =
                std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if ends_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
        }
        if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
            return Err(TooLarge);
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.end_event();
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let (kind, mut data) = (
            std::mem::take(&mut self.kind),
            std::mem::take(&mut self.data),
        );
        data.pop()?;
        let kind = if kind.is_empty() {
            "message".into()
        } else {
            kind
        };
        Some(Event { kind, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\r\n\r\nevent: job\ndata: {\"a\":\ndata: \"ø\"}\nid: 7\n\n:\n\nevent:end\rdata:x\r\revent: lost\n\ndata\n\ndata: cut";

    fn event(kind: &str, data: &str) -> Event {
        Event {
            kind: kind.into(),
            data: data.into(),
        }
    }

    #[test]
    fn events_do_not_depend_on_how_the_stream_is_cut() {
        let expected = [
            event("job", "{\"a\":\n\"ø\"}"),
            event("end", "x"),
            event("message", ""),
        ];
        for size in 1..=STREAM.len() {
            let mut parser = Parser::default();
            let chunks = STREAM.as_bytes().chunks(size);
            let events: Vec<Event> = chunks
                .flat_map(|chunk| parser.push(chunk).expect("small"))
                .collect();
            assert_eq!(events, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX];
        assert_eq!(parser.push(&piece), Ok(vec![]));
        assert_eq!(parser.push(b"x"), Err(TooLarge));
    }
}
