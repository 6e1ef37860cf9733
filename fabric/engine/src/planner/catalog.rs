//! Tables and views of the tenant: their definitions, and what a statement reads by way of them.
//!
//! A name in `FROM` is, in this order, an input or a stage that `from` names, a table or view of the tenant, a path.
//! The text of a view has names of its own: only the latter two.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use weft_core::job::{BadRecords, ColumnSpec, ColumnType, InputFormat, InputSpec};
use weft_core::{ErrorCode, JobId, Problem};
use weft_protocol::TableKind;
use weft_sandbox::type_name;
use weft_sql::{Reads, Relation, Relations, Statement, Table, View};
use weft_store::{Blobs, OutputPlace};

use super::sql::{Origin, SqlWork};
use super::stages::Outlet;
use super::tables::FileTable;
use super::{Planner, patterns};
use crate::scan::declared;

/// Views that read one another: each is planned within the next.
const MAX_VIEW_DEPTH: usize = 16;

/// A column as it was when the definition was written, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ColumnText {
    name: String,
    r#type: String,
}

/// A table or view, as the control plane keeps it in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Definition {
    /// Files, which are listed anew whenever they are read.
    Files {
        input: InputSpec,
        /// The path as the statement has it, if it names one: its folders `name=..` are columns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        columns: Vec<ColumnText>,
    },
    /// Rows that the cluster keeps, as an output of the job that made them, and of those that have added some.
    Kept {
        job: JobId,
        output: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        added: Vec<JobId>,
        columns: Vec<ColumnText>,
    },
    /// A query.
    View {
        sql: String,
        /// The folder that its paths begin in.
        folder: Option<String>,
        columns: Vec<ColumnText>,
    },
}

impl Definition {
    pub(super) fn kind(&self) -> TableKind {
        match self {
            Self::Files { .. } | Self::Kept { .. } => TableKind::Table,
            Self::View { .. } => TableKind::View,
        }
    }

    pub(super) fn read(name: &str, text: &str) -> Result<Self, Problem> {
        serde_json::from_str(text).map_err(|error| {
            let detail = format!("the definition of `{name}` cannot be read: {error}");
            Problem::new(ErrorCode::Internal, detail)
        })
    }

    pub(super) fn text(&self) -> Result<String, Problem> {
        serde_json::to_string(self)
            .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))
    }
}

/// The columns of a definition.
pub(super) fn columns(schema: &Schema) -> Vec<ColumnText> {
    let fields = schema.fields().iter();
    let columns = fields.map(|field| ColumnText {
        name: field.name().clone(),
        r#type: type_name(field.data_type()),
    });
    columns.collect()
}

/// The columns of a table or view as its definition has them, each of which may hold null. One whose type has no name
/// is a text.
pub(crate) fn listed_schema(name: &str, definition: &str) -> Result<SchemaRef, Problem> {
    let definition = Definition::read(name, definition)?;
    let (Definition::Files { columns, .. }
    | Definition::Kept { columns, .. }
    | Definition::View { columns, .. }) = definition;
    let fields = columns.into_iter().map(|ColumnText { name, r#type }| {
        if let Some(data_type) = ColumnType::parse(&r#type) {
            return declared(&[ColumnSpec { name, data_type }]).field(0).clone();
        }
        let data_type = match r#type.as_str() {
            "binary" => DataType::Binary,
            other => other.parse().unwrap_or(DataType::Utf8),
        };
        Field::new(name, data_type, true)
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// A view that may be read.
struct Parsed {
    statement: Statement,
    folder: Option<String>,
}

type Views = BTreeMap<String, Parsed>;

/// All that has been found for a statement so far.
#[derive(Default)]
struct Found {
    tables: Vec<Table>,
    origins: Vec<Origin>,
    /// Positions of the tenant's tables.
    files: BTreeMap<String, usize>,
    views: Vec<View>,
    /// Positions of views, and how many levels of views each has.
    levels: BTreeMap<String, (usize, usize)>,
    /// Views whose names are being looked up, each within the one before.
    open: Vec<String>,
}

impl Found {
    fn add(&mut self, name: String, origin: Origin) -> Relation {
        self.tables.push(origin.table(name));
        self.origins.push(origin);
        Relation::Table(self.tables.len() - 1)
    }

    /// Refuses a view that reads itself: other views may have been replaced since it was created.
    fn check_open(&self, name: &str) -> Result<(), Problem> {
        let Some(first) = self.open.iter().position(|open| open == name) else {
            return Ok(());
        };
        let ways: Vec<String> = self.open[first + 1..]
            .iter()
            .map(|view| format!(", by way of `{view}`"))
            .collect();
        let comma = if ways.is_empty() { "" } else { "," };
        let detail = format!(
            "the view `{name}` would read{}{comma} its own rows",
            ways.concat()
        );
        Err(Problem::new(ErrorCode::InvalidJob, detail))
    }
}

impl Planner<'_> {
    /// Finds tables and views by name, as far as they are there, with the origins of the tables' rows.
    pub(super) async fn relations(
        &mut self,
        work: &SqlWork<'_>,
        names: Vec<String>,
        outlets: &BTreeMap<&str, Outlet>,
    ) -> Result<(Relations, Vec<Origin>), Problem> {
        let of_tenant = names.iter().filter(|name| !work.from.contains(name));
        let views = self.views(of_tenant.cloned().collect()).await?;
        let mut found = Found {
            open: self.creating.iter().cloned().collect(),
            ..Found::default()
        };
        let reads = self.find(work, names, outlets, &views, &mut found)?;
        let mut levels = found.levels.values().map(|(_, levels)| *levels);
        if let Some(name) = &self.creating
            && levels.any(|levels| levels >= MAX_VIEW_DEPTH)
        {
            return Err(too_deep(name));
        }
        let relations = Relations {
            tables: found.tables,
            views: found.views,
            reads,
        };
        Ok((relations, found.origins))
    }

    pub(super) fn definition(&self, name: &str) -> Result<Option<Definition>, Problem> {
        let text = self.request.tables.get(name);
        text.map(|text| Definition::read(name, text)).transpose()
    }

    /// Parses the views behind `names`, and those that they read.
    async fn views(&self, mut names: Vec<String>) -> Result<Views, Problem> {
        let mut views = Views::new();
        while let Some(name) = names.pop() {
            if views.contains_key(&name) {
                continue;
            }
            if let Some(Definition::View { sql, folder, .. }) = self.definition(&name)? {
                let statement = self.parse(&sql).await;
                let statement = statement.and_then(without_calls);
                let statement = statement.map_err(|problem| in_view(&name, problem))?;
                names.extend(statement.tables());
                views.insert(name, Parsed { statement, folder });
            }
        }
        Ok(views)
    }

    fn find(
        &mut self,
        work: &SqlWork<'_>,
        names: Vec<String>,
        outlets: &BTreeMap<&str, Outlet>,
        views: &Views,
        found: &mut Found,
    ) -> Result<Reads, Problem> {
        let mut reads = Reads::new();
        for name in names {
            let definition = match work.from.contains(&name) {
                true => None,
                false => {
                    found.check_open(&name)?;
                    self.definition(&name)?
                }
            };
            let relation = match definition {
                Some(Definition::View { .. }) => self.find_view(&name, views, found)?,
                Some(Definition::Files { input, path, .. }) => {
                    self.find_files(&name, &input, path.as_deref(), found)?
                }
                Some(Definition::Kept {
                    job, output, added, ..
                }) => self.find_kept(&name, &parts(job, added), &output, found)?,
                None => match self.origin(work, &name, outlets)? {
                    Some(origin) => found.add(name.clone(), origin),
                    None => continue,
                },
            };
            reads.insert(name, relation);
        }
        Ok(reads)
    }

    fn find_files(
        &mut self,
        name: &str,
        input: &InputSpec,
        path: Option<&str>,
        found: &mut Found,
    ) -> Result<Relation, Problem> {
        if let Some(position) = found.files.get(name) {
            return Ok(Relation::Table(*position));
        }
        let files = FileTable::of_table(&self.opener, input, path)?;
        Ok(self.found_files(name, files, found))
    }

    fn find_kept(
        &mut self,
        name: &str,
        jobs: &[JobId],
        output: &str,
        found: &mut Found,
    ) -> Result<Relation, Problem> {
        if let Some(position) = found.files.get(name) {
            return Ok(Relation::Table(*position));
        }
        let files = kept_files(self.blobs, name, jobs, output)?;
        Ok(self.found_files(name, files, found))
    }

    fn found_files(&mut self, name: &str, files: FileTable, found: &mut Found) -> Relation {
        let origin = self.files(name, files);
        found.files.insert(name.to_owned(), found.tables.len());
        found.add(name.to_owned(), origin)
    }

    fn find_view(
        &mut self,
        name: &str,
        views: &Views,
        found: &mut Found,
    ) -> Result<Relation, Problem> {
        if let Some((position, _)) = found.levels.get(name) {
            return Ok(Relation::View(*position));
        }
        if found.open.len() > MAX_VIEW_DEPTH {
            return Err(too_deep(name));
        }
        let Some(Parsed { statement, folder }) = views.get(name) else {
            let detail = format!("the view `{name}` was not parsed");
            return Err(Problem::new(ErrorCode::Internal, detail));
        };
        found.open.push(name.to_owned());
        let work = SqlWork {
            sql: "",
            from: &[],
            folder: folder.as_deref(),
            partitions: None,
        };
        let reads = self.find(&work, statement.tables(), &BTreeMap::new(), views, found);
        let reads = reads.map_err(|problem| in_view(name, problem))?;
        found.open.pop();
        let below = reads.keys().filter_map(|read| found.levels.get(read));
        let levels = below.map(|(_, levels)| *levels).max().unwrap_or(0) + 1;
        if levels > MAX_VIEW_DEPTH {
            return Err(too_deep(name));
        }
        let position = found.views.len();
        found.levels.insert(name.to_owned(), (position, levels));
        found.views.push(View {
            name: name.to_owned(),
            statement: statement.clone(),
            reads,
        });
        Ok(Relation::View(position))
    }
}

/// The jobs whose outputs are the rows of a table that the cluster keeps.
pub(super) fn parts(job: JobId, added: Vec<JobId>) -> Vec<JobId> {
    std::iter::once(job).chain(added).collect()
}

/// Lists the rows of a table that the cluster keeps: outputs of `jobs`. In a bucket they are what manifests list.
///
/// Errors: `NoInput` if they were swept.
pub(super) fn kept_files(
    blobs: &Blobs,
    name: &str,
    jobs: &[JobId],
    output: &str,
) -> Result<FileTable, Problem> {
    let places = jobs.iter().map(|job| blobs.kept_place(job, output));
    let places = places.collect::<Result<Vec<_>, _>>();
    let places = places.map_err(|error| error.problem())?;
    let files = FileTable::of_kept(blobs, &kept_input(name, &places));
    files.map_err(|problem| match places.iter().any(is_gone) {
        true => without_rows(name),
        false => problem,
    })
}

/// Returns whether an output was swept, as far as that can be found out.
fn is_gone(place: &OutputPlace) -> bool {
    match place {
        OutputPlace::Folder(folder) => !folder.exists(),
        OutputPlace::Objects(folder) => matches!(folder.wait_for_manifest(), Ok(None)),
    }
}

/// The files of a table whose rows the cluster keeps.
fn kept_input(name: &str, places: &[OutputPlace]) -> InputSpec {
    let uri = |place: &OutputPlace| match place {
        OutputPlace::Folder(folder) => {
            let folder = patterns::escape(&folder.display().to_string());
            format!("{folder}/*.arrow")
        }
        OutputPlace::Objects(folder) => format!("{}/", folder.uri()),
    };
    InputSpec {
        name: name.to_owned(),
        format: InputFormat::Arrow {
            columns: Vec::new(),
        },
        uris: places.iter().map(uri).collect(),
        bad_records: BadRecords::Fail,
    }
}

/// The error for a table whose rows were swept, which its definition has outlived.
fn without_rows(name: &str) -> Problem {
    let detail = format!(
        "the cluster does not keep the rows of the table `{name}` any more: it was dropped or replaced meanwhile"
    );
    Problem::new(ErrorCode::NoInput, detail)
}

/// Refuses functions of components in a view: a job pins those that its own statement names.
pub(super) fn without_calls(statement: Statement) -> Result<Statement, Problem> {
    match statement.functions().first() {
        None => Ok(statement),
        Some(function) => {
            let detail = format!(
                "a view cannot call functions of components yet, such as `{function}`: call them in the statement \
                 that reads it"
            );
            Err(Problem::new(ErrorCode::InvalidJob, detail))
        }
    }
}

fn too_deep(name: &str) -> Problem {
    let detail = format!(
        "the view `{name}` reads more than {MAX_VIEW_DEPTH} levels of views: keep the rows of one in a table by COPY, \
         and read that"
    );
    Problem::new(ErrorCode::TooLarge, detail)
}

/// Says in which view something is wrong. The innermost one says it.
fn in_view(name: &str, mut problem: Problem) -> Problem {
    if !problem.detail.starts_with("view `") && !problem.detail.starts_with("the view `") {
        problem.detail = format!("view `{name}`: {}", problem.detail);
    }
    problem
}

#[cfg(test)]
mod tests;
