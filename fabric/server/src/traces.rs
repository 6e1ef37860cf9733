//! OpenTelemetry traces of requests, jobs, tasks, calls and guests, where the environment names a collector; else nothing is kept.
//!
//! ```text
//! POST /v1/jobs ── job ─┬─ plan
//!                       ├─ task ── execute ── guest …
//!                       └─ publish
//! POST /v1/invoke/… ── invoke ── execute ── guest
//! ```
//!
//! `task` and `invoke` are what waits for the executor and hears from it; `execute` and `guest` are what the executor tells of itself: it has no network.
//! A client's `traceparent` is carried on. What a server that ends knew of a job's trace goes with it: the rest of the job is a trace of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::http::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use weft_control::{Job, JobState, Outcome};
use weft_core::{JobId, Problem, TaskId};
use weft_engine::{GuestTook, InvokeReply, TaskReply, Took};

/// What turns traces on: where the collector listens, for traces alone or for all that OpenTelemetry exports. The first one counts.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// How long the collector may take for a batch of spans, each time that it is sent.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a collector's answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long the last spans may take when the server stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes spans and sends them to the collector, if there is one.
pub(crate) struct Traces {
    on: Option<On>,
}

struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// The requests that submitted jobs, until the scheduler takes the jobs on.
    submitted: Mutex<HashMap<JobId, SpanContext>>,
}

/// The span of a request, for what it leads to. In the extensions of every request.
#[derive(Clone, Default)]
pub(crate) struct RequestTrace(Option<Context>);

/// A job that is being submitted. Where it is none, or nobody hears whether it is one, its request is forgotten.
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
    /// As the environment says. To be called in a runtime.
    ///
    /// Errors: a collector that cannot be reached over plain HTTP.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let disabled = std::env::var("OTEL_SDK_DISABLED");
        let disabled = disabled.is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        let Some(name) = ENDPOINTS
            .iter()
            .find(|name| set(name))
            .filter(|_| !disabled)
        else {
            return Ok(Self { on: None });
        };
        let endpoint = std::env::var(name)?;
        if !endpoint.starts_with("http://") {
            bail!(
                "`{name}` is `{endpoint}`: traces are sent over `http://` alone; run a collector beside the server that forwards them"
            );
        }
        let exporter = SpanExporter::builder().with_http();
        let exporter = exporter.with_http_client(Collector::new()).build();
        let exporter =
            exporter.with_context(|| format!("traces cannot be sent to `{endpoint}`"))?;
        let resource = Resource::builder_empty()
            .with_service_name("weft")
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_detector(Box::new(EnvResourceDetector::new()));
        let resource = match std::env::var("OTEL_SERVICE_NAME") {
            Ok(name) if !name.is_empty() => resource.with_service_name(name),
            _ => resource,
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        tracing::info!(endpoint, "traces are sent");
        Ok(Self {
            on: Some(On {
                tracer: provider.tracer("weft"),
                provider,
                submitted: Mutex::default(),
            }),
        })
    }

    /// Sends what has not been sent yet.
    pub(crate) fn flush(&self) {
        if let Some(on) = &self.on
            && let Err(error) = on.provider.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans could not be sent");
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
        let parent = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let span = SpanBuilder::from_name(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("http.route", route.to_owned()),
            ]);
        RequestTrace(Some(on.start(span, &parent)))
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
        RequestTrace(Some(on.start(span, context)))
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
        self.submitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, span: SpanBuilder, parent: &Context) -> Context {
        parent.with_span(self.tracer.build_with_context(span, parent))
    }

    /// What an executor tells of itself.
    fn executed(&self, parent: &Context, took: &Took) {
        // Nothing was executed: the attempt was refused.
        if took.began_ns == 0 {
            return;
        }
        let at = |ns| UNIX_EPOCH + Duration::from_nanos(ns);
        let span = SpanBuilder::from_name("execute").with_start_time(at(took.began_ns));
        let execute = self.start(span, parent);
        for guest in &took.guests {
            let span = SpanBuilder::from_name("guest")
                .with_start_time(at(guest.began_ns))
                .with_attributes([KeyValue::new("weft.function", guest.function.clone())]);
            let context = self.start(span, &execute);
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

/// What a job does beside its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Plan,
    Publish,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Publish => "publish",
        }
    }
}

/// The spans of jobs that have not ended, and of what of them is with the executor. Empty where there is no collector.
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

    /// Where spans of the job belong; its own begins with the first of them.
    fn of_job(&mut self, job: &JobId) -> Option<(&On, &Context)> {
        let on = self.traces.on.as_ref()?;
        let context = self.jobs.entry(job.clone()).or_insert_with(|| {
            let request = on.submitted().remove(job);
            let parent = request.map_or_else(Context::new, |request| {
                Context::new().with_remote_span_context(request)
            });
            let span = SpanBuilder::from_name("job")
                .with_attributes([KeyValue::new("weft.job.id", job.to_string())]);
            on.start(span, &parent)
        });
        Some((on, context))
    }

    /// A step goes to the executor.
    pub(crate) fn step_sent(&mut self, job: &JobId, step: Step) {
        let Some((on, context)) = self.of_job(job) else {
            return;
        };
        let span = on.start(SpanBuilder::from_name(step.name()), context);
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
        let span = on.start(span, context);
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

    /// The executor is gone, with all that was sent to it.
    pub(crate) fn executor_lost(&mut self, problem: &Problem) {
        let steps = std::mem::take(&mut self.steps).into_values();
        let tasks = std::mem::take(&mut self.tasks).into_values();
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

/// Sends spans, from whichever thread, through the server's runtime.
#[derive(Debug)]
struct Collector {
    runtime: Handle,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Collector {
    fn new() -> Self {
        Self {
            runtime: Handle::current(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let whole = async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
        };
        // The one who asks has no runtime of its own, and so no timer.
        let in_time = async { tokio::time::timeout(EXPORT_TIMEOUT, whole).await };
        let sending = self.runtime.spawn(in_time);
        sending.await??
    }
}
