//! The whole state, and the one function that changes it.
//!
//! ```text
//! envelope ─ decoded (version) ─ new by its origin? ─ command ─ answer, effects
//!                                  └ no: the stored answer
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::{Digest, Epoch, ErrorCode, JobId, NodeId, Problem, TenantId};
use weft_protocol::TaskFailure;

use crate::command::{Answer, Command, CommitAnswer, CommitReport, Effect, Envelope, Step};
use crate::job::Job;
use crate::lease::{Lease, Leases};
use crate::node::{NodeRecord, Nodes};
use crate::origins::Origins;
use crate::tenant::Tenant;

/// The replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The latest time that a command brought, in Unix milliseconds.
    pub now_ms: u64,
    /// By id.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// Nodes that have joined.
    pub nodes: Nodes,
    /// Who may commit.
    pub leases: Leases,
    /// Answers that may be asked for again.
    pub origins: Origins,
    /// Random id of the group of controllers, by which its store is told from those of others; none of a server that is
    /// alone, or before the first leader has made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Outcome of a command: its answer, and the work that follows for the leader's scheduler.
pub(crate) type Applied = (Answer, Vec<Effect>);

pub(crate) fn refuse(problem: Problem) -> Applied {
    (Answer::Refused { problem }, Vec::new())
}

fn done() -> Applied {
    (Answer::Done, Vec::new())
}

impl State {
    /// Applies one command, once: a repeat gets the answer of the first time and has no effects. A
    /// refused command changes nothing but the time. All effects are of the envelope's tenant.
    pub fn apply(&mut self, envelope: Envelope) -> (Answer, Vec<Effect>) {
        self.now_ms = self.now_ms.max(envelope.at_ms);
        let (at_ms, origin) = (self.now_ms, envelope.origin);
        self.origins.acknowledged(&origin);
        if let Some(answer) = self.origins.answered(&origin) {
            return (answer, Vec::new());
        }
        let (answer, effects) = self.command(&envelope.tenant, envelope.command, at_ms);
        self.origins.answer(origin, answer.clone(), at_ms);
        (answer, effects)
    }

    fn command(&mut self, tenant_id: &TenantId, command: Command, at_ms: u64) -> Applied {
        match command {
            Command::CommitTasks { commits } => self.commit_tasks(tenant_id, commits, at_ms),
            Command::FailTask { job, failure } => self.fail_task(tenant_id, &job, &failure, at_ms),
            Command::GrantLease { lease } => self.grant(lease),
            Command::GrantShards { executor, shards } => {
                self.grant_shards(tenant_id, executor, &shards)
            }
            Command::ExecutorLost {
                epoch,
                failures,
                steps,
            } => self.executor_lost(tenant_id, epoch, &failures, steps, at_ms),
            Command::JoinNode { node, record } => self.join(node, record),
            Command::ExpireOrigins { before_ms } => {
                let nodes = &self.nodes;
                let lives = |incarnation: &_| nodes.any_lives(incarnation);
                self.origins.expire(before_ms, lives);
                done()
            }
            Command::NameGroup { group } => {
                self.group.get_or_insert(group);
                done()
            }
            command => {
                let fenced = command
                    .lease()
                    .is_some_and(|epoch| !self.leases.in_force(epoch, tenant_id));
                let tenant = self.tenants.entry(tenant_id.clone()).or_default();
                match fenced {
                    true => tenant.fenced(command, at_ms),
                    false => tenant.command(command, at_ms),
                }
            }
        }
    }

    fn commit_tasks(
        &mut self,
        tenant_id: &TenantId,
        commits: Vec<CommitReport>,
        at_ms: u64,
    ) -> Applied {
        let mut effects = Vec::new();
        let mut answers = Vec::with_capacity(commits.len());
        for CommitReport {
            job,
            origin,
            commit,
        } in commits
        {
            self.origins.acknowledged(&origin);
            let answered = self.origins.answered(&origin);
            let answer = match answered {
                Some(Answer::Commit { answer }) => answer,
                Some(Answer::Refused { problem }) if problem.code == ErrorCode::Busy => {
                    CommitAnswer::Busy
                }
                // Acknowledged, and forgotten: whoever asks knows that it was answered.
                Some(_) => CommitAnswer::Repeated,
                None => {
                    let answer = if self.leases.in_force(commit.epoch, tenant_id) {
                        let tenant = self.tenants.entry(tenant_id.clone()).or_default();
                        tenant.commit(&job, commit, at_ms, &mut effects)
                    } else {
                        CommitAnswer::Fenced
                    };
                    let stored = Answer::Commit { answer };
                    self.origins.answer(origin, stored, at_ms);
                    answer
                }
            };
            answers.push(answer);
        }
        (Answer::Commits { answers }, effects)
    }

    fn fail_task(
        &mut self,
        tenant_id: &TenantId,
        job: &JobId,
        failure: &TaskFailure,
        at_ms: u64,
    ) -> Applied {
        if !self.leases.in_force(failure.epoch, tenant_id) {
            return (Answer::Failure { billed: false }, Vec::new());
        }
        let tenant = self.tenants.entry(tenant_id.clone()).or_default();
        let (billed, effects) = tenant.fail(job, failure, at_ms);
        (Answer::Failure { billed }, effects)
    }

    fn grant(&mut self, lease: Lease) -> Applied {
        if !self.nodes.lives(&lease.node, &lease.incarnation) {
            let detail = format!(
                "the agent of node `{}` has started again since: no lease is granted to its earlier life",
                lease.node
            );
            return refuse(Problem::new(ErrorCode::Busy, detail));
        }
        let epoch = self.leases.grant(lease);
        (Answer::Lease { epoch }, Vec::new())
    }

    /// The executor's lease lapses; its attempts and steps are the platform's loss.
    fn executor_lost(
        &mut self,
        tenant_id: &TenantId,
        epoch: Epoch,
        failures: &[(JobId, TaskFailure)],
        steps: Vec<(JobId, Step, Problem)>,
        at_ms: u64,
    ) -> Applied {
        if !self.leases.in_force(epoch, tenant_id) || !self.leases.revoke(epoch) {
            return done();
        }
        let tenant = self.tenants.entry(tenant_id.clone()).or_default();
        let mut effects = Vec::new();
        for (job, failure) in failures {
            effects.extend(tenant.fail(job, failure, at_ms).1);
        }
        for (job, step, problem) in steps {
            effects.extend(tenant.fail_step(&job, step, problem, Vec::new(), at_ms).1);
        }
        (Answer::Done, effects)
    }

    fn join(&mut self, node: NodeId, record: NodeRecord) -> Applied {
        let incarnation = record.incarnation;
        if let Err(problem) = self.nodes.join(node.clone(), record) {
            return refuse(problem);
        }
        self.leases.revoke_earlier(&node, &incarnation);
        done()
    }

    /// All effects that are pending, in the order of submission: where a new leader starts.
    pub fn pending_effects(&self) -> Vec<(TenantId, Effect)> {
        let of_tenant = |(id, tenant): (&TenantId, &Tenant)| {
            let id = id.clone();
            tenant
                .jobs
                .values()
                .flat_map(Job::pending_effects)
                .map(move |effect| (id.clone(), effect))
                .collect::<Vec<_>>()
        };
        self.tenants.iter().flat_map(of_tenant).collect()
    }

    /// The tenant, if it ever did anything.
    pub fn tenant(&self, id: &TenantId) -> Option<&Tenant> {
        self.tenants.get(id)
    }

    /// The digest of a component's artefact for an engine, if it was compiled for it.
    pub fn artefact(
        &self,
        tenant: &TenantId,
        digest: &Digest,
        compatibility: &str,
    ) -> Option<&Digest> {
        let catalog = &self.tenants.get(tenant)?.catalog;
        catalog.artefact(digest, compatibility)
    }
}
