//! Columns whose values stand in the names of the folders that files lie in: `year=2026/month=11/`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion_common::ScalarValue;
use serde::{Deserialize, Serialize};

use crate::scan::date32;
use crate::sink::NULL_FOLDER;

/// Such columns of the splits of a leaf.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FolderColumns {
    #[serde(with = "crate::schema")]
    pub(crate) schema: SchemaRef,
    /// For each split, a text for each column; nothing where it is null.
    pub(crate) values: Vec<Vec<Option<String>>>,
}

impl FolderColumns {
    /// The rows of a split with these columns behind their own.
    pub(crate) fn append(
        &self,
        batch: &RecordBatch,
        split: usize,
    ) -> Result<RecordBatch, ArrowError> {
        let n = batch.num_rows();
        let texts = self.values.get(split).map(Vec::as_slice);
        let texts = texts.filter(|texts| texts.len() == self.schema.fields().len());
        let lacks = || ArrowError::SchemaError(format!("split {split} lacks values of folders"));
        let texts = texts.ok_or_else(lacks)?;
        let mut columns = batch.columns().to_vec();
        for (field, text) in self.schema.fields().iter().zip(texts) {
            columns.push(column(text.as_deref(), field.data_type(), n)?);
        }
        let whole = batch.schema();
        let fields = whole.fields().iter().chain(self.schema.fields());
        let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        RecordBatch::try_new_with_options(schema, columns, &options)
    }
}

/// A column of one value.
fn column(text: Option<&str>, data_type: &DataType, n: usize) -> Result<ArrayRef, ArrowError> {
    let unfit = || ArrowError::CastError(format!("{text:?} is not a valid {data_type}"));
    let value = value(text, data_type).ok_or_else(unfit)?;
    let column = value.to_array_of_size(n);
    column.map_err(|error| ArrowError::ComputeError(error.to_string()))
}

/// The value that a folder's name says, in the type of its column. Nothing if it is not one of that type.
pub(crate) fn value(text: Option<&str>, data_type: &DataType) -> Option<ScalarValue> {
    Some(match (data_type, text) {
        (DataType::Int64, None) => ScalarValue::Int64(None),
        (DataType::Int64, Some(text)) => ScalarValue::Int64(Some(whole(text)?)),
        (DataType::Date32, None) => ScalarValue::Date32(None),
        (DataType::Date32, Some(text)) => ScalarValue::Date32(Some(date32(text)?)),
        (_, text) => ScalarValue::Utf8(text.map(str::to_owned)),
    })
}

/// The type that all values of a column have; text if they have no other one, or are all null.
pub(crate) fn data_type<'a>(values: impl Iterator<Item = &'a str> + Clone) -> DataType {
    let all = |fits: fn(&str) -> bool| values.clone().all(fits);
    if values.clone().next().is_none() {
        DataType::Utf8
    } else if all(|text| whole(text).is_some()) {
        DataType::Int64
    } else if all(|text| date32(text).is_some()) {
        DataType::Date32
    } else {
        DataType::Utf8
    }
}

/// A whole number. Zeros may stand in front, as in `month=07`.
fn whole(text: &str) -> Option<i64> {
    match text.starts_with('+') {
        true => None,
        false => text.parse().ok(),
    }
}

/// The value that stands behind `name=` in the name of a folder. Nothing for null.
pub(crate) fn decoded(value: &str) -> Option<String> {
    (value != NULL_FOLDER).then(|| without_escapes(value))
}

/// A text whose bytes may be escaped as in URIs, `%20`. As it is if that makes no UTF-8.
pub(crate) fn without_escapes(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let is_code = |two: &&str| two.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = part.get(..2).filter(is_code);
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn columns_have_the_type_of_all_values() {
        let check = |values: &[&str], expected: DataType| {
            assert_eq!(data_type(values.iter().copied()), expected, "{values:?}");
        };
        check(&["2025", "-7", "07"], DataType::Int64);
        check(&["2025", "x"], DataType::Utf8);
        check(&["+5"], DataType::Utf8);
        check(&["99999999999999999999"], DataType::Utf8);
        check(&["2026-11-20", "2026-02-28"], DataType::Date32);
        check(&["2026-11-20", "2026-02-30"], DataType::Utf8);
        check(&["2026-11-20", "5"], DataType::Utf8);
        check(&[""], DataType::Utf8);
        check(&[], DataType::Utf8);
    }

    #[test]
    fn names_of_folders_are_decoded() {
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(decoded(value).as_deref(), expected, "{value}");
        };
        check("a%20b%2Fc", Some("a b/c"));
        check("M%C3%BCnchen", Some("München"));
        check("München", Some("München"));
        check("100%", Some("100%"));
        check("%zz%4", Some("%zz%4"));
        check("%ff", Some("%ff"));
        check("__HIVE_DEFAULT_PARTITION__", None);
        check(
            "%5F_HIVE_DEFAULT_PARTITION__",
            Some("__HIVE_DEFAULT_PARTITION__"),
        );
    }

    #[test]
    fn columns_of_folders_follow_those_of_files() {
        let fields = vec![
            Field::new("year", DataType::Int64, true),
            Field::new("day", DataType::Date32, true),
            Field::new("city", DataType::Utf8, true),
        ];
        let text = |text: &str| Some(text.to_owned());
        let folders = FolderColumns {
            schema: Arc::new(Schema::new(fields)),
            values: vec![
                vec![text("2026"), text("1970-01-02"), text("Rome")],
                vec![None, None, None],
                vec![text("x"), None, None],
            ],
        };
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).expect("a column");
        let first = folders.append(&batch, 0).expect("it has values");
        assert_eq!(first.num_columns(), 4);
        assert_eq!(
            first.column(1),
            &(Arc::new(Int64Array::from(vec![2026; 2])) as ArrayRef)
        );
        let cities = StringArray::from(vec!["Rome"; 2]);
        assert_eq!(first.column(3), &(Arc::new(cities) as ArrayRef));
        let second = folders.append(&batch, 1).expect("it has values");
        assert!((1..4).all(|column| second.column(column).null_count() == 2));
        assert_eq!(second.schema(), first.schema());
        for split in [2, 3] {
            assert!(folders.append(&batch, split).is_err(), "split {split}");
        }
    }
}
