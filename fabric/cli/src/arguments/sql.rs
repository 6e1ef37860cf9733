//! Arguments of `weft sql` and `weft tables`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::name_and_value;

/// Arguments of `weft sql`.
#[derive(Debug, Default, Args)]
pub(crate) struct SqlArguments {
    /// Query, or `-` for standard input
    #[arg(
        value_name = "SQL",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    pub(crate) statement: Option<String>,
    /// File with the query, or with several statements that end in `;`
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Folder to write the rows to [default: none, the cluster keeps them]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<String>,
    /// Format of the files in that folder [default: parquet]; without a folder, writes all rows to standard output as
    /// csv, json or arrow
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<RowFormat>,
    /// Maximum number of rows that are shown [default: 1000], or written to standard output [default: all]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) rows: Option<u32>,
    /// Tasks that share the work [default: chosen from the size of what is read]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) partitions: Option<u32>,
    /// Parameter that the folder names as `${NAME}`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) param: Vec<(String, String)>,
    /// Plan the query and show its columns and tasks, without running it
    #[arg(long)]
    pub(crate) check: bool,
    /// Plan the query and show its stages and their operators, without running it
    #[arg(long, conflicts_with = "check")]
    pub(crate) explain: bool,
    /// Run the query and show its plan as it ran, instead of its rows
    #[arg(long, conflicts_with_all = ["check", "explain"])]
    pub(crate) analyze: bool,
}

/// Formats of files with rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    Parquet,
    Csv,
    Json,
    Arrow,
}

/// Arguments of `weft tables`.
#[derive(Debug, Args)]
pub(crate) struct TablesArguments {
    /// Table or view, in the case that statements read it in
    pub(crate) name: Option<String>,
}
