//! Planning of statements, and plans in tasks: settings, functions, and the catalog of one statement.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use chrono::DateTime;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::common::plan_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::ViewTable;
use datafusion::error::Result;
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{LogicalPlan, Volatility};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SQLOptions, SessionConfig};
use datafusion::sql::parser;
use weft_core::{ErrorCode, Problem};

use crate::Plan;
use crate::builds::{BoundBuilds, BuildBytes, broadcast_limits};
use crate::command::Command;
use crate::cut::cut;
use crate::error::{planning, problem};
use crate::expressions::Expressions;
use crate::functions::{Binder, Binding, ComponentFunction, Function};
use crate::normalise::NormaliseJoins;
use crate::recursion::{StepsInOne, check_steps};
use crate::relations::{Reads, Relation, Relations};
use crate::single_value::{check_single_values, single_value};
use crate::stage::SqlStage;
use crate::statement::Statement;
use crate::subqueries::subqueries_moved;
use crate::table::{Provider, Table};
use crate::task::{Sources, TaskMemory, TaskRows};
use crate::windows::FiltersAsCases;

/// The rule that decides distribution and sorts. Joins are normalised and bounded just before it.
const DISTRIBUTION: &str = "EnsureRequirements";

/// Columns of a statement's result.
const RESULT_COLUMNS_MAX: usize = 4_096;
/// Length of the name of a column in the result.
const NAME_BYTES_MAX: usize = 4_096;
/// Start of a name that is too long, as an error shows it.
const NAME_SHOWN_CHARS: usize = 40;

/// Choices for one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Tasks of a stage that reads tables or hashed rows, at least one.
    pub tasks: u32,
    /// Small sides of hash joins are read by every task, instead of both sides being exchanged.
    pub broadcast: bool,
    /// Bytes that build sides of hash joins may take in a task, by estimate. Above that joins are by sorting and
    /// merging, as all are with 0, and fewer sides are broadcast.
    pub build_bytes: u64,
    /// The time that `now()` returns, in milliseconds since 1970.
    pub started_ms: u64,
}

/// Settings and functions that all statements and tasks of an executor share. Cloning is cheap.
#[derive(Clone)]
pub struct Session {
    state: Arc<SessionState>,
    /// Binds the functions of components that a statement may call.
    binding: Option<Arc<Binding>>,
}

impl Session {
    /// Creates a session. Takes up to a millisecond.
    pub fn new() -> Self {
        let mut rules = PhysicalOptimizer::default().rules;
        let distribution = rules
            .iter()
            .position(|rule| rule.name() == DISTRIBUTION)
            .expect("DataFusion decides distribution by a rule of this name");
        rules.insert(distribution, Arc::new(BoundBuilds));
        rules.insert(distribution, Arc::new(NormaliseJoins));
        rules.insert(distribution, Arc::new(StepsInOne));
        let mut builder = SessionStateBuilder::new()
            .with_config(settings())
            .with_default_features()
            .with_analyzer_rule(Arc::new(FiltersAsCases))
            .with_physical_optimizer_rules(rules);
        if let Some(functions) = builder.scalar_functions() {
            // Two attempts of a task must agree: no `random()`, no `uuid()`.
            functions.retain(|function| function.signature().volatility != Volatility::Volatile);
        }
        if let Some(functions) = builder.aggregate_functions() {
            functions.push(Arc::new(single_value()));
        }
        Self {
            state: Arc::new(builder.build()),
            binding: None,
        }
    }

    /// Creates the session of one statement, which may call functions of components. `binder` knows them by their
    /// positions in `functions`.
    pub fn with_functions(
        &self,
        functions: &[Function],
        binder: Arc<dyn Binder>,
    ) -> Result<Self, Problem> {
        let binding = Binding::new(binder);
        let mut state = SessionState::clone(&self.state);
        for (number, function) in (0..).zip(functions) {
            let function = ComponentFunction::planned(function, number, &binding);
            state.register_udf(Arc::new(function)).map_err(planning)?;
        }
        Ok(Self {
            state: Arc::new(state),
            binding: Some(binding),
        })
    }

    /// Parses one query.
    ///
    /// Errors: `InvalidJob` if the text is not one query, `TooLarge` if it is too long or nests too deeply.
    pub fn parse(&self, sql: &str) -> Result<Statement, Problem> {
        Statement::parse(sql)
    }

    /// Parses a statement that is more than a query. Nothing if it is not one of those.
    ///
    /// Errors: `InvalidJob` if it is wrong or asks for something that is not offered, `TooLarge` as for
    /// [`parse`](Self::parse).
    pub async fn command(&self, sql: &str) -> Result<Option<Command>, Problem> {
        Command::parse(&self.state, sql).await
    }

    /// Plans a statement over tables and views and cuts it into stages; each stands after those that it reads. One
    /// with a recursion has a single task, whatever the options say.
    ///
    /// Needs a stack of a few MiB. Errors: `InvalidJob` if the statement is wrong or not supported, `TooLarge` if a
    /// stage nests too deeply, `QueryError` if a constant cannot be computed, and those of the binder.
    pub async fn plan(
        &self,
        statement: Statement,
        relations: impl Into<Relations>,
        options: &Options,
    ) -> Result<Vec<SqlStage>, Problem> {
        let relations = relations.into();
        relations.check(&statement)?;
        let mut options = *options;
        if relations.recurse(&statement) {
            // The steps of a recursion exchange no rows.
            options.tasks = 1;
        }
        let state = self.state_of(relations, &options).await?;
        let plan = physical(&state, statement.into_parsed()).await;
        let of_function = || self.binding.as_ref().and_then(|binding| binding.problem());
        let plan = plan.map_err(|error| of_function().unwrap_or_else(|| planning(error)))?;
        check_names(&plan)?;
        check_steps(&plan)?;
        let stages = cut(&plan).map_err(planning)?;
        let context = state.task_ctx();
        let stages = stages.iter();
        stages.map(|stage| SqlStage::new(stage, &context)).collect()
    }

    /// Decodes a variant's plan in a task and starts it, within a Tokio runtime.
    ///
    /// Errors: those of `sources`, `LimitExceeded` if memory does not suffice, `Internal` if the plan is not one of
    /// ours.
    pub fn open(
        &self,
        plan: &[u8],
        sources: Arc<dyn Sources>,
        memory: TaskMemory,
    ) -> Result<TaskRows, Problem> {
        TaskRows::open(&self.state, plan, sources, memory).map_err(problem)
    }

    /// Compiles expressions over the columns of batches of `schema`, each with an optional `AS name`. Columns of their
    /// result have the types that `result_type` gives for those that are computed.
    ///
    /// Needs a stack of a few MiB. Errors: `InvalidJob` if an expression is wrong, or is none whose memory has a bound,
    /// `TooLarge` if it is too long or nests too deeply.
    pub fn expressions(
        &self,
        texts: &[String],
        schema: &SchemaRef,
        result_type: impl Fn(&DataType) -> DataType,
    ) -> Result<Expressions, Problem> {
        Expressions::compile(&self.state, texts, schema, result_type)
    }

    /// The session's state with the tables, the views, the clock and the choices of one statement.
    async fn state_of(
        &self,
        relations: Relations,
        options: &Options,
    ) -> Result<SessionState, Problem> {
        let n_slices = options.tasks.max(1) as usize;
        let mut state = SessionState::clone(&self.state);
        let settings = state.config_mut().options_mut();
        settings.execution.target_partitions = n_slices;
        settings.extensions.insert(BuildBytes(options.build_bytes));
        let (bytes, rows) = match options.broadcast {
            true => broadcast_limits(options.build_bytes),
            false => (0, 0),
        };
        settings.optimizer.hash_join_single_partition_threshold = bytes;
        settings.optimizer.hash_join_single_partition_threshold_rows = rows;
        let started_ms = i64::try_from(options.started_ms).ok();
        let mut properties = ExecutionProps::new();
        properties.query_execution_start_time =
            started_ms.and_then(DateTime::from_timestamp_millis);
        properties.config_options = Some(Arc::clone(state.config_options()));
        *state.execution_props_mut() = properties;
        let Relations {
            tables,
            views,
            reads,
        } = relations;
        let tables = providers(tables, n_slices);
        let mut planned: Vec<Arc<dyn TableProvider>> = Vec::new();
        for view in views {
            let names = catalog(&state, &view.reads, &tables, &planned).map_err(planning)?;
            state.register_catalog_list(names);
            let plan = state.statement_to_plan(view.statement.into_parsed()).await;
            let plan = plan.map_err(planning).map_err(|mut problem| {
                problem.detail = format!("view `{}`: {}", view.name, problem.detail);
                problem
            })?;
            planned.push(Arc::new(ViewTable::new(plan, None)));
        }
        let names = catalog(&state, &reads, &tables, &planned).map_err(planning)?;
        state.register_catalog_list(names);
        Ok(state)
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

fn settings() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1);
    let options = config.options_mut();
    let optimizer = &mut options.optimizer;
    // Round robin places rows by position: a task that is run again would place them otherwise.
    optimizer.enable_round_robin_repartition = false;
    // A task reads what it was dealt.
    optimizer.repartition_file_scans = false;
    // As a node of its own a scalar subquery shares its value in memory; as a join it crosses stages.
    optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // A dynamic filter is filled by a node that is in another process by then.
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // No InterleaveExec, which reads partition k of every branch: tasks share a union by branch.
    optimizer.prefer_existing_union = true;
    // Scans give plain strings, and a mixture needs casts.
    options.sql_parser.map_string_types_to_utf8view = false;
    // A task has one stream of a scan and would take the files of all.
    options.execution.enable_file_stream_work_stealing = false;
    config
}

fn providers(tables: Vec<Table>, n_slices: usize) -> Vec<Arc<dyn TableProvider>> {
    let mut providers: Vec<Arc<dyn TableProvider>> = Vec::new();
    for (position, table) in tables.into_iter().enumerate() {
        providers.push(Arc::new(Provider {
            table,
            position,
            n_slices,
        }));
    }
    providers
}

/// A catalog of its own for each statement and view: a clone of the state shares the session's.
fn catalog(
    state: &SessionState,
    reads: &Reads,
    tables: &[Arc<dyn TableProvider>],
    views: &[Arc<dyn TableProvider>],
) -> Result<Arc<dyn CatalogProviderList>> {
    let schema = MemorySchemaProvider::new();
    for (name, relation) in reads {
        let provider = match relation {
            Relation::Table(position) => tables.get(*position),
            Relation::View(position) => views.get(*position),
        };
        let Some(provider) = provider else {
            return plan_err!("`{name}` is a table or view that was not given");
        };
        schema.register_table(name.clone(), Arc::clone(provider))?;
    }
    let names = &state.config_options().catalog;
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(&names.default_schema, Arc::new(schema))?;
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(names.default_catalog.clone(), Arc::new(catalog));
    Ok(Arc::new(list))
}

async fn physical(state: &SessionState, statement: parser::Statement) -> Result<Plan> {
    let plan = state.statement_to_plan(statement).await?;
    check_query(&plan)?;
    // Views are part of the plan by now.
    let plan = subqueries_moved(check_single_values(plan)?)?;
    state.create_physical_plan(&plan).await
}

/// Refuses all but queries, whatever the parser takes for one.
fn check_query(plan: &LogicalPlan) -> Result<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)?;
    plan.apply_with_subqueries(|node| match node {
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) => {
            plan_err!("only queries are run: SELECT, VALUES, or WITH and one of them")
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}

/// Refuses results with two columns of one name: functions and files tell columns by their names. Refuses too many of
/// them, and names that are too long, as an expression without a name may have them.
fn check_names(plan: &Plan) -> Result<(), Problem> {
    let schema = plan.schema();
    let too_large = |detail: String| Err(Problem::new(ErrorCode::TooLarge, detail));
    let n = schema.fields().len();
    if n > RESULT_COLUMNS_MAX {
        return too_large(format!(
            "the result has {n} columns; {RESULT_COLUMNS_MAX} are allowed"
        ));
    }
    let mut fields = schema.fields().iter();
    if let Some(long) = fields.find(|field| field.name().len() > NAME_BYTES_MAX) {
        let start: String = long.name().chars().take(NAME_SHOWN_CHARS).collect();
        return too_large(format!(
            "the name of the column `{start}..` has {} bytes; {NAME_BYTES_MAX} are allowed: give it another name with AS",
            long.name().len()
        ));
    }
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let twice = names
        .iter()
        .enumerate()
        .find(|(position, name)| names[..*position].contains(*name));
    match twice {
        None => Ok(()),
        Some((_, name)) => Err(Problem::new(
            ErrorCode::InvalidJob,
            format!(
                "two columns of the result are called `{name}`; give one of them another name with AS"
            ),
        )),
    }
}
