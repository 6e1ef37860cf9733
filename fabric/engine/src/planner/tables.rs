//! Files as tables of statements: their columns and sizes, and the splits that a scan reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use weft_core::Problem;
use weft_core::job::{InputFormat, InputSpec};
use weft_protocol::TaskRange;
use weft_sql::{ScanFilter, Table, TableColumn};
use weft_store::Blobs;

use super::draft::small;
use super::folders::Folders;
use super::inputs::{Listed, list, list_table};
use super::objects;
use super::sql::projected;
use crate::folders::FolderColumns;
use crate::plan::{FileSplit, FilesLeaf, FilesPlan, Part};
use crate::scan::{self, Inputs};

/// Bytes of a value in memory whose type has no fixed width, where nothing says more.
const VALUE_BYTES: u64 = 24;
/// Bytes of text that a byte of a compressed file becomes, more or less.
const COMPRESSION: u64 = 4;

/// Files that a statement reads.
pub(super) struct FileTable {
    inputs: Inputs,
    pub(super) input: InputSpec,
    /// The files are an output that the cluster keeps.
    is_kept: bool,
    listed: Listed,
    folders: Folders,
    /// Columns of the files, then those of their folders.
    pub(super) schema: SchemaRef,
}

/// Columns that a task reads.
struct Read {
    /// Columns of the files.
    files: SchemaRef,
    /// Columns of the folders, by position.
    folders: Vec<usize>,
    /// Positions of the wanted columns among both; all where there is no list.
    columns: Option<Vec<usize>>,
}

impl FileTable {
    /// Lists the files of an input of the job.
    pub(super) fn of_input(inputs: &Inputs, input: &InputSpec) -> Result<Self, Problem> {
        let listed = list(inputs, input)?;
        Ok(Self::new(inputs, input, listed, Folders::none()))
    }

    /// Lists files that a statement names by path, which is the input's name.
    pub(super) fn of_path(inputs: &Inputs, input: &InputSpec) -> Result<Self, Problem> {
        Self::of_folders(inputs, input, &input.name)
    }

    /// Lists the files of a table of the tenant, which may have a path.
    pub(super) fn of_table(
        inputs: &Inputs,
        input: &InputSpec,
        path: Option<&str>,
    ) -> Result<Self, Problem> {
        let input = &objects::of_table(inputs.grants(), input)?;
        match path {
            Some(path) => Self::of_folders(inputs, input, path),
            None => {
                let listed = list_table(inputs, input)?;
                Ok(Self::new(inputs, input, listed, Folders::none()))
            }
        }
    }

    /// Lists the files of a table whose rows the cluster keeps. No other input reaches them in a bucket.
    pub(super) fn of_kept(blobs: &Blobs, input: &InputSpec) -> Result<Self, Problem> {
        let files = Self::of_input(&Inputs::new(&blobs.kept_grants()), input)?;
        Ok(Self {
            is_kept: true,
            ..files
        })
    }

    /// Lists files of one path, whose folders `name=..` are columns.
    fn of_folders(inputs: &Inputs, input: &InputSpec, path: &str) -> Result<Self, Problem> {
        let listed = list_table(inputs, input)?;
        let pattern = input.uris.first().map_or("", String::as_str);
        // The path of a table of a folder goes on to its files.
        let in_folder = match path.ends_with('/') {
            true => None,
            false => objects::folder_pattern(pattern, &input.format),
        };
        let folders = Folders::of(path, in_folder.as_deref().unwrap_or(pattern), &listed)?;
        Ok(Self::new(inputs, input, listed, folders))
    }

    fn new(inputs: &Inputs, input: &InputSpec, listed: Listed, folders: Folders) -> Self {
        let fields = listed.schema.fields().iter();
        let fields = fields.chain(folders.schema.fields()).cloned();
        Self {
            inputs: inputs.clone(),
            input: input.clone(),
            is_kept: false,
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            listed,
            folders,
        }
    }

    /// Compares the headers of the files with the columns, if they are CSV.
    ///
    /// Errors: `SchemaMismatch`, with the first file whose header differs.
    pub(super) fn check_headers(&self) -> Result<(), Problem> {
        let InputFormat::Csv(csv) = &self.input.format else {
            return Ok(());
        };
        let splits = self.listed.splits.iter();
        let files = splits.map(|split| (split.path.as_str(), split.file_bytes));
        let mut files: Vec<(&str, u64)> = files.collect();
        files.dedup();
        scan::check_headers(&self.inputs, csv, &self.listed.schema, &files)
    }

    /// Bytes of the files.
    pub(super) fn bytes(&self) -> u64 {
        self.listed.bytes
    }

    /// The table as statements see it.
    pub(super) fn table(&self, name: String) -> Table {
        let rows = self.rows();
        let of_files = self.listed.schema.fields().iter();
        let of_files = of_files.map(|field| self.column(field, rows));
        let of_folders = self.folders.schema.fields().iter().enumerate();
        let of_folders = of_folders.map(|(column, field)| TableColumn {
            bytes: Some(rows.saturating_mul(width(field.data_type()))),
            nulls: None,
            distinct: Some(self.folders.n_values(column).min(rows)),
            prunes: true,
        });
        let columns: Vec<TableColumn> = of_files.chain(of_folders).collect();
        let bytes = columns.iter().filter_map(|column| column.bytes);
        Table {
            name,
            schema: Arc::clone(&self.schema),
            rows: Some(rows),
            bytes: Some(bytes.fold(0, u64::saturating_add)),
            columns,
        }
    }

    /// Rows of all files: those of the footers, otherwise estimated by the size of the first records or of a row.
    fn rows(&self) -> u64 {
        let splits = &self.listed.splits;
        let sample = match &self.input.format {
            InputFormat::Parquet { .. } => return self.listed.footers.rows,
            InputFormat::Arrow { .. } => None,
            format => {
                let first = splits.iter().find(|split| split.file_bytes > 0);
                first.and_then(|first| {
                    scan::first_records(&self.inputs, &first.path, first.file_bytes, format)
                })
            }
        };
        let one_row = || {
            let fields = self.listed.schema.fields().iter();
            let bytes = fields.map(|field| width(field.data_type()));
            (1, bytes.sum::<u64>())
        };
        let bytes = splits.iter().map(|split| match split.part {
            Part::Bytes { start, end } => end.saturating_sub(start),
            Part::Whole => split.file_bytes.saturating_mul(COMPRESSION),
            Part::RowGroups { .. } => 0,
        });
        let bytes = bytes.fold(0, u64::saturating_add);
        let (n_rows, of_bytes): (u64, u64) = sample.unwrap_or_else(one_row);
        let rows = u128::from(bytes) * u128::from(n_rows) / u128::from(of_bytes.max(1));
        u64::try_from(rows).unwrap_or(u64::MAX)
    }

    fn column(&self, field: &FieldRef, rows: u64) -> TableColumn {
        match self.input.format {
            InputFormat::Parquet { .. } => self.listed.footers.column(field.name()),
            _ => TableColumn {
                bytes: Some(rows.saturating_mul(width(field.data_type()))),
                ..TableColumn::default()
            },
        }
    }

    /// The leaf of a scan. `columns`: positions in the table's schema; all where there is no list.
    pub(super) fn leaf(
        &self,
        columns: Option<&[usize]>,
        filters: &[ScanFilter],
        limit: Option<u64>,
        tasks: TaskRange,
    ) -> Result<FilesLeaf, Problem> {
        let (positions, splits): (Vec<usize>, Vec<FileSplit>) =
            self.splits(filters)?.into_iter().unzip();
        let read = self.read(columns)?;
        let texts = |split: &usize| self.folders.texts(*split, &read.folders);
        let folders = match read.folders.is_empty() {
            true => None,
            false => Some(FolderColumns {
                schema: projected(&self.folders.schema, Some(&read.folders))?,
                values: positions.iter().map(texts).collect(),
            }),
        };
        Ok(FilesLeaf {
            slices: slices(&splits, &self.listed.splits, tasks.count),
            files: FilesPlan {
                input: self.input.name.clone(),
                format: self.input.format.clone(),
                schema: read.files,
                splits,
                bad_records: self.input.bad_records.clone(),
                dead_letters: None,
            },
            is_kept: self.is_kept,
            tasks,
            folders,
            columns: read.columns,
            limit,
            schema: projected(&self.schema, columns)?,
        })
    }

    fn read(&self, wanted: Option<&[usize]>) -> Result<Read, Problem> {
        let (files, n) = (&self.listed.schema, self.listed.schema.fields().len());
        let Some(wanted) = wanted else {
            return Ok(Read {
                files: Arc::clone(files),
                folders: (0..self.folders.schema.fields().len()).collect(),
                columns: None,
            });
        };
        let of_folders = wanted.iter().filter(|column| **column >= n);
        let folders: Vec<usize> = of_folders.map(|column| column - n).collect();
        // Formats that tell columns apart are read by column.
        let by_column = matches!(
            self.input.format,
            InputFormat::Parquet { .. } | InputFormat::Arrow { .. }
        );
        let mut read: Vec<usize> = match by_column {
            true => wanted
                .iter()
                .copied()
                .filter(|column| *column < n)
                .collect(),
            false => (0..n).collect(),
        };
        if read.is_empty() {
            // Rows are counted by one of the files' own columns.
            read.extend((0..n).min_by_key(|column| width(files.field(*column).data_type())));
        }
        let position = |column: &usize| match column.checked_sub(n) {
            None => read.iter().position(|other| other == column),
            Some(folder) => {
                let position = folders.iter().position(|other| *other == folder);
                position.map(|position| read.len() + position)
            }
        };
        let columns: Vec<usize> = wanted.iter().filter_map(position).collect();
        let as_read = folders.is_empty() && read == wanted && by_column;
        Ok(Read {
            files: projected(files, Some(&read))?,
            columns: (!as_read).then_some(columns),
            folders,
        })
    }

    /// The splits that may hold rows which pass all filters, each with its position among all.
    ///
    /// Files go by the names of their folders, row groups by their statistics.
    fn splits(&self, filters: &[ScanFilter]) -> Result<Vec<(usize, FileSplit)>, Problem> {
        let all = &self.listed.splits;
        let wanted = self.folders.may_pass(all.len(), filters)?;
        let of_files = filters.iter().filter(|filter| {
            let is_parquet = matches!(self.input.format, InputFormat::Parquet { .. });
            is_parquet && self.listed.schema.index_of(&filter.column).is_ok()
        });
        let of_files: Vec<&ScanFilter> = of_files.collect();
        let mut kept = Vec::new();
        // Splits of one file follow each other.
        let mut file: Option<(&str, Vec<bool>)> = None;
        for (position, split) in all.iter().enumerate() {
            if !wanted[position] {
                continue;
            }
            if of_files.is_empty() {
                kept.push((position, split.clone()));
                continue;
            }
            let groups = match file.take() {
                Some((path, groups)) if path == split.path => groups,
                _ => {
                    let file = (split.path.as_str(), split.file_bytes);
                    scan::row_groups(&self.inputs, file, &of_files)?
                }
            };
            kept.extend(runs(split, &groups).into_iter().map(|run| (position, run)));
            file = Some((split.path.as_str(), groups));
        }
        Ok(kept)
    }
}

/// Bytes of a value in memory.
fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::Boolean => 1,
        other => other
            .primitive_width()
            .map_or(VALUE_BYTES, |width| width as u64),
    }
}

/// The wanted row groups of a split, those that follow each other as one.
fn runs(split: &FileSplit, wanted: &[bool]) -> Vec<FileSplit> {
    let Part::RowGroups { first, count } = split.part else {
        return vec![split.clone()];
    };
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for group in first..first + count {
        // One that is missing by now is for the reader to miss.
        if !wanted.get(group).copied().unwrap_or(true) {
            continue;
        }
        match runs.last_mut() {
            Some((first, count)) if *first + *count == group => *count += 1,
            _ => runs.push((group, 1)),
        }
    }
    let run = |(first, count)| FileSplit {
        part: Part::RowGroups { first, count },
        ..split.clone()
    };
    runs.into_iter().map(run).collect()
}

/// Starts of the splits of each task, and the end of the last ones: shares of about as many bytes, in order.
/// `all`: what the splits were taken from.
fn slices(splits: &[FileSplit], all: &[FileSplit], n_tasks: u32) -> Vec<u32> {
    let mut n_of: BTreeMap<&str, u64> = BTreeMap::new();
    for split in all {
        *n_of.entry(&split.path).or_default() += 1;
    }
    let bytes = |split: &FileSplit| match split.part {
        Part::Bytes { start, end } => (end - start).max(1),
        // Splits of one file are about alike.
        Part::Whole | Part::RowGroups { .. } => {
            let n = n_of.get(&*split.path).copied().unwrap_or(1);
            (split.file_bytes / n).max(1)
        }
    };
    let total: u128 = splits.iter().map(|split| u128::from(bytes(split))).sum();
    let mut starts = vec![0];
    let (mut end, mut before) = (0usize, 0u128);
    for task in 1..=u128::from(n_tasks) {
        // A split belongs to the task in whose share its middle lies.
        while let Some(split) = splits.get(end)
            && (2 * before + u128::from(bytes(split))) * u128::from(n_tasks) < 2 * total * task
        {
            before += u128::from(bytes(split));
            end += 1;
        }
        starts.push(small(end));
    }
    if let Some(last) = starts.last_mut() {
        *last = small(splits.len());
    }
    starts
}

#[cfg(test)]
mod tests;
