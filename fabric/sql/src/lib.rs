//! SQL statements as stages: planned by DataFusion, cut where rows move between tasks, and run task by task.
//!
//! ```text
//! text ─parse─▶ Statement ─plan─▶ DataFusion's plan ─cut─▶ stages ─branches─▶ Variants, as bytes
//!                                                                                 │
//! a task: Sources (tables, other stages) ─▶ leaves of the decoded plan ─▶ TaskRows ◀┘ ─▶ exchange, outputs
//! ```
//!
//! Nothing here reads files, shuffles, runs guests or asks the time. A leaf says which leaf of its stage it is; the
//! task's [`Sources`] answer with the rows that belong to that task. Leaves have as many partitions as there are tasks
//! while a statement is planned and one in a task, so every plan that runs has one partition and no task can read
//! the rows of another.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

mod adaptive;
mod builds;
mod calls;
mod codec;
mod command;
mod cut;
mod describe;
mod error;
mod expansion;
mod expressions;
mod facts;
mod filters;
mod functions;
mod insert;
mod leaf;
mod memory;
mod merge_join;
mod normalise;
mod one;
mod one_input;
mod order;
mod recursion;
mod relations;
mod restart;
mod sealed;
mod session;
mod single_value;
mod stage;
mod statement;
mod stop;
mod subqueries;
mod table;
mod task;
mod text;
mod variants;
mod windows;

pub use adaptive::Adaptive;
pub use command::{Command, Files};
pub use error::{carried, problem};
pub use expressions::Expressions;
pub use filters::{ScanFilter, Test};
pub use functions::{Binder, Bound, Function, Functions};
pub use memory::{Account, fair_pool};
pub use order::SortKeys;
pub use relations::{Reads, Relation, Relations, View};
pub use session::{Options, Session};
pub use stage::{LeafPlan, Out, SqlStage, Variant};
pub use statement::Statement;
pub use table::{Table, TableColumn};
pub use task::{HashKeys, Sources, TaskMemory, TaskRows};
pub use text::PlanLine;

pub(crate) type Plan = Arc<dyn ExecutionPlan>;
