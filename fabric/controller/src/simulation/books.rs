//! The books of a run, by which it is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use weft_control::{Command, CommitReport, Envelope, State};
use weft_core::{AttemptId, Epoch, Incarnation, JobId, TaskId, lock};
use xxhash_rust::xxh3::xxh3_64;

/// Books that replicas, clients and the world write in.
#[derive(Clone, Default)]
pub(super) struct SharedBooks(Arc<Mutex<Books>>);

impl SharedBooks {
    pub(super) fn lock(&self) -> MutexGuard<'_, Books> {
        lock(&self.0)
    }
}

/// Answers that clients have got.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged {
    /// Versions of the component.
    pub(super) versions: BTreeSet<String>,
    /// Jobs, by the client's key.
    pub(super) jobs: BTreeMap<String, JobId>,
    /// Outcomes of calls, by the client's key.
    pub(super) calls: BTreeMap<String, String>,
}

#[derive(Default)]
pub(super) struct Books {
    /// Hash of command and answer, by index.
    applied: BTreeMap<u64, u64>,
    /// Hash of the state, by index.
    snapshots: BTreeMap<u64, u64>,
    /// Leaders, by term.
    leaders: BTreeMap<u64, u64>,
    /// Snapshots that members took over or started from.
    pub(super) n_restored: u64,
    pub(super) acknowledged: Acknowledged,
    /// Attempts that ever began.
    pub(super) attempts: BTreeSet<AttemptId>,
    /// Usage of invocations that was reported, by life of its agent.
    pub(super) reported: BTreeMap<String, Incarnation>,
    pub(super) lost_lives: BTreeSet<Incarnation>,
    /// Leases in force when the last command was applied, wherever that was first.
    in_force: BTreeSet<Epoch>,
    leases_at: u64,
    /// Jobs whose folders were swept away.
    pub(super) swept: Vec<String>,
    /// Hash of all that was applied first, in order: equal runs have equal ones.
    pub(super) trace: u64,
}

fn hash(parts: &[&[u8]]) -> u64 {
    xxh3_64(&parts.concat())
}

impl Books {
    /// Members apply the same commands at the same places, with the same answers.
    pub(super) fn applied(&mut self, member: u64, index: u64, command: &[u8], answer: &[u8]) {
        let of = hash(&[command, answer]);
        let first = *self.applied.entry(index).or_insert_with(|| {
            self.trace = hash(&[&self.trace.to_le_bytes(), &of.to_le_bytes()]);
            of
        });
        assert_eq!(
            first, of,
            "member {member} differs from the first at {index}"
        );
    }

    /// Leases that stand in the newest state.
    pub(super) fn leases(&mut self, index: u64, state: &State) {
        if index > self.leases_at {
            self.leases_at = index;
            self.in_force = state.leases.iter().map(|(epoch, _)| epoch).collect();
        }
    }

    /// Returns whether no member has seen the end of a lease.
    pub(super) fn stands(&self, lease: Epoch) -> bool {
        self.in_force.contains(&lease)
    }

    /// States at the same place are the same.
    pub(super) fn snapshot(&mut self, index: u64, snapshot: &[u8]) {
        let of = xxh3_64(snapshot);
        let first = *self.snapshots.entry(index).or_insert(of);
        assert_eq!(first, of, "states differ at {index}");
    }

    /// One leader for each term.
    pub(super) fn leads(&mut self, member: u64, term: u64) {
        let first = *self.leaders.entry(term).or_insert(member);
        assert_eq!(first, member, "two members lead in term {term}");
    }

    /// Index of the last command that any member has applied.
    pub(super) fn last_applied(&self) -> u64 {
        self.applied.keys().next_back().copied().unwrap_or(0)
    }

    pub(super) fn n_leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    // ---- what clients are told

    pub(super) fn registered(&mut self, version: String) {
        self.acknowledged.versions.insert(version);
    }

    /// One job for each key.
    pub(super) fn submitted(&mut self, key: &str, job: JobId) {
        let jobs = &mut self.acknowledged.jobs;
        let first = jobs.entry(key.to_owned()).or_insert_with(|| job.clone());
        assert_eq!(*first, job, "two jobs for key {key}");
    }

    /// One answer for each key.
    pub(super) fn called(&mut self, key: &str, outcome: String) {
        let calls = &mut self.acknowledged.calls;
        let first = calls
            .entry(key.to_owned())
            .or_insert_with(|| outcome.clone());
        assert_eq!(*first, outcome, "two answers for key {key}");
    }
}

impl Acknowledged {
    /// A state that is read after these were acknowledged shows them.
    pub(super) fn check(&self, state: &State) {
        let tenants = || state.tenants.values();
        for version in &self.versions {
            let shown = tenants().any(|of| of.catalog.find("weblog", Some(version)).is_some());
            assert!(shown, "version {version} was acknowledged, and is lost");
        }
        for (key, job) in &self.jobs {
            let shown = tenants().any(|of| of.jobs.contains_key(job) || of.ended.contains_key(job));
            assert!(shown, "job {job} of {key} was acknowledged, and is lost");
        }
    }
}

/// Commits that would count under no lease in force: tasks that have none yet, by job.
pub(super) fn fenced(state: &State, envelope: &Envelope) -> Vec<TaskId> {
    let Command::CommitTasks { commits } = &envelope.command else {
        return Vec::new();
    };
    let lapsed = commits.iter().filter(|report| {
        let epoch = report.commit.epoch;
        !state.leases.in_force(epoch, &envelope.tenant)
    });
    let task = |report: &CommitReport| TaskId {
        job: report.job.clone(),
        stage: report.commit.stage,
        task: report.commit.task,
    };
    lapsed
        .map(task)
        .filter(|task| !is_committed(state, task))
        .collect()
}

/// Returns whether a task of a job that has not been archived has a commit.
pub(super) fn is_committed(state: &State, id: &TaskId) -> bool {
    let job = state.tenants.values().find_map(|of| of.jobs.get(&id.job));
    let stage = job.and_then(|job| job.stages().get(id.stage as usize));
    stage.is_some_and(|stage| stage.commits.contains_key(&id.task))
}
