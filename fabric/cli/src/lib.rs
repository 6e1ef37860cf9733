//! The command line: from arguments to an exit code.
//!
//! ```text
//!   arguments ─┬─▶ up, controller, node, executor, compiler: the Program, which hands them in
//!              ├─▶ cluster, certs, config:  this machine, with the Program's certificates and settings
//!              ├─▶ show, doctor:           this machine; what needs an engine, the Program does
//!              ├─▶ new, build:             this machine, with the SDK embedded in the binary
//!              ├─▶ sql, show of a job:     calls of the API; the Program decodes the rows
//!              └─▶ all others:             calls of the API, by way of `weft-client`
//! ```
//!
//! Commands return a `Failure` or nothing; only [`main`] turns that into text and an exit code, and
//! only `terminal::Output` writes. The crate links no server, engine or file format: the binary is
//! a [`Program`] that has them.

mod arguments;
mod failure;
mod job_file;
mod locations;
mod logging;
mod project;
mod terminal;
#[cfg(test)]
mod tests;
mod verbs;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_client::Client;

use arguments::{Arguments, Command, GlobalArguments, UpArguments};
use failure::Failure;
use terminal::Output;
use verbs::{
    actor, certs, cluster, components, doctor, invoke, jobs, members, nodes, receipt, run, show,
    sql, tables, tasks, usage, why,
};

/// The binary that the command line belongs to: the parts of it that the command line starts and
/// does not link.
pub trait Program {
    /// Runs the server until it is told to stop.
    fn up(&self, settings: UpSettings) -> anyhow::Result<()>;

    /// Runs a controller of a cluster, with the settings in a file, until it is told to stop.
    fn controller(&self, config: &Path) -> anyhow::Result<()>;

    /// Runs a node of a cluster, with the settings in a file, until it is told to stop.
    fn node(&self, config: &Path) -> anyhow::Result<()>;

    /// All settings of a role with their meaning, as TOML.
    fn default_settings(&self, role: ServerRole) -> &'static str;

    /// Makes the authority of a cluster in a folder.
    fn make_authority(&self, folder: &Path) -> anyhow::Result<()>;

    /// Issues a certificate to a process, by the authority in a folder, which the files go to.
    fn issue_certificate(
        &self,
        folder: &Path,
        role: ServerRole,
        name: &str,
    ) -> anyhow::Result<CertificateFiles>;

    /// Runs tasks for the server at the other end of standard input, until that is closed.
    fn executor(&self) -> anyhow::Result<()>;

    /// Compiles the file `component` to machine code in the file `artefact`, on `threads` threads,
    /// and writes the verdict to standard output. With `last` it steps back behind all others.
    fn compiler(
        &self,
        component: &Path,
        artefact: &Path,
        threads: usize,
        last: bool,
    ) -> anyhow::Result<()>;

    /// Reads the manifest of the output in `folder`, and its first `rows` rows.
    fn preview(&self, folder: &Path, rows: usize) -> anyhow::Result<Preview>;

    /// Begins to decode rows that the API sends as an Arrow stream.
    fn row_decoder(&self) -> Box<dyn RowDecoder>;

    /// Checks the buckets that the settings of a server name: those in the file `config`, in the environment, and the
    /// cluster's own at `store`. `data`: the data folder of a `weft up`. Errors: the settings are wrong.
    fn check_stores(
        &self,
        data: &Path,
        config: Option<&Path>,
        store: Option<&str>,
    ) -> anyhow::Result<Vec<StoreCheck>>;

    /// Starts a sandbox engine, and returns whether sandboxes come from a pool. Without a pool each
    /// one takes longer to start; an error means that functions cannot run on this machine.
    fn pools_sandboxes(&self) -> anyhow::Result<bool>;
}

/// Decodes an Arrow stream piece by piece, whatever the pieces.
pub trait RowDecoder {
    /// Takes the next piece. After an error the decoder is of no use any more.
    fn push(&mut self, piece: &[u8]) -> anyhow::Result<()>;

    /// Returns what came. Errors: the stream is not whole.
    fn finish(self: Box<Self>) -> anyhow::Result<TextTable>;
}

/// Columns and rows as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextTable {
    /// Name and type of each column.
    pub schema: Vec<(String, String)>,
    /// The rows.
    pub rows: Vec<TextRow>,
}

/// Role of a process of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ServerRole {
    /// A controller, which is named by its number.
    Controller,
    /// A node.
    Node,
}

impl ServerRole {
    /// The role as it is written.
    pub fn name(self) -> &'static str {
        match self {
            ServerRole::Controller => "controller",
            ServerRole::Node => "node",
        }
    }
}

/// Files with the certificate of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateFiles {
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// Certificate of the process.
    pub certificate: PathBuf,
    /// Private key of the certificate.
    pub key: PathBuf,
}

/// A place of a store, as a check found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCheck {
    /// Name of the store in settings: `store`, `store.lake`.
    pub store: String,
    /// The place: `s3://lake/raw`.
    pub uri: String,
    /// The rights in it.
    pub access: StoreAccess,
}

/// Rights in a place of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAccess {
    /// All that is needed.
    Full {
        /// Difference between the store's clock and this machine's, if something was written.
        clock_off_seconds: Option<u64>,
    },
    /// Jobs can read there, and write no outputs: the reason, and what to do.
    Reading(String),
    /// The store is of no use: the reason, and what to do.
    None(String),
}

/// Settings of `weft up`.
#[derive(Debug, Clone)]
pub struct UpSettings {
    /// The data folder.
    pub data: PathBuf,
    /// The address that the API listens on.
    pub listen: SocketAddr,
    /// URL of the store; in the data folder without one.
    pub store: Option<String>,
    /// File with settings of stores.
    pub config: Option<PathBuf>,
    /// Slots of the node's executor; as many as there are cores where none is given.
    pub slots: Option<u32>,
    /// Names by which clients may ask for the server, beside its own.
    pub allow_host: Vec<String>,
    /// Origins whose pages may use the server.
    pub allow_origin: Vec<String>,
}

/// The beginning of a published output.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The manifest, whole.
    pub manifest: Value,
    /// Name and type of each column.
    pub schema: Vec<(String, String)>,
    /// Rows of the whole output.
    pub n_rows: u64,
    /// Files of the whole output.
    pub n_files: usize,
    /// The first rows.
    pub rows: Vec<TextRow>,
}

/// A row: the text of each value, nothing where it is null.
pub type TextRow = Vec<Option<String>>;

/// Runs the command that `arguments` (with the program's name first) ask for.
pub fn main(program: &dyn Program, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match arguments::parse(arguments) {
        Ok(arguments) => {
            let mut output = Output::process(arguments.global.json);
            ExitCode::from(run_and_report(program, &arguments, &mut output))
        }
        Err(error) => {
            // Help and version come this way too. Nobody is left to hear that they could not be
            // written.
            let _ = error.print();
            u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn run_and_report(program: &dyn Program, arguments: &Arguments, output: &mut Output) -> u8 {
    match dispatch(program, arguments, output) {
        Ok(()) => 0,
        Err(failure) => report(&failure, &arguments.global, output),
    }
}

/// Tells why the command failed, and answers with its exit code.
fn report(failure: &Failure, global: &GlobalArguments, output: &mut Output) -> u8 {
    if let Failure::Problem(problem) = failure {
        // The exit code tells the same, should standard output be gone.
        let _ = output.document(&problem.raw.to_string());
    }
    if !failure.is_silent() {
        output.note(&format!("error: {failure}"));
    }
    if let Failure::Problem(problem) = failure
        && problem.code == "unauthorized"
    {
        hint_at_token(global, output);
    }
    failure.exit_code()
}

fn dispatch(
    program: &dyn Program,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    match &arguments.command {
        server @ (Command::Up(_)
        | Command::Controller(_)
        | Command::Node(_)
        | Command::Executor
        | Command::Compiler(_)) => be_server(program, server, &arguments.global),
        Command::Cluster(command) => run_async(cluster::cluster(program, command, output)),
        Command::Certs(command) => certs::certs(program, command, output),
        Command::Config(of) => output.say(program.default_settings(of.role).trim_end()),
        Command::New(new) => project::new(new, output),
        Command::Build(build) => project::build(build, output),
        Command::Show(of) if of.job().is_none() => show::show(program, of, output),
        Command::Doctor(of) => doctor::doctor(program, of, &arguments.global, output),
        remote => call_server(program, remote, &arguments.global, output),
    }
}

/// Becomes the server, or one of its children; standard output belongs to what is called.
fn be_server(
    program: &dyn Program,
    command: &Command,
    global: &GlobalArguments,
) -> Result<(), Failure> {
    logging::start();
    match command {
        Command::Up(up) => Ok(program.up(up_settings(up, global)?)?),
        Command::Controller(of) => Ok(program.controller(&of.config)?),
        Command::Node(of) => Ok(program.node(&of.config)?),
        Command::Executor => Ok(program.executor()?),
        Command::Compiler(of) => {
            Ok(program.compiler(&of.component, &of.artefact, of.threads, of.last)?)
        }
        _ => unreachable!("these run beside a server"),
    }
}

fn up_settings(up: &UpArguments, global: &GlobalArguments) -> Result<UpSettings, Failure> {
    let data = locations::data_dir(global.data.as_deref())?;
    Ok(UpSettings {
        data,
        listen: up.listen,
        store: up.store.clone(),
        config: up.config.clone(),
        slots: up.slots,
        allow_host: up.allow_host.clone(),
        allow_origin: up.allow_origin.clone(),
    })
}

fn call_server(
    program: &dyn Program,
    command: &Command,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let token = token(global)?;
    let client = Client::new(&global.endpoint, token.as_deref())?;
    run_async(remote(program, command, &client, output))
}

/// Runs a command that waits for servers.
fn run_async(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(command);
    // A thread may wait for an answer on standard input that nobody needs any more.
    runtime.shutdown_background();
    ended
}

async fn remote(
    program: &dyn Program,
    command: &Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        Command::Deploy(deploy) => components::deploy(client, &deploy.files, output).await,
        Command::Run(run) => run::run(client, run, output).await,
        Command::Sql(sql) => sql::sql(program, client, sql, output).await,
        Command::Show(of) => show::of_job(program, client, of, output).await,
        Command::Tables(of) => tables::tables(client, of.name.as_deref(), output).await,
        Command::Invoke(invoke) => invoke::invoke(client, invoke, output).await,
        Command::Task(command) => tasks::task(client, command, output).await,
        Command::Actor(command) => actor::actor(client, command, output).await,
        Command::Jobs(jobs) => jobs::jobs(client, jobs.limit, output).await,
        Command::Job(job) => jobs::job(client, job, output).await,
        Command::Logs(logs) => jobs::logs(client, &logs.id, output).await,
        Command::Cancel(cancel) => jobs::cancel(client, &cancel.id, output).await,
        Command::Receipt(receipt) => receipt::receipt(client, &receipt.id, output).await,
        Command::Nodes => nodes::nodes(client, output).await,
        Command::Why(of) => why::why(client, of.id.as_deref(), output).await,
        Command::Members(of) => members::members(client, of.command.as_ref(), output).await,
        Command::Drain(of) => nodes::drain(client, &of.node, output).await,
        Command::Usage(of) => usage::usage(client, of.hours, output).await,
        Command::Components(components) => {
            components::components(client, components.name.as_deref(), output).await
        }
        Command::Up(_)
        | Command::Controller(_)
        | Command::Node(_)
        | Command::Cluster(_)
        | Command::Certs(_)
        | Command::Config(_)
        | Command::Executor
        | Command::Compiler(_)
        | Command::New(_)
        | Command::Build(_)
        | Command::Doctor(_) => {
            unreachable!("these run without a server")
        }
    }
}

/// The token given, else the one that `weft up` left in its data folder, if there is one.
fn token(global: &GlobalArguments) -> Result<Option<String>, Failure> {
    match &global.token {
        Some(token) => Ok(Some(token.clone())),
        None => locations::read_token(&locations::default_token_path(global.data.as_deref())?),
    }
}

fn hint_at_token(global: &GlobalArguments, output: &mut Output) {
    let (Ok(token), Ok(path)) = (
        token(global),
        locations::default_token_path(global.data.as_deref()),
    ) else {
        return;
    };
    let looked = if token.is_some() {
        "the token is not this server's"
    } else {
        "no token was found"
    };
    output.note(&format!(
        "{looked}: `--token` or `WEFT_TOKEN` give one, else it is read from `{}`, where `--data` is the folder of `weft up`",
        path.display()
    ));
}
