//! Stages of a job document.

use std::collections::HashSet;

use serde_json::Value;

use super::decode::{limits_at, name_at};
use super::decode_files::{Params, local_path};
use super::decode_tasks::{TaskKeys, for_each, task_keys};
use super::document::{Errors, Table};
use super::{
    FunctionRef, INPUTS_MAX, MAX_SQL_BYTES, MAX_SQL_FUNCTIONS, PARTITIONS_MAX, STAGES_MAX,
    StageSpec, Work, sql_functions,
};
use crate::limits::Limits;

/// The stages of a job whose tasks have `limits` at most.
pub(super) fn stages(
    table: &mut Table<'_>,
    params: &Params,
    limits: &Limits,
    errors: &mut Errors,
) -> Vec<StageSpec> {
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
        .filter_map(|table| stage(table, params, limits, errors))
        .collect()
}

fn stage(
    mut table: Table<'_>,
    params: &Params,
    limits: &Limits,
    errors: &mut Errors,
) -> Option<StageSpec> {
    let name = name_at(&mut table, "name", errors);
    let has_both = table.get("sql").is_some() && table.get("union").is_some();
    let of_tables = match sql(&mut table, params, errors) {
        Some(sql) => Some(sql),
        None => union(&mut table, errors),
    };
    let for_each = for_each(&mut table, errors);
    let from = match (&of_tables, &for_each) {
        (Some(_), _) => None,
        (None, Some(for_each)) => for_each.from.clone(),
        (None, None) => table.text("from", errors).map(str::to_owned),
    };
    let map = function_at(&mut table, "map", errors);
    let combine = function_at(&mut table, "combine", errors);
    let reduce = function_at(&mut table, "reduce", errors);
    let task = function_at(&mut table, "task", errors);
    let keys = task_keys(&mut table, errors);
    let shuffle = shuffle(&mut table, errors);
    if table.get("join").is_some() {
        errors.add(
            &table.at("join"),
            "joins are written in SQL: give the stage `sql`, and `from` a list",
        );
    }
    let params = table.text_map("params", errors);
    let limits = limits_at(&mut table, limits, false, errors);
    let path = table.path.clone();
    table.finish(errors);
    if of_tables.is_none() && for_each.is_none() && task.is_none() && from.is_none() {
        miss_from(&path, errors);
    }
    if task.is_none() && for_each.is_none() {
        let why = "belongs to a set of tasks: this stage has no `task`";
        keys.refuse(&path, why, errors);
    }
    let asked = (map, reduce, combine, shuffle, task);
    let work = match (of_tables, for_each) {
        (None, None) => work(&path, asked, from.is_some(), keys, errors),
        (None, Some(for_each)) => {
            let (map, reduce, combine, shuffle, task) = asked;
            if (map, reduce, combine, shuffle) != (None, None, None, None) {
                errors.add(&path, ONE_OF);
            }
            for_each.work(&path, task, &keys, errors)
        }
        (Some(of_tables), for_each) => {
            if asked != (None, None, None, None, None) || has_both || for_each.is_some() {
                errors.add(&path, ONE_OF);
            }
            of_tables
        }
    };
    Some(StageSpec {
        name: name?,
        from,
        work,
        params,
        limits,
    })
}

/// Says that a stage has no `from`, unless something else is wrong with it.
fn miss_from(path: &str, errors: &mut Errors) {
    let path = format!("{path}.from");
    if !errors.told.iter().any(|error| error.path == path) {
        errors.add(
            &path,
            "is missing: name the input or stage that this stage reads",
        );
    }
}

const ONE_OF: &str = "a stage has one of `map`, `shuffle` (with `reduce`, `combine`), `task` (with `count` or `for_each`), `sql` and `union`";

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

/// Reads the work of a stage, out of the keys that say so. `reads`: it has a `from`.
fn work(
    path: &str,
    (map, reduce, combine, shuffle, task): Asked,
    reads: bool,
    keys: TaskKeys,
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
        (None, None, None, None, Some(function)) if !reads => keys.work(path, function, errors),
        (None, None, None, None, Some(_)) => {
            errors.add(
                &format!("{path}.from"),
                "a set of tasks has no `from`: leave it out, or say `for_each` to run a task for each row",
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
                "the stage does nothing: give it `map`, `shuffle` with `reduce`, `task`, `sql`, or `union`",
            );
            unknown_work()
        }
        _ => {
            errors.add(path, ONE_OF);
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
    let partitions = partitions(&mut table, errors);
    table.finish(errors);
    Some((keys, partitions))
}

pub(super) fn partitions(table: &mut Table<'_>, errors: &mut Errors) -> Option<u32> {
    let count = table.number("partitions", 1..=u64::from(PARTITIONS_MAX), errors);
    count.and_then(|count| u32::try_from(count).ok())
}

/// The keys of a SQL stage, if it is one: it has a key `sql`, whatever stands there.
fn sql(table: &mut Table<'_>, params: &Params, errors: &mut Errors) -> Option<Work> {
    if table.get("sql").is_none() {
        if table.get("folder").is_some() {
            errors.add(&table.at("folder"), "belongs to a stage with `sql`");
        }
        let has_partitions = ["union", "for_each"].map(|key| table.get(key).is_some());
        if table.get("partitions").is_some() && has_partitions == [false, false] {
            let message = "belongs to `shuffle`, or to a stage with `sql`, `union` or `for_each`";
            errors.add(&table.at("partitions"), message);
        }
        return None;
    }
    let sql = statement(table, errors).unwrap_or_default().to_owned();
    let functions = functions(table, &sql, errors);
    let from = tables(table, "from", errors);
    let folder = table.text("folder", errors);
    let folder = folder.and_then(|uri| local_path(&table.at("folder"), uri, params, errors));
    Some(Work::Sql {
        sql,
        from,
        folder,
        partitions: partitions(table, errors),
        functions,
    })
}

/// The keys of a stage that puts rows of others one after the other, if it is one: it has a key `union`.
fn union(table: &mut Table<'_>, errors: &mut Errors) -> Option<Work> {
    table.get("union")?;
    let from = tables(table, "union", errors);
    let path = table.at("union");
    if from.len() < 2 && !errors.told.iter().any(|error| error.path == path) {
        errors.add(&path, "names less than two inputs or stages");
    }
    if table.get("from").is_some() {
        errors.add(
            &table.at("from"),
            "leave it out: `union` names the inputs and stages that are read",
        );
    }
    Some(Work::Union {
        from,
        partitions: partitions(table, errors),
    })
}

fn statement<'a>(table: &mut Table<'a>, errors: &mut Errors) -> Option<&'a str> {
    let sql = table.text("sql", errors)?;
    if sql.trim().is_empty() {
        errors.add(&table.at("sql"), "is empty");
    } else if sql.len() > MAX_SQL_BYTES {
        let message = format!("{} bytes; a statement may have {MAX_SQL_BYTES}", sql.len());
        errors.add(&table.at("sql"), message);
    }
    Some(sql)
}

/// The functions of components that a statement calls.
fn functions(table: &Table<'_>, sql: &str, errors: &mut Errors) -> Vec<String> {
    if sql.len() > MAX_SQL_BYTES {
        return Vec::new();
    }
    let functions = sql_functions(sql);
    if functions.len() > MAX_SQL_FUNCTIONS {
        let message = format!(
            "calls {} functions of components; a statement may call {MAX_SQL_FUNCTIONS}",
            functions.len()
        );
        errors.add(&table.at("sql"), message);
        return Vec::new();
    }
    functions.into_iter().collect()
}

/// The inputs and stages that a key lists, each once.
fn tables(table: &mut Table<'_>, key: &'static str, errors: &mut Errors) -> Vec<String> {
    let names = table.texts(key, errors).unwrap_or_default();
    let most = INPUTS_MAX + STAGES_MAX;
    if names.len() > most {
        let message = format!("{} names; a job has {most} inputs and stages", names.len());
        errors.add(&table.at(key), message);
        return Vec::new();
    }
    let mut seen = HashSet::new();
    if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
        let message = format!("`{}` is there twice", name.escape_debug());
        errors.add(&table.at(key), message);
    }
    names
}
