//! Conditions on the rows of Parquet files: row groups whose statistics rule them out are not read, other rows are tested one by one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Datum, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::cmp::{gt, gt_eq, lt, lt_eq};
use arrow::compute::{and, cast_with_options, or, prep_null_mask_filter};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderMetadata, RowFilter};
use weft_core::job::{Comparison, Operator};
use weft_core::{ErrorCode, Problem};

use super::EXACT;
use crate::untrusted::decode;

type Bound = Scalar<ArrayRef>;

/// A comparison with a value of the column's type. Null passes none, and NaN passes `!=` alone.
#[derive(Debug, Clone)]
struct Condition {
    /// Position among the file's columns.
    column: usize,
    operator: Operator,
    /// The value, from the least to the largest way to write it: of floats, zero has two.
    value: (Bound, Bound),
    /// Of floats, the infinities.
    range: Option<(Bound, Bound)>,
}

/// What all rows of a file that are read fulfil.
#[derive(Debug, Clone)]
pub(crate) struct Filter(Vec<Condition>);

fn scalar(text: &str, data_type: &DataType) -> Result<Bound, ArrowError> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![text]));
    cast_with_options(&text, data_type, &EXACT).map(Scalar::new)
}

impl Condition {
    fn new(column: usize, data_type: &DataType, wanted: &Comparison) -> Result<Self, String> {
        let unfit = |_| format!("`{}` is not a value of type {data_type}", wanted.value);
        if data_type.is_nested() {
            return Err("lists and structs cannot be compared".into());
        }
        let is_float = data_type.is_floating();
        let mut value = (wanted.value.as_str(), wanted.value.as_str());
        if is_float {
            let number: f64 = wanted.value.parse().unwrap_or(f64::NAN);
            if number.is_nan() {
                return Err(format!("`{}` is not a number", wanted.value));
            }
            if number == 0.0 {
                value = ("-0.0", "0.0");
            }
        }
        let pair = |(least, most)| Ok((scalar(least, data_type)?, scalar(most, data_type)?));
        let value = pair(value).map_err(|error: ArrowError| unfit(error))?;
        if value.0.get().0.is_null(0) {
            return Err(format!(
                "`{}` is not a value of type {data_type}",
                wanted.value
            ));
        }
        let range = is_float.then(|| pair(("-inf", "inf"))).transpose();
        Ok(Self {
            column,
            operator: wanted.operator,
            value,
            range: range.map_err(|error| error.to_string())?,
        })
    }

    fn passes(&self, values: &ArrayRef) -> Result<BooleanArray, ArrowError> {
        let (least, most) = &self.value;
        let passes = match self.operator {
            Operator::Equal => and(&gt_eq(values, least)?, &lt_eq(values, most)?),
            Operator::NotEqual => return or(&lt(values, least)?, &gt(values, most)?),
            Operator::Less => lt(values, least),
            Operator::LessOrEqual => lt_eq(values, most),
            Operator::Greater => gt(values, most),
            Operator::GreaterOrEqual => gt_eq(values, least),
        }?;
        match &self.range {
            None => Ok(passes),
            Some((least, most)) => {
                let is_number = and(&gt_eq(values, least)?, &lt_eq(values, most)?)?;
                and(&passes, &is_number)
            }
        }
    }

    /// False for each row group in which no row can pass, going by its least and largest value.
    fn may_pass(&self, least: &ArrayRef, most: &ArrayRef) -> Result<BooleanArray, ArrowError> {
        let (value_least, value_most) = &self.value;
        match self.operator {
            Operator::Equal => and(&lt_eq(least, value_most)?, &gt_eq(most, value_least)?),
            Operator::NotEqual => Ok(BooleanArray::from(vec![true; least.len()])),
            Operator::Less => lt(least, value_least),
            Operator::LessOrEqual => lt_eq(least, value_most),
            Operator::Greater => gt(most, value_most),
            Operator::GreaterOrEqual => gt_eq(most, value_least),
        }
    }
}

impl Filter {
    /// The conditions, for the columns of one file.
    pub(crate) fn new(
        path: &str,
        metadata: &ArrowReaderMetadata,
        wanted: &[Comparison],
    ) -> Result<Self, Problem> {
        let schema = metadata.schema();
        let condition = |wanted: &Comparison| {
            let column = schema.index_of(&wanted.column).map_err(|_| {
                format!(
                    "it has no column `{}`; it has {}",
                    wanted.column,
                    crate::schema::names(schema)
                )
            })?;
            Condition::new(column, schema.field(column).data_type(), wanted)
        };
        let conditions = wanted.iter().map(|wanted| {
            condition(wanted).map_err(|what| {
                let detail = format!("the filter `{wanted}` does not fit `{path}`: {what}");
                Problem::new(ErrorCode::SchemaMismatch, detail)
            })
        });
        conditions.collect::<Result<_, _>>().map(Self)
    }

    /// For each row group, whether rows in it may pass.
    pub(crate) fn row_groups(
        &self,
        path: &str,
        metadata: &ArrowReaderMetadata,
    ) -> Result<Vec<bool>, Problem> {
        let groups = metadata.metadata().row_groups();
        let mut read = vec![true; groups.len()];
        for condition in &self.0 {
            let judged = decode(|| {
                let name = metadata.schema().field(condition.column).name();
                let statistics = StatisticsConverter::try_new(
                    name,
                    metadata.schema(),
                    metadata.parquet_schema(),
                )?;
                let (least, most) = (
                    statistics.row_group_mins(groups)?,
                    statistics.row_group_maxes(groups)?,
                );
                let passes = condition.may_pass(&least, &most)?;
                Ok::<_, parquet::errors::ParquetError>(passes)
            });
            let judged = judged.map_err(|panic| super::parquet::broken(path, &panic))?;
            let judged = judged.map_err(|error| super::parquet::broken(path, &error))?;
            for (read, judged) in read.iter_mut().zip(judged.iter()) {
                // Where nothing is known, rows may pass.
                *read &= judged != Some(false);
            }
        }
        Ok(read)
    }

    /// The same conditions for the reader's rows; nothing where there are none.
    pub(super) fn row_filter(self, metadata: &ArrowReaderMetadata) -> Option<RowFilter> {
        if self.0.is_empty() {
            return None;
        }
        let columns = metadata.parquet_schema();
        let predicate = |condition: Condition| {
            let mask = ProjectionMask::roots(columns, [condition.column]);
            let passes = move |batch: RecordBatch| {
                let passes = condition.passes(batch.column(0))?;
                Ok(match passes.null_count() {
                    0 => passes,
                    _ => prep_null_mask_filter(&passes),
                })
            };
            Box::new(ArrowPredicateFn::new(mask, passes)) as _
        };
        Some(RowFilter::new(self.0.into_iter().map(predicate).collect()))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Float64Array};

    use super::*;

    fn passes(values: &ArrayRef, comparison: &str) -> Vec<bool> {
        let wanted: Comparison = comparison.parse().expect("a comparison");
        let condition = Condition::new(0, values.data_type(), &wanted).expect("it fits");
        let passes = condition.passes(values).expect("it compares");
        passes.iter().map(|passes| passes == Some(true)).collect()
    }

    #[test]
    fn floats_compare_as_numbers_do() {
        let values = [
            Some(-0.0),
            Some(0.0),
            Some(f64::NAN),
            Some(-f64::NAN),
            None,
            Some(1.5),
        ];
        let values: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let t = true;
        for (comparison, expected) in [
            ("x = 0", [t, t, !t, !t, !t, !t]),
            ("x != 0", [!t, !t, t, t, !t, t]),
            ("x < 0", [!t; 6]),
            ("x >= -0", [t, t, !t, !t, !t, t]),
            ("x > 0", [!t, !t, !t, !t, !t, t]),
            ("x <= 1.5", [t, t, !t, !t, !t, t]),
        ] {
            assert_eq!(passes(&values, comparison), expected, "{comparison}");
        }
    }

    #[test]
    fn values_are_read_in_the_type_of_the_column() {
        let days: ArrayRef = Arc::new(Date32Array::from(vec![0, 31]));
        assert_eq!(passes(&days, "day >= 1970-02-01"), [false, true]);
        for (comparison, data_type) in [
            ("day > soon", DataType::Date32),
            ("n > 1.5", DataType::Int64),
            ("n > 300", DataType::UInt8),
            ("x > nan", DataType::Float64),
        ] {
            let wanted: Comparison = comparison.parse().expect("a comparison");
            let error = Condition::new(0, &data_type, &wanted).expect_err("it does not fit");
            assert!(error.contains(&wanted.value), "{error}");
        }
    }
}
