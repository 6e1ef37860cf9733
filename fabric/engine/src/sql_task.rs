//! The attempt of a SQL stage's task: its plan is opened, and pulled into the flow.

use std::sync::Arc;

use arrow::array::RecordBatch;
use weft_core::{ErrorCode, Problem};
use weft_protocol::{StageContext, settled_tasks};
use weft_sandbox::MemoryAccount;
use weft_shuffle::ObjectReader;
use weft_sql::{Account, HashKeys, Session, SortKeys, TaskMemory, TaskRows, fair_pool};

use crate::environment::TaskEnvironment;
use crate::flow::Flow;
use crate::plan::{Source, SqlPlan};
use crate::scan::conform;
use crate::sql_functions::SqlFunctions;
use crate::sql_source::SqlSources;
use crate::untrusted::guarded;

/// Operators that hold rows may take this part of a task's memory: edges, guests and segments need the rest.
const OPERATORS_SHARE: u64 = 2;
/// Build sides of hash joins may take this part of the operators' memory, by estimate: they are twice in memory while
/// they are made one batch, and one task may get more than its share of the rows.
const BUILDS_SHARE: u64 = 2;

/// Bytes of a task that build sides of hash joins may take, by estimate.
pub(crate) fn build_bytes(memory_bytes: u64) -> u64 {
    memory_bytes / OPERATORS_SHARE / BUILDS_SHARE
}

/// A plan that runs.
pub(crate) struct SqlTask {
    rows: TaskRows,
    sources: Arc<SqlSources>,
}

#[derive(Debug)]
struct TaskAccount(Arc<MemoryAccount>);

impl Account for TaskAccount {
    fn try_grow(&self, bytes: u64) -> bool {
        self.0.try_grow(bytes)
    }

    fn grow(&self, bytes: u64) {
        self.0.grow(bytes);
    }

    fn shrink(&self, bytes: u64) {
        self.0.shrink(bytes);
    }
}

impl SqlTask {
    /// Opens the plan of a task. Nothing if its stage is not one of SQL.
    pub(crate) async fn open(
        session: &Session,
        environment: &TaskEnvironment,
        context: &Arc<StageContext>,
        reader: &ObjectReader,
        functions: &Arc<SqlFunctions>,
    ) -> Result<Option<Self>, Problem> {
        let Source::Sql(sql) = &environment.plan.source else {
            return Ok(None);
        };
        let mut variants = sql.variants.iter();
        let of_task = variants.find(|one| {
            let tasks = settled_tasks(&context.adaptive, one.tasks);
            tasks.position(environment.task).is_some()
        });
        let variant = of_task.ok_or_else(|| {
            let detail = format!(
                "`{}` has no plan for task {}",
                environment.plan.name, environment.task
            );
            Problem::new(ErrorCode::Internal, detail)
        })?;
        let sources = SqlSources::new(environment, context, reader, functions);
        let account = Arc::new(TaskAccount(Arc::clone(&environment.account)));
        let memory = TaskMemory {
            pool: fair_pool(account, environment.account.limit_bytes() / OPERATORS_SHARE),
            spill_folder: environment.spill_folder.clone(),
        };
        let opened = async {
            let sources = Arc::clone(&sources);
            session.open(&variant.plan, sources, memory)
        };
        let rows = guarded(opened).await.map_err(gave_up)??;
        Ok(Some(Self { rows, sources }))
    }

    /// The expressions by which rows are dealt out, of a stage whose edge wants that.
    pub(crate) fn keys(&self) -> Option<HashKeys> {
        self.rows.keys()
    }

    /// The order in which rows come, of a stage whose edge wants that.
    pub(crate) fn order(&self) -> Option<SortKeys> {
        self.rows.order()
    }

    /// The leaves of the plan, which know what was read.
    pub(crate) fn sources(&self) -> Arc<SqlSources> {
        Arc::clone(&self.sources)
    }

    /// Pushes all rows into `flow`, and tells how many bytes operators spilled. Their memory is free after that.
    pub(crate) async fn feed(
        mut self,
        environment: &TaskEnvironment,
        flow: &mut Flow,
    ) -> (Result<(), Problem>, u64) {
        let fed = self.pull(environment, flow).await;
        (fed, self.rows.spilled_bytes())
    }

    async fn pull(
        &mut self,
        environment: &TaskEnvironment,
        flow: &mut Flow,
    ) -> Result<(), Problem> {
        // Without a part there are no rows, whatever else the plan reads.
        if self.sources.is_idle().await? {
            return Ok(());
        }
        while let Some(batch) = guarded(self.rows.next()).await.map_err(gave_up)? {
            environment.check_cancel()?;
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let batch = match &environment.plan.source {
                Source::Sql(sql) if sql.is_last => passed_on(sql, batch)?,
                _ => batch,
            };
            flow.push(environment, batch).await?;
        }
        Ok(())
    }
}

/// Rows in the types that functions, outputs and other stages know.
fn passed_on(sql: &SqlPlan, batch: RecordBatch) -> Result<RecordBatch, Problem> {
    let order: Vec<usize> = (0..batch.num_columns()).collect();
    conform(batch, &order, &sql.schema).map_err(|error| {
        let detail = format!("a value of the result cannot be passed on: {error}");
        Problem::new(ErrorCode::QueryError, detail)
    })
}

/// The problem of a statement on which DataFusion panicked.
pub(crate) fn gave_up(said: String) -> Problem {
    let detail = format!("the statement cannot be run: {said}");
    Problem::new(ErrorCode::QueryError, detail)
}
