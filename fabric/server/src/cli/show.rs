//! `weft show`: the first rows of a published output. Reads the folder itself; no server is asked.

use serde_json::json;

use super::arguments::ShowArguments;
use super::failure::Failure;
use super::output::Output;
use super::table::{Side, Table};
use super::text::counted;

/// Rows that are shown at most.
const ROWS_MAX: usize = 100_000;

/// Shows the first rows of the output in a folder.
pub(crate) fn show(arguments: &ShowArguments, output: &mut Output) -> Result<(), Failure> {
    let rows = arguments.rows.min(ROWS_MAX);
    let (manifest, table) =
        weft_server::preview(&arguments.folder, rows).map_err(Failure::other)?;
    let document = json!({ "manifest": manifest, "columns": table.first(), "rows": &table[1..] });
    output.either(&document.to_string(), || {
        render(&table, manifest.rows, manifest.files.len())
    })
}

fn render(table: &[Vec<String>], rows: u64, files: usize) -> String {
    let columns: Vec<(&str, Side)> = table[0]
        .iter()
        .map(|name| (name.as_str(), Side::Left))
        .collect();
    let mut text = Table::new(&columns);
    for row in &table[1..] {
        text.row(row.clone());
    }
    let shown = table.len() - 1;
    format!(
        "{}\n({shown} of {rows} rows, {})",
        text.render(),
        counted(files as u64, "file")
    )
}
