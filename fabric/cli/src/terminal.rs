//! Everything between a command and the person at the terminal: streams, tables, progress, Ctrl-C.

mod interrupt;
mod output;
mod progress;
mod table;
pub(crate) mod text;

pub(crate) use interrupt::{Choice, Interrupts};
pub(crate) use output::Output;
#[cfg(test)]
pub(crate) use output::captured;
pub(crate) use progress::Progress;
pub(crate) use table::{Side, Table};
