//! Sets of tasks in a job document: so many tasks, or one for each row.

use super::document::{Errors, Table};
use super::task_input::decoded;
use super::{EachInput, MAX_EACH_ROWS, MAX_TASK_INPUT_BYTES, TASKS_MAX, Work};

/// Rows of a batch, where the stage does not say how many.
const BATCH_ROWS: u32 = 1_024;

/// Keys of a stage whose tasks run for rows.
pub(super) struct ForEach {
    /// The input or stage; nothing if the key holds something else, which was told.
    pub(super) from: Option<String>,
    each: EachInput,
    partitions: Option<u32>,
}

/// The keys of a set of tasks, `for_each` aside.
pub(super) struct TaskKeys {
    count: Option<u64>,
    /// The input, behind its key.
    input: Option<(&'static str, Vec<u8>)>,
}

/// Reads the keys of tasks for rows, if the stage has `for_each`, whatever stands there. `partitions` is read with it.
pub(super) fn for_each(table: &mut Table<'_>, errors: &mut Errors) -> Option<ForEach> {
    if table.get("for_each").is_none() {
        for key in ["each", "batch_rows"] {
            if table.get(key).is_some() {
                errors.add(&table.at(key), "belongs to a stage with `for_each`");
            }
        }
        return None;
    }
    let from = table.text("for_each", errors).map(str::to_owned);
    if table.get("from").is_some() {
        let message = "leave it out: `for_each` names the input or stage that is read";
        errors.add(&table.at("from"), message);
    }
    Some(ForEach {
        from,
        each: each(table, errors),
        partitions: super::decode_stages::partitions(table, errors),
    })
}

fn each(table: &mut Table<'_>, errors: &mut Errors) -> EachInput {
    let each = table.choice("each", &["row", "batch"], errors);
    let rows = table.number("batch_rows", 1..=u64::from(MAX_EACH_ROWS), errors);
    if each != Some("batch") {
        if table.get("batch_rows").is_some() {
            errors.add(&table.at("batch_rows"), "belongs to `each = \"batch\"`");
        }
        return EachInput::Row;
    }
    let rows = rows.and_then(|rows| u32::try_from(rows).ok());
    EachInput::Batch {
        rows: rows.unwrap_or(BATCH_ROWS),
    }
}

/// Reads `count` and the input of a set of tasks.
pub(super) fn task_keys(table: &mut Table<'_>, errors: &mut Errors) -> TaskKeys {
    TaskKeys {
        count: table.number("count", 1..=u64::from(TASKS_MAX), errors),
        input: input(table, errors),
    }
}

/// The input of the tasks: as text, or as base64.
fn input(table: &mut Table<'_>, errors: &mut Errors) -> Option<(&'static str, Vec<u8>)> {
    let text = table.text("input", errors);
    let base64 = table.text("input_base64", errors);
    let (key, bytes) = match (text, base64) {
        (None, None) => return None,
        (Some(text), None) => ("input", text.as_bytes().to_vec()),
        (text, Some(base64)) => {
            let key = "input_base64";
            if text.is_some() {
                errors.add(&table.at(key), "`input` is there, too: leave one out");
            }
            let bytes = decoded(base64).unwrap_or_else(|| {
                errors.add(&table.at(key), "is not base64, with its padding");
                Vec::new()
            });
            (key, bytes)
        }
    };
    if bytes.len() > MAX_TASK_INPUT_BYTES {
        let n = bytes.len();
        let message = format!(
            "{n} bytes; tasks of a set may get {MAX_TASK_INPUT_BYTES}: `for_each` gives them rows of files"
        );
        errors.add(&table.at(key), message);
    }
    Some((key, bytes))
}

impl TaskKeys {
    /// Reports keys that say nothing to a stage of this kind. `path`: of the stage.
    pub(super) fn refuse(&self, path: &str, why: &str, errors: &mut Errors) {
        if self.count.is_some() {
            errors.add(&format!("{path}.count"), why);
        }
        if let Some((key, _)) = self.input {
            errors.add(&format!("{path}.{key}"), why);
        }
    }

    /// A set of so many tasks.
    pub(super) fn work(self, path: &str, function: String, errors: &mut Errors) -> Work {
        if self.count.is_none() {
            let path = format!("{path}.count");
            // One that is out of its range is there.
            if !errors.told.iter().any(|error| error.path == path) {
                errors.add(&path, "is missing: how many tasks the set has");
            }
        }
        let count = self.count.and_then(|count| u32::try_from(count).ok());
        Work::Tasks {
            function,
            count: count.unwrap_or(1),
            input: self.input.map(|(_, bytes)| bytes).unwrap_or_default(),
        }
    }
}

impl ForEach {
    /// Tasks for the rows of what the stage reads.
    pub(super) fn work(
        self,
        path: &str,
        function: Option<String>,
        keys: &TaskKeys,
        errors: &mut Errors,
    ) -> Work {
        keys.refuse(
            path,
            "leave it out: the stage runs a task for each row that `for_each` names",
            errors,
        );
        if function.is_none() {
            let path = format!("{path}.task");
            if !errors.told.iter().any(|error| error.path == path) {
                errors.add(
                    &path,
                    "is missing: the function that `for_each` runs for each row",
                );
            }
        }
        Work::ForEach {
            function: function.unwrap_or_default(),
            each: self.each,
            partitions: self.partitions,
        }
    }
}
