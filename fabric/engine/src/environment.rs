//! What the operators of a task share: components, memory, log, and the account of what guests used.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, FunctionUsage, Meters, Problem, lock};
use weft_protocol::GuestTook;
use weft_sandbox::{
    Component, Expressions, Guest, GuestSettings, MemoryAccount, Reservation, TaskLog, monotonic_ns,
};

use crate::plan::{FunctionPlan, StagePlan};

/// What all operators of a task share.
pub(crate) struct TaskEnvironment {
    pub(crate) plan: Arc<StagePlan>,
    pub(crate) task: u32,
    pub(crate) components: HashMap<weft_core::Digest, Arc<Component>>,
    pub(crate) account: Arc<MemoryAccount>,
    pub(crate) log: Arc<TaskLog>,
    pub(crate) cancel: CancellationToken,
    pub(crate) spill_folder: std::path::PathBuf,
    /// Compiles the expressions that guests evaluate.
    pub(crate) expressions: Arc<dyn Expressions>,
    /// CPU time of the task's thread in calls of guests, which is on their accounts and not on its own.
    pub(crate) guest_cpu_ns: AtomicU64,
    pub(crate) usage: std::sync::Mutex<Vec<FunctionUsage>>,
    /// When the task began: in Unix nanoseconds, and on the clock that never goes back.
    pub(crate) began_ns: (u64, u64),
    /// When guests were alive, one entry for each function.
    pub(crate) guests: std::sync::Mutex<Vec<GuestTook>>,
}

/// The end of what has not ended.
const ALIVE: u64 = u64::MAX;

/// The time of a task, as if nobody had set the clock since it began.
#[derive(Clone, Copy)]
pub(crate) struct TaskClock {
    unix_ns: u64,
    monotonic_ns: u64,
}

impl TaskClock {
    /// The time, in Unix nanoseconds.
    pub(crate) fn unix_ns(self) -> u64 {
        self.unix_ns + (monotonic_ns() - self.monotonic_ns)
    }
}

impl TaskEnvironment {
    /// Starts a guest for `function`, not yet opened.
    pub(crate) async fn guest(&self, function: &FunctionPlan) -> Result<Guest, Problem> {
        self.start(function, self.settings(function)).await
    }

    /// Starts a guest for one of many calls, whose CPU time is limited by itself.
    pub(crate) async fn guest_of_call(
        &self,
        function: &FunctionPlan,
        seed: u64,
    ) -> Result<Guest, Problem> {
        let settings = GuestSettings {
            cpu_before_ns: 0,
            seed,
            ..self.settings(function)
        };
        self.start(function, settings).await
    }

    async fn start(
        &self,
        function: &FunctionPlan,
        settings: GuestSettings,
    ) -> Result<Guest, Problem> {
        let component = self.component(function)?;
        self.guest_lives(&function.label, true);
        Guest::start(component, settings)
            .await
            .map_err(|fault| fault.problem(&function.label))
    }

    /// The component of a function. Errors: `Internal` if it is not loaded.
    pub(crate) fn component(&self, function: &FunctionPlan) -> Result<&Arc<Component>, Problem> {
        self.components.get(&function.digest).ok_or_else(|| {
            Problem::new(
                ErrorCode::Internal,
                format!("`{}` is not loaded", function.label),
            )
        })
    }

    /// Settings of a guest for `function`.
    pub(crate) fn settings(&self, function: &FunctionPlan) -> GuestSettings {
        GuestSettings {
            label: function.label.clone(),
            account: Arc::clone(&self.account),
            cpu_limit_ns: function.limits.cpu_ms.saturating_mul(1_000_000),
            cpu_before_ns: self.cpu_before_ns(function),
            output_limit_bytes: function.limits.output_bytes,
            log: Arc::clone(&self.log),
            cancel: self.cancel.clone(),
            seed: self.plan.task_seed(self.task),
            started_ms: self.plan.started_ms,
            expressions: Some(Arc::clone(&self.expressions)),
            // A task of a job would keep its slot while it waits.
            futures: None,
        }
    }

    /// What earlier guests of the function used: combiners come anew for every run.
    fn cpu_before_ns(&self, function: &FunctionPlan) -> u64 {
        let usage = lock(&self.usage);
        let same =
            |one: &&FunctionUsage| one.stage == function.stage && one.function == function.label;
        let before = usage.iter().find(same);
        before.map_or(0, |one| one.billed.guest_cpu_ns + one.billed.native_cpu_ns)
    }

    /// Adds `bytes` of the task's memory to what is held; false, and nothing changed, where the limit does not allow it.
    #[must_use]
    pub(crate) fn try_hold(&self, held: &mut Option<Reservation>, bytes: u64) -> bool {
        match held {
            Some(held) => held.try_grow(bytes),
            None => {
                *held = self.account.try_reserve(bytes);
                held.is_some()
            }
        }
    }

    /// Fails where the job was cancelled.
    pub(crate) fn check_cancel(&self) -> Result<(), Problem> {
        if self.cancel.is_cancelled() {
            return Err(Problem::new(ErrorCode::Internal, "the task was cancelled"));
        }
        Ok(())
    }

    /// The task's clock.
    pub(crate) fn clock(&self) -> TaskClock {
        let (unix_ns, monotonic_ns) = self.began_ns;
        TaskClock {
            unix_ns,
            monotonic_ns,
        }
    }

    /// The time, in Unix nanoseconds, as if nobody had set the clock since the task began.
    pub(crate) fn unix_ns(&self) -> u64 {
        self.clock().unix_ns()
    }

    /// Records the start of a guest of the function, which is about to be retired.
    pub(crate) fn guest_began(&self, label: &str, began_ns: u64) {
        lock(&self.guests).push(GuestTook {
            function: label.to_owned(),
            began_ns,
            ended_ns: ALIVE,
        });
    }

    /// Takes note that a guest of the function starts, or that it has ended.
    fn guest_lives(&self, label: &str, lives: bool) {
        let now = self.unix_ns();
        let ended_ns = if lives { ALIVE } else { now };
        let mut guests = lock(&self.guests);
        match guests.iter_mut().find(|one| one.function == label) {
            Some(one) => one.ended_ns = ended_ns,
            None => guests.push(GuestTook {
                function: label.to_owned(),
                began_ns: now,
                ended_ns,
            }),
        }
    }

    /// Takes note of what a guest used, when it ends or fails.
    pub(crate) fn retire(&self, function: &FunctionPlan, guest: &Guest, rows_in: u64) {
        self.guest_lives(&function.label, false);
        let meters = guest.meters();
        self.guest_cpu_ns
            .fetch_add(meters.thread_cpu_ns, Ordering::Relaxed);
        let billed = Meters {
            guest_cpu_ns: meters.cpu_ns,
            native_cpu_ns: meters.native_cpu_ns,
            memory_byte_ns: meters.memory_byte_ns,
            memory_peak_bytes: meters.memory_peak_bytes,
            rows_in,
            rows_out: meters.rows_out,
            guest_calls: meters.calls,
            ..Meters::default()
        };
        let usage = FunctionUsage {
            stage: function.stage.clone(),
            function: function.label.clone(),
            billed_attempts: 1,
            billed,
            ..FunctionUsage::default()
        };
        let mut all = lock(&self.usage);
        match all
            .iter_mut()
            .find(|one| one.stage == usage.stage && one.function == usage.function)
        {
            Some(one) => {
                one.add(&usage);
                one.billed_attempts = 1;
            }
            None => all.push(usage),
        }
    }
}
