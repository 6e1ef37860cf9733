//! How jobs end: in time or past it, archived once nothing of them runs.

use weft_control::{Command, Effect, Job, JobState, ORIGIN_MS, Step};
use weft_core::{ErrorCode, JobId, LimitKind, Problem, TaskId, TenantId};
use weft_protocol::{AgentCommand, Work};

use super::io::{Done, Pending};
use super::leadership::Phase;
use super::{Output, Scheduler, Turn, job};

impl Scheduler {
    pub(super) fn on_done(&mut self, turn: &mut Turn<'_>, done: Done) {
        // Work that an earlier leadership asked for: its effects are derived again.
        if !matches!(self.phase, Phase::Leading { .. }) {
            return;
        }
        match done {
            Done::Prepared(tenant, id, result) => {
                if !self.preparing.remove(&id) {
                    return;
                }
                match result {
                    Ok(()) => {
                        self.prepared.insert(id.clone());
                        let plans = job(turn.state, &tenant, &id)
                            .is_some_and(|job| matches!(job.state, JobState::Planning(_)));
                        if plans {
                            let step = Effect::PlanJob { job: id };
                            self.queue.push_step(&tenant, step);
                        } else {
                            // Its tasks, as it was planned before.
                            self.derive = true;
                        }
                    }
                    Err(problem) => self.on_unprepared(turn, &tenant, id, problem),
                }
            }
            Done::Archived(tenant, id, Ok(archive)) => {
                if let Some(ended) = job(turn.state, &tenant, &id) {
                    self.traces.job_ended(ended);
                    self.metrics.job_ended(ended);
                }
                let archived = Command::JobArchived {
                    job: id.clone(),
                    archive,
                };
                self.propose(turn, &tenant, None, archived, Pending::Archive(id));
            }
            Done::Archived(tenant, id, Err(problem)) => {
                tracing::error!(job = %id, %problem, "archiving failed and is tried again");
                turn.out.push(Output::ArchiveLater(tenant, id));
            }
            Done::ArchiveAgain(tenant, id) => {
                self.archived.remove(&id);
                self.archiving.insert(id.clone(), tenant);
                self.archive_when_quiet(turn, &id);
            }
            // It is taken in whatever the phase is.
            Done::Confirmed(..) => {}
        }
    }

    /// Artefacts of a job cannot be made: it is not planned, or, after an upgrade, not gone on with.
    fn on_unprepared(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: &TenantId,
        id: JobId,
        problem: Problem,
    ) {
        let plans = job(turn.state, tenant, &id)
            .is_some_and(|job| matches!(job.state, JobState::Planning(_)));
        let command = match plans {
            true => Command::StepFailed {
                job: id.clone(),
                step: Step::Plan,
                lease: None,
                problem,
                usage: Vec::new(),
            },
            false => Command::EndJob {
                job: id.clone(),
                problem,
            },
        };
        // Marked until it is recorded: it is prepared again after that, if it has attempts left.
        self.steps.insert((id.clone(), Step::Plan));
        self.propose(turn, tenant, None, command, Pending::Unprepared(id));
    }

    /// Stops what runs of a job whose outcome stands, and archives it.
    pub(super) fn stop_job(&mut self, turn: &mut Turn<'_>, tenant: TenantId, id: JobId) {
        if self.archiving.contains_key(&id) || self.archived.contains(&id) {
            return;
        }
        self.queue.forget(&tenant, &id);
        self.suspects.retain(|task| task.job != id);
        self.preparing.remove(&id);
        self.prepared.remove(&id);
        let mut targets = Vec::new();
        for (node, view) in &mut self.nodes {
            let takes_commands = view.takes_commands();
            for (epoch, executor) in &mut view.executors {
                if executor.is_of(&tenant) {
                    executor.stages.retain(|(other, _), _| *other != id);
                    // Others are told with their next status.
                    targets.extend(takes_commands.then(|| (node.clone(), *epoch)));
                }
            }
        }
        for (node, epoch) in targets {
            let work = Work::Forget { job: id.clone() };
            self.send(turn, &node, AgentCommand::Work { epoch, work });
        }
        self.archiving.insert(id.clone(), tenant);
        self.archive_when_quiet(turn, &id);
    }

    /// Archives once nothing of the job runs any more: it could write what was just removed.
    pub(super) fn archive_when_quiet(&mut self, turn: &mut Turn<'_>, id: &JobId) {
        if !self.archiving.contains_key(id) {
            return;
        }
        let first = TaskId {
            job: id.clone(),
            stage: 0,
            task: 0,
        };
        let next_busy = self.busy.range(first..).next();
        let next_step = self.steps.range((id.clone(), Step::Plan)..).next();
        if next_busy.is_some_and(|(task, _)| task.job == *id)
            || next_step.is_some_and(|(job, _)| job == id)
        {
            return;
        }
        let Some(tenant) = self.archiving.remove(id) else {
            return;
        };
        let Some(job) = job(turn.state, &tenant, id) else {
            return;
        };
        self.archived.insert(id.clone());
        turn.out
            .push(Output::Archive(tenant, Box::new(job.clone())));
    }

    /// Looks after time limits, jobs that wait to be archived, and shards.
    pub(super) fn check_deadlines(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.phase, Phase::Leading { .. }) {
            return;
        }
        let now_ms = turn.now.unix_ms;
        let over = |job: &Job| {
            // What is committed is published, however late.
            !matches!(job.state, JobState::Publishing(_) | JobState::Ending(_))
                && now_ms.saturating_sub(job.submitted_ms) > job.spec.limits.wall_ms
                && !self.given_up.contains(&job.id)
        };
        let mut late = Vec::new();
        for (tenant, of) in &turn.state.tenants {
            let jobs = of.jobs.values().filter(|job| over(job));
            late.extend(jobs.map(|job| (tenant.clone(), job.id.clone(), wall_problem(job))));
        }
        for (tenant, job, problem) in late {
            self.metrics.limit_hit(&problem);
            self.given_up.insert(job.clone());
            let pending = Pending::End(job.clone());
            let end = Command::EndJob { job, problem };
            self.propose(turn, &tenant, None, end, pending);
        }
        let waiting: Vec<JobId> = self.archiving.keys().cloned().collect();
        for job in waiting {
            self.archive_when_quiet(turn, &job);
        }
        self.expire_origins(turn);
        self.check_shards(turn);
    }

    /// Has the state forget origins of commands that nobody repeats any more.
    fn expire_origins(&mut self, turn: &mut Turn<'_>) {
        let before_ms = turn.state.now_ms.saturating_sub(ORIGIN_MS);
        let is_due = turn.now.monotonic_ms >= self.origins_expire_at_ms;
        if !is_due || !turn.state.origins.any_before(before_ms) {
            return;
        }
        self.origins_expire_at_ms = turn.now.monotonic_ms + ORIGINS_EXPIRE_EVERY_MS;
        let tenant = TenantId::default_tenant();
        let expire = Command::ExpireOrigins { before_ms };
        self.propose(turn, &tenant, None, expire, Pending::Other);
    }
}

/// Time between two looks for origins that may be forgotten.
const ORIGINS_EXPIRE_EVERY_MS: u64 = 3_600_000;

/// Why a job that takes too long is given up, and what it was at.
fn wall_problem(job: &Job) -> Problem {
    let value = format!("{} ms", job.spec.limits.wall_ms);
    let under_way = job.under_way();
    let at = match under_way.as_slice() {
        [] => "while it waited".to_owned(),
        stages => {
            let names: Vec<String> = stages
                .iter()
                .map(|(stage, functions)| match functions.as_slice() {
                    [] => format!("`{stage}`"),
                    functions => format!("`{stage}` (`{}`)", functions.join("`, `")),
                })
                .collect();
            let what = match &job.state {
                JobState::Planning(_) => "while it was planned",
                _ => "while it ran",
            };
            format!("{what}, in stage {}", names.join(", "))
        }
    };
    let detail = format!(
        "the `{}` limit of {value} was reached by the job, {at}; raise `limits.wall`",
        LimitKind::Wall
    );
    let problem = Problem::new(ErrorCode::LimitExceeded, detail).of_limit(LimitKind::Wall, value);
    let mut functions = under_way.iter().flat_map(|(_, functions)| functions);
    match (functions.next(), functions.next()) {
        (Some(function), None) => problem.of_function(function.as_str()),
        _ => problem,
    }
}
