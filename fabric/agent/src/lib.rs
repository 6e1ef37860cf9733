//! The agent of a node: owns its processes, keeps their results, admits its invocations.
//!
//! ```text
//! scheduler ──ToAgent──▶ Agent (AgentState) ──▶ executor_process ──socket──▶ executor
//!           ◀─FromAgent─     └ results, until acknowledged; renewals of leases
//! API ──Invoker────▶ Invocations ──(past the scheduler)──▶ executor
//! API ──Compilers──▶ CompilerProcesses ──▶ compiler
//! ```

mod agent;
mod children;
mod compiler_process;
mod credentials;

mod executor_process;
mod invocations;
mod leases;
mod metrics;
mod results;
mod state;

pub use agent::{Agent, AgentSettings};
pub use compiler_process::CompilerProcesses;

pub use invocations::Invocations;
pub use metrics::Metrics;
pub use state::{Action, AgentState, NodeSettings};
