//! Unions: rows of several inputs and stages, one after the other.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use weft_core::job::StageSpec;
use weft_core::{ErrorCode, Problem};
use weft_sql::Table;

use super::Planner;
use super::sql::SqlWork;
use super::sql_functions::SqlFunctions;
use super::stages::Outlet;

impl Planner<'_> {
    /// Adds a stage with the rows of all that `from` names, in the columns of the first.
    pub(super) async fn union(
        &mut self,
        stage: &StageSpec,
        from: &[String],
        partitions: Option<u32>,
        outlets: &BTreeMap<&str, Outlet>,
    ) -> Result<Outlet, Problem> {
        let of_stage = |mut problem: Problem| {
            problem.detail = format!("stage `{}`: {}", stage.name, problem.detail);
            problem
        };
        let work = SqlWork {
            sql: "",
            from,
            folder: None,
            partitions,
        };
        let read = self.relations(&work, from.to_vec(), outlets).await;
        let (relations, origins) = read.map_err(of_stage)?;
        let text = statement(&relations.tables).map_err(of_stage)?;
        let statement = self.parse(&text).await.map_err(of_stage)?;
        let read = (relations, origins);
        let planned = self.plan_sql(&self.session, stage, statement, read, partitions);
        let (planned, origins) = planned.await.map_err(of_stage)?;
        // The statement is ours, and calls none.
        let functions = SqlFunctions::default();
        self.add_sql(stage, planned, &origins, &functions)
            .map_err(of_stage)
    }
}

/// The statement that reads tables one after the other. Columns are told by name, wherever they stand.
fn statement(tables: &[Table]) -> Result<String, Problem> {
    let Some((first, others)) = tables.split_first() else {
        return Err(Problem::new(ErrorCode::Internal, "a union of nothing"));
    };
    for other in others {
        check(first, other)?;
        check(other, first)?;
    }
    let columns: Vec<String> = first
        .schema
        .fields()
        .iter()
        .map(|field| quoted(field.name()))
        .collect();
    let columns = columns.join(", ");
    let selects = tables
        .iter()
        .map(|table| format!("SELECT {columns} FROM {}", quoted(&table.name)));
    Ok(selects.collect::<Vec<_>>().join(" UNION ALL "))
}

/// Refuses a column that one table has and the other lacks: its values would be lost, or made up.
fn check(has: &Table, lacks: &Table) -> Result<(), Problem> {
    let is_there = |schema: &SchemaRef, name: &str| schema.column_with_name(name).is_some();
    let mut fields = has.schema.fields().iter();
    match fields.find(|field| !is_there(&lacks.schema, field.name())) {
        None => Ok(()),
        Some(field) => Err(Problem::new(
            ErrorCode::SchemaMismatch,
            format!(
                "`{}` has a column `{}` and `{}` has none; write the union in SQL to leave it out or fill it in",
                has.name,
                field.name(),
                lacks.name
            ),
        )),
    }
}

/// A name as SQL keeps its case.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn table(name: &str, columns: &[&str]) -> Table {
        let fields = columns
            .iter()
            .map(|name| Field::new(*name, DataType::Int64, true));
        Table {
            name: name.into(),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            rows: None,
            bytes: None,
            columns: Vec::new(),
        }
    }

    #[test]
    fn columns_are_told_by_name() {
        let tables = [
            table("a", &["x", "Y \"y\""]),
            table("b-c", &["Y \"y\"", "x"]),
        ];
        assert_eq!(
            statement(&tables).expect("the same columns"),
            r#"SELECT "x", "Y ""y""" FROM "a" UNION ALL SELECT "x", "Y ""y""" FROM "b-c""#
        );
    }

    #[test]
    fn a_column_that_is_not_everywhere_is_refused() {
        for (first, second) in [(&["x", "y"][..], &["x"][..]), (&["x"], &["x", "y"])] {
            let problem =
                statement(&[table("a", first), table("b", second)]).expect_err("`y` is missing");
            assert_eq!(problem.code, ErrorCode::SchemaMismatch);
            assert!(problem.detail.contains("a column `y`"), "{problem}");
        }
    }
}
