//! Nodes that this controller reaches: where invocations and compilations go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;
use weft_core::{ErrorCode, NodeId, Problem, TenantId};
use weft_runtime::Scoped;
use weft_runtime::link::{WorkChange, Worker};

use crate::actors::GuestCalls;

/// A node that is reached, and what it does for this controller.
struct Reached {
    worker: Worker,
    under_way: Arc<AtomicUsize>,
    /// Takes calls of the node's guests as long as it is reached.
    _calls: Scoped,
}

impl Reached {
    fn chosen(&self) -> Chosen {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Chosen {
            worker: self.worker.clone(),
            under_way: Arc::clone(&self.under_way),
        }
    }
}

/// The nodes that this controller reaches. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Nodes {
    reached: Arc<RwLock<BTreeMap<NodeId, Reached>>>,
}

/// A node that was chosen. It counts as busier until this is dropped.
pub(crate) struct Chosen {
    pub(crate) worker: Worker,
    under_way: Arc<AtomicUsize>,
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Nodes {
    /// Takes in changes until their sender is gone, and has the calls of nodes' guests made.
    pub(crate) async fn follow(
        self,
        mut changes: mpsc::Receiver<WorkChange>,
        calls: GuestCalls,
    ) -> anyhow::Result<()> {
        while let Some(change) = changes.recv().await {
            self.change(change, &calls);
        }
        Ok(())
    }

    fn change(&self, change: WorkChange, calls: &GuestCalls) {
        let mut reached = self.reached.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            WorkChange::Up(node, worker) => {
                let new = Reached {
                    _calls: calls.serve(&worker),
                    worker,
                    under_way: Arc::default(),
                };
                reached.insert(node, new);
            }
            WorkChange::Down(node, worker) => {
                // A newer connection may have taken its place.
                if reached
                    .get(&node)
                    .is_some_and(|known| known.worker.is(&worker))
                {
                    reached.remove(&node);
                }
            }
        }
    }

    /// Returns whether a node serves the tenant.
    pub(crate) fn is_ready(&self, tenant: &TenantId) -> bool {
        let reached = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        reached
            .values()
            .any(|one| one.worker.invoker.is_ready(tenant))
    }

    /// Status of a node: `ready` if an executor takes work, `starting` without one, `unreachable`.
    pub(crate) fn status(&self, node: &NodeId) -> &'static str {
        let reached = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        match reached.get(node) {
            None => "unreachable",
            Some(one) if one.worker.invoker.is_draining() => "draining",
            Some(one) if one.worker.invoker.ready_tenants().is_empty() => "starting",
            Some(_) => "ready",
        }
    }

    /// Invocations of a node that this controller waits for.
    pub(crate) fn under_way(&self, node: &NodeId) -> usize {
        let reached = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        let under_way = reached.get(node).map(|one| &one.under_way);
        under_way.map_or(0, |under_way| under_way.load(Ordering::Relaxed))
    }

    /// The node that is to serve an invocation: of those with an executor of the tenant the one with
    /// the least to do for this controller, or any if there is none.
    ///
    /// Errors: `busy` if no node is reached.
    pub(crate) fn for_invocation(&self, tenant: &TenantId) -> Result<Chosen, Problem> {
        self.choose(|one| !one.worker.invoker.is_ready(tenant))
    }

    /// A node, if it is reached.
    pub(crate) fn of(&self, node: &NodeId) -> Option<Chosen> {
        let reached = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        reached.get(node).map(Reached::chosen)
    }

    /// The node that is to compile a component. Errors: `busy` if none is reached.
    pub(crate) fn for_compilation(&self) -> Result<Chosen, Problem> {
        self.choose(|one| one.worker.invoker.is_draining())
    }

    fn choose(&self, is_last_resort: impl Fn(&Reached) -> bool) -> Result<Chosen, Problem> {
        let reached = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        let load = |one: &&Reached| (is_last_resort(one), one.under_way.load(Ordering::Relaxed));
        let chosen = reached.values().min_by_key(load);
        chosen.map(Reached::chosen).ok_or_else(none_reached)
    }

    /// Name of the artefacts that nodes' engines take: a cluster runs one version.
    ///
    /// Errors: `busy` if no node is reached.
    pub(crate) fn compatibility(&self) -> Result<String, Problem> {
        let reached = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        let one = reached.values().next().ok_or_else(none_reached)?;
        Ok(one.worker.compilers.compatibility().to_owned())
    }
}

fn none_reached() -> Problem {
    let detail = "no node is connected to this controller; try again";
    Problem::new(ErrorCode::Busy, detail)
}
