//! A task's plan from its bytes, and from its bytes again: with merge joins, if hash joins ran out of memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::sorts::sort::SortExec;

use crate::Plan;
use crate::codec::{self, Decoded};
use crate::cut::n_partitions;
use crate::merge_join::{hash_joins, with_merges};
use crate::task::{Sources, TaskMemory};

/// Bytes that a task may spill at a time.
const SPILLED_BYTES_MAX: u64 = 64 << 30;
/// Spilled runs that are merged at a time; each is an open file.
const FAN_IN_MAX: usize = 48;
/// A sort keeps this part of the task's memory for merging what it spilled, or less where there are several.
const SORT_SHARE: usize = 8;
/// A build side is large if it took this part of the memory when memory ran out. Others stay as they are at first:
/// a merge join with a small side would sort the other one for nothing.
const LARGE_SHARE: usize = 16;

/// All that a task's plan is made of, however often it is started.
pub(crate) struct Origin {
    pub(crate) state: Arc<SessionState>,
    pub(crate) plan: Vec<u8>,
    pub(crate) sources: Arc<dyn Sources>,
    pub(crate) memory: TaskMemory,
}

impl Origin {
    pub(crate) fn decode(&self) -> Result<Decoded> {
        let context = TaskContext::from(&*self.state);
        let decoded = codec::decode(&self.plan, &context, Some(Arc::clone(&self.sources)))?;
        match n_partitions(&decoded.plan) {
            1 => Ok(decoded),
            n => Err(internal_datafusion_err!("a task's plan has {n} partitions")),
        }
    }

    pub(crate) fn execute(&self, plan: &Plan) -> Result<SendableRecordBatchStream> {
        let context = context(&self.state, self.memory.clone(), n_sorts(plan))?;
        plan.execute(0, Arc::new(context))
    }
}

/// A way to start a plan over, for as long as no row has come out of it.
pub(crate) struct Restart {
    origin: Origin,
    /// The plan that runs, which knows the sizes of its build sides.
    running: Plan,
    is_first: bool,
}

impl Restart {
    /// Nothing if the plan has no hash join that could be a merge join.
    pub(crate) fn of(origin: Origin, running: Plan) -> Option<Self> {
        let has_joins = !hash_joins(&running).is_empty();
        has_joins.then_some(Self {
            origin,
            running,
            is_first: true,
        })
    }

    /// Starts the plan over: with merge joins for those whose build sides were large, and the next time for all.
    ///
    /// Whoever calls has dropped the rows of the plan that ran, and with them its memory.
    pub(crate) fn start(self) -> Result<Started> {
        let Self {
            origin,
            running,
            is_first,
        } = self;
        let large = match is_first {
            true => large_builds(&running, &origin.memory),
            false => BTreeSet::new(),
        };
        // The plan holds build sides, too.
        drop(running);
        let decoded = origin.decode()?;
        let all: BTreeSet<usize> = (0..hash_joins(&decoded.plan).len()).collect();
        let are_some = !large.is_empty() && large.len() < all.len();
        let chosen = if are_some { large } else { all };
        let plan = with_merges(&decoded.plan, &chosen)?;
        origin.sources.start_over();
        let rows = origin.execute(&plan)?;
        let restart = are_some.then(|| Self {
            origin,
            running: Arc::clone(&plan),
            is_first: false,
        });
        Ok(Started {
            plan,
            rows,
            restart,
        })
    }
}

/// A plan that was started over.
pub(crate) struct Started {
    pub(crate) plan: Plan,
    pub(crate) rows: SendableRecordBatchStream,
    /// The way to start once more, if there is one.
    pub(crate) restart: Option<Restart>,
}

/// Positions of hash joins whose build sides take much of the memory.
fn large_builds(running: &Plan, memory: &TaskMemory) -> BTreeSet<usize> {
    let limit = match memory.pool.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes / LARGE_SHARE,
        MemoryLimit::Infinite | MemoryLimit::Unknown => 0,
    };
    let joins = hash_joins(running).into_iter().enumerate();
    let large = joins.filter(|(_, join)| build_bytes(join) > limit);
    large.map(|(position, _)| position).collect()
}

fn build_bytes(join: &HashJoinExec) -> usize {
    let metrics = join.metrics();
    let used = metrics.and_then(|metrics| metrics.sum_by_name("build_mem_used"));
    used.map_or(0, |used| used.as_usize())
}

fn n_sorts(plan: &Plan) -> usize {
    let below = plan.children().into_iter().map(n_sorts);
    below.sum::<usize>() + usize::from(plan.is::<SortExec>())
}

/// Functions and settings of the session, with a task's memory and disk.
fn context(state: &SessionState, memory: TaskMemory, n_sorts: usize) -> Result<TaskContext> {
    let mut config = state.config().clone();
    if let MemoryLimit::Finite(bytes) = memory.pool.memory_limit() {
        let execution = &mut config.options_mut().execution;
        let share = (bytes / SORT_SHARE).min(last_share(bytes, n_sorts));
        execution.sort_spill_reservation_bytes = execution.sort_spill_reservation_bytes.min(share);
    }
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![memory.spill_folder]))
        .with_max_temp_directory_size(SPILLED_BYTES_MAX)
        .with_max_spill_merge_fan_in(FAN_IN_MAX);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(memory.pool)
        .with_disk_manager_builder(disk)
        .build_arc()?;
    let context = TaskContext::from(state);
    Ok(context.with_session_config(config).with_runtime(runtime))
}

/// Bytes that each of `n` sorts can keep for merging so that the last one still gets them when all others have filled
/// their fair shares of the rest.
fn last_share(bytes: usize, n: usize) -> usize {
    bytes / (n * (n + 1) / 2).max(1)
}
