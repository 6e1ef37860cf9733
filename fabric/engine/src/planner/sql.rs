//! SQL stages: a statement is planned over the inputs, files and stages that it reads, and cut into stages.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use weft_core::job::{
    BadRecords, CsvFormat, InputFormat, InputSpec, StageSpec, TASKS_MAX, UnknownFields, Work,
};
use weft_core::{ErrorCode, Location, Problem};
use weft_protocol::{EdgeRead, ReadMode, TaskRange};
use weft_sandbox::type_name;
use weft_sql::{LeafPlan, Options, Out, Relations, Session, SqlStage, Statement, Table};

use super::draft::{Draft, node, small};
use super::explain::SqlText;
use super::sql_functions::SqlFunctions;
use super::stages::{Outlet, partitions_of};
use super::tables::FileTable;
use super::{Planner, has_dead_letters, patterns};
use crate::carrier::carrier;
use crate::plan::{
    AdaptivePlan, EdgeLeaf, EdgePlan, EdgeRows, Leaf, NodeWork, Source, SqlPlan, SqlVariant,
};
use crate::sql_task::build_bytes;
use crate::untrusted::guarded;

/// Advice for whoever names a table that is not there.
const NO_SUCH_TABLE: &str = "; tables and views are listed by `weft tables`; inputs and stages are read if `from` names \
     them, files by a path in quotes with a known ending: 'data/*.parquet'";

/// The work of a SQL stage, as its job has it.
pub(super) struct SqlWork<'a> {
    pub(super) sql: &'a str,
    /// Inputs and stages that the statement reads.
    pub(super) from: &'a [String],
    /// The folder that paths in the statement start from.
    pub(super) folder: Option<&'a str>,
    /// Tasks of each stage that is cut; chosen by the bytes of the inputs if nothing is said.
    pub(super) partitions: Option<u32>,
}

/// Rows of a table.
pub(super) enum Origin {
    Files(Box<FileTable>),
    Rows(Outlet),
}

impl Origin {
    pub(super) fn table(&self, name: String) -> Table {
        match self {
            Self::Files(files) => files.table(name),
            Self::Rows(outlet) => Table {
                name,
                schema: Arc::clone(&outlet.schema),
                rows: None,
                bytes: None,
                columns: Vec::new(),
            },
        }
    }
}

impl Planner<'_> {
    pub(super) async fn sql(
        &mut self,
        stage: &StageSpec,
        work: SqlWork<'_>,
        outlets: &BTreeMap<&str, Outlet>,
    ) -> Result<Outlet, Problem> {
        let of_stage = |mut problem: Problem| {
            problem.detail = format!("stage `{}`: {}", stage.name, problem.detail);
            problem
        };
        let statement = self.parse(work.sql).await.map_err(of_stage)?;
        let names = statement.tables();
        if let Some(unread) = work.from.iter().find(|name| !names.contains(name)) {
            let mut detail = format!(
                "`from` names `{unread}`, which the statement does not read; it reads {}",
                quoted(&names)
            );
            if names.iter().any(|name| name.eq_ignore_ascii_case(unread)) {
                detail += "; names are read in lower case unless they are in double quotes";
            }
            return Err(of_stage(Problem::new(ErrorCode::InvalidJob, detail)));
        }
        let functions = self.sql_functions(stage, &statement).map_err(of_stage)?;
        let session = functions.session(&self.session).map_err(of_stage)?;
        let read = self.relations(&work, names, outlets).await;
        let read = read.map_err(of_stage)?;
        let planned = self.plan_sql(&session, stage, statement, read, work.partitions);
        let planned = planned.await;
        self.usage.extend(functions.usage());
        let (mut planned, mut origins) = planned.map_err(of_stage)?;
        if self.describes {
            planned = Box::pin(self.described(stage, &planned))
                .await
                .map_err(of_stage)?;
            origins.clear();
        }
        self.add_sql(stage, planned, &origins, &functions)
            .map_err(of_stage)
    }

    pub(super) async fn parse(&self, sql: &str) -> Result<Statement, Problem> {
        let parsed = guarded(async { self.session.parse(sql) }).await;
        parsed.map_err(gave_up).flatten()
    }

    /// Plans a statement over its tables and views and cuts it.
    pub(super) async fn plan_sql(
        &self,
        session: &Session,
        stage: &StageSpec,
        statement: Statement,
        (relations, origins): (Relations, Vec<Origin>),
        partitions: Option<u32>,
    ) -> Result<(Vec<SqlStage>, Vec<Origin>), Problem> {
        // The size of what other stages make of the inputs is not known.
        let read_bytes = origins.iter().map(|origin| match origin {
            Origin::Files(files) => Some(files.bytes()),
            Origin::Rows(_) => None,
        });
        let read_bytes = read_bytes.sum::<Option<u64>>().unwrap_or(self.input_bytes);
        let options = Options {
            tasks: partitions.unwrap_or_else(|| partitions_of(read_bytes)),
            broadcast: true,
            build_bytes: build_bytes(stage.limits.memory_bytes),
            started_ms: self.request.started_ms,
        };
        let is_known = relations.reads.len() == statement.tables().len();
        let planned = session.plan(statement, relations, &options);
        let planned = guarded(Box::pin(planned)).await.map_err(gave_up);
        let planned = planned.flatten().map_err(|mut problem| {
            if !is_known {
                problem.detail += NO_SUCH_TABLE;
            }
            problem
        })?;
        Ok((planned, origins))
    }

    /// Finds the rows of a table: an input or a stage that the stage names, or files. Nothing if the name is
    /// none of these. Tables and views of the tenant are found [elsewhere](Self::relations).
    pub(super) fn origin(
        &mut self,
        work: &SqlWork<'_>,
        name: &str,
        outlets: &BTreeMap<&str, Outlet>,
    ) -> Result<Option<Origin>, Problem> {
        let is_named = work.from.iter().any(|from| from == name);
        let inputs = self.request.spec.inputs.iter().filter(|_| is_named);
        let mut inputs = inputs.filter(|input| input.name == name && !has_dead_letters(input));
        let files = match inputs.next() {
            Some(input) => FileTable::of_input(&self.opener, input)?,
            None => match outlets.get(name).filter(|_| is_named) {
                Some(outlet) => return Ok(Some(Origin::Rows(outlet.clone()))),
                None => match file_input(name, work.folder)? {
                    Some(input) => FileTable::of_path(&self.opener, &input)?,
                    None => return Ok(None),
                },
            },
        };
        Ok(Some(self.files(name, files)))
    }

    /// Files that a statement reads by a name.
    pub(super) fn files(&mut self, name: &str, files: FileTable) -> Origin {
        self.count(&files.input, files.bytes());
        self.note_columns(name, &files.schema);
        Origin::Files(Box::new(files))
    }

    /// Adds the stages that a statement was cut into. Rows come out of the last one.
    pub(super) fn add_sql(
        &mut self,
        stage: &StageSpec,
        planned: Vec<SqlStage>,
        origins: &[Origin],
        functions: &SqlFunctions,
    ) -> Result<Outlet, Problem> {
        let coalesce = !has_partitions(stage);
        let of_stage = |of: weft_sql::Variant| variant(of, coalesce);
        let base = self.stages.len();
        let schemas: Vec<SchemaRef> = planned.iter().map(|one| Arc::clone(&one.schema)).collect();
        let n = planned.len();
        for (position, one) in planned.into_iter().enumerate() {
            if one.n_tasks > TASKS_MAX {
                let detail = format!(
                    "it makes {} tasks; a stage may have {TASKS_MAX}",
                    one.n_tasks
                );
                return Err(Problem::new(ErrorCode::TooLarge, detail));
            }
            let is_last = position + 1 == n;
            let schema = match is_last {
                true => passed_on(&one.schema)?,
                false => Arc::clone(&one.schema),
            };
            let leaves = one.leaves.iter();
            let leaves = leaves.map(|leaf| self.leaf(leaf, base, &schemas, origins));
            let leaves = leaves.collect::<Result<Vec<_>, _>>()?;
            let name = match is_last {
                true => stage.name.clone(),
                false => format!("{}.{}", stage.name, position + 1),
            };
            let source = SqlPlan {
                variants: one.variants.into_iter().map(of_stage).collect(),
                leaves,
                schema: Arc::clone(&schema),
                is_last,
                functions: functions.plans(&one.functions),
            };
            let edge = edge_of(one.out, &schema);
            let text = SqlText {
                base,
                operators: one.operators,
                keys: one.keys,
            };
            self.sql_texts.insert(self.stages.len(), text);
            let mut draft = draft(stage, name, source, one.n_tasks, edge);
            draft.deterministic = functions.are_deterministic(&one.functions);
            self.stages.push(draft);
            if is_last {
                return Ok(Outlet {
                    stage: self.stages.len() - 1,
                    node: 0,
                    schema,
                });
            }
        }
        Err(Problem::new(
            ErrorCode::Internal,
            "a statement was cut into no stage",
        ))
    }

    fn leaf(
        &mut self,
        leaf: &LeafPlan,
        base: usize,
        schemas: &[SchemaRef],
        origins: &[Origin],
    ) -> Result<Leaf, Problem> {
        Ok(match leaf {
            LeafPlan::Exchange {
                stage,
                mode,
                tasks,
                per_writer,
            } => Leaf::Edge(EdgeLeaf {
                read: EdgeRead {
                    stage: small(base + stage),
                    edge: 0,
                    mode: *mode,
                    tasks: Some(*tasks),
                },
                from: String::new(),
                schema: Arc::clone(&schemas[*stage]),
                columns: None,
                per_writer: *per_writer,
            }),
            LeafPlan::Scan {
                table,
                columns,
                filters,
                limit,
                tasks,
            } => match &origins[*table] {
                Origin::Files(files) => {
                    let limit = limit.map(|limit| limit as u64);
                    let columns = columns.as_deref();
                    Leaf::Files(files.leaf(columns, filters, limit, *tasks)?)
                }
                Origin::Rows(outlet) => self.rows_leaf(outlet, columns.as_deref(), *tasks)?,
            },
        })
    }

    /// Has an outlet feed a leaf, by an edge of its own.
    fn rows_leaf(
        &mut self,
        outlet: &Outlet,
        columns: Option<&[usize]>,
        tasks: TaskRange,
    ) -> Result<Leaf, Problem> {
        let edge = self.edge(outlet, exchange(1, EdgeRows::Arriving, &outlet.schema));
        Ok(Leaf::Edge(EdgeLeaf {
            read: EdgeRead {
                mode: ReadMode::Sliced,
                tasks: Some(tasks),
                ..EdgeRead::from(edge)
            },
            from: String::new(),
            schema: projected(&outlet.schema, columns)?,
            columns: columns.map(<[usize]>::to_vec),
            per_writer: false,
        }))
    }
}

/// Whether whoever wrote the stage said how many tasks it has.
fn has_partitions(stage: &StageSpec) -> bool {
    match &stage.work {
        Work::Sql { partitions, .. } | Work::Union { partitions, .. } => partitions.is_some(),
        Work::Map { .. } | Work::Reduce { .. } | Work::Tasks { .. } | Work::ForEach { .. } => false,
    }
}

fn variant(of: weft_sql::Variant, coalesce: bool) -> SqlVariant {
    let adaptive = of.adaptive.map(|adaptive| AdaptivePlan {
        coalesce,
        split: adaptive.split,
    });
    SqlVariant {
        tasks: of.tasks,
        plan: of.plan,
        adaptive,
    }
}

fn exchange(partitions: u32, rows: EdgeRows, schema: &SchemaRef) -> EdgePlan {
    EdgePlan {
        partitions,
        keys: Vec::new(),
        combine: None,
        rows,
        schema: Arc::clone(schema),
    }
}

/// The edge that a stage writes, unless its rows are the result.
fn edge_of(out: Out, schema: &SchemaRef) -> Option<EdgePlan> {
    match out {
        Out::Hash { partitions } => Some(exchange(partitions, EdgeRows::Hashed, schema)),
        Out::Single => Some(exchange(1, EdgeRows::Arriving, schema)),
        Out::Sorted => Some(exchange(1, EdgeRows::Ordered, schema)),
        Out::Result => None,
    }
}

fn draft(
    stage: &StageSpec,
    name: String,
    source: SqlPlan,
    n_tasks: u32,
    edge: Option<EdgePlan>,
) -> Draft {
    let mut first = node(NodeWork::Pass);
    first.edges = (0..edge.iter().len()).collect();
    Draft {
        names: vec![name],
        limits: stage.limits.clone(),
        source: Source::Sql(source),
        n_tasks,
        nodes: vec![first],
        edges: edge.into_iter().collect(),
        sinks: Vec::new(),
        deterministic: true,
    }
}

pub(super) fn projected(
    schema: &SchemaRef,
    columns: Option<&[usize]>,
) -> Result<SchemaRef, Problem> {
    let Some(columns) = columns else {
        return Ok(Arc::clone(schema));
    };
    let projected = schema.project(columns);
    let projected = projected.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()));
    Ok(Arc::new(projected?))
}

/// The columns of a statement as other stages, functions and outputs know them.
pub(super) fn passed_on(schema: &SchemaRef) -> Result<SchemaRef, Problem> {
    let field = |field: &Arc<Field>| {
        let seen = match field.data_type() {
            DataType::Null => Arc::new(Field::clone(field).with_data_type(DataType::Utf8)),
            _ => {
                let seen = carrier(field);
                // A column that a statement passes on as it was stands for what it stood for.
                match seen.metadata().is_empty() && seen.data_type() == field.data_type() {
                    true => Arc::clone(field),
                    false => seen,
                }
            }
        };
        match is_passed_on(seen.data_type()) {
            true => Ok(seen),
            false => {
                let detail = format!(
                    "the column `{}` has the type {}, which is not passed on: CAST it to another one",
                    field.name(),
                    type_name(field.data_type())
                );
                Err(Problem::new(ErrorCode::SchemaMismatch, detail))
            }
        }
    };
    let fields = schema.fields().iter().map(field);
    Ok(Arc::new(Schema::new(
        fields.collect::<Result<Vec<_>, _>>()?,
    )))
}

fn is_passed_on(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => is_passed_on(item.data_type()),
        DataType::Struct(members) => members
            .iter()
            .all(|member| is_passed_on(member.data_type())),
        DataType::Null
        | DataType::Interval(_)
        | DataType::Union(_, _)
        | DataType::RunEndEncoded(_, _)
        | DataType::Decimal256(_, _) => false,
        _ => true,
    }
}

/// Files that a statement names by path, as an input that says no more: `'data/*.parquet'`. Nothing if the name does
/// not end like that of a file.
fn file_input(path: &str, folder: Option<&str>) -> Result<Option<InputSpec>, Problem> {
    let invalid = |detail: String| Err(Problem::new(ErrorCode::InvalidJob, detail));
    let bare = path.strip_suffix(".gz").or(path.strip_suffix(".zst"));
    let extension = Path::new(bare.unwrap_or(path)).extension();
    let extension = extension.and_then(|extension| extension.to_str());
    let format = match extension.unwrap_or_default().to_ascii_lowercase().as_str() {
        "parquet" => InputFormat::Parquet {
            columns: Vec::new(),
            filter: Vec::new(),
        },
        "arrow" | "arrows" | "feather" | "ipc" => InputFormat::Arrow {
            columns: Vec::new(),
        },
        "csv" => csv(b','),
        "tsv" => csv(b'\t'),
        "json" | "jsonl" | "ndjson" => InputFormat::Json {
            columns: Vec::new(),
            unknown_fields: UnknownFields::default(),
        },
        "txt" | "log" => InputFormat::Text { utf8: true },
        _ => return Ok(None),
    };
    if Location::is_one(path) {
        let location = Location::parse(path);
        let location = location.map_err(|what| Problem::new(ErrorCode::InvalidJob, what))?;
        return Ok(Some(InputSpec {
            name: path.to_owned(),
            format,
            uris: vec![location.to_string()],
            bad_records: BadRecords::Fail,
        }));
    }
    if let Some((scheme, _)) = path.split_once("://")
        && scheme != "file"
    {
        return invalid(format!(
            "`{path}`: `{scheme}://` is not offered; use a path, `file:///`, `s3://`, `gs://` or `az://`"
        ));
    }
    let Some(absolute) = absolute(path, folder, patterns::escape) else {
        return invalid(format!(
            "`{path}` is relative, and the stage has no `folder`: name it from `/` on, or give the stage a `folder`"
        ));
    };
    Ok(Some(InputSpec {
        name: path.to_owned(),
        format,
        uris: vec![absolute],
        bad_records: BadRecords::Fail,
    }))
}

/// A path as inputs have theirs: absolute, without `file://`, `.` and `..`. `meant` writes a name of the folder as it
/// is meant, where a path is a pattern.
pub(super) fn absolute(
    path: &str,
    folder: Option<&str>,
    meant: fn(&str) -> String,
) -> Option<String> {
    let path = path.strip_prefix("file://").unwrap_or(path);
    let mut parts: Vec<String> = match (path.starts_with('/'), folder) {
        (true, _) => Vec::new(),
        // The folder is meant as it is.
        (false, Some(folder)) => {
            let parts = folder.split('/').filter(|part| !part.is_empty());
            parts.map(meant).collect()
        }
        (false, None) => return None,
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

fn csv(delimiter: u8) -> InputFormat {
    InputFormat::Csv(CsvFormat {
        header: true,
        delimiter,
        quote: Some(b'"'),
        columns: Vec::new(),
    })
}

pub(super) fn gave_up(said: String) -> Problem {
    let detail = format!("the statement cannot be planned: {said}");
    Problem::new(ErrorCode::InvalidJob, detail)
}

fn quoted(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => format!("`{}`", names.join("`, `")),
    }
}
