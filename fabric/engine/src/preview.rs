//! The first rows of an output folder, as text.

use std::fs::File;
use std::path::Path;

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
        if table.len() > rows {
            break;
        }
        let left = rows + 1 - table.len();
        read(&folder.join(&file.name), left, &mut table)?;
    }
    Ok((manifest, table))
}

fn read(path: &Path, rows: usize, table: &mut Vec<Vec<String>>) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("`{}`: {error}", path.display());
    let file = File::open(path).map_err(|error| failed(&error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(&error))?;
    let reader = builder
        .with_batch_size(rows)
        .with_limit(rows)
        .build()
        .map_err(|error| failed(&error))?;
    for batch in reader {
        let batch = batch.map_err(|error| failed(&error))?;
        let options = FormatOptions::default();
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| failed(&error))?;
        table.extend((0..batch.num_rows()).map(|row| {
            columns
                .iter()
                .map(|column| column.value(row).to_string())
                .collect()
        }));
    }
    Ok(())
}
