//! The agent of a node: owns its processes, relays their messages, admits its invocations.
//!
//! ```text
//! controller ──Node──▶ Agent ──▶ executor_process ──socket──▶ executor
//!                        └─────▶ compiler_process ──▶ compiler
//! API ──Invoker──▶ Invocations ──(past the controller)──▶ executor
//! ```

mod agent;
mod compiler_process;
mod executor_process;
mod invocations;
mod metrics;

pub use agent::{Agent, AgentSettings};
pub use invocations::Invocations;
pub use metrics::Metrics;
