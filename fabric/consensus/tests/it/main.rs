//! Members on real folders, connected in memory: what a user of the crate relies on.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, and prints its seed"
)]

mod crash;
mod disk;
mod group;
mod random;
mod single;
mod support;
