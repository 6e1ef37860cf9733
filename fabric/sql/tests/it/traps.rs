//! Statements that go wrong if a plan is cut carelessly, with some numbers of tasks.

use arrow::array::RecordBatch;
use weft_core::Problem;
use weft_sql::{Options, Session};

use crate::data::{SMALL, block_on, plain_context};
use crate::runner::{at_all_widths, merging, options, run, sorted, text};

const TRAPS: &str = include_str!("../traps.sql");

fn statements() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = TRAPS.lines().filter(|line| !line.starts_with("--"));
    lines.map(|line| line.split_once(": ").expect("name: SQL"))
}

fn n_rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Nothing, or what is wrong with a statement.
fn fault(session: &Session, marked: &str, options: &Options) -> Result<Option<String>, Problem> {
    let sql = marked.trim_start_matches(['#', '>', '!']);
    let got = || run(session, &SMALL, sql, options);
    if marked.starts_with('!') {
        return Ok(got().is_ok().then(|| "is not refused".to_owned()));
    }
    let rows = got()?;
    let plain = plain_context(&SMALL);
    let expected = block_on(async { plain.sql(sql).await?.collect().await });
    let expected = expected.expect("DataFusion runs the statement");
    let is_right = match marked.as_bytes().first() {
        Some(b'#') => n_rows(&rows) == n_rows(&expected) && text(&rows) == text(&got()?),
        Some(b'>') => text(&rows) == text(&expected),
        _ => sorted(&rows) == sorted(&expected),
    };
    let counts = || format!("{} rows for {}", n_rows(&rows), n_rows(&expected));
    Ok((!is_right).then(counts))
}

fn check(options: Options) {
    let session = Session::new();
    let mut faults = Vec::new();
    for (name, sql) in statements() {
        match fault(&session, sql, &options) {
            Ok(None) => {}
            Ok(Some(fault)) => faults.push(format!("{name}: {fault}")),
            Err(problem) => faults.push(format!("{name}: {problem}")),
        }
    }
    assert!(faults.is_empty(), "{options:?}\n{}", faults.join("\n"));
}

at_all_widths!();
