//! Things that the actors of one executor share.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use weft_core::{Epoch, ErrorCode, Problem, TenantId};
use weft_runtime::{OnError, Tasks};
use weft_shard::ShardStore;

use super::answer::{Asked, Reply, too_many};
use super::bounds::{MAX_WAITING, RESIDENT_IDLE};
use super::deadlines::Deadlines;
use super::guests::Instances;
use super::pins::Pins;
use super::residents::Residents;
use super::shard_host::Hosts;
use super::threads::{Ready, Threads};
use super::turns;
use super::waits::Waits;
use crate::lease::Lease;
use crate::outward::Outward;

/// Time between two looks at deadlines.
const DEADLINE_TICK: Duration = Duration::from_millis(100);
/// Time between two looks for what is idle, in ticks.
const IDLE_TICKS: u64 = 10;
/// Time between two steps that forget answers of idempotency keys, in ticks.
const EXPIRY_TICKS: u64 = 100;

/// Settings that actors are served with.
pub(crate) struct ActorSettings {
    /// The executor's tenant.
    pub(crate) tenant: TenantId,
    /// The executor's lease.
    pub(crate) epoch: Epoch,
    /// Place of the shards.
    pub(crate) store: ShardStore,
    /// The lease as it is renewed.
    pub(crate) lease: Lease,
    /// The way to actors of other executors.
    pub(crate) outward: Outward,
    /// Messages to the agent.
    pub(crate) replies: mpsc::Sender<Reply>,
    /// Tasks of the process, on the runtime that drives connections.
    pub(crate) tasks: Tasks,
}

/// Everything but what belongs to one shard.
pub(super) struct Shared {
    pub(super) tenant: TenantId,
    pub(super) epoch: Epoch,
    pub(super) store: ShardStore,
    pub(super) lease: Lease,
    pub(super) outward: Outward,
    pub(super) replies: mpsc::Sender<Reply>,
    pub(super) instances: Arc<dyn Instances>,
    pub(super) io: Handle,
    pub(super) threads: Threads,
    pub(super) residents: Residents,
    pub(super) pins: Pins,
    pub(super) waits: Waits,
    pub(super) asked: Asked,
    pub(super) hosts: Hosts,
    pub(super) deadlines: Deadlines,
    tasks: Tasks,
    places: Arc<Semaphore>,
}

impl Shared {
    /// Starts what goes on beside turns, on the runtime that this is called in.
    pub(super) fn start(settings: ActorSettings, instances: Arc<dyn Instances>) -> Arc<Self> {
        let shared = Arc::new(Self {
            tenant: settings.tenant,
            epoch: settings.epoch,
            store: settings.store,
            lease: settings.lease,
            outward: settings.outward,
            replies: settings.replies,
            instances,
            io: Handle::current(),
            threads: Threads::default(),
            residents: Residents::default(),
            pins: Pins::default(),
            waits: Waits::default(),
            asked: Asked::default(),
            hosts: Hosts::default(),
            deadlines: Deadlines::default(),
            tasks: settings.tasks,
            places: Arc::new(Semaphore::new(MAX_WAITING)),
        });
        let keeper = Arc::clone(&shared);
        shared.spawn("actors", async move { keeper.keep().await });
        shared
    }

    /// Runs something on the runtime that drives connections, from whichever thread.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let _io = self.io.enter();
        self.tasks.spawn(name, OnError::Log, async move {
            work.await;
            Ok(())
        });
    }

    /// Takes a place among the requests that wait.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| {
            too_many(format!(
                "{MAX_WAITING} requests wait for actors, the most at a time; try again"
            ))
        })
    }

    /// Has an actor take its turn, on a thread that is started if there are not enough.
    pub(super) fn have_turn(self: &Arc<Self>, ready: Ready) {
        if !self.threads.push(ready) {
            return;
        }
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("weft-actor".into());
        let started = thread.spawn(move || turns::run(&shared));
        if let Err(error) = started {
            let detail = format!("no thread can be started for a turn: {error}; try again");
            let problem = Problem::new(ErrorCode::Busy, detail);
            tracing::error!(problem = problem.detail, "no turn runs");
            for ready in self.threads.not_started() {
                self.shard_failed(&ready.open, &problem);
            }
        }
    }

    /// Stops late turns, and lets go of what is idle.
    async fn keep(self: Arc<Self>) {
        let mut ticks = interval(DEADLINE_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            ticks.tick().await;
            self.deadlines.stop_late(Instant::now());
            if tick.is_multiple_of(IDLE_TICKS) {
                self.residents.forget_idle(RESIDENT_IDLE);
                self.close_idle_shards();
            }
            if tick.is_multiple_of(EXPIRY_TICKS) {
                self.expire_answers();
            }
        }
    }
}
