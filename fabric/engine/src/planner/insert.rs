//! INSERT: rows go into the folder of a table, with the columns of its files.

use arrow::datatypes::{Schema, SchemaRef};
use serde_json::{Value, json};
use weft_core::job::{InputFormat, InputSpec, nearest};
use weft_core::{ErrorCode, Location, Problem};
use weft_protocol::PlanRequest;

use super::catalog::Definition;
use super::patterns;
use super::tables::FileTable;
use crate::scan::Inputs;
use crate::schema;

/// Name of the query's rows within the statement, which no query sees.
const INSERTED: &str = "inserted";

/// Rows for a table: a query with the table's columns, and the output that they go to, as job documents have it.
pub(super) struct Inserted {
    pub(super) query: String,
    pub(super) output: Value,
}

impl Inserted {
    /// Looks for the table and its columns. `stage`: where the rows come from; `columns`: those of the table that the
    /// query's are for, all if there is no list.
    ///
    /// Errors: `InvalidJob` if there is no such table, or none whose folder is written to, or it lacks a column.
    pub(super) fn of(
        inputs: &Inputs,
        request: &PlanRequest,
        stage: &str,
        name: &str,
        columns: &[String],
        query: &str,
    ) -> Result<Self, Problem> {
        let (input, path) = files(request, name)?;
        let Some((folder, format)) = folder(&input) else {
            return Err(invalid(format!(
                "INSERT writes to a table of one folder, all of whose files it reads: `{name}` reads `{}`. Create it \
                 with a LOCATION that ends in `/`, for Parquet, Arrow, JSON, or CSV with a header and a list of \
                 columns, and without a choice of columns or rows",
                input.uris.join("`, `")
            )));
        };
        let schema = FileTable::of_table(inputs, &input, path.as_deref())?.schema;
        Ok(Self {
            query: fitted(name, &schema, columns, query)?,
            output: json!({ "from": stage, "format": format, "uri": folder, "mode": "append" }),
        })
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidJob, detail)
}

/// The files of a table, and their path as the statement had it that made it.
fn files(request: &PlanRequest, name: &str) -> Result<(InputSpec, Option<String>), Problem> {
    let Some(text) = request.tables.get(name) else {
        let meant = nearest(name, request.tables.keys().map(String::as_str));
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        return Err(invalid(format!(
            "there is no table `{}`{meant}",
            name.escape_debug()
        )));
    };
    match Definition::read(name, text)? {
        Definition::Files { input, path, .. } => Ok((input, path)),
        Definition::Kept { .. } => Err(invalid(format!(
            "INSERT does not add to `{name}`, whose rows the cluster keeps: write them anew by CREATE OR REPLACE \
             TABLE {name} AS SELECT .. FROM {name} UNION ALL .., or use a table with a LOCATION"
        ))),
        Definition::View { .. } => Err(invalid(format!(
            "`{name}` is a view, which holds no rows: INSERT takes a table with a LOCATION"
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
