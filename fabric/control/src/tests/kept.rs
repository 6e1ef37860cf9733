//! Outputs that the cluster keeps.

use weft_core::ErrorCode;
use weft_core::job::Destination;
use weft_protocol::{SinkFile, TaskCommit};

use super::support::{Machine, commit, job_id, plan, spec};
use crate::{Command, JobState, Outcome};

/// A commit of a task that wrote so many bytes to the output.
fn wrote(mut commit: TaskCommit, bytes: u64) -> TaskCommit {
    commit.files.push(SinkFile {
        output: "daily".into(),
        staged: format!("staged-{}", commit.task),
        name: format!("part-{}", commit.task),
        rows: 1,
        bytes,
        xxh3: String::new(),
    });
    commit
}

/// Checks whether a job of three tasks, which write so many bytes each, fails for them.
fn check(to: Destination, bytes: [u64; 3], fails: bool) {
    let mut machine = Machine::new();
    let plan = plan(&[(3, None)]);
    let mut spec = spec();
    spec.outputs[0].to = to;
    let job = job_id(1);
    machine.effects(Command::SubmitJob {
        job: job.clone(),
        spec,
        idempotency: None,
    });
    machine.planned(&job, &plan);
    let epoch = machine.lease();
    for (task, bytes) in (0..).zip(bytes) {
        machine.commit(&job, wrote(commit(&plan, 0, task, epoch), bytes));
    }
    match &machine.job(&job).state {
        JobState::Publishing(_) => assert!(!fails, "{bytes:?}"),
        JobState::Ending(ending) => {
            assert!(fails, "{bytes:?}");
            assert_eq!(ending.outcome, Outcome::Failed);
            let problem = ending.problem.as_ref().expect("it failed");
            assert_eq!(problem.code, ErrorCode::LimitExceeded);
            assert_eq!(problem.limit.as_deref(), Some("kept_output"));
            assert_eq!(problem.value.as_deref(), Some("10"));
            assert!(problem.detail.contains("`uri`"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn tasks_together_write_no_more_than_the_cluster_keeps() {
    let kept = || Destination::Kept { max_kept_bytes: 10 };
    check(kept(), [3, 3, 4], false);
    check(kept(), [11, 0, 0], true);
    check(kept(), [5, 5, 1], true);
    check(kept(), [u64::MAX, u64::MAX, 1], true);
    let path = "/out/daily".to_owned();
    check(Destination::Folder { path }, [5, 5, 1], false);
}
