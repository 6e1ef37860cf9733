//! What an executor process holds: the engine, loaded components, and the plans of the stages that it works on.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weft_core::{Digest, ErrorCode, JobId, LimitKind, Problem};
use weft_protocol::{ObjectRef, PublishedOutput};
use weft_sandbox::{Component, Engine};
use weft_shuffle::ObjectReader;
use weft_store::Blobs;

use crate::describe::describe;
use crate::invoke::{invoke, refused};
use crate::plan::{NodeWork, Source, StagePlan};
use crate::planner::Planner;
use crate::schema;
use crate::stream::{Outbox, Pipe, StreamCall};
use crate::task::TaskRun;
use weft_protocol::artefact_key;
use weft_protocol::{
    DescribeReply, InvokeReply, InvokeRequest, PlanReply, PlanRequest, PublishRequest,
    StageContext, TaskReply, TaskRequest, Took,
};

/// Planning of one job.
const PLAN_WALL_MAX: Duration = Duration::from_secs(120);
/// Bytes of artefacts that stay loaded, which are mapped files; the least recently used go first.
const LOADED_BYTES_MAX: u64 = 2 << 30;
/// Components that stay loaded, however small: each is an open file and some mappings.
const LOADED_MAX: usize = 256;

struct Stage {
    context: StageContext,
    plan: Mutex<Option<Arc<StagePlan>>>,
    inputs: Arc<Vec<Option<ObjectRef>>>,
}

struct Job {
    stages: BTreeMap<u32, Arc<Stage>>,
    reader: ObjectReader,
    cancel: CancellationToken,
}

/// A component that calls can start from at once.
struct Loaded {
    component: Arc<Component>,
    bytes: u64,
    /// The tick of its last use.
    used: u64,
}

#[derive(Default)]
struct Held {
    components: HashMap<Digest, Loaded>,
    loaded_bytes: u64,
    uses: u64,
    /// What stops invocations, those that wait for a slot included.
    invocations: HashMap<u64, CancellationToken>,
    /// The other ends of those that stream.
    streams: HashMap<u64, Arc<Pipe>>,
    /// What stops the planning of a job.
    planning: HashMap<JobId, CancellationToken>,
    jobs: BTreeMap<JobId, Job>,
}

impl Held {
    /// Takes a component in; others go where they are too many or too large. What runs keeps its own hold on what goes.
    fn load(&mut self, digest: Digest, component: Arc<Component>, bytes: u64) {
        self.uses += 1;
        let loaded = Loaded {
            component,
            bytes,
            used: self.uses,
        };
        self.loaded_bytes += bytes;
        if let Some(before) = self.components.insert(digest, loaded) {
            self.loaded_bytes -= before.bytes;
        }
        while self.components.len() > LOADED_MAX || self.loaded_bytes > LOADED_BYTES_MAX {
            let by_use = self.components.iter().min_by_key(|(_, one)| one.used);
            let Some(oldest) = by_use.map(|(digest, _)| digest.clone()) else {
                return;
            };
            if self.components.len() == 1 {
                return;
            }
            let gone = self.components.remove(&oldest);
            self.loaded_bytes -= gone.map_or(0, |gone| gone.bytes);
        }
    }
}

/// One executor. Clones share it; each slot's thread has one.
#[derive(Clone)]
pub struct Executor {
    engine: Engine,
    blobs: Blobs,
    compatibility: String,
    spill_folder: PathBuf,
    held: Arc<Mutex<Held>>,
}

impl Executor {
    /// `compatibility` names the artefacts of this engine; what is spilled goes to unnamed files in `spill_folder`.
    pub fn new(engine: Engine, blobs: Blobs, compatibility: String, spill_folder: PathBuf) -> Self {
        Self {
            engine,
            blobs,
            compatibility,
            spill_folder,
            held: Arc::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The component, loaded once. Two threads that ask at once may both map it, which costs little; one of the two stays.
    fn component(&self, digest: &Digest) -> Result<Arc<Component>, Problem> {
        let mut held = self.held();
        held.uses += 1;
        let now = held.uses;
        if let Some(loaded) = held.components.get_mut(digest) {
            loaded.used = now;
            return Ok(Arc::clone(&loaded.component));
        }
        drop(held);
        let path = self
            .blobs
            .local_path(&artefact_key(digest, &self.compatibility));
        let component = Component::load(&self.engine, &path)
            .map_err(|fault| Problem::new(ErrorCode::Internal, fault.to_string()))?;
        let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        self.held()
            .load(digest.clone(), Arc::clone(&component), bytes);
        Ok(component)
    }

    /// Has a component describe itself.
    pub async fn describe(&self, request: u64, digest: &Digest) -> DescribeReply {
        let result = match self.component(digest) {
            Ok(component) => describe(&component).await,
            Err(problem) => Err(problem),
        };
        DescribeReply { request, result }
    }

    /// Calls a function once; the second part of the answer is its output.
    pub async fn invoke(&self, request: &InvokeRequest, input: &[u8]) -> (InvokeReply, Vec<u8>) {
        let cancel = self.held().invocations.get(&request.request).cloned();
        let answer = self
            .invoke_unless(request, input, cancel.unwrap_or_default())
            .await;
        self.held().invocations.remove(&request.request);
        answer
    }

    async fn invoke_unless(
        &self,
        request: &InvokeRequest,
        input: &[u8],
        cancel: CancellationToken,
    ) -> (InvokeReply, Vec<u8>) {
        if cancel.is_cancelled() {
            let problem =
                Problem::new(ErrorCode::Internal, "the call was given up before it began");
            return refused(request, problem);
        }
        let component = match self.component(&request.digest) {
            Ok(component) => component,
            Err(problem) => return refused(request, problem),
        };
        invoke(&component, request, input, cancel).await
    }

    /// Takes note of an invocation that is about to wait for a slot, so that it can be given up from now on.
    pub fn expect(&self, request: u64) {
        self.held()
            .invocations
            .insert(request, CancellationToken::new());
    }

    /// Stops an invocation that nobody waits for any more, whether it runs or still waits.
    pub fn abandon(&self, request: u64) {
        let held = self.held();
        if let Some(cancel) = held.invocations.get(&request) {
            cancel.cancel();
        }
        if let Some(pipe) = held.streams.get(&request) {
            pipe.close();
        }
    }

    /// Takes note of an invocation that streams and is about to start, so that its input can come from now on.
    pub fn expect_stream(&self, request: u64) {
        self.expect(request);
        self.held().streams.insert(request, Pipe::new());
    }

    /// Input of an invocation that streams; an empty piece is the end.
    pub fn input(&self, request: u64, piece: Vec<u8>) {
        if let Some(pipe) = self.held().streams.get(&request) {
            pipe.input(piece);
        }
    }

    /// The client of an invocation that streams has taken output.
    pub fn output_taken(&self, request: u64, bytes: usize) {
        if let Some(pipe) = self.held().streams.get(&request) {
            pipe.taken(bytes);
        }
    }

    /// Runs an invocation that streams, on a thread of its own, which may wait.
    pub async fn stream(&self, request: &InvokeRequest, outbox: Outbox) -> InvokeReply {
        let reply = self.stream_unless(request, outbox).await;
        self.forget_stream(request.request);
        reply
    }

    /// The answer to an invocation that streams and has not got a thread.
    pub fn refuse_stream(&self, request: &InvokeRequest, problem: Problem) -> InvokeReply {
        self.forget_stream(request.request);
        refused(request, problem).0
    }

    fn forget_stream(&self, request: u64) {
        let mut held = self.held();
        held.invocations.remove(&request);
        held.streams.remove(&request);
    }

    async fn stream_unless(&self, request: &InvokeRequest, outbox: Outbox) -> InvokeReply {
        let (cancel, pipe) = {
            let held = self.held();
            let cancel = held.invocations.get(&request.request).cloned();
            (cancel, held.streams.get(&request.request).cloned())
        };
        let (Some(cancel), Some(pipe), Some(formats)) = (cancel, pipe, &request.stream) else {
            let problem = Problem::new(ErrorCode::Internal, "the call was not expected to stream");
            return refused(request, problem).0;
        };
        let component = match self.component(&request.digest) {
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
        };
        call.run().await
    }

    /// Takes note of a job whose planning is about to wait for a slot, so that it can be given up from now on.
    pub fn expect_plan(&self, job: &JobId) {
        self.held()
            .planning
            .insert(job.clone(), CancellationToken::new());
    }

    /// Plans a job.
    pub async fn plan(&self, request: &PlanRequest) -> PlanReply {
        let reply = self.plan_unless_given_up(request).await;
        self.held().planning.remove(&request.job);
        reply
    }

    async fn plan_unless_given_up(&self, request: &PlanRequest) -> PlanReply {
        let mut components = HashMap::new();
        for function in &request.functions {
            match self.component(&function.digest) {
                Ok(component) => components.insert(function.digest.clone(), component),
                Err(problem) => {
                    return PlanReply {
                        job: request.job.clone(),
                        result: Err(problem),
                        columns: Vec::new(),
                        usage: Vec::new(),
                    };
                }
            };
        }
        let cancel = self.held().planning.get(&request.job).cloned();
        let cancel = cancel.unwrap_or_default();
        let mut planner = Planner::new(request, &self.blobs, components, cancel);
        let planned = tokio::time::timeout(PLAN_WALL_MAX, planner.plan()).await;
        let result = planned.unwrap_or_else(|_| {
            let value = format!("{} s", PLAN_WALL_MAX.as_secs());
            let detail = format!(
                "planning the job took longer than {value}: give `bind` less to do, or the job fewer files or stages"
            );
            Err(Problem::new(ErrorCode::LimitExceeded, detail).of_limit(LimitKind::Wall, value))
        });
        PlanReply {
            job: request.job.clone(),
            result,
            columns: planner.columns,
            usage: planner.usage,
        }
    }

    /// Takes note of a stage whose tasks are about to come.
    pub fn open_stage(&self, context: StageContext) {
        let mut held = self.held();
        let reader = || ObjectReader::new(self.blobs.clone());
        let job = held.jobs.entry(context.job.clone()).or_insert_with(|| Job {
            stages: BTreeMap::new(),
            reader: reader(),
            cancel: CancellationToken::new(),
        });
        let inputs = Arc::new(context.inputs.clone());
        job.stages.insert(
            context.stage,
            Arc::new(Stage {
                context,
                plan: Mutex::default(),
                inputs,
            }),
        );
    }

    /// Stops what runs of a job, and forgets it.
    pub fn forget(&self, job: &JobId) {
        let mut held = self.held();
        if let Some(planning) = held.planning.get(job) {
            planning.cancel();
        }
        if let Some(job) = held.jobs.remove(job) {
            job.cancel.cancel();
        }
    }

    async fn stage_plan(&self, stage: &Stage) -> Result<Arc<StagePlan>, Problem> {
        if let Some(plan) = &*stage.plan.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(self.read_plan(&stage.context.plan).await?);
        *stage.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&plan));
        Ok(plan)
    }

    async fn read_plan(&self, key: &str) -> Result<StagePlan, Problem> {
        let bytes = self.blobs.get(key).await.map_err(|error| error.problem())?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(
                ErrorCode::Internal,
                format!("the plan `{key}` is damaged: {error}"),
            )
        })
    }

    /// Runs one attempt on the calling thread.
    pub async fn run(&self, request: TaskRequest) -> TaskReply {
        let found = {
            let held = self.held();
            let job = held.jobs.get(&request.id.job);
            job.and_then(|job| {
                Some((
                    Arc::clone(job.stages.get(&request.id.stage)?),
                    job.reader.clone(),
                    job.cancel.clone(),
                ))
            })
        };
        let Some((stage, reader, cancel)) = found else {
            return failed(
                &request,
                Problem::new(
                    ErrorCode::Internal,
                    "the job was forgotten before the task began",
                ),
            );
        };
        match self.prepare(&request, &stage, reader, cancel).await {
            Ok(run) => run.run().await,
            Err(problem) => failed(&request, problem),
        }
    }

    async fn prepare(
        &self,
        request: &TaskRequest,
        stage: &Stage,
        reader: ObjectReader,
        cancel: CancellationToken,
    ) -> Result<TaskRun, Problem> {
        let plan = self.stage_plan(stage).await?;
        let blobs = self.blobs.metered();
        let mut components = HashMap::new();
        for digest in digests(&plan) {
            components.insert(digest.clone(), self.component(digest)?);
        }
        Ok(TaskRun {
            request: request.clone(),
            plan,
            inputs: Arc::clone(&stage.inputs),
            components,
            reader: reader.with_blobs(&blobs),
            blobs,
            spill_folder: self.spill_folder.clone(),
            cancel,
        })
    }

    /// Makes the files of a job's outputs visible.
    pub async fn publish(&self, request: PublishRequest) -> Result<Vec<PublishedOutput>, Problem> {
        let mut schemas = HashMap::new();
        for key in &request.plans {
            for sink in self.read_plan(key).await?.sinks {
                schemas.insert(sink.output, schema::texts(&sink.schema));
            }
        }
        let mut published = Vec::new();
        for mut output in request.outputs {
            output.schema = schemas.remove(&output.name).unwrap_or_default();
            published
                .push(weft_store::publish(&request.job, &output).map_err(|error| error.problem())?);
        }
        Ok(published)
    }
}

fn failed(request: &TaskRequest, problem: Problem) -> TaskReply {
    let TaskRequest {
        id, attempt, epoch, ..
    } = request;
    let failure = weft_protocol::TaskFailure {
        stage: id.stage,
        task: id.task,
        attempt: *attempt,
        epoch: *epoch,
        problem,
        cancelled: false,
        usage: Vec::new(),
        log: None,
    };
    TaskReply {
        job: id.job.clone(),
        result: Err(failure),
        took: Took::default(),
    }
}

/// The components that a stage's tasks call.
fn digests(plan: &StagePlan) -> Vec<&Digest> {
    let nodes = plan.nodes.iter().filter_map(|node| match &node.work {
        NodeWork::Map(function) | NodeWork::Reduce(function) | NodeWork::Task(function) => {
            Some(&function.digest)
        }
        NodeWork::Pass => None,
    });
    let edges = plan
        .edges
        .iter()
        .filter_map(|edge| edge.combine.as_ref().map(|function| &function.digest));
    let source = match &plan.source {
        Source::Shuffle { combine, .. } => combine.as_ref().map(|function| &function.digest),
        Source::Files(_) | Source::Nothing => None,
    };
    nodes.chain(edges).chain(source).collect()
}
