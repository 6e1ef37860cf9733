//! Inputs: which files there are, what columns they have, and how they are split.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use weft_core::job::{Comparison, InputFormat, InputSpec};
use weft_core::{ErrorCode, Location, Problem};
use weft_sandbox::SCHEMA_NAME_BYTES_MAX;
use weft_store::{ManifestFile, read_manifest};

use super::endings;
use super::footers::Footers;
use super::objects;
use super::patterns::{self, FILES_MAX, Walk};
use crate::carrier::{carrier, described, stand_for_the_same};
use crate::plan::{FileSplit, Part};
use crate::scan::{self, Compression, Dialect, Filter, InputFile, Inputs};
use crate::schema;

/// Bytes of a text split.
const SPLIT_BYTES: u64 = 64 << 20;
/// Inputs smaller than this many splits are cut finer, so that they can be worked on side by side.
const SPLITS_WANTED: u64 = 16;
const SPLIT_BYTES_MIN: u64 = 1 << 20;
/// Files that are open before their footers are read.
const FOOTERS_AHEAD: usize = 16;
/// Columns of one input.
const COLUMNS_MAX: usize = 4096;

/// An input that has been looked at.
pub(super) struct Listed {
    pub(super) schema: SchemaRef,
    pub(super) splits: Vec<FileSplit>,
    pub(super) bytes: u64,
    /// Sizes of the columns, of Parquet.
    pub(super) footers: Footers,
}

/// Lists the files of an input, finds out its columns, and splits it.
pub(super) fn list(inputs: &Inputs, input: &InputSpec) -> Result<Listed, Problem> {
    look_into(inputs, input, files(inputs, input)?)
}

/// The same for files that a statement names. Errors: `InvalidJob` for files with [other endings](endings::check), too.
pub(super) fn list_table(inputs: &Inputs, input: &InputSpec) -> Result<Listed, Problem> {
    let found = files(inputs, input)?;
    endings::check(input, &found.0)?;
    look_into(inputs, input, found)
}

/// Finds out the columns of files, and splits them.
fn look_into(
    inputs: &Inputs,
    input: &InputSpec,
    (mut files, mut e_tags): Found,
) -> Result<Listed, Problem> {
    let bytes = files.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let split_bytes = (bytes / SPLITS_WANTED).clamp(SPLIT_BYTES_MIN, SPLIT_BYTES);
    if let InputFormat::Text { .. } | InputFormat::Csv(_) | InputFormat::Json { .. } = input.format
    {
        files.iter().try_for_each(check_compression)?;
    }
    let mut footers = Footers::default();
    let (schema, parts) = match &input.format {
        InputFormat::Parquet { columns, filter } => {
            let looked = ahead(inputs, &files);
            let looked = looked.map(|(path, file)| parquet(path, &file?, filter, &mut footers));
            let looked = looked.collect::<Result<Vec<_>, _>>()?;
            let schemas = looked.iter().map(|(schema, _)| schema);
            let schema = common_schema(&files, schemas, columns)?;
            let groups = looked.into_iter().map(|(_, groups)| groups);
            let parts = groups.map(|groups| row_groups(&groups, split_bytes));
            (schema, parts.collect())
        }
        InputFormat::Arrow { columns } => {
            let schemas = files.iter();
            let schemas = schemas.map(|(path, bytes)| scan::arrow_schema(inputs, path, *bytes));
            let schemas = schemas.collect::<Result<Vec<_>, _>>()?;
            let schema = common_schema(&files, &schemas, columns)?;
            let parts = files
                .iter()
                .map(|(_, bytes)| ranges(&cuts(*bytes, split_bytes), *bytes));
            (schema, parts.collect())
        }
        format => {
            let schema = schema_of_records(inputs, input, &mut files)?;
            let dialect = Dialect::of(format);
            let parts = files
                .iter()
                .map(|file| records(inputs, file, split_bytes, dialect));
            (schema, parts.collect::<Result<Vec<_>, _>>()?)
        }
    };
    check_schema(files.first().map_or("", |(path, _)| path), &schema)?;
    let split = |((path, file_bytes), parts): ((String, u64), Vec<Part>)| {
        let e_tag = e_tags.remove(&path);
        parts.into_iter().map(move |part| FileSplit {
            path: path.clone(),
            file_bytes,
            e_tag: e_tag.clone(),
            part,
        })
    };
    Ok(Listed {
        schema,
        splits: files.into_iter().zip(parts).flat_map(split).collect(),
        bytes,
        footers,
    })
}

/// Returns the columns of an input of records, and removes the files that have no part in it.
fn schema_of_records(
    inputs: &Inputs,
    input: &InputSpec,
    files: &mut Vec<(String, u64)>,
) -> Result<SchemaRef, Problem> {
    let bad_records = &input.bad_records;
    let schema = match &input.format {
        InputFormat::Csv(csv) => {
            let schema = scan::csv_schema(inputs, csv, files, bad_records)?;
            // An empty file lacks even the header.
            let n_files = files.len();
            files.retain(|(_, bytes)| *bytes > 0 || !csv.header || n_files == 1);
            schema
        }
        InputFormat::Json {
            columns,
            unknown_fields,
        } => {
            let schema = scan::json_schema(inputs, columns, files, bad_records)?;
            scan::with_rest(&schema, *unknown_fields)
        }
        InputFormat::Text { utf8 } => scan::text_schema(*utf8),
        InputFormat::Parquet { .. } | InputFormat::Arrow { .. } => schema::empty(),
    };
    Ok(schema)
}

/// Refuses files of compressions that are not read, whose bytes would pass for text.
fn check_compression((path, bytes): &(String, u64)) -> Result<(), Problem> {
    let wrong = |what: String| {
        let detail = format!("`{path}` {what}");
        Err(Problem::new(ErrorCode::BadRecord, detail))
    };
    match Compression::named(path) {
        Err(name) => wrong(format!(
            "is compressed by {name}, which is not read; use gzip (`.gz`) or zstd (`.zst`)"
        )),
        Ok(Compression::None) => Ok(()),
        Ok(compression) if *bytes == 0 => wrong(format!(
            "has no bytes, and so is not {}: remove it, or write it again",
            compression.name()
        )),
        Ok(_) => Ok(()),
    }
}

/// Files with their sizes, in the order of their paths, and the versions of those that are objects.
type Found = (Vec<(String, u64)>, BTreeMap<String, String>);

/// The files of an input, each once.
fn files(inputs: &Inputs, input: &InputSpec) -> Result<Found, Problem> {
    let (mut files, mut e_tags) = (BTreeMap::new(), BTreeMap::new());
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
        if Location::is_one(uri) {
            for (uri, object) in objects::list(inputs.grants(), &input.name, uri)? {
                e_tags.extend(object.e_tag.map(|e_tag| (uri.clone(), e_tag)));
                files.insert(uri, object.bytes);
            }
            if files.len() > FILES_MAX {
                return Err(too_large(&patterns::Error::TooManyFiles));
            }
            continue;
        }
        let itself = patterns::literal(uri);
        let is_itself = |path: &Path| itself.as_deref().is_some_and(|uri| path == Path::new(uri));
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
    Ok((files.into_iter().collect(), e_tags))
}

/// Fields of a schema, nested ones included.
fn n_fields(fields: &Fields) -> usize {
    let nested = fields.iter().map(|field| match field.data_type() {
        DataType::Struct(members) => n_fields(members),
        DataType::List(item) => n_fields(&Fields::from(vec![Arc::clone(item)])),
        _ => 0,
    });
    fields.len() + nested.sum::<usize>()
}

/// Fails for columns that could not be told apart, or are too many.
fn check_schema(path: &str, schema: &SchemaRef) -> Result<(), Problem> {
    let wrong = |what: String| {
        let detail = format!("`{path}` {what}");
        Err(Problem::new(ErrorCode::SchemaMismatch, detail))
    };
    let n = n_fields(schema.fields());
    if n > COLUMNS_MAX {
        return wrong(format!(
            "has {n} columns, members of structs included; an input may have {COLUMNS_MAX}: name those that are needed"
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
            "`{}` is a folder without a manifest `_weft.manifest`: say which files, such as `*.csv`",
            folder.display()
        )
    })?;
    let file = |file: ManifestFile| {
        let path = folder.join(file.key());
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
    inputs: &Inputs,
    (path, bytes): &(String, u64),
    split_bytes: u64,
    dialect: Dialect,
) -> Result<Vec<Part>, Problem> {
    let bytes = *bytes;
    if Compression::of(path) != Compression::None {
        return Ok(vec![Part::Whole]);
    }
    let mut cuts = cuts(bytes, split_bytes);
    // Of lines, a split may begin within one; a file that is not cut need not be looked through.
    if let Dialect::Csv { .. } = dialect
        && !cuts.is_empty()
    {
        cuts = scan::record_starts(inputs, (path.as_str(), bytes), dialect, &cuts)?;
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

/// Opens files whose footers are read, some before their turn: those of stores are on their way meanwhile.
fn ahead<'a>(
    inputs: &'a Inputs,
    files: &'a [(String, u64)],
) -> impl Iterator<Item = (&'a str, Result<InputFile, Problem>)> {
    let mut opened = files.iter().map(move |(path, bytes)| {
        let file = inputs.open(path, *bytes);
        if let Ok(file) = &file {
            file.expect_end();
        }
        (path.as_str(), file)
    });
    let mut waiting: VecDeque<_> = opened.by_ref().take(FOOTERS_AHEAD).collect();
    std::iter::from_fn(move || {
        waiting.extend(opened.next());
        waiting.pop_front()
    })
}

/// A row group: whether rows of it may pass the filter, and its compressed size in bytes.
type RowGroup = (bool, u64);

/// Columns and row groups of a Parquet file, whose sizes are added to `footers`.
fn parquet(
    path: &str,
    file: &InputFile,
    filter: &[Comparison],
    footers: &mut Footers,
) -> Result<(SchemaRef, Vec<RowGroup>), Problem> {
    let metadata = scan::parquet_metadata(path, file)?;
    let may_pass = Filter::new(path, &metadata, filter)?.row_groups(path, &metadata)?;
    footers.add(&metadata, &may_pass);
    let groups = metadata.metadata().row_groups().iter();
    let sizes = groups.map(|group| u64::try_from(group.compressed_size()).unwrap_or(0));
    let groups = may_pass.into_iter().zip(sizes).collect();
    Ok((Arc::clone(metadata.schema()), groups))
}

/// The columns of several files: those that the job names, or all of the first. A column may hold null if it may in
/// any of them; one that holds nothing but null in some has the type of the others.
fn common_schema<'a>(
    files: &[(String, u64)],
    schemas: impl IntoIterator<Item = &'a SchemaRef> + Clone,
    columns: &[String],
) -> Result<SchemaRef, Problem> {
    let mut schemas_and_files = schemas.clone().into_iter().zip(files);
    let Some((first, (path, _))) = schemas_and_files.next() else {
        return Ok(schema::empty());
    };
    let fields = first.fields().iter();
    let fields: Fields = fields.map(carrier).collect();
    let mut fields: Vec<FieldRef> = some(path, &Schema::new(fields), columns)?;
    for (found, (path, _)) in schemas_and_files {
        for field in &mut fields {
            let other = found.field_with_name(field.name()).ok();
            let common = other.map(|other| {
                if matches!(field.data_type(), DataType::Null) {
                    let other = carrier(&Arc::new(other.clone()));
                    return Some(Arc::new(Field::clone(&other).with_nullable(true)));
                }
                let common = scan::common_field(field, other);
                common.filter(|_| stand_for_the_same(field, other))
            });
            *field = common.flatten().ok_or_else(|| {
                let file = &files[0].0;
                let name = field.name();
                let detail = match other {
                    Some(other) => format!(
                        "`{path}` has the column `{name}` of type {}, and `{file}` has it of type {}",
                        described(other),
                        described(field)
                    ),
                    None => format!(
                        "`{path}` has no column `{name}`, which `{file}` has; it has {}",
                        schema::names(found)
                    ),
                };
                Problem::new(ErrorCode::SchemaMismatch, detail)
            })?;
        }
    }
    let fields = fields.iter().map(without_null);
    Ok(Arc::new(Schema::new(fields.collect::<Fields>())))
}

/// A column that holds nothing but null in all files is one of text.
fn without_null(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Null => DataType::Utf8,
        DataType::List(item) => DataType::List(without_null(item)),
        DataType::Struct(members) => DataType::Struct(members.iter().map(without_null).collect()),
        _ => return Arc::clone(field),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}

/// The named columns of a file; all where none is named.
fn some(path: &str, found: &Schema, columns: &[String]) -> Result<Vec<FieldRef>, Problem> {
    if columns.is_empty() {
        return Ok(found.fields().iter().cloned().collect());
    }
    let field = |name: &String| {
        found
            .fields()
            .iter()
            .find(|field| field.name() == name)
            .cloned()
            .ok_or_else(|| {
                let names = schema::names(found);
                let detail = format!("`{path}` has no column `{name}`; it has {names}");
                Problem::new(ErrorCode::SchemaMismatch, detail)
            })
    };
    columns.iter().map(field).collect()
}

/// Splits of a Parquet file: row groups, together while they are small, without those in which no row can pass the filter.
fn row_groups(groups: &[RowGroup], split_bytes: u64) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut part_bytes = 0;
    for (position, (may_pass, bytes)) in groups.iter().enumerate() {
        if !may_pass {
            continue;
        }
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
                part_bytes = *bytes;
            }
        }
    }
    if parts.is_empty() {
        parts.push(Part::RowGroups { first: 0, count: 0 });
    }
    parts
}
