//! `cargo xtask demo`: from nothing to the output of a job over 256 MB of logs.
//!
//! Builds `weft` and the weblog example, makes logs in a temporary folder, runs a server of its own on a free port of
//! the loopback interface, deploys, runs, shows. It runs as a worker of [`supervise`], so that the server stops and the
//! folder goes away on every way out, Ctrl-C included.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::places::Places;
use crate::run::{run, step};
use crate::server::{Folder, Server};
use crate::{guests, logs, supervise, toolchain};

/// The verb that runs the demo proper.
pub(crate) const WORKER: &str = "demo-worker";

const LOG_BYTES: u64 = 256_000_000;

/// Asks what must be asked at the terminal, then runs the demo as a worker.
pub(crate) fn start() -> Result<ExitCode> {
    toolchain::ensure()?;
    supervise::front(WORKER, &[])
}

/// The demo, step by step.
pub(crate) fn work(places: &Places) -> Result<()> {
    supervise::become_worker();
    if !places.weft().exists() {
        println!(
            "weft is built first: about 12 minutes on two cores, once. It goes to {}",
            places.target.display()
        );
    }
    step("build weft", || guests::build_weft(places))?;
    let folder = Folder::new("demo")?;
    let weblog = folder.0.join("weblog");
    let wasm = folder.0.join("weblog.wasm");
    let example = places.root.join("examples/weblog");
    step("build examples/weblog", || {
        guests::build_project(places, &example, &wasm)
    })?;
    step("make access logs", || make_logs(&weblog))?;
    std::fs::copy(example.join("job.toml"), weblog.join("job.toml"))
        .context("cannot copy the job file")?;
    let server = step("start a server", || Server::start(places, &folder.0))?;
    println!("weft up listens on {}", server.address);
    step("deploy", || run(server.weft().arg("deploy").arg(&wasm)))?;
    step("run the job", || {
        run(server.weft().args(["run", "job.toml"]).current_dir(&weblog))
    })?;
    step("show the outputs", || show_outputs(&server, &weblog))?;
    println!("\n{}", next(places));
    Ok(())
}

fn next(places: &Places) -> String {
    format!(
        "\
What the demo made is removed now. To go on, with a server that stays:

  export PATH=\"{}:$PATH\"
  weft up                                      # in a terminal of its own
  cargo xtask logs --bytes 1GB --out examples/weblog/data
  cd examples/weblog && weft build && weft deploy weblog.wasm && weft run job.toml
  weft new my-functions                        # a project of your own",
        places.target.join("release").display()
    )
}

fn make_logs(weblog: &Path) -> Result<()> {
    let folder = weblog.join("data");
    logs::write(&logs::Request {
        size_bytes: LOG_BYTES,
        folder,
        n_files: 8,
        seed: 1,
    })
}

fn show_outputs(server: &Server, weblog: &Path) -> Result<()> {
    for output in ["daily", "top"] {
        println!("\n{output}:");
        run(server
            .weft()
            .arg("show")
            .arg(weblog.join("out").join(output))
            .args(["--rows", "5"]))?;
    }
    Ok(())
}
