//! Inputs and outputs of a job document.

use std::collections::BTreeMap;

use serde_json::Value;

use super::decode::check_name;
use super::document::{Errors, Table, nearest};
use super::{
    BadRecords, ColumnSpec, ColumnType, Comparison, CsvFormat, Destination, InputFormat, InputSpec,
    MAX_KEPT_BYTES, OutputFormat, OutputMode, OutputSpec, REST_COLUMN, UnknownFields, expand,
};
use crate::location::Location;

/// The job's params, which paths name.
pub(super) type Params = BTreeMap<String, String>;

/// Columns of one schema in a job document.
const COLUMNS_MAX: usize = 4096;
/// Comparisons of one filter.
const COMPARISONS_MAX: usize = 64;

/// The inputs, and the outputs that their dead letters go to.
pub(super) fn inputs(
    table: &mut Table<'_>,
    params: &Params,
    errors: &mut Errors,
) -> (Vec<InputSpec>, Vec<OutputSpec>) {
    let (mut inputs, mut dead_letters) = (Vec::new(), Vec::new());
    let Some(value) = table.get("input") else {
        return (inputs, dead_letters);
    };
    let Some(named) = Table::open(&table.at("input"), value, errors) else {
        return (inputs, dead_letters);
    };
    for (name, value) in named.entries() {
        let path = named.at(name);
        check_name(&path, name, errors);
        let Some(table) = Table::open(&path, value, errors) else {
            continue;
        };
        let (input, dead_letter) = input(name, table, params, errors);
        inputs.push(input);
        dead_letters.extend(dead_letter);
    }
    (inputs, dead_letters)
}

fn input(
    name: &str,
    mut table: Table<'_>,
    params: &Params,
    errors: &mut Errors,
) -> (InputSpec, Option<OutputSpec>) {
    let format = table.required_choice(
        "format",
        &["text", "csv", "json", "parquet", "arrow"],
        errors,
    );
    let uris = uris(&mut table, params, errors);
    let format = match format {
        Some("csv") => InputFormat::Csv(csv(&mut table, errors)),
        Some("json") => json(&mut table, errors),
        Some("parquet") => InputFormat::Parquet {
            columns: table.texts("columns", errors).unwrap_or_default(),
            filter: filter(&mut table, errors),
        },
        Some("arrow") => InputFormat::Arrow {
            columns: table.texts("columns", errors).unwrap_or_default(),
        },
        _ => InputFormat::Text {
            utf8: table.choice("encoding", &["binary", "utf8"], errors) == Some("utf8"),
        },
    };
    let (bad_records, dead_letter) = match format {
        InputFormat::Text { .. } | InputFormat::Csv(_) | InputFormat::Json { .. } => {
            bad_records(name, &mut table, params, errors)
        }
        InputFormat::Parquet { .. } | InputFormat::Arrow { .. } => (BadRecords::Fail, None),
    };
    table.finish(errors);
    // What is wrong has been noted; the name stays known, so that stages that read it are not reported too.
    let input = InputSpec {
        name: name.to_owned(),
        format,
        uris,
        bad_records,
    };
    (input, dead_letter)
}

fn uris(table: &mut Table<'_>, params: &Params, errors: &mut Errors) -> Vec<String> {
    match table.texts("uri", errors) {
        Some(uris) if !uris.is_empty() => uris
            .iter()
            .filter_map(|uri| local_path(&table.at("uri"), uri, params, errors))
            .collect(),
        Some(_) => {
            errors.add(&table.at("uri"), "names no file");
            Vec::new()
        }
        None => {
            if !errors
                .told
                .iter()
                .any(|error| error.path == table.at("uri"))
            {
                errors.add(&table.at("uri"), "is missing");
            }
            Vec::new()
        }
    }
}

fn json(table: &mut Table<'_>, errors: &mut Errors) -> InputFormat {
    let columns = schema(table, errors);
    let choices = ["ignore", "fail", "rest"];
    let unknown_fields = match table.choice("unknown_fields", &choices, errors) {
        Some("fail") => UnknownFields::Fail,
        Some("rest") => UnknownFields::Rest,
        _ => UnknownFields::Ignore,
    };
    let has_rest = columns.iter().any(|column| column.name == REST_COLUMN);
    if unknown_fields == UnknownFields::Rest && has_rest {
        let message = format!(
            "the column `{REST_COLUMN}` is made by `unknown_fields = \"rest\"`: name yours differently"
        );
        errors.add(&table.at("schema"), message);
    }
    InputFormat::Json {
        columns,
        unknown_fields,
    }
}

fn csv(table: &mut Table<'_>, errors: &mut Errors) -> CsvFormat {
    let header = table.flag("header", errors).unwrap_or(true);
    let delimiter = byte(table, "delimiter", errors).flatten().unwrap_or(b',');
    let quote = byte(table, "quote", errors).unwrap_or(Some(b'"'));
    if quote == Some(delimiter) {
        errors.add(&table.at("quote"), "must differ from `delimiter`");
    }
    let columns = schema(table, errors);
    let is_nested = |column: &&ColumnSpec| {
        matches!(
            column.data_type,
            ColumnType::List(_) | ColumnType::Struct(_)
        )
    };
    for nested in columns.iter().filter(is_nested) {
        let message = format!(
            "the column `{}` is a {}, which CSV cannot hold",
            nested.name, nested.data_type
        );
        errors.add(&table.at("schema"), message);
    }
    CsvFormat {
        header,
        delimiter,
        quote,
        columns,
    }
}

/// One byte of ASCII; nothing in it where the text is empty, nothing at all where the key is missing.
fn byte(table: &mut Table<'_>, key: &'static str, errors: &mut Errors) -> Option<Option<u8>> {
    let text = table.text(key, errors)?;
    match text.as_bytes() {
        [] if key == "quote" => Some(None),
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Some(Some(*byte)),
        _ => {
            errors.add(
                &table.at(key),
                format!("`{}` is not one character of ASCII", text.escape_debug()),
            );
            None
        }
    }
}

/// `filter = ["column operator value", ..]`.
fn filter(table: &mut Table<'_>, errors: &mut Errors) -> Vec<Comparison> {
    let path = table.at("filter");
    let texts = table.texts("filter", errors).unwrap_or_default();
    if texts.len() > COMPARISONS_MAX {
        let message = format!(
            "{} comparisons; a filter may have {COMPARISONS_MAX}",
            texts.len()
        );
        errors.add(&path, message);
        return Vec::new();
    }
    let comparison = |text: &String| match text.parse() {
        Ok(comparison) => Some(comparison),
        Err(()) => {
            errors.add(
                &path,
                format!(
                    "`{}` is not a comparison such as `hits >= 10`, with one of `=`, `!=`, `<`, `<=`, `>`, `>=` between spaces",
                    text.escape_debug()
                ),
            );
            None
        }
    };
    texts.iter().filter_map(comparison).collect()
}

/// `schema = ["name type", ..]`.
fn schema(table: &mut Table<'_>, errors: &mut Errors) -> Vec<ColumnSpec> {
    let path = table.at("schema");
    let Some(texts) = table.texts("schema", errors) else {
        return Vec::new();
    };
    if texts.is_empty() {
        errors.add(&path, "names no column; without it they are inferred");
    }
    if texts.len() > COLUMNS_MAX {
        errors.add(
            &path,
            format!("{} columns; a schema may have {COLUMNS_MAX}", texts.len()),
        );
        return Vec::new();
    }
    let mut columns: Vec<ColumnSpec> = Vec::new();
    for text in &texts {
        let Some(column) = ColumnSpec::parse(text) else {
            let data_type = text.trim().rsplit(' ').next().unwrap_or_default();
            let suggestion = nearest(data_type, ColumnType::NAMES);
            let message = format!(
                "`{}` is not a column such as `hits int64`; types are `{}`",
                text.escape_debug(),
                ColumnType::NAMES.join("`, `")
            );
            errors.add_with(&path, message, suggestion);
            continue;
        };
        if columns.iter().any(|other| other.name == column.name) {
            errors.add(
                &path,
                format!("the column `{}` is there twice", column.name),
            );
        }
        columns.push(column);
    }
    columns
}

fn bad_records(
    input: &str,
    table: &mut Table<'_>,
    params: &Params,
    errors: &mut Errors,
) -> (BadRecords, Option<OutputSpec>) {
    let path = table.at("bad_records");
    match table.get("bad_records") {
        None => (BadRecords::Fail, None),
        Some(value @ Value::Object(_)) => match dead_letter(&path, input, value, params, errors) {
            Some(output) => {
                let name = output.name.clone();
                (BadRecords::DeadLetter { output: name }, Some(output))
            }
            None => (BadRecords::Fail, None),
        },
        Some(_) => match table.choice("bad_records", &["fail", "skip"], errors) {
            Some("skip") => (BadRecords::Skip, None),
            _ => (BadRecords::Fail, None),
        },
    }
}

fn dead_letter(
    path: &str,
    input: &str,
    value: &Value,
    params: &Params,
    errors: &mut Errors,
) -> Option<OutputSpec> {
    let mut table = Table::open(path, value, errors)?;
    let uri = table.required_text("dead_letter", errors);
    let folder = uri.and_then(|uri| local_path(&table.at("dead_letter"), uri, params, errors));
    let mode = mode(&mut table, errors);
    table.finish(errors);
    Some(OutputSpec {
        name: format!("{input}-bad-records"),
        from: input.to_owned(),
        format: OutputFormat::Json,
        to: Destination::Folder { path: folder? },
        partition_by: Vec::new(),
        mode,
    })
}

/// A location of an object store.
fn location(path: &str, uri: &str, errors: &mut Errors) -> Option<String> {
    match Location::parse(uri) {
        Ok(location) => Some(location.to_string()),
        Err(what) => {
            errors.add(path, what);
            None
        }
    }
}

/// An absolute local path out of a path or a `file://` URI, with the job's params in it; of an input or output, a
/// location of an object store as well.
pub(super) fn local_path(
    path: &str,
    uri: &str,
    params: &Params,
    errors: &mut Errors,
) -> Option<String> {
    let is_pattern = path.starts_with("input.") && path.ends_with(".uri");
    let uri = match expand(uri, is_pattern, params) {
        Ok(uri) => uri,
        Err((what, suggestion)) => {
            let suggestion = suggestion.map(|name| format!("${{{name}}}"));
            errors.add_with(path, what, suggestion);
            return None;
        }
    };
    let uri = uri.as_str();
    let is_output = path.starts_with("output.") || path.ends_with(".dead_letter");
    if (is_pattern || is_output) && Location::is_one(uri) {
        return location(path, uri, errors);
    }
    let local = uri.strip_prefix("file://").unwrap_or(uri);
    if let Some((scheme, _)) = local.split_once("://") {
        errors.add(path, format!("`{scheme}://` is not offered by this version; it offers `file://`, absolute paths and `s3://`, and of inputs `gs://` and `az://` as well"));
        return None;
    }
    if !local.starts_with('/') || local.contains('\0') || local.split('/').any(|part| part == "..")
    {
        errors.add(path, format!("`{}` must be an absolute path without `..` (the CLI resolves paths against the job file's folder)", uri.escape_debug()));
        return None;
    }
    // `a//b` and `a/./b` are `a/b`: outputs are told apart by their paths.
    let parts: Vec<&str> = local
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let end = if local.ends_with('/') && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{end}", parts.join("/")))
}

pub(super) fn outputs(
    table: &mut Table<'_>,
    params: &Params,
    errors: &mut Errors,
) -> Vec<OutputSpec> {
    let Some(value) = table.get("output") else {
        return Vec::new();
    };
    let Some(named) = Table::open(&table.at("output"), value, errors) else {
        return Vec::new();
    };
    let mut outputs = Vec::new();
    for (name, value) in named.entries() {
        let path = named.at(name);
        check_name(&path, name, errors);
        let Some(table) = Table::open(&path, value, errors) else {
            continue;
        };
        outputs.extend(output(name, table, params, errors));
    }
    outputs
}

fn mode(table: &mut Table<'_>, errors: &mut Errors) -> OutputMode {
    match table.choice("mode", &["error", "overwrite", "append"], errors) {
        Some("overwrite") => OutputMode::Overwrite,
        Some("append") => OutputMode::Append,
        _ => OutputMode::Error,
    }
}

fn output(
    name: &str,
    mut table: Table<'_>,
    params: &Params,
    errors: &mut Errors,
) -> Option<OutputSpec> {
    let from = table.required_text("from", errors);
    let is_kept = table.get("uri").is_none();
    let to = match is_kept {
        true => {
            check_kept(&mut table, errors);
            Some(Destination::Kept {
                max_kept_bytes: MAX_KEPT_BYTES,
            })
        }
        false => {
            let uri = table.text("uri", errors);
            let path = uri.and_then(|uri| local_path(&table.at("uri"), uri, params, errors));
            path.map(|path| Destination::Folder { path })
        }
    };
    let formats = ["parquet", "csv", "json", "arrow"];
    let format = match is_kept && table.get("format").is_none() {
        true => Some("arrow"),
        false => table.required_choice("format", &formats, errors),
    };
    let format = match format {
        Some("csv") => OutputFormat::Csv,
        Some("json") => OutputFormat::Json,
        Some("arrow") => OutputFormat::Arrow,
        _ => OutputFormat::Parquet,
    };
    let mode = mode(&mut table, errors);
    let partition_by = table.column_names("partition_by", errors);
    table.finish(errors);
    Some(OutputSpec {
        name: name.to_owned(),
        from: from?.to_owned(),
        format,
        to: to?,
        partition_by,
        mode,
    })
}

/// Reports keys that only mean something for a folder of the user's.
fn check_kept(table: &mut Table<'_>, errors: &mut Errors) {
    for key in ["mode", "partition_by"] {
        if table.get(key).is_some() {
            let message = format!(
                "`{key}` needs a `uri`: without one the cluster keeps the rows, in a folder of its own"
            );
            errors.add(&table.at(key), message);
        }
    }
}
