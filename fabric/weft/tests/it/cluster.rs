//! Clusters of real processes: controllers and nodes that are killed and paused, and one set of results.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clock::eventually;
use crate::fixture::Fixture;
use crate::http::{Request, Response};
use crate::server::{guard, weft};
use crate::{guests, job, outputs};

/// A cluster on this machine, that never outlives the test.
pub(crate) struct Cluster {
    pub(crate) root: TempDir,
    pub(crate) controllers: Vec<SocketAddr>,
    pub(crate) token: String,
    guard: Option<Child>,
}

impl Cluster {
    pub(crate) fn start(controllers: u32, nodes: u32) -> Cluster {
        Cluster::start_with(controllers, nodes, &[])
    }

    pub(crate) fn start_with(controllers: u32, nodes: u32, arguments: &[&str]) -> Cluster {
        let mut cluster = Cluster {
            root: tempfile::tempdir().expect("a folder"),
            controllers: Vec::new(),
            token: String::new(),
            guard: None,
        };
        let sizes = [controllers.to_string(), nodes.to_string()];
        let sizes = ["--controllers", &sizes[0], "--nodes", &sizes[1]];
        cluster.up(&[&sizes[..], &["--slots", "1"], arguments].concat());
        cluster
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("cluster")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = weft();
        command
            .args(["--json", "cluster", verb, "--dir"])
            .arg(self.dir());
        command
    }

    /// Starts what does not run, and waits until the cluster is ready.
    pub(crate) fn up(&mut self, arguments: &[&str]) {
        let output = self
            .command("up")
            .args(arguments)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}\n{}", self.logs());
        let up: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let endpoints = up["endpoints"].as_array().expect("a list").iter();
        let address = |endpoint: &Value| {
            let text = endpoint
                .as_str()
                .expect("an address")
                .strip_prefix("http://");
            text.expect("plain HTTP").parse().expect("an address")
        };
        self.controllers = endpoints.map(address).collect();
        let token = std::fs::read_to_string(self.dir().join("token")).expect("a token");
        self.token = token.trim().to_owned();
        let pids = up["processes"].as_array().expect("a list").iter();
        self.dismiss_guard();
        self.guard = Some(guard(pids.map(|process| process["pid"].to_string())));
    }

    /// Ends the guard before its pipe closes, which would have it kill the processes.
    fn dismiss_guard(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            guard.kill().expect("it is our child");
            guard.wait().expect("it ends");
        }
    }

    pub(crate) fn run(&self, verb: &str, arguments: &[&str]) -> Value {
        let output = self
            .command(verb)
            .args(arguments)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{verb}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for name in crate::folder::names(&self.dir()) {
            if name.ends_with(".log") {
                let text = std::fs::read(self.dir().join(&name)).unwrap_or_default();
                logs += &format!("--- {name}\n{}", String::from_utf8_lossy(&text));
            }
        }
        logs
    }

    /// Asks one controller.
    pub(crate) fn ask(&self, controller: usize, request: &Request) -> Response {
        let asked = request.send(self.controllers[controller], &self.token);
        asked.unwrap_or_else(|error| panic!("{request:?}: {error}\n{}", self.logs()))
    }

    /// Asks one controller after the other until one answers, and does not ask to try again.
    pub(crate) fn ask_any(&self, request: &Request) -> Response {
        eventually("a controller answers", || {
            let mut answers = self.controllers.iter().filter_map(|address| {
                let answer = request.send(*address, &self.token).ok()?;
                (answer.status != 429).then_some(answer)
            });
            answers.next()
        })
    }

    /// The member that leads, as a controller sees it.
    pub(crate) fn leader(&self) -> usize {
        eventually("somebody leads", || {
            let answers = self.controllers.iter().filter_map(|address| {
                let answer = Request::get("/v1/cluster").send(*address, &self.token);
                answer.ok()?.ok()["leader"].as_u64()
            });
            answers.max().map(|leader| leader as usize - 1)
        })
    }

    pub(crate) fn deploy(&self, controller: usize, guest: &str) {
        let upload = Request::component(guests::bytes(guest));
        let accepted = |answer: &Response| answer.status != 429;
        let deployed = eventually("the component is described", || {
            Some(self.ask(controller, &upload)).filter(accepted)
        });
        assert!(deployed.status < 300, "{deployed:?}\n{}", self.logs());
    }

    pub(crate) fn wait(&self, id: &str) -> Value {
        let show = Request::get(format!("/v1/jobs/{id}"));
        eventually("the job ends", || {
            Some(self.ask_any(&show).ok()).filter(job::has_ended)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let _ = self.command("down").output();
        self.dismiss_guard();
    }
}

#[test]
fn a_cluster_gives_the_same_bytes_whoever_is_killed() {
    let fixture = Fixture::shared();
    let mut cluster = Cluster::start(3, 2);
    let leader = cluster.leader();
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    for guest in ["hello", "weblog", "mirror"] {
        cluster.deploy(one, guest);
    }

    // What one controller has acknowledged, the others show.
    for number in 0..20 {
        let submitted = cluster
            .ask(one, &Request::json("/v1/jobs", &job::noop(1)))
            .ok();
        let id = job::id_of(&submitted);
        let shown = cluster.ask(other, &Request::get(format!("/v1/jobs/{id}")));
        assert_eq!(shown.status, 200, "{number}: {shown:?}");
    }
    // A follower asks the leader why things are where they are.
    let queue = eventually("nothing waits", || {
        let queue = cluster.ask(one, &Request::get("/v1/queue")).ok();
        (queue["reasons"][0] == "nothing waits").then_some(queue)
    });
    let nodes = queue["nodes"].as_array().expect("a list");
    assert!(
        nodes.len() == 2 && nodes.iter().all(|node| node["takes_work"] == true),
        "{queue:#}"
    );
    for controller in 0..3 {
        let invoke = Request::post("/v1/invoke/mirror/echo", "text/plain", b"ada".to_vec());
        let echoed = cluster.ask(controller, &invoke);
        assert_eq!(
            (echoed.status, &echoed.body[..]),
            (200, &b"ada"[..]),
            "{echoed:?}"
        );
        let rows = b"name,n\nada,1\n".to_vec();
        let stream = Request::post("/v1/invoke/mirror/copy", "text/csv", rows.clone());
        let streamed = cluster.ask(controller, &stream.header("te", "trailers"));
        assert_eq!(streamed.status, 200, "{streamed:?}");
        let text = String::from_utf8_lossy(&streamed.body).into_owned();
        assert!(text.contains("ada"), "{text}");
    }

    let out = cluster.root.path().join("leader-killed");
    let weblog = job::weblog(&fixture.logs(), &out);
    let id = job::id_of(&cluster.ask(one, &Request::json("/v1/jobs", &weblog)).ok());
    cluster.run("kill", &["leader"]);
    let ended = cluster.wait(&id);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    outputs::assert_same(
        &outputs::published(&out),
        &fixture.expected,
        "the leader was killed",
    );
    assert_ne!(cluster.leader(), leader, "another one leads");

    cluster.up(&[]);
    let out = cluster.root.path().join("node-killed");
    let weblog = job::weblog(&fixture.logs(), &out);
    let id = job::id_of(&cluster.ask_any(&Request::json("/v1/jobs", &weblog)).ok());
    cluster.run("kill", &["node-1"]);
    let ended = cluster.wait(&id);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    outputs::assert_same(
        &outputs::published(&out),
        &fixture.expected,
        "a node was killed",
    );

    let status = cluster.run("status", &[]);
    let processes = status["processes"].as_array().expect("a list");
    let of = |name: &str| processes.iter().find(|one| one["name"] == name);
    assert_eq!(
        of("node-1").expect("it is listed")["status"],
        "dead",
        "{status:#}"
    );
    assert_eq!(
        of("node-2").expect("it is listed")["status"],
        "runs",
        "{status:#}"
    );
    let ended = cluster.run("down", &[]);
    assert_eq!(ended, json!({ "ended": 4 }));
}

#[test]
fn a_node_that_drains_ends_when_its_work_is_done() {
    let cluster = Cluster::start(1, 2);
    cluster.deploy(0, "hello");
    // Longer than a look: both nodes have tasks of it when one of them drains.
    let slow = json!({ "name": "slow", "stage": [{ "name": "noop", "task": "hello/noop", "count": 3000 }] });
    let id = job::id_of(&cluster.ask(0, &Request::json("/v1/jobs", &slow)).ok());
    let endpoint = format!("http://{}", cluster.controllers[0]);
    let mut drain = weft();
    drain.args([
        "--endpoint",
        &endpoint,
        "--token",
        &cluster.token,
        "drain",
        "node-1",
    ]);
    let drained = drain.output().expect("it starts");
    let said = String::from_utf8_lossy(&drained.stderr).into_owned();
    assert!(drained.status.success(), "{said}\n{}", cluster.logs());
    eventually("its process ends", || {
        let status = cluster.run("status", &[]);
        let processes = status["processes"].as_array().expect("a list");
        let node = processes.iter().find(|one| one["name"] == "node-1")?;
        (node["status"] == "dead").then_some(())
    });
    let ended = cluster.wait(&id);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    // Nothing that the node had was run again.
    let receipt = cluster
        .ask(0, &Request::get(format!("/v1/jobs/{id}/receipt")))
        .ok();
    for line in receipt["lines"].as_array().expect("a list") {
        assert_eq!(line["platform_attempts"], 0, "{receipt:#}");
    }
    let last = Request::post("/v1/nodes/node-2/drain", "", Vec::new());
    let refused = cluster.ask(0, &last);
    assert_eq!(refused.status, 429, "{refused:?}");
}
