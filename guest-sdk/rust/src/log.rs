//! Lines for the job's log: `weft::info!("{rows} rows")`, and `error!`, `warn!` and `debug!`.

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// Writes a line. What is above the job's limit is dropped and counted.
pub fn write(level: Level, message: &str) {
    crate::host::log(level, message);
}

/// Writes an error to the job's log, formatted as by `format!`.
#[macro_export]
macro_rules! error {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($arg)+)) };
}

/// Writes a warning to the job's log, formatted as by `format!`.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($arg)+)) };
}

/// Writes a line to the job's log, formatted as by `format!`.
#[macro_export]
macro_rules! info {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($arg)+)) };
}

/// Writes a line for debugging to the job's log, formatted as by `format!`.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)+) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($arg)+)) };
}
