//! Statements as jobs of one stage, run to their end for a client that waits.
//!
//! ```text
//! statement ──▶ job, as `weft sql` submits it ──▶ its end ──▶ outputs
//!                  ▲ cancelled if the client goes or its time is over
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use weft_control::{Command, Job, JobState, Outcome};
use weft_core::job::{MAX_SQL_BYTES, is_sql_command};
use weft_core::{ErrorCode, JobId, Problem, TenantId, lock};
use weft_protocol::PublishedOutput;
use weft_runtime::OnError;

use super::super::jobs;
use super::Caller;
use super::grpc::{Code, Status};

/// Statements of one tenant that run or wait here at a time, each with a client that waits for it.
const MAX_WAITING_STATEMENTS: usize = 64;
/// Longest time that a client may wait for the end of a statement.
pub(super) const MAX_STATEMENT_WALL: Duration = Duration::from_secs(3_600);
/// Name of the statement's stage.
const STAGE: &str = "query";
/// Name of its output.
pub(super) const RESULT: &str = "result";

/// Statements that clients wait for. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Statements(Arc<Mutex<HashMap<TenantId, usize>>>);

impl Statements {
    /// Counts a statement until what is returned is dropped. Errors: `busy` if there are as many as may be.
    fn begin(&self, tenant: &TenantId) -> Result<Waiting, Problem> {
        let mut statements = lock(&self.0);
        let n = statements.entry(tenant.clone()).or_default();
        if *n >= MAX_WAITING_STATEMENTS {
            let detail = format!(
                "{MAX_WAITING_STATEMENTS} statements of the tenant run or wait here; try again when one has ended"
            );
            return Err(Problem::new(ErrorCode::Busy, detail));
        }
        *n += 1;
        Ok(Waiting {
            statements: self.clone(),
            tenant: tenant.clone(),
        })
    }
}

/// A statement that a client waits for.
struct Waiting {
    statements: Statements,
    tenant: TenantId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut statements = lock(&self.statements.0);
        if let Some(n) = statements.get_mut(&self.tenant) {
            *n -= 1;
            if *n == 0 {
                statements.remove(&self.tenant);
            }
        }
    }
}

/// A statement that has succeeded.
pub(super) struct Succeeded {
    pub(super) job: JobId,
    outputs: Vec<PublishedOutput>,
}

impl Succeeded {
    /// Rows that were written, as Flight counts them: -1 if that means nothing.
    pub(super) fn rows(&self) -> i64 {
        let rows = self.outputs.iter().map(|output| output.rows);
        let rows = rows.reduce(u64::saturating_add);
        rows.and_then(|rows| i64::try_from(rows).ok()).unwrap_or(-1)
    }
}

/// How a job ended.
struct Ended {
    outcome: Outcome,
    problem: Option<Problem>,
    outputs: Vec<PublishedOutput>,
}

/// A job that is cancelled if this is dropped before it has ended.
struct Watched<'a> {
    caller: &'a Caller,
    job: JobId,
    has_ended: bool,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (api, tenant) = (self.caller.api.clone(), self.caller.tenant.clone());
        let job = self.job.clone();
        let tasks = api.tasks.clone();
        tasks.spawn("cancel of a statement", OnError::Log, async move {
            let cancel = Command::CancelJob { job };
            match api.replica.propose(&tenant, cancel).await {
                // It was not accepted, or has ended and was archived meanwhile.
                Err(problem) if problem.code == ErrorCode::NotFound => Ok(()),
                Err(problem) => Err(anyhow::anyhow!("{problem}")),
                Ok(_) => Ok(()),
            }
        });
    }
}

/// Checks the bounds of a statement.
pub(super) fn check(statement: &str) -> Result<(), Status> {
    if statement.len() > MAX_SQL_BYTES {
        let most = MAX_SQL_BYTES >> 10;
        let what = format!("the statement is larger than {most} KiB");
        return Err(Status::new(Code::ResourceExhausted, what));
    }
    match statement.trim().is_empty() {
        true => Err(Status::new(Code::InvalidArgument, "the statement is empty")),
        false => Ok(()),
    }
}

/// The job of one statement: the cluster keeps its rows, if it has any.
fn document(statement: &str) -> Value {
    let stage = json!({ "name": STAGE, "sql": statement });
    let mut document = json!({ "name": "sql", "stage": [stage] });
    if !is_sql_command(statement) {
        document["output"] = json!({ RESULT: { "from": STAGE } });
    }
    document
}

impl Caller {
    /// Runs a statement to its end.
    ///
    /// Errors: the job's problem, `DeadlineExceeded` if the client's time is over, `Cancelled` if somebody cancelled
    /// it. Cancel safety: the job is cancelled if this is dropped.
    pub(super) async fn run(&self, statement: &str) -> Result<Succeeded, Status> {
        check(statement)?;
        let _waiting = self.api.statements.begin(&self.tenant)?;
        let spec = jobs::read(&self.api, &document(statement))?;
        let mut watched = Watched {
            caller: self,
            job: jobs::new_id()?,
            has_ended: false,
        };
        let job = watched.job.clone();
        let running = async {
            let (api, tenant) = (&self.api, &self.tenant);
            let accepted = jobs::accept(api, tenant, &self.trace, job.clone(), spec, None).await;
            if let Err(problem) = &accepted {
                // What was refused need not be cancelled; otherwise it may have been accepted without a word of it.
                watched.has_ended = !matches!(problem.code, ErrorCode::Busy | ErrorCode::Internal);
            }
            accepted?;
            self.end_of(&job).await
        };
        let Ok(ended) = tokio::time::timeout(self.patience, running).await else {
            let what = format!(
                "the statement has not ended within {} s and is cancelled: give the call more time",
                self.patience.as_secs()
            );
            return Err(Status::new(Code::DeadlineExceeded, what).of_job(job.as_str()));
        };
        let ended = ended?;
        watched.has_ended = true;
        succeeded(job, ended)
    }

    /// Waits for the end of a job. Errors: `busy` if the server stops.
    async fn end_of(&self, job: &JobId) -> Result<Ended, Problem> {
        let mut endings = self.api.replica.endings();
        loop {
            // Marked as seen before the state is read: what comes after wakes the next round.
            endings.borrow_and_update();
            let look = |job: &Job| match &job.state {
                JobState::Ending(ending) => Some(Ended {
                    outcome: ending.outcome,
                    problem: ending.problem.clone(),
                    outputs: ending.outputs.clone(),
                }),
                JobState::Planning(_) | JobState::Running(_) | JobState::Publishing(_) => None,
            };
            if let Some(ended) = jobs::look(&self.api, &self.tenant, job.as_str(), look).await? {
                return Ok(ended);
            }
            if endings.changed().await.is_err() {
                return Err(Problem::new(ErrorCode::Busy, "the server stops; try again"));
            }
        }
    }
}

/// Outcome of a job for its client. Errors: it did not succeed.
fn succeeded(job: JobId, ended: Ended) -> Result<Succeeded, Status> {
    let status = match (ended.outcome, ended.problem) {
        (Outcome::Succeeded, _) => {
            return Ok(Succeeded {
                job,
                outputs: ended.outputs,
            });
        }
        (Outcome::Cancelled, _) => Status::new(Code::Cancelled, "the statement was cancelled"),
        (Outcome::Failed, Some(problem)) => Status::from(problem),
        (Outcome::Failed, None) => Status::new(Code::Internal, "the statement has failed"),
    };
    Err(status.of_job(job.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_a_job_of_one_stage() {
        for (statement, n_outputs) in [("SELECT 1 AS a", 1), ("CREATE VIEW a AS SELECT 1", 0)] {
            let spec = weft_core::job::decode(&document(statement)).expect("a job");
            assert_eq!(spec.outputs.len(), n_outputs, "{statement}");
            assert!(spec.outputs.iter().all(|output| output.path().is_none()));
        }
    }

    #[test]
    fn statements_of_a_tenant_are_bounded() {
        let (statements, tenant) = (Statements::default(), TenantId::default_tenant());
        let begin = || statements.begin(&tenant);
        let mut waiting: Vec<Waiting> = (0..MAX_WAITING_STATEMENTS)
            .map(|_| {
                begin()
                    .map_err(|problem| problem.detail)
                    .expect("there is room")
            })
            .collect();
        let refused = begin().err().map(|problem| problem.code);
        assert_eq!(refused, Some(ErrorCode::Busy));
        waiting.pop();
        assert!(begin().is_ok());
        waiting.clear();
        assert!(lock(&statements.0).is_empty());
    }

    #[test]
    fn statements_have_bounds() {
        let code = |statement: &str| check(statement).err().map(|status| status.code);
        assert_eq!(code("SELECT 1"), None);
        assert_eq!(code(" \n"), Some(Code::InvalidArgument));
        let longer = " ".repeat(MAX_SQL_BYTES) + "1";
        assert_eq!(code(&longer), Some(Code::ResourceExhausted));
    }
}
