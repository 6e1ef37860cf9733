//! From a JSON document to a [`JobSpec`], or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::decode_files::{inputs, outputs};
use super::decode_stages::stages;
use super::document::{Errors, Table, nearest};
use super::{INPUTS_MAX, JobSpec, OUTPUTS_MAX, OutputSpec, StageSpec, Work};
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
    let stages = stages(&mut table, &params, &limits, errors);
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
pub(super) fn name_at(
    table: &mut Table<'_>,
    key: &'static str,
    errors: &mut Errors,
) -> Option<String> {
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

pub(super) fn limits_at(
    table: &mut Table<'_>,
    within: &Limits,
    of_job: bool,
    errors: &mut Errors,
) -> Limits {
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
    let above = all_read(spec);
    for (position, stage) in spec.stages.iter().enumerate() {
        let path = format!("stage[{position}].{}", stage.reads_key());
        let name = stage.name.as_str();
        for from in stage.reads() {
            if !names.contains_key(from) {
                let message = format!("there is no input or stage `{}`", from.escape_debug());
                // A document may have many thousands of wrong names, and the search takes time.
                let suggestion = match errors.is_full() {
                    true => None,
                    false => nearest(from, names.keys().copied()),
                };
                errors.add_with(&path, message, suggestion);
            } else if from == name || above.get(from).is_some_and(|read| read.contains(name)) {
                let message = format!("the stage `{name}` reads, by way of `{from}`, its own rows");
                errors.add(&path, message);
            }
        }
    }
    check_outputs(spec, errors);
}

/// Reports an output that has no rows to write.
fn check_output_from(spec: &JobSpec, path: &str, output: &OutputSpec, errors: &mut Errors) {
    let stage = spec.stages.iter().find(|stage| stage.name == output.from);
    match stage {
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
        Some(_) => {}
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
        if let Some(folder) = output.path()
            && !folders.insert(folder.trim_end_matches('/'))
        {
            errors.add(
                &format!("{path}.uri"),
                format!("another output writes to `{folder}`"),
            );
        }
    }
    // Rows of a stage may be read by what could not be decoded.
    let is_wrong = |path: &str| {
        let reads = [".from", ".union", ".for_each"];
        path.starts_with("output.") || reads.iter().any(|key| path.ends_with(key))
    };
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
            .any(|other| other.reads().any(|from| from == stage.name));
        by_stage
            || spec.outputs.iter().any(|output| output.from == stage.name)
            || matches!(stage.work, Work::Tasks { .. } | Work::ForEach { .. })
            // It may be a statement without rows, such as CREATE VIEW: only executors parse it.
            || (matches!(stage.work, Work::Sql { .. }) && spec.stages.len() == 1)
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

/// By stage, all that it reads, directly or by way of other stages: itself, too, if it is in a cycle.
fn all_read(spec: &JobSpec) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut direct: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for stage in &spec.stages {
        direct.entry(&stage.name).or_default().extend(stage.reads());
    }
    let mut all = BTreeMap::new();
    for stage in direct.keys().copied() {
        let (mut read, mut waiting) = (BTreeSet::new(), vec![stage]);
        while let Some(name) = waiting.pop() {
            let new = direct.get(name).into_iter().flatten().copied();
            waiting.extend(new.filter(|from| read.insert(*from)));
        }
        all.insert(stage, read);
    }
    all
}
