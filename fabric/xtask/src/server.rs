//! A server of our own on a free port of the loopback interface, for verbs that need one.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::places::Places;
use crate::run::{now, program, start as start_program};
use crate::supervise;

/// How long the server may take to answer: its first start makes keys and folders.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is asked whether it answers.
const POLL: Duration = Duration::from_millis(1);

/// A temporary folder for this user alone, removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// `purpose` is part of its name.
    pub(crate) fn new(purpose: &str) -> Result<Folder> {
        let parent = std::env::temp_dir();
        let path = parent.join(format!("weft-{purpose}-{}", std::process::id()));
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
pub(crate) struct Server {
    binary: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) address: SocketAddr,
    process: Child,
}

impl Server {
    /// Starts it in `folder`, and returns once it answers.
    pub(crate) fn start(places: &Places, folder: &Path) -> Result<Server> {
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
        Ok(server)
    }

    /// The command line, talking to this server.
    pub(crate) fn weft(&self) -> Command {
        let mut weft = program(&self.binary);
        weft.env("WEFT_ENDPOINT", format!("http://{}", self.address))
            .env("WEFT_DATA", &self.data);
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
            std::thread::sleep(POLL);
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
