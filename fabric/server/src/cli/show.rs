//! `weft show`: the first rows of a published output. Reads the folder itself; no server is asked.

use serde_json::json;
use weft_server::TextRow;

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
    let names: Vec<&str> = manifest
        .schema
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let document = json!({ "manifest": manifest, "columns": names, "rows": table });
    output.either(&document.to_string(), || {
        render(&names, &table, manifest.rows, manifest.files.len())
    })
}

fn render(names: &[&str], table: &[TextRow], rows: u64, files: usize) -> String {
    let columns: Vec<(&str, Side)> = names.iter().map(|name| (*name, Side::Left)).collect();
    let mut text = Table::new(&columns);
    for row in table {
        let cells = row.iter().map(|value| value.clone().unwrap_or_default());
        text.row(cells.collect::<Vec<_>>());
    }
    let shown = table.len();
    format!(
        "{}\n({shown} of {rows} rows, {})",
        text.render(),
        counted(files as u64, "file")
    )
}
