//! The `weft` binary: one program that is the server, its children, and the command line.
//!
//! ```text
//!   weft up ─────────▶ up: controller and agent ──starts──▶ weft executor, weft compiler
//!   weft controller ─▶ controller: one of a group      weft node ─▶ node: an agent
//!   weft run, .. ────▶ weft-cli ──HTTP──▶ a weft up, or a controller
//! ```

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use weft_cli::{
    CertificateFiles, Preview, Program, RowDecoder, ServerRole, StoreCheck, TextTable, UpSettings,
};
use weft_core::NodeId;
use weft_net::Subject;
use weft_sandbox::{Engine, Role};

mod config;
mod controller;
mod data_folder;
mod discovery;
mod identity;
mod node;
mod remembered_store;
mod serving;
mod store_checks;
mod stores;
mod up;

/// The parts of this binary that the command line starts and does not link.
struct Weft;

impl Program for Weft {
    fn up(&self, settings: UpSettings) -> anyhow::Result<()> {
        up::run(settings)
    }

    fn controller(&self, config: &Path) -> anyhow::Result<()> {
        controller::run(config)
    }

    fn node(&self, config: &Path) -> anyhow::Result<()> {
        node::run(config)
    }

    fn default_settings(&self, role: ServerRole) -> &'static str {
        match role {
            ServerRole::Controller => config::CONTROLLER,
            ServerRole::Node => config::NODE,
        }
    }

    fn make_authority(&self, folder: &Path) -> anyhow::Result<()> {
        weft_net::make_authority(folder)
    }

    fn issue_certificate(
        &self,
        folder: &Path,
        role: ServerRole,
        name: &str,
    ) -> anyhow::Result<CertificateFiles> {
        let subject = match role {
            ServerRole::Controller => {
                let number = name.parse().ok().filter(|number| *number > 0);
                let number = number.with_context(|| format!("`{name}` is not a number above 0"))?;
                Subject::Controller(number)
            }
            ServerRole::Node => Subject::Node(name.parse::<NodeId>()?.to_string()),
        };
        let files = weft_net::issue(folder, &subject)?;
        Ok(CertificateFiles {
            ca: files.ca,
            certificate: files.certificate,
            key: files.key,
        })
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

    fn row_decoder(&self) -> Box<dyn RowDecoder> {
        Box::<Rows>::default()
    }

    fn check_stores(
        &self,
        data: &Path,
        config: Option<&Path>,
        store: Option<&str>,
    ) -> anyhow::Result<Vec<StoreCheck>> {
        store_checks::check(data, config, store)
    }

    fn pools_sandboxes(&self) -> anyhow::Result<bool> {
        Ok(Engine::new(Role::Executor)?.is_pooling())
    }
}

/// Rows that the API sends.
#[derive(Default)]
struct Rows(weft_engine::RowDecoder);

impl RowDecoder for Rows {
    fn push(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        self.0.push(piece).map_err(anyhow::Error::msg)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<TextTable> {
        let rows = self.0.finish().map_err(anyhow::Error::msg)?;
        Ok(TextTable {
            schema: rows.schema,
            rows: rows.rows,
        })
    }
}

fn main() -> ExitCode {
    weft_cli::main(&Weft, std::env::args_os())
}
