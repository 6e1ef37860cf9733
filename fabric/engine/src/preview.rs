//! The first rows of an output folder, as text.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weft_store::{MANIFEST, Manifest, read_manifest};

use crate::sink::{NULL_FOLDER, unescaped};

/// A row: the text of each value, nothing where it is null.
pub type TextRow = Vec<Option<String>>;

/// Reads the manifest of `folder` and the first `rows` rows of its files, with a value for each column of its schema.
///
/// Errors are for people: no manifest (the output is not published), or a file that cannot be read.
pub fn preview(folder: &Path, rows: usize) -> Result<(Manifest, Vec<TextRow>), String> {
    let manifest = read_manifest(folder).map_err(|error| error.to_string())?;
    let manifest = manifest.ok_or_else(|| {
        format!(
            "`{}` has no manifest `{MANIFEST}`: the folder is not a published output",
            folder.display()
        )
    })?;
    let mut table = Vec::new();
    for file in &manifest.files {
        let left = rows.saturating_sub(table.len());
        if left == 0 {
            break;
        }
        let part = Part {
            manifest: &manifest,
            folders: folders(&file.name),
            path: &folder.join(file.key()),
        };
        part.read(left, &mut table)?;
    }
    Ok((manifest, table))
}

/// What a file's folders say of all its rows: `day=2026-11-20/part-0.parquet`.
pub(crate) fn folders(name: &str) -> HashMap<String, Option<String>> {
    let folders = name.split('/').filter_map(|part| part.split_once('='));
    let value = |value: &str| (value != NULL_FOLDER).then(|| unescaped(value));
    folders
        .map(|(name, text)| (unescaped(name), value(text)))
        .collect()
}

/// One file of an output.
struct Part<'a> {
    manifest: &'a Manifest,
    folders: HashMap<String, Option<String>>,
    path: &'a Path,
}

impl Part<'_> {
    /// Reads up to `rows` rows.
    fn read(&self, rows: usize, table: &mut Vec<TextRow>) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("`{}`: {error}", self.path.display());
        let open = || File::open(self.path).map_err(|error| failed(&error));
        let file = open()?;
        let batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>> =
            match self.manifest.format.as_str() {
                "csv" => {
                    let format = arrow_csv::reader::Format::default().with_header(true);
                    let (header, _) = format
                        .infer_schema(open()?, Some(0))
                        .map_err(|error| failed(&error))?;
                    let names = header.fields().iter().map(|field| field.name());
                    let fields = names.map(|name| Field::new(name, DataType::Utf8, true));
                    let schema = Arc::new(Schema::new(fields.collect::<Fields>()));
                    let reader = arrow_csv::ReaderBuilder::new(schema)
                        .with_header(true)
                        .with_batch_size(rows)
                        .build(file);
                    Box::new(reader.map_err(|error| failed(&error))?)
                }
                "json" => {
                    let read = self.read_json(BufReader::new(file), rows, table);
                    return read.map_err(|error| failed(&error));
                }
                "arrow" => {
                    let reader = FileReader::try_new(BufReader::new(file), None);
                    Box::new(reader.map_err(|error| failed(&error))?)
                }
                _ => {
                    let builder = ParquetRecordBatchReaderBuilder::try_new(file);
                    let builder = builder
                        .map_err(|error| failed(&error))?
                        .with_batch_size(rows);
                    Box::new(builder.build().map_err(|error| failed(&error))?)
                }
            };
        let enough = table.len() + rows;
        for batch in batches {
            let batch = batch.map_err(|error| failed(&error))?;
            let batch = batch.slice(0, batch.num_rows().min(enough - table.len()));
            self.push(&batch, table).map_err(|error| failed(&error))?;
            if table.len() == enough {
                break;
            }
        }
        Ok(())
    }

    fn push(&self, batch: &RecordBatch, table: &mut Vec<TextRow>) -> Result<(), ArrowError> {
        let options = FormatOptions::default();
        let mut columns = Vec::with_capacity(self.manifest.schema.len());
        for (name, _) in &self.manifest.schema {
            let column = batch.column_by_name(name);
            let texts = column.map(|column| ArrayFormatter::try_new(column, &options));
            columns.push((name, column, texts.transpose()?));
        }
        table.extend((0..batch.num_rows()).map(|row| {
            let values = columns.iter().map(|(name, column, texts)| {
                let (Some(column), Some(texts)) = (column, texts) else {
                    return self.of_folder(name);
                };
                (!column.is_null(row)).then(|| texts.value(row).to_string())
            });
            values.collect()
        }));
        Ok(())
    }

    fn read_json(
        &self,
        file: BufReader<File>,
        rows: usize,
        table: &mut Vec<TextRow>,
    ) -> Result<(), std::io::Error> {
        for line in file.lines().take(rows) {
            let row: serde_json::Value = serde_json::from_str(&line?)?;
            let value = |(name, _): &(String, String)| match row.get(name) {
                None => self.of_folder(name),
                Some(serde_json::Value::Null) => None,
                Some(serde_json::Value::String(text)) => Some(text.clone()),
                Some(other) => Some(other.to_string()),
            };
            table.push(self.manifest.schema.iter().map(value).collect());
        }
        Ok(())
    }

    /// The value of a column that is not in the file: a folder's name, or null.
    fn of_folder(&self, column: &str) -> Option<String> {
        self.folders.get(column).cloned().flatten()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::ipc::writer::FileWriter;
    use parquet::arrow::ArrowWriter;
    use weft_store::ManifestFile;

    use super::*;

    #[test]
    fn folders_say_values() {
        let found = folders("day=2026-11-20/a%3Db=c%2Fd/x=__HIVE_DEFAULT_PARTITION__/part-0.csv");
        assert_eq!(found.len(), 3);
        assert_eq!(found["day"].as_deref(), Some("2026-11-20"));
        assert_eq!(found["a=b"].as_deref(), Some("c/d"));
        assert_eq!(found["x"], None);
        assert!(folders("part-0.csv").is_empty());
    }

    fn rows() -> RecordBatch {
        let texts = StringArray::from(vec![Some(""), None, Some("x")]);
        let numbers = Int64Array::from(vec![None, Some(1), Some(2)]);
        RecordBatch::try_from_iter_with_nullable([
            ("text", Arc::new(texts) as _, true),
            ("n", Arc::new(numbers) as _, true),
        ])
        .expect("of one length")
    }

    fn write(format: &str, path: &Path) {
        let (file, rows) = (File::create(path).expect("it is made"), rows());
        match format {
            "csv" => arrow_csv::Writer::new(file).write(&rows).expect("CSV"),
            "json" => {
                let mut writer = arrow_json::LineDelimitedWriter::new(file);
                writer.write(&rows).expect("JSON");
            }
            "arrow" => {
                let mut writer = FileWriter::try_new(file, rows.schema_ref()).expect("Arrow");
                writer.write(&rows).expect("Arrow");
                writer.finish().expect("Arrow");
            }
            _ => {
                let mut writer = ArrowWriter::try_new(file, rows.schema(), None).expect("Parquet");
                writer.write(&rows).expect("Parquet");
                writer.close().expect("Parquet");
            }
        }
    }

    /// Two files of three rows each; four rows are asked for.
    fn check(format: &str) {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["day=1/part-0", "day=2/part-0"];
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir(path.parent().expect("it has one")).expect("it is made");
            write(format, &path);
        }
        let file = |name: &str| ManifestFile {
            name: name.into(),
            key: None,
            rows: 3,
            bytes: 0,
            xxh3: String::new(),
        };
        let column = |name: &str| (name.to_owned(), "utf8".to_owned());
        let manifest = Manifest {
            job: "job".into(),
            output: "output".into(),
            format: format.into(),
            schema: ["text", "day", "n"].map(column).into(),
            partition_by: vec!["day".into()],
            generation: 0,
            files: names.map(file).into(),
            rows: 6,
            bytes: 0,
            ledger: None,
        };
        let text = serde_json::to_string(&manifest).expect("JSON");
        std::fs::write(folder.path().join(MANIFEST), text).expect("it writes");
        let (_, found) = preview(folder.path(), 4).expect("it reads");
        let row = |row: [Option<&str>; 3]| row.map(|value| value.map(str::to_owned)).to_vec();
        // CSV knows no empty text.
        let empty = (format != "csv").then_some("");
        let expected = [
            row([empty, Some("1"), None]),
            row([None, Some("1"), Some("1")]),
            row([Some("x"), Some("1"), Some("2")]),
            row([empty, Some("2"), None]),
        ];
        assert_eq!(found, expected, "{format}");
    }

    #[test]
    fn first_rows_of_all_formats() {
        for format in ["csv", "json", "arrow", "parquet"] {
            check(format);
        }
    }
}
