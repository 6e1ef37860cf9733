//! Has a component describe itself, in a sandbox with small limits.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, Problem};
use weft_sandbox::{Component, Description, Guest, GuestSettings, MemoryAccount, TaskLog};

/// Limits of `describe` and `bind`, which have little to do.
const MEMORY_BYTES: u64 = 256 << 20;
const CPU_NS: u64 = 10_000_000_000;

/// Settings of a guest that plans or describes.
pub(crate) fn settings(label: &str, seed: u64, started_ms: u64) -> GuestSettings {
    GuestSettings {
        label: label.to_owned(),
        account: MemoryAccount::new(MEMORY_BYTES),
        cpu_limit_ns: CPU_NS,
        output_limit_bytes: 1 << 20,
        log: Arc::new(TaskLog::default()),
        cancel: CancellationToken::new(),
        seed,
        started_ms,
    }
}

/// What `component` says of itself. Errors: `invalid_component` whatever the guest does wrong.
pub(crate) async fn describe(component: &Arc<Component>) -> Result<Description, Problem> {
    let invalid = |fault: weft_sandbox::Fault| {
        Problem::new(
            ErrorCode::InvalidComponent,
            format!("the component cannot describe itself: {fault}"),
        )
    };
    let mut guest = Guest::start(component, settings("describe", 0, 0))
        .await
        .map_err(invalid)?;
    guest.describe().await.map_err(invalid)
}
