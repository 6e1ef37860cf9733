//! Orders of rows as bytes, by which a sorted stage's rows are dealt out to tasks.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, internal_err};
use datafusion::physical_expr::PhysicalSortExpr;
use weft_core::Problem;

use crate::error::problem;

/// Expressions by which rows are sorted, whose values become bytes that compare as the rows do.
#[derive(Debug, Clone)]
pub struct SortKeys {
    expressions: Vec<PhysicalSortExpr>,
    converter: Arc<RowConverter>,
}

impl SortKeys {
    /// Creates the keys of rows with `schema`.
    ///
    /// Errors: there is no expression, or one whose type is not compared as bytes.
    pub fn new(expressions: Vec<PhysicalSortExpr>, schema: &Schema) -> Result<Self> {
        if !fit(&expressions, schema)? {
            return internal_err!("rows that are shared by an order which bytes do not have");
        }
        let field = |one: &PhysicalSortExpr| {
            let data_type = one.expr.data_type(schema)?;
            Ok(SortField::new_with_options(data_type, one.options))
        };
        let fields = expressions.iter().map(field).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            converter: Arc::new(RowConverter::new(fields)?),
            expressions,
        })
    }

    pub(crate) fn expressions(&self) -> &[PhysicalSortExpr] {
        &self.expressions
    }

    /// Computes the key of one row. Bytes compare as keys do, and no key is the beginning of another one.
    pub fn key(&self, batch: &RecordBatch, row: usize) -> Result<Vec<u8>, Problem> {
        self.encoded(&batch.slice(row, 1)).map_err(problem)
    }

    fn encoded(&self, row: &RecordBatch) -> Result<Vec<u8>> {
        let value = |one: &PhysicalSortExpr| Ok(one.evaluate_to_sort_column(row)?.values);
        let values = self.expressions.iter().map(value);
        let values = values.collect::<Result<Vec<_>>>()?;
        let rows = self.converter.convert_columns(&values)?;
        Ok(rows.row(0).data().to_vec())
    }
}

/// Returns whether bytes have the order that sorts and merges give rows. Of nested values and dictionaries that is not
/// certain.
pub(crate) fn fit(expressions: &[PhysicalSortExpr], schema: &Schema) -> Result<bool> {
    for one in expressions {
        if !is_plain(&one.expr.data_type(schema)?) {
            return Ok(false);
        }
    }
    Ok(!expressions.is_empty())
}

fn is_plain(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(
        data_type,
        Boolean
            | Int8
            | Int16
            | Int32
            | Int64
            | UInt8
            | UInt16
            | UInt32
            | UInt64
            | Float16
            | Float32
            | Float64
            | Decimal32(..)
            | Decimal64(..)
            | Decimal128(..)
            | Decimal256(..)
            | Date32
            | Date64
            | Time32(_)
            | Time64(_)
            | Timestamp(..)
            | Duration(_)
            | Utf8
            | LargeUtf8
            | Utf8View
            | Binary
            | LargeBinary
            | BinaryView
            | FixedSizeBinary(_)
    )
}
