//! Controllers that join the group and leave it. One that is added gets the log first, and its vote once it
//! has caught up: until then the group needs no answer of it.

use std::time::Duration;

use weft_consensus::{Change, ErrorKind, Membership};
use weft_core::{ErrorCode, Problem};

use crate::group::{self, Question, Reply};
use crate::replica::Replica;

/// Entries of the log that a learner may lack when it gets its vote.
const CAUGHT_UP_ENTRIES: u64 = 100;
/// Time between two looks at learners.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Tries of a change that another one is in the way of, or that needs to hear of members.
const TRIES: u32 = 20;
/// Members of a group, learners included.
const MEMBERS_MAX: usize = 9;
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(100);

/// A wish of an operator.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    /// A controller joins.
    Add(u64),
    /// A controller leaves.
    Remove(u64),
}

/// Has the leader change the members. One that is added has no vote yet when this returns.
///
/// Errors: `not_found` for a member that is none, `version_conflict` for a change that would cost the group
/// its majority, `busy`.
pub(crate) async fn change(replica: &Replica, wanted: Wanted) -> Result<(), Problem> {
    let (Some(leader), Some(peers)) = (replica.leader_elsewhere(), replica.peers()) else {
        return change_here(replica, wanted).await;
    };
    match group::ask(&**peers, leader, &Question::Members(wanted)).await? {
        Reply::Done => Ok(()),
        _ => {
            let detail = "the controller that led leads no more; try again";
            Err(Problem::new(ErrorCode::Busy, detail))
        }
    }
}

/// [`change`], on the leader.
pub(crate) async fn change_here(replica: &Replica, wanted: Wanted) -> Result<(), Problem> {
    let mut tried = try_once(replica, wanted).await;
    for _ in 1..TRIES {
        // A member counts as alive when it was heard a moment ago.
        let again = tried.as_ref().is_err_and(|(_, again)| *again);
        if !again {
            break;
        }
        replica.clock().sleep(TRY_PAUSE).await;
        tried = try_once(replica, wanted).await;
    }
    tried.map_err(|(problem, _)| problem)
}

/// The change that brings what is wanted; none if it is there.
fn change_for(replica: &Replica, wanted: Wanted) -> Result<Option<Change>, Problem> {
    if !replica.status().is_leader {
        let detail = "nobody leads the group, as far as this controller knows; try again";
        return Err(Problem::new(ErrorCode::Busy, detail));
    }
    let members = replica.handle().watch_members().borrow().clone();
    match wanted {
        Wanted::Add(member) if members.contains(member) => Ok(None),
        Wanted::Add(member) => {
            check_number(&members)?;
            check_address(replica, member)?;
            Ok(Some(Change::AddLearner(member)))
        }
        Wanted::Remove(member) if !members.contains(member) => {
            let detail = format!("controller {member} is not a member");
            Err(Problem::new(ErrorCode::NotFound, detail))
        }
        Wanted::Remove(member) => Ok(Some(Change::Remove(member))),
    }
}

fn check_number(members: &Membership) -> Result<(), Problem> {
    if members.voters.len() + members.learners.len() < MEMBERS_MAX {
        return Ok(());
    }
    let detail =
        format!("the group has {MEMBERS_MAX} members, which is the limit: remove one first");
    Err(Problem::new(ErrorCode::VersionConflict, detail))
}

fn check_address(replica: &Replica, member: u64) -> Result<(), Problem> {
    if replica.peers().is_some_and(|peers| peers.knows(member)) {
        return Ok(());
    }
    let detail = format!(
        "the leader has no address of controller {member}: name it in `peers` of the settings of all controllers, and start them again one by one; with etcd, start it"
    );
    Err(Problem::new(ErrorCode::VersionConflict, detail))
}

/// Tries a change; an error says whether it is worth another try.
async fn try_once(replica: &Replica, wanted: Wanted) -> Result<(), (Problem, bool)> {
    let Some(change) = change_for(replica, wanted).map_err(|problem| (problem, false))? else {
        return Ok(());
    };
    let changed = replica.handle().change_members(change).await;
    changed.map_err(|error| {
        let code = match error.kind() {
            ErrorKind::Invalid => ErrorCode::VersionConflict,
            ErrorKind::NotLeader | ErrorKind::Unavailable => ErrorCode::Busy,
            _ => ErrorCode::Internal,
        };
        let again = matches!(
            error,
            weft_consensus::Error::ChangeUnderWay | weft_consensus::Error::NoMajority { .. }
        );
        (Problem::new(code, error.to_string()), again)
    })
}

/// Gives learners their vote once they have caught up, as long as this member leads.
pub(crate) async fn keep_promoting(replica: Replica) -> anyhow::Result<()> {
    loop {
        replica.clock().sleep(LOOK_PAUSE).await;
        promote(&replica).await;
    }
}

/// One look at the learners.
pub(crate) async fn promote(replica: &Replica) {
    if !replica.status().is_leader {
        return;
    }
    let Membership { learners, .. } = replica.handle().watch_members().borrow().clone();
    for member in learners {
        let lag = replica.handle().lag(member).await;
        if !matches!(lag, Ok(Some(entries)) if entries <= CAUGHT_UP_ENTRIES) {
            continue;
        }
        let change = Change::AddVoter(member);
        match replica.handle().change_members(change).await {
            Ok(()) => tracing::info!(member, "a controller has caught up, and votes from now on"),
            // It is looked at again.
            Err(error) => tracing::debug!(member, %error, "a controller gets no vote yet"),
        }
    }
}
