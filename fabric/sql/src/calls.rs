//! Calls of functions of components in a parsed statement.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::parser;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArguments, Ident, ObjectName, ObjectNamePart, VisitMut, VisitorMut,
};
use weft_core::job::function_name;

/// Finds the functions of components that a statement calls, as references, sorted. Their names in the statement
/// become those under which [`Session::with_functions`](crate::Session::with_functions) knows them.
pub(crate) fn take_calls(statement: &mut parser::Statement) -> Vec<String> {
    let mut calls = Calls::default();
    if let parser::Statement::Statement(statement) = statement {
        // It never breaks.
        let _ = statement.visit(&mut calls);
    }
    calls.references.into_iter().collect()
}

/// The name under which a planner knows the function that a reference names: `geo.km` for `geo/km`.
pub(crate) fn planned_name(reference: &str) -> String {
    reference.replacen('/', ".", 1)
}

#[derive(Default)]
struct Calls {
    references: BTreeSet<String>,
}

impl VisitorMut for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        // Columns such as `t.user` are parsed as functions without arguments.
        if let Expr::Function(function) = expression
            && function.args != FunctionArguments::None
            && let Some(reference) = reference(&function.name)
        {
            // DataFusion takes a qualified name as it is written, quotes and all.
            let name = Ident::with_quote('"', planned_name(&reference));
            function.name = ObjectName::from(vec![name]);
            self.references.insert(reference);
        }
        ControlFlow::Continue(())
    }
}

fn reference(name: &ObjectName) -> Option<String> {
    let [
        ObjectNamePart::Identifier(component),
        ObjectNamePart::Identifier(function),
    ] = &name.0[..]
    else {
        return None;
    };
    let part = |part: &Ident| function_name(&part.value, part.quote_style.is_some());
    Some(format!("{}/{}", part(component), part(function)))
}
