//! `cargo xtask demo`: from nothing to the output of a job over 256 MB of logs.
//!
//! Builds `weft` and the weblog example, makes logs in a temporary folder, runs a server of its own on a free port of
//! the loopback interface, deploys, runs, shows. It runs as a worker of [`supervise`], so that the server stops and the
//! folder goes away on every way out, Ctrl-C included.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::places::Places;
use crate::run::{now, program, run, start as start_program, step};
use crate::{guests, logs, supervise, toolchain};

/// The verb that runs the demo proper.
pub(crate) const WORKER: &str = "demo-worker";

const LOG_BYTES: u64 = 256_000_000;

/// How long the server may take to answer: its first start makes keys and folders.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks what must be asked at the terminal, then runs the demo as a worker.
pub(crate) fn start() -> Result<ExitCode> {
    toolchain::ensure()?;
    supervise::front(WORKER)
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
    let folder = Folder::new()?;
    let weblog = folder.0.join("weblog");
    let wasm = folder.0.join("weblog.wasm");
    let example = places.root.join("examples/weblog");
    step("build examples/weblog", || {
        guests::build_crate(places, &example, &wasm)
    })?;
    step("make access logs", || make_logs(&weblog))?;
    std::fs::copy(example.join("job.toml"), weblog.join("job.toml"))
        .context("cannot copy the job file")?;
    let server = step("start a server", || Server::start(places, &folder.0))?;
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

/// A temporary folder for this user alone, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        let parent = std::env::temp_dir();
        let path = parent.join(format!("weft-demo-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// `weft up` on a data folder of its own, stopped when dropped.
struct Server {
    binary: PathBuf,
    data: PathBuf,
    address: SocketAddr,
    process: Child,
}

impl Server {
    fn start(places: &Places, folder: &Path) -> Result<Server> {
        let (data, log) = (folder.join("server"), folder.join("server.log"));
        let address = free_address()?;
        let mut up = program(places.weft());
        up.arg("--data")
            .arg(&data)
            .args(["up", "--listen", &address.to_string()]);
        let output = File::create(&log)?;
        up.stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let process = start_program(&mut up)?;
        let mut server = Server {
            binary: places.weft(),
            data,
            address,
            process,
        };
        server
            .wait_until_healthy()
            .with_context(|| last_lines(&log))?;
        println!("weft up listens on {address}");
        Ok(server)
    }

    /// The command line, talking to this server.
    fn weft(&self) -> Command {
        let mut weft = program(&self.binary);
        weft.arg("--endpoint")
            .arg(format!("http://{}", self.address))
            .arg("--data")
            .arg(&self.data);
        // Without a terminal to ask at, an interrupted run cancels its job.
        weft.env_remove("WEFT_TOKEN").stdin(Stdio::null());
        weft
    }

    fn wait_until_healthy(&mut self) -> Result<()> {
        let deadline = now() + START_TIMEOUT;
        while !is_healthy(self.address) {
            ensure!(!supervise::is_stopping(), "interrupted");
            if let Some(status) = self.process.try_wait()? {
                bail!("the server stopped: {status}");
            }
            ensure!(
                now() < deadline,
                "the server does not answer after {} s",
                START_TIMEOUT.as_secs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !supervise::stop_server(&mut self.process) {
            drop(writeln!(
                std::io::stderr(),
                "the server did not stop by itself and was killed"
            ));
        }
    }
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("no port of the loopback interface is free")?;
    Ok(listener.local_addr()?)
}

fn is_healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let timeout = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        write!(
            stream,
            "GET /v1/health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.take(1 << 16).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

/// The end of the server's log, for errors.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    format!("the end of the server's log:\n{}\n", last.join("\n"))
}
