//! DESCRIBE and SHOW COLUMNS: the query whose columns they list.

use datafusion::sql::sqlparser::ast::{
    DescribeAlias, ShowStatementIn, ShowStatementInParentType, ShowStatementOptions, Statement,
};
use weft_core::Problem;

use crate::command::text_of;
use crate::statement::invalid;

/// Returns the text of the query that a statement describes. Nothing if it describes none.
///
/// Errors: `InvalidJob` for words that are not offered, `TooLarge` if the query is beyond a bound.
pub(crate) fn described(statement: Statement) -> Result<Option<String>, Problem> {
    match statement {
        Statement::ExplainTable {
            describe_alias: DescribeAlias::Explain,
            ..
        }
        | Statement::Explain {
            describe_alias: DescribeAlias::Explain,
            ..
        } => Ok(None),
        Statement::ExplainTable {
            hive_format: None,
            table_name,
            ..
        } => Ok(Some(format!("SELECT * FROM {table_name}"))),
        Statement::Explain {
            analyze: false,
            verbose: false,
            query_plan: false,
            estimate: false,
            format: None,
            options: None,
            statement,
            ..
        } => match *statement {
            Statement::Query(query) => text_of(&query).map(Some),
            _ => Err(not_offered()),
        },
        Statement::ShowColumns {
            extended: false,
            full: false,
            show_options:
                ShowStatementOptions {
                    show_in:
                        Some(ShowStatementIn {
                            parent_type:
                                None
                                | Some(
                                    ShowStatementInParentType::Table
                                    | ShowStatementInParentType::View,
                                ),
                            parent_name: Some(name),
                            ..
                        }),
                    starts_with: None,
                    limit: None,
                    limit_from: None,
                    filter_position: None,
                },
        } => Ok(Some(format!("SELECT * FROM {name}"))),
        _ => Err(not_offered()),
    }
}

fn not_offered() -> Problem {
    invalid(
        "columns are listed by DESCRIBE name, DESCRIBE query, or SHOW COLUMNS FROM name, without other words: leave \
         them out"
            .into(),
    )
}
