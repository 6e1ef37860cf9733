//! INSERT as it is written: a table, some of its columns, and a query.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Insert, Query, SelectItem, SetExpr, TableObject,
};
use weft_core::Problem;

use crate::command::{Command, name_of};
use crate::statement::{Shape, invalid};

/// The command of an INSERT that only adds rows.
///
/// Errors: `InvalidJob` for words that are not offered, `TooLarge` if the query is beyond a bound.
pub(crate) fn insert(insert: Insert) -> Result<Command, Problem> {
    let is_plain = insert.optimizer_hints.is_empty()
        && insert.or.is_none()
        && !insert.ignore
        && insert.table_alias.is_none()
        && !insert.overwrite
        && insert.assignments.is_empty()
        && insert.partitioned.is_none()
        && insert.after_columns.is_empty()
        && insert.on.is_none()
        && insert.returning.is_none()
        && insert.output.is_none()
        && !insert.replace_into
        && insert.priority.is_none()
        && insert.insert_alias.is_none()
        && insert.settings.is_none()
        && insert.format_clause.is_none()
        && insert.multi_table_insert_type.is_none();
    let (true, TableObject::TableName(name), Some(mut query)) =
        (is_plain, insert.table, insert.source)
    else {
        return Err(invalid(
            "rows are added by INSERT INTO name [(columns)] query, where the query may be VALUES (..), without other \
             words"
                .into(),
        ));
    };
    // It is walked from here on.
    Shape::of(&query)?;
    tell_apart(&mut query);
    let columns = insert.columns.into_iter().map(name_of);
    Ok(Command::Insert {
        name: name_of(name)?,
        columns: columns.collect::<Result<Vec<_>, _>>()?,
        query: query.to_string(),
    })
}

/// Gives a column of a SELECT an alias if another one has its name: rows are added by position, but a derived table
/// wants names that differ.
fn tell_apart(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let aliases = select.projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.to_lowercase()),
        _ => None,
    });
    let mut names: BTreeSet<String> = aliases.collect();
    for (position, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(expression) = item
            && !names.insert(name_in_rows(expression))
        {
            *item = SelectItem::ExprWithAlias {
                expr: expression.clone(),
                alias: Ident::with_quote('"', format!("value {}", position + 1)),
            };
        }
    }
}

/// The name of an expression's column, near enough: one that differs in case alone counts as the same.
fn name_in_rows(expression: &Expr) -> String {
    let name = match expression {
        Expr::CompoundIdentifier(parts) => parts.last().map(|part| part.value.clone()),
        Expr::Identifier(name) => Some(name.value.clone()),
        _ => None,
    };
    name.unwrap_or_else(|| expression.to_string())
        .to_lowercase()
}
