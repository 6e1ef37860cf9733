//! The leaf of a stage's plan: rows of a table, or rows that another stage wrote.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_datafusion_err, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, StatisticsArgs,
};
use futures::StreamExt;
use weft_protocol::{ReadMode, TaskRange};

use crate::Plan;
use crate::error::carried;
use crate::facts::Facts;
use crate::filters::ScanFilter;
use crate::order::SortKeys;
use crate::stage::LeafPlan;
use crate::table::TableColumn;
use crate::task::Sources;

/// How a task reads rows of another stage, always by task and then in the order in which they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Task k reads partition k of every writer.
    Keyed,
    /// Every task reads everything: for one task and for a broadcast alike.
    All,
    /// As `All`, with a stream for each writer, under a merge.
    PerWriter,
    /// Each task reads the rows of its own range, with a stream for each writer, under a merge.
    Ranged,
}

impl Read {
    /// The way of reading, for people.
    fn text(self) -> &'static str {
        match self {
            Self::Keyed => "by key",
            Self::All => "all rows",
            Self::PerWriter => "a stream of each task",
            Self::Ranged => "a range, a stream of each task",
        }
    }
}

/// Rows of a table as a scan asks for them.
#[derive(Debug, Clone)]
pub(crate) struct TableRows {
    /// Position among the statement's tables.
    pub(crate) table: usize,
    pub(crate) name: String,
    /// Columns to read; all where nothing is said.
    pub(crate) columns: Option<Vec<usize>>,
    /// Conditions that all wanted rows fulfil.
    pub(crate) filters: Vec<ScanFilter>,
    pub(crate) limit: Option<usize>,
    /// Rows and bytes that are estimated.
    pub(crate) n_rows: Option<u64>,
    pub(crate) bytes: Option<u64>,
    /// Estimates for the columns that are read, in their order; none if nothing is known.
    pub(crate) known: Vec<TableColumn>,
}

#[derive(Debug, Clone)]
enum Rows {
    /// A table, with a slice for each task.
    Table(TableRows),
    /// Rows of another stage.
    Stage { stage: usize, read: Read },
    /// Leaf of an encoded plan: the position among those of its stage.
    Numbered(u32),
    /// The same in a task.
    Task {
        leaf: u32,
        sources: Arc<dyn Sources>,
    },
}

/// A leaf, from planning to the task.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    rows: Rows,
    facts: Facts,
    /// The order by which tasks share rows of another stage, if they read ranges of it.
    keys: Option<SortKeys>,
    properties: Arc<PlanProperties>,
}

impl Leaf {
    /// Creates the leaf of a scan with `n_slices`, one for each task.
    pub(crate) fn table(rows: TableRows, schema: SchemaRef, n_slices: usize) -> Plan {
        Arc::new(Self {
            rows: Rows::Table(rows),
            facts: Facts::default(),
            keys: None,
            properties: properties(EquivalenceProperties::new(schema), n_slices),
        })
    }

    /// Creates the leaf in place of a node that moves rows. It keeps that node's properties, so its parents stay
    /// valid.
    pub(crate) fn stage(stage: usize, read: Read, properties: Arc<PlanProperties>) -> Plan {
        Arc::new(Self {
            rows: Rows::Stage { stage, read },
            facts: Facts::of(properties.equivalence_properties()),
            keys: None,
            properties,
        })
    }

    /// Creates the leaf below a merge that several tasks share by ranges of `keys`.
    pub(crate) fn ranged(stage: usize, keys: SortKeys, properties: Arc<PlanProperties>) -> Plan {
        let read = Read::Ranged;
        Arc::new(Self {
            rows: Rows::Stage { stage, read },
            facts: Facts::of(properties.equivalence_properties()),
            keys: Some(keys),
            properties,
        })
    }

    /// The same leaf with its number, for encoding.
    pub(crate) fn numbered(&self, leaf: u32) -> Plan {
        Arc::new(Self {
            rows: Rows::Numbered(leaf),
            ..self.clone()
        })
    }

    /// Creates the leaf of a decoded plan. Without sources it only shows that the plan can be decoded.
    pub(crate) fn decoded(
        leaf: u32,
        sources: Option<Arc<dyn Sources>>,
        schema: SchemaRef,
        facts: Facts,
        keys: Option<SortKeys>,
    ) -> Result<Plan> {
        let n_streams = sources.as_ref().map_or(1, |sources| sources.streams(leaf));
        if n_streams == 0 || !facts.fit(&schema) {
            return internal_err!(
                "leaf {leaf} has {n_streams} streams, or facts about columns that it lacks"
            );
        }
        let properties = properties(facts.properties(schema)?, n_streams);
        let rows = match sources {
            Some(sources) => Rows::Task { leaf, sources },
            None => Rows::Numbered(leaf),
        };
        Ok(Arc::new(Self {
            rows,
            facts,
            keys,
            properties,
        }))
    }

    pub(crate) fn is_stage(&self) -> bool {
        matches!(self.rows, Rows::Stage { .. })
    }

    /// The way in which a task reads rows of another stage. Nothing of a table.
    pub(crate) fn read(&self) -> Option<Read> {
        match &self.rows {
            Rows::Stage { read, .. } => Some(*read),
            Rows::Table(_) | Rows::Numbered(_) | Rows::Task { .. } => None,
        }
    }

    /// Whether nodes above may have been planned on an order of the rows.
    pub(crate) fn has_order(&self) -> bool {
        self.facts.has_order()
    }

    /// The stage that the leaf reads, and how, for people.
    pub(crate) fn stage_read(&self) -> Option<(usize, &'static str)> {
        match &self.rows {
            Rows::Stage { stage, read } => Some((*stage, read.text())),
            Rows::Table(_) | Rows::Numbered(_) | Rows::Task { .. } => None,
        }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn keys(&self) -> Option<&SortKeys> {
        self.keys.as_ref()
    }

    /// Number of a leaf that is to be encoded.
    pub(crate) fn number(&self) -> Option<u32> {
        match &self.rows {
            Rows::Numbered(leaf) | Rows::Task { leaf, .. } => Some(*leaf),
            Rows::Table(_) | Rows::Stage { .. } => None,
        }
    }

    /// Says how the tasks of a branch read this leaf.
    pub(crate) fn plan(&self, tasks: TaskRange) -> Result<LeafPlan> {
        let n_partitions = self.properties.partitioning.partition_count();
        match &self.rows {
            Rows::Table(rows) if n_partitions == tasks.count as usize => Ok(LeafPlan::Scan {
                table: rows.table,
                columns: rows.columns.clone(),
                filters: rows.filters.clone(),
                limit: rows.limit,
                tasks,
            }),
            Rows::Stage { stage, read } => {
                let mode = match read {
                    Read::Keyed if n_partitions == tasks.count as usize => ReadMode::Partitioned,
                    Read::Keyed => return misfit(n_partitions, tasks),
                    Read::All | Read::PerWriter if tasks.count > 1 => ReadMode::Broadcast,
                    Read::All | Read::PerWriter => ReadMode::Partitioned,
                    Read::Ranged => ReadMode::Ranged,
                };
                Ok(LeafPlan::Exchange {
                    stage: *stage,
                    mode,
                    tasks,
                    per_writer: matches!(read, Read::PerWriter | Read::Ranged),
                })
            }
            Rows::Table(_) => misfit(n_partitions, tasks),
            Rows::Numbered(leaf) | Rows::Task { leaf, .. } => {
                internal_err!("leaf {leaf} is numbered already")
            }
        }
    }

    fn statistics(&self, args: &StatisticsArgs) -> Statistics {
        let schema = self.schema();
        let mut statistics = Statistics::new_unknown(&schema);
        let Rows::Table(rows) = &self.rows else {
            return statistics;
        };
        let n_parts = match args.partition() {
            Some(_) => self.properties.partitioning.partition_count(),
            None => 1,
        };
        // Never exact: a count that is known exactly is answered without reading the table.
        let inexact = |n: u64| {
            let part = n / (n_parts as u64).max(1);
            Precision::Inexact(usize::try_from(part).unwrap_or(usize::MAX))
        };
        if let Some(n_rows) = rows.n_rows {
            statistics.num_rows = inexact(n_rows);
        }
        if let Some(bytes) = rows.bytes {
            statistics.total_byte_size = inexact(bytes);
        }
        // The least and the largest value are not told. A filter would take a column that may have one value for a
        // constant, which a task cannot see from its own plan.
        for (column, known) in statistics.column_statistics.iter_mut().zip(&rows.known) {
            column.byte_size = known.bytes.map_or(Precision::Absent, inexact);
            column.null_count = known.nulls.map_or(Precision::Absent, inexact);
            column.distinct_count = known.distinct.map_or(Precision::Absent, |n| {
                Precision::Inexact(usize::try_from(n).unwrap_or(usize::MAX))
            });
        }
        statistics
    }
}

fn misfit<T>(n_partitions: usize, tasks: TaskRange) -> Result<T> {
    internal_err!(
        "{} tasks read a leaf of {n_partitions} partitions",
        tasks.count
    )
}

fn properties(facts: EquivalenceProperties, n_partitions: usize) -> Arc<PlanProperties> {
    let partitioning = Partitioning::UnknownPartitioning(n_partitions);
    let properties = PlanProperties::new(
        facts,
        partitioning,
        EmissionType::Incremental,
        Boundedness::Bounded,
    );
    // A task has its thread for itself, and sources look whether they are cancelled: no node has to yield above a
    // leaf.
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

impl DisplayAs for Leaf {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rows {
            Rows::Table(rows) => {
                write!(f, "Scan: table={}, columns=[", rows.name)?;
                for (position, field) in self.schema().fields().iter().enumerate() {
                    let comma = if position > 0 { ", " } else { "" };
                    write!(f, "{comma}{}", field.name())?;
                }
                f.write_str("]")?;
                if !rows.filters.is_empty() {
                    let filters = rows.filters.iter().map(ScanFilter::to_string);
                    write!(f, ", filters=[{}]", filters.collect::<Vec<_>>().join(", "))?;
                }
                rows.limit
                    .map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
            }
            Rows::Stage { stage, read } => write!(f, "Read: stage={stage}, {}", read.text()),
            Rows::Numbered(leaf) | Rows::Task { leaf, .. } => write!(f, "Leaf: {leaf}"),
        }
    }
}

impl ExecutionPlan for Leaf {
    fn name(&self) -> &str {
        "Leaf"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Plan> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Plan>) -> Result<Plan> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let Rows::Task { leaf, sources } = &self.rows else {
            return internal_err!("a leaf runs only in a task");
        };
        let rows = match &self.keys {
            Some(keys) => sources.open_range(*leaf, partition, keys),
            None => sources.open(*leaf, partition),
        };
        let rows = rows.map_err(carried)?;
        let schema = self.schema();
        let stamped = Arc::clone(&schema);
        let rows = rows.map(move |batch| restamp(batch?, &stamped));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::new(self.statistics(args)))
    }
}

/// Gives rows the schema of their leaf or stage: branches of a union may name their columns otherwise than the union.
///
/// A schema without columns keeps only the number of rows.
pub(crate) fn restamp(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if Arc::ptr_eq(batch.schema_ref(), schema) {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = match schema.fields().is_empty() {
        true => Vec::new(),
        false => batch.columns().to_vec(),
    };
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| internal_datafusion_err!("rows do not have the planned schema: {error}"))
}
