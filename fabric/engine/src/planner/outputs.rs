//! Outputs: whether their folders may be written to, and how the files are named there.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use weft_core::job::{JobSpec, OutputFormat, OutputMode, OutputSpec};
use weft_core::{ErrorCode, Problem};
use weft_protocol::ManifestOutput;
use weft_sandbox::type_name;
use weft_store::{Blobs, Holding, Manifest};

use crate::schema;

/// Columns that name folders.
const PARTITION_COLUMNS_MAX: usize = 8;

/// By output, the manifest that an append joins. Errors: `output_exists` where a folder may not be written to.
pub(super) async fn folders(
    spec: &JobSpec,
    blobs: &Blobs,
) -> Result<BTreeMap<String, Manifest>, Problem> {
    let mut manifests = BTreeMap::new();
    for output in &spec.outputs {
        if let Some(manifest) = joined(output, blobs).await? {
            manifests.insert(output.name.clone(), manifest);
        }
    }
    Ok(manifests)
}

async fn joined(output: &OutputSpec, blobs: &Blobs) -> Result<Option<Manifest>, Problem> {
    // Nobody else writes to a folder that the store has for this job.
    let Some(path) = output.path() else {
        return Ok(None);
    };
    let place = blobs.place_of(path).map_err(|error| error.problem())?;
    let holding = place.look_into().await;
    let holding = holding.map_err(|error| error.problem())?;
    let refused = |why: &str| {
        let name = &output.name;
        let detail = format!("the output `{name}` would go to `{path}`, which holds files{why}");
        Err(Problem::new(ErrorCode::OutputExists, detail))
    };
    match (holding, output.mode) {
        (Holding::Nothing, _) => Ok(None),
        (_, OutputMode::Error) => refused(
            ": choose another folder, or remove them; outputs in job files may say `mode = \"overwrite\"` or \
             `\"append\"`, and `INSERT INTO` adds rows to a table",
        ),
        (Holding::Foreign, _) => refused(
            " and no manifest `_weft.manifest`: only files that a job has written are replaced or added to",
        ),
        (Holding::Output(manifest), OutputMode::Append) => Ok(Some(*manifest)),
        (Holding::Output(_), OutputMode::Overwrite) | (Holding::Unfinished, _) => Ok(None),
    }
}

/// Fails where an append does not fit what is there.
pub(super) fn check_append(
    output: &OutputSpec,
    joined: &Manifest,
    schema: &SchemaRef,
) -> Result<(), Problem> {
    let output = ManifestOutput::new(output, schema::texts(schema), Vec::new());
    let checked = joined.check_append(&output);
    checked.map_err(|error| error.problem())
}

/// Fails where the format has no place for a column.
pub(super) fn check_columns(output: &OutputSpec, schema: &SchemaRef) -> Result<(), Problem> {
    let nested = schema
        .fields()
        .iter()
        .find(|field| field.data_type().is_nested());
    match (output.format, nested) {
        (OutputFormat::Parquet, Some(field)) if is_empty_struct(field.data_type()) => {
            let (name, column) = (&output.name, field.name());
            let detail = format!(
                "output.{name}.format: parquet has no place for `{column}`, a struct without members"
            );
            Err(Problem::new(ErrorCode::SchemaMismatch, detail))
        }
        (OutputFormat::Csv, Some(field)) => {
            let (name, column, data_type) =
                (&output.name, field.name(), type_name(field.data_type()));
            let detail = format!(
                "output.{name}.format: csv has no place for `{column}` of type {data_type}; use parquet, json or arrow"
            );
            Err(Problem::new(ErrorCode::SchemaMismatch, detail))
        }
        _ => Ok(()),
    }
}

fn is_empty_struct(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Struct(members) if members.is_empty())
}

/// Positions of the columns of `partition_by`. Errors: a column that is missing, or of a type that names no folders.
pub(super) fn partition_columns(
    output: &OutputSpec,
    schema: &SchemaRef,
) -> Result<Vec<usize>, Problem> {
    let name = &output.name;
    let wrong = |what: String| {
        let detail = format!("output.{name}.partition_by: {what}");
        Problem::new(ErrorCode::SchemaMismatch, detail)
    };
    let n = output.partition_by.len();
    if n > PARTITION_COLUMNS_MAX || (n > 0 && n >= schema.fields().len()) {
        return Err(wrong(format!(
            "{n} columns; {PARTITION_COLUMNS_MAX} are allowed, and one must be left for the files"
        )));
    }
    let column = |column: &String| {
        let position = schema.index_of(column).map_err(|_| {
            let names = schema::names(schema);
            wrong(format!("there is no column `{column}` among {names}"))
        })?;
        let data_type = schema.field(position).data_type();
        if data_type.is_nested() || data_type.is_floating() {
            return Err(wrong(format!(
                "`{column}` is of type {}, whose values name no folders",
                type_name(data_type)
            )));
        }
        Ok(position)
    };
    output.partition_by.iter().map(column).collect()
}
