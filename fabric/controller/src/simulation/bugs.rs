//! Faults that are planted to see whether the simulation finds them.

use std::cell::Cell;

use weft_consensus::{Capture, StateMachine};
use weft_control::{Command, Envelope};
use weft_core::Incarnation;

use crate::replica::Machine;
use crate::scheduler::tests::serving::Slip;
use crate::simulation::books::{SharedBooks, fenced, is_committed};
use crate::simulation::time::Time;
use crate::simulation::world::Scene;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The log is never synced.
    SkipSync,
    /// Writes count as synced one sync too early.
    SyncLate,
    /// A member forgets for whom it has voted when it starts again.
    ForgetVote,
    /// A member whose disk was wiped goes on under its old id.
    WipedDisk,
    /// Clients hear of a command once it is on its way.
    AcknowledgeEarly,
    /// Commands that come twice are applied twice.
    NoDeduplication,
    /// A result that is recorded again goes by a new number.
    NewNumberOnRetry,
    /// Commits count whatever lease they were made under.
    TakeAnyEpoch,
    /// Every controller sweeps, by its own state.
    SweepByFollower,
    /// Reads do not wait for what others have acknowledged.
    ReadWithoutIndex,
    /// The state takes its member's own time.
    LocalClockInState,
    /// A snapshot leaves out which commands were applied.
    SnapshotWithoutOrigins,
    /// Nodes drop results before they are recorded.
    AcknowledgeBeforeRecorded,
    /// A controller that starts again counts its commands from one under its old name.
    SameIncarnation,
    /// A leader says that leases stand without having asked whether it leads still.
    RenewUnconfirmed,
    /// An executor or its agent keeps to its lease not as it should.
    Slip(Slip),
}

impl Bug {
    pub(super) const ALL: [Bug; 19] = [
        Bug::SkipSync,
        Bug::SyncLate,
        Bug::ForgetVote,
        Bug::WipedDisk,
        Bug::AcknowledgeEarly,
        Bug::NoDeduplication,
        Bug::NewNumberOnRetry,
        Bug::TakeAnyEpoch,
        Bug::SweepByFollower,
        Bug::ReadWithoutIndex,
        Bug::LocalClockInState,
        Bug::SnapshotWithoutOrigins,
        Bug::AcknowledgeBeforeRecorded,
        Bug::SameIncarnation,
        Bug::RenewUnconfirmed,
        Bug::Slip(Slip::CountFromAnswer),
        Bug::Slip(Slip::LongLease),
        Bug::Slip(Slip::IgnoreClock),
        Bug::Slip(Slip::OpenUnconfirmed),
    ];

    /// Worlds in which it would be seen.
    pub(super) fn scene(self) -> Scene {
        match self {
            Bug::RenewUnconfirmed | Bug::Slip(_) => Scene::Shards,
            _ => Scene::Jobs,
        }
    }

    /// The fault of an executor or its agent, if it is one.
    pub(super) fn slip(self) -> Option<Slip> {
        match self {
            Bug::Slip(slip) => Some(slip),
            _ => None,
        }
    }
}

/// The real state machine, with the bug that is planted, and the books beside it.
pub(super) struct Planted {
    pub(super) machine: Machine,
    pub(super) member: u64,
    pub(super) bug: Option<Bug>,
    pub(super) time: Time,
    pub(super) books: SharedBooks,
    /// Index of the last command since the start or the last snapshot of a leader.
    pub(super) last_index: Cell<u64>,
}

impl Planted {
    fn plant(&self, index: u64, envelope: &mut Envelope) {
        match self.bug {
            Some(Bug::NoDeduplication) => {
                let name = format!("eeee{index:028x}");
                envelope.origin.incarnation = name.parse::<Incarnation>().expect("32 digits");
                if let Command::CommitTasks { commits } = &mut envelope.command {
                    for (commit, number) in commits.iter_mut().zip(0..) {
                        let name = format!("dddd{number:08x}{index:020x}");
                        commit.origin.incarnation = name.parse().expect("32 digits");
                    }
                }
            }
            Some(Bug::TakeAnyEpoch) => {
                if let Command::CommitTasks { commits } = &mut envelope.command {
                    let state = self.machine.state();
                    for report in commits {
                        let mut leases = state.leases.iter();
                        let of_tenant = leases.find(|(_, lease)| lease.tenant == envelope.tenant);
                        if let Some((epoch, _)) = of_tenant {
                            report.commit.epoch = epoch;
                        }
                    }
                }
            }
            Some(Bug::LocalClockInState) => envelope.at_ms = self.time.unix_ms(),
            _ => {}
        }
    }
}

impl StateMachine for Planted {
    fn apply(&mut self, index: u64, command: &[u8]) -> Result<Vec<u8>, String> {
        let original = Envelope::decode(command).map_err(|unreadable| unreadable.to_string())?;
        let mut envelope = original.clone();
        self.plant(index, &mut envelope);
        let planted = serde_json::to_vec(&envelope).expect("commands are plain data");
        let fenced = fenced(&self.machine.state(), &original);
        let answer = self.machine.apply(index, &planted)?;
        self.last_index.set(index);
        let mut books = self.books.lock();
        books.applied(self.member, index, command, &answer);
        let state = self.machine.state();
        books.leases(index, &state);
        let counts = fenced.iter().find(|task| is_committed(&state, task));
        assert!(
            counts.is_none(),
            "a commit of a lapsed lease counts: {counts:?}"
        );
        Ok(answer)
    }

    fn snapshot(&self) -> Capture {
        if self.bug == Some(Bug::SnapshotWithoutOrigins) {
            let mut state = self.machine.state().clone();
            state.origins = Default::default();
            let packed = crate::packed::pack(&state).expect("the state is plain data");
            return Box::new(|| packed);
        }
        let snapshot = self.machine.snapshot()();
        if self.last_index.get() > 0 {
            self.books.lock().snapshot(self.last_index.get(), &snapshot);
        }
        Box::new(|| snapshot)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.last_index.set(0);
        self.books.lock().n_restored += 1;
        self.machine.restore(snapshot)
    }

    fn leadership(&mut self, term: Option<u64>) {
        if let Some(term) = term {
            self.books.lock().leads(self.member, term);
        }
        self.machine.leadership(term);
    }
}
