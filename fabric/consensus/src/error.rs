//! What can go wrong, and what a caller does about it.

use std::io;
use std::path::{Path, PathBuf};

/// The reason why a member did not start, or did not answer a proposal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error("setting `{setting}` cannot be used: {reason}")]
    Setting {
        /// Name of the field of [`Settings`](crate::Settings).
        setting: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A proposal holds no bytes; Raft keeps empty entries for itself.
    #[error("command is empty")]
    EmptyCommand,
    /// A proposal is larger than this member takes.
    #[error("command of {bytes} bytes is larger than `max_command_bytes` = {limit}")]
    CommandTooLarge {
        /// Size of the proposal.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// Only the leader takes proposals, and this member is not it.
    #[error("this member is not the leader ({})", leader_text(*leader))]
    NotLeader {
        /// The leader as far as this member knows.
        leader: Option<u64>,
    },
    /// As many proposals as allowed wait for their answer already.
    #[error("`max_queued_proposals` = {limit} proposals wait already, retry later")]
    QueueFull {
        /// The limit in force.
        limit: usize,
    },
    /// Too many bytes wait for a majority, so the proposal was not taken.
    #[error("too many bytes wait for a majority of the members, retry later")]
    Backlog,
    /// The member stopped being leader before the command was committed here.
    #[error(
        "leadership was lost before the command was committed: the outcome is unknown, re-read"
    )]
    LeadershipLost,
    /// The member has stopped; a command that waited may or may not have been committed.
    #[error("the member has stopped")]
    Closed,
    /// A snapshot file or message does not hold what was written to it.
    #[error("snapshot `{}` is damaged: {reason}", path.display())]
    SnapshotDamaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The log does not hold what was written to it.
    #[error("log `{}` is damaged: {reason}", path.display())]
    LogDamaged {
        /// The folder of the log.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The state machine did not take a snapshot that is whole.
    #[error("the state machine refused the snapshot at index {index}: {reason}")]
    Restore {
        /// Index of the last entry that the snapshot covers.
        index: u64,
        /// In the state machine's words.
        reason: String,
    },
    /// A snapshot could not be made: the state machine panicked.
    #[error("the snapshot at index {index} could not be made: the state machine panicked")]
    SnapshotFailed {
        /// Index of the last entry that it was to cover.
        index: u64,
    },
    /// A change that does not fit the members as they are.
    #[error("the members cannot be changed: {reason}")]
    WrongChange {
        /// The reason.
        reason: String,
    },
    /// Another change of the members is under way, or too much waits for a majority.
    #[error("another change of the members is under way, retry later")]
    ChangeUnderWay,
    /// The leader cannot remove itself.
    #[error("member {member} leads: stop it, and remove it once another one leads")]
    RemovesLeader {
        /// The leader.
        member: u64,
    },
    /// After a change no majority would be alive.
    #[error(
        "only {alive} of {voters} voters would be alive after the change: start the others first"
    )]
    NoMajority {
        /// Voters that have been heard lately.
        alive: usize,
        /// Voters after the change.
        voters: usize,
    },
    /// The log holds an entry that this version does not understand.
    #[error("entry {index} changes the membership in a way that this version does not know")]
    MembershipEntry {
        /// Index of the entry.
        index: u64,
    },
    /// The state machine cannot read a command: it is of another version, or damaged.
    #[error("entry {index}: {reason}")]
    Unreadable {
        /// Index of the entry.
        index: u64,
        /// In the state machine's words.
        reason: String,
    },
    /// A file or folder could not be read or made.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The engine of the log failed.
    #[error("the log failed")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The Raft library refused.
    #[error("raft refused")]
    Raft(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The thread of the member ended on its own.
    #[error("the member failed: {reason}")]
    Failed {
        /// The error or panic that ended it.
        reason: String,
    },
}

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Fix the request or the settings.
    Invalid,
    /// Ask the leader.
    NotLeader,
    /// Retry later, after a re-read where the outcome is unknown.
    Unavailable,
    /// The member is gone; ask another one.
    Closed,
    /// The disk lost data: restore the folder, or let an empty member take its place.
    Damaged,
    /// Our bug, or a system that does not work.
    Internal,
}

impl Error {
    /// Says what the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Setting { .. }
            | Error::EmptyCommand
            | Error::CommandTooLarge { .. }
            | Error::WrongChange { .. }
            | Error::RemovesLeader { .. }
            | Error::NoMajority { .. } => ErrorKind::Invalid,
            Error::NotLeader { .. } => ErrorKind::NotLeader,
            Error::QueueFull { .. }
            | Error::Backlog
            | Error::LeadershipLost
            | Error::ChangeUnderWay => ErrorKind::Unavailable,
            Error::Closed => ErrorKind::Closed,
            Error::SnapshotDamaged { .. } | Error::LogDamaged { .. } => ErrorKind::Damaged,
            Error::Restore { .. }
            | Error::SnapshotFailed { .. }
            | Error::MembershipEntry { .. }
            | Error::Unreadable { .. }
            | Error::Io { .. }
            | Error::Log(_)
            | Error::Raft(_)
            | Error::Failed { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Error {
        Error::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn log(error: raft_engine::Error) -> Error {
        Error::Log(Box::new(error))
    }

    pub(crate) fn raft(error: raft::Error) -> Error {
        Error::Raft(Box::new(error))
    }
}

fn leader_text(leader: Option<u64>) -> String {
    match leader {
        Some(id) => format!("member {id} is"),
        None => "none is known".to_owned(),
    }
}
