//! Plans and runs tasks: what an executor does with the bytes that it is sent.
//!
//! ```text
//! PlanRequest ──plan──▶ Plan (shapes) + one StagePlan blob a stage in the store
//! TaskRequest ──run───▶ source ─▶ guests ─▶ edges (group, combine, partition, shuffle object) and sinks (staged Parquet) ─▶ TaskCommit
//! ```
//!
//! Rows are pushed through a tree of operators, because one map may feed several stages and guests are pushed to as well.
//! DataFusion does the relational work between them: for now the stable merge of sorted runs that were spilled.

mod ahead;
mod arrow_messages;
mod canonical;
mod carrier;
mod describe;
mod each;
mod edge;
mod encode;
mod environment;
mod exchange;
mod executor;
mod expressions;
mod flow;
mod folders;
mod grouping;
mod hex;
mod invoke;
mod keyed;
mod listing;
mod merge;
mod numbering;
mod output_files;
mod place;
mod plan;
mod planner;
mod preview;
mod problems;
mod ranged;
mod requests;
mod row_decoder;
mod rows;
mod running_guest;
mod scan;
mod schema;
mod sink;
mod source;
mod sql_functions;
mod sql_source;
mod sql_task;
mod stream;
mod task;
mod task_results;
mod times;
mod untrusted;

pub use executor::Executor;

pub use preview::{TextRow, preview};
pub use row_decoder::{RowDecoder, TextRows};
pub use stream::Outbox;
pub use untrusted::is_decoding;
