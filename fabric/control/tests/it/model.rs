//! What must hold whatever the commands are, kept beside the state in a few maps.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::{Epoch, FunctionUsage, Incarnation, JobId, NodeId};

use crate::support::tenant_id;
use crate::{Answer, Command, CommitAnswer, CommitReport, JobState, Outcome, State, UsageSums};
use weft_protocol::TaskCommit;

/// Attempts and CPU time, billed or not.
type Reported = (u64, u64);

#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Leases in force, with their nodes.
    pub(crate) leases: BTreeMap<Epoch, NodeId>,
    /// Lives of the nodes' agents.
    pub(crate) lives: BTreeMap<NodeId, Incarnation>,
    /// Leases that shards were granted to.
    shards: BTreeMap<u32, Epoch>,
    /// Answers to reports of attempts.
    answers: BTreeMap<u64, CommitAnswer>,
    /// Every job that was ever accepted.
    pub(crate) jobs: BTreeSet<JobId>,
    /// First commits, by job, stage and task.
    first: BTreeMap<(JobId, u32, u32), TaskCommit>,
    outcomes: BTreeMap<JobId, Outcome>,
    reported: Reported,
}

impl Model {
    /// Learns what a command must have done. `before`: the state that it met.
    pub(crate) fn learn(&mut self, before: &State, command: &Command, answer: &Answer) {
        self.count(before, command);
        match (command, answer) {
            (Command::SubmitJob { .. }, Answer::Job { job, new }) => {
                assert_eq!(self.jobs.insert(job.clone()), *new, "{job} is new once");
            }
            (Command::GrantLease { lease }, Answer::Lease { epoch }) => {
                let newest = self.leases.keys().next_back();
                assert!(newest.is_none_or(|newest| newest < epoch), "epochs grow");
                // A node has one lease for each tenant.
                self.leases.retain(|_, node| *node != lease.node);
                self.leases.insert(*epoch, lease.node.clone());
            }
            (Command::GrantShards { executor, shards }, Answer::Shards { holders }) => {
                assert!(holders.keys().eq(shards), "each shard is answered");
                self.learn_holders(*executor, holders);
            }
            (Command::GrantShards { executor, .. }, answer) => {
                let lapsed = !self.leases.contains_key(executor);
                assert!(lapsed, "a lease that stands gets its shards: {answer:?}");
            }
            (Command::ExecutorLost { epoch, .. }, _) => {
                self.leases.remove(epoch);
            }
            (Command::JoinNode { node, record }, _) => {
                self.leases.retain(|_, held| held != node);
                let life = record.incarnation;
                self.lives.insert(node.clone(), life);
            }
            (Command::CommitTasks { commits }, Answer::Commits { answers }) => {
                assert_eq!(commits.len(), answers.len());
                for (report, answer) in commits.iter().zip(answers) {
                    match self.answers.insert(report.origin.sequence, *answer) {
                        Some(first) => assert_eq!(first, *answer, "a report is answered once"),
                        None => self.learn_commit(&report.job, &report.commit, *answer),
                    }
                }
            }
            _ => {}
        }
    }

    /// A shard stays with a lease that stands.
    fn learn_holders(&mut self, executor: Epoch, holders: &BTreeMap<u32, Epoch>) {
        assert!(self.leases.contains_key(&executor), "a lapsed lease");
        for (shard, holder) in holders {
            let before = self.shards.insert(*shard, *holder);
            let stands = before.filter(|before| self.leases.contains_key(before));
            assert_eq!(*holder, stands.unwrap_or(executor), "shard {shard}");
        }
    }

    fn learn_commit(&mut self, job: &JobId, commit: &TaskCommit, answer: CommitAnswer) {
        let fenced = !self.leases.contains_key(&commit.epoch);
        assert_eq!(
            answer == CommitAnswer::Fenced,
            fenced,
            "epoch {}",
            commit.epoch
        );
        if answer == CommitAnswer::Committed {
            let task = (job.clone(), commit.stage, commit.task);
            let second = self.first.insert(task, commit.clone());
            assert_eq!(second, None, "a task is committed once");
        }
    }

    /// Counts the usage that the state has to account for: of jobs that it knows, under leases in force.
    fn count(&mut self, before: &State, command: &Command) {
        let known = |job: &JobId| {
            let tenant = before.tenant(&tenant_id());
            tenant.is_some_and(|tenant| tenant.jobs.contains_key(job))
        };
        let mut add = |job: &JobId, usage: &[FunctionUsage]| {
            if known(job) {
                let (attempts, cpu_ns) = sum(usage);
                self.reported.0 += attempts;
                self.reported.1 += cpu_ns;
            }
        };
        match command {
            Command::JobPlanned { job, usage, .. } | Command::StepFailed { job, usage, .. } => {
                add(job, usage);
            }
            Command::CommitTasks { commits } => {
                let mut new = BTreeSet::new();
                for CommitReport {
                    job,
                    origin,
                    commit,
                } in commits
                {
                    let number = origin.sequence;
                    let is_new = !self.answers.contains_key(&number) && new.insert(number);
                    if is_new && self.leases.contains_key(&commit.epoch) {
                        add(job, &commit.usage.lines());
                    }
                }
            }
            Command::FailTask { job, failure } if self.leases.contains_key(&failure.epoch) => {
                add(job, &failure.usage);
            }
            Command::ExecutorLost {
                epoch, failures, ..
            } if self.leases.contains_key(epoch) => {
                for (job, failure) in failures {
                    add(job, &failure.usage);
                }
            }
            _ => {}
        }
    }

    /// Checks the state against all that was learnt.
    pub(crate) fn check(&mut self, state: &State) {
        let held: Vec<Epoch> = state.leases.iter().map(|(epoch, _)| epoch).collect();
        assert!(held.iter().eq(self.leases.keys()), "leases: {held:?}");
        let Some(tenant) = state.tenant(&tenant_id()) else {
            return;
        };
        assert_eq!(tenant.shards, self.shards, "shards that were granted");
        for (shard, holder) in &self.shards {
            let stands = self.leases.contains_key(holder).then_some(*holder);
            assert_eq!(state.shard_holder(&tenant_id(), *shard), stands);
        }
        for (id, job) in &tenant.jobs {
            for (stage, progress) in (0..).zip(job.stages()) {
                for (task, commit) in &progress.commits {
                    let first = self.first.get(&(id.clone(), stage, *task));
                    assert_eq!(first, Some(commit.as_ref()), "the first commit stands");
                }
            }
            if let JobState::Ending(ending) = &job.state {
                self.decided(id, ending.outcome);
            } else {
                assert_eq!(self.outcomes.get(id), None, "{id} went on after its end");
            }
        }
        for (id, line) in &tenant.ended {
            assert!(!tenant.jobs.contains_key(id), "{id} is in one place");
            self.decided(id, line.outcome);
        }
        let n_jobs = tenant.jobs.len() + tenant.ended.len();
        assert_eq!(n_jobs, self.jobs.len(), "no job is lost");
        assert_eq!(sum_of(&tenant.usage), self.reported, "usage");
    }

    fn decided(&mut self, job: &JobId, outcome: Outcome) {
        let first = *self.outcomes.entry(job.clone()).or_insert(outcome);
        assert_eq!(first, outcome, "the outcome of {job} stands");
    }
}

fn sum<'a>(usage: impl IntoIterator<Item = &'a FunctionUsage>) -> Reported {
    usage.into_iter().fold((0, 0), |(attempts, cpu_ns), one| {
        (
            attempts + one.billed_attempts + one.platform_attempts,
            cpu_ns + one.billed.guest_cpu_ns + one.platform.guest_cpu_ns,
        )
    })
}

fn sum_of(usage: &UsageSums) -> Reported {
    let minutes = usage.minutes.values().chain([&usage.older]);
    sum(minutes.flat_map(BTreeMap::values))
}
