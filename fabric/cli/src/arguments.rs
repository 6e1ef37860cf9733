//! Definition of the command line.

mod actor;
mod invoke;
mod sql;
mod tasks;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use weft_core::JobId;

use crate::ServerRole;
use crate::failure::Failure;
use crate::locations;

pub(crate) use actor::{ActorArguments, ActorCommand, ActorInvokeArguments, ActorListArguments};
pub(crate) use invoke::{InvokeArguments, StreamInput, StreamOutput};
pub(crate) use sql::{RowFormat, SqlArguments, TablesArguments};
pub(crate) use tasks::{TaskCommand, TaskRunArguments};

/// Longest time that a command line may give.
const MAX_DURATION: Duration = Duration::from_secs(600);

/// Serverless compute fabric: runs functions in sandboxes next to the data.
#[derive(Debug, Parser)]
#[command(name = "weft", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed (the job, the invocation), 2 wrong usage, \
                          3 cannot reach the server, 130 interrupted";

/// Arguments that every command takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArguments {
    /// Address of a server; repeatable, tried in order
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "WEFT_ENDPOINT",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7070"
    )]
    pub(crate) endpoint: Vec<String>,
    /// API token [default: read from the data folder]
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
    /// Print JSON on standard output and text on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server on this machine
    Up(UpArguments),
    /// Run a cluster of controllers and nodes on this machine
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Run a controller of a cluster
    Controller(ConfigArguments),
    /// Run a node of a cluster
    Node(ConfigArguments),
    /// Print all settings of controllers or nodes, with their meaning
    Config(RoleArguments),
    /// Make certificates for the processes of a cluster
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Create a project
    New(NewArguments),
    /// Compile a project to a component
    Build(BuildArguments),
    /// Upload components
    Deploy(DeployArguments),
    /// Run a job and follow it
    Run(RunArguments),
    /// Run a SQL query over files, and show its rows
    Sql(SqlArguments),
    /// List tables and views, or show one
    Tables(TablesArguments),
    /// Invoke a task function with standard input, or stream rows through a map function
    Invoke(InvokeArguments),
    /// Run a task function many times, and read the results
    #[command(subcommand)]
    Task(TaskCommand),
    /// Invoke actors, list, show and delete them
    #[command(subcommand)]
    Actor(ActorCommand),
    /// List jobs, newest first
    Jobs(JobsArguments),
    /// Show a job
    Job(JobArguments),
    /// Show what a job waits for, or all that waits
    Why(WhyArguments),
    /// Show the log of a job's functions
    Logs(IdArguments),
    /// Show the first rows of an output
    Show(ShowArguments),
    /// Cancel a job
    Cancel(IdArguments),
    /// Show the usage and cost of a job
    Receipt(IdArguments),
    /// List the nodes
    Nodes,
    /// List the controllers of the group, add one, or remove one
    Members(MembersArguments),
    /// Have a node take no new work, and end once what it has is done
    Drain(DrainArguments),
    /// Show the usage and cost of all jobs and invocations, by function
    Usage(UsageArguments),
    /// List components, or show one
    Components(ComponentsArguments),
    /// Check whether Weft can run on this machine, and use its stores
    Doctor(DoctorArguments),
    /// Run tasks for the server at the other end of standard input
    #[command(hide = true)]
    Executor,
    /// Compile a component to machine code for the server
    #[command(hide = true)]
    Compiler(CompilerArguments),
}

/// Arguments of `weft up`.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Address that the API listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    pub(crate) listen: SocketAddr,
    /// Store of jobs' data: a folder, s3://bucket/prefix, gs:// or az:// [default: as before, or in the data folder]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// File with settings of stores that jobs may use, as `[store.NAME]`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Tasks that run at the same time [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// Host name that clients and proxies may ask for, beside the server's own; may be repeated
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(crate) allow_host: Vec<String>,
    /// Origin whose pages may use the API, such as https://app.example.com; may be repeated
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<String>,
}

/// Arguments of `weft doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// File with settings of a server, whose stores are checked [default: those that the environment names]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The cluster's own store, as for `weft up`
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
}

/// Commands of `weft cluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a cluster, or start what does not run of it, and wait until it is ready
    Up(ClusterUpArguments),
    /// List the processes
    Status(ClusterArguments),
    /// Kill a process by SIGKILL
    Kill(ClusterProcessArguments),
    /// Stop a process for a while, and let it go on
    Pause(ClusterPauseArguments),
    /// End all processes; the data stays
    Down(ClusterArguments),
}

/// The cluster that is meant.
#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    /// Folder of the cluster [default: `weft-cluster` beside the default data folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ClusterArguments {
    /// Folder of the cluster.
    pub(crate) fn dir(&self) -> Result<PathBuf, Failure> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(locations::data_dir(None)?.with_file_name("weft-cluster")),
        }
    }
}

/// Arguments of `weft cluster up`.
#[derive(Debug, Args)]
pub(crate) struct ClusterUpArguments {
    #[command(flatten)]
    pub(crate) of: ClusterArguments,
    /// Controllers of a new cluster: of three, one may be lost, of five, two
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) controllers: u32,
    /// Nodes of a new cluster
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) nodes: u32,
    /// Tasks that run at the same time on each node [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// The store of a new cluster: a folder, s3://bucket/prefix, gs:// or az:// [default: in the cluster's folder]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Let the processes of a new cluster find each other by etcd, say at http://127.0.0.1:2379
    #[arg(long, value_name = "URL")]
    pub(crate) etcd: Option<String>,
}

/// A process of a cluster.
#[derive(Debug, Args)]
pub(crate) struct ClusterProcessArguments {
    #[command(flatten)]
    pub(crate) of: ClusterArguments,
    /// Name of the process, or `leader`
    pub(crate) name: String,
}

/// Arguments of `weft cluster pause`.
#[derive(Debug, Args)]
pub(crate) struct ClusterPauseArguments {
    #[command(flatten)]
    pub(crate) of: ClusterArguments,
    /// Name of the process, or `leader`
    pub(crate) name: String,
    /// How long, such as `5s` or `500ms`
    #[arg(value_parser = duration)]
    pub(crate) time: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let milliseconds = text.strip_suffix("ms").and_then(number);
    let seconds = text.strip_suffix('s').and_then(number);
    let time = milliseconds
        .map(Duration::from_millis)
        .or_else(|| seconds.map(Duration::from_secs));
    time.filter(|time| *time <= MAX_DURATION).ok_or_else(|| {
        format!("give seconds or milliseconds, such as `5s`, up to {MAX_DURATION:?}")
    })
}

/// Settings of a process of a cluster.
#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    /// File with its settings; `weft config` prints all keys
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// A role of a process of a cluster.
#[derive(Debug, Args)]
pub(crate) struct RoleArguments {
    /// Role of the process
    pub(crate) role: ServerRole,
}

/// Commands of `weft certs`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make the authority of a cluster
    Ca(CertsArguments),
    /// Issue a certificate to a process
    Issue(IssueArguments),
}

/// Folder of certificates.
#[derive(Debug, Args)]
pub(crate) struct CertsArguments {
    /// Folder of the authority and its certificates
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
}

/// Arguments of `weft certs issue`.
#[derive(Debug, Args)]
pub(crate) struct IssueArguments {
    #[command(flatten)]
    pub(crate) of: CertsArguments,
    /// Role of the process
    pub(crate) role: ServerRole,
    /// Number of the controller, or name of the node
    pub(crate) name: String,
}

/// Arguments of `weft new`.
#[derive(Debug, Args)]
pub(crate) struct NewArguments {
    /// Name of the component and of the new folder
    pub(crate) name: PathBuf,
    /// Language of the functions
    #[arg(long, value_enum, default_value = "rust")]
    pub(crate) lang: Language,
}

/// Languages with a template.
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
    /// File to write the component to [default: NAME.wasm in the project]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Cargo's build folder, for Rust [default: target in the project]
    #[arg(long, value_name = "DIR")]
    pub(crate) target_dir: Option<PathBuf>,
}

/// Arguments of `weft deploy`.
#[derive(Debug, Args)]
pub(crate) struct DeployArguments {
    /// Components built by `weft build`
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Arguments of `weft run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Job file: TOML, or JSON if the name ends in `.json`
    #[arg(value_name = "JOB")]
    pub(crate) file: PathBuf,
    /// Plan the job and show what it would do, without running it
    #[arg(long, conflicts_with = "detach")]
    pub(crate) check: bool,
    /// Plan the job and show its stages and their operators, without running it
    #[arg(long, conflicts_with_all = ["check", "detach"])]
    pub(crate) explain: bool,
    /// Submit the job and return at once
    #[arg(long)]
    pub(crate) detach: bool,
    /// Parameter that replaces the one in the job file; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) param: Vec<(String, String)>,
}

/// Arguments of `weft jobs`.
#[derive(Debug, Args)]
pub(crate) struct JobsArguments {
    /// Maximum number of jobs
    #[arg(long, value_name = "N", default_value = "100")]
    pub(crate) limit: usize,
}

/// Arguments of `weft usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArguments {
    /// Count only the last N hours, at most 31 days [default: everything]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=744))]
    pub(crate) hours: Option<u32>,
}

/// Arguments of `weft why`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhyArguments {
    /// Id of the job, or `last` for the newest; `/STAGE` or `/STAGE/TASK` behind it for a part
    #[arg(value_name = "JOB[/STAGE[/TASK]]")]
    pub(crate) id: Option<String>,
    /// Explain all that waits
    #[arg(long)]
    pub(crate) queue: bool,
}

/// Arguments of `weft members`.
#[derive(Debug, Args)]
pub(crate) struct MembersArguments {
    #[command(subcommand)]
    pub(crate) command: Option<MembersCommand>,
}

/// Changes of `weft members`.
#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// Add a controller that runs with `join = true`, and wait until it votes
    Add {
        /// Number of the controller
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        member: u64,
    },
    /// Remove a controller for good
    Remove {
        /// Number of the controller
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        member: u64,
    },
}

/// Arguments of `weft drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// Name of the node
    pub(crate) node: String,
}

/// Arguments of `weft job`.
#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    /// Id of the job, or `last` for the newest
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) view: JobViewArguments,
}

/// Views of a job.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct JobViewArguments {
    /// Show usage and cost
    #[arg(long)]
    pub(crate) receipt: bool,
    /// Show stages
    #[arg(long)]
    pub(crate) stages: bool,
    /// Show the plan, with what each stage did
    #[arg(long)]
    pub(crate) plan: bool,
    /// Show tasks
    #[arg(long)]
    pub(crate) tasks: bool,
}

/// Arguments of commands about one job.
#[derive(Debug, Args)]
pub(crate) struct IdArguments {
    /// Id of the job, or `last` for the newest
    pub(crate) id: String,
}

/// Arguments of `weft show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// Folder of the output, or JOB or JOB/OUTPUT, where JOB is an id or `last`
    #[arg(value_name = "DIR|JOB/OUTPUT")]
    pub(crate) folder: PathBuf,
    /// Maximum number of rows
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) rows: usize,
}

impl ShowArguments {
    /// The job that is meant, and its output if that is named. Nothing for a folder, or what is one if both could be
    /// meant.
    pub(crate) fn job(&self) -> Option<(&str, Option<&str>)> {
        let text = self.folder.to_str()?;
        let (job, output) = match text.split_once('/') {
            Some((job, output)) => (job, Some(output)),
            None => (text, None),
        };
        let is_job = job == "last" || job.parse::<JobId>().is_ok();
        let output = output.filter(|output| !output.is_empty());
        (is_job && !self.folder.exists()).then_some((job, output))
    }
}

/// Arguments of `weft components`.
#[derive(Debug, Args)]
pub(crate) struct ComponentsArguments {
    /// Component, or one version of it: `weblog`, `weblog@1.2.0`
    pub(crate) name: Option<String>,
}

/// Arguments of `weft compiler`.
#[derive(Debug, Args)]
pub(crate) struct CompilerArguments {
    pub(crate) component: PathBuf,
    pub(crate) artefact: PathBuf,
    pub(crate) threads: usize,
    /// Run at idle priority.
    #[arg(long)]
    pub(crate) last: bool,
}

/// Commands that ask no server.
const WITHOUT_SERVER: [&str; 10] = [
    "up",
    "controller",
    "node",
    "cluster",
    "certs",
    "config",
    "new",
    "build",
    "executor",
    "compiler",
];

/// Returns whether an option that every command is offered means nothing to this one.
fn is_of_no_use(option: &str, command: &str) -> bool {
    // Whoever asks a server finds its token in the data folder, which `up` has.
    WITHOUT_SERVER.contains(&command) && !(option == "data" && command == "up")
}

/// Parses a command line, the name of the program first.
///
/// Errors: it is not one, or has an option that means nothing to its command; one that comes from the environment may.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    if let Some((name, of_command)) = matches.subcommand() {
        let is_given = |option: &str| {
            [&matches, of_command]
                .iter()
                .any(|matches| matches.value_source(option) == Some(ValueSource::CommandLine))
        };
        let mut options = ["endpoint", "token", "data"].into_iter();
        let of_no_use = options.find(|option| is_of_no_use(option, name) && is_given(option));
        if let Some(option) = of_no_use {
            let what = format!("`weft {name}` does not use `--{option}`");
            return Err(command.error(ErrorKind::UnknownArgument, what));
        }
    }
    Arguments::from_arg_matches(&matches)
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("must be NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_lists_what_people_use_and_hides_the_children() {
        let help = Arguments::command().render_long_help().to_string();
        for shown in [
            "up", "new", "build", "deploy", "run", "sql", "jobs", "receipt",
        ] {
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
    fn options_that_mean_nothing_are_refused() {
        let parse = |line: &[&str]| super::parse(line.iter().map(OsString::from));
        for line in [
            &["weft", "up", "--token", "x"][..],
            &["weft", "--endpoint", "http://a:1", "up"],
            &["weft", "new", "demo", "--data", "d"],
        ] {
            let refused = parse(line).expect_err("it means nothing");
            assert!(refused.to_string().contains("does not use"), "{refused}");
        }
        let ttl = |line: &[&str]| {
            let line = [&["weft", "invoke", "a/b", "--idempotency-ttl"][..], line].concat();
            Arguments::try_parse_from(line).is_ok()
        };
        assert!(ttl(&["60", "--idempotency-key", "k"]));
        for refused in ["0", "86401", "1h"] {
            assert!(!ttl(&[refused, "--idempotency-key", "k"]), "{refused}");
        }
        assert!(!ttl(&["60"]), "no key whose answer would be stored");
        parse(&["weft", "up", "--data", "d"]).expect("it says where to keep things");
        parse(&["weft", "jobs", "--token", "x", "--data", "d"]).expect("they are of use");
    }

    #[test]
    fn a_query_comes_from_one_place() {
        let parse = |line: &[&str]| {
            let line = [&["weft", "sql"][..], line].concat();
            Arguments::try_parse_from(line).map(|arguments| arguments.command)
        };
        for line in [
            &["SELECT 1"][..],
            &["-"],
            &["-f", "q.sql"],
            &["--file", "-"],
            &["SELECT 1", "--output", "out", "--format", "csv"],
            &["SELECT 1", "--format", "csv"],
            &["SELECT 1", "--partitions", "10000", "--rows", "0"],
            &["SELECT 1", "--explain", "--partitions", "2"],
            &["SELECT 1", "--analyze", "--output", "out"],
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        }
        for line in [
            &["SELECT 1", "-f", "q.sql"][..],
            &[],
            &["SELECT 1", "SELECT 2"],
            &["SELECT 1", "--output", "out", "--format", "text"],
            &["SELECT 1", "--partitions", "0"],
            &["SELECT 1", "--partitions", "10001"],
            &["SELECT 1", "--rows", "100001"],
            &["SELECT 1", "--param", "x"],
            &["SELECT 1", "--explain", "--analyze"],
            &["SELECT 1", "--explain", "--check"],
            &["SELECT 1", "--analyze", "--check"],
        ] {
            assert_eq!(parse(line).expect_err("wrong").exit_code(), 2, "{line:?}");
        }
        let Ok(Command::Sql(arguments)) = parse(&["-"]) else {
            panic!("a query from standard input");
        };
        assert_eq!(arguments.statement.as_deref(), Some("-"));
        assert_eq!((arguments.rows, arguments.partitions), (None, None));
    }

    #[test]
    fn an_output_is_that_of_a_folder_or_of_a_job() {
        let here = tempfile::tempdir().expect("a folder");
        let id = weft_core::JobId::new(1_700_000_000_000, 1);
        let there = here.path().display().to_string();
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let folder = PathBuf::from(text);
            assert_eq!(ShowArguments { folder, rows: 1 }.job(), expected, "{text}");
        };
        check("last", Some(("last", None)));
        check("last/daily", Some(("last", Some("daily"))));
        check(id.as_str(), Some((id.as_str(), None)));
        let of_job = format!("{id}/daily");
        check(&of_job, Some((id.as_str(), Some("daily"))));
        for folder in ["out", "out/last", "job-1", "./last", &there] {
            check(folder, None);
        }
    }

    #[test]
    fn parameters_are_split_at_the_first_equals_sign() {
        assert_eq!(name_and_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(name_and_value("a="), Ok(("a".into(), String::new())));
        assert!(name_and_value("a").is_err() && name_and_value("=a").is_err());
    }
}
