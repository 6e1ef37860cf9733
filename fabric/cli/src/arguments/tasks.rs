//! Arguments of `weft task`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::name_and_value;

/// Commands of `weft task`.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Run a task function as a set of tasks, whose results the cluster keeps
    Run(TaskRunArguments),
    /// Show a set of tasks
    Show(TaskSetArguments),
    /// Write the results of a set of tasks, a line for each
    Results(TaskSetArguments),
}

/// Arguments of `weft task run`.
#[derive(Debug, Args)]
pub(crate) struct TaskRunArguments {
    /// COMPONENT/FUNCTION, or COMPONENT@VERSION/FUNCTION
    pub(crate) function: String,
    /// Number of tasks
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,
    /// Input of each task [default: standard input]
    #[arg(long, value_name = "TEXT", conflicts_with = "input_file")]
    pub(crate) input: Option<String>,
    /// File with the input of each task
    #[arg(long, value_name = "FILE")]
    pub(crate) input_file: Option<PathBuf>,
    /// Parameter of the function; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) param: Vec<(String, String)>,
    /// Label of the job; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) tag: Vec<(String, String)>,
    /// Follow the set to its end, and write its results
    #[arg(long)]
    pub(crate) wait: bool,
}

/// The set of tasks that is meant.
#[derive(Debug, Args)]
pub(crate) struct TaskSetArguments {
    /// Id of the set, or `last` if it is the newest job
    pub(crate) id: String,
}
