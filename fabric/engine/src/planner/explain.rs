//! Plans of stages as text, for people: what a check shows, and what a job keeps of its plan.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use weft_core::job::InputFormat;
use weft_protocol::{MAX_PLAN_TEXT_BYTES, ReadMode, StageText, TaskRange, plan_line};
use weft_sql::PlanLine;

use super::draft::{Draft, small};
use crate::plan::{
    EdgeLeaf, EdgePlan, EdgeRows, FilesLeaf, FilesPlan, FunctionPlan, Leaf, NodeWork, SinkPlan,
    Source,
};

/// Text of a stage of a statement, until the names of stages are known.
pub(super) struct SqlText {
    /// Position of the statement's first stage in the plan.
    pub(super) base: usize,
    pub(super) operators: Vec<PlanLine>,
    /// Expressions of the hash by which rows go on, or of their order.
    pub(super) keys: Vec<String>,
}

impl SqlText {
    fn lines(&self, labels: &[String]) -> Vec<String> {
        let name = |stage: usize| labels[self.base + stage].clone();
        let lines = self.operators.iter();
        lines.map(|line| plan_line(line.show(name))).collect()
    }
}

/// Names of the stages that read an edge, by the positions of the writing stage and the edge.
type Readers<'a> = BTreeMap<(u32, u32), Vec<&'a str>>;

/// Describes all stages, whose names are `labels`, within the bounds of a job's text. `sql` has those of statements.
pub(super) fn texts(
    drafts: &[Draft],
    labels: &[String],
    sql: &BTreeMap<usize, SqlText>,
) -> Vec<StageText> {
    let readers = readers(drafts, labels);
    let mut left = MAX_PLAN_TEXT_BYTES;
    let text = |(position, draft): (usize, &Draft)| {
        let of_statement = sql.get(&position);
        let keys: &[String] = of_statement.map_or(&[][..], |text| &text.keys[..]);
        let text = StageText {
            reads: reads(draft, labels),
            operators: of_statement
                .map(|text| text.lines(labels))
                .unwrap_or_default(),
            functions: functions(draft),
            writes: writes(position, draft, keys, &readers),
            omitted_lines: 0,
        };
        text.within(&mut left)
    };
    drafts.iter().enumerate().map(text).collect()
}

fn readers<'a>(drafts: &[Draft], labels: &'a [String]) -> Readers<'a> {
    let mut readers = Readers::new();
    for (draft, label) in drafts.iter().zip(labels) {
        for read in draft.reads() {
            let of_edge = readers.entry((read.stage, read.edge)).or_default();
            // Branches of a union may read one edge each.
            if of_edge.last() != Some(&label.as_str()) {
                of_edge.push(label);
            }
        }
    }
    readers
}

fn reads(draft: &Draft, labels: &[String]) -> Vec<String> {
    match &draft.source {
        Source::Files(files) => vec![files_line(files, &files.schema, "")],
        Source::Shuffle {
            edge, keys, schema, ..
        } => {
            let (from, keys) = (&labels[edge.stage as usize], names(schema, keys));
            let columns = columns(schema);
            vec![plan_line(format_args!(
                "{from}: partitioned, sorted by {keys}; columns {columns}"
            ))]
        }
        Source::Sql(sql) => {
            let leaves = sql.leaves.iter();
            let line = |leaf: &Leaf| match leaf {
                Leaf::Edge(edge) => edge_line(edge, draft.n_tasks, labels),
                Leaf::Files(files) => files_leaf_line(files, draft.n_tasks),
            };
            leaves.map(line).collect()
        }
        Source::Nothing => Vec::new(),
    }
}

fn edge_line(edge: &EdgeLeaf, n_tasks: u32, labels: &[String]) -> String {
    let n_readers = edge.read.tasks.map_or(n_tasks, |tasks| tasks.count);
    let mode = match edge.read.mode {
        ReadMode::Partitioned if n_readers == 1 => "whole",
        ReadMode::Partitioned => "partitioned",
        ReadMode::Broadcast => "broadcast",
        ReadMode::Sliced => "sliced",
        ReadMode::Ranged => "ranged",
    };
    let merged = if edge.per_writer { ", merged" } else { "" };
    plan_line(format_args!(
        "{}: {mode}{merged}{}; columns {}",
        labels[edge.read.stage as usize],
        of_tasks(edge.read.tasks, n_tasks),
        columns(&edge.schema)
    ))
}

fn files_leaf_line(leaf: &FilesLeaf, n_tasks: u32) -> String {
    let mut more = of_tasks(Some(leaf.tasks), n_tasks);
    if let Some(limit) = leaf.limit {
        more += &format!(", up to {} each", counted(limit, "row"));
    }
    files_line(&leaf.files, &leaf.schema, &more)
}

fn files_line(files: &FilesPlan, schema: &Schema, more: &str) -> String {
    let (format, filter) = match &files.format {
        InputFormat::Text { .. } => ("text", &[][..]),
        InputFormat::Csv(_) => ("csv", &[][..]),
        InputFormat::Json { .. } => ("json", &[][..]),
        InputFormat::Parquet { filter, .. } => ("parquet", &filter[..]),
        InputFormat::Arrow { .. } => ("arrow", &[][..]),
    };
    let splits = files.splits.iter();
    let sizes: BTreeMap<&str, u64> = splits
        .map(|split| (split.path.as_str(), split.file_bytes))
        .collect();
    let conditions: Vec<String> = filter.iter().map(ToString::to_string).collect();
    let only = match conditions.is_empty() {
        true => String::new(),
        false => format!("; where {}", conditions.join(" and ")),
    };
    plan_line(format_args!(
        "{}: {format}, {}, {}{more}{only}; columns {}",
        files.input,
        counted(sizes.len() as u64, "file"),
        counted(sizes.values().sum(), "byte"),
        columns(schema)
    ))
}

/// Names the tasks that read, unless they are all of the stage's.
fn of_tasks(tasks: Option<TaskRange>, n_tasks: u32) -> String {
    match tasks {
        Some(tasks) if tasks.count == 1 && n_tasks > 1 => format!(", by task {}", tasks.first),
        Some(TaskRange { first, count }) if count < n_tasks => {
            let last = first.saturating_add(count.saturating_sub(1));
            format!(", by tasks {first} to {last}")
        }
        _ => String::new(),
    }
}

fn functions(draft: &Draft) -> Vec<String> {
    let line = |verb: &str, of: &FunctionPlan| {
        plan_line(format_args!("{verb} {} in stage {}", of.label, of.stage))
    };
    let called: Vec<String> = match &draft.source {
        Source::Shuffle { combine, .. } => {
            let combine = combine.iter();
            combine.map(|function| line("combine", function)).collect()
        }
        Source::Sql(sql) => {
            let functions = sql.functions.values();
            functions.map(|function| line("call", function)).collect()
        }
        Source::Files(_) | Source::Nothing => Vec::new(),
    };
    let nodes = draft.nodes.iter().filter_map(|node| match &node.work {
        NodeWork::Pass | NodeWork::Number(_) => None,
        NodeWork::Map(function) => Some(line("map", function)),
        NodeWork::Reduce(function) => Some(line("reduce", function)),
        NodeWork::Task(task) => Some(line("task", &task.function)),
        NodeWork::Each(each) => Some(line("task for each row", &each.function)),
    });
    called.into_iter().chain(nodes).collect()
}

fn writes(position: usize, draft: &Draft, keys: &[String], readers: &Readers<'_>) -> Vec<String> {
    let edges = draft.edges.iter().enumerate().map(|(edge, plan)| {
        let readers = readers.get(&(small(position), small(edge)));
        let readers = readers.map_or("nothing".to_owned(), |readers| readers.join(", "));
        plan_line(format_args!("{}, for {readers}", placement(plan, keys)))
    });
    edges.chain(draft.sinks.iter().map(sink_line)).collect()
}

/// The places of the rows of an edge. `keys` are those of a statement's hash or order.
fn placement(edge: &EdgePlan, keys: &[String]) -> String {
    let partitions = counted(edge.partitions.into(), "partition");
    match edge.rows {
        EdgeRows::Sorted => {
            let combined = edge.combine.as_ref();
            let combined = combined.map_or(String::new(), |function| {
                format!(", combined by {}", function.label)
            });
            let keys = names(&edge.schema, &edge.keys);
            format!("by hash of {keys} into {partitions}, sorted{combined}")
        }
        EdgeRows::Hashed => format!("by hash of {} into {partitions}", keys.join(", ")),
        EdgeRows::Arriving => format!("to {partitions}"),
        EdgeRows::Ordered => format!("to {partitions}, sorted by {}", keys.join(", ")),
    }
}

fn sink_line(sink: &SinkPlan) -> String {
    let folders = match sink.partition_by.is_empty() {
        true => String::new(),
        false => format!(
            ", in folders by {}",
            names(&sink.schema, &sink.partition_by)
        ),
    };
    let (output, format) = (&sink.output, sink.format.name());
    let place = match sink.max_kept_bytes {
        Some(_) => ", kept".to_owned(),
        None => format!(" in {}{folders}", sink.folder),
    };
    plan_line(format_args!("to the output {output}: {format}{place}"))
}

fn columns(schema: &Schema) -> String {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// Names of the columns at these positions.
fn names(schema: &Schema, positions: &[usize]) -> String {
    let names = positions.iter().map(|at| schema.field(*at).name().as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn counted(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

#[cfg(test)]
mod tests;
