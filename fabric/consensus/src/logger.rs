//! Passes the Raft library's log lines, which are `slog` records, on to `tracing`.

use std::fmt::{Arguments, Write};

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer};

pub(crate) fn tracing_logger() -> Logger {
    Logger::root(TracingDrain, slog::o!())
}

struct TracingDrain;

impl Drain for TracingDrain {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!("{}", line(record, values)),
            Level::Warning => tracing::warn!("{}", line(record, values)),
            // Raft calls every step of an election worth knowing; for an operator these are details.
            Level::Info | Level::Debug => tracing::debug!("{}", line(record, values)),
            Level::Trace => tracing::trace!("{}", line(record, values)),
        }
        Ok(())
    }
}

fn line(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    // A line that lacks a field is better than none.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}
