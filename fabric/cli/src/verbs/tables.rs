//! `weft tables`: names of files and queries that statements read. `weft sql` makes and drops them.

use serde::Deserialize;
use serde_json::{Value, json};
use weft_client::{Call, Client, Pages, path, read_value};

use crate::failure::Failure;
use crate::terminal::text::bytes;
use crate::terminal::{Output, Side, Table};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    name: String,
    kind: String,
    changed_at: String,
    /// Bytes of the rows that the cluster keeps.
    kept_bytes: Option<u64>,
    /// Empty in a list.
    definition: Definition,
}

/// How a table is read. Later servers may say more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Definition {
    files: Option<Body>,
    kept: Option<Body>,
    view: Option<Body>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    input: Input,
    sql: String,
    folder: String,
    columns: Vec<Column>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    uris: Vec<String>,
    format: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
}

/// Runs `weft tables`.
pub(crate) async fn tables(
    client: &Client,
    name: Option<&str>,
    output: &mut Output,
) -> Result<(), Failure> {
    match name {
        Some(name) => {
            let answer = client.send(&Call::get(path(&["tables", name]))).await?;
            let line: Line = read_value(answer.read()?)?;
            output.either(answer.text()?, || shown(&line))
        }
        None => {
            let items = Pages::new(client, path(&["tables"])).all().await?;
            let lines: Vec<Line> = read_value(Value::Array(items.clone()))?;
            output.either(&json!({ "items": items }).to_string(), || list(&lines))
        }
    }
}

fn list(lines: &[Line]) -> String {
    let mut table = Table::new(&[
        ("name", Side::Left),
        ("kind", Side::Left),
        ("changed", Side::Left),
        ("kept", Side::Right),
    ]);
    for line in lines {
        table.row([
            line.name.clone(),
            line.kind.clone(),
            line.changed_at.clone(),
            line.kept_bytes.map_or_else(|| "-".to_owned(), bytes),
        ]);
    }
    table.render_used()
}

fn shown(line: &Line) -> String {
    let mut lines = vec![format!("{} {}", line.kind, line.name)];
    lines.push(format!("changed {}", line.changed_at));
    let Definition { files, kept, view } = &line.definition;
    if let Some(files) = files {
        let format = match &files.input.format {
            Value::Object(format) => format.keys().next().cloned().unwrap_or_default(),
            format => format.as_str().unwrap_or_default().to_owned(),
        };
        let uris = files.input.uris.iter();
        lines.extend(uris.map(|uri| format!("{format} {uri}")));
    }
    if kept.is_some() {
        let kept = line.kept_bytes.map(|n| format!(", {}", bytes(n)));
        let kept = kept.unwrap_or_default();
        lines.push(format!("rows are kept by the cluster{kept}"));
    }
    if let Some(view) = view {
        lines.push(view.sql.clone());
        if !view.folder.is_empty() {
            lines.push(format!("paths begin in {}", view.folder));
        }
    }
    let mut table = Table::new(&[("column", Side::Left), ("type", Side::Left)]);
    for column in files
        .iter()
        .chain(kept)
        .chain(view)
        .flat_map(|body| &body.columns)
    {
        table.row([column.name.clone(), column.data_type.clone()]);
    }
    lines.push(String::new());
    lines.push(table.render());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_the_cluster_keeps_are_listed() {
        let of = |name: &str, kept_bytes| Line {
            name: name.into(),
            kind: "table".into(),
            changed_at: "now".into(),
            kept_bytes,
            ..Line::default()
        };
        let lines = [of("a", Some(2048)), of("b", None)];
        let expected = "name  kind   changed     kept\na     table  now      2.0 KiB\nb     table  now            -";
        assert_eq!(list(&lines), expected);
        assert!(!list(&lines[1..]).contains("kept"));
        let mut kept = of("a", Some(2048));
        kept.definition.kept = Some(Body::default());
        assert!(shown(&kept).contains("kept by the cluster, 2.0 KiB"));
    }

    #[test]
    fn a_table_is_shown_with_its_columns() {
        let document = json!({
            "name": "trips", "kind": "table", "changed_at": "2026-11-30T00:00:00.000Z",
            "definition": { "files": {
                "input": { "name": "trips", "format": { "parquet": {} }, "uris": ["/data/*.parquet"] },
                "columns": [{ "name": "fare", "type": "int64" }],
            } },
        });
        let line: Line = read_value(document).expect("it is one");
        let lines = shown(&line);
        let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "table trips",
                "changed 2026-11-30T00:00:00.000Z",
                "parquet /data/*.parquet",
                "",
                "column  type",
                "fare    int64",
            ]
        );
    }
}
