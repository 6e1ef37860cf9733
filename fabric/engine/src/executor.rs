//! What an executor process holds: the engine, loaded components, and the plans of the stages that it works on.

mod boxed;
mod components;
mod invocations;
mod stages;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weft_core::{Digest, ErrorCode, JobId, LimitKind, Problem};
use weft_protocol::{
    DescribeReply, InvokeReply, InvokeRequest, PlanReply, PlanRequest, PublishRequest,
    PublishedOutput, RowsOf, RowsRequest, StageContext, TaskFailure, TaskReply, TaskRequest, Took,
};
use weft_sandbox::{Component, Engine, Expressions, Futures};
use weft_sql::Session;
use weft_store::{Blobs, FileCache};

use self::components::Components;
use self::invocations::Invocations;
use self::stages::{Found, Stages};
use crate::describe::describe;
use crate::expressions::NativeExpressions;
use crate::invoke::{invoke, refused};
use crate::listing;
use crate::output_files::OutputFiles;
use crate::planner::{Directive, Planner};
use crate::requests::of_planning;
use crate::rows::Rows;
use crate::schema;
use crate::stream::{Outbox, Outgoing, StreamCall};
use crate::task::TaskRun;

/// Planning of one job.
const PLAN_WALL_MAX: Duration = Duration::from_secs(120);

/// One executor. Clones share it; each slot's thread has one.
#[derive(Clone)]
pub struct Executor {
    blobs: Blobs,
    spill_folder: PathBuf,
    components: Arc<Components>,
    invocations: Arc<Invocations>,
    stages: Arc<Stages>,
    session: Session,
    expressions: Arc<dyn Expressions>,
}

impl Executor {
    /// `compatibility` names the artefacts of this engine; what is spilled goes to unnamed files in `spill_folder`.
    pub fn new(
        engine: Engine,
        files: FileCache,
        compatibility: String,
        spill_folder: PathBuf,
    ) -> Self {
        let blobs = files.blobs().clone();
        let session = Session::new();
        Self {
            components: Arc::new(Components::new(engine, files, compatibility)),
            invocations: Arc::default(),
            stages: Arc::new(Stages::new(blobs.clone())),
            blobs,
            spill_folder,
            expressions: NativeExpressions::shared(&session),
            session,
        }
    }

    /// Has a component, whose artefact has the digest `artefact`, describe itself.
    async fn describe_function(
        &self,
        request: u64,
        digest: &Digest,
        artefact: &Digest,
    ) -> DescribeReply {
        let result = match self.components.get(digest, artefact).await {
            Ok(component) => describe(&component).await,
            Err(problem) => Err(problem),
        };
        DescribeReply { request, result }
    }

    /// Calls a function once; the second part of the answer is its output.
    async fn invoke_function(
        &self,
        request: &InvokeRequest,
        input: &[u8],
        futures: Option<Box<dyn Futures>>,
    ) -> (InvokeReply, Vec<u8>) {
        let cancel = self.invocations.cancel(request.request);
        let answer = self
            .invoke_unless(request, input, cancel.unwrap_or_default(), futures)
            .await;
        self.invocations.forget(request.request);
        answer
    }

    async fn invoke_unless(
        &self,
        request: &InvokeRequest,
        input: &[u8],
        cancel: CancellationToken,
        futures: Option<Box<dyn Futures>>,
    ) -> (InvokeReply, Vec<u8>) {
        if cancel.is_cancelled() {
            let problem =
                Problem::new(ErrorCode::Internal, "the call was given up before it began");
            return refused(request, problem);
        }
        let component = match self.invoked(request).await {
            Ok(component) => component,
            Err(problem) => return refused(request, problem),
        };
        let expressions = &self.expressions;
        invoke(&component, request, input, cancel, expressions, futures).await
    }

    /// Returns a component, loaded once, from the artefact of this digest.
    ///
    /// Errors: `Internal` if the artefact is not there, or not the one that is meant.
    pub async fn component(
        &self,
        digest: &Digest,
        artefact: &Digest,
    ) -> Result<Arc<Component>, Problem> {
        self.components.get(digest, artefact).await
    }

    /// Returns what compiles the expressions of guests.
    pub fn expressions(&self) -> Arc<dyn Expressions> {
        Arc::clone(&self.expressions)
    }

    /// The component that an invocation enters.
    async fn invoked(&self, request: &InvokeRequest) -> Result<Arc<Component>, Problem> {
        self.component(&request.digest, &request.artefact).await
    }

    /// Takes note of an invocation that is about to wait for a slot, so that it can be given up from now on.
    pub fn expect(&self, request: u64) {
        self.invocations.expect(request);
    }

    /// Stops an invocation that nobody waits for any more, whether it runs or still waits.
    pub fn abandon(&self, request: u64) {
        self.invocations.abandon(request);
    }

    /// Takes note of an invocation that streams and is about to start, so that its input can come from now on.
    pub fn expect_stream(&self, request: u64) {
        self.invocations.expect_stream(request);
    }

    /// Input of an invocation that streams; an empty piece is the end.
    pub fn input(&self, request: u64, piece: Vec<u8>) {
        if let Some(pipe) = self.invocations.pipe(request) {
            pipe.input(piece);
        }
    }

    /// The client of an invocation that streams has taken output.
    pub fn output_taken(&self, request: u64, bytes: usize) {
        if let Some(pipe) = self.invocations.pipe(request) {
            pipe.taken(bytes);
        }
    }

    /// Runs an invocation that streams, on a thread of its own, which may wait.
    async fn stream_function(&self, request: &InvokeRequest, outbox: Outbox) -> InvokeReply {
        let reply = self.stream_unless(request, outbox).await;
        self.invocations.forget(request.request);
        reply
    }

    /// The answer to an invocation that has not got a thread.
    pub fn refuse(&self, request: &InvokeRequest, problem: Problem) -> InvokeReply {
        self.invocations.forget(request.request);
        refused(request, problem).0
    }

    async fn stream_unless(&self, request: &InvokeRequest, outbox: Outbox) -> InvokeReply {
        let cancel = self.invocations.cancel(request.request);
        let pipe = self.invocations.pipe(request.request);
        let (Some(cancel), Some(pipe), Some(formats)) = (cancel, pipe, &request.stream) else {
            let problem = Problem::new(ErrorCode::Internal, "the call was not expected to stream");
            return refused(request, problem).0;
        };
        let component = match self.invoked(request).await {
            Ok(component) => component,
            Err(problem) => return refused(request, problem).0,
        };
        let call = StreamCall {
            component: &component,
            request,
            formats,
            pipe,
            cancel,
            outbox,
            expressions: &self.expressions,
        };
        call.run().await
    }

    /// Takes note of rows that are about to be sent, so that their client can take them from now on.
    pub fn expect_rows(&self, request: u64) {
        self.invocations.expect_stream(request);
    }

    /// Forgets rows that have not got a thread.
    pub fn forget_rows(&self, request: u64) {
        self.invocations.forget(request);
    }

    /// Sends rows, on a thread of its own, which may wait for the client.
    async fn send_rows(&self, request: &RowsRequest, outbox: Outbox) -> Result<(), Problem> {
        let number = request.request;
        let sent = match self.invocations.pipe(number) {
            Some(pipe) => {
                self.send(request, Outgoing::new(pipe, number, outbox))
                    .await
            }
            None => {
                let detail = "the rows were not expected to be sent";
                Err(Problem::new(ErrorCode::Internal, detail))
            }
        };
        self.invocations.forget(number);
        sent
    }

    async fn send(&self, request: &RowsRequest, out: Outgoing) -> Result<(), Problem> {
        let format = request.format;
        match &request.of {
            RowsOf::Listing(listing) => listing::send(listing, format, out).await,
            RowsOf::Output(wanted) => {
                let place = self.blobs.output_place(&wanted.job, &wanted.output);
                let place = place.map_err(|error| error.problem())?;
                let rows = Rows {
                    wanted,
                    format,
                    files: OutputFiles::new(place, &self.spill_folder)?,
                    out,
                };
                rows.send().await
            }
        }
    }

    /// Takes note of a job whose planning is about to wait for a slot, so that it can be given up from now on.
    pub fn expect_plan(&self, job: &JobId) {
        self.stages.expect_plan(job);
    }

    /// Plans a job.
    async fn plan_job(&self, request: &PlanRequest) -> PlanReply {
        let reply = self.plan_unless_given_up(request).await;
        self.stages.planned(&request.job);
        reply
    }

    async fn plan_unless_given_up(&self, request: &PlanRequest) -> PlanReply {
        let refused = |problem: Problem| PlanReply {
            job: request.job.clone(),
            result: Err(problem),
            statement: None,
            columns: Vec::new(),
            texts: Vec::new(),
            usage: Vec::new(),
        };
        let digests = request.functions.iter().map(|function| &function.digest);
        let components = match self.components.all(digests, &request.artefacts).await {
            Ok(components) => components,
            Err(problem) => return refused(problem),
        };
        let directive = match Directive::of(request, &self.session, &self.blobs).await {
            Ok(directive) => directive,
            Err(problem) => return refused(problem),
        };
        let request = directive.as_ref().map_or(request, Directive::request);
        let cancel = self.stages.planning(&request.job).unwrap_or_default();
        let blobs = self.blobs.metered();
        let mut planner = Planner::new(request, &blobs, components, &self.session, cancel);
        let planned =
            tokio::time::timeout(PLAN_WALL_MAX, planner.plan_job(directive.as_ref())).await;
        let result = planned.unwrap_or_else(|_| {
            let value = format!("{} s", PLAN_WALL_MAX.as_secs());
            let detail = format!(
                "planning the job took longer than {value}: give `bind` less to do, or the job fewer files or stages"
            );
            Err(Problem::new(ErrorCode::LimitExceeded, detail).of_limit(LimitKind::Wall, value))
        });
        let (result, statement) = match result {
            Ok((plan, statement)) => (Ok(plan), statement),
            Err(problem) => (Err(problem), None),
        };
        PlanReply {
            job: request.job.clone(),
            result,
            statement,
            columns: planner.columns,
            texts: planner.texts,
            usage: planner
                .usage
                .into_iter()
                .chain(of_planning(&blobs))
                .collect(),
        }
    }

    /// Takes note of a stage whose tasks are about to come.
    pub fn open_stage(&self, context: StageContext) {
        self.stages.open(context);
    }

    /// Stops what runs of a job, and forgets it, with the copies of its shuffle objects that the node keeps.
    pub fn forget(&self, job: &JobId) {
        self.stages.forget(job);
        if let Some(tier) = self.blobs.tier() {
            let (tier, job) = (tier.clone(), job.clone());
            // Not waited for: what is left would go in time.
            drop(tokio::task::spawn_blocking(move || tier.forget_job(&job)));
        }
    }

    /// Runs one attempt on the calling thread.
    async fn run_task(&self, request: TaskRequest) -> TaskReply {
        let Some(found) = self.stages.find(&request.id) else {
            // The stage came before the task, so the job has ended since.
            let detail = "the job ended before the task began";
            return failed(&request, Problem::new(ErrorCode::Internal, detail), true);
        };
        match self.prepare(&request, found).await {
            Ok(run) => run.run().await,
            Err(problem) => failed(&request, problem, false),
        }
    }

    async fn prepare(&self, request: &TaskRequest, found: Found) -> Result<TaskRun, Problem> {
        let Found {
            stage,
            reader,
            cancel,
        } = found;
        let plan = self.stages.plan_of(&stage).await?;
        let context = Arc::clone(&stage.context);
        let digests = stages::components(&plan);
        let components = self.components.all(digests, &context.artefacts).await?;
        let blobs = self.blobs.metered();
        Ok(TaskRun {
            request: request.clone(),
            plan,
            context,
            components,
            reader: reader.with_blobs(&blobs),
            blobs,
            spill_folder: self.spill_folder.clone(),
            cancel,
            session: self.session.clone(),
            expressions: Arc::clone(&self.expressions),
        })
    }

    /// Makes the files of a job's outputs visible.
    async fn publish_outputs(
        &self,
        request: PublishRequest,
    ) -> Result<Vec<PublishedOutput>, Problem> {
        let mut schemas = HashMap::new();
        for key in &request.plans {
            for sink in self.stages.read_plan(key).await?.sinks {
                schemas.insert(sink.output, schema::texts(&sink.schema));
            }
        }
        let mut published = Vec::new();
        for mut output in request.outputs {
            output.schema = schemas.remove(&output.name).unwrap_or_default();
            let place = match output.is_kept {
                true => self.blobs.kept_place(&request.job, &output.name),
                false => self.blobs.place_of(&output.folder),
            };
            let place = place.map_err(|error| error.problem())?;
            if output.is_kept {
                output.folder = place.to_string();
            }
            let one = place.publish(&self.blobs, &request.job, &output).await;
            published.push(one.map_err(|error| error.problem())?);
        }
        Ok(published)
    }
}

/// The reply of an attempt that never began.
fn failed(request: &TaskRequest, problem: Problem, cancelled: bool) -> TaskReply {
    let failure = TaskFailure {
        stage: request.id.stage,
        task: request.id.task,
        attempt: request.attempt,
        epoch: request.epoch,
        sequence: request.sequence,
        problem,
        cancelled,
        lost: None,
        usage: Vec::new(),
        log: None,
    };
    TaskReply {
        job: request.id.job.clone(),
        result: Err(failure),
        took: Took::default(),
    }
}

#[cfg(test)]
mod tests;
