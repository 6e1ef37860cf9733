//! The operators of one task, and how rows move through them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, FunctionUsage, Meters, Problem};
use weft_sandbox::{
    Component, Fault, Guest, GuestSettings, MemoryAccount, Reservation, TaskLog, monotonic_ns,
};

use crate::edge::EdgeWriter;
use crate::grouping::Chunk;
use crate::plan::{FunctionPlan, Node, NodeWork, StagePlan};
use crate::sink::SinkWriter;
use weft_protocol::GuestTook;

/// What all operators of a task share.
pub(crate) struct TaskEnvironment {
    pub(crate) plan: Arc<StagePlan>,
    pub(crate) task: u32,
    pub(crate) components: HashMap<weft_core::Digest, Arc<Component>>,
    pub(crate) account: Arc<MemoryAccount>,
    pub(crate) log: Arc<TaskLog>,
    pub(crate) cancel: CancellationToken,
    pub(crate) spill_folder: std::path::PathBuf,
    /// CPU time of all guests of the task, so that native time can be told apart.
    pub(crate) guest_cpu_ns: AtomicU64,
    pub(crate) usage: std::sync::Mutex<Vec<FunctionUsage>>,
    /// When the task began: in Unix nanoseconds, and on the clock that never goes back.
    pub(crate) began_ns: (u64, u64),
    /// When guests were alive, one entry for each function.
    pub(crate) guests: std::sync::Mutex<Vec<GuestTook>>,
}

/// The end of what has not ended.
const ALIVE: u64 = u64::MAX;

impl TaskEnvironment {
    /// Starts a guest for `function`, not yet opened.
    pub(crate) async fn guest(&self, function: &FunctionPlan) -> Result<Guest, Problem> {
        let component = self.components.get(&function.digest).ok_or_else(|| {
            Problem::new(
                ErrorCode::Internal,
                format!("`{}` is not loaded", function.label),
            )
        })?;
        let settings = GuestSettings {
            label: function.label.clone(),
            account: Arc::clone(&self.account),
            cpu_limit_ns: function.limits.cpu_ms.saturating_mul(1_000_000),
            cpu_before_ns: self.cpu_before_ns(function),
            output_limit_bytes: function.limits.output_bytes,
            log: Arc::clone(&self.log),
            cancel: self.cancel.clone(),
            seed: self.plan.task_seed(self.task),
            started_ms: self.plan.started_ms,
        };
        self.guest_lives(&function.label, true);
        Guest::start(component, settings)
            .await
            .map_err(|fault| fault.problem(&function.label))
    }

    /// What earlier guests of the function used: combiners come anew for every run.
    fn cpu_before_ns(&self, function: &FunctionPlan) -> u64 {
        let usage = self
            .usage
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let same =
            |one: &&FunctionUsage| one.stage == function.stage && one.function == function.label;
        let before = usage.iter().find(same);
        before.map_or(0, |one| one.billed.guest_cpu_ns)
    }

    /// Fails where the job was cancelled.
    pub(crate) fn check_cancel(&self) -> Result<(), Problem> {
        if self.cancel.is_cancelled() {
            return Err(Problem::new(ErrorCode::Internal, "the task was cancelled"));
        }
        Ok(())
    }

    /// The time, in Unix nanoseconds, as if nobody had set the clock since the task began.
    pub(crate) fn unix_ns(&self) -> u64 {
        let (unix_ns, monotonic_began_ns) = self.began_ns;
        unix_ns + (monotonic_ns() - monotonic_began_ns)
    }

    /// Takes note that a guest of the function starts, or that it has ended.
    fn guest_lives(&self, label: &str, lives: bool) {
        let now = self.unix_ns();
        let ended_ns = if lives { ALIVE } else { now };
        let mut guests = self
            .guests
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match guests.iter_mut().find(|one| one.function == label) {
            Some(one) => one.ended_ns = ended_ns,
            None => guests.push(GuestTook {
                function: label.to_owned(),
                began_ns: now,
                ended_ns,
            }),
        }
    }

    /// Takes note of what a guest used, when it ends or fails.
    pub(crate) fn retire(&self, function: &FunctionPlan, guest: &Guest, rows_in: u64) {
        self.guest_lives(&function.label, false);
        let meters = guest.meters();
        self.guest_cpu_ns
            .fetch_add(meters.cpu_ns, Ordering::Relaxed);
        let billed = Meters {
            guest_cpu_ns: meters.cpu_ns,
            memory_byte_ns: meters.memory_byte_ns,
            memory_peak_bytes: meters.memory_peak_bytes,
            rows_in,
            rows_out: meters.rows_out,
            guest_calls: meters.calls,
            ..Meters::default()
        };
        let usage = FunctionUsage {
            stage: function.stage.clone(),
            function: function.label.clone(),
            billed_attempts: 1,
            billed,
            ..FunctionUsage::default()
        };
        let mut all = self
            .usage
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match all
            .iter_mut()
            .find(|one| one.stage == usage.stage && one.function == usage.function)
        {
            Some(one) => {
                one.add(&usage);
                one.billed_attempts = 1;
            }
            None => all.push(usage),
        }
    }
}

/// What a guest emitted, and the memory that is reserved for it until it has gone on its way.
#[derive(Default)]
pub(crate) struct Emitted {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) reserved: Vec<Arc<Reservation>>,
}

impl Emitted {
    /// Adds what was emitted later.
    pub(crate) fn add(&mut self, more: Emitted) {
        self.batches.extend(more.batches);
        self.reserved.extend(more.reserved);
    }
}

/// A batch before an operator, by position.
struct Waiting {
    node: usize,
    batch: RecordBatch,
    reserved: Vec<Arc<Reservation>>,
}

/// A guest in its place.
pub(crate) struct RunningGuest {
    pub(crate) function: FunctionPlan,
    guest: Guest,
    rows_in: u64,
}

impl RunningGuest {
    pub(crate) async fn mapper(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
    ) -> Result<Self, Problem> {
        let mut guest = environment.guest(function).await?;
        let opened = guest
            .open_mapper(
                &function.function,
                &function.params,
                Arc::clone(&function.output),
            )
            .await;
        Self::opened(environment, function, guest, opened)
    }

    pub(crate) async fn reducer(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
    ) -> Result<Self, Problem> {
        let mut guest = environment.guest(function).await?;
        let opened = guest
            .open_reducer(
                &function.function,
                &function.params,
                Arc::clone(&function.output),
            )
            .await;
        Self::opened(environment, function, guest, opened)
    }

    fn opened(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
        guest: Guest,
        opened: Result<(), Fault>,
    ) -> Result<Self, Problem> {
        let running = Self {
            function: function.clone(),
            guest,
            rows_in: 0,
        };
        running.check(environment, opened)?;
        Ok(running)
    }

    /// A guest that failed is billed for what it used, and never called again.
    fn check<T>(
        &self,
        environment: &TaskEnvironment,
        result: Result<T, Fault>,
    ) -> Result<T, Problem> {
        result.map_err(|fault| {
            environment.retire(&self.function, &self.guest, self.rows_in);
            fault.problem(&self.function.label)
        })
    }

    fn emitted(&mut self) -> Emitted {
        let (batches, reserved) = self.guest.take_output();
        Emitted {
            batches,
            reserved: reserved.map(Arc::new).into_iter().collect(),
        }
    }

    pub(crate) async fn push(
        &mut self,
        environment: &TaskEnvironment,
        batch: RecordBatch,
    ) -> Result<Emitted, Problem> {
        self.rows_in += batch.num_rows() as u64;
        let pushed = self.guest.push_mapper(batch).await;
        self.check(environment, pushed)?;
        Ok(self.emitted())
    }

    pub(crate) async fn push_chunk(
        &mut self,
        environment: &TaskEnvironment,
        chunk: Chunk,
    ) -> Result<Emitted, Problem> {
        self.rows_in += chunk.batch.num_rows() as u64;
        let pushed = self
            .guest
            .push_reducer(chunk.batch, &chunk.ends, chunk.continues)
            .await;
        self.check(environment, pushed)?;
        Ok(self.emitted())
    }

    pub(crate) async fn finish_mapper(
        mut self,
        environment: &TaskEnvironment,
    ) -> Result<Emitted, Problem> {
        let finished = self.guest.finish_mapper().await;
        self.finished(environment, finished)
    }

    pub(crate) async fn finish_reducer(
        mut self,
        environment: &TaskEnvironment,
    ) -> Result<Emitted, Problem> {
        let finished = self.guest.finish_reducer().await;
        self.finished(environment, finished)
    }

    fn finished(
        mut self,
        environment: &TaskEnvironment,
        finished: Result<(), Fault>,
    ) -> Result<Emitted, Problem> {
        self.check(environment, finished)?;
        let output = self.emitted();
        environment.retire(&self.function, &self.guest, self.rows_in);
        Ok(output)
    }

    pub(crate) async fn run_task(mut self, environment: &TaskEnvironment) -> Result<(), Problem> {
        let ran = self
            .guest
            .run_task(
                &self.function.function,
                &self.function.params,
                environment.task,
                &[],
            )
            .await;
        self.check(environment, ran)?;
        environment.retire(&self.function, &self.guest, 0);
        Ok(())
    }

    pub(crate) async fn task(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
    ) -> Result<Self, Problem> {
        Ok(Self {
            function: function.clone(),
            guest: environment.guest(function).await?,
            rows_in: 0,
        })
    }
}

enum Operator {
    Pass,
    Map(Option<RunningGuest>),
    Reduce(Option<RunningGuest>),
}

/// The operators of a task, from the source to edges and sinks.
pub(crate) struct Flow {
    nodes: Vec<Node>,
    operators: Vec<Operator>,
    pub(crate) edges: Vec<EdgeWriter>,
    pub(crate) sinks: Vec<SinkWriter>,
}

impl Flow {
    pub(crate) async fn open(
        environment: &TaskEnvironment,
        edges: Vec<EdgeWriter>,
        sinks: Vec<SinkWriter>,
    ) -> Result<Self, Problem> {
        let nodes = environment.plan.nodes.clone();
        let mut operators = Vec::with_capacity(nodes.len());
        for node in &nodes {
            operators.push(match &node.work {
                NodeWork::Pass | NodeWork::Task(_) => Operator::Pass,
                NodeWork::Map(function) => {
                    Operator::Map(Some(RunningGuest::mapper(environment, function).await?))
                }
                NodeWork::Reduce(function) => {
                    Operator::Reduce(Some(RunningGuest::reducer(environment, function).await?))
                }
            });
        }
        Ok(Self {
            nodes,
            operators,
            edges,
            sinks,
        })
    }

    /// Pushes a batch into the first operator.
    pub(crate) async fn push(
        &mut self,
        environment: &TaskEnvironment,
        batch: RecordBatch,
    ) -> Result<(), Problem> {
        let reserved = Vec::new();
        let first = Waiting {
            node: 0,
            batch,
            reserved,
        };
        self.drain(environment, vec![first]).await
    }

    /// Pushes sorted rows into the first operator, which is fed with groups.
    pub(crate) async fn push_chunk(
        &mut self,
        environment: &TaskEnvironment,
        chunk: Chunk,
    ) -> Result<(), Problem> {
        let outputs = match &mut self.operators[0] {
            Operator::Reduce(Some(guest)) => guest.push_chunk(environment, chunk).await?,
            Operator::Pass | Operator::Map(_) | Operator::Reduce(None) => {
                return self.push(environment, chunk.batch).await;
            }
        };
        self.emit(environment, 0, outputs).await
    }

    /// Runs batches through the operators they are meant for, depth first, until all have reached edges and sinks.
    async fn drain(
        &mut self,
        environment: &TaskEnvironment,
        mut waiting: Vec<Waiting>,
    ) -> Result<(), Problem> {
        while let Some(next) = waiting.pop() {
            let Waiting {
                node,
                batch,
                reserved,
            } = next;
            let outputs = match &mut self.operators[node] {
                Operator::Map(Some(guest)) => guest.push(environment, batch).await?,
                Operator::Pass | Operator::Map(None) | Operator::Reduce(_) => Emitted {
                    batches: vec![batch],
                    reserved,
                },
            };
            for output in &outputs.batches {
                self.deliver(environment, node, output.clone()).await?;
            }
            // Reversed, so that batches and branches are taken in order.
            for output in outputs.batches.into_iter().rev() {
                let children = self.nodes[node].children.iter().rev();
                waiting.extend(children.map(|child| Waiting {
                    node: *child,
                    batch: output.clone(),
                    reserved: outputs.reserved.clone(),
                }));
            }
        }
        Ok(())
    }

    async fn emit(
        &mut self,
        environment: &TaskEnvironment,
        node: usize,
        outputs: Emitted,
    ) -> Result<(), Problem> {
        for output in outputs.batches {
            let children = self.nodes[node].children.iter().rev();
            let waiting = children
                .map(|child| Waiting {
                    node: *child,
                    batch: output.clone(),
                    reserved: outputs.reserved.clone(),
                })
                .collect();
            self.deliver(environment, node, output).await?;
            self.drain(environment, waiting).await?;
        }
        Ok(())
    }

    async fn deliver(
        &mut self,
        environment: &TaskEnvironment,
        node: usize,
        output: RecordBatch,
    ) -> Result<(), Problem> {
        for sink in &self.nodes[node].sinks {
            self.sinks[*sink].write(&output)?;
        }
        for edge in &self.nodes[node].edges {
            self.edges[*edge].push(environment, output.clone()).await?;
        }
        Ok(())
    }

    /// Ends the operators, first to last; what they still emit goes on to those after them.
    pub(crate) async fn finish(&mut self, environment: &TaskEnvironment) -> Result<(), Problem> {
        for node in 0..self.operators.len() {
            let outputs = match &mut self.operators[node] {
                Operator::Pass => Emitted::default(),
                Operator::Map(guest) => match guest.take() {
                    Some(guest) => guest.finish_mapper(environment).await?,
                    None => Emitted::default(),
                },
                Operator::Reduce(guest) => match guest.take() {
                    Some(guest) => guest.finish_reducer(environment).await?,
                    None => Emitted::default(),
                },
            };
            self.emit(environment, node, outputs).await?;
        }
        Ok(())
    }
}
