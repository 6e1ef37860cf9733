//! Tables as the planner sees them: a schema, estimates, and a scan that says what is to be read.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session as CatalogSession, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableType};

use crate::Plan;
use crate::leaf::{Leaf, TableRows};

/// A table that a statement may read.
#[derive(Debug, Clone)]
pub struct Table {
    /// Name by which the statement reads it; letters keep their case.
    pub name: String,
    /// Columns of its rows.
    pub schema: SchemaRef,
    /// Rows, as far as they are known or estimated.
    pub rows: Option<u64>,
    /// Bytes, as far as they are known or estimated.
    pub bytes: Option<u64>,
}

/// A table in the catalog of one statement. Scans of it have a slice for each task: a table with one slice would
/// satisfy every requirement, and no exchange would be planned.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) table: Table,
    /// Position among the statement's tables.
    pub(crate) position: usize,
    pub(crate) n_slices: usize,
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn CatalogSession,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Plan> {
        let whole = &self.table.schema;
        let schema = match projection {
            Some(columns) => Arc::new(whole.project(columns)?),
            None => Arc::clone(whole),
        };
        let columns = projection.map(|columns| match columns.is_empty() {
            // Rows are counted: text formats cannot read none of their columns.
            true => narrowest(whole).into_iter().collect(),
            false => columns.clone(),
        });
        let n_all = whole.fields().len().max(1) as u64;
        let n_read = schema.fields().len() as u64;
        let rows = TableRows {
            table: self.position,
            name: self.table.name.clone(),
            columns,
            limit,
            n_rows: self.table.rows,
            bytes: self.table.bytes.map(|bytes| bytes / n_all * n_read),
        };
        Ok(Leaf::table(rows, schema, self.n_slices))
    }
}

/// Position of the column that is cheapest to read.
fn narrowest(schema: &Schema) -> Option<usize> {
    let width = |column: &usize| {
        let data_type = schema.field(*column).data_type();
        data_type.primitive_width().unwrap_or(usize::MAX)
    };
    (0..schema.fields().len()).min_by_key(width)
}
