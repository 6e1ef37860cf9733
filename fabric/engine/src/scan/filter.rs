//! Conditions on the rows of Parquet files: row groups whose statistics rule them out are not read, other rows are tested one by one.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Datum, RecordBatch, Scalar, StringArray,
};
use arrow::compute::kernels::cmp::{gt, gt_eq, lt, lt_eq};
use arrow::compute::{and, cast_with_options, filter_record_batch, or};
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use weft_core::job::{Comparison, Operator};
use weft_core::{ErrorCode, Problem};
use weft_sandbox::type_name;

use super::EXACT;
use super::prune::Bounds;

type Bound = Scalar<ArrayRef>;

/// A comparison with a value of the column's type. Null passes none, and NaN passes `!=` alone.
#[derive(Debug, Clone)]
pub(super) struct Condition {
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

/// True where the column's type has no place for all digits of the value: comparing with another one would be wrong.
fn is_rounded(text: &str, data_type: &DataType, value: &Bound) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = fraction.find(|c: char| !c.is_ascii_digit());
    let fraction = &fraction[..digits.unwrap_or(fraction.len())];
    let digits = fraction.trim_end_matches('0').len();
    match data_type {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            let has_exponent = text.contains(['e', 'E']);
            has_exponent || digits > usize::try_from(*scale).unwrap_or(0)
        }
        DataType::Timestamp(TimeUnit::Second, _) => digits > 0,
        DataType::Timestamp(TimeUnit::Millisecond, _) => digits > 3,
        DataType::Timestamp(TimeUnit::Microsecond, _) => digits > 6,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => digits > 9,
        DataType::Float16 | DataType::Float32 => {
            let exact: f64 = text.parse().unwrap_or(f64::NAN);
            let rounded = cast_with_options(value.get().0, &DataType::Float64, &EXACT);
            let rounded = rounded.map_or(f64::NAN, |value| {
                value.as_primitive::<Float64Type>().value(0)
            });
            (rounded == 0.0 && exact != 0.0) || (rounded.is_infinite() && exact.is_finite())
        }
        _ => false,
    }
}

impl Condition {
    /// A comparison of any column with a value, which is not a float.
    pub(super) fn of_value(operator: Operator, value: Bound) -> Self {
        Self {
            column: 0,
            operator,
            value: (value.clone(), value),
            range: None,
        }
    }

    fn new(column: usize, data_type: &DataType, wanted: &Comparison) -> Result<Self, String> {
        let unfit = |_| {
            let expected = type_name(data_type);
            format!("`{}` is not a value of type {expected}", wanted.value)
        };
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
        if value.0.get().0.is_null(0) || is_rounded(&wanted.value, data_type, &value.0) {
            return Err(unfit(ArrowError::CastError(String::new())));
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

    /// False for each row group in which no row can pass, going by its least and largest value; null where these tell nothing.
    pub(super) fn may_pass(
        &self,
        least: &ArrayRef,
        most: &ArrayRef,
    ) -> Result<BooleanArray, ArrowError> {
        let may_pass = self.between(least, most)?;
        let Some((infinitely_small, infinitely_large)) = &self.range else {
            return Ok(may_pass);
        };
        // Some writers let NaN be the least or the largest value; it says nothing of the others.
        let mut known = BooleanArray::from(vec![true; may_pass.len()]);
        for bound in [least, most] {
            known = and(&known, &gt_eq(bound, infinitely_small)?)?;
            known = and(&known, &lt_eq(bound, infinitely_large)?)?;
        }
        let may_pass = may_pass.iter().zip(known.iter());
        Ok(may_pass
            .map(|(may_pass, known)| may_pass.filter(|_| known == Some(true)))
            .collect())
    }

    fn between(&self, least: &ArrayRef, most: &ArrayRef) -> Result<BooleanArray, ArrowError> {
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
        let mut read = vec![true; metadata.metadata().num_row_groups()];
        for condition in &self.0 {
            let bounds = Bounds::of(path, metadata, condition.column)?;
            let judged = bounds.may_fulfil(condition);
            let judged = judged.map_err(|error| super::parquet::broken(path, &error))?;
            read.iter_mut()
                .zip(judged)
                .for_each(|(read, judged)| *read &= judged);
        }
        Ok(read)
    }

    /// The columns that are asked about, by position in the file.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|condition| condition.column)
    }

    /// The rows that pass. `columns`: where the batch's columns stand in the file, ascending.
    pub(super) fn apply(
        &self,
        batch: RecordBatch,
        columns: &[usize],
    ) -> Result<RecordBatch, ArrowError> {
        let mut all: Option<BooleanArray> = None;
        for condition in &self.0 {
            let at = columns.partition_point(|column| *column < condition.column);
            let passes = condition.passes(batch.column(at))?;
            all = Some(match all {
                Some(all) => and(&all, &passes)?,
                None => passes,
            });
        }
        match all {
            Some(all) => filter_record_batch(&batch, &all),
            None => Ok(batch),
        }
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
    fn bounds_that_are_no_numbers_tell_nothing() {
        let wanted: Comparison = "x < 5".parse().expect("a comparison");
        let condition = Condition::new(0, &DataType::Float64, &wanted).expect("it fits");
        let least: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 6.0, 1.0]));
        let most: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 7.0, f64::NAN]));
        let judged = condition.may_pass(&least, &most).expect("it compares");
        assert_eq!(judged.iter().collect::<Vec<_>>(), [None, Some(false), None]);
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
            ("x > 1e-50", DataType::Float32),
            ("price > 1.005", DataType::Decimal128(10, 2)),
            (
                "at < 2024-01-01T00:00:00.5",
                DataType::Timestamp(TimeUnit::Second, None),
            ),
        ] {
            let wanted: Comparison = comparison.parse().expect("a comparison");
            let error = Condition::new(0, &data_type, &wanted).expect_err("it does not fit");
            assert!(error.contains(&wanted.value), "{error}");
        }
    }
}
