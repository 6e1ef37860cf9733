//! Estimates of what planning adds to expressions: some are rewritten into forms that repeat a part of them, and
//! nested ones repeat it again at each level.

use datafusion::sql::sqlparser::ast::{
    CaseWhen, Expr, Function, ObjectNamePart, Value, ValueWithSpan,
};

/// Functions that become a CASE, which tests each value and gives it.
const TESTED: [&str; 3] = ["coalesce", "nvl", "ifnull"];
/// A CASE with fewer conditions, or with fewer literals of one kind, may become a formula of AND and OR.
const FORMULA_CONDITIONS: usize = 3;

/// Counts what planning adds, expression by expression, as a visitor meets them.
#[derive(Default)]
pub(crate) struct Expansion {
    open: Vec<Open>,
    n_added: usize,
}

/// An expression whose parts are visited.
#[derive(Default)]
struct Open {
    /// Parts as they are written, nested ones included.
    n_written: usize,
    /// Sizes of the parts after rewriting, in their order.
    sizes: Vec<usize>,
}

impl Expansion {
    pub(crate) fn enter(&mut self) {
        self.open.push(Open::default());
    }

    pub(crate) fn leave(&mut self, expression: &Expr) {
        let Open { n_written, sizes } = self.open.pop().unwrap_or_default();
        let n_written = n_written.saturating_add(1);
        let repeated = repeated(expression, &sizes);
        let size = sum(sizes.iter().copied())
            .saturating_add(repeated)
            .saturating_add(1);
        match self.open.last_mut() {
            Some(outer) => {
                outer.n_written = outer.n_written.saturating_add(n_written);
                outer.sizes.push(size);
            }
            None => {
                let added = size.saturating_sub(n_written);
                self.n_added = self.n_added.saturating_add(added);
            }
        }
    }

    /// Parts that planning adds at most to the expressions that were visited.
    pub(crate) fn n_added(&self) -> usize {
        self.n_added
    }
}

fn sum(sizes: impl Iterator<Item = usize>) -> usize {
    sizes.fold(0, usize::saturating_add)
}

/// Sizes of the copies that rewriting an expression makes of its parts, which have these sizes.
fn repeated(expression: &Expr, sizes: &[usize]) -> usize {
    match expression {
        // It becomes two comparisons of its first part.
        Expr::Between { .. } => sizes.first().map_or(0, |tested| tested.saturating_add(2)),
        Expr::Function(function) if is_tested(function) => {
            let tested = sizes.split_last().map_or(&[][..], |(_, tested)| tested);
            // The CASE may become a formula in turn, which repeats its conditions.
            let n = match tested.len() < FORMULA_CONDITIONS {
                true => tested.len() + 1,
                false => 1,
            };
            sum(tested.iter().map(|size| size.saturating_add(1))).saturating_mul(n)
        }
        Expr::Case {
            operand: None,
            conditions,
            ..
        } if is_formula(conditions) => {
            // A condition is negated for each later one, and for what ELSE gives. Results stand between conditions.
            let n = conditions.len();
            let tested = sizes.iter().step_by(2).take(n).enumerate();
            sum(tested.map(|(position, size)| size.saturating_mul(n - position)))
        }
        _ => 0,
    }
}

fn is_tested(function: &Function) -> bool {
    match &function.name.0[..] {
        [ObjectNamePart::Identifier(name)] => TESTED
            .iter()
            .any(|known| name.value.eq_ignore_ascii_case(known)),
        _ => false,
    }
}

/// Whether a CASE may become a formula, if its results are true or false.
fn is_formula(conditions: &[CaseWhen]) -> bool {
    let literal = |case: &CaseWhen| match &case.result {
        Expr::Value(ValueWithSpan {
            value: Value::Boolean(value),
            ..
        }) => Some(*value),
        _ => None,
    };
    let n_of = |wanted| {
        let of_kind = conditions
            .iter()
            .filter(|case| literal(case) == Some(wanted));
        of_kind.count()
    };
    let (n_true, n_false) = (n_of(true), n_of(false));
    let is_short = conditions.len() < FORMULA_CONDITIONS;
    let are_literals = n_true + n_false == conditions.len();
    is_short || are_literals && n_true.min(n_false) < FORMULA_CONDITIONS
}
