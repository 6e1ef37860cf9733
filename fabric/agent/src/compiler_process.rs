//! Compiler processes: one component each, under limits, at idle priority first.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Semaphore;
use weft_core::{Digest, ErrorCode, Incarnation, LimitKind, Problem};
use weft_protocol::{
    ARTEFACT_BYTES_MAX, COMPILE_CPU_SECONDS_MAX, COMPILE_MEMORY_BYTES_MAX, Verdict, artefact_key,
    component_key,
};
use weft_runtime::Tasks;
use weft_runtime::link::{Compiled, Compilers};
use weft_store::{Blobs, FileCache};

use crate::agent::AgentSettings;
use crate::children::Children;
use crate::invocations::Invocations;
use crate::metrics::Metrics;

/// Wall time of one compilation.
const COMPILE_WALL_MAX: Duration = Duration::from_secs(300);
/// Bytes of a verdict.
const VERDICT_BYTES_MAX: u64 = 1 << 20;
/// Compilations side by side: each may take gigabytes.
const COMPILERS_MAX: usize = 1;
/// Threads of a compiler. Timers interrupt those without work, too, and on a large machine those would be many.
const COMPILER_THREADS_MAX: usize = 4;

/// Compilers of one node.
pub struct CompilerProcesses {
    blobs: Blobs,
    /// Components of a store that is no folder, and drafts of artefacts.
    cache: FileCache,
    compatibility: String,
    incarnation: Incarnation,
    children: Children,
    permits: Arc<Semaphore>,
    invocations: Invocations,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

#[async_trait]
impl Compilers for CompilerProcesses {
    async fn compile(&self, component: &Digest) -> Result<Compiled, Problem> {
        let internal = |error: &dyn std::fmt::Display| {
            Problem::new(ErrorCode::Internal, format!("compiling failed: {error}"))
        };
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|error| internal(&error))?;
        let source = self.source(component).await?;
        let key = artefact_key(component, &self.compatibility);
        let draft = self.draft(&key).await.map_err(|error| internal(&error))?;
        self.metrics.compilations.inc();
        let imports = self.compile_in_child(&source, &draft).await?;
        // Comes to its end without whoever asked, too: the next compiler may write a draft of the same name.
        let blobs = self.blobs.clone();
        let moving = async move {
            let _permit = permit;
            let digest = digest_of(&draft).await?;
            let taken = blobs.take_file(&draft, &key).await;
            taken.map_err(|error| error.problem())?;
            Result::<_, Problem>::Ok(digest)
        };
        let moved = self.tasks.run_to_end("artefact", moving).await?;
        let artefact = moved?;
        Ok(Compiled { imports, artefact })
    }

    fn compatibility(&self) -> &str {
        &self.compatibility
    }
}

/// SHA-256 of a file.
async fn digest_of(path: &Path) -> Result<Digest, Problem> {
    let internal = |error: &dyn std::fmt::Display| {
        let detail = format!("`{}` cannot be read: {error}", path.display());
        Problem::new(ErrorCode::Internal, detail)
    };
    let path = path.to_owned();
    let hashing = move || {
        let mut hasher = Sha256::new();
        std::io::copy(&mut File::open(path)?, &mut hasher)?;
        std::io::Result::Ok(Digest::from_sha256(&hasher.finalize().into()))
    };
    let hashed = tokio::task::spawn_blocking(hashing).await;
    let hashed = hashed.map_err(|error| internal(&error))?;
    hashed.map_err(|error| internal(&error))
}

impl CompilerProcesses {
    pub(crate) fn new(
        settings: &AgentSettings,
        blobs: Blobs,
        children: Children,
        invocations: Invocations,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            cache: FileCache::new(blobs.clone(), settings.cache.clone()),
            blobs,
            compatibility: settings.node.compatibility.clone(),
            incarnation: settings.node.incarnation,
            children,
            permits: Arc::new(Semaphore::new(COMPILERS_MAX)),
            invocations,
            tasks,
            metrics,
        }
    }

    /// The file of a component, whose bytes are those that were uploaded.
    async fn source(&self, component: &Digest) -> Result<PathBuf, Problem> {
        let key = component_key(component);
        let file = self.cache.file(&key, component.hex()).await;
        let file = file.map_err(|error| error.problem())?;
        if self.blobs.folder().is_some() || digest_of(&file).await? == *component {
            return Ok(file);
        }
        // The next try fetches it anew.
        self.cache.forget(component.hex()).await;
        let detail =
            format!("the bytes of component `{component}` came damaged from the store; try again");
        Err(Problem::new(ErrorCode::StoreUnavailable, detail))
    }

    /// File for an artefact that is being compiled. Another node that shares the store may compile the same
    /// component now.
    async fn draft(&self, key: &str) -> std::io::Result<PathBuf> {
        let name = format!("draft#{}", self.incarnation);
        let folder = self.blobs.folder().unwrap_or(self.cache.folder());
        let draft = folder.join(key).with_extension(name);
        if let Some(parent) = draft.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        Ok(draft)
    }

    /// Compiles behind all others, and, where these leave no time for it, among them.
    async fn compile_in_child(
        &self,
        component: &Path,
        draft: &Path,
    ) -> Result<Vec<String>, Problem> {
        for last in [true, false] {
            let threads = self.compiler_threads().to_string();
            let mut command = self.children.command(&[
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
