//! DESCRIBE: a statement is planned for its columns alone, and a query over constants lists them.

use arrow::datatypes::Schema;
use weft_core::job::StageSpec;
use weft_core::{ErrorCode, Problem};
use weft_sandbox::type_name;
use weft_sql::{Relations, SqlStage};

use super::Planner;
use super::sql::passed_on;

impl Planner<'_> {
    /// Plans the query that lists the columns of a planned one, whose tables are not read.
    pub(super) async fn described(
        &mut self,
        stage: &StageSpec,
        planned: &[SqlStage],
    ) -> Result<Vec<SqlStage>, Problem> {
        let Some(last) = planned.last() else {
            let detail = "a statement was cut into no stage";
            return Err(Problem::new(ErrorCode::Internal, detail));
        };
        let schema = passed_on(&last.schema)?;
        let listing = listing(&schema);
        self.counted.clear();
        self.input_bytes = 0;
        let statement = self.parse(&listing).await?;
        let nothing = (Relations::default(), Vec::new());
        let planned = self.plan_sql(&self.session, stage, statement, nothing, None);
        Ok(planned.await?.0)
    }
}

/// The query that lists columns, in their order.
fn listing(schema: &Schema) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let fields = schema.fields().iter().enumerate();
    let rows = fields.map(|(position, field)| {
        let name = quoted(field.name());
        let data_type = quoted(&type_name(field.data_type()));
        format!("({position}, {name}, {data_type}, {})", field.is_nullable())
    });
    let rows: Vec<String> = rows.collect();
    let columns = "\"name\", \"type\", \"nullable\"";
    match rows.is_empty() {
        true => {
            "SELECT '' AS \"name\", '' AS \"type\", true AS \"nullable\" WHERE false".to_owned()
        }
        false => format!(
            "SELECT {columns} FROM (VALUES {}) AS t (\"position\", {columns}) ORDER BY \"position\"",
            rows.join(", ")
        ),
    }
}
