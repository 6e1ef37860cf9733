//! Guests that behave, and guests that do not, as a user of the crate runs them.

mod canary;
mod columns;
mod descriptions;
mod expressions;
mod faults;
mod futures;
mod limits;
mod python;
mod scalars;
mod support;
mod tasks;
mod turns;
mod types;
mod uploads;
