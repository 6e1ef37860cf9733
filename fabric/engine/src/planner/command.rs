//! Statements that are more than queries, as jobs: what is planned for them, and the change of the tenant's tables.
//!
//! ```text
//! CREATE VIEW, CREATE EXTERNAL TABLE ─▶ checked once ─▶ no stage, a definition
//! CREATE TABLE .. AS, COPY, INSERT ─▶ the query's stages, an output (and a definition)
//! DROP ─▶ no stage, a change        SHOW TABLES, DESCRIBE ─▶ a query over constants
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use weft_core::job::{
    BadRecords, ColumnType, InputFormat, InputSpec, JobSpec, OutputSpec, StageSpec, Work, decode,
};
use weft_core::{ErrorCode, Location, Problem};
use weft_protocol::{FINGERPRINT, IfTaken, Plan, PlanRequest, TableChange, TableStatement};
use weft_sandbox::type_name;
use weft_sql::{Command, Files, Session};
use weft_store::Blobs;

use super::catalog::{Definition, columns, without_calls};
use super::insert::Inserted;
use super::sql::{SqlWork, absolute, gave_up};
use super::tables::FileTable;
use super::{Planner, endings, patterns};
use crate::untrusted::guarded;

/// Name of the input or output that stands for a table while its document is checked.
const TABLE: &str = "table";

/// A job whose statement is more than a query.
pub(crate) struct Directive {
    command: Command,
    /// The job with the stage and the output that the statement stands for.
    request: PlanRequest,
}

impl Directive {
    /// The directive that a job is. Nothing if it has none.
    ///
    /// Errors: the statement is wrong, or the job has more than it.
    pub(crate) async fn of(
        request: &PlanRequest,
        session: &Session,
        blobs: &Blobs,
    ) -> Result<Option<Self>, Problem> {
        for stage in &request.spec.stages {
            let Work::Sql { sql, folder, .. } = &stage.work else {
                continue;
            };
            let of_stage = |problem| in_stage(stage, problem);
            let command = guarded(Box::pin(session.command(sql)))
                .await
                .map_err(gave_up);
            let command = command.flatten().map_err(of_stage)?;
            if let Some(command) = command {
                check_alone(&request.spec, &command).map_err(of_stage)?;
                let planned = planned(request, stage, folder.as_deref(), &command, blobs);
                return Ok(Some(Self {
                    request: planned.map_err(of_stage)?,
                    command,
                }));
            }
        }
        Ok(None)
    }

    /// The job as it is planned.
    pub(crate) fn request(&self) -> &PlanRequest {
        &self.request
    }
}

fn in_stage(stage: &StageSpec, mut problem: Problem) -> Problem {
    problem.detail = format!("stage `{}`: {}", stage.name, problem.detail);
    problem
}

fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidJob, detail)
}

/// Refuses a job that has more than its statement.
fn check_alone(spec: &JobSpec, command: &Command) -> Result<(), Problem> {
    if spec.stages.len() > 1 || !spec.inputs.is_empty() {
        return Err(invalid(
            "a statement that is more than a query is a job of its own, without other stages and inputs".into(),
        ));
    }
    match (command, spec.outputs.first()) {
        (Command::ShowTables | Command::Describe { .. }, _) | (_, None) => Ok(()),
        (_, Some(output)) => Err(invalid(format!(
            "the statement has no rows for the output `{}`: leave the output out",
            output.name
        ))),
    }
}

/// The request with what a command stands for.
fn planned(
    request: &PlanRequest,
    stage: &StageSpec,
    folder: Option<&str>,
    command: &Command,
    blobs: &Blobs,
) -> Result<PlanRequest, Problem> {
    let mut kept_bytes = 0;
    let (query, output) = match command {
        Command::CreateView { .. } | Command::CreateExternalTable(_) | Command::Drop { .. } => {
            return Ok(request.clone());
        }
        Command::ShowTables => (list_tables(&request.tables)?, None),
        Command::Describe { query } => (query.clone(), None),
        Command::Insert {
            name,
            columns,
            query,
        } => {
            let inserted = Inserted::of(blobs, request, &stage.name, name, columns, query)?;
            kept_bytes = inserted.kept_bytes;
            let output = output_of(stage, &inserted.output)?;
            (inserted.query, Some(output))
        }
        Command::CreateTableAs {
            query, location, ..
        } => {
            let output = match location {
                Some(location) => output(stage, folder, location, "parquet", &[])?,
                None => output_of(stage, &json!({ "from": stage.name }))?,
            };
            (query.clone(), Some(output))
        }
        Command::Copy {
            query,
            location,
            format,
            partition_by,
        } => {
            let format = match format {
                Some(format) => format_name(format),
                None => endings::written_format(location)?,
            };
            (
                query.clone(),
                Some(output(stage, folder, location, format, partition_by)?),
            )
        }
    };
    let mut planned = request.clone();
    for stage in &mut planned.spec.stages {
        if let Work::Sql { sql, .. } = &mut stage.work {
            sql.clone_from(&query);
        }
    }
    if let Some(output) = output {
        planned.spec.outputs.push(output);
        let most = request.max_kept_bytes.saturating_sub(kept_bytes);
        planned.spec.bound_kept(most);
    }
    Ok(planned)
}

/// The query that lists tables and views.
fn list_tables(tables: &BTreeMap<String, String>) -> Result<String, Problem> {
    let mut rows = Vec::new();
    for (name, text) in tables {
        let kind = Definition::read(name, text)?.kind().word();
        rows.push(format!("('{}', '{kind}')", name.replace('\'', "''")));
    }
    Ok(match rows.is_empty() {
        true => "SELECT '' AS name, '' AS kind WHERE false".to_owned(),
        false => format!(
            "SELECT name, kind FROM (VALUES {}) AS t (name, kind) ORDER BY name",
            rows.join(", ")
        ),
    })
}

/// The name of a format in job documents.
fn format_name(format: &str) -> &str {
    match format {
        "ndjson" | "jsonl" => "json",
        "tsv" => "csv",
        other => other,
    }
}

fn output(
    stage: &StageSpec,
    folder: Option<&str>,
    location: &str,
    format: &str,
    partition_by: &[String],
) -> Result<OutputSpec, Problem> {
    let path = match Location::is_one(location) {
        true => location.to_owned(),
        false => resolved(location, folder, str::to_owned)?,
    };
    let output = json!({
        "from": stage.name, "format": format, "uri": path, "partition_by": partition_by,
    });
    output_of(stage, &output)
}

/// An output of a stage, as job documents have it.
fn output_of(stage: &StageSpec, output: &Value) -> Result<OutputSpec, Problem> {
    let document = json!({
        "name": TABLE,
        "stage": [{ "name": stage.name, "sql": "SELECT 1" }],
        "output": { TABLE: output },
    });
    let outputs = decoded(&document)?.outputs.into_iter().next();
    outputs.ok_or_else(|| Problem::new(ErrorCode::Internal, "a document lost its output"))
}

fn resolved(
    location: &str,
    folder: Option<&str>,
    meant: fn(&str) -> String,
) -> Result<String, Problem> {
    if Location::is_one(location) {
        return Ok(Location::parse(location).map_err(invalid)?.to_string());
    }
    let local = location.strip_prefix("file://").unwrap_or(location);
    if let Some((scheme, _)) = local.split_once("://") {
        return Err(invalid(format!(
            "`{location}`: `{scheme}://` is not offered; use a path, `file:///`, `s3://`, `gs://` or `az://`"
        )));
    }
    absolute(local, folder, meant).ok_or_else(|| {
        invalid(format!(
            "`{location}` is relative, and the stage has no `folder`: name it from `/` on, or give the stage a `folder`"
        ))
    })
}

/// Checks a document as if a user had written it. The error has what is wrong in one line.
fn decoded(document: &Value) -> Result<JobSpec, Problem> {
    decode(document).map_err(|mut problem| {
        let errors = std::mem::take(&mut problem.errors);
        let of_table = |path: &str| {
            let path = path.rsplit('.').next().unwrap_or_default();
            path.to_owned()
        };
        let errors = errors
            .iter()
            .map(|error| format!("{}: {}", of_table(&error.path), error.message));
        problem.detail = errors.collect::<Vec<_>>().join("; ");
        problem
    })
}

/// The path of the files at a location. A folder means the files of the format in it, compressed ones too.
fn pattern(location: &str, format: &str) -> String {
    match location.ends_with('/') {
        false => location.to_owned(),
        true => format!("{location}{}", patterns::in_folder(format)),
    }
}

/// The location of a table as its input has it. A folder on an object store stays one, whose manifest says what is
/// there; one that is a pattern has none.
fn table_uri(location: &str, format: &str, folder: Option<&str>) -> Result<String, Problem> {
    let is_folder = Location::is_one(location) && location.ends_with('/');
    match patterns::literal(location).filter(|_| is_folder) {
        Some(location) => resolved(&location, folder, patterns::escape),
        None => resolved(&pattern(location, format), folder, patterns::escape),
    }
}

/// The path of a table's files, if it is one: only then is it plain which of its folders name columns.
fn path(files: &Files) -> Option<String> {
    match files.locations.as_slice() {
        [location] => Some(pattern(location, format_name(&files.format))),
        _ => None,
    }
}

/// The input that CREATE EXTERNAL TABLE stands for.
fn input(files: &Files, folder: Option<&str>) -> Result<InputSpec, Problem> {
    let format = format_name(&files.format);
    if matches!(format, "parquet" | "arrow") && !files.columns.is_empty() {
        return Err(invalid(format!(
            "files of the format {format} say which columns they have: leave the list out, or choose some of them by \
             OPTIONS (columns 'a, b')"
        )));
    }
    let uris = files.locations.iter();
    let uris = uris.map(|location| table_uri(location, format, folder));
    let mut input = json!({ "format": format, "uri": uris.collect::<Result<Vec<_>, _>>()? });
    if files.format == "tsv" {
        input["delimiter"] = json!("\t");
    }
    if !files.columns.is_empty() {
        let columns = files.columns.iter().map(|(name, data_type)| {
            let data_type = type_name(data_type);
            match ColumnType::parse(&data_type) {
                Some(_) => Ok(format!("{name} {data_type}")),
                None => Err(invalid(format!(
                    "the column `{name}` has the type {data_type}, which files cannot be read in; types are {}",
                    ColumnType::NAMES.join(", ")
                ))),
            }
        });
        input["schema"] = json!(columns.collect::<Result<Vec<_>, _>>()?);
    }
    for (key, text) in &files.options {
        let key = key.strip_prefix("format.").unwrap_or(key);
        let key = if key == "has_header" { "header" } else { key };
        if matches!(key, "uri" | "format" | "schema") {
            return Err(invalid(format!(
                "OPTIONS do not take `{key}`: LOCATION, STORED AS and the list of columns say it"
            )));
        }
        input[key] = option(key, text);
    }
    let document = json!({
        "name": TABLE,
        "input": { TABLE: input },
        "output": { TABLE: { "from": TABLE, "format": "arrow", "uri": "/" } },
    });
    let inputs = decoded(&document)?.inputs.into_iter().next();
    let input =
        inputs.ok_or_else(|| Problem::new(ErrorCode::Internal, "a document lost its input"))?;
    Ok(InputSpec {
        name: files.name.clone(),
        ..input
    })
}

/// The value of an option as job documents have it.
fn option(key: &str, text: &str) -> Value {
    match (key, text.to_ascii_lowercase().as_str()) {
        ("header", "true") => json!(true),
        ("header", "false") => json!(false),
        ("columns", _) => json!(text.split(',').map(str::trim).collect::<Vec<_>>()),
        ("filter", _) => json!([text]),
        _ => json!(text),
    }
}

impl Planner<'_> {
    /// Plans a job. What its statement is beside rows comes with the plan.
    pub(crate) async fn plan_job(
        &mut self,
        directive: Option<&Directive>,
    ) -> Result<(Plan, Option<TableStatement>), Problem> {
        let Some(directive) = directive else {
            self.check_use()?;
            return Ok((Box::pin(self.plan()).await?, None));
        };
        let request = self.request;
        let Some(stage) = request.spec.stages.first() else {
            return Err(Problem::new(
                ErrorCode::Internal,
                "a statement without a stage",
            ));
        };
        let planned = self.plan_command(stage, &directive.command).await;
        match directive.command {
            // These are stages, and have said so.
            Command::ShowTables
            | Command::Describe { .. }
            | Command::Copy { .. }
            | Command::Insert { .. }
            | Command::CreateTableAs { .. } => planned,
            Command::CreateView { .. } | Command::CreateExternalTable(_) | Command::Drop { .. } => {
                planned.map_err(|problem| in_stage(stage, problem))
            }
        }
    }

    /// Fails for a query whose rows nothing reads: decoders of documents cannot tell it from another statement.
    fn check_use(&self) -> Result<(), Problem> {
        let spec = &self.request.spec;
        match (spec.stages.as_slice(), spec.outputs.is_empty()) {
            ([stage], true) if matches!(stage.work, Work::Sql { .. }) => Err(invalid(format!(
                "nothing reads the rows of `{}`: add an output or a stage",
                stage.name
            ))),
            _ => Ok(()),
        }
    }

    async fn plan_command(
        &mut self,
        stage: &StageSpec,
        command: &Command,
    ) -> Result<(Plan, Option<TableStatement>), Problem> {
        let (name, if_taken) = match command {
            Command::ShowTables => return Ok((Box::pin(self.plan()).await?, None)),
            Command::Describe { .. } => {
                self.describes = true;
                return Ok((Box::pin(self.plan()).await?, None));
            }
            Command::Copy { .. } => {
                let plan = self.plan_rows().await?;
                return Ok((plan, Some(self.statement(None))));
            }
            Command::Insert { name, .. } => {
                let plan = self.plan_rows().await?;
                let change = self.inserted(name)?;
                return Ok((plan, Some(self.statement(change))));
            }
            Command::Drop {
                name,
                kind,
                if_exists,
            } => {
                let change = TableChange::Drop {
                    name: name.clone(),
                    kind: Some(*kind),
                    if_exists: *if_exists,
                };
                return Ok((nothing(), Some(self.statement(Some(change)))));
            }
            Command::CreateView { name, if_taken, .. }
            | Command::CreateTableAs { name, if_taken, .. } => (name, *if_taken),
            Command::CreateExternalTable(files) => (&files.name, files.if_taken),
        };
        if if_taken == IfTaken::Keep && self.request.tables.contains_key(name) {
            return Ok((nothing(), None));
        }
        let (plan, definition) = self.create(stage, command).await?;
        let change = TableChange::Put {
            name: name.clone(),
            kind: definition.kind(),
            definition: definition.text()?,
            if_taken,
            extends: None,
        };
        Ok((plan, Some(self.statement(Some(change)))))
    }

    /// A change, and the outputs that the statement has added to its job.
    fn statement(&self, change: Option<TableChange>) -> TableStatement {
        TableStatement {
            change,
            outputs: self.request.spec.outputs.clone(),
        }
    }

    /// Plans rows that go to an output of the statement.
    async fn plan_rows(&mut self) -> Result<Plan, Problem> {
        self.stages_later = true;
        Box::pin(self.plan()).await
    }

    async fn create(
        &mut self,
        stage: &StageSpec,
        command: &Command,
    ) -> Result<(Plan, Definition), Problem> {
        let folder = match &stage.work {
            Work::Sql { folder, .. } => folder.as_deref(),
            _ => None,
        };
        match command {
            Command::CreateView { name, query, .. } => {
                let schema = Box::pin(self.look_into(stage, name, query, folder)).await?;
                let definition = Definition::View {
                    sql: query.clone(),
                    folder: folder.map(str::to_owned),
                    columns: columns(&schema),
                };
                Ok((nothing(), definition))
            }
            Command::CreateExternalTable(files) => {
                let (input, path) = (input(files, folder)?, path(files));
                let table = FileTable::of_table(&self.opener, &input, path.as_deref())?;
                table.check_headers()?;
                let schema = table.schema;
                self.note_columns(&files.name, &schema);
                let definition = Definition::Files {
                    input,
                    path,
                    columns: columns(&schema),
                };
                Ok((nothing(), definition))
            }
            Command::CreateTableAs { name, .. } => {
                let plan = self.plan_rows().await?;
                let definition = self.written(name)?;
                Ok((plan, definition))
            }
            Command::Drop { .. }
            | Command::Copy { .. }
            | Command::Insert { .. }
            | Command::ShowTables
            | Command::Describe { .. } => Err(Problem::new(
                ErrorCode::Internal,
                "the statement creates nothing",
            )),
        }
    }

    /// Plans the query of a view, so that a wrong one is refused when it is created. Returns its columns.
    async fn look_into(
        &mut self,
        stage: &StageSpec,
        name: &str,
        query: &str,
        folder: Option<&str>,
    ) -> Result<SchemaRef, Problem> {
        self.creating = Some(name.to_owned());
        let statement = without_calls(self.parse(query).await?)?;
        let work = SqlWork {
            sql: query,
            from: &[],
            folder,
            partitions: None,
        };
        let names = statement.tables();
        let read = self.relations(&work, names, &BTreeMap::new()).await?;
        let planned = self.plan_sql(&self.session, stage, statement, read, None);
        let (planned, _) = planned.await?;
        let last = planned.last().map(|stage| Arc::clone(&stage.schema));
        let schema =
            last.ok_or_else(|| Problem::new(ErrorCode::Internal, "a query without a stage"))?;
        self.note_columns(name, &schema);
        Ok(schema)
    }

    /// The table of the files that the job's output will have.
    pub(super) fn written(&self, name: &str) -> Result<Definition, Problem> {
        let (Some(output), Some(schema)) = (self.request.spec.outputs.first(), &self.result) else {
            let detail = "a table without rows";
            return Err(Problem::new(ErrorCode::Internal, detail));
        };
        let Some(folder) = output.path() else {
            // Stores of some kinds have no place for outputs.
            let place = self.blobs.kept_place(&self.request.job, &output.name);
            place.map_err(|error| invalid(format!("{error}; give the table a LOCATION")))?;
            return Ok(Definition::Kept {
                job: self.request.job.clone(),
                output: output.name.clone(),
                added: Vec::new(),
                columns: columns(schema),
            });
        };
        let folder = folder.trim_end_matches('/');
        let uri = match Location::is_one(folder) {
            true => format!("{folder}/"),
            false => format!("{}/*.parquet", patterns::escape(folder)),
        };
        Ok(Definition::Files {
            input: InputSpec {
                name: name.to_owned(),
                format: InputFormat::Parquet {
                    columns: Vec::new(),
                    filter: Vec::new(),
                },
                uris: vec![uri],
                bad_records: BadRecords::Fail,
            },
            path: None,
            columns: columns(schema),
        })
    }
}

/// The plan of a job that runs nothing.
fn nothing() -> Plan {
    Plan {
        stages: Vec::new(),
        fingerprint: FINGERPRINT.into(),
        input_bytes: 0,
    }
}
