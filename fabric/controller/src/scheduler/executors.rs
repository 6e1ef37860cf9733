//! The life of the executor: started, heard, lost, started again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weft_control::{Answer, Command, Job, Lease};
use weft_core::{ErrorCode, FunctionUsage, Problem, TaskId};
use weft_protocol::FromExecutor;
use weft_protocol::{SlotVector, TaskFailure};

use super::{Done, LiveExecutor, NODE, RESTART_DOUBLINGS_MAX, RESTART_PAUSE, Scheduler};
use crate::tenant;
use crate::traces::Step;
use weft_runtime::OnError;
use weft_runtime::clock::unix_ms;
use weft_runtime::link::ExecutorEvent;

impl Scheduler {
    /// Starts an executor; where that fails, it is tried again after a pause.
    pub(super) async fn start_executor_or_wait(&mut self) {
        if let Err(error) = self.start_executor().await {
            tracing::error!(error = format!("{error:#}"), "an executor does not start");
            self.stillborn = (self.stillborn + 1).min(RESTART_DOUBLINGS_MAX);
            self.restart_after_pause();
        }
    }

    pub(super) fn restart_after_pause(&self) {
        let (done, pause) = (self.done.clone(), RESTART_PAUSE * (1 << self.stillborn));
        self.tasks
            .spawn("executor restart", OnError::Log, async move {
                tokio::time::sleep(pause).await;
                let _ = done.send(Done::Restart).await;
                Ok(())
            });
    }

    pub(super) async fn start_executor(&mut self) -> anyhow::Result<()> {
        let id = self.next_executor;
        self.next_executor += 1;
        let link = self.node.start_executor(id).await?;
        let slots = vec![
            SlotVector {
                milli_cpu: 1000,
                ..SlotVector::default()
            };
            self.settings.slots as usize
        ];
        let lease = Lease {
            tenant: tenant(),
            node: NODE.into(),
            slots,
            granted_ms: unix_ms(),
        };
        let Some(Answer::Lease { epoch }) = self.propose(Command::GrantLease { lease }).await
        else {
            anyhow::bail!("the executor gets no lease");
        };
        tracing::info!(executor = id, %epoch, "executor started");
        self.metrics.executors_started.inc();
        self.executor = Some(LiveExecutor {
            link,
            epoch,
            ready: false,
            running: BTreeMap::new(),
            stages: BTreeSet::new(),
            planning: BTreeSet::new(),
            publishing: BTreeSet::new(),
            describing: HashMap::new(),
            checking: HashMap::new(),
        });
        Ok(())
    }

    pub(super) async fn on_event(&mut self, event: ExecutorEvent) -> anyhow::Result<()> {
        let current = self.executor.as_ref().map(|executor| executor.link.id);
        match event {
            ExecutorEvent::Said(id, message) if current == Some(id) => {
                self.on_message(message).await
            }
            ExecutorEvent::Gone(id, how) if current == Some(id) => {
                self.on_executor_gone(&how).await
            }
            // An executor that was given up already: its lease has lapsed.
            ExecutorEvent::Said(..) | ExecutorEvent::Gone(..) => {}
        }
        Ok(())
    }

    /// The executor's lease lapses; what ran on it is the platform's loss, and starts again elsewhere.
    pub(super) async fn on_executor_gone(&mut self, how: &str) {
        let Some(lost) = self.executor.take() else {
            return;
        };
        self.metrics.executors_lost.inc();
        tracing::warn!(
            executor = lost.link.id,
            how,
            running = lost.running.len(),
            "executor lost"
        );
        let problem = || {
            Problem::new(
                ErrorCode::Internal,
                format!("the executor ended ({how}) while the task ran"),
            )
        };
        self.traces.executor_lost(&problem());
        let failure = |((task, attempt), _): (&(TaskId, u32), &u64)| {
            let failure = TaskFailure {
                stage: task.stage,
                task: task.task,
                attempt: *attempt,
                epoch: lost.epoch,
                problem: problem(),
                cancelled: false,
                usage: self.lost_attempt(task),
                log: None,
            };
            (task.job.clone(), failure)
        };
        let failures = lost.running.iter().map(failure).collect();
        self.suspects
            .extend(lost.running.keys().map(|(task, _)| task.clone()));
        self.propose(Command::ExecutorLost {
            epoch: lost.epoch,
            failures,
        })
        .await;
        for job in lost.planning.into_iter().chain(lost.publishing) {
            self.propose(Command::StepFailed {
                job,
                problem: problem(),
                usage: Vec::new(),
            })
            .await;
        }
        // Those who asked for a description or a check see their channel closed, and the client tries again.
        drop((lost.describing, lost.checking));
        self.stillborn = if lost.ready {
            0
        } else {
            (self.stillborn + 1).min(RESTART_DOUBLINGS_MAX)
        };
        self.restart_after_pause();
    }

    /// An attempt whose meters went with its executor.
    pub(super) fn lost_attempt(&self, task: &TaskId) -> Vec<FunctionUsage> {
        let name = |job: &Job| Some(job.plan()?.stages.get(task.stage as usize)?.name.clone());
        let stage = self.with_job(&task.job, name).flatten().unwrap_or_default();
        vec![FunctionUsage {
            stage,
            function: "-".into(),
            platform_attempts: 1,
            ..FunctionUsage::default()
        }]
    }

    pub(super) async fn on_message(&mut self, message: FromExecutor) {
        match message {
            FromExecutor::Ready { .. } => {
                if let Some(executor) = &mut self.executor {
                    executor.ready = true;
                }
            }
            FromExecutor::Described(reply) => {
                let waiting = self
                    .executor
                    .as_mut()
                    .and_then(|executor| executor.describing.remove(&reply.request));
                if let Some(waiting) = waiting {
                    // The client may have gone meanwhile.
                    let _ = waiting.send(reply.result);
                }
            }
            FromExecutor::Planned(reply) => {
                if let Some(executor) = &mut self.executor {
                    if let Some(waiting) = executor.checking.remove(&reply.job) {
                        // The client may have gone meanwhile.
                        let _ = waiting.to.send(reply);
                        return;
                    }
                    executor.planning.remove(&reply.job);
                }
                let problem = reply.result.as_ref().err();
                self.traces.step_answered(&reply.job, Step::Plan, problem);
                weft_failpoint::hit("planned");
                let command = match reply.result {
                    Ok(plan) => Command::JobPlanned {
                        job: reply.job,
                        plan,
                        usage: reply.usage,
                    },
                    Err(problem) => Command::StepFailed {
                        job: reply.job,
                        problem,
                        usage: reply.usage,
                    },
                };
                self.propose(command).await;
            }
            FromExecutor::Task(reply) => self.on_task(*reply).await,
            // The agent passes these on by itself.
            FromExecutor::Invoked(_)
            | FromExecutor::Output { .. }
            | FromExecutor::InputRead { .. } => {}
            FromExecutor::Published { job, result } => {
                if let Some(executor) = &mut self.executor {
                    executor.publishing.remove(&job);
                }
                let problem = result.as_ref().err();
                self.traces.step_answered(&job, Step::Publish, problem);
                weft_failpoint::hit("published");
                let command = match result {
                    Ok(outputs) => Command::JobPublished { job, outputs },
                    Err(problem) => Command::StepFailed {
                        job,
                        problem,
                        usage: Vec::new(),
                    },
                };
                self.propose(command).await;
            }
        }
    }
}
