//! INSERT as it is written: a table, some of its columns, and a query.

use datafusion::sql::sqlparser::ast::{Insert, TableObject};
use weft_core::Problem;

use crate::command::{Command, name_of, text_of};
use crate::statement::invalid;

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
    let (true, TableObject::TableName(name), Some(query)) = (is_plain, insert.table, insert.source)
    else {
        return Err(invalid(
            "rows are added by INSERT INTO name [(columns)] query, where the query may be VALUES (..), without other \
             words"
                .into(),
        ));
    };
    let columns = insert.columns.into_iter().map(name_of);
    Ok(Command::Insert {
        name: name_of(name)?,
        columns: columns.collect::<Result<Vec<_>, _>>()?,
        query: text_of(&query)?,
    })
}
