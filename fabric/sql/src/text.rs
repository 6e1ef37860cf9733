//! Plans of stages as lines of text, for people.

use std::fmt;

use datafusion::physical_expr_common::physical_expr::fmt_sql;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};
use weft_protocol::plan_line;

use crate::Plan;
use crate::cut::Target;
use crate::leaf::Leaf;

/// One operator of a stage's plan, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanLine {
    /// Number of operators above it.
    pub depth: usize,
    /// The operator with its expressions; of a leaf over another stage, how the rows of that stage are read.
    pub text: String,
    /// Position of the stage that a leaf reads, among those that were returned with this one.
    pub reads: Option<usize>,
}

impl PlanLine {
    /// Formats the line, indented. `name` names the stage at a position.
    pub fn show(&self, name: impl FnOnce(usize) -> String) -> String {
        let indent = "  ".repeat(self.depth);
        match self.reads {
            Some(stage) => format!("{indent}Read: {}, {}", name(stage), self.text),
            None => format!("{indent}{}", self.text),
        }
    }
}

/// The operators of a plan from the top, each before its inputs.
pub(crate) fn operators(plan: &Plan) -> Vec<PlanLine> {
    let mut lines = Vec::new();
    add(plan, 0, &mut lines);
    lines
}

fn add(plan: &Plan, depth: usize, lines: &mut Vec<PlanLine>) {
    let read = plan.downcast_ref::<Leaf>().and_then(Leaf::stage_read);
    lines.push(match read {
        Some((stage, how)) => PlanLine {
            depth,
            text: how.to_owned(),
            reads: Some(stage),
        },
        None => PlanLine {
            depth,
            text: plan_line(Operator(plan.as_ref())),
            reads: None,
        },
    });
    for child in plan.children() {
        add(child, depth + 1, lines);
    }
}

/// The expressions by whose hash rows are placed.
pub(crate) fn keys(target: &Target) -> Vec<String> {
    match target {
        Target::Hash(keys, _) => {
            let keys = keys.iter();
            keys.map(|key| plan_line(fmt_sql(key.as_ref()))).collect()
        }
        Target::Single | Target::Result => Vec::new(),
    }
}

/// Displays one node of a plan without its inputs.
struct Operator<'a>(&'a dyn ExecutionPlan);

impl fmt::Display for Operator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(DisplayFormatType::Default, f)
    }
}
