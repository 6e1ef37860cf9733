//! Members on real folders, connected in memory: what a user of the crate relies on.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test ends at the first surprise, prints its seed, and waits with a deadline of its own"
)]

mod crash;
mod disk;
mod group;
mod random;
mod removal;
mod single;
mod support;
