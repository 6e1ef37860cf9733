//! `weft cluster`: a cluster of real processes on this machine.
//!
//! ```text
//! DIR/cluster.json      processes, with their addresses, folders and pids
//! DIR/token             token of the API
//! DIR/certs/            authority and certificates
//! DIR/store/            the store that all processes share
//! DIR/NAME/             data folder of each process; NAME.toml: its settings; NAME.log: its log
//! ```

mod process;
mod processes;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use weft_client::{Call, Client, path};

use crate::arguments::{ClusterCommand, ClusterUpArguments};
use crate::failure::Failure;
use crate::terminal::{Output, Side, Table};
use crate::{Program, ServerRole};

use processes::{Entry, Processes};

/// Time for a cluster to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// Time for processes to end by themselves once they are told to.
const DOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of a log that are shown with an error.
const LOG_LINES: usize = 5;

/// The cluster, as a controller sees it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct View {
    leader: Option<u64>,
    nodes: Vec<NodeView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeView {
    status: String,
}

/// Runs `weft cluster`.
pub(crate) async fn cluster(
    program: &dyn Program,
    command: &ClusterCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        ClusterCommand::Up(arguments) => up(program, arguments, output).await,
        ClusterCommand::Status(of) => status(&of.dir()?, output).await,
        ClusterCommand::Kill(arguments) => {
            let entry = find(&arguments.of.dir()?, &arguments.name).await?;
            let process = entry.running()?;
            process.kill()?;
            let text = format!("killed {} (pid {})", entry.name, process.pid);
            output.either(
                &json!({ "killed": entry.name, "pid": process.pid }).to_string(),
                || text,
            )
        }
        ClusterCommand::Pause(arguments) => {
            let entry = find(&arguments.of.dir()?, &arguments.name).await?;
            let process = entry.running()?;
            process.pause()?;
            tokio::time::sleep(arguments.time).await;
            process.go_on()?;
            let text = format!("paused {} for {:?}", entry.name, arguments.time);
            output.either(
                &json!({ "paused": entry.name, "pid": process.pid }).to_string(),
                || text,
            )
        }
        ClusterCommand::Down(of) => down(&of.dir()?, output).await,
    }
}

/// Starts the processes that do not run, and returns when the cluster is ready.
async fn up(
    program: &dyn Program,
    arguments: &ClusterUpArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let dir = arguments.of.dir()?;
    let mut processes = match Processes::read(&dir)? {
        Some(known) => known,
        None => Processes::lay_out(program, &dir, arguments)?,
    };
    for at in 0..processes.processes.len() {
        let started = processes.processes[at].start();
        // Whatever happens next, those that run are known.
        processes.write(&dir)?;
        started?;
    }
    let view = until_ready(&processes).await?;
    show(&processes, &view, output)
}

/// Waits until all controllers know a leader and all nodes work.
async fn until_ready(processes: &Processes) -> Result<View, Failure> {
    let until = Instant::now() + READY_TIMEOUT;
    let is_node = |entry: &&Entry| entry.role == ServerRole::Node;
    let n_nodes = processes.processes.iter().filter(is_node).count();
    loop {
        if let Some(dead) = processes
            .processes
            .iter()
            .find(|one| one.living().is_none())
        {
            let log = fs::read_to_string(&dead.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            let (name, path) = (&dead.name, dead.log.display());
            return Err(Failure::other(format!(
                "{name} ended; `{path}` says:\n{last}"
            )));
        }
        let mut ready = None;
        for endpoint in processes.endpoints() {
            let view = look(processes, &[endpoint]).await.ok();
            let is_ready = |view: &View| {
                let nodes = view.nodes.iter().filter(|node| node.status == "ready");
                view.leader.is_some() && nodes.count() == n_nodes
            };
            ready = view.filter(is_ready);
            if ready.is_none() {
                break;
            }
        }
        if let Some(view) = ready {
            return Ok(view);
        }
        if Instant::now() > until {
            let dir = processes.token_file.parent().unwrap_or(Path::new("."));
            return Err(Failure::other(format!(
                "the cluster is not ready after {READY_TIMEOUT:?}; the logs in `{}` may say why",
                dir.display()
            )));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// The cluster, as the first of these controllers that answers sees it.
async fn look(processes: &Processes, endpoints: &[String]) -> Result<View, Failure> {
    let token = processes.token()?;
    let client = Client::new(endpoints, Some(&token))?;
    let answer = client.send_once(&Call::get(path(&["cluster"]))).await?;
    Ok(answer.read()?)
}

/// The process of this name; `leader` is the controller that leads.
async fn find(dir: &Path, name: &str) -> Result<Entry, Failure> {
    let processes = Processes::known(dir)?;
    let mut wanted = name.to_owned();
    if name == "leader" {
        let leader = look(&processes, &processes.endpoints()).await?.leader;
        let leader = leader.ok_or_else(|| Failure::other("no controller leads now"))?;
        wanted = format!("controller-{leader}");
    }
    let names: Vec<String> = processes
        .processes
        .iter()
        .map(|one| one.name.clone())
        .collect();
    let found = processes
        .processes
        .into_iter()
        .find(|entry| entry.name == wanted);
    found.ok_or_else(|| {
        let names = names.join("`, `");
        Failure::Usage(format!(
            "there is no `{name}`; there are `leader`, `{names}`"
        ))
    })
}

async fn status(dir: &Path, output: &mut Output) -> Result<(), Failure> {
    let processes = Processes::known(dir)?;
    let view = look(&processes, &processes.endpoints())
        .await
        .unwrap_or_default();
    show(&processes, &view, output)
}

fn show(processes: &Processes, view: &View, output: &mut Output) -> Result<(), Failure> {
    let leads = |entry: &Entry| entry.member.is_some() && entry.member == view.leader;
    let document = |entry: &Entry| {
        json!({
            "name": entry.name,
            "role": entry.role.name(),
            "status": state(entry),
            "leads": leads(entry),
            "pid": entry.living().map(|process| process.pid),
            "endpoint": entry.endpoint,
            "folder": entry.folder,
            "log": entry.log,
        })
    };
    let lines: Vec<_> = processes.processes.iter().map(document).collect();
    let json = json!({
        "cluster": processes.cluster,
        "endpoints": processes.endpoints(),
        "token_file": processes.token_file,
        "leader": view.leader,
        "processes": lines,
    });
    let text = || {
        let mut table = Table::new(&[
            ("process", Side::Left),
            ("status", Side::Left),
            ("pid", Side::Right),
            ("endpoint", Side::Left),
            ("log", Side::Left),
        ]);
        for entry in &processes.processes {
            let status = match leads(entry) {
                true => format!("{}, leads", state(entry)),
                false => state(entry).to_owned(),
            };
            table.row([
                entry.name.clone(),
                status,
                entry
                    .living()
                    .map_or(String::new(), |process| process.pid.to_string()),
                entry.endpoint.clone().unwrap_or_default(),
                entry.log.display().to_string(),
            ]);
        }
        let (endpoints, token) = (processes.endpoints().join(","), &processes.token_file);
        format!(
            "{}\nexport WEFT_ENDPOINT={endpoints} WEFT_TOKEN=$(cat {})",
            table.render(),
            token.display()
        )
    };
    output.either(&json.to_string(), text)
}

fn state(entry: &Entry) -> &'static str {
    match entry.living() {
        None => "dead",
        Some(process) if process.is_paused() => "paused",
        Some(_) => "runs",
    }
}

/// Ends all processes: nodes first, so that no controller hears of losses.
async fn down(dir: &Path, output: &mut Output) -> Result<(), Failure> {
    let processes = Processes::known(dir)?;
    let mut living: Vec<&Entry> = processes.processes.iter().collect();
    living.retain(|entry| entry.living().is_some());
    living.sort_by_key(|entry| entry.role == ServerRole::Controller);
    let n = living.len();
    for process in living.iter().filter_map(|entry| entry.living()) {
        // It may end by itself meanwhile. One that is paused takes the signal once it goes on.
        let _ = process.terminate();
        let _ = process.go_on();
    }
    let until = Instant::now() + DOWN_TIMEOUT;
    while living.iter().any(|entry| entry.living().is_some()) {
        if Instant::now() > until {
            for process in living.iter().filter_map(|entry| entry.living()) {
                let _ = process.kill();
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let text = || format!("{n} processes ended; the data stays in `{}`", dir.display());
    output.either(&json!({ "ended": n }).to_string(), text)
}
