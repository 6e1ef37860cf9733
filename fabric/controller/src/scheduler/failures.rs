//! Failures of a job that are retried, for people: out of its events.

use weft_control::{JobEvent, JobEventKind, MAX_ATTEMPTS};

/// The tries of the step that a job is at, planning or publishing, that have failed. Nothing if none has.
pub(super) fn of_step(events: &[JobEvent]) -> Option<String> {
    let is_failure = |event: &&JobEvent| event.kind == JobEventKind::StepFailed;
    // Whatever else happened came before the step.
    let failed = events.iter().rev().take_while(is_failure).count();
    let last = detail(events.last()?);
    (failed > 0).then(|| format!("{failed} of {MAX_ATTEMPTS} tries have failed{last}"))
}

/// The reason of the last attempt that failed of a stage, or of one of its tasks, behind a text about it.
pub(super) fn of_attempts(events: &[JobEvent], stage: &str, task: Option<u32>) -> String {
    let is_of_it = |event: &&JobEvent| {
        event.kind == JobEventKind::AttemptFailed
            && event.stage.as_deref() == Some(stage)
            && (task.is_none() || event.task == task)
    };
    let last = events.iter().rev().find(is_of_it);
    last.map_or_else(String::new, detail)
}

fn detail(event: &JobEvent) -> String {
    let detail = event.detail.as_deref();
    detail.map_or_else(String::new, |detail| format!(", the last one: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: JobEventKind, task: Option<u32>, detail: &str) -> JobEvent {
        JobEvent {
            at_ms: 0,
            kind,
            stage: task.map(|_| "visits".into()),
            task,
            attempt: None,
            detail: Some(detail.into()),
        }
    }

    #[test]
    fn a_step_that_is_retried_says_why() {
        let mut events = vec![event(JobEventKind::Submitted, None, "")];
        assert_eq!(of_step(&events), None);
        for _ in 0..2 {
            let down = "`s3://lake/raw`: nobody answers there";
            events.push(event(JobEventKind::StepFailed, None, down));
        }
        let said = of_step(&events).expect("it failed");
        let expected =
            "2 of 4 tries have failed, the last one: `s3://lake/raw`: nobody answers there";
        assert_eq!(said, expected);
        events.push(event(JobEventKind::Publishing, None, ""));
        assert_eq!(of_step(&events), None, "it was planned");
    }

    #[test]
    fn the_last_attempt_of_a_task_is_its_own() {
        let events = [
            event(JobEventKind::AttemptFailed, Some(0), "the disk is full"),
            event(JobEventKind::AttemptFailed, Some(1), "no answer in time"),
        ];
        let of = |task| of_attempts(&events, "visits", task);
        assert_eq!(of(None), ", the last one: no answer in time");
        assert_eq!(of(Some(0)), ", the last one: the disk is full");
        assert_eq!(of(Some(2)), "");
        assert_eq!(of_attempts(&events, "daily", None), "");
    }
}
