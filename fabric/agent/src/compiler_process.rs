//! Compiler processes: one component each, under limits, at idle priority first.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use weft_core::{ErrorCode, LimitKind, Problem};
use weft_protocol::{
    ARTEFACT_BYTES_MAX, COMPILE_CPU_SECONDS_MAX, COMPILE_MEMORY_BYTES_MAX, Verdict,
};
use weft_store::move_durably;

use crate::agent::Agent;

/// Wall time of one compilation.
const COMPILE_WALL_MAX: Duration = Duration::from_secs(300);
/// Bytes of a verdict.
const VERDICT_BYTES_MAX: u64 = 1 << 20;
/// Compilations side by side: each may take gigabytes.
pub(crate) const COMPILERS_MAX: usize = 1;
/// Threads of a compiler. Timers interrupt those without work, too, and on a large machine those would be many.
const COMPILER_THREADS_MAX: usize = 4;

impl Agent {
    /// Compiles the component at `component` into `artefact`, in a child under limits. The artefact appears whole or not at all.
    pub(crate) async fn compile(
        &self,
        component: &Path,
        artefact: &Path,
    ) -> Result<Vec<String>, Problem> {
        let internal = |error: &dyn std::fmt::Display| {
            Problem::new(ErrorCode::Internal, format!("compiling failed: {error}"))
        };
        let permit = Arc::clone(&self.compilers)
            .acquire_owned()
            .await
            .map_err(|error| internal(&error))?;
        let folder = artefact
            .parent()
            .ok_or_else(|| internal(&"the artefact has no folder"))?;
        tokio::fs::create_dir_all(folder)
            .await
            .map_err(|error| internal(&error))?;
        self.metrics.compilations.inc();
        let draft = artefact.with_extension("draft");
        let imports = self.compile_in_child(component, &draft).await?;
        // Comes to its end without whoever asked, too: the next compiler may write a draft of the same name.
        let artefact = artefact.to_owned();
        let moving = async move {
            let _permit = permit;
            move_durably(&draft, &artefact).await
        };
        let moved = self.tasks.run_to_end("artefact", moving).await?;
        moved.map_err(|error| internal(&error))?;
        Ok(imports)
    }

    /// Compiles behind all others, and, where these leave no time for it, among them.
    async fn compile_in_child(
        &self,
        component: &Path,
        draft: &Path,
    ) -> Result<Vec<String>, Problem> {
        for last in [true, false] {
            let threads = self.compiler_threads().to_string();
            let mut command = self.child(&[
                "compiler".as_ref(),
                component.as_os_str(),
                draft.as_os_str(),
                threads.as_ref(),
            ]);
            if last {
                command.arg("--last");
            }
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let verdict = tokio::time::timeout(COMPILE_WALL_MAX, verdict_of(command));
            let verdict = verdict.await.map_err(|_| {
                // Its CPU time has a limit of its own: the machine was busy.
                let detail = format!(
                    "the component could not be compiled within {} s: the machine is busy; try again",
                    COMPILE_WALL_MAX.as_secs()
                );
                Problem::new(ErrorCode::Busy, detail)
            })?;
            match verdict? {
                Verdict::Compiled { imports } => return Ok(imports),
                Verdict::Refused(problem) => return Err(problem),
                Verdict::Starved => {
                    tracing::debug!(
                        "a compiler had no time behind all others, and starts over among them"
                    );
                }
            }
        }
        Err(Problem::new(
            ErrorCode::Internal,
            "the compiler gave up though it was to compile among others",
        ))
    }

    /// As many as there are cores, within a bound; where calls are served when it begins, half of them.
    fn compiler_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match self.invocations.serves() {
            true => cores / 2,
            false => cores,
        };
        threads.clamp(1, COMPILER_THREADS_MAX)
    }
}

fn over_limit(kind: LimitKind, value: String) -> Problem {
    let detail = format!(
        "the component cannot be compiled within the `{kind}` limit of {value}; make it smaller or split it"
    );
    Problem::new(ErrorCode::InvalidComponent, detail).of_limit(kind, value)
}

async fn verdict_of(mut command: Command) -> Result<Verdict, Problem> {
    let internal = |error: &dyn std::fmt::Display| {
        Problem::new(ErrorCode::Internal, format!("the compiler failed: {error}"))
    };
    let mut child = command.spawn().map_err(|error| internal(&error))?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(VERDICT_BYTES_MAX)
            .read_to_end(&mut said)
            .await
            .map_err(|error| internal(&error))?;
    }
    let status = child.wait().await.map_err(|error| internal(&error))?;
    if status.success() {
        return serde_json::from_slice(&said).map_err(|error| internal(&error));
    }
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        // SIGXCPU and SIGXFSZ are the kernel's; running out of memory ends in an abort.
        Some(24) => Err(over_limit(
            LimitKind::Cpu,
            format!("{COMPILE_CPU_SECONDS_MAX} s"),
        )),
        Some(25) => Err(over_limit(
            LimitKind::Output,
            format!("{} MiB", ARTEFACT_BYTES_MAX >> 20),
        )),
        Some(6 | 11) => Err(over_limit(
            LimitKind::Memory,
            format!("{} GiB", COMPILE_MEMORY_BYTES_MAX >> 30),
        )),
        Some(9) => {
            let detail = "the compiler was killed, by the kernel where memory is short; try again";
            Err(Problem::new(ErrorCode::Busy, detail))
        }
        _ => Err(internal(&status)),
    }
}
