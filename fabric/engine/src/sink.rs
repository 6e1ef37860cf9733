//! The files of a task's outputs, staged.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use weft_core::{ErrorCode, LimitKind, Problem};
use weft_protocol::{SinkFile, kept_too_large};
use weft_store::{Blobs, OVER_LIMIT, StagedFile, Staging, UPLOAD_FAILED, UPLOAD_FORBIDDEN};

use crate::encode::Encoder;
use crate::plan::SinkPlan;
use weft_protocol::TaskRequest;

/// Encoded bytes that row groups hold before they are written, all files of a sink together.
const ROW_GROUPS_BYTES: usize = 32 << 20;
/// Files of one sink that are open at a time; past it, the one that was written to least recently is closed.
const WRITERS_MAX: usize = 64;
/// Files of one sink and task.
const FILES_MAX: usize = 10_000;
/// Bytes of the name of a folder.
const FOLDER_BYTES_MAX: usize = 255;
/// The folder of rows without a value, as Hive names it.
pub(crate) const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file that is being written.
struct OpenFile {
    encoder: Encoder<StagedFile>,
    /// Bytes that the encoder has written.
    bytes: Arc<AtomicU64>,
    /// Its name once it is published.
    name: String,
    rows: u64,
    /// When it was written to last.
    turn: u64,
}

/// One output of a running task. No rows, no file; but the first task always writes one, so that readers find the schema.
pub(crate) struct SinkWriter {
    plan: SinkPlan,
    request: TaskRequest,
    /// The place where the files wait for the job to be published.
    staging: Staging,
    /// What the files hold: the columns that name folders are left out.
    schema: SchemaRef,
    kept_columns: Vec<usize>,
    rows_of_folders: Option<RowConverter>,
    /// By folder within the output's; without `partition_by` there is one, and its name is empty.
    open: BTreeMap<String, OpenFile>,
    /// How many files each folder got so far.
    n_files: HashMap<String, u32>,
    files: Vec<SinkFile>,
    turn: u64,
    pub(crate) rows: u64,
}

impl SinkWriter {
    /// `blobs`: the store, where an output that the cluster keeps has its folder. What is on its way to an object store
    /// waits in unnamed files in `spill_folder`.
    pub(crate) fn new(
        plan: SinkPlan,
        request: TaskRequest,
        blobs: &Blobs,
        spill_folder: &Path,
    ) -> Result<Self, Problem> {
        let staging = staging(&plan, &request, blobs, spill_folder)?;
        let kept_columns: Vec<usize> = (0..plan.schema.fields().len())
            .filter(|column| !plan.partition_by.contains(column))
            .collect();
        let failed = |error: ArrowError| Problem::new(ErrorCode::Internal, error.to_string());
        let schema: Schema = plan.schema.project(&kept_columns).map_err(failed)?;
        let rows_of_folders = match plan.partition_by.as_slice() {
            [] => None,
            columns => {
                let field =
                    |column: &usize| SortField::new(plan.schema.field(*column).data_type().clone());
                Some(RowConverter::new(columns.iter().map(field).collect()).map_err(failed)?)
            }
        };
        Ok(Self {
            plan,
            request,
            staging,
            schema: Arc::new(schema),
            kept_columns,
            rows_of_folders,
            open: BTreeMap::new(),
            n_files: HashMap::new(),
            files: Vec::new(),
            turn: 0,
            rows: 0,
        })
    }

    fn problem(&self, error: &ArrowError) -> Problem {
        // Encoders wrap errors of the file in errors of their own, of several kinds.
        let text = error.to_string();
        let is_of_store = text.contains("os error") || text.contains(UPLOAD_FAILED);
        let code = match is_of_store {
            _ if text.contains(OVER_LIMIT) => ErrorCode::TooLarge,
            _ if text.contains(UPLOAD_FORBIDDEN) => ErrorCode::InvalidJob,
            true => ErrorCode::StoreUnavailable,
            false => ErrorCode::SchemaMismatch,
        };
        let detail = match self.plan.max_kept_bytes {
            None => format!("writing to `{}`: {error}", self.plan.folder),
            Some(_) => format!("writing the output `{}`: {error}", self.plan.output),
        };
        Problem::new(code, detail)
    }

    /// Writes rows into the file of their folder, or files of their folders.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), Problem> {
        self.rows += batch.num_rows() as u64;
        if self.rows_of_folders.is_none() {
            return self.write_to("", batch);
        }
        let parts = self.parts(batch).map_err(|error| self.problem(&error))?;
        for (folder, part) in parts {
            self.write_to(&folder, &part)?;
        }
        Ok(())
    }

    /// The rows of each folder, folders in the order of their first rows.
    fn parts(&self, batch: &RecordBatch) -> Result<Vec<(String, RecordBatch)>, ArrowError> {
        let Some(converter) = &self.rows_of_folders else {
            return Ok(Vec::new());
        };
        let columns = self.plan.partition_by.iter();
        let columns: Vec<_> = columns
            .map(|column| Arc::clone(batch.column(*column)))
            .collect();
        let keys = converter.convert_columns(&columns)?;
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        let mut rows: Vec<Vec<u32>> = Vec::new();
        for (row, key) in (0u32..).zip(keys.iter()) {
            let place = *places.entry(key.data()).or_insert_with(|| {
                rows.push(Vec::new());
                rows.len() - 1
            });
            rows[place].push(row);
        }
        let kept = batch.project(&self.kept_columns)?;
        rows.into_iter()
            .map(|rows| {
                let folder = self.folder(batch, rows[0] as usize)?;
                Ok((folder, take_record_batch(&kept, &UInt32Array::from(rows))?))
            })
            .collect()
    }

    /// The folder of a row: `column=value/`, once for each column.
    fn folder(&self, batch: &RecordBatch, row: usize) -> Result<String, ArrowError> {
        let options = FormatOptions::default();
        let mut folder = String::new();
        for position in &self.plan.partition_by {
            let column = batch.column(*position);
            let value = match column.is_null(row) {
                true => NULL_FOLDER.to_owned(),
                false => {
                    let value = ArrayFormatter::try_new(column, &options)?
                        .value(row)
                        .to_string();
                    escaped(&value)
                }
            };
            let name = escaped(self.plan.schema.field(*position).name());
            let part = format!("{name}={value}");
            if part.len() > FOLDER_BYTES_MAX {
                let text =
                    format!("`{name}` has a value that is too long for the name of a folder");
                return Err(ArrowError::InvalidArgumentError(text));
            }
            folder += &part;
            folder.push('/');
        }
        Ok(folder)
    }

    fn write_to(&mut self, folder: &str, batch: &RecordBatch) -> Result<(), Problem> {
        self.turn += 1;
        let turn = self.turn;
        let file = self.file(folder)?;
        file.turn = turn;
        file.rows += batch.num_rows() as u64;
        let written = file.encoder.write(batch);
        written.map_err(|error| self.problem(&error))?;
        self.bound_held_bytes()?;
        self.bound_kept_bytes()
    }

    /// Fails once this task alone has written more than the cluster keeps of an output. The sum over all tasks is
    /// checked when they are committed.
    fn bound_kept_bytes(&self) -> Result<(), Problem> {
        let Some(most) = self.plan.max_kept_bytes else {
            return Ok(());
        };
        let closed = self.files.iter().map(|file| file.bytes);
        let open = self.open.values();
        let open = open.map(|file| file.bytes.load(Ordering::Relaxed));
        let bytes = closed.chain(open).fold(0, u64::saturating_add);
        if bytes <= most {
            return Ok(());
        }
        let detail = kept_too_large(&self.plan.output, most);
        Err(Problem::new(ErrorCode::LimitExceeded, detail)
            .of_limit(LimitKind::KeptOutput, most.to_string()))
    }

    /// Writes row groups, the largest first, until little enough is held.
    fn bound_held_bytes(&mut self) -> Result<(), Problem> {
        let held = |file: &OpenFile| file.encoder.held_bytes();
        while self.open.values().map(held).sum::<usize>() > ROW_GROUPS_BYTES {
            let largest = self.open.values_mut().max_by_key(|file| held(file));
            let flushed = largest.expect("something is held").encoder.flush();
            flushed.map_err(|error| self.problem(&error))?;
        }
        Ok(())
    }

    /// The open file of a folder.
    fn file(&mut self, folder: &str) -> Result<&mut OpenFile, Problem> {
        if !self.open.contains_key(folder) {
            if self.open.len() == WRITERS_MAX {
                let oldest = self.open.iter().min_by_key(|(_, file)| file.turn);
                let oldest = oldest.expect("many are open").0.clone();
                self.close(&oldest)?;
            }
            let file = self.create(folder)?;
            self.open.insert(folder.to_owned(), file);
        }
        Ok(self.open.get_mut(folder).expect("it is open now"))
    }

    fn create(&mut self, folder: &str) -> Result<OpenFile, Problem> {
        let n_all = self.files.len() + self.open.len();
        if n_all >= FILES_MAX {
            let detail = format!(
                "the output `{}` gets more than {FILES_MAX} files from one task: `partition_by` columns with fewer values, or shuffle by them first",
                self.plan.output
            );
            return Err(Problem::new(ErrorCode::LimitExceeded, detail)
                .of_limit(LimitKind::Files, FILES_MAX.to_string()));
        }
        let n = self.n_files.entry(folder.to_owned()).or_default();
        let mut base = format!("part-{}-{:05}", self.plan.stage, self.request.id.task);
        if *n > 0 {
            base += &format!("-{n}");
        }
        *n += 1;
        let extension = self.plan.format.name();
        let name = format!("{folder}{base}.{extension}");
        let file = self.staging.create(n_all, &name);
        let file = file.map_err(|error| error.problem())?;
        let bytes = file.written_bytes();
        let encoder = Encoder::file(self.plan.format, &self.schema, file);
        Ok(OpenFile {
            bytes,
            encoder: encoder.map_err(|error| self.problem(&error))?,
            name,
            rows: 0,
            turn: 0,
        })
    }

    fn close(&mut self, folder: &str) -> Result<(), Problem> {
        let Some(file) = self.open.remove(folder) else {
            return Ok(());
        };
        let OpenFile {
            encoder,
            name,
            rows,
            ..
        } = file;
        let staged = encoder.finish().map_err(|error| self.problem(&error))?;
        let finished = staged.finish(&self.plan.output, name, rows);
        self.files.push(finished.map_err(|error| error.problem())?);
        Ok(())
    }

    /// Ends all files, in the order of their names.
    pub(crate) fn finish(mut self) -> Result<Vec<SinkFile>, Problem> {
        let is_first = self.request.id.task == 0 && self.plan.partition_by.is_empty();
        if self.open.is_empty() && self.files.is_empty() && is_first {
            self.file("")?;
        }
        for folder in self.open.keys().cloned().collect::<Vec<_>>() {
            self.close(&folder)?;
        }
        self.files.sort_by(|a, b| a.name.cmp(&b.name));
        let staged = self.staging.finish();
        staged.map_err(|error| error.problem())?;
        Ok(self.files)
    }
}

/// Returns where the files of an attempt wait for the job to be published.
fn staging(
    plan: &SinkPlan,
    request: &TaskRequest,
    blobs: &Blobs,
    spill_folder: &Path,
) -> Result<Staging, Problem> {
    let job = &request.id.job;
    let place = match plan.max_kept_bytes {
        None => blobs.place_of(&plan.folder),
        Some(_) => blobs.kept_place(job, &plan.output),
    };
    let place = place.map_err(|error| error.problem())?;
    let TaskRequest {
        agent,
        epoch,
        sequence,
        ..
    } = request;
    let attempt = format!("{agent}-{epoch}-{sequence}");
    let list = request.key(&format!("{}.uploads", plan.output));
    Ok(Staging::new(place, blobs, job, attempt, list, spill_folder))
}

/// A value as a part of a path: of ASCII, letters, digits and `-_. ` stay; the rest is escaped, as in URIs.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    let mut letters = value.chars();
    if value == NULL_FOLDER {
        // A text, and not null.
        letters.next();
        text += "%5F";
    }
    for character in letters {
        let plain = character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | ' ');
        if plain || !character.is_ascii() {
            text.push(character);
        } else {
            text += &format!("%{:02X}", u32::from(character));
        }
    }
    text
}

/// What was escaped, as it was.
pub(crate) fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut value = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.get(..2).filter(|two| {
            let mut letters = two.bytes();
            letters.all(|letter| letter.is_ascii_hexdigit())
        });
        let code = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                value.push(char::from(code));
                value += &part[2..];
            }
            None => {
                value.push('%');
                value += part;
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_names_of_folders() {
        for value in [
            "",
            NULL_FOLDER,
            "a b",
            "50%",
            "a/b=c",
            "%2F",
            "é/ü",
            "..",
            "\n\"%",
        ] {
            let name = escaped(value);
            assert!(!name.contains(['/', '=']) && name != NULL_FOLDER, "{name}");
            assert_eq!(unescaped(&name), value, "{name}");
        }
        assert_eq!(unescaped("100%é %zz %+1 %"), "100%é %zz %+1 %");
    }
}
