//! Inputs: which files there are, what columns they have, and how they are split.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Fields, Schema, SchemaRef};
use weft_core::job::{Comparison, InputFormat, InputSpec};
use weft_core::{ErrorCode, Problem};
use weft_sandbox::SCHEMA_NAME_BYTES_MAX;
use weft_store::{ManifestFile, read_manifest};

use super::patterns::{self, FILES_MAX, Walk};
use crate::plan::{FileSplit, Part};
use crate::scan::{self, Compression, Dialect, Filter};
use crate::schema;

/// Bytes of a text split.
const SPLIT_BYTES: u64 = 64 << 20;
/// Inputs smaller than this many splits are cut finer, so that they can be worked on side by side.
const SPLITS_WANTED: u64 = 16;
const SPLIT_BYTES_MIN: u64 = 1 << 20;
/// Columns of one input.
const COLUMNS_MAX: usize = 4096;

/// An input that has been looked at.
pub(super) struct Listed {
    pub(super) schema: SchemaRef,
    pub(super) splits: Vec<FileSplit>,
    pub(super) bytes: u64,
}

/// Lists the files of an input, finds out its columns, and splits it.
pub(super) fn list(input: &InputSpec) -> Result<Listed, Problem> {
    let files = files(input)?;
    let bytes = files.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let split_bytes = (bytes / SPLITS_WANTED).clamp(SPLIT_BYTES_MIN, SPLIT_BYTES);
    // An empty file tells nothing of its columns.
    let first = files.iter().find(|(_, bytes)| *bytes > 0);
    let (first, first_bytes) = first.unwrap_or(&files[0]);
    let bad_records = &input.bad_records;
    let schema = match &input.format {
        InputFormat::Text { utf8 } => scan::text_schema(*utf8),
        InputFormat::Csv(csv) => scan::csv_schema(csv, first, *first_bytes, bad_records)?,
        InputFormat::Json { columns } => {
            scan::json_schema(columns, first, *first_bytes, bad_records)?
        }
        InputFormat::Parquet { columns, .. } => parquet_schema(first, columns)?,
        InputFormat::Arrow { columns } => some(first, &scan::arrow_schema(first)?, columns)?,
    };
    check_schema(first, &schema)?;
    let mut splits = Vec::new();
    for (path, file_bytes) in &files {
        let has_header = matches!(&input.format, InputFormat::Csv(csv) if csv.header);
        if *file_bytes == 0 && has_header && files.len() > 1 {
            continue;
        }
        let parts = match &input.format {
            InputFormat::Parquet { filter, .. } => row_groups(path, &schema, filter, split_bytes)?,
            InputFormat::Arrow { .. } => ranges(&cuts(*file_bytes, split_bytes), *file_bytes),
            format => records(path, *file_bytes, split_bytes, Dialect::of(format))?,
        };
        splits.extend(parts.into_iter().map(|part| FileSplit {
            path: path.clone(),
            file_bytes: *file_bytes,
            part,
        }));
    }
    Ok(Listed {
        schema,
        splits,
        bytes,
    })
}

/// The files of an input with their sizes, in the order of their paths, each once.
fn files(input: &InputSpec) -> Result<Vec<(String, u64)>, Problem> {
    let mut files = BTreeMap::new();
    let mut walk = Walk::default();
    for uri in &input.uris {
        let bad = |error: &dyn std::fmt::Display| {
            Problem::new(
                ErrorCode::NoInput,
                format!("input `{}`: `{uri}`: {error}", input.name),
            )
        };
        let too_large = |what: &patterns::Error| {
            let detail = format!("input `{}`: `{uri}` {what}", input.name);
            Problem::new(ErrorCode::TooLarge, detail)
        };
        let is_itself = |path: &Path| path == Path::new(uri);
        let wanted = |path: &Path, metadata: &Metadata| match metadata.is_dir() {
            true => is_itself(path),
            false => metadata.is_file() && (is_itself(path) || !is_aside(path)),
        };
        let paths = walk.matches(uri, wanted).map_err(|error| match error {
            patterns::Error::TooManyNames | patterns::Error::TooManyFiles => too_large(&error),
            patterns::Error::Pattern(_) | patterns::Error::Io { .. } => bad(&error),
        })?;
        let n_matches = paths.len();
        for (path, metadata) in paths {
            if metadata.is_dir() {
                files.extend(of_manifest(&path).map_err(|error| bad(&error))?);
            } else {
                let name = path.to_str().ok_or_else(|| {
                    bad(&format_args!(
                        "the name of `{}` is not UTF-8",
                        path.display()
                    ))
                })?;
                files.insert(name.to_owned(), metadata.len());
            }
            if files.len() > FILES_MAX {
                return Err(too_large(&patterns::Error::TooManyFiles));
            }
        }
        if n_matches == 0 {
            return Err(bad(
                &"matches no file (`*`, `?` and `[..]` are patterns; `[[]` is a bracket)",
            ));
        }
    }
    if files.is_empty() {
        let detail = format!(
            "input `{}`: the manifests of its folders list no files",
            input.name
        );
        return Err(Problem::new(ErrorCode::NoInput, detail));
    }
    Ok(files.into_iter().collect())
}

/// Fails for columns that could not be told apart, or are too many.
fn check_schema(path: &str, schema: &SchemaRef) -> Result<(), Problem> {
    let wrong = |what: String| {
        let detail = format!("`{path}` {what}");
        Err(Problem::new(ErrorCode::SchemaMismatch, detail))
    };
    let n = schema.fields().len();
    if n > COLUMNS_MAX {
        return wrong(format!(
            "has {n} columns; an input may have {COLUMNS_MAX}: name those that are needed"
        ));
    }
    let name_bytes: usize = schema.fields().iter().map(|field| field.name().len()).sum();
    if name_bytes > SCHEMA_NAME_BYTES_MAX {
        return wrong(format!(
            "has names of {name_bytes} bytes in all; an input may have {SCHEMA_NAME_BYTES_MAX}: name those columns that are needed"
        ));
    }
    let mut seen = BTreeSet::new();
    match schema
        .fields()
        .iter()
        .find(|field| !seen.insert(field.name()))
    {
        Some(twice) => wrong(format!("has the column `{}` twice", twice.name())),
        None => Ok(()),
    }
}

/// Files that lie beside data, such as manifests: patterns pass them over.
fn is_aside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(b"_") || name.starts_with(b".")
}

/// The files of a folder that a job has written, as its manifest lists them.
fn of_manifest(folder: &Path) -> Result<Vec<(String, u64)>, String> {
    let manifest = read_manifest(folder).map_err(|error| error.to_string())?;
    let manifest = manifest.ok_or_else(|| {
        format!(
            "`{}` is a folder without a manifest `_weft.json`: say which files, such as `*.csv`",
            folder.display()
        )
    })?;
    let file = |file: ManifestFile| {
        let path = folder.join(&file.name);
        let name = path.to_str().ok_or("a file's name is not UTF-8")?;
        match std::fs::metadata(&path) {
            Ok(found) if found.len() == file.bytes => Ok((name.to_owned(), file.bytes)),
            _ => Err(format!(
                "`{name}` is not there as the folder's manifest says"
            )),
        }
    };
    manifest.files.into_iter().map(file).collect()
}

/// Splits of a file of records. One that is compressed cannot be split.
fn records(
    path: &str,
    bytes: u64,
    split_bytes: u64,
    dialect: Dialect,
) -> Result<Vec<Part>, Problem> {
    if Compression::of(path) != Compression::None {
        return Ok(vec![Part::Whole]);
    }
    let mut cuts = cuts(bytes, split_bytes);
    // Of lines, a split may begin within one; a file that is not cut need not be looked through.
    if let Dialect::Csv { .. } = dialect
        && !cuts.is_empty()
    {
        cuts = scan::record_starts(path, dialect, &cuts)?;
    }
    Ok(ranges(&cuts, bytes))
}

/// Where a file is cut. Into equal parts, rather than with a small rest at the end.
fn cuts(bytes: u64, split_bytes: u64) -> Vec<u64> {
    let parts = bytes.div_ceil(split_bytes).max(1);
    let cut = |part: u64| {
        u64::try_from(u128::from(bytes) * u128::from(part) / u128::from(parts))
            .expect("it is at most `bytes`")
    };
    (1..parts).map(cut).collect()
}

/// What lies between the cuts.
fn ranges(cuts: &[u64], bytes: u64) -> Vec<Part> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(bytes));
    starts
        .zip(ends)
        .filter(|(start, end)| start < end || bytes == 0)
        .map(|(start, end)| Part::Bytes { start, end })
        .collect()
}

fn open(path: &str) -> Result<File, Problem> {
    File::open(path).map_err(|error| scan::unreadable(path, "", &error))
}

/// The columns of a Parquet input: those that the job names, or all of its first file.
fn parquet_schema(path: &str, columns: &[String]) -> Result<SchemaRef, Problem> {
    let metadata = scan::parquet_metadata(path, &open(path)?)?;
    let fields = metadata.schema().fields().iter();
    let fields: Fields = fields.map(weft_sandbox::guest_field).collect();
    some(path, &Arc::new(Schema::new(fields)), columns)
}

/// The named columns of a file; all where none is named.
fn some(path: &str, found: &SchemaRef, columns: &[String]) -> Result<SchemaRef, Problem> {
    if columns.is_empty() {
        return Ok(Arc::clone(found));
    }
    let field = |name: &String| {
        found.field_with_name(name).cloned().map_err(|_| {
            let names = schema::names(found);
            let detail = format!("`{path}` has no column `{name}`; it has {names}");
            Problem::new(ErrorCode::SchemaMismatch, detail)
        })
    };
    let fields: Result<Vec<_>, Problem> = columns.iter().map(field).collect();
    Ok(Arc::new(Schema::new(fields?)))
}

/// Splits of a Parquet file: row groups, together while they are small, without those in which no row can pass the filter.
fn row_groups(
    path: &str,
    schema: &SchemaRef,
    filter: &[Comparison],
    split_bytes: u64,
) -> Result<Vec<Part>, Problem> {
    let metadata = scan::parquet_metadata(path, &open(path)?)?;
    scan::positions(path, metadata.schema(), schema)?;
    let may_pass = Filter::new(path, &metadata, filter)?.row_groups(path, &metadata)?;
    let mut parts: Vec<Part> = Vec::new();
    let mut part_bytes = 0;
    for (position, group) in metadata.metadata().row_groups().iter().enumerate() {
        if !may_pass[position] {
            continue;
        }
        let bytes = u64::try_from(group.compressed_size()).unwrap_or(0);
        match parts.last_mut() {
            Some(Part::RowGroups { first, count })
                if *first + *count == position && part_bytes + bytes <= split_bytes =>
            {
                *count += 1;
                part_bytes += bytes;
            }
            _ => {
                parts.push(Part::RowGroups {
                    first: position,
                    count: 1,
                });
                part_bytes = bytes;
            }
        }
    }
    if parts.is_empty() {
        parts.push(Part::RowGroups { first: 0, count: 0 });
    }
    Ok(parts)
}
