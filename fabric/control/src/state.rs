//! The whole state, and the one function that changes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weft_core::job::{JobSpec, Work};
use weft_core::{ErrorCode, FunctionKind, FunctionUsage, JobId, PinnedFunction, Problem, TenantId};
use weft_protocol::{TaskCommit, TaskFailure};

use crate::calls::KeyedCalls;
use crate::catalog::Catalog;
use crate::command::{Answer, Command, CommitAnswer, Effect, Envelope};
use crate::event::JobEvent;
use crate::job::{EndedJob, Job, JobState, Outcome, PLANNING, Planning};
use crate::lease::Leases;
use crate::usage::UsageSums;

/// The commands' format that this code writes, and the newest that it applies.
pub const COMMAND_VERSION: u32 = 1;
/// Attempts that a task, a planning or a publishing has before the job is given up for the platform's reasons.
pub const ATTEMPTS_MAX: u32 = 4;
/// Files of all outputs of a job.
pub(crate) const OUTPUT_FILES_MAX: u64 = 100_000;
/// How long an idempotency key is kept.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600_000;
/// Idempotency keys of a tenant that are kept at a time.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;
/// Jobs of a tenant that have not ended.
pub const RUNNING_JOBS_MAX: usize = 1_000;
/// Lines of ended jobs that a tenant keeps; the oldest go first, their archive objects stay.
pub const ENDED_JOBS_MAX: usize = 10_000;

/// What is remembered of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    request: String,
    job: JobId,
    until_ms: u64,
}

/// All that one tenant has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tenant {
    /// Components and their versions.
    pub catalog: Catalog,
    /// Jobs that have not been archived.
    pub jobs: BTreeMap<JobId, Job>,
    /// Lines of archived jobs.
    pub ended: BTreeMap<JobId, EndedJob>,
    /// Sums of usage.
    pub usage: UsageSums,
    /// Invocations with a key.
    #[serde(default)]
    pub calls: KeyedCalls,
    idempotency: BTreeMap<String, Remembered>,
}

/// The replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The latest time that a command brought, in Unix milliseconds.
    pub now_ms: u64,
    /// By id.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// Who may commit.
    pub leases: Leases,
}

impl State {
    /// Applies one command. A refused command changes nothing but the time.
    pub fn apply(&mut self, envelope: Envelope) -> (Answer, Vec<Effect>) {
        if envelope.version > COMMAND_VERSION {
            let detail = format!(
                "command version {} is newer than {COMMAND_VERSION}: upgrade this member",
                envelope.version
            );
            return refuse(Problem::new(ErrorCode::Internal, detail));
        }
        self.now_ms = self.now_ms.max(envelope.at_ms);
        let at_ms = self.now_ms;
        let tenant_id = envelope.tenant;
        let State {
            tenants, leases, ..
        } = self;
        let tenant = tenants.entry(tenant_id.clone()).or_default();
        match envelope.command {
            Command::RegisterComponent { component } => match tenant.catalog.register(component) {
                Ok((component, new)) => (Answer::Component { component, new }, Vec::new()),
                Err(problem) => refuse(problem),
            },
            Command::MeterInvocations { usage } => {
                tenant.usage.add(at_ms, &usage);
                (Answer::Done, Vec::new())
            }
            Command::BeginCall { key, request, by } => {
                match tenant.calls.begin(key, request, by, at_ms) {
                    Ok(begun) => (Answer::Call { begun }, Vec::new()),
                    Err(problem) => refuse(problem),
                }
            }
            Command::EndCall { key, by, outcome } => {
                tenant.calls.end(&key, &by, outcome);
                (Answer::Done, Vec::new())
            }
            Command::SubmitJob {
                job,
                spec,
                idempotency,
            } => tenant.submit(job, spec, idempotency, at_ms),
            Command::JobPlanned { job, plan, usage } => tenant.with_job(&job, |job, sums| {
                let wanted = matches!(job.state, JobState::Planning(_));
                let billed = wanted || job.settle(PLANNING);
                note_usage(job, sums, usage, billed, at_ms);
                if wanted {
                    job.planned(plan, at_ms)
                } else {
                    Vec::new()
                }
            }),
            Command::StepFailed {
                job,
                problem,
                usage,
            } => tenant.with_job(&job, |job, sums| {
                let at_fault = job.awaits_step() && !problem.code.is_platform_fault();
                let billed = at_fault || job.settle(PLANNING);
                note_usage(job, sums, usage, billed, at_ms);
                job.fail_step(problem, at_ms)
            }),
            Command::CommitTasks { commits } => {
                let mut effects = Vec::new();
                let answers = commits.into_iter().map(|(job, commit)| {
                    if !leases.in_force(commit.epoch, &tenant_id) {
                        return CommitAnswer::Fenced;
                    }
                    tenant.commit(&job, commit, at_ms, &mut effects)
                });
                (
                    Answer::Commits {
                        answers: answers.collect(),
                    },
                    effects,
                )
            }
            Command::FailTask { job, failure } => {
                if !leases.in_force(failure.epoch, &tenant_id) {
                    return (Answer::Failure { billed: false }, Vec::new());
                }
                let (billed, effects) = tenant.fail(&job, &failure, at_ms);
                (Answer::Failure { billed }, effects)
            }
            Command::JobPublished { job, outputs } => {
                tenant.with_job(&job, |job, _| job.published(outputs, at_ms))
            }
            Command::EndJob { job, problem } => tenant.with_job(&job, |job, _| {
                job.give_up(Outcome::Failed, Some(problem), at_ms)
            }),
            Command::CancelJob { job } => {
                tenant.with_job(&job, |job, _| job.give_up(Outcome::Cancelled, None, at_ms))
            }
            Command::JobArchived { job, archive } => {
                tenant.archive(&job, archive);
                (Answer::Done, Vec::new())
            }
            Command::GrantLease { lease } => (
                Answer::Lease {
                    epoch: leases.grant(lease),
                },
                Vec::new(),
            ),
            Command::ExecutorLost { epoch, failures } => {
                if !leases.in_force(epoch, &tenant_id) || !leases.revoke(epoch) {
                    return (Answer::Done, Vec::new());
                }
                (
                    Answer::Done,
                    failures
                        .iter()
                        .flat_map(|(job, failure)| tenant.fail(job, failure, at_ms).1)
                        .collect(),
                )
            }
            Command::NodeStarted { node } => {
                leases.revoke_node(&node);
                (Answer::Done, Vec::new())
            }
        }
    }

    /// What has to be done now, in the order of submission: where a new leader starts.
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
}

/// Takes note of usage in the job and in its tenant's sums. What is not `billed` is the platform's: its own faults, and
/// work that nobody waited for any more.
fn note_usage(
    job: &mut Job,
    sums: &mut UsageSums,
    mut usage: Vec<FunctionUsage>,
    billed: bool,
    at_ms: u64,
) {
    if !billed {
        usage.iter_mut().for_each(FunctionUsage::waive);
    }
    job.add_usage(&usage);
    sums.add(at_ms, &usage);
}

fn refuse(problem: Problem) -> (Answer, Vec<Effect>) {
    (Answer::Refused { problem }, Vec::new())
}

/// The kinds of function that each place in a stage takes, next to the reference that stands there.
fn places(work: &Work) -> Vec<(&str, &'static [FunctionKind])> {
    match work {
        Work::Map { function } => vec![(function, &[FunctionKind::MapBatches])],
        Work::Tasks { function, .. } => vec![(function, &[FunctionKind::Task])],
        Work::Reduce {
            combine, reduce, ..
        } => {
            let combine = combine
                .iter()
                .map(|function| (function.as_str(), &[FunctionKind::CombineGroups][..]));
            let reduce = reduce.iter().map(|function| {
                (
                    function.as_str(),
                    &[FunctionKind::ReduceGroups, FunctionKind::CombineGroups][..],
                )
            });
            combine.chain(reduce).collect()
        }
    }
}

impl Tenant {
    fn submit(
        &mut self,
        id: JobId,
        spec: JobSpec,
        idempotency: Option<(String, String)>,
        at_ms: u64,
    ) -> (Answer, Vec<Effect>) {
        if self.jobs.contains_key(&id) || self.ended.contains_key(&id) {
            return (
                Answer::Job {
                    job: id,
                    new: false,
                },
                Vec::new(),
            );
        }
        if let Some((key, request)) = &idempotency
            && let Some(remembered) = self.idempotency.get(key)
            && remembered.until_ms > at_ms
        {
            if remembered.request != *request {
                return refuse(Problem::new(
                    ErrorCode::VersionConflict,
                    format!("the idempotency key `{key}` came before with another request"),
                ));
            }
            return (
                Answer::Job {
                    job: remembered.job.clone(),
                    new: false,
                },
                Vec::new(),
            );
        }
        // Expired keys go when there are many, for it takes a look at all of them.
        if idempotency.is_some() && self.idempotency.len() >= IDEMPOTENCY_KEYS_MAX {
            self.idempotency
                .retain(|_, remembered| remembered.until_ms > at_ms);
        }
        if idempotency.is_some() && self.idempotency.len() >= IDEMPOTENCY_KEYS_MAX {
            let detail = format!(
                "the tenant used {IDEMPOTENCY_KEYS_MAX} idempotency keys within 24 hours; wait, or submit without one"
            );
            return refuse(Problem::new(ErrorCode::Busy, detail));
        }
        if self.jobs.len() >= RUNNING_JOBS_MAX {
            return refuse(Problem::new(
                ErrorCode::Busy,
                format!(
                    "the tenant has {RUNNING_JOBS_MAX} jobs that have not ended; wait for some to end"
                ),
            ));
        }
        let functions = match self.pin_functions(&spec) {
            Ok(functions) => functions,
            Err(problem) => return refuse(problem),
        };
        if let Some((key, request)) = idempotency {
            self.idempotency.insert(
                key,
                Remembered {
                    request,
                    job: id.clone(),
                    until_ms: at_ms + IDEMPOTENCY_MS,
                },
            );
        }
        let state = JobState::Planning(Planning::default());
        self.jobs.insert(
            id.clone(),
            Job {
                id: id.clone(),
                spec,
                functions,
                submitted_ms: at_ms,
                usage: Vec::new(),
                events: vec![JobEvent::submitted(at_ms)],
                events_dropped: 0,
                settled: BTreeSet::new(),
                state,
            },
        );
        (
            Answer::Job {
                job: id.clone(),
                new: true,
            },
            vec![Effect::PlanJob { job: id }],
        )
    }

    /// A function that can be called without a job, as it stands now. Errors: `unknown_function`.
    pub fn pin_call(&self, reference: &str) -> Result<PinnedFunction, Problem> {
        let kinds = [FunctionKind::Task, FunctionKind::MapBatches];
        self.catalog.pin(reference, &kinds)
    }

    /// The functions that a job names, as they stand now. Errors: `unknown_function`.
    pub fn pin_functions(&self, spec: &JobSpec) -> Result<Vec<PinnedFunction>, Problem> {
        let mut pinned: Vec<PinnedFunction> = Vec::new();
        for (reference, kinds) in spec.stages.iter().flat_map(|stage| places(&stage.work)) {
            let function = self.catalog.pin(reference, kinds)?;
            if !pinned.iter().any(|other| other.reference == reference) {
                pinned.push(function);
            }
        }
        Ok(pinned)
    }

    fn with_job(
        &mut self,
        id: &JobId,
        change: impl FnOnce(&mut Job, &mut UsageSums) -> Vec<Effect>,
    ) -> (Answer, Vec<Effect>) {
        match self.jobs.get_mut(id) {
            Some(job) => (Answer::Done, change(job, &mut self.usage)),
            None => refuse(Problem::new(
                ErrorCode::NotFound,
                format!("there is no job `{id}` that has not ended"),
            )),
        }
    }

    fn commit(
        &mut self,
        id: &JobId,
        commit: TaskCommit,
        at_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> CommitAnswer {
        let Some(job) = self.jobs.get_mut(id) else {
            return CommitAnswer::Stale { billed: false };
        };
        let (usage, log) = (commit.usage.lines(), commit.log.clone());
        let attempt = (commit.stage, commit.task, commit.attempt);
        let (mut answer, next) = job.commit(commit, at_ms);
        if let CommitAnswer::Stale { billed } = &mut answer {
            *billed = job.settle(attempt);
            job.keep_late_log(attempt, &log);
        }
        let billed = matches!(
            answer,
            CommitAnswer::Committed | CommitAnswer::Stale { billed: true }
        );
        note_usage(job, &mut self.usage, usage, billed, at_ms);
        effects.extend(next);
        answer
    }

    /// Takes a failed attempt. Answers whether it is billed, and what is to be done.
    fn fail(&mut self, id: &JobId, failure: &TaskFailure, at_ms: u64) -> (bool, Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else {
            return (false, Vec::new());
        };
        let at_fault = job.awaits_task(failure.stage, failure.task)
            && !failure.problem.code.is_platform_fault();
        let users = failure.cancelled || !failure.problem.code.is_platform_fault();
        let attempt = (failure.stage, failure.task, failure.attempt);
        let billed = at_fault || (users && job.settle(attempt));
        if at_fault {
            // Told again once it has ended the job, it is not billed again.
            job.settled.insert(attempt);
        }
        if let Some(log) = &failure.log {
            job.keep_late_log(attempt, log);
        }
        note_usage(job, &mut self.usage, failure.usage.clone(), billed, at_ms);
        (billed, job.fail_task(failure, at_ms))
    }

    fn archive(&mut self, id: &JobId, archive: String) {
        let Some(JobState::Ending(ending)) = self.jobs.get(id).map(|job| &job.state) else {
            return;
        };
        let (outcome, started_ms, ended_ms) = (ending.outcome, ending.started_ms, ending.ended_ms);
        let tasks_done = ending
            .stages
            .iter()
            .map(|stage| stage.commits.len() as u64)
            .sum();
        let Some(job) = self.jobs.remove(id) else {
            return;
        };
        let line = EndedJob {
            id: job.id,
            name: job.spec.name,
            outcome,
            submitted_ms: job.submitted_ms,
            started_ms,
            ended_ms,
            tasks_done,
            tags: job.spec.tags,
            archive,
        };
        self.ended.insert(id.clone(), line);
        while self.ended.len() > ENDED_JOBS_MAX {
            self.ended.pop_first();
        }
    }
}
