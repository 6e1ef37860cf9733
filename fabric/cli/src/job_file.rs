//! From a job file to the JSON document that the API takes.
//!
//! The document is the file's, word for word, but for paths: those of inputs and outputs are
//! resolved against the file's folder, because the server works in another one. Paths in the SQL of a
//! stage are not looked at: the stage is told the folder. What the keys mean is checked by the server
//! alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};
use weft_core::job::expand;
use weft_core::{ErrorCode, FieldError, Problem};

use crate::failure::Failure;

/// Reads the job file at `path` and puts `params` over its own. Answers with what is doubtful about
/// them, too: functions may know more names than the file, so it is no error.
///
/// Errors: `Problem` with `invalid_job` where the file is not TOML, with line and column, or not
/// JSON where its name ends in `.json`; `Other` where it cannot be read.
pub(crate) fn read(
    path: &Path,
    params: &[(String, String)],
) -> Result<(Value, Vec<String>), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::other(format!("cannot read `{}`: {error}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    let absolute = path.canonicalize().map_err(cannot)?;
    let folder = Folder::new(absolute.parent().expect("a file is in a folder"))?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let parsed = if is_json {
        parse_json(&text)
    } else {
        parse_toml(&text)
    };
    let document = parsed.map_err(|wrong| invalid(path, wrong))?;
    complete(document, params, folder)
}

/// Puts `params` over the document's own, and resolves its paths against `folder`. Returns the document with
/// doubts about the params, as [`read`] does.
///
/// Errors: `Usage` if nothing of the job takes a param.
pub(crate) fn complete(
    mut document: Value,
    params: &[(String, String)],
    folder: Folder,
) -> Result<(Value, Vec<String>), Failure> {
    let doubts = doubts(&document, params)?;
    set_params(&mut document, params);
    set_folders(&mut document);
    // A param may make a path absolute.
    expand_paths(&mut document);
    resolve(&mut document, &folder);
    Ok((document, doubts))
}

fn invalid(path: &Path, wrong: FieldError) -> Failure {
    let detail = format!("`{}` cannot be read as a job", path.display());
    let problem = Problem {
        errors: vec![wrong],
        ..Problem::new(ErrorCode::InvalidJob, detail)
    };
    Failure::Problem(Box::new(problem.into()))
}

fn wrong(path: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError {
        path: path.into(),
        message: message.into(),
        suggestion: None,
    }
}

fn parse_json(text: &str) -> Result<Value, FieldError> {
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        wrong(
            format!("line {}, column {}", error.line(), error.column()),
            message,
        )
    })
}

fn parse_toml(text: &str) -> Result<Value, FieldError> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = line_and_column(text, at);
        wrong(
            format!("line {line}, column {column}"),
            error.message().trim().replace('\n', "; "),
        )
    })?;
    json_table(table, "")
}

/// Both count from 1, columns in characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

fn json_table(table: toml::Table, path: &str) -> Result<Value, FieldError> {
    let mut object = Map::new();
    for (key, value) in table {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        object.insert(key, json(value, &path)?);
    }
    Ok(Value::Object(object))
}

fn json(value: toml::Value, path: &str) -> Result<Value, FieldError> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Float(number) => {
            let number =
                Number::from_f64(number).ok_or_else(|| wrong(path, "must be a finite number"))?;
            Value::Number(number)
        }
        toml::Value::Array(items) => {
            let item = |(position, item)| json(item, &format!("{path}[{position}]"));
            Value::Array(
                items
                    .into_iter()
                    .enumerate()
                    .map(item)
                    .collect::<Result<_, _>>()?,
            )
        }
        toml::Value::Table(table) => json_table(table, path)?,
    })
}

/// The folder that relative paths begin in.
pub(crate) struct Folder {
    parts: Vec<String>,
}

impl Folder {
    /// Errors: `Other` if the path is not UTF-8.
    pub(crate) fn new(folder: &Path) -> Result<Self, Failure> {
        let Some(text) = folder.to_str() else {
            let shown = PathBuf::from(folder);
            return Err(Failure::other(format!(
                "the path `{}` is not UTF-8",
                shown.display()
            )));
        };
        Ok(Self {
            parts: text
                .split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }

    /// `uri` as an absolute path without `.` and `..`; one with a scheme stays what it is. In a
    /// glob, the folder's own characters stand for themselves.
    fn resolve(&self, uri: &str, is_glob: bool) -> String {
        let (scheme, path) = match uri.strip_prefix("file://") {
            Some(path) => ("file://", path),
            None if uri.contains("://") => return uri.to_owned(),
            None => ("", uri),
        };
        let escape = |part: &String| {
            if is_glob {
                escape_glob(part)
            } else {
                part.clone()
            }
        };
        let mut parts: Vec<String> = match path.starts_with('/') {
            true => Vec::new(),
            false => self.parts.iter().map(escape).collect(),
        };
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part.to_owned()),
            }
        }
        let is_folder = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
        let end = if is_folder && !parts.is_empty() {
            "/"
        } else {
            ""
        };
        format!("{scheme}/{}{end}", parts.join("/"))
    }
}

fn escape_glob(text: &str) -> String {
    let escape = |c| match c {
        '*' | '?' | '[' => format!("[{c}]"),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Puts params into paths, before these are resolved: a param may be an absolute path. What names no
/// param, the server will complain about.
fn expand_paths(document: &mut Value) {
    let params = document.get("params").and_then(Value::as_object).cloned();
    let params = params.unwrap_or_default();
    let params: BTreeMap<String, String> = params
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
        .collect();
    each_path(document, |uri, is_glob| {
        if let Ok(expanded) = expand(uri, is_glob, &params) {
            *uri = expanded;
        }
    });
}

fn resolve(document: &mut Value, folder: &Folder) {
    each_path(document, |uri, is_glob| *uri = folder.resolve(uri, is_glob));
}

/// Each path of the document, and whether it is a glob.
fn each_path(document: &mut Value, mut change: impl FnMut(&mut String, bool)) {
    for input in entries(document, "input") {
        each_text(input.get_mut("uri"), |uri| change(uri, true));
        let letters = input
            .get_mut("bad_records")
            .and_then(|bad| bad.get_mut("dead_letter"));
        each_text(letters, |uri| change(uri, false));
    }
    for output in entries(document, "output") {
        each_text(output.get_mut("uri"), |uri| change(uri, false));
    }
    for stage in stages(document) {
        each_text(stage.get_mut("folder"), |uri| change(uri, false));
    }
}

/// Has paths in SQL begin in the job file's folder, unless the stage names another one.
fn set_folders(document: &mut Value) {
    for stage in stages(document).filter_map(Value::as_object_mut) {
        if stage.contains_key("sql") {
            stage.entry("folder").or_insert_with(|| ".".into());
        }
    }
}

fn stages(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let stages = document.get_mut("stage").and_then(Value::as_array_mut);
    stages.into_iter().flatten()
}

fn entries<'a>(document: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    let table = document.get_mut(key).and_then(Value::as_object_mut);
    table.into_iter().flat_map(|table| table.values_mut())
}

/// One text or a list of them; what is something else, the server will complain about.
fn each_text(value: Option<&mut Value>, mut change: impl FnMut(&mut String)) {
    match value {
        Some(Value::String(text)) => change(text),
        Some(Value::Array(items)) => items.iter_mut().for_each(|item| {
            if let Value::String(text) = item {
                change(text);
            }
        }),
        _ => {}
    }
}

/// Doubts about `--param`: it does not reach a stage with a value of its own, and a name that the
/// file does not mention may be mistyped.
///
/// Errors: nothing takes it: the job would run with other values than were meant.
fn doubts(document: &Value, params: &[(String, String)]) -> Result<Vec<String>, Failure> {
    let names = |table: &Value| {
        let table = table.get("params").and_then(Value::as_object);
        let names = table.into_iter().flat_map(Map::keys);
        names.cloned().collect::<Vec<String>>()
    };
    let of_job = names(document);
    let stages = document.get("stage").and_then(Value::as_array);
    let of_stages: Vec<String> = stages.into_iter().flatten().flat_map(names).collect();
    let has_functions = stages.into_iter().flatten().any(|stage| {
        ["map", "combine", "reduce", "task"]
            .iter()
            .any(|key| stage.get(key).is_some())
    });
    let mut paths = String::new();
    each_path(&mut document.clone(), |uri, _| paths.push_str(uri));
    let in_paths = |name: &str| paths.contains(&format!("${{{name}}}"));
    if let Some((name, _)) = params
        .iter()
        .find(|(name, _)| !has_functions && !in_paths(name))
    {
        let meant = weft_core::job::nearest(name, of_job.iter().map(String::as_str));
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        return Err(Failure::Usage(format!(
            "--param {name}: no path of the job names it, and the job has no function to give it to{meant}"
        )));
    }
    let doubt = |(name, _): &(String, String)| {
        if in_paths(name) {
            return None;
        }
        if of_stages.contains(name) {
            return Some(format!(
                "--param {name}: a stage of the job file has a value of its own, which it keeps"
            ));
        }
        let known = of_job.iter().chain(&of_stages).map(String::as_str);
        if of_job.contains(name) || known.clone().next().is_none() {
            return None;
        }
        let meant = weft_core::job::nearest(name, known);
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        Some(format!(
            "--param {name}: the job file mentions no such parameter, but functions get it{meant}"
        ))
    };
    Ok(params.iter().filter_map(doubt).collect())
}

fn set_params(document: &mut Value, params: &[(String, String)]) {
    let Some(document) = document.as_object_mut() else {
        return;
    };
    for (name, value) in params {
        let table = document
            .entry("params")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(table) = table.as_object_mut() {
            table.insert(name.clone(), Value::String(value.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WEBLOG: &str = r#"
name = "weblog-daily"
seed = 7
tags = { team = "growth" }
[params]
top = "10"
[input.logs]
format = "text"
uri = ["data/access-*.log", "../more/*.gz", "/abs/x", "s3://bucket/x"]
bad_records = { dead_letter = "out/bad/" }
[[stage]]
name = "visits"
from = "logs"
map = "weblog/parse"
[[stage]]
name = "daily"
from = "visits"
shuffle = { keys = ["day"], partitions = 8 }
reduce = "weblog/daily"
[output.daily]
from = "daily"
format = "parquet"
uri = "out/daily/"
"#;

    fn in_file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        (folder, path)
    }

    #[test]
    fn toml_becomes_the_same_document_with_absolute_paths() {
        let (folder, path) = in_file("job.toml", WEBLOG);
        let params = [("top".into(), "3".into()), ("day".into(), "x=y".into())];
        let (document, doubts) = read(&path, &params).expect("a job");
        let doubt = "--param day: the job file mentions no such parameter, but functions get it";
        assert_eq!(doubts, [doubt]);
        let base = folder.path().canonicalize().expect("there");
        let base = base.to_str().expect("text");
        let parent = base.rsplit_once('/').expect("absolute").0;
        let expected = json!({
            "name": "weblog-daily", "seed": 7, "tags": {"team": "growth"}, "params": {"top": "3", "day": "x=y"},
            "input": {"logs": {
                "format": "text",
                "uri": [format!("{base}/data/access-*.log"), format!("{parent}/more/*.gz"), "/abs/x", "s3://bucket/x"],
                "bad_records": {"dead_letter": format!("{base}/out/bad/")},
            }},
            "stage": [
                {"name": "visits", "from": "logs", "map": "weblog/parse"},
                {"name": "daily", "from": "visits", "shuffle": {"keys": ["day"], "partitions": 8}, "reduce": "weblog/daily"},
            ],
            "output": {"daily": {"from": "daily", "format": "parquet", "uri": format!("{base}/out/daily/")}},
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn json_is_the_same_document() {
        let (_folder, path) = in_file(
            "job.json",
            r#"{"name": "a", "output": {"o": {"uri": "/out"}}}"#,
        );
        let (document, _) = read(&path, &[]).expect("a job");
        assert_eq!(
            document,
            json!({"name": "a", "output": {"o": {"uri": "/out"}}})
        );
    }

    #[test]
    fn the_examples_are_jobs() {
        for name in ["hello", "weblog"] {
            let root = "../../examples";
            let (document, _) =
                read(&Path::new(root).join(name).join("job.toml"), &[]).expect("a job file");
            weft_core::job::decode(&document).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        }
    }

    #[test]
    fn doubts_name_what_was_meant() {
        let document = json!({"params": {"top": "10"}, "stage": [{"map": "c/f", "params": {"by": "day"}}, {}]});
        let of =
            |document: &Value, name: &str| super::doubts(document, &[(name.into(), "1".into())]);
        let doubts = |name: &str| of(&document, name).expect("functions take it");
        assert_eq!(doubts("top"), [] as [&str; 0]);
        assert!(
            doubts("tpo")[0].ends_with("; did you mean `top`?"),
            "{:?}",
            doubts("tpo")
        );
        assert!(doubts("by")[0].contains("keeps"), "{:?}", doubts("by"));
        let alone = json!({"stage": [{"task": "c/f"}]});
        assert_eq!(
            of(&alone, "x").expect("a function takes it"),
            [] as [&str; 0]
        );
        let idle = json!({"params": {"date": "1"}, "stage": [{"shuffle": {}}]});
        let refused = of(&idle, "dat").expect_err("nothing takes it").to_string();
        assert!(
            refused.contains("no function") && refused.ends_with("did you mean `date`?"),
            "{refused}"
        );
        let named = json!({"input": {"a": {"uri": "in/${x}.csv"}}, "stage": [{"shuffle": {}}]});
        assert_eq!(of(&named, "x").expect("a path takes it"), [] as [&str; 0]);
    }

    #[test]
    fn params_are_put_into_paths_before_they_are_resolved() {
        let mut document = json!({
            "params": {"date": "2026-11-29", "to": "/out"},
            "input": {"a": {"uri": ["in/day=${date}/*.csv", "${none}"]}},
            "output": {"b": {"uri": "${to}/b"}},
        });
        expand_paths(&mut document);
        resolve(
            &mut document,
            &Folder::new(Path::new("/jobs")).expect("text"),
        );
        assert_eq!(
            document["input"]["a"]["uri"][0],
            "/jobs/in/day=2026-11-29/*.csv"
        );
        assert_eq!(document["input"]["a"]["uri"][1], "/jobs/${none}");
        assert_eq!(document["output"]["b"]["uri"], "/out/b");
    }

    #[test]
    fn paths_in_sql_begin_in_the_folder() {
        let sql = "SELECT * FROM 'data/*.csv'";
        let (folder, path) = in_file(
            "job.toml",
            &format!(
                "params = {{ to = \"/abs\" }}\n\
                 stage = [{{ sql = \"{sql}\" }}, {{ sql = \"{sql}\", folder = \"../b\" }}, \
                 {{ sql = \"{sql}\", folder = \"${{to}}/c\" }}, {{ map = \"c/f\" }}]"
            ),
        );
        let (document, _) = read(&path, &[]).expect("a job");
        let base = folder.path().canonicalize().expect("there");
        let base = base.to_str().expect("text");
        let parent = base.rsplit_once('/').expect("absolute").0;
        let expected = json!([
            { "sql": sql, "folder": format!("{base}/") },
            { "sql": sql, "folder": format!("{parent}/b") },
            { "sql": sql, "folder": "/abs/c" },
            { "map": "c/f" },
        ]);
        assert_eq!(document["stage"], expected);
    }

    #[track_caller]
    fn check_resolved(uri: &str, is_glob: bool, expected: &str) {
        let folder = Folder::new(Path::new("/home/[a]/jobs")).expect("text");
        assert_eq!(folder.resolve(uri, is_glob), expected, "{uri}");
    }

    #[test]
    fn paths_resolve_without_dots() {
        check_resolved("out/", false, "/home/[a]/jobs/out/");
        check_resolved("./out", false, "/home/[a]/jobs/out");
        check_resolved("../../x/./y", false, "/home/x/y");
        check_resolved("../../../../..", false, "/");
        check_resolved("", false, "/home/[a]/jobs/");
        check_resolved(".", false, "/home/[a]/jobs/");
        check_resolved("..", false, "/home/[a]/");
        check_resolved("a.", false, "/home/[a]/jobs/a.");
        check_resolved("/a/../b/", false, "/b/");
        check_resolved("file:///a/../b", false, "file:///b");
        check_resolved("http://a/../b", false, "http://a/../b");
        check_resolved("d/*[0-9].log", true, "/home/[[]a]/jobs/d/*[0-9].log");
    }

    #[track_caller]
    fn check_wrong(name: &str, text: &str, path: &str, message: &str) {
        let (_folder, file) = in_file(name, text);
        let Err(Failure::Problem(problem)) = read(&file, &[]) else {
            panic!("`{text}` is no job")
        };
        assert_eq!(
            (problem.code.as_str(), problem.errors.len()),
            ("invalid_job", 1)
        );
        let error = &problem.errors[0];
        assert!(
            error.path == path && error.message.contains(message),
            "{error:?}"
        );
    }

    #[test]
    fn syntax_errors_name_line_and_column() {
        check_wrong(
            "job.toml",
            "name = \"a\"\n[input.logs\n",
            "line 2, column 12",
            "",
        );
        check_wrong("job.toml", "name = \"ø\" x\n", "line 1, column 12", "");
        check_wrong(
            "job.toml",
            "a = 1\na = 2\n",
            "line 2, column 1",
            "duplicate",
        );
        check_wrong(
            "job.toml",
            "[[stage]]\nparams = { x = nan }",
            "stage[0].params.x",
            "finite",
        );
        check_wrong(
            "job.json",
            "{\n  \"name\": }",
            "line 2, column 11",
            "expected value",
        );
    }

    #[test]
    fn a_missing_file_is_said_to_be_missing() {
        let failure = read(Path::new("/nowhere/job.toml"), &[]).expect_err("nothing there");
        assert!(
            failure.to_string().contains("/nowhere/job.toml"),
            "{failure}"
        );
        assert_eq!(failure.exit_code(), 1);
    }
}
