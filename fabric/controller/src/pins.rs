//! Versions that serve functions now, for actors and for calls of guests.

use std::sync::Arc;

use weft_control::Tenant;
use weft_core::{ActorRef, ErrorCode, FunctionKind, Limits, PinnedFunction, Problem, TenantId};
use weft_protocol::{MAX_TURN_BYTES, Pin};

use crate::components::Components;
use crate::replica::Replica;

/// Limits of a turn of an actor, and of a task that a guest spawns.
const LIMITS: Limits = Limits {
    memory_bytes: 256 << 20,
    cpu_ms: 30_000,
    wall_ms: 600_000,
    output_bytes: MAX_TURN_BYTES as u64,
};

/// Finds the versions of functions. Clones share it.
#[derive(Clone)]
pub(crate) struct Pins {
    replica: Replica,
    components: Arc<Components>,
}

/// A function that is fixed to a version.
pub(crate) struct Pinned {
    /// The version.
    pub(crate) pin: Pin,
    /// Name of the function in its component.
    pub(crate) function: String,
}

impl Pins {
    pub(crate) fn new(replica: &Replica, components: &Arc<Components>) -> Self {
        Self {
            replica: replica.clone(),
            components: Arc::clone(components),
        }
    }

    /// The newest version of an actor function, with its artefact.
    ///
    /// Errors: `unknown_function`, and `invalid_job` if a version is asked for.
    pub(crate) async fn actor(&self, tenant: &TenantId, actor: &ActorRef) -> Result<Pin, Problem> {
        let reference = actor.function();
        refuse_version(&reference)?;
        let pinned = self.pin(tenant, &reference, &[FunctionKind::Actor]).await?;
        Ok(pinned.pin)
    }

    /// Checks that there is an actor function. Errors: as those of [`Pins::actor`].
    pub(crate) async fn check_actor(
        &self,
        tenant: &TenantId,
        reference: &str,
    ) -> Result<(), Problem> {
        refuse_version(reference)?;
        let found = self.find(tenant, reference, &[FunctionKind::Actor]).await;
        found.map(drop)
    }

    /// The version that a reference to a function of one of `kinds` means now, with its artefact.
    ///
    /// Errors: `unknown_function`.
    pub(crate) async fn pin(
        &self,
        tenant: &TenantId,
        reference: &str,
        kinds: &[FunctionKind],
    ) -> Result<Pinned, Problem> {
        let found = self.find(tenant, reference, kinds).await?;
        let artefact = self.components.artefact(tenant, &found.digest).await?;
        Ok(Pinned {
            pin: Pin {
                label: found.label(),
                digest: found.digest,
                artefact,
                limits: LIMITS,
            },
            function: found.function.name,
        })
    }

    /// Looks twice: a function may have been deployed a moment ago, through another controller.
    async fn find(
        &self,
        tenant: &TenantId,
        reference: &str,
        kinds: &[FunctionKind],
    ) -> Result<PinnedFunction, Problem> {
        let find = || match self.replica.state().tenant(tenant) {
            Some(tenant) => tenant.pin_kind(reference, kinds),
            None => Tenant::default().pin_kind(reference, kinds),
        };
        match find() {
            Err(_) if self.replica.may_lag() => {
                self.replica.catch_up().await?;
                find()
            }
            found => found,
        }
    }
}

fn refuse_version(reference: &str) -> Result<(), Problem> {
    if !reference.contains('@') {
        return Ok(());
    }
    let reference: String = reference.escape_debug().collect();
    let detail = format!(
        "`{reference}`: actors always run the newest version of their component; leave the version out"
    );
    Err(Problem::new(ErrorCode::InvalidJob, detail).of_function(reference))
}
