//! Instances of actors, as turns enter them.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use weft_core::Problem;
use weft_engine::Executor;
use weft_protocol::Pin;
use weft_runtime::random;
use weft_sandbox::{
    Guest, GuestMeters, GuestSettings, MemoryAccount, Result, TaskLog, Turn, TurnSettings,
};

/// One instance of an actor. The thread of its turn polls it.
#[async_trait(?Send)]
pub(super) trait Instance: Send {
    /// Begins a turn: until it ends, calls see its state.
    fn begin_turn(&mut self, settings: TurnSettings);

    /// Ends the turn, also after a fault.
    fn end_turn(&mut self) -> Option<Box<dyn Turn>>;

    /// Makes the instance of a key: the first call.
    async fn wake(&mut self, actor: &str, key: &str) -> Result<()>;

    /// Calls a method.
    async fn invoke(&mut self, method: &str, input: &[u8]) -> Result<Vec<u8>>;

    /// Tells it that its alarm is due.
    async fn alarm(&mut self) -> Result<()>;

    /// Usage so far.
    fn meters(&self) -> GuestMeters;

    /// Memory that it holds.
    fn held_bytes(&self) -> u64;
}

/// Settings of an instance.
pub(super) struct Start<'a> {
    pub(super) pin: &'a Pin,
    pub(super) log: Arc<TaskLog>,
    pub(super) cancel: CancellationToken,
    pub(super) now_ms: u64,
}

/// Source of instances.
#[async_trait(?Send)]
pub(super) trait Instances: Send + Sync {
    /// Starts an instance, which is not awake yet.
    async fn start(&self, start: Start<'_>) -> std::result::Result<Box<dyn Instance>, Problem>;
}

/// Instances in sandboxes.
pub(super) struct Sandboxes(pub(super) Executor);

struct Sandbox {
    guest: Guest,
    account: Arc<MemoryAccount>,
}

#[async_trait(?Send)]
impl Instances for Sandboxes {
    async fn start(&self, start: Start<'_>) -> std::result::Result<Box<dyn Instance>, Problem> {
        let pin = start.pin;
        let component = self.0.component(&pin.digest, &pin.artefact).await?;
        let account = MemoryAccount::new(pin.limits.memory_bytes);
        let settings = GuestSettings {
            label: pin.label.clone(),
            account: Arc::clone(&account),
            cpu_limit_ns: pin.limits.cpu_ms.saturating_mul(1_000_000),
            cpu_before_ns: 0,
            output_limit_bytes: pin.limits.output_bytes,
            log: start.log,
            cancel: start.cancel,
            seed: u64::from_le_bytes(random::bytes()?),
            started_ms: start.now_ms,
            expressions: Some(self.0.expressions()),
            futures: None,
        };
        let guest = Guest::start(&component, settings).await;
        let guest = guest.map_err(|fault| fault.of_fixed_limit().problem(&pin.label))?;
        Ok(Box::new(Sandbox { guest, account }))
    }
}

#[async_trait(?Send)]
impl Instance for Sandbox {
    fn begin_turn(&mut self, settings: TurnSettings) {
        self.guest.begin_turn(settings);
    }

    fn end_turn(&mut self) -> Option<Box<dyn Turn>> {
        self.guest.end_turn()
    }

    async fn wake(&mut self, actor: &str, key: &str) -> Result<()> {
        self.guest.wake(actor, key).await
    }

    async fn invoke(&mut self, method: &str, input: &[u8]) -> Result<Vec<u8>> {
        self.guest.invoke_actor(method, input).await
    }

    async fn alarm(&mut self) -> Result<()> {
        self.guest.alarm().await
    }

    fn meters(&self) -> GuestMeters {
        self.guest.meters()
    }

    fn held_bytes(&self) -> u64 {
        self.account.used_bytes()
    }
}

#[cfg(test)]
pub(super) mod fake;
