//! The command line: from arguments to an exit code.
//!
//! ```text
//!   arguments --> up, executor, compiler: the server, in the library half of this crate
//!             --> new, build:             work on this machine, with the SDK that is embedded in the binary
//!             --> all others:             calls of the API, by way of the client
//! ```
//!
//! Commands return a [`Failure`] or nothing; only [`main`] turns that into text and an exit code, and only [`Output`]
//! writes. Everything the server says is read leniently, so that an older command line works with a newer server.

mod arguments;
mod build;
mod build_python;
mod client;
mod componentize;
mod components;
mod doctor;
mod endpoint;
mod events;
mod failure;
mod follow;
mod guest_environment;
mod interrupt;
mod invoke;
mod job_file;
mod jobs;
mod locations;
mod logging;
mod model;
mod new;
mod output;
mod pages;
mod problem;
mod progress;
mod receipt;
mod run;
mod sdk;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod toolchain;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use weft_server::UpSettings;

use arguments::{Arguments, Command, GlobalArguments, UpArguments};
use client::Client;
use failure::Failure;
use output::Output;

/// Runs the command that `arguments` (with the program's name first) ask for.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => {
            let mut output = Output::process(arguments.global.json);
            ExitCode::from(run_and_report(&arguments, &mut output))
        }
        Err(error) => {
            // Help and version come this way too. Nobody is left to hear that they could not be written.
            let _ = error.print();
            u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn run_and_report(arguments: &Arguments, output: &mut Output) -> u8 {
    match dispatch(arguments, output) {
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

fn dispatch(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    match &arguments.command {
        server @ (Command::Up(_) | Command::Executor | Command::Compiler(_)) => {
            be_server(server, &arguments.global)
        }
        Command::New(new) => new::new(new, output),
        Command::Build(build) => build::build(build, output),
        Command::Show(show) => show::show(show, output),
        Command::Doctor => doctor::doctor(&arguments.global, output),
        remote => call_server(remote, &arguments.global, output),
    }
}

/// Becomes the server, or one of its children; standard output belongs to what is called.
fn be_server(command: &Command, global: &GlobalArguments) -> Result<(), Failure> {
    logging::start();
    match command {
        Command::Up(up) => Ok(weft_server::up(up_settings(up, global)?)?),
        Command::Executor => Ok(weft_server::executor()?),
        Command::Compiler(of) => Ok(weft_server::compiler(
            &of.component,
            &of.artefact,
            of.threads,
            of.last,
        )?),
        _ => unreachable!("these run beside a server"),
    }
}

fn up_settings(up: &UpArguments, global: &GlobalArguments) -> Result<UpSettings, Failure> {
    let data = locations::data_dir(global.data.as_deref())?;
    Ok(UpSettings {
        data,
        listen: up.listen,
        slots: up.slots,
    })
}

fn call_server(
    command: &Command,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let token = token(global)?;
    let client = Client::new(&global.endpoint, token.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(remote(command, &client, output));
    // A thread may wait for an answer on standard input that nobody needs any more.
    runtime.shutdown_background();
    ended
}

async fn remote(command: &Command, client: &Client, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Deploy(deploy) => components::deploy(client, &deploy.files, output).await,
        Command::Run(run) => run::run(client, run, output).await,
        Command::Invoke(invoke) => invoke::invoke(client, invoke, output).await,
        Command::Jobs(jobs) => jobs::jobs(client, jobs.limit, output).await,
        Command::Job(job) => jobs::job(client, job, output).await,
        Command::Logs(logs) => jobs::logs(client, &logs.id, output).await,
        Command::Cancel(cancel) => jobs::cancel(client, &cancel.id, output).await,
        Command::Receipt(receipt) => receipt::receipt(client, &receipt.id, output).await,
        Command::Components(components) => {
            components::components(client, components.name.as_deref(), output).await
        }
        Command::Up(_)
        | Command::Executor
        | Command::Compiler(_)
        | Command::New(_)
        | Command::Build(_)
        | Command::Doctor
        | Command::Show(_) => {
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
