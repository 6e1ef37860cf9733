//! Tables as the planner sees them: a schema, estimates, and a scan that says what is to be read.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session as CatalogSession, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};

use crate::Plan;
use crate::filters::filters_of;
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
    /// Bytes, as far as they are known or estimated, of rows in memory.
    pub bytes: Option<u64>,
    /// Estimates for each column; none if nothing is known.
    pub columns: Vec<TableColumn>,
}

/// Estimates for a column of a table. They decide how a statement is run, never what it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableColumn {
    /// Bytes of its values in memory.
    pub bytes: Option<u64>,
    /// Number of nulls.
    pub nulls: Option<u64>,
    /// Number of different values, at most.
    pub distinct: Option<u64>,
    /// A condition on the column may spare a scan some of the files, or parts of them.
    pub prunes: bool,
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

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match filters_of(filter, &self.table).is_empty() {
            true => TableProviderFilterPushDown::Unsupported,
            // Files and row groups are left out, single rows are not: the plan goes on testing them.
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _session: &dyn CatalogSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
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
        let filters = filters.iter();
        let filters = filters.flat_map(|filter| filters_of(filter, &self.table));
        let known = self.table.known(projection);
        let rows = TableRows {
            table: self.position,
            name: self.table.name.clone(),
            columns,
            filters: filters.collect(),
            limit,
            n_rows: self.table.rows,
            bytes: self.table.bytes_of(&known, schema.fields().len()),
            known,
        };
        Ok(Leaf::table(rows, schema, self.n_slices))
    }
}

impl Table {
    /// Estimates for some of the columns, or for all.
    fn known(&self, projection: Option<&Vec<usize>>) -> Vec<TableColumn> {
        match projection {
            Some(columns) => {
                let known = columns
                    .iter()
                    .filter_map(|column| self.columns.get(*column));
                known.copied().collect()
            }
            None => self.columns.clone(),
        }
    }

    /// Bytes of some of the columns: what they are known to have, or their share of all.
    fn bytes_of(&self, known: &[TableColumn], n_columns: usize) -> Option<u64> {
        let mut each = known.iter().map(|column| column.bytes);
        match each.try_fold(0, |all: u64, bytes| Some(all.saturating_add(bytes?))) {
            Some(bytes) if known.len() == n_columns && !self.columns.is_empty() => Some(bytes),
            _ => {
                let n_all = self.schema.fields().len().max(1) as u64;
                self.bytes.map(|bytes| bytes / n_all * n_columns as u64)
            }
        }
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
