//! The file `cluster.json`: the processes of a cluster, and how they are started.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::process::Process;
use crate::arguments::ClusterUpArguments;
use crate::failure::Failure;
use crate::{Program, ServerRole};

/// Seconds that nodes have for their work when the cluster ends: nobody waits for it here.
const DRAIN_SECONDS: u64 = 3;
/// Name of the file with the processes.
const FILE: &str = "cluster.json";
/// Name of the mark of a folder that a cluster was made in, or was about to be.
const MARKER: &str = ".weft-cluster";
/// Bytes of the token of a cluster.
const TOKEN_BYTES: usize = 32;

/// One process of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) role: ServerRole,
    /// Number of a controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) member: Option<u64>,
    /// Address of a controller's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<String>,
    pub(super) folder: PathBuf,
    config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) process: Option<Process>,
}

impl Entry {
    /// The process, if it lives.
    pub(super) fn living(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.lives())
    }

    /// The process. Errors: it does not run.
    pub(super) fn running(&self) -> Result<&Process, Failure> {
        self.living().ok_or_else(|| {
            let name = &self.name;
            Failure::other(format!("{name} does not run; `weft cluster up` starts it"))
        })
    }

    /// Starts the process, unless it runs.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        if self.living().is_none() {
            let role = Path::new(self.role.name());
            let arguments = [role, Path::new("--config"), &self.config];
            self.process = Some(Process::start(&arguments, &self.log)?);
        }
        Ok(())
    }
}

/// The processes of a cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Processes {
    pub(super) cluster: String,
    pub(super) token_file: PathBuf,
    pub(super) processes: Vec<Entry>,
}

impl Processes {
    /// Reads the file in a folder, if there is one.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => {
                let read = serde_json::from_slice(&text);
                Ok(Some(read.with_context(|| format!("`{}`", path.display()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::other(format!("`{}`: {error}", path.display()))),
        }
    }

    /// Reads the file in a folder. Errors: there is none.
    pub(super) fn known(dir: &Path) -> Result<Self, Failure> {
        Self::read(dir)?.ok_or_else(|| {
            let dir = dir.display();
            Failure::other(format!(
                "`{dir}` has no cluster; `weft cluster up --dir DIR` makes one"
            ))
        })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).context("plain data")?;
        let draft = dir.join("cluster.draft");
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, dir.join(FILE)));
        Ok(written.with_context(|| format!("`{}`", dir.display()))?)
    }

    pub(super) fn token(&self) -> Result<String, Failure> {
        let path = &self.token_file;
        let text = fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Addresses of the controllers' APIs.
    pub(super) fn endpoints(&self) -> Vec<String> {
        let processes = self.processes.iter();
        processes
            .filter_map(|entry| entry.endpoint.clone())
            .collect()
    }

    /// Lays out a new cluster: token, certificates, settings and folders.
    pub(super) fn lay_out(
        program: &dyn Program,
        dir: &Path,
        arguments: &ClusterUpArguments,
    ) -> Result<Self, Failure> {
        claim(dir)?;
        let dir = &dir
            .canonicalize()
            .with_context(|| format!("`{}`", dir.display()))?;
        let store = store(dir, arguments.store.as_deref())?;
        let token_file = dir.join("token");
        write_secret(&token_file, &random_name()?)?;
        let certs = dir.join("certs");
        // Of an attempt that did not get as far as its processes.
        if certs.exists() {
            fs::remove_dir_all(&certs).with_context(|| format!("`{}`", certs.display()))?;
        }
        program.make_authority(&certs)?;
        let layout = Layout {
            dir,
            cluster: format!("local-{}", &random_name()?[..8]),
            token_file: &token_file,
            certs: &certs,
            ports: ports(2 * arguments.controllers as usize)?,
            etcd: arguments.etcd.as_deref(),
            store,
        };
        let mut processes = Vec::new();
        for member in 1..=u64::from(arguments.controllers) {
            processes.push(layout.controller(program, member)?);
        }
        for number in 1..=arguments.nodes {
            processes.push(layout.node(program, number, arguments.slots)?);
        }
        Ok(Self {
            cluster: layout.cluster.clone(),
            token_file: token_file.clone(),
            processes,
        })
    }
}

/// The source of the settings of all processes of a new cluster.
struct Layout<'a> {
    dir: &'a Path,
    cluster: String,
    token_file: &'a Path,
    certs: &'a Path,
    /// Two for each controller: of its API, and for nodes and other controllers.
    ports: Vec<u16>,
    /// URL of the store.
    store: String,
    /// The etcd that knows addresses, unless all settings name them.
    etcd: Option<&'a str>,
}

impl Layout<'_> {
    fn api(&self, member: u64) -> String {
        format!("127.0.0.1:{}", self.ports[2 * (member as usize - 1)])
    }

    /// Addresses of the controllers for nodes and each other.
    fn peers(&self) -> BTreeMap<String, String> {
        let ports = self.ports.chunks(2).zip(1..);
        let peer = |(ports, member): (&[u16], u64)| {
            (member.to_string(), format!("127.0.0.1:{}", ports[1]))
        };
        ports.map(peer).collect()
    }

    /// Says how a process finds the controllers: `key` names those of its settings.
    fn find_controllers(&self, settings: &mut serde_json::Value, key: &str) {
        match self.etcd {
            Some(url) => settings["etcd"] = serde_json::json!({ "endpoints": [url] }),
            None => settings[key] = serde_json::json!(self.peers()),
        }
    }

    fn controller(&self, program: &dyn Program, member: u64) -> Result<Entry, Failure> {
        let name = format!("controller-{member}");
        let files =
            program.issue_certificate(self.certs, ServerRole::Controller, &member.to_string())?;
        let mut settings = serde_json::json!({
            "cluster": self.cluster,
            "member": member,
            "listen": self.api(member),
            "data": self.dir.join(&name),
            "store": self.store,
            "token_file": self.token_file,
            "tls": files,
        });
        self.find_controllers(&mut settings, "peers");
        if self.etcd.is_some() {
            let members: Vec<u64> = (1..=self.ports.len() as u64 / 2).collect();
            settings["members"] = serde_json::json!(members);
            settings["address"] = self.peers()[&member.to_string()].clone().into();
        }
        let endpoint = Some(format!("http://{}", self.api(member)));
        self.entry(
            name,
            ServerRole::Controller,
            Some(member),
            endpoint,
            settings,
        )
    }

    fn node(
        &self,
        program: &dyn Program,
        number: u32,
        slots: Option<u32>,
    ) -> Result<Entry, Failure> {
        let name = format!("node-{number}");
        let files = program.issue_certificate(self.certs, ServerRole::Node, &name)?;
        let mut settings = serde_json::json!({
            "cluster": self.cluster,
            "node": name,
            "data": self.dir.join(&name),
            "store": self.store,
            "slots": slots.unwrap_or(0),
            "drain_seconds": DRAIN_SECONDS,
            "tls": files,
        });
        self.find_controllers(&mut settings, "controllers");
        self.entry(name, ServerRole::Node, None, None, settings)
    }

    /// Writes the settings of a process.
    fn entry(
        &self,
        name: String,
        role: ServerRole,
        member: Option<u64>,
        endpoint: Option<String>,
        settings: serde_json::Value,
    ) -> Result<Entry, Failure> {
        let config = self.dir.join(format!("{name}.toml"));
        let table: Table = serde_json::from_value(settings).context("settings are a table")?;
        let text = toml::to_string_pretty(&table).context("settings are TOML")?;
        fs::write(&config, text).with_context(|| format!("`{}`", config.display()))?;
        Ok(Entry {
            folder: self.dir.join(&name),
            log: self.dir.join(format!("{name}.log")),
            name,
            role,
            member,
            endpoint,
            config,
            process: None,
        })
    }
}

/// URL of the store of a new cluster: the given one, or a folder of its own. A folder is created.
fn store(dir: &Path, given: Option<&str>) -> Result<String, Failure> {
    let folder = match given {
        Some(url) if url.contains("://") && !url.starts_with("file://") => {
            return Ok(url.to_owned());
        }
        Some(path) => std::path::absolute(path.strip_prefix("file://").unwrap_or(path)),
        None => Ok(dir.join("store")),
    };
    let folder = folder.context("the store's path")?;
    fs::create_dir_all(&folder).with_context(|| format!("`{}`", folder.display()))?;
    Ok(folder.display().to_string())
}

/// Makes a folder ours, for this user alone. Errors: it holds files, and never was ours.
fn claim(dir: &Path) -> Result<(), Failure> {
    let marker = dir.join(MARKER);
    let failed = || format!("`{}`", dir.display());
    fs::create_dir_all(dir).with_context(failed)?;
    let is_empty = fs::read_dir(dir).with_context(failed)?.next().is_none();
    if !is_empty && !marker.exists() {
        return Err(Failure::other(format!(
            "`{}` holds files, and no cluster: give `--dir` an empty or a new folder",
            dir.display()
        )));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).with_context(failed)?;
    fs::write(marker, "").with_context(failed)?;
    Ok(())
}

fn random_name() -> Result<String, Failure> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(Failure::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    // A file that is there would keep its permissions.
    let _ = fs::remove_file(path);
    let mut options = fs::OpenOptions::new();
    let file = options.create_new(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{text}"));
    Ok(written.with_context(|| format!("`{}`", path.display()))?)
}

/// Ports of the loopback address that nobody listens on now.
fn ports(n: usize) -> Result<Vec<u16>, Failure> {
    // All are held at once, so that none comes twice.
    let bind = |_| TcpListener::bind("127.0.0.1:0");
    let listeners: Vec<TcpListener> = (0..n)
        .map(bind)
        .collect::<Result<_, _>>()
        .context("ports")?;
    let port = |listener: &TcpListener| Ok(listener.local_addr()?.port());
    let ports: anyhow::Result<Vec<u16>> = listeners.iter().map(port).collect();
    Ok(ports?)
}
