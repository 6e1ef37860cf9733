//! The values a member starts with.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;

/// Above this a single command would hold up heartbeats while it is written and sent.
const COMMAND_BYTES_CEILING: usize = 64 << 20;

/// How one member runs. `id` must be what it was when `folder` was first used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This member, not zero, unique in the group.
    pub id: u64,
    /// Members of the group when it begins, this one included. Empty for a member that joins a group, and
    /// waits until it is added. Where the folder is not new, it says who the members are.
    pub voters: Vec<u64>,
    /// Where log and snapshots lie; made if missing. Nothing else may write there.
    pub folder: PathBuf,
    /// Length of one tick, the unit of all timeouts.
    pub tick: Duration,
    /// Ticks without a leader before an election; each member adds up to as many again by chance.
    pub election_ticks: usize,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: usize,
    /// Entries applied between two snapshots, at least: a large state is written less often, as its log grows.
    pub snapshot_every_entries: u64,
    /// Entries kept in the log behind a snapshot, so that a member that lags a little needs no snapshot.
    pub keep_entries: u64,
    /// Proposals that may wait for their answer at the same time.
    pub max_queued_proposals: usize,
    /// Largest command taken, at most 64 MiB.
    pub max_command_bytes: usize,
    /// Called with the name of the place reached, so that a test can stop or kill the process there.
    ///
    /// `raft-append`: before log entries are written and synced. `raft-appended`: after it, before anybody
    /// hears of them. `snapshot-write`: a snapshot lies under its temporary name. `snapshot-written`: it has
    /// its final name, the log is not compacted yet.
    pub failpoint: fn(&'static str),
}

impl Settings {
    /// Settings of a group of one in `folder`: ticks of 50 ms, elections after 10 of them.
    pub fn single(folder: impl Into<PathBuf>) -> Settings {
        Settings {
            id: 1,
            voters: vec![1],
            folder: folder.into(),
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            snapshot_every_entries: 10_000,
            keep_entries: 1_000,
            max_queued_proposals: 4_096,
            max_command_bytes: 1 << 20,
            failpoint: |_| {},
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        check(self.id != 0, "id", "it is zero")?;
        check(
            self.voters.is_empty() || self.voters.contains(&self.id),
            "voters",
            "this member is not among them",
        )?;
        check(
            self.sorted_voters()
                .windows(2)
                .all(|pair| pair[0] < pair[1]),
            "voters",
            "one is named twice",
        )?;
        check(!self.voters.contains(&0), "voters", "one is zero")?;
        check(!self.tick.is_zero(), "tick", "it is zero")?;
        check(self.heartbeat_ticks > 0, "heartbeat_ticks", "it is zero")?;
        check(
            self.election_ticks > self.heartbeat_ticks,
            "election_ticks",
            "it is not above `heartbeat_ticks`",
        )?;
        check(
            self.snapshot_every_entries > 0,
            "snapshot_every_entries",
            "it is zero",
        )?;
        check(
            (1..=tokio::sync::Semaphore::MAX_PERMITS).contains(&self.max_queued_proposals),
            "max_queued_proposals",
            "it is zero or absurd",
        )?;
        check(
            (1..=COMMAND_BYTES_CEILING).contains(&self.max_command_bytes),
            "max_command_bytes",
            "it is not between 1 and 64 MiB",
        )
    }

    pub(crate) fn sorted_voters(&self) -> Vec<u64> {
        let mut voters = self.voters.clone();
        voters.sort_unstable();
        voters
    }
}

fn check(holds: bool, setting: &'static str, reason: &str) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Setting {
        setting,
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Settings)) -> &'static str {
        let mut settings = Settings::single("unused");
        change(&mut settings);
        match settings.validate() {
            Err(Error::Setting { setting, .. }) => setting,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn defaults_are_valid() {
        Settings::single("unused").validate().unwrap();
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        assert_eq!(refused(|s| s.id = 0), "id");
        assert_eq!(refused(|s| s.voters = vec![2]), "voters");
        assert_eq!(refused(|s| s.voters = vec![1, 1]), "voters");
        assert_eq!(refused(|s| s.voters = vec![1, 0]), "voters");
        assert_eq!(refused(|s| s.tick = Duration::ZERO), "tick");
        assert_eq!(refused(|s| s.election_ticks = 2), "election_ticks");
        assert_eq!(
            refused(|s| s.max_queued_proposals = 0),
            "max_queued_proposals"
        );
        assert_eq!(
            refused(|s| s.max_command_bytes = 1 << 30),
            "max_command_bytes"
        );
    }
}
