//! INSERT: rows go into the folder of a table, with the columns of its files; or beside those that the cluster keeps.

use arrow::datatypes::{Schema, SchemaRef};
use serde_json::{Value, json};
use weft_core::job::{InputFormat, InputSpec, nearest};
use weft_core::{ErrorCode, JobId, Location, Problem};
use weft_protocol::{Extended, IfTaken, MAX_KEPT_PARTS, PlanRequest, TableChange};
use weft_store::Blobs;

use super::catalog::{Definition, kept_files, parts};
use super::tables::FileTable;
use super::{Planner, patterns};
use crate::carrier::is_carrier;
use crate::scan::Inputs;
use crate::schema;

/// Name of the query's rows within the statement, which no query sees.
const INSERTED: &str = "inserted";

/// Rows for a table: a query with the table's columns, and the output that they go to, as job documents have it.
pub(super) struct Inserted {
    pub(super) query: String,
    pub(super) output: Value,
    /// Bytes that the cluster keeps of the table beside the rows.
    pub(super) kept_bytes: u64,
}

impl Inserted {
    /// Looks for the table and its columns. `stage`: where the rows come from; `columns`: those of the table that the
    /// query's are for, all if there is no list.
    ///
    /// Errors: `InvalidJob` if there is no such table, or none whose rows can be added to, or it lacks a column.
    pub(super) fn of(
        blobs: &Blobs,
        request: &PlanRequest,
        stage: &str,
        name: &str,
        columns: &[String],
        query: &str,
    ) -> Result<Self, Problem> {
        let (input, path) = match definition(request, name)? {
            Definition::Files { input, path, .. } => (input, path),
            Definition::Kept {
                job, output, added, ..
            } => {
                let stay = has_room(&added);
                let files = kept_files(blobs, name, &parts(job, added), &output)?;
                check_plain(name, &files.schema)?;
                let rows = fitted(name, &files.schema, columns, query)?;
                let (query, kept_bytes) = match stay {
                    true => (rows, files.bytes()),
                    false => (
                        format!("SELECT * FROM {} UNION ALL {rows}", quoted(name)),
                        0,
                    ),
                };
                return Ok(Self {
                    query,
                    output: json!({ "from": stage }),
                    kept_bytes,
                });
            }
            Definition::View { .. } => {
                return Err(invalid(format!(
                    "`{name}` is a view, which holds no rows: INSERT takes a table"
                )));
            }
        };
        let Some((folder, format)) = folder(&input) else {
            return Err(invalid(format!(
                "INSERT writes to a table of one folder, all of whose files it reads: `{name}` reads `{}`. Create it \
                 with a LOCATION that ends in `/`, for Parquet, Arrow, JSON, or CSV with a header and a list of \
                 columns, and without a choice of columns or rows",
                input.uris.join("`, `")
            )));
        };
        let inputs = Inputs::new(blobs.grants());
        let schema = FileTable::of_table(&inputs, &input, path.as_deref())?.schema;
        Ok(Self {
            query: fitted(name, &schema, columns, query)?,
            output: json!({ "from": stage, "format": format, "uri": folder, "mode": "append" }),
            kept_bytes: 0,
        })
    }
}

impl Planner<'_> {
    /// The change of a table whose rows the cluster keeps, for an INSERT. None of one with a folder, which rows join.
    pub(super) fn inserted(&self, name: &str) -> Result<Option<TableChange>, Problem> {
        let Some(Definition::Kept { job, mut added, .. }) = self.definition(name)? else {
            return Ok(None);
        };
        let last = added.last().unwrap_or(&job).clone();
        let (definition, stay) = match self.written(name)? {
            Definition::Kept {
                job: new,
                output,
                columns,
                ..
            } if has_room(&added) => {
                added.push(new);
                let grown = Definition::Kept {
                    job,
                    output,
                    added,
                    columns,
                };
                (grown, true)
            }
            anew => (anew, false),
        };
        Ok(Some(TableChange::Put {
            name: name.to_owned(),
            kind: definition.kind(),
            definition: definition.text()?,
            if_taken: IfTaken::Replace,
            extends: Some(Extended { last, stay }),
        }))
    }
}

/// Returns whether the rows of a table that the cluster keeps may be those of one more job. Otherwise they are written
/// anew with what is added, as rows of one.
fn has_room(added: &[JobId]) -> bool {
    added.len() + 2 <= MAX_KEPT_PARTS
}

fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidJob, detail)
}

fn definition(request: &PlanRequest, name: &str) -> Result<Definition, Problem> {
    let Some(text) = request.tables.get(name) else {
        let meant = nearest(name, request.tables.keys().map(String::as_str));
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        return Err(invalid(format!(
            "there is no table `{}`{meant}",
            name.escape_debug()
        )));
    };
    Definition::read(name, text)
}

/// Refuses columns that are read as others than they are, and would be written so.
fn check_plain(name: &str, schema: &Schema) -> Result<(), Problem> {
    let mut fields = schema.fields().iter();
    match fields.find(|field| is_carrier(field)) {
        None => Ok(()),
        Some(field) => Err(invalid(format!(
            "INSERT does not add to `{name}`, whose column `{}` is a time of day, a duration or a time with a zone: \
             CAST it to text or to a timestamp by CREATE OR REPLACE TABLE .. AS",
            field.name().escape_debug()
        ))),
    }
}

/// The folder whose files a table reads, all of them and as an output writes them, and their format.
fn folder(input: &InputSpec) -> Option<(String, &'static str)> {
    let format = match &input.format {
        InputFormat::Parquet { columns, filter } if columns.is_empty() && filter.is_empty() => {
            "parquet"
        }
        InputFormat::Arrow { columns } if columns.is_empty() => "arrow",
        InputFormat::Json { .. } => "json",
        // Types that are inferred might be others once there are more files.
        InputFormat::Csv(csv)
            if csv.header
                && csv.delimiter == b','
                && csv.quote == Some(b'"')
                && !csv.columns.is_empty() =>
        {
            "csv"
        }
        InputFormat::Parquet { .. }
        | InputFormat::Arrow { .. }
        | InputFormat::Csv(_)
        | InputFormat::Text { .. } => return None,
    };
    let [uri] = input.uris.as_slice() else {
        return None;
    };
    if Location::is_one(uri) {
        // By a pattern, rows would be seen that are not published yet.
        return Some((uri.strip_suffix('/')?.to_owned(), format));
    }
    let (folder, names) = uri.rsplit_once('/')?;
    let ending = names.strip_prefix("*.")?;
    let folder = patterns::unescape(folder)?;
    (ending.trim_end_matches('*') == format && !folder.is_empty()).then_some((folder, format))
}

/// The query with the columns of a table, in their order and types. A column that is not listed is null.
fn fitted(
    name: &str,
    schema: &SchemaRef,
    listed: &[String],
    query: &str,
) -> Result<String, Problem> {
    check_columns(name, schema, listed)?;
    let all = schema.fields().iter().map(|field| field.name().clone());
    let given: Vec<String> = match listed.is_empty() {
        true => all.collect(),
        false => listed.to_vec(),
    };
    let values = schema.fields().iter().map(|field| {
        let column = quoted(field.name());
        let value = match given.contains(field.name()) {
            true => column.as_str(),
            false => "NULL",
        };
        let data_type = field.data_type().to_string().replace('\'', "''");
        format!("arrow_cast({value}, '{data_type}') AS {column}")
    });
    let values = values.collect::<Vec<_>>().join(", ");
    let names = given.iter().map(|column| quoted(column));
    let names = names.collect::<Vec<_>>().join(", ");
    Ok(format!(
        "SELECT {values} FROM ({query}) AS {INSERTED} ({names})"
    ))
}

fn check_columns(name: &str, schema: &Schema, listed: &[String]) -> Result<(), Problem> {
    for (position, column) in listed.iter().enumerate() {
        if schema.index_of(column).is_err() {
            let names = schema::names(schema);
            return Err(invalid(format!(
                "`{name}` has no column `{}`; it has {names}",
                column.escape_debug()
            )));
        }
        if listed[..position].contains(column) {
            return Err(invalid(format!("INSERT names the column `{column}` twice")));
        }
    }
    Ok(())
}

/// A name in double quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};
    use weft_core::job::{BadRecords, ColumnSpec, ColumnType, CsvFormat};

    use super::*;

    fn parquet(uri: &str) -> InputSpec {
        InputSpec {
            name: "t".into(),
            format: InputFormat::Parquet {
                columns: Vec::new(),
                filter: Vec::new(),
            },
            uris: vec![uri.into()],
            bad_records: BadRecords::Fail,
        }
    }

    #[test]
    fn a_table_of_one_folder_is_written_to() {
        let of = |uri: &str| folder(&parquet(uri)).map(|(folder, _)| folder);
        assert_eq!(of("/out/t/*.parquet").as_deref(), Some("/out/t"));
        assert_eq!(of("/out/[[]1]/*.parquet").as_deref(), Some("/out/[1]"));
        assert_eq!(of("s3://lake/t/").as_deref(), Some("s3://lake/t"));
        for uri in [
            "/out/t/x.parquet",
            "/out/*/*.parquet",
            "/out/day=*/*.parquet",
            "/out/**/*.parquet",
            "/out/[ab]/*.parquet",
            "/out/t/*.csv",
            "/*.parquet",
            "s3://lake/t/*.parquet",
        ] {
            assert_eq!(of(uri), None, "{uri}");
        }
        let mut chosen = parquet("/out/t/*.parquet");
        chosen.format = InputFormat::Parquet {
            columns: vec!["a".into()],
            filter: Vec::new(),
        };
        assert_eq!(folder(&chosen), None);
    }

    #[test]
    fn a_folder_of_csv_is_written_to_if_its_columns_are_listed() {
        let csv = |columns| InputSpec {
            format: InputFormat::Csv(CsvFormat {
                header: true,
                delimiter: b',',
                quote: Some(b'"'),
                columns,
            }),
            ..parquet("/out/t/*.csv*")
        };
        let column = ColumnSpec {
            name: "a".into(),
            data_type: ColumnType::Int64,
        };
        assert_eq!(folder(&csv(Vec::new())), None);
        assert_eq!(folder(&csv(vec![column])), Some(("/out/t".into(), "csv")));
    }

    #[test]
    fn rows_get_the_columns_of_the_table() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("B\"", DataType::Utf8, true),
        ]));
        let columns = |listed: &[&str]| {
            let listed: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
            fitted("t", &schema, &listed, "SELECT 1")
        };
        let all = "SELECT arrow_cast(\"a\", 'Int64') AS \"a\", arrow_cast(\"B\"\"\", 'Utf8') AS \"B\"\"\" \
                   FROM (SELECT 1) AS inserted (\"a\", \"B\"\"\")";
        assert_eq!(columns(&[]).as_deref(), Ok(all));
        let one = "SELECT arrow_cast(NULL, 'Int64') AS \"a\", arrow_cast(\"B\"\"\", 'Utf8') AS \"B\"\"\" \
                   FROM (SELECT 1) AS inserted (\"B\"\"\")";
        assert_eq!(columns(&["B\""]).as_deref(), Ok(one));
        for (listed, words) in [(&["c"][..], "no column `c`"), (&["a", "a"], "twice")] {
            let problem = columns(listed).expect_err(words);
            assert!(problem.detail.contains(words), "{problem}");
        }
    }
}
