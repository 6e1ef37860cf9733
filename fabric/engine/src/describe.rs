//! Has a component describe itself, in a sandbox with small limits.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weft_core::Description;
use weft_core::{ErrorCode, LimitKind, Limits, Problem};
use weft_sandbox::{Component, Fault, Guest, GuestSettings, MemoryAccount, TaskLog};

/// CPU time of `describe` and of `bind`, which have little to do. A job may allow `bind` less.
const CPU_MS_MAX: u64 = 10_000;
/// Their memory, likewise.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Settings of a guest that plans or describes.
pub(crate) fn settings(
    label: &str,
    limits: &Limits,
    cancel: CancellationToken,
    seed: u64,
    started_ms: u64,
) -> GuestSettings {
    GuestSettings {
        label: label.to_owned(),
        account: MemoryAccount::new(limits.memory_bytes.min(MEMORY_BYTES_MAX)),
        cpu_limit_ns: limits.cpu_ms.min(CPU_MS_MAX) * 1_000_000,
        cpu_before_ns: 0,
        output_limit_bytes: 1 << 20,
        log: Arc::new(TaskLog::default()),
        cancel,
        seed,
        started_ms,
        // A job that is planned has no rows to compute with.
        expressions: None,
        futures: None,
    }
}

/// The fault of a guest that plans: where a job's own limit is not the one in force, raising it does nothing.
pub(crate) fn of_plan(fault: Fault, limits: &Limits) -> Fault {
    let is_fixed = match &fault {
        Fault::Limit { kind, .. } => match kind {
            LimitKind::Memory => limits.memory_bytes >= MEMORY_BYTES_MAX,
            LimitKind::Cpu => limits.cpu_ms >= CPU_MS_MAX,
            _ => false,
        },
        _ => false,
    };
    match is_fixed {
        true => fault.of_fixed_limit(),
        false => fault,
    }
}

/// What `component` says of itself. Errors: `invalid_component` whatever the guest does wrong.
pub(crate) async fn describe(component: &Arc<Component>) -> Result<Description, Problem> {
    let limits = Limits::default();
    let settings = settings("describe", &limits, CancellationToken::new(), 0, 0);
    let started = Guest::start(component, settings).await;
    let mut guest = started.map_err(|fault| invalid(&fault))?;
    guest.describe().await.map_err(|fault| invalid(&fault))
}

fn invalid(fault: &Fault) -> Problem {
    let mut problem = fault.problem("describe");
    if problem.code.is_platform_fault() {
        return problem;
    }
    problem.code = ErrorCode::InvalidComponent;
    let text = match fault {
        // The limits are not a job's, which could raise them.
        Fault::Limit { kind, value, .. } => format!("the `{kind}` limit of {value} was reached"),
        other => other.to_string(),
    };
    problem.detail = format!("the component cannot describe itself: {text}");
    problem
}
