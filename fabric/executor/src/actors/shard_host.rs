//! Shards that the executor serves: opened at their first use, closed when they are idle, and opened anew after a
//! failure.
//!
//! ```text
//!           use              taken from the writer before
//!  closed ───────▶ opening ──────────────────────────────▶ open
//!    ▲                ▲                                      │ idle, or the store failed,
//!    └─── nobody waits┴── somebody waits ─── closing ◀───────┘ or another took it
//! ```

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use weft_core::{ErrorCode, Problem, lock};

use super::bounds::SHORT_LIFE;
use super::committer::Step;
use super::open_shard::OpenShard;
use super::shared::Shared;

/// Tries to take a shard that somebody else takes at the same time.
const MAX_TAKES: usize = 5;
/// Time in which a shard is closed. Its store may have failed.
const CLOSE_WALL: Duration = Duration::from_secs(5);
/// Pause between two tries to open a shard of which nobody waits.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

type Opened = Result<Arc<OpenShard>, Problem>;
type Waiters = Vec<oneshot::Sender<Opened>>;

enum Slot {
    Opening(Waiters),
    Open(Arc<OpenShard>),
    Closing(Waiters),
}

#[derive(Default)]
struct State {
    /// Shards that were granted to the executor.
    granted: BTreeSet<u32>,
    /// Those that are not closed.
    slots: HashMap<u32, Slot>,
    serials: u64,
}

/// Shards of the executor.
#[derive(Default)]
pub(super) struct Hosts(Mutex<State>);

impl Hosts {
    /// The shard was granted to this executor, for as long as its lease is in force.
    pub(super) fn grant(&self, number: u32) {
        lock(&self.0).granted.insert(number);
    }

    /// Returns whether the shard is this executor's.
    pub(super) fn is_granted(&self, number: u32) -> bool {
        lock(&self.0).granted.contains(&number)
    }

    /// The shard, if it is open.
    pub(super) fn open_now(&self, number: u32) -> Option<Arc<OpenShard>> {
        match lock(&self.0).slots.get(&number) {
            Some(Slot::Open(open)) => Some(Arc::clone(open)),
            _ => None,
        }
    }

    fn all_open(&self) -> Vec<Arc<OpenShard>> {
        let state = lock(&self.0);
        let open = state.slots.values().filter_map(|slot| match slot {
            Slot::Open(open) => Some(Arc::clone(open)),
            Slot::Opening(_) | Slot::Closing(_) => None,
        });
        open.collect()
    }

    fn serial(&self) -> u64 {
        let mut state = lock(&self.0);
        state.serials += 1;
        state.serials
    }

    /// Waits for the shard to be open. The second part says that somebody has to open it.
    fn wait(&self, number: u32) -> (oneshot::Receiver<Opened>, bool) {
        let (opened, waiting) = oneshot::channel();
        let mut state = lock(&self.0);
        match state.slots.get_mut(&number) {
            Some(Slot::Open(open)) => drop(opened.send(Ok(Arc::clone(open)))),
            Some(Slot::Opening(waiters) | Slot::Closing(waiters)) => waiters.push(opened),
            None => {
                state.slots.insert(number, Slot::Opening(vec![opened]));
                return (waiting, true);
            }
        }
        (waiting, false)
    }

    /// The shard has been opened, or not.
    fn opened(&self, number: u32, opened: Opened) {
        let mut state = lock(&self.0);
        let Some(Slot::Opening(waiters)) = state.slots.remove(&number) else {
            return;
        };
        // It may have failed already.
        let opened = match opened {
            Ok(open) if open.ended.is_cancelled() => Err(failed_at_once()),
            opened => opened,
        };
        if let Ok(open) = &opened {
            state.slots.insert(number, Slot::Open(Arc::clone(open)));
        }
        drop(state);
        for waiter in waiters {
            // It may have gone.
            let _ = waiter.send(opened.clone());
        }
    }

    /// The open shard is about to be closed.
    pub(super) fn closing(&self, open: &Arc<OpenShard>) {
        let mut state = lock(&self.0);
        if let Some(Slot::Open(this)) = state.slots.get(&open.number)
            && Arc::ptr_eq(this, open)
        {
            state.slots.insert(open.number, Slot::Closing(Vec::new()));
        }
    }

    /// The shard is closed. Returns whether somebody has to open it.
    fn closed(&self, number: u32) -> bool {
        let mut state = lock(&self.0);
        match state.slots.remove(&number) {
            Some(Slot::Closing(waiters)) if !waiters.is_empty() => {
                state.slots.insert(number, Slot::Opening(waiters));
                true
            }
            Some(Slot::Closing(_)) | None => false,
            Some(other) => {
                state.slots.insert(number, other);
                false
            }
        }
    }
}

fn failed_at_once() -> Problem {
    let detail = "the shard of the actor failed as it was opened; try again";
    Problem::new(ErrorCode::Busy, detail)
}

impl Shared {
    /// The shard, which is opened if it is not open. Errors: the store fails, or somebody else takes the shard.
    pub(super) async fn opened(self: &Arc<Self>, number: u32) -> Opened {
        let (waiting, is_first) = self.hosts.wait(number);
        if is_first {
            self.begin_opening(number);
        }
        waiting.await.unwrap_or_else(|_| Err(failed_at_once()))
    }

    fn begin_opening(self: &Arc<Self>, number: u32) {
        self.spawn("shard of actors", Arc::clone(self).open(number));
    }

    fn open(self: Arc<Self>, number: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let opened = self.take_shard(number).await;
            if let Err(problem) = &opened {
                let problem = &problem.detail;
                tracing::warn!(number, problem, "a shard of actors is not opened");
            }
            self.hosts.opened(number, opened);
        })
    }

    /// Takes the shard from the writer before. Between reading that writer's epoch and taking over from it, the lease
    /// is confirmed: so whoever was granted the shard later has another epoch by then, or takes it from us.
    async fn take_shard(self: &Arc<Self>, number: u32) -> Opened {
        for _ in 0..MAX_TAKES {
            let epoch = self.store.writer_epoch(&self.tenant, number).await?;
            self.lease.confirmed().await;
            match self.store.open(&self.tenant, number, epoch).await {
                Ok(shard) => {
                    let serial = self.hosts.serial();
                    return OpenShard::start(self, number, serial, shard).await;
                }
                Err(weft_shard::Error::Fenced { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let detail = format!(
            "shard {number} was taken {MAX_TAKES} times by another executor as it was opened; try again"
        );
        Err(Problem::new(ErrorCode::Busy, detail))
    }

    /// An open shard has failed: whoever waits hears of it, and the shard is opened anew, for what is due in it.
    pub(super) fn shard_failed(self: &Arc<Self>, open: &Arc<OpenShard>, problem: &Problem) {
        if !open.end() {
            return;
        }
        let (number, detail) = (open.number, &problem.detail);
        tracing::warn!(number, problem = detail, "a shard of actors failed");
        // Their askers are answered as they are dropped.
        drop(open.mailboxes.fail());
        self.begin_closing(open, true);
    }

    fn begin_closing(self: &Arc<Self>, open: &Arc<OpenShard>, has_failed: bool) {
        self.hosts.closing(open);
        self.residents.forget_shard(open.serial);
        let (shared, open) = (Arc::clone(self), Arc::clone(open));
        self.spawn("end of a shard of actors", async move {
            let closing = open.shard.clone().close();
            // What is not durable was not answered for.
            let _ = tokio::time::timeout(CLOSE_WALL, closing).await;
            if shared.hosts.closed(open.number) {
                shared.begin_opening(open.number);
            }
            if has_failed {
                if open.since.elapsed() < SHORT_LIFE {
                    // The next opening may come to the same end.
                    tokio::time::sleep(MAX_PAUSE).await;
                }
                shared.look(open.number);
            }
        });
    }

    /// Opens a shard for what is due in it, however often it takes.
    pub(super) fn look(self: &Arc<Self>, number: u32) {
        let shared = Arc::clone(self);
        self.spawn("look at a shard of actors", async move {
            let mut pause = FIRST_PAUSE;
            while shared.opened(number).await.is_err() {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(MAX_PAUSE);
            }
        });
    }

    /// Closes shards in which nothing goes on.
    pub(super) fn close_idle_shards(self: &Arc<Self>) {
        for open in self.hosts.all_open() {
            if open.close_idle() && open.end() {
                self.begin_closing(&open, false);
            }
        }
    }

    /// Has open shards forget answers of idempotency keys whose time is over.
    pub(super) fn expire_answers(&self) {
        for open in self.hosts.all_open() {
            open.try_step(Step::Expire);
        }
    }
}
