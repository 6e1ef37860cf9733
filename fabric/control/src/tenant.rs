//! One tenant: its components, jobs, usage, and keys.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weft_core::job::{JobSpec, Work};
use weft_core::{
    Digest, Epoch, ErrorCode, FunctionKind, FunctionUsage, JobId, PinnedFunction, Problem,
};
use weft_protocol::{Plan, PublishedOutput, TableChange, TableStatement, TaskCommit, TaskFailure};

use crate::attempt::{Attempt, PLANNING};
use crate::bounds::{MAX_ENDED_JOBS, MAX_RUNNING_JOBS};
use crate::calls::{Begun, CallOutcome, KeyedCalls};
use crate::catalog::Catalog;
use crate::command::{Answer, Command, CommitAnswer, Effect, Step};
use crate::event::JobEvent;
use crate::job::{EndedJob, Job, JobState, Outcome, Planning};
use crate::job_keys::JobKeys;
use crate::state::{Applied, refuse};
use crate::tables::{KeptRows, Tables};
use crate::usage::UsageSums;

/// All that one tenant has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tenant {
    /// Components and their versions.
    pub catalog: Catalog,
    /// Tables and views.
    #[serde(default)]
    pub tables: Tables,
    /// Jobs that have not been archived.
    pub jobs: BTreeMap<JobId, Job>,
    /// Lines of archived jobs.
    pub ended: BTreeMap<JobId, EndedJob>,
    /// Sums of usage.
    pub usage: UsageSums,
    /// Invocations with a key.
    #[serde(default)]
    pub calls: KeyedCalls,
    /// Shards of actors that were ever granted, and the lease that each was granted to last: it serves the shard while
    /// it stands, see [`State::shard_holder`](crate::State::shard_holder).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shards: BTreeMap<u32, Epoch>,
    /// Keys of jobs.
    idempotency: JobKeys,
}

/// Records usage in the job and in its tenant's sums. What is not `billed` is the platform's: its own faults, and
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
    let growth = job.add_usage(&usage);
    sums.add_of_job(at_ms, &usage, &growth);
}

/// Ends a job whose files are published, and changes its tenant's tables as its statement says: both, or neither.
fn succeed(
    job: &mut Job,
    tables: &mut Tables,
    outputs: Vec<PublishedOutput>,
    at_ms: u64,
) -> Vec<Effect> {
    let is_awaited = matches!(job.state, JobState::Publishing(_));
    let change = job.change.as_ref().filter(|_| is_awaited);
    let kept = kept_rows(job, &outputs);
    let refused = change.and_then(|change| tables.apply(change, kept, at_ms).err());
    job.published(outputs, refused, at_ms)
}

/// The rows of a job's outputs that the cluster keeps. A job that changes tables has none but those of its table.
fn kept_rows(job: &Job, outputs: &[PublishedOutput]) -> Option<KeptRows> {
    let mut kept = outputs.iter().filter(|output| output.uri.is_none());
    let first = kept.next()?.bytes;
    Some(KeptRows {
        job: job.id.clone(),
        bytes: kept.fold(first, |sum, output| sum.saturating_add(output.bytes)),
        earlier: Vec::new(),
    })
}

/// The kinds of function that each place in a stage takes, next to the reference that stands there.
fn places(work: &Work) -> Vec<(&str, &'static [FunctionKind])> {
    match work {
        Work::Map { function } => vec![(function, &[FunctionKind::MapBatches])],
        Work::Tasks { function, .. } | Work::ForEach { function, .. } => {
            vec![(function, &[FunctionKind::Task])]
        }
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
        Work::Sql { functions, .. } => functions
            .iter()
            .map(|function| (function.as_str(), &[FunctionKind::Scalar][..]))
            .collect(),
        Work::Union { .. } => Vec::new(),
    }
}

impl Tenant {
    fn end_call(
        &mut self,
        key: &str,
        by: &str,
        outcome: Option<CallOutcome>,
        at_ms: u64,
    ) -> Applied {
        match self.calls.end(key, by, outcome, at_ms) {
            Ok(None) => (Answer::Done, Vec::new()),
            Ok(Some(stands)) => {
                let begun = Begun::Ended(stands);
                (Answer::Call { begun }, Vec::new())
            }
            Err(problem) => refuse(problem),
        }
    }

    /// Applies a command that concerns this tenant alone.
    pub(crate) fn command(&mut self, command: Command, at_ms: u64) -> Applied {
        match command {
            Command::RegisterComponent { component } => match self.catalog.register(component) {
                Ok((component, new)) => (Answer::Component { component, new }, Vec::new()),
                Err(problem) => refuse(problem),
            },
            Command::RecordArtefact {
                digest,
                compatibility,
                artefact,
            } => self.record_artefact(digest, compatibility, artefact),
            Command::MeterInvocations { usage } => {
                self.usage.add_of_invocations(at_ms, &usage);
                // Comes once a second while functions are invoked, with keys or without.
                self.calls.expire(at_ms);
                (Answer::Done, Vec::new())
            }
            Command::BeginCall {
                key,
                request,
                by,
                ttl_s,
            } => match self.calls.begin(key, request, by, ttl_s, at_ms) {
                Ok(begun) => (Answer::Call { begun }, Vec::new()),
                Err(problem) => refuse(problem),
            },
            Command::EndCall { key, by, outcome } => self.end_call(&key, &by, outcome, at_ms),
            Command::SubmitJob {
                job,
                spec,
                idempotency,
            } => self.submit(job, spec, idempotency, at_ms),
            Command::ChangeTables { change } => self.change_tables(&change, at_ms),
            Command::JobPlanned {
                job,
                plan,
                statement,
                usage,
                ..
            } => self.planned(&job, plan, statement.unwrap_or_default(), usage, at_ms),
            Command::StepFailed {
                job,
                step,
                problem,
                usage,
                ..
            } => self.fail_step(&job, step, problem, usage, at_ms),
            Command::JobPublished { job, outputs, .. } => self.published(&job, outputs, at_ms),
            Command::EndJob { job, problem } => self.with_job(&job, |job, _| {
                job.give_up(Outcome::Failed, Some(problem), at_ms)
            }),
            Command::CancelJob { job } => {
                self.with_job(&job, |job, _| job.give_up(Outcome::Cancelled, None, at_ms))
            }
            Command::JobArchived { job, archive } => {
                self.archive(&job, archive);
                (Answer::Done, Vec::new())
            }
            Command::CommitTasks { .. }
            | Command::FailTask { .. }
            | Command::GrantLease { .. }
            | Command::GrantShards { .. }
            | Command::ExecutorLost { .. }
            | Command::JoinNode { .. }
            | Command::ExpireOrigins { .. }
            | Command::NameGroup { .. } => {
                unreachable!("the state applies commands that concern leases and nodes itself")
            }
        }
    }

    fn published(&mut self, job: &JobId, outputs: Vec<PublishedOutput>, at_ms: u64) -> Applied {
        self.with_tables(job, |job, _, tables| succeed(job, tables, outputs, at_ms))
    }

    fn change_tables(&mut self, change: &TableChange, at_ms: u64) -> Applied {
        match self.tables.apply(change, None, at_ms) {
            Ok(()) => (Answer::Done, Vec::new()),
            Err(problem) => refuse(problem),
        }
    }

    fn record_artefact(
        &mut self,
        digest: Digest,
        compatibility: String,
        artefact: Digest,
    ) -> Applied {
        let jobs = &self.jobs;
        let pinned = |digest: &Digest| {
            let mut functions = jobs.values().flat_map(|job| &job.functions);
            functions.any(|function| function.digest == *digest)
        };
        self.catalog
            .record_artefact(digest, compatibility, artefact, pinned);
        (Answer::Done, Vec::new())
    }

    fn planned(
        &mut self,
        job: &JobId,
        plan: Plan,
        statement: TableStatement,
        usage: Vec<FunctionUsage>,
        at_ms: u64,
    ) -> Applied {
        self.with_tables(job, |job, sums, tables| {
            let wanted = matches!(job.state, JobState::Planning(_));
            let billed = wanted || job.settle(PLANNING);
            note_usage(job, sums, usage, billed, at_ms);
            if !wanted {
                return Vec::new();
            }
            // Before the rows are made, which may take hours.
            let refused = statement.change.as_ref().map(|change| tables.check(change));
            if let Some(Err(problem)) = refused {
                return job.fail_step(problem, at_ms);
            }
            let effects = job.planned(plan, statement, at_ms);
            match job.is_change_alone() {
                true => succeed(job, tables, Vec::new(), at_ms),
                false => effects,
            }
        })
    }

    /// A step was done under a lease that has lapsed: its usage is the platform's, and nothing else
    /// becomes of it.
    pub(crate) fn fenced(&mut self, command: Command, at_ms: u64) -> Applied {
        let (job, usage) = match command {
            Command::JobPlanned { job, usage, .. } | Command::StepFailed { job, usage, .. } => {
                (job, usage)
            }
            _ => return (Answer::Done, Vec::new()),
        };
        self.with_job(&job, |job, sums| {
            note_usage(job, sums, usage, false, at_ms);
            Vec::new()
        })
    }

    /// A planning or a publishing failed. One that the job is not at any more changes nothing.
    pub(crate) fn fail_step(
        &mut self,
        job: &JobId,
        step: Step,
        problem: Problem,
        usage: Vec<FunctionUsage>,
        at_ms: u64,
    ) -> Applied {
        self.with_job(job, |job, sums| {
            let awaited = job.awaits_step(step);
            let at_fault = awaited && !problem.code.is_platform_fault();
            let billed = at_fault || job.settle(PLANNING);
            note_usage(job, sums, usage, billed, at_ms);
            match awaited {
                true => job.fail_step(problem, at_ms),
                false => Vec::new(),
            }
        })
    }

    fn submit(
        &mut self,
        id: JobId,
        spec: JobSpec,
        idempotency: Option<(String, String)>,
        at_ms: u64,
    ) -> (Answer, Vec<Effect>) {
        let keyed = idempotency
            .as_ref()
            .map(|(key, request)| (&**key, &**request));
        match self.submitted_before(&id, keyed, at_ms) {
            Ok(None) => {}
            Ok(Some(job)) => return (Answer::Job { job, new: false }, Vec::new()),
            Err(problem) => return refuse(problem),
        }
        if let Err(problem) = self.make_room_for_job(keyed.is_some(), at_ms) {
            return refuse(problem);
        }
        let functions = match self.pin_functions(&spec) {
            Ok(functions) => functions,
            Err(problem) => return refuse(problem),
        };
        if let Some((key, request)) = idempotency {
            self.idempotency.remember(key, request, id.clone(), at_ms);
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
                change: None,
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

    /// The job that this submission made when it came before. Errors: its key came with another request.
    fn submitted_before(
        &self,
        id: &JobId,
        keyed: Option<(&str, &str)>,
        at_ms: u64,
    ) -> Result<Option<JobId>, Problem> {
        if self.jobs.contains_key(id) || self.ended.contains_key(id) {
            return Ok(Some(id.clone()));
        }
        let Some((key, request)) = keyed else {
            return Ok(None);
        };
        self.idempotency.job(key, request, at_ms)
    }

    /// Checks that one more job, and its key, may be remembered. Errors: `busy`.
    fn make_room_for_job(&mut self, keyed: bool, at_ms: u64) -> Result<(), Problem> {
        if keyed {
            self.idempotency.make_room(at_ms)?;
        }
        if self.jobs.len() >= MAX_RUNNING_JOBS {
            let detail = format!(
                "the tenant has {MAX_RUNNING_JOBS} jobs that have not ended; wait for some to end"
            );
            return Err(Problem::new(ErrorCode::Busy, detail));
        }
        Ok(())
    }

    /// A function that can be called without a job, as it stands now. Errors: `unknown_function`.
    pub fn pin_call(&self, reference: &str) -> Result<PinnedFunction, Problem> {
        let kinds = [FunctionKind::Task, FunctionKind::MapBatches];
        self.catalog.pin(reference, &kinds)
    }

    /// The function of one of `kinds` that a reference means now. Errors: `unknown_function`.
    pub fn pin_kind(
        &self,
        reference: &str,
        kinds: &[FunctionKind],
    ) -> Result<PinnedFunction, Problem> {
        self.catalog.pin(reference, kinds)
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
        self.with_tables(id, |job, sums, _| change(job, sums))
    }

    fn with_tables(
        &mut self,
        id: &JobId,
        change: impl FnOnce(&mut Job, &mut UsageSums, &mut Tables) -> Vec<Effect>,
    ) -> (Answer, Vec<Effect>) {
        match self.jobs.get_mut(id) {
            Some(job) => {
                let effects = change(job, &mut self.usage, &mut self.tables);
                (Answer::Done, effects)
            }
            None => refuse(Problem::new(
                ErrorCode::NotFound,
                format!("there is no job `{id}` that has not ended"),
            )),
        }
    }

    /// Takes a finished attempt whose lease is in force.
    pub(crate) fn commit(
        &mut self,
        id: &JobId,
        commit: TaskCommit,
        at_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> CommitAnswer {
        let Some(job) = self.jobs.get_mut(id) else {
            return CommitAnswer::Stale { billed: false };
        };
        if job.is_committed_by(&commit) {
            return CommitAnswer::Repeated;
        }
        let (usage, log) = (commit.usage.lines(), commit.log.clone());
        let attempt = Attempt::from(&commit);
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

    /// Takes a failed attempt. Returns whether it is billed, and the effects.
    pub(crate) fn fail(
        &mut self,
        id: &JobId,
        failure: &TaskFailure,
        at_ms: u64,
    ) -> (bool, Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else {
            return (false, Vec::new());
        };
        let at_fault = job.awaits_task(failure.stage, failure.task)
            && !failure.problem.code.is_platform_fault();
        let users = failure.cancelled || !failure.problem.code.is_platform_fault();
        let attempt = Attempt::from(failure);
        let billed = at_fault || (users && job.settle(attempt));
        if at_fault {
            // Told again once it has ended the job, it is not billed again.
            job.settled.insert(attempt.id);
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
            is_of_table: job.change.is_some(),
        };
        self.ended.insert(id.clone(), line);
        while self.ended.len() > MAX_ENDED_JOBS {
            self.ended.pop_first();
        }
    }
}
