//! Expressions over the columns of a batch: compiled once, evaluated without a plan, and bounded.
//!
//! ```text
//! text ─parse─▶ tree ─refusals─▶ DataFusion's expression ─cost─▶ (expression, bound of its memory)
//! ```
//!
//! Nothing is simplified: a simplifier computes constants, whatever their size, before a bound is known. What may be
//! computed is an allow-list, twice: by kind of expression (`cost`) and by function (`growth`).

mod cost;
mod growth;
mod refusals;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, cast};
use datafusion::sql::sqlparser::ast::ExprWithAlias;
use weft_core::{ErrorCode, Problem};

use self::cost::{Cost, Extent, check_nodes};
use crate::error::{planning, problem};
use crate::statement::invalid;

/// Bytes of the name of a column of the result.
const NAME_BYTES_MAX: usize = 1024;
/// Bytes of a node: one of the compiled expression, and one of its cost.
const NODE_BYTES: u64 = 512;
/// Start of an expression, as an error shows it.
const SHOWN_CHARS: usize = 80;
/// Functions that DataFusion evaluates as the CASE that they stand for, and not otherwise.
const CASES: [&str; 3] = ["coalesce", "nvl", "nvl2"];
/// Those of them whose CASE tests each argument but the last, and gives it.
const TESTED: [&str; 2] = ["coalesce", "nvl"];

/// Expressions over batches of one schema, compiled.
pub struct Expressions {
    /// Columns that are read, by position. No others are touched.
    reads: Vec<usize>,
    columns: Vec<Computed>,
    schema: SchemaRef,
    /// Nodes of all columns, more or less.
    n_nodes: usize,
}

/// One column of the result. Its expression is over the columns that are read.
struct Computed {
    expression: Arc<dyn PhysicalExpr>,
    cost: Cost,
}

impl Expressions {
    pub(crate) fn compile(
        state: &SessionState,
        texts: &[String],
        schema: &SchemaRef,
        result_type: impl Fn(&DataType) -> DataType,
    ) -> Result<Self, Problem> {
        let known = DFSchema::try_from(Arc::clone(schema)).map_err(planning)?;
        let mut logical = Vec::new();
        let mut reads = BTreeSet::new();
        for text in texts {
            let one = named(state, text, &known).map_err(|problem| of_text(text, problem))?;
            for column in one.1.column_refs() {
                reads.insert(schema.index_of(&column.name).map_err(unread)?);
            }
            logical.push(one);
        }
        check_names(&logical)?;
        let reads: Vec<usize> = reads.into_iter().collect();
        let read = Arc::new(schema.project(&reads).map_err(unread)?);
        let (mut columns, mut fields, mut n_nodes) = (Vec::new(), Vec::new(), 0);
        for (text, (name, expression)) in texts.iter().zip(logical) {
            let computed = computed(state, expression, &read, &result_type, &mut n_nodes);
            let (column, field) = computed.map_err(|problem| of_text(text, problem))?;
            columns.push(column);
            fields.push(field.with_name(name));
        }
        Ok(Self {
            reads,
            columns,
            schema: Arc::new(Schema::new(fields)),
            n_nodes,
        })
    }

    /// Bytes that they take themselves, more or less, but for schemas.
    pub fn held_bytes(&self) -> u64 {
        NODE_BYTES.saturating_mul(self.n_nodes as u64)
    }

    /// Columns of the result: one for each expression.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Bytes that [`evaluate`](Self::evaluate) takes at most: the result, and all that is computed on its way.
    pub fn bytes_max(&self, batch: &RecordBatch) -> u64 {
        let read = self.reads.iter().map(|column| batch.columns().get(*column));
        let read: Vec<Extent> = read
            .map(|column| column.map_or_else(Extent::default, Extent::of))
            .collect();
        let rows = batch.num_rows() as u64;
        let bytes = self.columns.iter().map(|one| one.cost.bytes(&read, rows));
        bytes.fold(0, u64::saturating_add)
    }

    /// Evaluates over a batch of the schema that they were compiled for. `goes_on` is asked before each column.
    ///
    /// Errors: `QueryError` if a value cannot be computed, such as a division by zero, or if it does not go on.
    pub fn evaluate(
        &self,
        batch: &RecordBatch,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<RecordBatch, Problem> {
        self.try_evaluate(batch, goes_on).map_err(problem)
    }

    fn try_evaluate(
        &self,
        batch: &RecordBatch,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> DataFusionResult<RecordBatch> {
        let rows = batch.num_rows();
        let read = batch.project(&self.reads)?;
        let columns = self.columns.iter().map(|one| {
            if !goes_on() {
                let stopped = "the evaluation was stopped between two columns";
                return Err(DataFusionError::Execution(stopped.to_owned()));
            }
            let value = one.expression.evaluate(&read)?;
            value.into_array_of_size(rows)
        });
        let columns = columns.collect::<DataFusionResult<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}

impl fmt::Debug for Expressions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut expressions = f.debug_struct("Expressions");
        expressions.field("schema", &self.schema);
        expressions.finish_non_exhaustive()
    }
}

/// Plans one expression, and finds its name: the one after AS, that of a column, or its text.
fn named(state: &SessionState, text: &str, schema: &DFSchema) -> Result<(String, Expr), Problem> {
    let ExprWithAlias { expr, alias } = refusals::parse(state, text)?;
    let unnamed = ExprWithAlias { expr, alias: None };
    let expression = state.create_logical_expr_from_sql_expr(unnamed, schema);
    let expression = expression.map_err(planning)?;
    let name = match (alias, &expression) {
        (Some(alias), _) if alias.quote_style.is_some() => alias.value,
        (Some(alias), _) => alias.value.to_ascii_lowercase(),
        (None, Expr::Column(column)) => column.name.clone(),
        (None, _) => text.trim().to_owned(),
    };
    let is_break = |c: char| matches!(c, '\n' | '\r' | '\t');
    let is_wrong = |c: char| c.is_control() && !is_break(c);
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.chars().any(is_wrong) {
        return Err(invalid(format!(
            "its name must have 1 to {NAME_BYTES_MAX} bytes and no control characters: give it another one with AS"
        )));
    }
    Ok((name, expression))
}

/// Compiles a planned expression over the columns that are read. Returns the field of the result, too.
///
/// `n_nodes`: nodes of the expressions before it, to which it adds its own.
fn computed(
    state: &SessionState,
    expression: Expr,
    read: &SchemaRef,
    result_type: impl Fn(&DataType) -> DataType,
    n_nodes: &mut usize,
) -> Result<(Computed, Field), Problem> {
    let known = DFSchema::try_from(Arc::clone(read)).map_err(planning)?;
    let simplifier = ExprSimplifier::new(SimplifyContext::default());
    let coerced = simplifier.coerce(expression, &known).map_err(planning)?;
    // Types of nested parts are found by walking all of them, so this comes before anything is made.
    *n_nodes = n_nodes.saturating_add(nodes(&coerced).map_err(planning)?);
    check_nodes(*n_nodes)?;
    let compile = || -> DataFusionResult<_> {
        let expression = coerced.transform_up(as_case)?.data;
        let computed = state.create_physical_expr(expression, &known)?;
        let found = computed.data_type(read)?;
        let wanted = result_type(&found);
        let computed = match wanted == found {
            true => computed,
            false => cast(computed, read, wanted.clone())?,
        };
        Ok((computed, wanted))
    };
    let (expression, data_type) = compile().map_err(planning)?;
    let cost = Cost::of(&expression, read)?;
    let field = match expression.downcast_ref::<Column>() {
        Some(column) => read.field(column.index()).clone(),
        None => Field::new("", data_type, true),
    };
    Ok((Computed { expression, cost }, field))
}

/// Counts the nodes of an expression once it is compiled: BETWEEN and functions that become a CASE repeat what they
/// test, and nested ones repeat it at each level.
fn nodes(expression: &Expr) -> DataFusionResult<usize> {
    let mut parts = Vec::new();
    expression.apply_children(|part| {
        parts.push(nodes(part)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    let n_repeated = match expression {
        Expr::Between(_) => 1,
        Expr::ScalarFunction(call) if TESTED.contains(&call.func.name()) => {
            parts.len().saturating_sub(1)
        }
        _ => 0,
    };
    // A copy has a node above it, which tests it.
    let copies = parts.iter().take(n_repeated).map(|n| n.saturating_add(1));
    let all = parts.iter().copied().chain(copies);
    Ok(all.fold(1, usize::saturating_add))
}

/// Makes the CASE of a function that stands for one.
fn as_case(expression: Expr) -> DataFusionResult<Transformed<Expr>> {
    let ScalarFunction { func, args } = match expression {
        Expr::ScalarFunction(call) if CASES.contains(&call.func.name()) => call,
        other => return Ok(Transformed::no(other)),
    };
    Ok(match func.simplify(args, &SimplifyContext::default())? {
        ExprSimplifyResult::Simplified(case) => Transformed::yes(case),
        ExprSimplifyResult::Original(args) => {
            Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
    })
}

fn check_names(logical: &[(String, Expr)]) -> Result<(), Problem> {
    let names: Vec<&str> = logical.iter().map(|(name, _)| name.as_str()).collect();
    let is_twice = |(position, name): &(usize, &&str)| names[..*position].contains(*name);
    match names.iter().enumerate().find(is_twice) {
        None => Ok(()),
        Some((_, name)) => Err(invalid(format!(
            "two expressions are called `{name}`: give one of them another name with AS"
        ))),
    }
}

/// The problem of one expression of a list.
fn of_text(text: &str, mut problem: Problem) -> Problem {
    let start: String = text.chars().take(SHOWN_CHARS).collect();
    let dots = if start.len() < text.len() { ".." } else { "" };
    let detail = problem.detail.replacen("the statement", "it", 1);
    problem.detail = format!("expression `{start}{dots}`: {detail}");
    problem
}

fn unread(error: arrow::error::ArrowError) -> Problem {
    Problem::new(ErrorCode::InvalidJob, error.to_string())
}
