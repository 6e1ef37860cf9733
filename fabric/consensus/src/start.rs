//! Brings a member up: snapshot, log, node, thread.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use raft::{RawNode, ReadOnlyOption};
use raft_engine::env::DefaultFileSystem;
use tokio::sync::{Semaphore, watch};

use crate::disk::{Disk, panic_text, sync_folder};
use crate::error::Error;
use crate::handle::{Handle, Outcome, Shared, Status};
use crate::log::Log;
use crate::logger::tracing_logger;
use crate::member::{Member, Running};
use crate::membership::Membership;
use crate::pace::Pace;
use crate::position::Position;
use crate::settings::Settings;
use crate::snapshot;
use crate::state_machine::StateMachine;
use crate::transport::Transport;

/// Messages of other members that may wait beside the proposals.
const MAX_QUEUED_MESSAGES: usize = 1_024;
/// Entries that go into one message, by size.
const MAX_MESSAGE_BYTES: u64 = 256 << 10;
/// Messages with entries on their way to one member.
const MAX_INFLIGHT_MESSAGES: usize = 64;
/// Commands of a leader that wait for a majority, by size.
const MAX_UNCOMMITTED_BYTES: u64 = 64 << 20;
/// Committed commands that are applied in one step, by size.
const MAX_COMMITTED_BYTES: u64 = 8 << 20;

/// Starts a member: restores the newest snapshot and spawns the thread, which applies what the log holds behind it.
///
/// Blocks while it reads the disk. A folder that does not exist is made; in a new one the state machine is not touched.
/// Errors: `Invalid` for settings that cannot be used, `Damaged` for a snapshot or log that lost data, `Internal` otherwise. Damage
/// at the head of a write to the newest file looks like a write that a crash cut off, and is not noticed.
pub fn start<S: StateMachine, T: Transport>(
    settings: Settings,
    state_machine: S,
    transport: T,
) -> Result<Handle, Error> {
    let (id, folder) = (settings.id, settings.folder.clone());
    let disk = Arc::new(DefaultFileSystem);
    let Made {
        member,
        mut shared,
        status,
        outcome,
    } = make(settings, state_machine, transport, disk)?;
    let thread = thread::Builder::new()
        .name(format!("raft-{id}"))
        .spawn(move || run(member, &status, &outcome))
        .map_err(|error| Error::io(&folder, error))?;
    shared.thread = Mutex::new(Some(thread));
    Ok(Handle {
        shared: Arc::new(shared),
    })
}

/// A member that was read from its disk, and both sides of the channels to it.
pub(crate) struct Made<S, T, D: Disk> {
    pub(crate) member: Member<S, T, D>,
    pub(crate) shared: Shared,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) outcome: watch::Sender<Option<Outcome>>,
}

/// Reads a member from its disk. It does nothing before somebody makes its turns.
pub(crate) fn make<S: StateMachine, T: Transport, D: Disk>(
    settings: Settings,
    mut state_machine: S,
    transport: T,
    disk: Arc<D>,
) -> Result<Made<S, T, D>, Error> {
    settings.validate()?;
    make_folder(&settings.folder)?;
    let snapshot = restore_newest(&settings, &mut state_machine)?;
    let (applied, pace) = match &snapshot {
        Some((position, _, pace)) => (*position, *pace),
        None => Default::default(),
    };
    let snapshot = snapshot.map(|(position, members, _)| (position, members));
    let mut log = Log::open(&settings, &disk, snapshot)?;
    if applied.index > 0 {
        // A crash may have come between the snapshot and this: a new member is to need a snapshot.
        log.compact(1)?;
    }
    let node = RawNode::new(&node_config(&settings, applied), log, &tracing_logger())
        .map_err(Error::raft)?;
    let (inputs, receiver) =
        mpsc::sync_channel(settings.max_queued_proposals + MAX_QUEUED_MESSAGES);
    let (status, status_receiver) = watch::channel(Status {
        applied_index: applied.index,
        snapshot_index: applied.index,
        ..Status::default()
    });
    let conf = node.raft.prs().conf().to_conf_state();
    let (members, members_receiver) = watch::channel(Membership::from(&conf));
    let (outcome, outcome_receiver) = watch::channel(None);
    let stop = Arc::new(AtomicBool::new(false));
    let shared = Shared {
        id: settings.id,
        inputs,
        stop: stop.clone(),
        permits: Arc::new(Semaphore::new(settings.max_queued_proposals)),
        max_queued_proposals: settings.max_queued_proposals,
        max_command_bytes: settings.max_command_bytes,
        status: status_receiver,
        members: members_receiver,
        outcome: outcome_receiver,
        thread: Mutex::new(None),
    };
    let member = Member {
        running: Running::new(&settings),
        settings,
        node,
        disk,
        state_machine,
        transport,
        inputs: receiver,
        stop,
        status: status.clone(),
        members,
        applied,
        pace,
    };
    Ok(Made {
        member,
        shared,
        status,
        outcome,
    })
}

/// The body of the thread: whatever ends the member, its folder is closed before anybody hears that it stopped.
fn run<S: StateMachine, T: Transport, D: Disk>(
    member: Member<S, T, D>,
    status: &watch::Sender<Status>,
    outcome: &watch::Sender<Option<Outcome>>,
) {
    let (id, folder) = (member.settings.id, member.settings.folder.clone());
    let ended = match catch_unwind(AssertUnwindSafe(|| member.run())) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!("it panicked: {}", panic_text(&*panic))),
    };
    if let Err(reason) = &ended {
        tracing::error!(id, reason, folder = %folder.display(), "the member failed");
    }
    status.send_modify(|status| {
        status.leader_id = None;
        status.is_leader = false;
    });
    outcome.send_replace(Some(ended));
}

fn make_folder(folder: &Path) -> Result<(), Error> {
    let made = || {
        fs::create_dir_all(folder)?;
        sync_folder(folder)?;
        match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
            _ => Ok(()),
        }
    };
    made().map_err(|error| Error::io(folder, error))
}

fn restore_newest<S: StateMachine>(
    settings: &Settings,
    state_machine: &mut S,
) -> Result<Option<(Position, Membership, Pace)>, Error> {
    let Some((path, image)) = snapshot::read_newest(&settings.folder)? else {
        return Ok(None);
    };
    let snapshot =
        snapshot::decode(&image).map_err(|reason| Error::SnapshotDamaged { path, reason })?;
    let index = snapshot.position.index;
    state_machine
        .restore(snapshot.state)
        .map_err(|reason| Error::Restore { index, reason })?;
    snapshot::remove_older(&settings.folder, index);
    let pace = Pace::new(index, image.len());
    Ok(Some((snapshot.position, snapshot.members, pace)))
}

fn node_config(settings: &Settings, applied: Position) -> raft::Config {
    raft::Config {
        id: settings.id,
        applied: applied.index,
        election_tick: settings.election_ticks,
        heartbeat_tick: settings.heartbeat_ticks,
        // A member that was cut off must not depose a working leader, nor a leader that was cut off believe in itself.
        pre_vote: true,
        check_quorum: true,
        read_only_option: ReadOnlyOption::Safe,
        // Proposals of one turn go to each member in one message.
        batch_append: true,
        max_size_per_msg: MAX_MESSAGE_BYTES,
        max_inflight_msgs: MAX_INFLIGHT_MESSAGES,
        max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
        max_committed_size_per_ready: MAX_COMMITTED_BYTES,
        ..raft::Config::default()
    }
}
