//! OpenTelemetry traces of requests, jobs, tasks, calls and guests. Without a collector in the
//! environment, nothing is kept.
//!
//! ```text
//! POST /v1/jobs ── job ─┬─ plan
//!                       ├─ task ── execute ── guest …
//!                       └─ publish
//! POST /v1/invoke/… ── invoke ── execute ── guest
//! ```
//!
//! `task` and `invoke` last from sending work to the executor until its answer; `execute` and
//! `guest` are times that the executor reports, because it has no network. A client's `traceparent`
//! is carried on. A server that ends forgets its jobs' traces: the rest of a job is a trace of its
//! own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use hyper::http::HeaderMap;
use weft_control::{Job, JobState, Outcome, Step};
use weft_core::{JobId, Problem, TaskId, lock};
use weft_protocol::{GuestTook, InvokeReply, TaskReply, Took};
use weft_telemetry::trace::{
    Context, KeyValue, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _,
};
use weft_telemetry::{Exporter, remote_parent};

/// Name of the server in traces, unless the environment gives it another one.
const SERVICE: &str = "weft";

/// Makes spans and sends them to the collector, if there is one.
pub(crate) struct Traces {
    on: Option<On>,
}

struct On {
    exporter: Exporter,
    /// The requests that submitted jobs, until the scheduler takes the jobs on.
    submitted: Mutex<HashMap<JobId, SpanContext>>,
}

/// The span of a request, for what it leads to. In the extensions of every request.
#[derive(Clone, Default)]
pub(crate) struct RequestTrace(Option<Context>);

/// A job that is being submitted. Its request is forgotten when this is dropped before the job is
/// accepted.
pub(crate) struct Submitted<'a> {
    traces: &'a Traces,
    job: JobId,
    pub(crate) accepted: bool,
}

impl Drop for Submitted<'_> {
    fn drop(&mut self) {
        if !self.accepted
            && let Some(on) = &self.traces.on
        {
            on.submitted().remove(&self.job);
        }
    }
}

impl Traces {
    /// No collector.
    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Self { on: None }
    }

    /// As the environment says. To be called in a runtime.
    ///
    /// Errors: a collector that cannot be reached over plain HTTP.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let exporter = Exporter::from_environment(SERVICE)?;
        let on = exporter.map(|exporter| On {
            exporter,
            submitted: Mutex::default(),
        });
        Ok(Self { on })
    }

    /// Sends what has not been sent yet.
    pub(crate) fn flush(&self) {
        if let Some(on) = &self.on {
            on.exporter.flush();
        }
    }

    /// Whether there is a collector.
    pub(crate) fn are_on(&self) -> bool {
        self.on.is_some()
    }

    /// A request has come.
    pub(crate) fn request(&self, method: &str, route: &str, headers: &HeaderMap) -> RequestTrace {
        let Some(on) = &self.on else {
            return RequestTrace(None);
        };
        let span = SpanBuilder::from_name(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("http.route", route.to_owned()),
            ]);
        RequestTrace(Some(on.exporter.start(span, &remote_parent(headers))))
    }

    /// A request's answer goes out.
    pub(crate) fn answered(&self, request: &RequestTrace, status: u16) {
        let Some(context) = &request.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new(
            "http.response.status_code",
            i64::from(status),
        ));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// A request submits a job.
    pub(crate) fn submitted(&self, job: &JobId, request: &RequestTrace) -> Submitted<'_> {
        if let (Some(on), Some(context)) = (&self.on, &request.0) {
            let span = context.span().span_context().clone();
            on.submitted().insert(job.clone(), span);
        }
        Submitted {
            traces: self,
            job: job.clone(),
            accepted: false,
        }
    }

    /// A function is called. The span ends when the context is dropped.
    pub(crate) fn call(&self, label: &str, request: &RequestTrace) -> RequestTrace {
        let (Some(on), Some(context)) = (&self.on, &request.0) else {
            return RequestTrace(None);
        };
        let span = SpanBuilder::from_name("invoke")
            .with_attributes([KeyValue::new("weft.function", label.to_owned())]);
        RequestTrace(Some(on.exporter.start(span, context)))
    }

    /// A call has ended: an executor answered, or why not.
    pub(crate) fn called(&self, call: &RequestTrace, reply: Result<&InvokeReply, &Problem>) {
        let (Some(on), Some(context)) = (&self.on, &call.0) else {
            return;
        };
        if let Ok(reply) = reply {
            on.executed(context, &took(reply));
        }
        end(context, reply.and_then(|reply| reply.result.as_ref()).err());
    }
}

impl On {
    fn submitted(&self) -> MutexGuard<'_, HashMap<JobId, SpanContext>> {
        lock(&self.submitted)
    }

    /// Records the times that an executor reports.
    fn executed(&self, parent: &Context, took: &Took) {
        // Nothing was executed: the attempt was refused.
        if took.began_ns == 0 {
            return;
        }
        let at = |ns| UNIX_EPOCH + Duration::from_nanos(ns);
        let span = SpanBuilder::from_name("execute").with_start_time(at(took.began_ns));
        let execute = self.exporter.start(span, parent);
        for guest in &took.guests {
            let span = SpanBuilder::from_name("guest")
                .with_start_time(at(guest.began_ns))
                .with_attributes([KeyValue::new("weft.function", guest.function.clone())]);
            let context = self.exporter.start(span, &execute);
            context.span().end_with_timestamp(at(guest.ended_ns));
        }
        execute.span().end_with_timestamp(at(took.ended_ns));
    }
}

/// A call is one guest, from beginning to end.
fn took(reply: &InvokeReply) -> Took {
    let (began_ns, ended_ns) = (reply.began_ns, reply.began_ns + reply.meters.wall_ns);
    let guest = GuestTook {
        function: reply.label.clone(),
        began_ns,
        ended_ns,
    };
    Took {
        began_ns,
        ended_ns,
        guests: vec![guest],
    }
}

fn end(context: &Context, problem: Option<&Problem>) {
    let span = context.span();
    if let Some(problem) = problem {
        span.set_status(Status::error(problem.detail.clone()));
    }
    span.end();
}

/// Name of a step's span.
fn name(step: Step) -> &'static str {
    match step {
        Step::Plan => "plan",
        Step::Publish => "publish",
    }
}

/// The spans of jobs that have not ended, and of their steps and tasks that the executor has. Empty
/// without a collector.
pub(crate) struct JobTraces {
    traces: Arc<Traces>,
    jobs: HashMap<JobId, Context>,
    steps: BTreeMap<(JobId, Step), Context>,
    tasks: BTreeMap<(TaskId, u32), Context>,
}

impl JobTraces {
    pub(crate) fn new(traces: Arc<Traces>) -> Self {
        Self {
            traces,
            jobs: HashMap::new(),
            steps: BTreeMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    /// The job's span, as the parent of its others. It starts with the first of them.
    fn of_job(&mut self, job: &JobId) -> Option<(&On, &Context)> {
        let on = self.traces.on.as_ref()?;
        let context = self.jobs.entry(job.clone()).or_insert_with(|| {
            let request = on.submitted().remove(job);
            let parent = request.map_or_else(Context::new, |request| {
                Context::new().with_remote_span_context(request)
            });
            let span = SpanBuilder::from_name("job")
                .with_attributes([KeyValue::new("weft.job.id", job.to_string())]);
            on.exporter.start(span, &parent)
        });
        Some((on, context))
    }

    /// A step goes to the executor.
    pub(crate) fn step_sent(&mut self, job: &JobId, step: Step) {
        let Some((on, context)) = self.of_job(job) else {
            return;
        };
        let span = on
            .exporter
            .start(SpanBuilder::from_name(name(step)), context);
        self.steps.insert((job.clone(), step), span);
    }

    /// The executor has answered.
    pub(crate) fn step_answered(&mut self, job: &JobId, step: Step, problem: Option<&Problem>) {
        if let Some(context) = self.steps.remove(&(job.clone(), step)) {
            end(&context, problem);
        }
    }

    /// An attempt goes to the executor.
    pub(crate) fn task_sent(&mut self, id: &TaskId, attempt: u32) {
        let Some((on, context)) = self.of_job(&id.job) else {
            return;
        };
        let span = SpanBuilder::from_name("task").with_attributes([
            KeyValue::new("weft.stage.position", i64::from(id.stage)),
            KeyValue::new("weft.task", i64::from(id.task)),
            KeyValue::new("weft.attempt", i64::from(attempt)),
        ]);
        let span = on.exporter.start(span, context);
        self.tasks.insert((id.clone(), attempt), span);
    }

    /// The executor has answered.
    pub(crate) fn task_answered(&mut self, id: &TaskId, attempt: u32, reply: &TaskReply) {
        if let Some(on) = &self.traces.on
            && let Some(context) = self.tasks.remove(&(id.clone(), attempt))
        {
            on.executed(&context, &reply.took);
            end(
                &context,
                reply.result.as_ref().err().map(|failure| &failure.problem),
            );
        }
    }

    /// An executor is gone, with these steps and attempts.
    pub(crate) fn lost(
        &mut self,
        steps: impl Iterator<Item = (JobId, Step)>,
        attempts: impl Iterator<Item = (TaskId, u32)>,
        problem: &Problem,
    ) {
        let steps = steps.filter_map(|step| self.steps.remove(&step));
        let tasks = attempts.filter_map(|attempt| self.tasks.remove(&attempt));
        for context in steps.chain(tasks) {
            end(&context, Some(problem));
        }
    }

    /// A job has ended, and nothing of it runs any more.
    pub(crate) fn job_ended(&mut self, job: &Job) {
        // It may have ended before its first step.
        let is_unseen = |on: &On| on.submitted().contains_key(&job.id);
        if self.traces.on.as_ref().is_some_and(is_unseen) {
            self.of_job(&job.id);
        }
        let Some(context) = self.jobs.remove(&job.id) else {
            return;
        };
        let name = job.spec.name.clone();
        context
            .span()
            .set_attribute(KeyValue::new("weft.job.name", name));
        let ending = match &job.state {
            JobState::Ending(ending) if ending.outcome != Outcome::Succeeded => Some(ending),
            _ => None,
        };
        end(&context, ending.and_then(|ending| ending.problem.as_ref()));
    }
}
