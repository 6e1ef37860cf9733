//! From a JSON document to a [`JobSpec`], or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::decode_files::{inputs, outputs};
use super::document::{Errors, Table, nearest};
use super::{
    FunctionRef, INPUTS_MAX, JobSpec, OUTPUTS_MAX, OutputSpec, PARTITIONS_MAX, STAGES_MAX,
    StageSpec, TASKS_MAX, Work,
};
use crate::limits::Limits;
use crate::problem::{ErrorCode, Problem};
use crate::quantity::{parse_bytes, parse_duration};

/// Decodes and checks a job document as a whole.
///
/// Errors: `invalid_job` with one entry in `errors` for each thing that is wrong, in the order of the document.
pub fn decode(document: &Value) -> Result<JobSpec, Problem> {
    let mut errors = Errors::default();
    let spec = job(document, &mut errors);
    match spec {
        Some(spec) if errors.is_empty() => Ok(spec),
        _ => Err(invalid(errors)),
    }
}

fn invalid(errors: Errors) -> Problem {
    let Errors { told, untold } = errors;
    let count = match told.len() + untold {
        1 => "1 error".to_owned(),
        n if untold > 0 => format!("{n} errors, of which the first {} are told", told.len()),
        n => format!("{n} errors"),
    };
    Problem {
        errors: told,
        ..Problem::new(
            ErrorCode::InvalidJob,
            format!("the job document has {count}"),
        )
    }
}

fn job(document: &Value, errors: &mut Errors) -> Option<JobSpec> {
    let mut table = Table::open("", document, errors)?;
    let name = name_at(&mut table, "name", errors);
    let seed = table.number("seed", 0..=u64::MAX, errors).unwrap_or(0);
    let tags = table.text_map("tags", errors);
    let params = table.text_map("params", errors);
    let limits = limits_at(&mut table, &Limits::default(), true, errors);
    let (inputs, dead_letters) = inputs(&mut table, &params, errors);
    let stages = stages(&mut table, &limits, errors);
    let mut outputs = outputs(&mut table, &params, errors);
    outputs.extend(dead_letters);
    table.finish(errors);
    let spec = JobSpec {
        name: name.unwrap_or_default(),
        seed,
        tags,
        params,
        limits,
        inputs,
        stages,
        outputs,
    };
    if spec.inputs.len() > INPUTS_MAX {
        errors.add(
            "input",
            format!("{} inputs; a job may have {INPUTS_MAX}", spec.inputs.len()),
        );
    } else if spec.outputs.len() > OUTPUTS_MAX {
        errors.add(
            "output",
            format!(
                "{} outputs, dead letters included; a job may have {OUTPUTS_MAX}",
                spec.outputs.len()
            ),
        );
    } else {
        check_graph(&spec, errors);
    }
    Some(spec)
}

/// Names of jobs, inputs, stages and outputs: they become parts of paths.
fn name_at(table: &mut Table<'_>, key: &'static str, errors: &mut Errors) -> Option<String> {
    let name = table.required_text(key, errors)?;
    check_name(&table.at(key), name, errors).then(|| name.to_owned())
}

pub(super) fn check_name(path: &str, name: &str, errors: &mut Errors) -> bool {
    let fits = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !fits {
        errors.add(
            path,
            format!(
                "`{}` is not a name: 1 to 63 letters, digits, `-` and `_`",
                name.escape_debug()
            ),
        );
    }
    fits
}

fn limits_at(table: &mut Table<'_>, within: &Limits, of_job: bool, errors: &mut Errors) -> Limits {
    let mut limits = within.clone();
    let Some(value) = table.get("limits") else {
        return limits;
    };
    let Some(mut table) = Table::open(&table.at("limits"), value, errors) else {
        return limits;
    };
    if let Some(bytes) = size_at(&mut table, "memory", errors) {
        if (Limits::MEMORY_BYTES_MIN..=Limits::MEMORY_BYTES_MAX).contains(&bytes) {
            limits.memory_bytes = bytes;
        } else {
            errors.add(&table.at("memory"), "must be from 16MiB to 4GiB");
        }
    }
    if let Some(ms) = duration_at(&mut table, "cpu", errors) {
        limits.cpu_ms = ms;
    }
    if of_job && let Some(ms) = duration_at(&mut table, "wall", errors) {
        limits.wall_ms = ms;
    }
    if let Some(bytes) = size_at(&mut table, "output", errors) {
        limits.output_bytes = bytes;
    }
    table.finish(errors);
    if of_job {
        limits
    } else {
        limits.narrow(within)
    }
}

fn size_at(table: &mut Table<'_>, key: &'static str, errors: &mut Errors) -> Option<u64> {
    let text = table.text(key, errors)?;
    let bytes = parse_bytes(text);
    if bytes.is_none() {
        errors.add(
            &table.at(key),
            format!("`{text}` is not a size such as `256MiB`"),
        );
    }
    bytes
}

fn duration_at(table: &mut Table<'_>, key: &'static str, errors: &mut Errors) -> Option<u64> {
    let text = table.text(key, errors)?;
    let duration = parse_duration(text).filter(|duration| !duration.is_zero());
    if duration.is_none() {
        errors.add(
            &table.at(key),
            format!("`{text}` is not a duration such as `60s`"),
        );
    }
    duration.and_then(|duration| u64::try_from(duration.as_millis()).ok())
}

fn stages(table: &mut Table<'_>, limits: &Limits, errors: &mut Errors) -> Vec<StageSpec> {
    let path = table.at("stage");
    let items = match table.get("stage") {
        Some(Value::Array(items)) => items,
        None => return Vec::new(),
        Some(_) => {
            errors.add(&path, "must be a list of tables (`[[stage]]`)");
            return Vec::new();
        }
    };
    if items.len() > STAGES_MAX {
        errors.add(
            &path,
            format!("{} stages; a job may have {STAGES_MAX}", items.len()),
        );
        return Vec::new();
    }
    let tables = items
        .iter()
        .enumerate()
        .filter_map(|(position, item)| Table::open(&format!("{path}[{position}]"), item, errors))
        .collect::<Vec<_>>();
    tables
        .into_iter()
        .filter_map(|table| stage(table, limits, errors))
        .collect()
}

fn stage(mut table: Table<'_>, limits: &Limits, errors: &mut Errors) -> Option<StageSpec> {
    let name = name_at(&mut table, "name", errors);
    let from = table.text("from", errors).map(str::to_owned);
    let map = function_at(&mut table, "map", errors);
    let combine = function_at(&mut table, "combine", errors);
    let reduce = function_at(&mut table, "reduce", errors);
    let task = function_at(&mut table, "task", errors);
    let count = table.number("count", 1..=u64::from(TASKS_MAX), errors);
    let shuffle = shuffle(&mut table, errors);
    if table.get("sql").is_some() {
        errors.add(
            &table.at("sql"),
            "SQL stages are not offered by this version",
        );
    }
    if table.get("join").is_some() {
        errors.add(&table.at("join"), "joins are not offered by this version");
    }
    let params = table.text_map("params", errors);
    let limits = limits_at(&mut table, limits, false, errors);
    let path = table.path.clone();
    table.finish(errors);
    if task.is_none() && from.is_none() {
        let path = format!("{path}.from");
        let is_told = errors.told.iter().any(|error| error.path == path);
        if !is_told {
            errors.add(
                &path,
                "is missing: name the input or stage that this stage reads",
            );
        }
    }
    if task.is_none() && count.is_some() {
        errors.add(
            &format!("{path}.count"),
            "belongs to a set of tasks: this stage has no `task`",
        );
    }
    let asked = (map, reduce, combine, shuffle, task);
    let work = work(&path, asked, from.is_some(), count, errors);
    Some(StageSpec {
        name: name?,
        from,
        work,
        params,
        limits,
    })
}

/// Partition keys and count.
type Shuffle = (Vec<String>, Option<u32>);
/// `map`, `reduce`, `combine`, `shuffle`, `task`.
type Asked = (
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Shuffle>,
    Option<String>,
);

/// What a stage does, out of the keys that say so. `reads`: it has a `from`.
fn work(
    path: &str,
    (map, reduce, combine, shuffle, task): Asked,
    reads: bool,
    count: Option<u64>,
    errors: &mut Errors,
) -> Work {
    match (map, reduce, combine, shuffle, task) {
        (Some(function), None, None, None, None) => Work::Map { function },
        (None, reduce, combine, Some((keys, partitions)), None) => Work::Reduce {
            keys,
            partitions,
            combine,
            reduce,
        },
        (None, None, None, None, Some(function)) if !reads => {
            if count.is_none() {
                errors.add(
                    &format!("{path}.count"),
                    "is missing: how many tasks the set has",
                );
            }
            Work::Tasks {
                function,
                count: count
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or(1),
            }
        }
        (None, None, None, None, Some(_)) => {
            errors.add(
                &format!("{path}.from"),
                "a task set reads nothing: leave `from` out",
            );
            unknown_work()
        }
        (None, Some(_), _, None, None) => {
            errors.add(
                &format!("{path}.shuffle"),
                "is missing: `reduce` needs `shuffle = { keys = [..] }`",
            );
            unknown_work()
        }
        (None, None, _, None, None) => {
            errors.add(
                path,
                "the stage does nothing: give it `map`, `shuffle` with `reduce`, or `task`",
            );
            unknown_work()
        }
        _ => {
            errors.add(
                path,
                "a stage has one of `map`, `shuffle` (with `reduce`, `combine`) and `task`",
            );
            unknown_work()
        }
    }
}

/// Stands in for work that was reported as wrong, so that the stage's name stays known.
fn unknown_work() -> Work {
    Work::Map {
        function: String::new(),
    }
}

fn function_at(table: &mut Table<'_>, key: &'static str, errors: &mut Errors) -> Option<String> {
    let text = table.text(key, errors)?;
    if FunctionRef::parse(text).is_none() {
        errors.add(
            &table.at(key),
            format!(
                "`{}` is not `component/function` or `component@version/function`",
                text.escape_debug()
            ),
        );
    }
    Some(text.to_owned())
}

fn shuffle(table: &mut Table<'_>, errors: &mut Errors) -> Option<Shuffle> {
    let path = table.at("shuffle");
    let mut table = Table::open(&path, table.get("shuffle")?, errors)?;
    let keys = table.column_names("keys", errors);
    if keys.is_empty() {
        errors.add(&table.at("keys"), "names no column");
    }
    let partitions = table
        .number("partitions", 1..=u64::from(PARTITIONS_MAX), errors)
        .and_then(|count| u32::try_from(count).ok());
    table.finish(errors);
    Some((keys, partitions))
}

fn check_graph(spec: &JobSpec, errors: &mut Errors) {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let inputs = spec
        .inputs
        .iter()
        .map(|input| (input.name.as_str(), format!("input.{}", input.name)));
    let stages = spec
        .stages
        .iter()
        .enumerate()
        .map(|(position, stage)| (stage.name.as_str(), format!("stage[{position}].name")));
    for (name, path) in inputs.chain(stages) {
        if let Some(first) = names.insert(name, path.clone()) {
            errors.add(&path, format!("the name `{name}` is taken by `{first}`"));
        }
    }
    for (position, stage) in spec.stages.iter().enumerate() {
        let Some(from) = &stage.from else { continue };
        if !names.contains_key(from.as_str()) {
            let suggestion = nearest(from, names.keys().copied());
            errors.add_with(
                &format!("stage[{position}].from"),
                format!("there is no input or stage `{from}`"),
                suggestion,
            );
        } else if reads_itself(spec, stage) {
            errors.add(
                &format!("stage[{position}].from"),
                format!(
                    "the stage `{}` reads, by way of `{from}`, its own rows",
                    stage.name
                ),
            );
        }
    }
    check_outputs(spec, errors);
}

/// Reports an output that has no rows to write.
fn check_output_from(spec: &JobSpec, path: &str, output: &OutputSpec, errors: &mut Errors) {
    let stage = spec.stages.iter().find(|stage| stage.name == output.from);
    match stage.map(|stage| &stage.work) {
        // A conversion: rows of an input are written as they are.
        None if spec.inputs.iter().any(|input| input.name == output.from) => {}
        None => {
            let stages = spec.stages.iter().map(|stage| stage.name.as_str());
            let inputs = spec.inputs.iter().map(|input| input.name.as_str());
            let suggestion = nearest(&output.from, stages.chain(inputs));
            errors.add_with(
                &format!("{path}.from"),
                format!("there is no input or stage `{}`", output.from),
                suggestion,
            );
        }
        Some(Work::Tasks { .. }) => errors.add(
            &format!("{path}.from"),
            format!("`{}` is a set of tasks and has no rows", output.from),
        ),
        Some(Work::Map { .. } | Work::Reduce { .. }) => {}
    }
}

fn check_outputs(spec: &JobSpec, errors: &mut Errors) {
    let (mut folders, mut names) = (BTreeSet::new(), BTreeSet::new());
    for output in &spec.outputs {
        let path = format!("output.{}", output.name);
        if spec.is_dead_letters(output) {
            if !names.insert(&output.name) {
                errors.add(&path, "the name is that of an input's dead letters");
            }
        } else {
            names.insert(&output.name);
            check_output_from(spec, &path, output, errors);
        }
        if !folders.insert(output.path.trim_end_matches('/')) {
            errors.add(
                &format!("{path}.uri"),
                format!("another output writes to `{}`", output.path),
            );
        }
    }
    // Rows of a stage may be read by what could not be decoded.
    let is_wrong = |path: &str| path.starts_with("output.") || path.ends_with(".from");
    if errors.told.iter().any(|error| is_wrong(&error.path)) {
        return;
    }
    let written = |output: &&OutputSpec| !spec.is_dead_letters(output);
    if spec.stages.is_empty() && !spec.outputs.iter().any(|output| written(&output)) {
        errors.add(
            "stage",
            "the job does nothing: it has neither a stage nor an output of an input",
        );
    }
    let used = |stage: &StageSpec| {
        let by_stage = spec
            .stages
            .iter()
            .any(|other| other.from.as_deref() == Some(&stage.name));
        by_stage
            || spec.outputs.iter().any(|output| output.from == stage.name)
            || matches!(stage.work, Work::Tasks { .. })
    };
    for (position, stage) in spec
        .stages
        .iter()
        .enumerate()
        .filter(|(_, stage)| !used(stage))
    {
        errors.add(
            &format!("stage[{position}]"),
            format!(
                "nothing reads the rows of `{}`: add an output or a stage",
                stage.name
            ),
        );
    }
}

fn reads_itself(spec: &JobSpec, stage: &StageSpec) -> bool {
    let mut from = stage.from.as_deref();
    for _ in 0..=spec.stages.len() {
        let Some(name) = from else { return false };
        if name == stage.name {
            return true;
        }
        from = spec
            .stages
            .iter()
            .find(|other| other.name == name)
            .and_then(|other| other.from.as_deref());
    }
    // A cycle further up, which is reported for the stages that are in it.
    false
}
