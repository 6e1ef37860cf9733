//! Ctrl-C while a job is followed: asks what to do where somebody sits there, and cancels
//! otherwise, as SIGTERM always does.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::terminal::Output;

/// An answer to the question what to do about a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Go on following it.
    Stay,
    /// Leave it to itself.
    Detach,
    /// Stop it.
    Cancel,
}

/// Ctrl-C, from the moment on that this exists.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    terminated: bool,
}

impl Interrupts {
    /// Takes Ctrl-C over from the system, which would end the process.
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::other(format!("cannot listen for Ctrl-C: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            terminated: false,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            Some(()) = self.interrupt.recv() => {}
            Some(()) = self.terminate.recv() => self.terminated = true,
            else => std::future::pending().await,
        }
    }

    /// Asks; a second Ctrl-C, and an end of the input, cancel.
    pub(crate) async fn choose(&mut self, output: &mut Output) -> Choice {
        if self.terminated || !output.asks() {
            return Choice::Cancel;
        }
        let mut input = BufReader::new(tokio::io::stdin());
        loop {
            output.ask("\nThe job is running. [d]etach from it, [c]ancel it, or [s]tay?");
            let mut line = String::new();
            tokio::select! {
                biased;
                () = self.next() => return Choice::Cancel,
                read = input.read_line(&mut line) => match read {
                    Ok(0) | Err(_) => return Choice::Cancel,
                    Ok(_) => {}
                },
            }
            if let Some(choice) = parse(&line) {
                return choice;
            }
        }
    }
}

fn parse(line: &str) -> Option<Choice> {
    match line.trim().to_ascii_lowercase().as_str() {
        "d" | "detach" => Some(Choice::Detach),
        "c" | "cancel" => Some(Choice::Cancel),
        "s" | "stay" | "" => Some(Choice::Stay),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(parse(" D\n"), Some(Choice::Detach));
        assert_eq!(parse("cancel\n"), Some(Choice::Cancel));
        assert_eq!(parse("\n"), Some(Choice::Stay));
        assert_eq!(parse("what?\n"), None);
    }
}
