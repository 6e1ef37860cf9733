//! Files that broke other readers, as inputs of jobs. `WEFT_CORPORA` names a folder of them: any will do, such as the fuzzers' findings that
//! Arrow and Parquet publish.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fixture::{Fixture, Place};
use crate::folder;
use crate::http::Request;
use crate::job;
use crate::server::{Server, Setup};

/// What may be wrong with a file, or with its size.
const BLAMED: [&str; 3] = ["bad_record", "schema_mismatch", "limit_exceeded"];

/// The formats that a file may be meant in.
fn formats(path: &Path) -> &'static [&'static str] {
    let name = path.to_string_lossy();
    match name.rsplit('.').next() {
        Some("parquet") => &["parquet"],
        Some("arrow" | "arrows" | "stream" | "feather") => &["arrow"],
        Some("csv" | "gz" | "zst") => &["csv"],
        Some("json" | "jsonl") => &["json"],
        _ => &["parquet", "arrow", "csv", "json", "text"],
    }
}

fn corpora() -> Vec<PathBuf> {
    let folder = std::env::var("WEFT_CORPORA").expect("`WEFT_CORPORA` names a folder");
    let files = folder::files(Path::new(&folder));
    assert!(!files.is_empty(), "`{folder}` has no files");
    files
}

#[test]
fn files_that_broke_others_end_in_errors_and_executors_live() {
    let place = Place::with_components(&Fixture::shared());
    let server = Server::start(&place.data(), &Setup::default());
    job::deploy(&server, "mirror");
    let (mut first, mut n_jobs) = (Vec::new(), 0);
    for path in corpora() {
        for format in formats(&path) {
            let out = place.path(&format!("out-{n_jobs}"));
            let copy = copy(&path, format, &out);
            let ended = job::wait(&server, &job::submit(&server, &copy));
            let code = ended["problem"]["code"].as_str();
            let succeeded = ended["status"] == "succeeded";
            assert!(
                succeeded || code.is_some_and(|code| BLAMED.contains(&code)),
                "{} as {format}: {ended:#}",
                path.display()
            );
            if let Some(kind) = streamed_as(format) {
                let code = stream(&server, &path, kind);
                let is_fine = code.as_deref().is_none_or(|code| BLAMED.contains(&code));
                assert!(is_fine, "{} as {kind}: {code:?}", path.display());
            }
            if first.is_empty() {
                first = server.children("executor");
            }
            n_jobs += 1;
        }
    }
    assert_eq!(server.children("executor"), first, "an executor was lost");
    eprintln!("{n_jobs} jobs");
}

/// The content type of what a call may stream.
fn streamed_as(format: &str) -> Option<&'static str> {
    match format {
        "arrow" => Some("application/vnd.apache.arrow.stream"),
        "csv" => Some("text/csv"),
        "json" => Some("application/x-ndjson"),
        "text" => Some("text/plain"),
        _ => None,
    }
}

/// Streams a file through a function. Gives the code of what went wrong, if anything did.
fn stream(server: &Server, path: &Path, kind: &str) -> Option<String> {
    let bytes = std::fs::read(path).expect("it reads");
    let call = Request::post("/v1/invoke/mirror/copy", kind, bytes).header("te", "trailers");
    let answer = server.ask(&call);
    let problem: Value = match answer.trailer("x-weft-problem") {
        Some(problem) => serde_json::from_str(problem).expect("JSON"),
        None if answer.status == 200 => return None,
        None => answer.json(),
    };
    problem["code"].as_str().map(str::to_owned)
}

fn copy(path: &Path, format: &str, out: &Path) -> Value {
    let uri = path.display().to_string().replace('[', "[[]");
    json!({
        "name": "corpora",
        "limits": { "wall": "60s" },
        "input": { "found": { "format": format, "uri": uri } },
        "stage": [{ "name": "copied", "from": "found", "map": "mirror/copy" }],
        "output": { "copied": { "from": "copied", "format": "arrow", "uri": out } },
    })
}
