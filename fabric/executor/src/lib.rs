//! Processes that touch untrusted bytes: executors, which plan and run tasks and invocations of one
//! tenant, and compilers.
//!
//! ```text
//! agent ──socket──▶ executor: slots, invocation threads, actors, planning, publishing ──▶ weft-engine
//! agent ──arguments──▶ compiler: one component, under limits ──verdict──▶ agent
//! ```

mod actors;
mod call_threads;
mod calls;
mod compiler;
mod executor;
mod futures;
mod lease;
mod outward;

pub use compiler::run as compiler;
pub use executor::run as executor;
