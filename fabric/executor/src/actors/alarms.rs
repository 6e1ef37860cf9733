//! Alarms of an open shard: read from its database by the time at which they are due, and fired as turns.
//!
//! ```text
//! d/due/actor ──scan from the earliest──▶ firing, at most 64 ──turn `alarm`──▶ its batch removes or moves d/due/actor
//! ```

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::{ActorRef, ErrorCode, Problem, lock};
use weft_runtime::clock::unix_ms;
use weft_shard::keys;

use super::answer::Asker;
use super::bounds::{ALARM_WAIT, MAX_ALARMS_AT_ONCE};
use super::mailbox::{Ask, Request};
use super::open_shard::OpenShard;

/// Alarms that one look reads: those that fire, and as many more.
const PAGE: usize = 2 * MAX_ALARMS_AT_ONCE;
/// Time between two looks while there are alarms, so that a clock that was set forward is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(10);
/// Pause of an alarm after the platform failed it.
const PAUSE: Duration = Duration::from_secs(1);

/// Alarm of an actor, by when it is due.
type Due = (u64, ActorRef);

/// Alarms, as far as they are known in memory.
pub(super) struct Alarms {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// No alarm is due before, but for those in `fresh_ms`.
    floor_ms: u64,
    /// The earliest of those that were set since the last look began.
    fresh_ms: u64,
    /// The next look is made then.
    wake_ms: u64,
    firing: HashSet<Due>,
    /// More are due than may fire at once.
    is_behind: bool,
}

impl Default for Alarms {
    /// Nothing is known yet.
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                floor_ms: 0,
                fresh_ms: u64::MAX,
                wake_ms: u64::MAX,
                firing: HashSet::new(),
                is_behind: false,
            }),
            changed: Notify::new(),
        }
    }
}

impl Alarms {
    /// An alarm was set: its batch has been accepted.
    pub(super) fn set(&self, due_ms: u64) {
        let mut state = lock(&self.state);
        state.fresh_ms = state.fresh_ms.min(due_ms);
        if due_ms < state.wake_ms {
            self.changed.notify_one();
        }
    }

    /// Returns whether no actor has an alarm.
    pub(super) fn are_none(&self) -> bool {
        let state = lock(&self.state);
        state.firing.is_empty() && state.floor_ms.min(state.fresh_ms) == u64::MAX
    }

    /// Begins a look at the database. Returns the time before which there are none.
    fn look(&self) -> u64 {
        let mut state = lock(&self.state);
        state.floor_ms = state.floor_ms.min(state.fresh_ms);
        state.fresh_ms = u64::MAX;
        // Whatever is set from here on asks for another look.
        state.wake_ms = u64::MAX;
        state.floor_ms
    }

    /// Ends a look, which has found these first. Returns those that are to fire now, and when to look again.
    fn found(&self, found: Vec<Due>, now_ms: u64) -> (Vec<Due>, u64) {
        let mut state = lock(&self.state);
        state.floor_ms = found.first().map_or(u64::MAX, |(due_ms, _)| *due_ms);
        let later = found.iter().find(|(due_ms, _)| *due_ms > now_ms);
        state.wake_ms = later.map_or(u64::MAX, |(due_ms, _)| *due_ms);
        state.is_behind = found.len() >= PAGE && later.is_none();
        let mut to_fire = Vec::new();
        for due in found.into_iter().filter(|(due_ms, _)| *due_ms <= now_ms) {
            if state.firing.contains(&due) {
                continue;
            }
            if state.firing.len() >= MAX_ALARMS_AT_ONCE {
                state.is_behind = true;
                break;
            }
            state.firing.insert(due.clone());
            to_fire.push(due);
        }
        (to_fire, state.wake_ms)
    }

    /// An alarm fires no more. `is_left`: it is still in the database.
    fn fired(&self, due: &Due, is_left: bool) {
        let mut state = lock(&self.state);
        state.firing.remove(due);
        if is_left || state.is_behind || state.firing.is_empty() {
            self.changed.notify_one();
        }
    }
}

/// Fires the alarms of a shard.
pub(super) struct AlarmLoop(pub(super) Arc<OpenShard>);

impl AlarmLoop {
    /// Fires alarms until the shard is closed. Errors: the shard cannot be read.
    pub(super) async fn run(self) -> Result<(), Problem> {
        let open = &self.0;
        loop {
            let range = from(open.alarms.look());
            let entries = open.shard.scan(range, PAGE).await?;
            let found = entries.iter().filter_map(|(key, _)| keys::due_of(key));
            let now_ms = unix_ms();
            let (to_fire, wake_ms) = open.alarms.found(found.collect(), now_ms);
            for due in to_fire {
                let open = Arc::clone(open);
                let fired = async move { fire(&open, due).await };
                self.0.shared.spawn("actor's alarm", fired);
            }
            let sleep = Duration::from_millis(wake_ms.saturating_sub(now_ms)).min(MAX_SLEEP);
            tokio::select! {
                () = open.alarms.changed.notified() => {}
                () = tokio::time::sleep(sleep), if wake_ms < u64::MAX => {}
            }
        }
    }
}

/// All alarms from a time on.
fn from(floor_ms: u64) -> keys::KeyRange {
    let lowest = ActorRef {
        component: String::new(),
        actor: String::new(),
        key: String::new(),
    };
    let (_, end) = keys::alarms();
    (Bound::Included(keys::due(floor_ms, &lowest)), end)
}

/// Has the actor its turn. If the guest fails, that turn's batch moves the alarm; if the platform does, it stays.
async fn fire(open: &Arc<OpenShard>, due: Due) {
    let (due_ms, actor) = due.clone();
    let ended = turn(open, due_ms, actor).await;
    let is_left = matches!(&ended, Err(problem) if problem.code.is_platform_fault());
    if is_left {
        tokio::select! {
            () = open.ended.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    open.alarms.fired(&due, is_left);
}

async fn turn(open: &Arc<OpenShard>, due_ms: u64, actor: ActorRef) -> Result<(), Problem> {
    let shared = &open.shared;
    let pin = shared.pin(&actor.function()).await;
    let pin = match pin {
        Err(problem) if problem.code.is_platform_fault() => return Err(problem),
        pin => Box::new(pin),
    };
    let (asker, answered) = Asker::here(shared.replies.clone());
    let request = Request {
        actor,
        ask: Ask::Alarm { due_ms, pin },
        chain: Vec::new(),
        deadline: Instant::now() + ALARM_WAIT,
        cancel: CancellationToken::new(),
        asker,
        place: None,
    };
    let failed = || Problem::new(ErrorCode::Busy, "the shard was closed");
    open.push(request).map_err(|_| failed())?;
    answered.await.map_err(|_| failed())?.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(due_ms: u64, key: &str) -> Due {
        let actor = ActorRef::new("bank", "account", key);
        (due_ms, actor.expect("a valid key"))
    }

    #[test]
    fn alarms_fire_when_they_are_due_and_once_at_a_time() {
        let alarms = Alarms::default();
        assert_eq!(alarms.look(), 0);
        let found = vec![due(5, "a"), due(6, "b"), due(20, "c")];
        let (to_fire, wake_ms) = alarms.found(found.clone(), 10);
        assert_eq!(to_fire, found[..2]);
        assert_eq!(wake_ms, 20);
        // They stay in the database until their turns have committed.
        assert_eq!(alarms.look(), 5);
        assert!(alarms.found(found.clone(), 10).0.is_empty());
        alarms.fired(&found[0], false);
        alarms.fired(&found[1], true);
        assert_eq!(alarms.look(), 5);
        let (to_fire, _) = alarms.found(found[1..].to_vec(), 10);
        assert_eq!(to_fire, found[1..2]);
        assert!(!alarms.are_none());
    }

    #[test]
    fn one_that_is_set_during_a_look_is_not_passed_over() {
        let alarms = Alarms::default();
        alarms.look();
        alarms.set(30);
        assert_eq!(alarms.found(Vec::new(), 10), (Vec::new(), u64::MAX));
        assert!(!alarms.are_none());
        assert_eq!(alarms.look(), 30);
        alarms.found(Vec::new(), 10);
        assert!(alarms.are_none());
    }

    #[test]
    fn a_look_begins_behind_what_has_fired() {
        for (floor_ms, due_ms, is_within) in [(7, 7, true), (7, 8, true), (8, 7, false)] {
            let (Bound::Included(first), Bound::Excluded(end)) = from(floor_ms) else {
                panic!("not the bounds that are read from and to");
            };
            let key = keys::due(due_ms, &due(0, "a").1);
            assert_eq!((first..end).contains(&key), is_within);
        }
    }

    #[test]
    fn as_many_fire_as_may() {
        let alarms = Alarms::default();
        alarms.look();
        let found: Vec<Due> = (0..PAGE).map(|n| due(1, &n.to_string())).collect();
        let (to_fire, _) = alarms.found(found.clone(), 10);
        assert_eq!(to_fire.len(), MAX_ALARMS_AT_ONCE);
        alarms.fired(&to_fire[0], false);
        alarms.look();
        let (more, _) = alarms.found(found[1..].to_vec(), 10);
        assert_eq!(more, [found[MAX_ALARMS_AT_ONCE].clone()]);
    }
}
