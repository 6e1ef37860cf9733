//! The compiler child: validates and compiles one component under limits of its own, and says on standard output what came of it.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use weft_core::{ErrorCode, Problem};
use weft_protocol::{
    ARTEFACT_BYTES_MAX, COMPILE_CPU_SECONDS_MAX, COMPILE_MEMORY_BYTES_MAX, Verdict,
};
use weft_sandbox::{CompileError, compile};

use crate::compiler::step_back::{step_back, step_back_thread};

mod step_back;

/// How much lower the priority is, as a nice value.
const NICE: i32 = 10;

/// Runs the child: compiles `component` to `artefact` on so many threads, prints the verdict. With `last` it steps back behind
/// all others, and gives up where they leave it no time.
pub fn run(component: &Path, artefact: &Path, threads: usize, last: bool) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    weft_runtime::process::expendable();
    for (resource, most) in [
        (Resource::Cpu, COMPILE_CPU_SECONDS_MAX),
        (Resource::Data, COMPILE_MEMORY_BYTES_MAX),
        (Resource::Fsize, ARTEFACT_BYTES_MAX),
        (Resource::Core, 0),
    ] {
        // Of CPU time a second more: the kernel warns at the first limit, with a signal of its own, and kills at the second.
        let maximum = match resource {
            Resource::Cpu => most + 1,
            _ => most,
        };
        setrlimit(
            resource,
            Rlimit {
                current: Some(most),
                maximum: Some(maximum),
            },
        )?;
    }
    weft_failpoint::hit("compile");
    let bytes = std::fs::read(component)?;
    // Compiling can wait; calls and tasks beside it cannot.
    rustix::process::nice(NICE)?;
    let turns = match last {
        true => Some(step_back(|| {
            // What is compiled meanwhile is lost with the process.
            let _ = say(&Verdict::Starved);
            std::process::exit(0);
        })?),
        false => None,
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .start_handler(move |_| {
            if last {
                step_back_thread();
            }
        })
        .build_global()
        .context("no threads to compile")?;
    let compiled = compile(&bytes);
    drop(turns);
    let verdict = match compiled {
        Ok(compiled) => {
            let mut file = std::fs::File::create(artefact)?;
            file.write_all(&compiled.artefact)?;
            file.sync_all()?;
            Verdict::Compiled {
                imports: compiled.imports,
            }
        }
        Err(error) => Verdict::Refused(problem(&error)),
    };
    say(&verdict)
}

fn say(verdict: &Verdict) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, verdict)?;
    out.flush()?;
    Ok(())
}

fn problem(error: &CompileError) -> Problem {
    let code = match error {
        CompileError::UnknownImports(_) => ErrorCode::UnknownImport,
        CompileError::Host(_) => ErrorCode::Internal,
        CompileError::NotWasm { .. }
        | CompileError::CoreModule
        | CompileError::Precompiled
        | CompileError::Invalid(_)
        | CompileError::NoFunctions => ErrorCode::InvalidComponent,
    };
    Problem::new(code, error.to_string())
}
