//! The command line, as it is typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs functions written in any language next to the data, in a sandbox.
#[derive(Debug, Parser)]
#[command(name = "weft", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed (the job, the call), 2 wrong usage, \
                          3 cannot reach the server, 130 interrupted";

/// Arguments that every command takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArguments {
    /// Address of a server; repeated, they are tried in order
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "WEFT_ENDPOINT",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7070"
    )]
    pub(crate) endpoint: Vec<String>,
    /// API token [default: the one that `weft up` left in its data folder]
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "WEFT_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// Data folder of `weft up` [default: $XDG_DATA_HOME/weft or ~/.local/share/weft]
    #[arg(long, global = true, value_name = "DIR", env = "WEFT_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Write JSON to standard output, and text to standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server on this machine
    Up(UpArguments),
    /// Create a project
    New(NewArguments),
    /// Compile a project to a component
    Build(BuildArguments),
    /// Upload components
    Deploy(DeployArguments),
    /// Run a job and follow it
    Run(RunArguments),
    /// Call a task function with standard input, or stream rows through a map function, and write
    /// what it answers with
    Invoke(InvokeArguments),
    /// List jobs, the newest first
    Jobs(JobsArguments),
    /// Show a job
    Job(JobArguments),
    /// Show what a job's functions logged
    Logs(IdArguments),
    /// Show the first rows of a published output
    Show(ShowArguments),
    /// Cancel a job
    Cancel(IdArguments),
    /// Show what a job used and costs
    Receipt(IdArguments),
    /// List components, or show one
    Components(ComponentsArguments),
    /// Check whether this machine has what Weft needs
    Doctor,
    /// Runs tasks for the server, which is at the other end of standard input
    #[command(hide = true)]
    Executor,
    /// Compiles a component to machine code for the server
    #[command(hide = true)]
    Compiler(CompilerArguments),
}

/// Arguments of `weft up`.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Where the API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    pub(crate) listen: SocketAddr,
    /// Tasks to run at a time [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
}

/// Arguments of `weft new`.
#[derive(Debug, Args)]
pub(crate) struct NewArguments {
    /// Name of the component; a folder of this name is made
    pub(crate) name: PathBuf,
    /// Language of the functions
    #[arg(long, value_enum, default_value = "rust")]
    pub(crate) lang: Language,
}

/// Languages that there is a template for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Rust,
    Python,
}

/// Arguments of `weft build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArguments {
    /// Folder of the project
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Where the component goes [default: NAME.wasm in the project's folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Where cargo keeps what it builds, for Rust [default: target in the project's folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) target_dir: Option<PathBuf>,
}

/// Arguments of `weft deploy`.
#[derive(Debug, Args)]
pub(crate) struct DeployArguments {
    /// Components, as `weft build` makes them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Arguments of `weft run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The job file: TOML, or JSON where its name ends in `.json`
    #[arg(value_name = "JOB")]
    pub(crate) file: PathBuf,
    /// Say what the job would do, and run nothing
    #[arg(long, conflicts_with = "detach")]
    pub(crate) check: bool,
    /// Submit the job and leave it to itself
    #[arg(long)]
    pub(crate) detach: bool,
    /// A parameter, over the one in the job file; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) param: Vec<(String, String)>,
}

/// Arguments of `weft invoke`.
#[derive(Debug, Args)]
pub(crate) struct InvokeArguments {
    /// COMPONENT/FUNCTION, or COMPONENT@VERSION/FUNCTION
    pub(crate) function: String,
    /// The input, instead of standard input
    #[arg(long, value_name = "TEXT")]
    pub(crate) input: Option<String>,
    /// A parameter of the function; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) param: Vec<(String, String)>,
    /// How long the call may take, waiting included
    #[arg(long, value_name = "MS")]
    pub(crate) deadline_ms: Option<u64>,
    /// Calls with the same key have one answer, for 24 hours
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// What the input of a map function is [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) input_format: Option<StreamInput>,
    /// What the output of a map function is to be [default: json]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) output_format: Option<StreamOutput>,
}

/// Formats of a map function's input, as `weft invoke` sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamInput {
    /// Lines, as a column `line` of type `utf8`
    Text,
    /// Lines, as a column `line` of type `binary`
    Binary,
    /// With a header; columns are inferred
    Csv,
    /// One object a line; columns are inferred
    Json,
    /// An Arrow IPC stream
    Arrow,
}

/// Formats of a map function's output, as `weft invoke` gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamOutput {
    /// One object a line
    Json,
    /// With a header
    Csv,
    /// An Arrow IPC stream
    Arrow,
}

/// Arguments of `weft jobs`.
#[derive(Debug, Args)]
pub(crate) struct JobsArguments {
    /// How many to list at most
    #[arg(long, value_name = "N", default_value = "100")]
    pub(crate) limit: usize,
}

/// Arguments of `weft job`.
#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    /// The job; `last` is the newest
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) view: JobViewArguments,
}

/// Which side of a job to show.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct JobViewArguments {
    /// Show what it used and costs
    #[arg(long)]
    pub(crate) receipt: bool,
    /// Show its stages
    #[arg(long)]
    pub(crate) stages: bool,
    /// Show its tasks
    #[arg(long)]
    pub(crate) tasks: bool,
}

/// Arguments of commands about one job.
#[derive(Debug, Args)]
pub(crate) struct IdArguments {
    /// The job; `last` is the newest
    pub(crate) id: String,
}

/// Arguments of `weft show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The output's folder
    pub(crate) folder: PathBuf,
    /// Rows to show at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) rows: usize,
}

/// Arguments of `weft components`.
#[derive(Debug, Args)]
pub(crate) struct ComponentsArguments {
    /// A component, or one version of it: `weblog`, `weblog@1.2.0`
    pub(crate) name: Option<String>,
}

/// Arguments of `weft compiler`.
#[derive(Debug, Args)]
pub(crate) struct CompilerArguments {
    pub(crate) component: PathBuf,
    pub(crate) artefact: PathBuf,
    pub(crate) threads: usize,
    /// Step back behind all others.
    #[arg(long)]
    pub(crate) last: bool,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("must be NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_lists_what_people_use_and_hides_the_children() {
        let help = Arguments::command().render_long_help().to_string();
        for shown in ["up", "new", "build", "deploy", "run", "jobs", "receipt"] {
            assert!(help.contains(&format!("\n  {shown} ")), "{shown}: {help}");
        }
        assert!(
            !help.contains("executor") && !help.contains("compiler"),
            "{help}"
        );
    }

    #[test]
    fn endpoints_repeat_and_stand_anywhere() {
        let line = [
            "weft",
            "--endpoint",
            "http://a:1",
            "jobs",
            "--json",
            "--endpoint",
            "http://b:2",
        ];
        let arguments = Arguments::try_parse_from(line).expect("good usage");
        assert!(arguments.global.json);
        let line = [
            "weft",
            "jobs",
            "--endpoint",
            "http://a:1",
            "--endpoint",
            "http://b:2",
        ];
        let arguments = Arguments::try_parse_from(line).expect("good usage");
        assert_eq!(arguments.global.endpoint, ["http://a:1", "http://b:2"]);
    }

    #[test]
    fn parameters_are_split_at_the_first_equals_sign() {
        assert_eq!(name_and_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(name_and_value("a="), Ok(("a".into(), String::new())));
        assert!(name_and_value("a").is_err() && name_and_value("=a").is_err());
    }
}
