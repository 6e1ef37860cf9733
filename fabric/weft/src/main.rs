//! The `weft` binary: one program that is the server, its children, and the command line.
//!
//! ```text
//!   weft up ───────▶ up: controller and agent ──starts──▶ weft executor, weft compiler
//!   weft run, .. ──▶ weft-cli ──HTTP──▶ a weft up
//! ```

use std::path::Path;
use std::process::ExitCode;

use weft_cli::{Preview, Program, UpSettings};
use weft_sandbox::{Engine, Role};

mod data_folder;
mod identity;
mod up;

/// The parts of this binary that the command line starts and does not link.
struct Weft;

impl Program for Weft {
    fn up(&self, settings: UpSettings) -> anyhow::Result<()> {
        up::run(settings)
    }

    fn executor(&self) -> anyhow::Result<()> {
        weft_executor::executor()
    }

    fn compiler(
        &self,
        component: &Path,
        artefact: &Path,
        threads: usize,
        last: bool,
    ) -> anyhow::Result<()> {
        weft_executor::compiler(component, artefact, threads, last)
    }

    fn preview(&self, folder: &Path, rows: usize) -> anyhow::Result<Preview> {
        let (manifest, rows) = weft_engine::preview(folder, rows).map_err(anyhow::Error::msg)?;
        Ok(Preview {
            manifest: serde_json::to_value(&manifest)?,
            schema: manifest.schema,
            n_rows: manifest.rows,
            n_files: manifest.files.len(),
            rows,
        })
    }

    fn pools_sandboxes(&self) -> anyhow::Result<bool> {
        Ok(Engine::new(Role::Executor)?.is_pooling())
    }
}

fn main() -> ExitCode {
    weft_cli::main(&Weft, std::env::args_os())
}
