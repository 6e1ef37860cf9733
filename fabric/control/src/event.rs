//! What happened to a job, in order: kept with it, within a bound.

use serde::{Deserialize, Serialize};
use weft_core::Problem;
use weft_protocol::Plan;

use crate::command::Effect;
use crate::job::Job;

/// Events that are kept of a job.
pub const EVENTS_MAX: usize = 1_000;

/// Bytes of an event's detail: the whole of the last problem is with the job.
const EVENT_DETAIL_BYTES_MAX: usize = 512;

pub(crate) fn brief(problem: &Problem) -> String {
    let mut text = problem.detail.clone();
    text.truncate(text.floor_char_boundary(EVENT_DETAIL_BYTES_MAX));
    text
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEvent {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What.
    pub kind: JobEventKind,
    /// The stage that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The task that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u32>,
    /// Which attempt of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// More of it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What may happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEventKind {
    /// It was accepted.
    Submitted,
    /// Its stages are known.
    Planned,
    /// Planning or publishing failed for the platform's reasons, and is tried again.
    StepFailed,
    /// A stage's tasks may run.
    StageStarted,
    /// All tasks of a stage are committed.
    StageDone,
    /// An attempt of a task failed.
    AttemptFailed,
    /// The store lost what a task had written, which runs again.
    ObjectLost,
    /// Files are being made visible.
    Publishing,
    /// It ended well.
    Succeeded,
    /// It was given up.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobEvent {
    pub(crate) fn new(at_ms: u64, kind: JobEventKind) -> Self {
        Self {
            at_ms,
            kind,
            stage: None,
            task: None,
            attempt: None,
            detail: None,
        }
    }

    /// The first event of every job.
    pub(crate) fn submitted(at_ms: u64) -> Self {
        Self::new(at_ms, JobEventKind::Submitted)
    }
}

impl Job {
    /// Takes note of what happened. How a job ends is always kept.
    pub(crate) fn happened(&mut self, event: JobEvent) {
        let ends = matches!(
            event.kind,
            JobEventKind::Succeeded | JobEventKind::Failed | JobEventKind::Cancelled
        );
        if self.events.len() < EVENTS_MAX || ends {
            self.events.push(event);
        } else {
            self.events_dropped += 1;
        }
    }

    pub(crate) fn stage_happened(&mut self, at_ms: u64, kind: JobEventKind, stage: u32) {
        let name = |plan: &Plan| {
            plan.stages
                .get(stage as usize)
                .map(|stage| stage.name.clone())
        };
        let stage = self.plan().and_then(name);
        self.happened(JobEvent {
            stage,
            ..JobEvent::new(at_ms, kind)
        });
    }

    /// Takes note of the stages that effects start.
    pub(crate) fn stages_start(&mut self, at_ms: u64, effects: &[Effect]) {
        for effect in effects {
            if let Effect::RunStage { stage, .. } = effect {
                self.stage_happened(at_ms, JobEventKind::StageStarted, *stage);
            }
        }
    }
}
