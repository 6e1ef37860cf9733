//! Rows of a published output, for somebody who waits for them: read file by file, and sent as they are taken.
//!
//! ```text
//! manifest ──▶ files in order ──▶ reader ──▶ offset, limit ──▶ encoder ──pieces──▶ client
//! ```
//!
//! The files are read like inputs, because users can write to folders of outputs. One batch is held at a time, and of
//! what is encoded no more than the client's window is sent ahead.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use weft_core::job::{BadRecords, ColumnSpec, ColumnType, CsvFormat, InputFormat, UnknownFields};
use weft_core::{ErrorCode, Problem};
use weft_protocol::{OutputRows, RowsFormat};
use weft_store::{Manifest, ManifestFile};

use crate::carrier::carrier;
use crate::encode::{self, Encoder};
use crate::output_files::OutputFiles;
use crate::plan::{FileSplit, FilesPlan, Part};
use crate::preview::folders;
use crate::scan::{self, Inputs, Reader};
use crate::stream::{ENCODED_BYTES, Outgoing, unwritten};

/// A folder's name that is not a value of its column's type is an error, not null.
const EXACT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: FormatOptions::new(),
};

/// Rows that are to be sent.
pub(crate) struct Rows<'a> {
    pub(crate) wanted: &'a OutputRows,
    pub(crate) format: RowsFormat,
    /// The output's files.
    pub(crate) files: OutputFiles,
    pub(crate) out: Outgoing,
}

impl Rows<'_> {
    /// Sends the rows, on a thread that may wait for the client.
    ///
    /// Errors: `not_found` if the folder does not hold the job's files any more, `bad_record` and the like if they
    /// cannot be read, `schema_mismatch` if the format has no place for a column.
    pub(crate) async fn send(mut self) -> Result<(), Problem> {
        let manifest = self.manifest().await?;
        // The first one tells the columns.
        if let Some(first) = manifest.files.first() {
            self.files.fetch(first).await?;
        }
        let folder = self.files.folder();
        let columns = Columns::of(&manifest, folder)?;
        let encoder = Encoder::rows(self.format, &columns.schema, self.out.encoded.clone());
        let mut encoder = encoder.map_err(|error| unwritten(&error))?;
        let mut window = Window::new(self.wanted);
        for file in &manifest.files {
            if window.is_over() {
                break;
            }
            if window.passes_over(file.rows) {
                continue;
            }
            self.files.fetch(file).await?;
            let mut reader = columns.open(folder, file)?;
            let of_folders = folders(&file.name);
            while !window.is_over()
                && let Some(batch) = reader.next()?
            {
                let batch = window.cut(&batch);
                let batch = columns.complete(&batch, &of_folders);
                let batch = batch.map_err(|error| unreadable(&file.name, &error))?;
                if batch.num_rows() == 0 {
                    continue;
                }
                for rows in encode::slices(&batch, ENCODED_BYTES) {
                    encoder.write(&rows).map_err(|error| unwritten(&error))?;
                    // What comes before the first rows goes with them, so that an error until then is an answer.
                    self.out.send().await?;
                }
            }
            self.files.drop_fetched(file);
        }
        encoder.finish().map_err(|error| unwritten(&error))?;
        self.out.send().await
    }

    /// The manifest that the job has written.
    async fn manifest(&self) -> Result<Manifest, Problem> {
        let OutputRows { job, output, .. } = self.wanted;
        let gone = |what: String| Problem::new(ErrorCode::NotFound, what);
        let name = &output.name;
        let found = self.files.manifest().await?;
        let Some(manifest) = found else {
            return Err(gone(match output.path() {
                Some(path) => format!(
                    "the output `{name}` is not in `{path}` any more, or this node does not see that folder"
                ),
                None => format!("the rows of `{name}` are not kept any more: run the job again"),
            }));
        };
        if manifest.job != job.as_str() {
            let (path, other) = (output.path().unwrap_or_default(), &manifest.job);
            return Err(gone(format!(
                "the folder `{path}` of the output `{name}` is as `{other}` has left it since; `weft show {path}` shows it"
            )));
        }
        Ok(manifest)
    }
}

fn unreadable(file: &str, error: &ArrowError) -> Problem {
    Problem::new(ErrorCode::BadRecord, format!("`{file}`: {error}"))
}

/// The rows that are wanted of those that come.
struct Window {
    skip: u64,
    left: u64,
}

impl Window {
    fn new(wanted: &OutputRows) -> Self {
        Self {
            skip: wanted.offset,
            left: wanted.limit.unwrap_or(u64::MAX),
        }
    }

    fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Returns whether none of the next `rows` is wanted, and then counts them as passed over.
    fn passes_over(&mut self, rows: u64) -> bool {
        let is_before = rows <= self.skip;
        if is_before {
            self.skip -= rows;
        }
        is_before
    }

    /// The rows of the next batch that are wanted.
    fn cut(&mut self, batch: &RecordBatch) -> RecordBatch {
        let rows = batch.num_rows();
        let at_most = |number: u64| usize::try_from(number).map_or(rows, |number| number.min(rows));
        let skipped = at_most(self.skip);
        let taken = at_most(self.left).min(rows - skipped);
        self.skip -= skipped as u64;
        self.left -= taken as u64;
        batch.slice(skipped, taken)
    }
}

/// The columns of an output.
struct Columns {
    /// All of them, in types that functions see.
    schema: SchemaRef,
    /// Position in the files of each column that is there; the others are names of folders.
    positions: Vec<Option<usize>>,
    /// How the files are read.
    plan: FilesPlan,
}

impl Columns {
    fn of(manifest: &Manifest, folder: &Path) -> Result<Self, Problem> {
        let specs = manifest.schema.iter();
        let specs: Vec<ColumnSpec> = specs.map(|(name, text)| spec(name, text)).collect();
        let named = scan::declared(&specs);
        let is_in_files = |column: &&ColumnSpec| !manifest.partition_by.contains(&column.name);
        let in_files: Vec<ColumnSpec> = specs.iter().filter(is_in_files).cloned().collect();
        let found = found(manifest, folder)?;
        let field = |column: &ColumnSpec| -> Result<FieldRef, Problem> {
            let Some(found) = &found else {
                return Ok(Arc::new(named_field(&named, column)?.clone()));
            };
            let field = carrier(&Arc::new(named_field(found, column)?.clone()));
            // Files that others have added to the folder may hold null where the first one does not.
            match manifest.generation {
                0 => Ok(field),
                _ => Ok(Arc::new(field.as_ref().clone().with_nullable(true))),
            }
        };
        let fields: Vec<FieldRef> = in_files.iter().map(field).collect::<Result<_, _>>()?;
        let files = Arc::new(Schema::new(fields));
        let positions: Vec<Option<usize>> = specs
            .iter()
            .map(|column| files.index_of(&column.name).ok())
            .collect();
        let all = positions.iter().zip(named.fields());
        let all = all.map(|(position, named)| match position {
            Some(position) => Arc::clone(&files.fields()[*position]),
            None => Arc::clone(named),
        });
        Ok(Self {
            schema: Arc::new(Schema::new(all.collect::<Vec<_>>())),
            positions,
            plan: FilesPlan {
                input: manifest.output.clone(),
                format: input_format(&manifest.format, in_files),
                schema: files,
                splits: Vec::new(),
                bad_records: BadRecords::Fail,
                dead_letters: None,
            },
        })
    }

    fn open(&self, folder: &Path, file: &ManifestFile) -> Result<Reader, Problem> {
        let split = FileSplit {
            path: path_of(folder, file)?,
            file_bytes: file.bytes,
            e_tag: None,
            part: Part::Whole,
        };
        Reader::open(&Inputs::default(), &self.plan, &split)
    }

    /// Rows of a file with the columns that its folders name.
    fn complete(
        &self,
        batch: &RecordBatch,
        of_folders: &HashMap<String, Option<String>>,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = batch.num_rows();
        let columns = self.positions.iter().zip(self.schema.fields());
        let columns = columns.map(|(position, field)| match position {
            Some(position) => Ok(Arc::clone(batch.column(*position))),
            None => {
                let value = of_folders.get(field.name());
                let value = value.and_then(Option::as_deref);
                repeated(value, rows, field.data_type())
            }
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

/// A column as the manifest describes it. Types that job files have no name for are texts in text formats.
fn spec(name: &str, text: &str) -> ColumnSpec {
    // Folders that older builds published say `Int64`.
    let data_type = ColumnType::parse(text).or_else(|| ColumnType::parse(&text.to_lowercase()));
    ColumnSpec {
        name: name.to_owned(),
        data_type: data_type.unwrap_or(ColumnType::Utf8),
    }
}

/// The columns that the first file says it has. Nothing if there is none, or the format does not say.
fn found(manifest: &Manifest, folder: &Path) -> Result<Option<SchemaRef>, Problem> {
    let Some(first) = manifest.files.first() else {
        return Ok(None);
    };
    let path = path_of(folder, first)?;
    match manifest.format.as_str() {
        "arrow" => scan::arrow_schema(&Inputs::default(), &path, first.bytes).map(Some),
        "parquet" => {
            let file = Inputs::default().open(&path, first.bytes)?;
            let metadata = scan::parquet_metadata(&path, &file)?;
            Ok(Some(Arc::clone(metadata.schema())))
        }
        _ => Ok(None),
    }
}

fn named_field<'a>(schema: &'a Schema, column: &ColumnSpec) -> Result<&'a Field, Problem> {
    schema.field_with_name(&column.name).map_err(|_| {
        let detail = format!("the output's files have no column `{}`", column.name);
        Problem::new(ErrorCode::BadRecord, detail)
    })
}

fn input_format(name: &str, columns: Vec<ColumnSpec>) -> InputFormat {
    match name {
        "csv" => InputFormat::Csv(CsvFormat {
            header: true,
            delimiter: b',',
            quote: Some(b'"'),
            columns,
        }),
        "json" => InputFormat::Json {
            columns,
            unknown_fields: UnknownFields::Ignore,
        },
        "arrow" => InputFormat::Arrow {
            columns: Vec::new(),
        },
        _ => InputFormat::Parquet {
            columns: Vec::new(),
            filter: Vec::new(),
        },
    }
}

fn path_of(folder: &Path, file: &ManifestFile) -> Result<String, Problem> {
    let path = folder.join(file.key());
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let detail = format!("the path `{}` is not UTF-8", path.display());
        Problem::new(ErrorCode::BadRecord, detail)
    })
}

/// A column of one value.
fn repeated(
    value: Option<&str>,
    rows: usize,
    data_type: &DataType,
) -> Result<ArrayRef, ArrowError> {
    let Some(value) = value else {
        return Ok(new_null_array(data_type, rows));
    };
    let one: ArrayRef = Arc::new(StringArray::from(vec![value]));
    let one = cast_with_options(&one, data_type, &EXACT)?;
    take(&one, &UInt32Array::from(vec![0; rows]), None)
}

#[cfg(test)]
mod tests;
