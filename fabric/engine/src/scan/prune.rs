//! Row groups and files that a statement's filters rule out, going by the least and the largest value of a column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion_common::ScalarValue;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::errors::ParquetError;
use weft_core::job::Operator;
use weft_core::{ErrorCode, Problem};
use weft_sql::{ScanFilter, Test};

use super::Inputs;
use super::filter::Condition;
use super::parquet::{broken, metadata as footer};
use crate::problems::internal;
use crate::untrusted::decode;

/// Values of a column in parts of a table: row groups of a file, or files whose folders say the value.
pub(crate) struct Bounds {
    /// Null where it is not known.
    least: ArrayRef,
    most: ArrayRef,
    /// False where old writers compared texts and unsigned numbers as if they were signed.
    trusted: Vec<bool>,
    nulls: Vec<Option<u64>>,
    rows: Vec<u64>,
}

impl Bounds {
    /// Reads the bounds of a column in each row group from the footer of a file.
    pub(super) fn of(
        path: &str,
        metadata: &ArrowReaderMetadata,
        column: usize,
    ) -> Result<Self, Problem> {
        let found = decode(|| Self::read(metadata, column));
        let found = found.map_err(|panic| broken(path, &panic))?;
        found.map_err(|error| broken(path, &error))
    }

    fn read(metadata: &ArrowReaderMetadata, column: usize) -> Result<Self, ParquetError> {
        let groups = metadata.metadata().row_groups();
        let name = metadata.schema().field(column).name();
        let statistics =
            StatisticsConverter::try_new(name, metadata.schema(), metadata.parquet_schema())?
                .with_missing_null_counts_as_zero(false);
        let leaf = statistics.parquet_column_index();
        let trusted = groups.iter().map(|group| {
            let statistics = leaf.and_then(|leaf| group.column(leaf).statistics());
            statistics.is_some_and(|found| !found.is_min_max_deprecated())
        });
        let rows = groups.iter().map(|group| group.num_rows());
        Ok(Self {
            least: statistics.row_group_mins(groups)?,
            most: statistics.row_group_maxes(groups)?,
            trusted: trusted.collect(),
            nulls: statistics.row_group_null_counts(groups)?.iter().collect(),
            rows: rows.map(|rows| u64::try_from(rows).unwrap_or(0)).collect(),
        })
    }

    /// Parts that hold one value each, which may be null.
    pub(crate) fn of_values(values: &ArrayRef) -> Self {
        let nulls = (0..values.len()).map(|row| Some(u64::from(values.is_null(row))));
        Self {
            least: Arc::clone(values),
            most: Arc::clone(values),
            trusted: vec![true; values.len()],
            nulls: nulls.collect(),
            rows: vec![1; values.len()],
        }
    }

    /// For each part, whether rows in it may fulfil a condition. Where nothing is known, they may.
    pub(super) fn may_fulfil(&self, condition: &Condition) -> Result<Vec<bool>, ArrowError> {
        let judged = condition.may_pass(&self.least, &self.most)?;
        let judged = judged.iter().zip(&self.trusted);
        let may_fulfil = judged.map(|(judged, trusted)| !(*trusted && judged == Some(false)));
        Ok(may_fulfil.collect())
    }

    /// For each part, whether rows in it may pass a filter.
    pub(crate) fn may_pass(&self, filter: &ScanFilter) -> Result<Vec<bool>, Problem> {
        let mut any = vec![false; self.rows.len()];
        for test in &filter.any {
            let judged = self.may_pass_test(test)?;
            any.iter_mut()
                .zip(judged)
                .for_each(|(any, judged)| *any |= judged);
        }
        Ok(any)
    }

    fn may_pass_test(&self, test: &Test) -> Result<Vec<bool>, Problem> {
        let parts = self.nulls.iter().zip(&self.rows);
        Ok(match test {
            Test::IsNull => parts.map(|(nulls, _)| *nulls != Some(0)).collect(),
            Test::IsNotNull => parts.map(|(nulls, rows)| *nulls != Some(*rows)).collect(),
            Test::Compare(operator, value) => {
                let judged = self.may_compare(*operator, value)?;
                let judged = judged.into_iter().zip(parts);
                // Null passes no comparison.
                judged
                    .map(|(judged, (nulls, rows))| judged && *nulls != Some(*rows))
                    .collect()
            }
        })
    }

    fn may_compare(&self, operator: Operator, value: &ScalarValue) -> Result<Vec<bool>, Problem> {
        let (least, most) = (in_utc(&self.least), in_utc(&self.most));
        // A file may have another type than the table, whose values compare otherwise.
        let data_type = value.data_type();
        if value.is_null() || *least.data_type() != data_type || *most.data_type() != data_type {
            return Ok(vec![true; self.rows.len()]);
        }
        let value = value.to_scalar().map_err(|error| {
            let text = error.to_string();
            Problem::new(ErrorCode::Internal, text)
        })?;
        let bounds = Self {
            least,
            most,
            trusted: self.trusted.clone(),
            nulls: Vec::new(),
            rows: Vec::new(),
        };
        let condition = Condition::of_value(operator, value);
        let judged = bounds.may_fulfil(&condition);
        judged.map_err(|error| internal(&error))
    }
}

/// Times without their zone, as statements see them: both count from 1970 in UTC.
fn in_utc(times: &ArrayRef) -> ArrayRef {
    match times.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            let times = times.as_primitive::<TimestampMicrosecondType>().clone();
            Arc::new(times.with_timezone_opt(None::<Arc<str>>))
        }
        _ => Arc::clone(times),
    }
}

/// For each row group of a Parquet file, whether rows in it may pass all filters, going by the footer.
pub(crate) fn row_groups(
    inputs: &Inputs,
    (path, bytes): (&str, u64),
    filters: &[&ScanFilter],
) -> Result<Vec<bool>, Problem> {
    let file = inputs.open(path, bytes)?;
    file.expect_end();
    let metadata = footer(path, &file)?;
    let mut read = vec![true; metadata.metadata().num_row_groups()];
    for filter in filters {
        // That a column is missing is for the reader to say.
        let Ok(column) = metadata.schema().index_of(&filter.column) else {
            continue;
        };
        let judged = Bounds::of(path, &metadata, column)?.may_pass(filter)?;
        read.iter_mut()
            .zip(judged)
            .for_each(|(read, judged)| *read &= judged);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    use super::*;

    fn filter(any: Vec<Test>) -> ScanFilter {
        ScanFilter {
            column: "n".into(),
            any,
        }
    }

    fn compare(operator: Operator, value: i64) -> Test {
        Test::Compare(operator, ScalarValue::Int64(Some(value)))
    }

    /// Which row groups of a file with the column `n` may pass, of two rows each.
    fn judged(column: ArrayRef, statistics: EnabledStatistics, filter: &ScanFilter) -> Vec<bool> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.parquet");
        let batch = RecordBatch::try_from_iter_with_nullable([("n", column, true)]);
        let batch = batch.expect("one column");
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(2))
            .set_statistics_enabled(statistics)
            .build();
        let file = std::fs::File::create(&path).expect("it is made");
        let writer = ArrowWriter::try_new(file, batch.schema(), Some(properties));
        let mut writer = writer.expect("a writer");
        writer.write(&batch).expect("it writes");
        writer.close().expect("it ends");
        let bytes = std::fs::metadata(&path).expect("it is there").len();
        let file = (path.to_str().expect("text"), bytes);
        row_groups(&Inputs::default(), file, &[filter]).expect("it has a footer")
    }

    /// Row groups of 1 and 2, 3 and null, null and null, 7 and 8.
    fn numbers() -> ArrayRef {
        let values = [
            Some(1),
            Some(2),
            Some(3),
            None,
            None,
            None,
            Some(7),
            Some(8),
        ];
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn check(any: Vec<Test>, expected: [bool; 4]) {
        let filter = filter(any);
        let found = judged(numbers(), EnabledStatistics::Chunk, &filter);
        assert_eq!(found, expected, "{filter}");
    }

    #[test]
    fn row_groups_are_judged_by_their_bounds() {
        let (t, f) = (true, false);
        check(vec![compare(Operator::Equal, 2)], [t, f, f, f]);
        check(vec![compare(Operator::Greater, 2)], [f, t, f, t]);
        check(vec![compare(Operator::GreaterOrEqual, 2)], [t, t, f, t]);
        check(vec![compare(Operator::Less, 3)], [t, f, f, f]);
        check(vec![compare(Operator::LessOrEqual, 3)], [t, t, f, f]);
        check(vec![compare(Operator::Equal, 100)], [f; 4]);
        let list = [1, 5, 8].map(|value| compare(Operator::Equal, value));
        check(list.to_vec(), [t, f, f, t]);
        check(vec![Test::IsNotNull], [t, t, f, t]);
        check(
            vec![compare(Operator::Equal, 1), Test::IsNull],
            [t, t, t, f],
        );
    }

    #[test]
    fn row_groups_of_which_nothing_is_known_are_read() {
        for test in [compare(Operator::Equal, 100), Test::IsNull, Test::IsNotNull] {
            let filter = filter(vec![test]);
            let found = judged(numbers(), EnabledStatistics::None, &filter);
            assert_eq!(found, [true; 4], "{filter}");
        }
    }

    #[test]
    fn values_of_another_type_rule_only_nulls_out() {
        let other = Test::Compare(Operator::Equal, ScalarValue::Int32(Some(100)));
        check(vec![other], [true, true, false, true]);
    }

    #[test]
    fn times_with_a_zone_compare_in_utc() {
        let times = TimestampMicrosecondArray::from(vec![10, 20, 30, 40]).with_timezone("+02:00");
        let value = ScalarValue::TimestampMicrosecond(Some(20), None);
        let filter = filter(vec![Test::Compare(Operator::LessOrEqual, value)]);
        let found = judged(Arc::new(times), EnabledStatistics::Chunk, &filter);
        assert_eq!(found, [true, false]);
    }
}
