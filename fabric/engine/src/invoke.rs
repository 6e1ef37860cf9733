//! Invocations: one call of a task function, in a sandbox of its own, for somebody who waits for the answer.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weft_core::LogLine;
use weft_core::{Meters, Problem};
use weft_sandbox::{
    Component, Expressions, Futures, Guest, GuestSettings, MemoryAccount, TaskLog, monotonic_ns,
    thread_cpu_ns, unix_ns,
};

use weft_protocol::{InvokeReply, InvokeRequest};

/// Lines of an invocation's log that are told; the rest is counted.
const LOG_LINES_MAX: usize = 32;

/// What a guest of a call runs with. `cpu_before_ns` is what an earlier one used.
pub(crate) fn guest_settings(
    request: &InvokeRequest,
    account: &Arc<MemoryAccount>,
    log: &Arc<TaskLog>,
    cancel: CancellationToken,
    cpu_before_ns: u64,
    expressions: &Arc<dyn Expressions>,
) -> GuestSettings {
    GuestSettings {
        label: request.label.clone(),
        account: Arc::clone(account),
        cpu_limit_ns: request.limits.cpu_ms.saturating_mul(1_000_000),
        cpu_before_ns,
        output_limit_bytes: request.limits.output_bytes,
        log: Arc::clone(log),
        cancel,
        seed: request.seed,
        started_ms: request.started_ms,
        expressions: Some(Arc::clone(expressions)),
        futures: None,
    }
}

/// What is told of a call's log.
pub(crate) struct InvokeLog {
    pub(crate) lines: Vec<LogLine>,
    pub(crate) dropped: u64,
}

impl InvokeLog {
    pub(crate) fn of(log: &TaskLog) -> Self {
        let (mut lines, mut dropped) = log.take();
        dropped += lines.len().saturating_sub(LOG_LINES_MAX) as u64;
        lines.truncate(LOG_LINES_MAX);
        Self { lines, dropped }
    }
}

/// Calls the function. What it used is on the reply, whichever way it ends. `futures`: those that it may spawn.
pub(crate) async fn invoke(
    component: &Arc<Component>,
    request: &InvokeRequest,
    input: &[u8],
    cancel: CancellationToken,
    expressions: &Arc<dyn Expressions>,
    futures: Option<Box<dyn Futures>>,
) -> (InvokeReply, Vec<u8>) {
    let (cpu_began, began, began_ns) = (thread_cpu_ns(), monotonic_ns(), unix_ns());
    let log = Arc::new(TaskLog::default());
    let account = MemoryAccount::new(request.limits.memory_bytes);
    let settings = GuestSettings {
        futures,
        ..guest_settings(request, &account, &log, cancel, 0, expressions)
    };
    let mut meters = Meters::default();
    let mut on_thread_ns = 0;
    let result = match Guest::start(component, settings).await {
        Ok(mut guest) => {
            let ran = guest
                .run_task(&request.function, &request.params, 0, input)
                .await;
            let used = guest.meters();
            on_thread_ns = used.thread_cpu_ns;
            meters = Meters {
                guest_cpu_ns: used.cpu_ns,
                native_cpu_ns: used.native_cpu_ns,
                guest_calls: used.calls,
                memory_byte_ns: used.memory_byte_ns,
                memory_peak_bytes: used.memory_peak_bytes,
                ..meters
            };
            ran
        }
        Err(fault) => Err(fault),
    };
    // The sandbox is gone by now: taking it down is a part of the call.
    meters.native_cpu_ns += (thread_cpu_ns() - cpu_began).saturating_sub(on_thread_ns);
    meters.wall_ns = monotonic_ns() - began;
    meters.bytes_read = input.len() as u64;
    let InvokeLog { lines, dropped } = InvokeLog::of(&log);
    let (result, output) = match result {
        Ok(output) => (Ok(()), output),
        Err(fault) => {
            let problem = fault.of_fixed_limit().problem(&request.label);
            (Err(problem), Vec::new())
        }
    };
    meters.bytes_written = output.len() as u64;
    let reply = InvokeReply {
        request: request.request,
        label: request.label.clone(),
        result,
        meters,
        log: lines,
        log_dropped: dropped,
        began_ns,
    };
    (reply, output)
}

/// The reply where no sandbox was started.
pub(crate) fn refused(request: &InvokeRequest, problem: Problem) -> (InvokeReply, Vec<u8>) {
    let reply = InvokeReply {
        request: request.request,
        label: request.label.clone(),
        result: Err(problem),
        meters: Meters::default(),
        log: Vec::new(),
        log_dropped: 0,
        began_ns: 0,
    };
    (reply, Vec::new())
}
