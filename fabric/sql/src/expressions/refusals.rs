//! Texts of expressions, parsed, and what is refused because of what it is: nothing that needs more than one row, or
//! that has another value each time.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::parser::DFParserBuilder;
use datafusion::sql::sqlparser::ast::{
    Expr, ExprWithAlias, Function, FunctionArguments, ObjectNamePart, Query, Visit, Visitor,
};
use weft_core::{ErrorCode, Problem};

use crate::error::planning;
use crate::statement::{invalid, tokens};

/// Words and operators of one expression.
const WORDS_MAX: usize = 1_000;
/// Levels of one expression as it is written. Whoever evaluates it recurses as deep.
const LEVELS_MAX: usize = 48;

/// Functions whose value differs from call to call, or from attempt to attempt of a task.
const VOLATILE: [&str; 9] = [
    "random",
    "rand",
    "uuid",
    "now",
    "today",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtimestamp",
];

/// Parses one expression, which may have a name.
///
/// Errors: `InvalidJob` if it is none or is refused, `TooLarge` if it is too long or nests too deeply.
pub(super) fn parse(state: &SessionState, text: &str) -> Result<ExprWithAlias, Problem> {
    let (tokens, n_words) = tokens(text)?;
    if n_words > WORDS_MAX {
        let detail = format!("it has {n_words} words and operators, of at most {WORDS_MAX}");
        return Err(Problem::new(ErrorCode::TooLarge, detail));
    }
    let mut parser = DFParserBuilder::new(tokens).build().map_err(planning)?;
    let parsed = parser.parse_into_expr().map_err(planning)?;
    let mut refusals = Refusals { state, levels: 0 };
    match parsed.expr.visit(&mut refusals) {
        ControlFlow::Break(problem) => Err(*problem),
        ControlFlow::Continue(()) => Ok(parsed),
    }
}

struct Refusals<'a> {
    state: &'a SessionState,
    levels: usize,
}

fn refuse(detail: String) -> ControlFlow<Box<Problem>> {
    ControlFlow::Break(Box::new(invalid(detail)))
}

impl Refusals<'_> {
    fn check(&self, function: &Function) -> ControlFlow<Box<Problem>> {
        if function.over.is_some() {
            return refuse(format!(
                "`{}` is called over a window, which needs other rows: use a stage of SQL",
                function.name
            ));
        }
        let [ObjectNamePart::Identifier(name)] = &function.name.0[..] else {
            // Columns such as `t.user` are parsed as functions without arguments.
            return match function.args {
                FunctionArguments::None => ControlFlow::Continue(()),
                _ => refuse(format!(
                    "`{}` is a function of a component, which runs in a sandbox: call it in a stage of SQL",
                    function.name
                )),
            };
        };
        let name = name.value.to_ascii_lowercase();
        if VOLATILE.contains(&name.as_str()) {
            return refuse(format!(
                "`{name}` has another value each time, and equal inputs must give equal outputs: pass a param"
            ));
        }
        let is_scalar = self.state.scalar_functions().contains_key(&name);
        if !is_scalar && self.state.aggregate_functions().contains_key(&name) {
            return refuse(format!(
                "`{name}` is an aggregate, which needs other rows: use a reduce, or a stage of SQL"
            ));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Refusals<'_> {
    type Break = Box<Problem>;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Self::Break> {
        refuse("it has a subquery, and there are no tables: use a stage of SQL".to_owned())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Self::Break> {
        self.levels += 1;
        if self.levels > LEVELS_MAX {
            let detail = format!(
                "it has more than {LEVELS_MAX} levels: evaluate a part of it first, or write an IN list"
            );
            return ControlFlow::Break(Box::new(Problem::new(ErrorCode::TooLarge, detail)));
        }
        match expression {
            Expr::Function(function) => self.check(function),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, _expression: &Expr) -> ControlFlow<Self::Break> {
        self.levels -= 1;
        ControlFlow::Continue(())
    }
}
