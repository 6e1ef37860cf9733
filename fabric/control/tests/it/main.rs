//! The state machine in long random histories, as a user of the crate drives it.

// `support` is shared with the unit tests, and finds the crate's items at the root in both places.
use weft_control::*;

mod model;
mod random;
mod simulation;
#[expect(
    dead_code,
    reason = "shared with the unit tests, which use other parts of it"
)]
#[path = "../../src/tests/support.rs"]
mod support;
