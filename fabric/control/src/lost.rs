//! Shuffle objects that the store lost: the commit of whoever wrote one is taken back, and the task runs again.
//!
//! ```text
//! reader fails, names object ─ its key is the commit's ─▶ commit taken back ─▶ writer runs ─▶ commits again
//!                            └ another one by now: nothing is taken back      readers wait ◀─┘ then run
//! ```
//!
//! A key names one attempt, so that a report which comes twice, late, or from several readers takes nothing back but
//! the commit that it is about. Stages that read the writer's are not ready until it has committed again.

use weft_core::{ErrorCode, Problem};
use weft_protocol::{LostObject, TaskFailure};

use crate::bounds::{MAX_MISSES, MAX_RERUNS};
use crate::command::Effect;
use crate::event::{JobEvent, JobEventKind, brief};
use crate::job::{Job, JobState, Outcome};
use crate::running::Running;

/// Consequence of a report that an object is lost.
enum Lost {
    /// The commit that named it stands no more.
    TakenBack,
    /// The writer runs again already, or has.
    Known,
    /// The job cannot go on.
    ForGood(Problem),
}

impl Job {
    /// Takes an attempt that failed because an object is lost. Nothing if it is to be taken like any other failure: the
    /// stage reads no such object, or the task has met too many.
    pub(crate) fn missed(&mut self, failure: &TaskFailure, at_ms: u64) -> Option<Vec<Effect>> {
        let lost = failure.lost.as_ref()?;
        let JobState::Running(running) = &mut self.state else {
            return None;
        };
        let shape = running.plan.stages.get(failure.stage as usize)?;
        let reads = shape.reads.iter().any(|read| read.stage == lost.stage);
        let stage = shape.name.clone();
        let progress = running.stages.get_mut(failure.stage as usize)?;
        let misses = progress.misses.entry(failure.task).or_default();
        if !failure.problem.code.is_platform_fault() || !reads || *misses >= MAX_MISSES {
            return None;
        }
        *misses += 1;
        let taken = running.take_back(lost);
        let event = JobEvent {
            stage: Some(stage),
            task: Some(failure.task),
            attempt: Some(failure.attempt),
            detail: Some(brief(&failure.problem)),
            ..JobEvent::new(at_ms, JobEventKind::AttemptFailed)
        };
        self.happened(event);
        match taken {
            Lost::TakenBack => {
                self.object_lost(lost, at_ms);
                Some(self.run_if_ready(lost.stage, lost.task))
            }
            Lost::Known => Some(self.run_if_ready(failure.stage, failure.task)),
            Lost::ForGood(problem) => Some(self.end(Outcome::Failed, Some(problem), at_ms)),
        }
    }

    fn object_lost(&mut self, lost: &LostObject, at_ms: u64) {
        let plan = self.plan();
        let stage = plan.and_then(|plan| plan.stages.get(lost.stage as usize));
        let event = JobEvent {
            stage: stage.map(|stage| stage.name.clone()),
            task: Some(lost.task),
            ..JobEvent::new(at_ms, JobEventKind::ObjectLost)
        };
        self.happened(event);
    }

    /// Has a task run, unless its stage waits for others: it runs with the stage then.
    pub(crate) fn run_if_ready(&self, stage: u32, task: u32) -> Vec<Effect> {
        match &self.state {
            JobState::Running(running) if running.is_readable(stage) => vec![Effect::RunTask {
                job: self.id.clone(),
                stage,
                task,
            }],
            _ => Vec::new(),
        }
    }
}

impl Running {
    /// Takes the commit back that names an object.
    fn take_back(&mut self, lost: &LostObject) -> Lost {
        let LostObject { stage, task, key } = lost;
        let writer = self.stages.get(*stage as usize);
        let commit = writer.and_then(|writer| writer.commits.get(task));
        let object = commit.and_then(|commit| commit.object.as_ref());
        if object.is_none_or(|object| object.key != *key) {
            return Lost::Known;
        }
        let readers = self.plan.stages.iter().zip(&self.stages);
        let mut readers = readers.filter(|(shape, _)| {
            let mut reads = shape.reads.iter();
            reads.any(|read| read.stage == *stage)
        });
        let is_read = readers.any(|(_, progress)| !progress.commits.is_empty());
        let at = *stage as usize;
        let (shape, progress) = (&self.plan.stages[at], &mut self.stages[at]);
        let for_good = |why: &str| {
            let detail = format!(
                "the store has lost what task {task} of stage `{}` wrote: {why}",
                shape.name
            );
            Lost::ForGood(Problem::new(ErrorCode::StoreUnavailable, detail))
        };
        if is_read && !shape.deterministic {
            return for_good(
                "its functions are not deterministic and other tasks have read it, so it cannot be written again; run \
                 the job again",
            );
        }
        let times = progress.taken_back.entry(*task).or_default();
        if *times >= MAX_RERUNS {
            return for_good(&format!(
                "it was written {MAX_RERUNS} times again; look at the store, and at rules that let its objects expire"
            ));
        }
        *times += 1;
        progress.remove(*task);
        Lost::TakenBack
    }
}
