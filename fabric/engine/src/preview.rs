//! The first rows of an output folder, as text.

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
use weft_shuffle::{MANIFEST, Manifest};

/// Reads the manifest of `folder` and the first `rows` rows of its files. The first line holds the names of the columns.
///
/// Errors are for people: no manifest (the output is not published), or a file that cannot be read.
pub fn preview(folder: &Path, rows: usize) -> Result<(Manifest, Vec<Vec<String>>), String> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|error| {
        format!(
            "`{}`: {error}; the folder is not a published output",
            path.display()
        )
    })?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let mut table = vec![
        manifest
            .schema
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
    ];
    for file in &manifest.files {
        let left = (rows + 1).saturating_sub(table.len());
        if left == 0 {
            break;
        }
        read(&manifest, &folder.join(&file.name), left, &mut table)?;
    }
    Ok((manifest, table))
}

/// Reads up to `rows` rows of a file. Columns that name folders are not in it, and stay empty.
fn read(
    manifest: &Manifest,
    path: &Path,
    rows: usize,
    table: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("`{}`: {error}", path.display());
    let file = File::open(path).map_err(|error| failed(&error))?;
    let batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>> =
        match manifest.format.as_str() {
            "csv" => {
                let format = arrow_csv::reader::Format::default().with_header(true);
                let header = File::open(path).map_err(|error| failed(&error))?;
                let (header, _) = format
                    .infer_schema(header, Some(0))
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
            "json" => return read_json(manifest, BufReader::new(file), rows, table),
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
        push(
            manifest,
            &batch.slice(0, batch.num_rows().min(enough - table.len())),
            table,
        )
        .map_err(|error| failed(&error))?;
        if table.len() == enough {
            break;
        }
    }
    Ok(())
}

fn push(
    manifest: &Manifest,
    batch: &RecordBatch,
    table: &mut Vec<Vec<String>>,
) -> Result<(), ArrowError> {
    let options = FormatOptions::default();
    let columns = manifest
        .schema
        .iter()
        .map(|(name, _)| batch.column_by_name(name));
    let columns = columns.map(|column| {
        column
            .map(|column| ArrayFormatter::try_new(column, &options))
            .transpose()
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let value = |column: &Option<ArrayFormatter<'_>>, row| {
        column
            .as_ref()
            .map_or_else(String::new, |column| column.value(row).to_string())
    };
    table.extend(
        (0..batch.num_rows()).map(|row| columns.iter().map(|column| value(column, row)).collect()),
    );
    Ok(())
}

fn read_json(
    manifest: &Manifest,
    file: BufReader<File>,
    rows: usize,
    table: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    for line in file.lines().take(rows) {
        let line = line.map_err(|error| error.to_string())?;
        let row: serde_json::Value =
            serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let value = |(name, _): &(String, String)| match row.get(name) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        table.push(manifest.schema.iter().map(value).collect());
    }
    Ok(())
}
