//! Clusters whose processes find each other by a real etcd, which may go away.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::clock::eventually;
use crate::cluster::Cluster;
use crate::http::Request;
use crate::job;
use crate::members::{members, settings_of_new, start};
use crate::server::{Guarded, weft};

/// An etcd of one member, which never outlives the test.
struct Etcd {
    process: Guarded,
    url: String,
    _data: TempDir,
}

impl Etcd {
    fn start() -> Etcd {
        let url = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            format!("http://{}", listener.local_addr().expect("it is bound"))
        };
        let (clients, peers) = (url(), url());
        let data = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data.path());
        command.args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
        ]);
        command.args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ]);
        command.args(["--initial-cluster", &format!("default={peers}")]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Guarded::start(&mut command);
        let process = process.expect("etcd is installed: `cargo xtask test` does it");
        let etcd = Etcd {
            process,
            url: clients,
            _data: data,
        };
        let address = etcd.url.trim_start_matches("http://").to_owned();
        eventually("etcd listens", || {
            std::net::TcpStream::connect(&address).ok()
        });
        etcd
    }
}

#[test]
fn a_cluster_finds_itself_by_etcd_and_goes_on_without_it() {
    let mut etcd = Etcd::start();
    let mut cluster = Cluster::start_with(3, 2, &["--etcd", &etcd.url]);
    let settings = std::fs::read_to_string(cluster.dir().join("node-1.toml")).expect("settings");
    assert!(
        !settings.contains("[controllers]"),
        "no addresses: {settings}"
    );
    cluster.deploy(0, "hello");
    let run_job = |cluster: &Cluster| {
        let submitted = cluster
            .ask_any(&Request::json("/v1/jobs", &job::noop(4)))
            .ok();
        let ended = cluster.wait(&job::id_of(&submitted));
        assert_eq!(ended["status"], "succeeded", "{ended:#}");
    };
    run_job(&cluster);

    // A new controller needs nobody's settings to change.
    let (settings, _) = settings_of_new(&cluster, 1, 4);
    let _fourth = start("controller", &settings);
    let added = eventually("its address is known", || {
        members(&cluster, &["add", "4"]).ok()
    });
    assert_eq!(added["status"], "votes", "{added}");
    members(&cluster, &["remove", "4"]).expect("the others are a majority");

    // Without etcd nothing changes, whoever leads, and whoever starts again.
    etcd.process.kill();
    run_job(&cluster);
    let leader = cluster.leader();
    cluster.run("kill", &["leader"]);
    cluster.run("kill", &["node-1"]);
    eventually("another one leads", || {
        (cluster.leader() != leader).then_some(())
    });
    run_job(&cluster);
    cluster.up(&[]);
    eventually("the node is back", || {
        let nodes = cluster.ask_any(&Request::get("/v1/nodes")).ok();
        let items = nodes["items"].as_array().expect("a list").clone();
        items
            .iter()
            .all(|node| node["status"] == "ready")
            .then_some(())
    });
    run_job(&cluster);

    // A new process has nothing to go by.
    let settings = cluster.dir().join("node-1.toml");
    let new = cluster.root.path().join("new.toml");
    let text = std::fs::read_to_string(&settings).expect("settings");
    let data = cluster.dir().join("node-1").display().to_string();
    let other = cluster.root.path().join("new").display().to_string();
    std::fs::write(&new, text.replace(&data, &other)).expect("settings are written");
    let started = weft().args(["node", "--config"]).arg(&new).output();
    let started = started.expect("it starts");
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success(), "{said}");
    assert!(
        said.contains("etcd at") && said.contains("is not reached"),
        "{said}"
    );
}
