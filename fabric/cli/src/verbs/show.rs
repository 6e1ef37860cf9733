//! `weft show`: the first rows of a published output. Reads a folder itself, and asks the server for the rows of a
//! job.

use serde_json::{Value, json};
use weft_client::{Call, Client, Job, JobOutput, path};
use weft_core::Location;

use crate::arguments::ShowArguments;
use crate::failure::Failure;
use crate::terminal::text::counted;
use crate::terminal::{Output, Side, Table};
use crate::verbs::jobs::id_of;
use crate::verbs::rows;
use crate::{Preview, Program, TextRow};

/// Rows that are shown at most.
const ROWS_MAX: usize = 100_000;
/// A null in a table, which an empty text is not.
const NULL: &str = "NULL";

/// Shows the first rows of the output in a folder.
///
/// Errors: `Usage` for a location in a bucket, which only servers have the credentials of.
pub(crate) fn show(
    program: &dyn Program,
    arguments: &ShowArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let text = arguments.folder.to_str();
    if let Some(location) = text.filter(|text| Location::is_one(text)) {
        return Err(Failure::Usage(in_bucket(location)));
    }
    let preview = program.preview(&arguments.folder, arguments.rows.min(ROWS_MAX))?;
    output.either(&document(&preview).to_string(), || told(&preview))
}

/// Says how rows of a bucket are shown, which this machine may have no credentials of.
fn in_bucket(location: &str) -> String {
    let name = location.rsplit('/').next().unwrap_or_default();
    let files = match name.contains('.') {
        true => location.to_owned(),
        false => format!("{}/*.parquet", location.trim_end_matches('/')),
    };
    format!(
        "`{location}` is in a bucket, and servers alone have its credentials: `weft show JOB/OUTPUT` shows the output \
         of a job, and `weft sql \"SELECT * FROM '{files}' LIMIT 10\"` rows of files"
    )
}

/// Shows the first rows of a job's output.
///
/// Errors: `Usage` if the job has several and none is named, `Problem` if it has no such rows.
pub(crate) async fn of_job(
    program: &dyn Program,
    client: &Client,
    arguments: &ShowArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let Some((id, name)) = arguments.job() else {
        let what = format!("`{}` names no job", arguments.folder.display());
        return Err(Failure::Usage(what));
    };
    let id = id_of(client, id).await?;
    let job: Job = client
        .send(&Call::get(path(&["jobs", &id])))
        .await?
        .read()?;
    let of = chosen(&job, name)?;
    let rows = u32::try_from(arguments.rows.min(ROWS_MAX)).unwrap_or(u32::MAX);
    let preview = rows::first(program, client, &job, &of, rows).await?;
    output.either(&document(&preview).to_string(), || told(&preview))
}

/// The output that is named, or the only one. One that the job does not list is for the server to tell of.
fn chosen(job: &Job, name: Option<&str>) -> Result<JobOutput, Failure> {
    if let Some(name) = name {
        let found = job.outputs.iter().find(|output| output.name == name);
        return Ok(found.cloned().unwrap_or_else(|| JobOutput {
            name: name.to_owned(),
            ..JobOutput::default()
        }));
    }
    match job.outputs.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::other(format!(
            "{} is {} and has no output; `weft job {}` shows it",
            job.id, job.status, job.id
        ))),
        several => {
            let names: Vec<&str> = several.iter().map(|output| output.name.as_str()).collect();
            Err(Failure::Usage(format!(
                "{} has the outputs `{}`: name one as `{}/{}`",
                job.id,
                names.join("`, `"),
                job.id,
                names[0]
            )))
        }
    }
}

/// The rows as a table, and how many there are.
fn told(preview: &Preview) -> String {
    let (shown, rows) = (preview.rows.len(), preview.n_rows);
    let files = counted(preview.n_files as u64, "file");
    format!("{}\n({shown} of {rows} rows, {files})", table(preview))
}

/// The document of `--json`: the manifest, the names of the columns, and the rows.
pub(crate) fn document(preview: &Preview) -> Value {
    let names: Vec<&str> = names(preview).collect();
    let types = preview.schema.iter().map(|(_, data_type)| data_type);
    let row = |row: &TextRow| -> Vec<Value> {
        let values = types.clone().zip(row);
        values
            .map(|(of, text)| value(of, text.as_deref()))
            .collect()
    };
    let rows: Vec<_> = preview.rows.iter().map(row).collect();
    json!({ "manifest": preview.manifest, "columns": names, "rows": rows })
}

/// The rows below the names of their columns.
pub(crate) fn table(preview: &Preview) -> String {
    let columns: Vec<(&str, Side)> = names(preview).map(|name| (name, Side::Left)).collect();
    let mut text = Table::new(&columns);
    for row in &preview.rows {
        let cells = row.iter().map(|value| value.as_deref().unwrap_or(NULL));
        text.row(cells.map(str::to_owned).collect::<Vec<_>>());
    }
    text.render()
}

fn names(preview: &Preview) -> impl Iterator<Item = &str> {
    preview.schema.iter().map(|(name, _)| name.as_str())
}

/// A value as JSON has it: numbers and booleans as such, unless JSON has no such number.
fn value(data_type: &str, text: Option<&str>) -> Value {
    // Folders that older builds published say `Int64`.
    let data_type = data_type.to_lowercase();
    let is_plain = data_type == "boolean"
        || ["int", "uint", "float"]
            .iter()
            .any(|numbers| data_type.starts_with(numbers));
    let plain = |text: &str| serde_json::from_str(text).ok().filter(|_| is_plain);
    text.map_or(Value::Null, |text| {
        plain(text).unwrap_or_else(|| Value::from(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_buckets_are_for_servers_to_show() {
        for (location, files) in [
            ("s3://lake/out/daily/", "s3://lake/out/daily/*.parquet"),
            ("gs://lake/out", "gs://lake/out/*.parquet"),
            ("az://lake/raw/a.csv", "az://lake/raw/a.csv"),
        ] {
            let told = in_bucket(location);
            assert!(told.contains(&format!("FROM '{files}' LIMIT")), "{told}");
            assert!(told.contains("`weft show JOB/OUTPUT`"), "{told}");
        }
    }

    #[test]
    fn nulls_are_told_from_empty_texts() {
        let row = |a: Option<&str>| vec![a.map(str::to_owned), Some("x".into())];
        let preview = Preview {
            manifest: Value::Null,
            n_rows: 2,
            n_files: 1,
            schema: vec![("a".into(), "utf8".into()), ("b".into(), "utf8".into())],
            rows: vec![row(None), row(Some(""))],
        };
        assert_eq!(table(&preview), "a     b\nNULL  x\n      x");
    }

    #[test]
    fn values_are_what_json_has_for_them() {
        let check = |data_type, text, expected: Value| {
            assert_eq!(value(data_type, Some(text)), expected, "{data_type} {text}");
        };
        check("int64", "-7", json!(-7));
        check("Int64", "-7", json!(-7));
        check("uint64", "18446744073709551615", json!(u64::MAX));
        check("float64", "1.5", json!(1.5));
        check("float64", "NaN", json!("NaN"));
        check("boolean", "true", json!(true));
        check("utf8", "7", json!("7"));
        check("decimal128(6, 2)", "1.50", json!("1.50"));
        check("date32", "2026-11-20", json!("2026-11-20"));
        assert_eq!(value("int64", None), Value::Null);
    }
}
