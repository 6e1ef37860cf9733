//! One attempt of one task, from its source to what it asks to be committed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use weft_core::{Digest, ErrorCode, FunctionUsage, Meters, Problem, lock};
use weft_failpoint as failpoint;
use weft_protocol::{
    EdgeBytes, EdgeInput, EdgeRef, LogRef, LostObject, ObjectRef, SinkFile, StageContext, Sums,
    TaskCommit, TaskFailure, TaskPart, TaskReply, TaskRequest, Took,
};
use weft_sandbox::{
    Component, Expressions, MemoryAccount, TaskLog, monotonic_ns, thread_cpu_ns, unix_ns,
};
use weft_shuffle::{ObjectReader, ObjectWriter};
use weft_sql::Session;
use weft_store::Blobs;

use crate::edge::EdgeWriter;
use crate::environment::TaskEnvironment;
use crate::exchange::{EdgeOut, ExchangeWriter, Placing};
use crate::flow::Flow;
use crate::place::among_records;
use crate::plan::{EdgeRows, FilesPlan, NodeWork, Source, StagePlan, TaskPlan};
use crate::problems::internal;
use crate::requests::set_requests;
use crate::running_guest::{Emitted, RunningGuest};
use crate::scan::{self, Inputs, Reader};
use crate::sink::SinkWriter;
use crate::source::ShuffleSource;
use crate::sql_functions::SqlFunctions;
use crate::sql_task::SqlTask;
use crate::task_results::{Place, TaskResults};

/// A task with all that its stage holds ready for it.
pub(crate) struct TaskRun {
    pub(crate) request: TaskRequest,
    pub(crate) plan: Arc<StagePlan>,
    pub(crate) context: Arc<StageContext>,
    pub(crate) components: HashMap<Digest, Arc<Component>>,
    pub(crate) blobs: Blobs,
    pub(crate) reader: ObjectReader,
    pub(crate) spill_folder: PathBuf,
    pub(crate) cancel: CancellationToken,
    pub(crate) session: Session,
    pub(crate) expressions: Arc<dyn Expressions>,
}

/// What the fabric's own work used and made.
#[derive(Default)]
struct Progress {
    own: Meters,
    /// By edge that the stage reads.
    read: Vec<Sums>,
    object: Option<ObjectRef>,
    written: Vec<Sums>,
    /// By edge that the stage writes.
    bytes: Vec<EdgeBytes>,
    /// The partitions that it read, if it shares them with other tasks.
    part: Option<TaskPart>,
    files: Vec<SinkFile>,
}

/// When an attempt began, on the clocks that it is measured with.
struct Began {
    cpu_ns: u64,
    wall_ns: u64,
    unix_ns: u64,
}

impl TaskRun {
    /// Runs the attempt on the calling thread. Everything it uses is on the reply, whichever way it ends.
    pub(crate) async fn run(self) -> TaskReply {
        let began = Began {
            cpu_ns: thread_cpu_ns(),
            wall_ns: monotonic_ns(),
            unix_ns: unix_ns(),
        };
        let environment = self.environment(&began);
        let mut progress = Progress::default();
        let result = self.with_functions(&environment, &mut progress).await;
        let log = self.write_log(&environment.log).await;
        let usage = self.usage(&began, &environment, progress.own);
        let cancelled = environment.cancel.is_cancelled();
        let result = match (result, log) {
            (Ok(()), Ok(log)) => Ok(self.commit(&began, progress, usage, log)),
            (Ok(()), Err(problem)) => Err(self.failure(problem, cancelled, usage, None)),
            (Err(problem), log) => Err(self.failure(problem, cancelled, usage, log.ok())),
        };
        TaskReply {
            job: self.request.id.job,
            result,
            took: took(&began, environment),
        }
    }

    fn environment(&self, began: &Began) -> TaskEnvironment {
        TaskEnvironment {
            plan: Arc::clone(&self.plan),
            task: self.request.id.task,
            components: self.components.clone(),
            account: MemoryAccount::new(self.plan.limits.memory_bytes),
            log: Arc::new(TaskLog::default()),
            cancel: self.cancel.clone(),
            spill_folder: self.spill_folder.clone(),
            expressions: Arc::clone(&self.expressions),
            guest_cpu_ns: AtomicU64::new(0),
            usage: Mutex::default(),
            began_ns: (began.unix_ns, began.wall_ns),
            guests: Mutex::default(),
        }
    }

    /// What the attempt used: its functions, and the fabric's own work beside them.
    fn usage(
        &self,
        began: &Began,
        environment: &TaskEnvironment,
        mut own: Meters,
    ) -> Vec<FunctionUsage> {
        let mut usage = std::mem::take(&mut *lock(&environment.usage));
        let guests = usage
            .iter()
            .fold(Meters::default(), |sum, one| sum.add(&one.billed));
        own.native_cpu_ns = (thread_cpu_ns() - began.cpu_ns)
            .saturating_sub(environment.guest_cpu_ns.load(Ordering::Relaxed));
        own.wall_ns = monotonic_ns() - began.wall_ns;
        own.memory_byte_ns = environment
            .account
            .byte_ns()
            .saturating_sub(guests.memory_byte_ns);
        own.memory_peak_bytes = environment.account.peak_bytes();
        set_requests(&mut own, &self.blobs);
        usage.push(FunctionUsage {
            stage: self.plan.name.clone(),
            function: "-".into(),
            billed_attempts: 1,
            billed: own,
            ..FunctionUsage::default()
        });
        usage
    }

    fn commit(
        &self,
        began: &Began,
        progress: Progress,
        usage: Vec<FunctionUsage>,
        log: LogRef,
    ) -> TaskCommit {
        let Progress {
            read,
            object,
            written,
            bytes,
            part,
            files,
            ..
        } = progress;
        TaskCommit {
            stage: self.request.id.stage,
            task: self.request.id.task,
            attempt: self.request.attempt,
            epoch: self.request.epoch,
            sequence: self.request.sequence,
            started_ms: began.unix_ns / 1_000_000,
            stream_epoch: 0,
            positions: Vec::new(),
            object,
            written,
            bytes,
            part,
            read,
            files,
            usage: usage.into(),
            log,
        }
    }

    fn failure(
        &self,
        problem: Problem,
        cancelled: bool,
        usage: Vec<FunctionUsage>,
        log: Option<LogRef>,
    ) -> TaskFailure {
        TaskFailure {
            stage: self.request.id.stage,
            task: self.request.id.task,
            attempt: self.request.attempt,
            epoch: self.request.epoch,
            sequence: self.request.sequence,
            lost: self.lost(&problem),
            problem,
            cancelled,
            usage,
            log,
        }
    }

    /// The object without which the attempt could not go on, if it failed for that.
    fn lost(&self, problem: &Problem) -> Option<LostObject> {
        let key = self.reader.lost()?;
        let is_it = |object: &Option<ObjectRef>| object.as_ref().is_some_and(|one| one.key == key);
        let mut inputs = self.context.inputs.iter();
        let (stage, task) = inputs.find_map(|input| {
            let task = input.objects.iter().position(is_it)?;
            Some((input.edge.stage, u32::try_from(task).ok()?))
        })?;
        problem
            .code
            .is_platform_fault()
            .then_some(LostObject { stage, task, key })
    }

    /// Works with the functions that SQL calls, whose guests live as long as the plan and the edges that it feeds.
    async fn with_functions(
        &self,
        environment: &TaskEnvironment,
        progress: &mut Progress,
    ) -> Result<(), Problem> {
        let functions = SqlFunctions::new(environment)?;
        let result = self.work(environment, &functions, progress).await;
        functions.retire(environment);
        result
    }

    async fn work(
        &self,
        environment: &TaskEnvironment,
        functions: &Arc<SqlFunctions>,
        progress: &mut Progress,
    ) -> Result<(), Problem> {
        let mut result = None;
        if let Some(NodeWork::Task(task)) = self.plan.nodes.first().map(|node| &node.work) {
            result = Some(run_task(environment, task).await?);
            if self.plan.has_no_readers() {
                return Ok(());
            }
        }
        let segments = Arc::new(Mutex::new(ObjectWriter::new(
            environment.task,
            &self.spill_folder,
        )));
        let (context, reader) = (&self.context, &self.reader);
        let sql = SqlTask::open(&self.session, environment, context, reader, functions).await?;
        let edges = self.edges(&segments, sql.as_ref())?;
        let mut flow = Flow::open(environment, edges, self.sinks()?).await?;
        for batch in result.map(|result| result.batches).into_iter().flatten() {
            flow.push(environment, batch).await?;
        }
        match sql {
            Some(sql) => self.feed_sql(sql, environment, &mut flow, progress).await?,
            None => self.feed(environment, &mut flow, progress).await?,
        }
        flow.finish(environment).await?;
        for edge in &mut flow.edges {
            edge.flush(environment).await?;
            progress.own.rows_out += edge.rows();
        }
        let Flow { edges, sinks, .. } = flow;
        let n_edges = edges.len();
        drop(edges);
        let dead_letters = match &self.plan.source {
            Source::Files(files) => files.dead_letters,
            _ => None,
        };
        for (position, sink) in sinks.into_iter().enumerate() {
            // Dead letters are counted as bad records.
            if dead_letters != Some(position) {
                progress.own.rows_out += sink.rows;
            }
            progress.files.extend(sink.finish()?);
        }
        progress.own.bytes_written = progress.files.iter().map(|file| file.bytes).sum();
        if n_edges > 0 {
            let segments = Arc::into_inner(segments)
                .expect("the edges are gone")
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner);
            progress.bytes = segments.bytes(n_edges);
            failpoint::hit("shuffle-write");
            let (object, written) = segments
                .finish(&self.blobs, &self.request.key("shuffle"), n_edges)
                .await
                .map_err(|error| error.problem())?;
            progress.own.shuffle_bytes_written = object.bytes;
            (progress.object, progress.written) = (Some(object), written);
            failpoint::hit("shuffle-commit");
        }
        Ok(())
    }

    /// `sql`: of a stage of SQL, what knows by which expressions its rows are dealt out or sorted.
    fn edges(
        &self,
        segments: &Arc<Mutex<ObjectWriter>>,
        sql: Option<&SqlTask>,
    ) -> Result<Vec<EdgeOut>, Problem> {
        let n = self.plan.edges.len().max(1) as u64;
        // A quarter of the task's memory collects rows; guests, combiners and sorting need the rest.
        let budget_bytes = self.plan.limits.memory_bytes / 4 / n;
        (0..)
            .zip(&self.plan.edges)
            .map(|(edge, plan)| {
                let segments = Arc::clone(segments);
                let keys = || sql.and_then(SqlTask::keys).map(Placing::ByHash);
                let order = || sql.and_then(SqlTask::order).map(Placing::InOrder);
                let placing = match plan.rows {
                    EdgeRows::Sorted => {
                        let edge = EdgeWriter::new(plan.clone(), edge, budget_bytes, segments)?;
                        return Ok(EdgeOut::Sorted(Box::new(edge)));
                    }
                    EdgeRows::Arriving => Some(Placing::AsTheyCome),
                    EdgeRows::Hashed => keys(),
                    EdgeRows::Ordered => order(),
                };
                let placing = placing.ok_or_else(|| {
                    let detail = format!("the plan of `{}` has no keys", self.plan.name);
                    Problem::new(ErrorCode::Internal, detail)
                })?;
                let edge = ExchangeWriter::new(plan, edge, placing, budget_bytes, segments);
                Ok(EdgeOut::Exchange(edge))
            })
            .collect()
    }

    fn sinks(&self) -> Result<Vec<SinkWriter>, Problem> {
        self.plan
            .sinks
            .iter()
            .map(|plan| {
                let (request, spill_folder) = (self.request.clone(), &self.spill_folder);
                SinkWriter::new(plan.clone(), request, &self.blobs, spill_folder)
            })
            .collect()
    }

    async fn feed(
        &self,
        environment: &TaskEnvironment,
        flow: &mut Flow,
        progress: &mut Progress,
    ) -> Result<(), Problem> {
        match &self.plan.source {
            Source::Files(plan) => self.feed_files(plan, environment, flow, progress).await,
            Source::Shuffle {
                edge,
                from,
                keys,
                combine,
                schema,
            } => {
                failpoint::hit("reduce");
                let source = ShuffleSource {
                    reader: &self.reader,
                    objects: &self.input(*edge, from)?.objects,
                    from,
                    edge: edge.edge,
                    keys,
                    combine: combine.as_ref(),
                    schema,
                };
                let read = source.run(environment, flow).await?;
                if read.spilled_runs > 0 {
                    tracing::debug!(task = %self.request.id, runs = read.spilled_runs, "spilled");
                }
                progress.read = vec![read.sums];
                progress.own.rows_in = read.sums.rows;
                progress.own.shuffle_bytes_read = read.bytes;
                progress.own.spilled_bytes = read.spilled_bytes;
                Ok(())
            }
            Source::Sql(_) | Source::Nothing => Ok(()),
        }
    }

    async fn feed_sql(
        &self,
        sql: SqlTask,
        environment: &TaskEnvironment,
        flow: &mut Flow,
        progress: &mut Progress,
    ) -> Result<(), Problem> {
        let sources = sql.sources();
        let (fed, spilled_bytes) = sql.feed(environment, flow).await;
        let read = sources.counted();
        progress.own.spilled_bytes = spilled_bytes;
        progress.own.rows_in = read.rows;
        progress.own.bytes_read = read.file_bytes;
        progress.own.shuffle_bytes_read = read.shuffle_bytes;
        progress.own.bad_records = read.bad_records;
        progress.own.unknown_fields = read.unknown_fields;
        fed?;
        progress.read = sources.finish().await?;
        progress.part = sources.part().await?;
        for warning in sources.warnings() {
            environment.log.note("warn", &warning);
        }
        Ok(())
    }

    /// What the stage `from` wrote to an edge.
    fn input(&self, edge: EdgeRef, from: &str) -> Result<&EdgeInput, Problem> {
        let mut inputs = self.context.inputs.iter();
        inputs.find(|input| input.edge == edge).ok_or_else(|| {
            let detail = format!(
                "stage `{}` reads edge {} of stage `{from}`, and was not told what was written to it",
                self.plan.name, edge.edge
            );
            Problem::new(ErrorCode::Internal, detail)
        })
    }

    async fn feed_files(
        &self,
        plan: &FilesPlan,
        environment: &TaskEnvironment,
        flow: &mut Flow,
        progress: &mut Progress,
    ) -> Result<(), Problem> {
        let split = &plan.splits[environment.task as usize];
        let mut reader = Reader::open(&Inputs::new(self.blobs.grants()), plan, split)?;
        let mut n_records = 0;
        loop {
            let first = n_records + 1;
            let batch = reader.next()?;
            if let (Some(left_out), Some(sink)) = (reader.left_out(), plan.dead_letters) {
                let records = std::mem::take(&mut left_out.waiting);
                if !records.is_empty() {
                    let batch = scan::bad_records_batch(&split.path, &records);
                    let batch = batch.map_err(|error| internal(&error))?;
                    flow.sinks[sink].write(&batch)?;
                }
            }
            progress.own.bad_records = reader.left_out().map_or(0, |left_out| left_out.count);
            progress.own.unknown_fields = reader.unknown().map_or(0, scan::Unknown::count);
            progress.own.bytes_read = reader.bytes_read();
            let Some(batch) = batch else { break };
            environment.check_cancel()?;
            if batch.num_rows() == 0 {
                continue;
            }
            failpoint::hit("map");
            progress.own.rows_in += batch.num_rows() as u64;
            // Those that were left out stand among them.
            n_records = progress.own.rows_in + progress.own.bad_records;
            let pushed = flow.push(environment, batch).await;
            pushed.map_err(|problem| among_records(problem, first, n_records, split))?;
        }
        let bad_records = progress.own.bad_records;
        if bad_records > 0 {
            let what = format!(
                "{bad_records} records of `{}` could not be read and were left out",
                split.path
            );
            environment.log.note("warn", &what);
        }
        if let Some(keys) = reader.unknown().and_then(scan::Unknown::summary) {
            let what = format!(
                "`{}` has keys or columns that the input does not have; their values were passed over: {keys}",
                split.path
            );
            environment.log.note("warn", &what);
        }
        Ok(())
    }

    async fn write_log(&self, log: &TaskLog) -> Result<LogRef, Problem> {
        let (kept, dropped) = log.take();
        let lines = kept.len() as u64;
        if kept.is_empty() {
            return Ok(LogRef {
                key: None,
                lines,
                dropped,
            });
        }
        let mut text = Vec::new();
        for line in &kept {
            serde_json::to_writer(&mut text, line)
                .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
            text.push(b'\n');
        }
        let key = self.request.key("log");
        self.blobs
            .put(&key, text)
            .await
            .map_err(|error| error.problem())?;
        Ok(LogRef {
            key: Some(key),
            lines,
            dropped,
        })
    }
}

/// Runs a task of a set. Its result is a row, if anything takes it.
async fn run_task(environment: &TaskEnvironment, task: &TaskPlan) -> Result<Emitted, Problem> {
    let (function, index) = (&task.function, environment.task);
    let guest = RunningGuest::task(environment, function).await?;
    let result = guest.run(environment, index, &task.input).await?;
    let mut results = TaskResults::new(function);
    if environment.plan.has_no_readers() {
        return Ok(Emitted::default());
    }
    let partition = 0;
    results.push(environment, Place { partition, index }, &result)?;
    results.take()
}

/// When the attempt and its guests ran.
fn took(began: &Began, environment: TaskEnvironment) -> Took {
    let ended_ns = environment.unix_ns();
    let guests = environment.guests.into_inner();
    let mut guests = guests.unwrap_or_else(PoisonError::into_inner);
    for guest in &mut guests {
        // Those that a task leaves behind end with it.
        guest.ended_ns = guest.ended_ns.min(ended_ns);
    }
    Took {
        began_ns: began.unix_ns,
        ended_ns,
        guests,
    }
}

#[cfg(test)]
mod tests;
