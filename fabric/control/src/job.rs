//! One job's life. Each state holds just the fields that are valid in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weft_core::job::{JobSpec, StageSpec};
use weft_core::{
    Amounts, AttemptId, ErrorCode, FunctionUsage, JobId, LimitKind, PinnedFunction, PriceSheet,
    Problem,
};
use weft_protocol::{
    FailedLog, Plan, PublishedOutput, SinkFile, TableChange, TableStatement, TaskCommit,
    TaskFailure, kept_too_large,
};

use crate::bounds::{MAX_ATTEMPTS, MAX_OUTPUT_FILES};
use crate::command::{CommitAnswer, Effect, Step};
use crate::event::{JobEvent, JobEventKind, brief};
use crate::plan::{check, check_outputs};
use crate::running::{Running, StageState, position};

/// A job that has not been archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// As it was accepted.
    pub spec: JobSpec,
    /// Its functions, by reference, fixed when it was accepted.
    pub functions: Vec<PinnedFunction>,
    /// When it was accepted, in Unix milliseconds.
    pub submitted_ms: u64,
    /// What it used so far, in the order of first mention.
    pub usage: Vec<FunctionUsage>,
    /// What happened to it, in order.
    #[serde(default)]
    pub events: Vec<JobEvent>,
    /// Events that came when there were enough.
    #[serde(default)]
    pub events_dropped: u64,
    /// Attempts that ended after the job had, and are billed. Each counts once.
    #[serde(default)]
    pub settled: BTreeSet<AttemptId>,
    /// Change of the tenant's tables that is made when the job succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<TableChange>,
    /// Where it stands.
    pub state: JobState,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "a job has one state, which stays where it is"
)]
pub enum JobState {
    /// An executor lists inputs, binds functions and cuts stages.
    Planning(Planning),
    /// Tasks run.
    Running(Running),
    /// All tasks are committed; files are being made visible.
    Publishing(Publishing),
    /// The outcome stands; what the job left behind is being cleaned up and archived.
    Ending(Ending),
}

/// A job that is being planned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Planning {
    /// Planning attempts that failed for the platform's reasons.
    pub failures: u32,
}

/// A job whose files are being made visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publishing {
    /// The stages' shapes.
    pub plan: Plan,
    /// The stages' progress.
    pub stages: Vec<StageState>,
    /// When planning ended, in Unix milliseconds.
    pub started_ms: u64,
    /// Publishing attempts that failed for the platform's reasons.
    pub failures: u32,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its outputs are published.
    Succeeded,
    /// It was given up.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

/// A job whose outcome stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, unless it succeeded.
    pub problem: Option<Problem>,
    /// The stages' shapes, if it was planned.
    pub plan: Option<Plan>,
    /// The stages' progress.
    pub stages: Vec<StageState>,
    /// When planning ended.
    pub started_ms: Option<u64>,
    /// When the outcome was decided, in Unix milliseconds.
    pub ended_ms: u64,
    /// What was published.
    pub outputs: Vec<PublishedOutput>,
    /// Logs of failed attempts.
    #[serde(default)]
    pub failed_logs: Vec<FailedLog>,
}

/// The line that stays of a job when it is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedJob {
    /// Its id.
    pub id: JobId,
    /// For people.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was accepted, in Unix milliseconds.
    pub submitted_ms: u64,
    /// When planning ended, if it did, in Unix milliseconds.
    pub started_ms: Option<u64>,
    /// When its outcome was decided, in Unix milliseconds.
    pub ended_ms: u64,
    /// Tasks that were committed.
    pub tasks_done: u64,
    /// Its labels.
    pub tags: BTreeMap<String, String>,
    /// Key of the archive object.
    pub archive: String,
    /// It changed the tenant's tables: outputs that the cluster keeps are the rows of one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_of_table: bool,
}

impl Job {
    /// Records usage, summed by stage and function. Answers by how much the amount of each line's sum grows.
    pub(crate) fn add_usage(&mut self, usage: &[FunctionUsage]) -> Vec<Amounts> {
        let sheet = PriceSheet::default();
        let mut growth = Vec::new();
        for one in usage {
            let is_it =
                |sum: &FunctionUsage| sum.stage == one.stage && sum.function == one.function;
            let at = self.usage.iter().position(is_it);
            let at = at.unwrap_or_else(|| {
                self.usage.push(FunctionUsage {
                    stage: one.stage.clone(),
                    function: one.function.clone(),
                    ..FunctionUsage::default()
                });
                self.usage.len() - 1
            });
            let sum = &mut self.usage[at];
            let before = sheet.amounts(&sum.billed);
            sum.add(one);
            growth.push(sheet.amounts(&sum.billed).since(&before));
        }
        growth
    }

    /// The stages' shapes, once there are any.
    pub fn plan(&self) -> Option<&Plan> {
        match &self.state {
            JobState::Planning(_) => None,
            JobState::Running(running) => Some(&running.plan),
            JobState::Publishing(publishing) => Some(&publishing.plan),
            JobState::Ending(ending) => ending.plan.as_ref(),
        }
    }

    /// The stages' progress, in the order of the plan.
    pub fn stages(&self) -> &[StageState] {
        match &self.state {
            JobState::Planning(_) => &[],
            JobState::Running(running) => &running.stages,
            JobState::Publishing(publishing) => &publishing.stages,
            JobState::Ending(ending) => &ending.stages,
        }
    }

    /// The labels of the functions that are under way, with the job file's stages that call them; while the job is planned, of all.
    pub fn under_way(&self) -> Vec<(&str, Vec<String>)> {
        let with_labels = |stage: &StageSpec| {
            let references = stage.work.functions().into_iter();
            references
                .filter_map(|reference| {
                    let pinned = self.functions.iter().find(|one| one.reference == reference);
                    pinned.map(PinnedFunction::label)
                })
                .collect::<Vec<_>>()
        };
        // The stages that SQL is cut into are called `revenue.1`, `revenue.2` and so on, the last one `revenue`.
        let is_under_way = |name: &str| match &self.state {
            JobState::Planning(_) => true,
            JobState::Running(running) => running.ready_stages().any(|stage| {
                running.plan.stages[stage as usize]
                    .name
                    .split('+')
                    .any(|one| one.split('.').next() == Some(name))
            }),
            JobState::Publishing(_) | JobState::Ending(_) => false,
        };
        let stages = self.spec.stages.iter();
        stages
            .filter(|stage| is_under_way(&stage.name))
            .map(|stage| (stage.name.as_str(), with_labels(stage)))
            .collect()
    }

    /// Returns whether an attempt of the step may be under way.
    pub(crate) fn awaits_step(&self, step: Step) -> bool {
        match &self.state {
            JobState::Planning(_) => step == Step::Plan,
            JobState::Publishing(_) => step == Step::Publish,
            JobState::Running(_) | JobState::Ending(_) => false,
        }
    }

    /// True where the job runs, has this task, and has no commit of it.
    pub(crate) fn awaits_task(&self, stage: u32, task: u32) -> bool {
        let JobState::Running(Running { plan, stages, .. }) = &self.state else {
            return false;
        };
        let shape = plan.stages.get(stage as usize);
        shape.is_some_and(|shape| task < shape.n_tasks)
            && !stages[stage as usize].commits.contains_key(&task)
    }

    /// Starts the stages that wait for nothing. A plan that does not hold together is a planning attempt that failed.
    pub(crate) fn planned(
        &mut self,
        plan: Plan,
        statement: TableStatement,
        at_ms: u64,
    ) -> Vec<Effect> {
        let TableStatement { change, outputs } = statement;
        let checked = check(&plan).and_then(|()| check_outputs(&self.spec.outputs, &outputs));
        if let Err(detail) = checked {
            return self.fail_step(Problem::new(ErrorCode::Internal, detail), at_ms);
        }
        self.spec.outputs.extend(outputs);
        self.change = change;
        let stages = vec![StageState::default(); plan.stages.len()];
        let running = Running {
            plan,
            stages,
            started_ms: at_ms,
        };
        let mut effects: Vec<Effect> = running
            .ready_stages()
            .map(|stage| Effect::RunStage {
                job: self.id.clone(),
                stage,
            })
            .collect();
        self.state = JobState::Running(running);
        self.happened(JobEvent::new(at_ms, JobEventKind::Planned));
        self.stages_start(at_ms, &effects);
        if effects.is_empty() {
            effects = self.publish(at_ms);
        }
        effects
    }

    /// Returns whether nothing is left of the job but to change its tenant's tables: no task, and no file.
    pub(crate) fn is_change_alone(&self) -> bool {
        let JobState::Publishing(publishing) = &self.state else {
            return false;
        };
        self.change.is_some() && publishing.plan.stages.is_empty() && self.spec.outputs.is_empty()
    }

    /// Returns whether this very attempt is committed already.
    pub(crate) fn is_committed_by(&self, commit: &TaskCommit) -> bool {
        let stage = self.stages().get(commit.stage as usize);
        let first = stage.and_then(|stage| stage.commits.get(&commit.task));
        first.is_some_and(|first| first.attempt_id() == commit.attempt_id())
    }

    /// Takes a finished attempt: the first commit of a task wins, any later one only counts as a duplicate.
    pub(crate) fn commit(
        &mut self,
        mut commit: TaskCommit,
        at_ms: u64,
    ) -> (CommitAnswer, Vec<Effect>) {
        let JobState::Running(running) = &mut self.state else {
            return (CommitAnswer::Stale { billed: false }, Vec::new());
        };
        let (stage, task) = (commit.stage as usize, commit.task);
        let Some(shape) = running
            .plan
            .stages
            .get(stage)
            .filter(|shape| task < shape.n_tasks)
        else {
            return (CommitAnswer::Stale { billed: false }, Vec::new());
        };
        let deterministic = shape.deterministic;
        // Executors are not trusted: what no edge is there for is not kept.
        commit.written.truncate(shape.edges.len());
        commit.bytes.truncate(shape.edges.len());
        commit.read.truncate(shape.reads.len());
        let progress = &mut running.stages[stage];
        if let Some(first) = progress.commits.get(&task) {
            progress.duplicates += 1;
            let same = !deterministic || first.agrees_with(&commit);
            return (CommitAnswer::Duplicate { same }, Vec::new());
        }
        let answer = match progress.taken_back.contains_key(&task) {
            true => CommitAnswer::CommittedAgain,
            false => CommitAnswer::Committed,
        };
        progress.add(commit);
        if let Err(problem) = check_output_bounds(&self.spec, &running.stages) {
            return (answer, self.end(Outcome::Failed, Some(problem), at_ms));
        }
        let progress = &running.stages[stage];
        if progress.commits.len() < shape.n_tasks as usize {
            return (answer, Vec::new());
        }
        if let Err(problem) = running.check_conservation(stage) {
            return (answer, self.end(Outcome::Failed, Some(problem), at_ms));
        }
        let done = position(stage);
        let id = self.id.clone();
        let next: Vec<u32> = running.stages_after(done).collect();
        next.iter().for_each(|stage| running.settle(*stage));
        let next = next.into_iter().map(|stage| Effect::RunStage {
            job: id.clone(),
            stage,
        });
        let next: Vec<Effect> = next.collect();
        let ended = running.is_done();
        self.stage_happened(at_ms, JobEventKind::StageDone, done);
        self.stages_start(at_ms, &next);
        let effects = if ended { self.publish(at_ms) } else { next };
        (answer, effects)
    }

    /// Takes a failed attempt; gives the job up when it is the user's fault or when attempts are used up.
    pub(crate) fn fail_task(&mut self, failure: &TaskFailure, at_ms: u64) -> Vec<Effect> {
        if !self.awaits_task(failure.stage, failure.task) {
            return Vec::new();
        }
        if let Some(effects) = self.missed(failure, at_ms) {
            return effects;
        }
        let JobState::Running(running) = &mut self.state else {
            return Vec::new();
        };
        let progress = &mut running.stages[failure.stage as usize];
        let failures = progress.failures.entry(failure.task).or_default();
        *failures += u32::from(failure.problem.code.is_platform_fault());
        let failures = *failures;
        let event = JobEvent {
            stage: Some(running.plan.stages[failure.stage as usize].name.clone()),
            task: Some(failure.task),
            attempt: Some(failure.attempt),
            detail: Some(brief(&failure.problem)),
            ..JobEvent::new(at_ms, JobEventKind::AttemptFailed)
        };
        self.happened(event);
        let JobState::Running(running) = &mut self.state else {
            return Vec::new();
        };
        if failure.problem.code.is_platform_fault() && failures < MAX_ATTEMPTS {
            return self.run_if_ready(failure.stage, failure.task);
        }
        let stage_name = running.plan.stages[failure.stage as usize].name.clone();
        let mut problem = failure.problem.clone();
        problem.detail = format!(
            "stage `{stage_name}`, task {}: {}",
            failure.task, problem.detail
        );
        if problem.code.is_platform_fault() {
            problem.detail = format!("{} (given up after {failures} attempts)", problem.detail);
        }
        let log = failure.log.clone().map(|log| FailedLog {
            stage: stage_name,
            task: failure.task,
            attempt: failure.attempt,
            log,
        });
        let effects = self.end(Outcome::Failed, Some(problem), at_ms);
        if let JobState::Ending(ending) = &mut self.state {
            ending.failed_logs.extend(log);
        }
        effects
    }

    fn publish(&mut self, at_ms: u64) -> Vec<Effect> {
        self.happened(JobEvent::new(at_ms, JobEventKind::Publishing));
        let state = std::mem::replace(&mut self.state, JobState::Planning(Planning::default()));
        self.state = match state {
            JobState::Running(Running {
                plan,
                stages,
                started_ms,
            }) => JobState::Publishing(Publishing {
                plan,
                stages,
                started_ms,
                failures: 0,
            }),
            other => other,
        };
        vec![Effect::PublishJob {
            job: self.id.clone(),
        }]
    }

    /// A planning or publishing attempt failed.
    pub(crate) fn fail_step(&mut self, problem: Problem, at_ms: u64) -> Vec<Effect> {
        let retry = problem.code.is_platform_fault();
        let awaited = self.awaits_step(Step::Plan) || self.awaits_step(Step::Publish);
        if retry && awaited {
            self.happened(JobEvent {
                detail: Some(brief(&problem)),
                ..JobEvent::new(at_ms, JobEventKind::StepFailed)
            });
        }
        match &mut self.state {
            JobState::Planning(planning) if retry && planning.failures + 1 < MAX_ATTEMPTS => {
                planning.failures += 1;
                vec![Effect::PlanJob {
                    job: self.id.clone(),
                }]
            }
            JobState::Publishing(publishing) if retry && publishing.failures + 1 < MAX_ATTEMPTS => {
                publishing.failures += 1;
                vec![Effect::PublishJob {
                    job: self.id.clone(),
                }]
            }
            JobState::Planning(_) | JobState::Publishing(_) => {
                self.end(Outcome::Failed, Some(problem), at_ms)
            }
            JobState::Running(_) | JobState::Ending(_) => Vec::new(),
        }
    }

    /// Ends the job with its outputs. If `refused` says that its change of tables could not be made, it fails, and
    /// its files are withdrawn.
    pub(crate) fn published(
        &mut self,
        outputs: Vec<PublishedOutput>,
        refused: Option<Problem>,
        at_ms: u64,
    ) -> Vec<Effect> {
        let JobState::Publishing(_) = &self.state else {
            return Vec::new();
        };
        if refused.is_some() {
            return self.end(Outcome::Failed, refused, at_ms);
        }
        let effects = self.end(Outcome::Succeeded, None, at_ms);
        if let JobState::Ending(ending) = &mut self.state {
            ending.outputs = outputs;
        }
        effects
    }

    /// Gives the job up from outside. What is committed is published, however late: from then on it is too late.
    pub(crate) fn give_up(
        &mut self,
        outcome: Outcome,
        problem: Option<Problem>,
        at_ms: u64,
    ) -> Vec<Effect> {
        match self.state {
            JobState::Planning(_) | JobState::Running(_) => self.end(outcome, problem, at_ms),
            JobState::Publishing(_) | JobState::Ending(_) => Vec::new(),
        }
    }

    /// Decides the outcome, once; a job that has one keeps it.
    pub(crate) fn end(
        &mut self,
        outcome: Outcome,
        problem: Option<Problem>,
        at_ms: u64,
    ) -> Vec<Effect> {
        // Moved, not copied: a job may have a hundred thousand commits.
        let state = std::mem::replace(&mut self.state, JobState::Planning(Planning::default()));
        let (plan, stages, started_ms) = match state {
            JobState::Planning(_) => (None, Vec::new(), None),
            JobState::Running(Running {
                plan,
                stages,
                started_ms,
            })
            | JobState::Publishing(Publishing {
                plan,
                stages,
                started_ms,
                ..
            }) => (Some(plan), stages, Some(started_ms)),
            JobState::Ending(_) => {
                self.state = state;
                return Vec::new();
            }
        };
        let kind = match outcome {
            Outcome::Succeeded => JobEventKind::Succeeded,
            Outcome::Failed => JobEventKind::Failed,
            Outcome::Cancelled => JobEventKind::Cancelled,
        };
        self.happened(JobEvent {
            detail: problem.as_ref().map(brief),
            ..JobEvent::new(at_ms, kind)
        });
        let ending = Ending {
            outcome,
            problem,
            plan,
            stages,
            started_ms,
            ended_ms: at_ms,
            outputs: Vec::new(),
            failed_logs: Vec::new(),
        };
        self.state = JobState::Ending(ending);
        vec![Effect::ArchiveJob {
            job: self.id.clone(),
        }]
    }

    /// What has to be done for the job now; what a new leader starts from.
    pub(crate) fn pending_effects(&self) -> Vec<Effect> {
        let job = self.id.clone();
        match &self.state {
            JobState::Planning(_) => vec![Effect::PlanJob { job }],
            JobState::Running(running) => running
                .ready_stages()
                .map(|stage| Effect::RunStage {
                    job: job.clone(),
                    stage,
                })
                .collect(),
            JobState::Publishing(_) => vec![Effect::PublishJob { job }],
            JobState::Ending(_) => vec![Effect::ArchiveJob { job }],
        }
    }

    /// Every file that committed tasks staged, in the order of stages and tasks.
    pub fn staged_files(&self) -> Vec<SinkFile> {
        self.stages()
            .iter()
            .flat_map(|stage| stage.commits.values())
            .flat_map(|commit| commit.files.iter().cloned())
            .collect()
    }
}

/// Fails if the outputs of a job have too many files, or those that the cluster keeps too many bytes.
fn check_output_bounds(spec: &JobSpec, stages: &[StageState]) -> Result<(), Problem> {
    let exceeded = |detail: String| Problem::new(ErrorCode::LimitExceeded, detail);
    let n_files: u64 = stages.iter().map(|stage| stage.files).sum();
    if n_files > MAX_OUTPUT_FILES {
        let detail = format!(
            "the job's outputs have more than {MAX_OUTPUT_FILES} files: fewer `partitions`, or `partition_by` columns with fewer values"
        );
        return Err(exceeded(detail).of_limit(LimitKind::Files, MAX_OUTPUT_FILES.to_string()));
    }
    for output in &spec.outputs {
        let Some(most) = output.max_kept_bytes() else {
            continue;
        };
        let of_stages = stages.iter().map(|stage| &stage.output_bytes);
        let bytes = of_stages.filter_map(|outputs| outputs.get(&output.name));
        let bytes = bytes.fold(0, |sum: u64, more| sum.saturating_add(*more));
        if bytes > most {
            let detail = kept_too_large(&output.name, most);
            let problem = exceeded(detail).of_limit(LimitKind::KeptOutput, most.to_string());
            return Err(problem);
        }
    }
    Ok(())
}
