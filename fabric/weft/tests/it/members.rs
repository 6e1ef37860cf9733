//! Controllers that lose their disk, and others that take their place.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use toml::Table;

use crate::clock::eventually;
use crate::cluster::Cluster;
use crate::http::Request;
use crate::job;
use crate::server::{Guarded, weft};

/// Starts a controller or node.
pub(crate) fn start(role: &str, settings: &Path) -> Guarded {
    let log = File::options()
        .create(true)
        .append(true)
        .open(settings.with_extension("log"));
    let mut command = weft();
    command.args([role, "--config"]).arg(settings);
    command
        .stdout(Stdio::null())
        .stderr(log.expect("a log is made"));
    Guarded::start(&mut command).expect("it starts")
}

/// A port that nobody listens on now.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}

fn read(settings: &Path) -> Table {
    let text = fs::read_to_string(settings).expect("settings");
    text.parse().expect("TOML")
}

fn write(settings: &Path, table: &Table) {
    fs::write(settings, table.to_string()).expect("settings are written");
}

/// Names a controller in the settings of another process.
fn name_controller(settings: &Path, of: &str, member: u64, address: &str) {
    let mut table = read(settings);
    let addresses = table[of].as_table_mut().expect("addresses");
    addresses.insert(member.to_string(), address.into());
    write(settings, &table);
}

/// Settings of a new controller in the place of `old`; returns their file, and the address of its API.
pub(crate) fn settings_of_new(cluster: &Cluster, old: u64, new: u64) -> (PathBuf, String) {
    let dir = cluster.dir();
    let issued = weft()
        .args(["certs", "issue", "controller", &new.to_string(), "--dir"])
        .arg(dir.join("certs"))
        .output();
    assert!(issued.expect("it starts").status.success());
    let mut table = read(&dir.join(format!("controller-{old}.toml")));
    let api = format!("127.0.0.1:{}", port());
    let name = format!("controller-{new}");
    let data = dir.join(&name).display().to_string();
    table.insert("member".into(), (new as i64).into());
    table.insert("listen".into(), api.clone().into());
    table.insert("data".into(), data.into());
    table.insert("join".into(), true.into());
    if table.contains_key("address") {
        table.insert("address".into(), format!("127.0.0.1:{}", port()).into());
    }
    for (key, ending) in [("certificate", "pem"), ("key", "key")] {
        let file = dir.join("certs").join(format!("{name}.{ending}"));
        table["tls"][key] = file.display().to_string().into();
    }
    let settings = dir.join(format!("{name}.toml"));
    write(&settings, &table);
    (settings, api)
}

pub(crate) fn members(cluster: &Cluster, arguments: &[&str]) -> Result<Value, String> {
    let endpoints: Vec<String> = cluster
        .controllers
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    let mut command = weft();
    command.args(["--json", "--endpoint", &endpoints.join(","), "--token"]);
    command.args([&cluster.token, "members"]).args(arguments);
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).expect("JSON")),
        false => Err(said),
    }
}

#[test]
fn a_controller_that_lost_its_disk_is_replaced_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3, 1);
    cluster.deploy(0, "hello");
    let submitted = cluster
        .ask(0, &Request::json("/v1/jobs", &job::noop(3)))
        .ok();
    let id = job::id_of(&submitted);
    assert_eq!(cluster.wait(&id)["status"], "succeeded");
    let lost = (cluster.leader() as u64 + 1) % 3 + 1;

    // No address is known of a controller that nobody has named.
    let refused = members(&cluster, &["add", "4"]).expect_err("it has no address");
    assert!(refused.contains("name it in `peers`"), "{refused}");
    let leader = (cluster.leader() + 1).to_string();
    let refused = members(&cluster, &["remove", &leader]).expect_err("it leads");
    assert!(refused.contains("leads"), "{refused}");

    cluster.run("down", &[]);
    let dir = cluster.dir();
    fs::remove_dir_all(dir.join(format!("controller-{lost}"))).expect("its disk is lost");
    let (new, api) = settings_of_new(&cluster, lost, 4);
    let address = format!("127.0.0.1:{}", port());
    let mut processes = Vec::new();
    for member in (1..=3).filter(|member| *member != lost).chain([4]) {
        let settings = dir.join(format!("controller-{member}.toml"));
        name_controller(&settings, "peers", 4, &address);
        processes.push((member, start("controller", &settings)));
    }
    let node = dir.join("node-1.toml");
    name_controller(&node, "controllers", 4, &address);
    let _node = start("node", &node);
    assert_eq!(new, dir.join("controller-4.toml"));

    // The other two are a majority; the new one waits until it is added.
    cluster.controllers.remove(lost as usize - 1);
    let waiting = api.parse().expect("an address");
    let submitted = cluster
        .ask_any(&Request::json("/v1/jobs", &job::noop(2)))
        .ok();
    let later = job::id_of(&submitted);
    let added = members(&cluster, &["add", "4"]).unwrap_or_else(|said| {
        panic!("{said}\n{}", cluster.logs());
    });
    assert_eq!(added["status"], "votes", "{added}");
    let removed = members(&cluster, &["remove", &lost.to_string()]).expect("the others vote");
    assert_eq!(removed["status"], "removed", "{removed}");
    let shown = members(&cluster, &[]).expect("they are listed");
    let expected: Vec<u64> = (1..=4).filter(|member| *member != lost).collect();
    assert_eq!(shown["members"], serde_json::json!(expected), "{shown}");

    // The one with the empty folder is refused under its old number.
    let old = dir.join(format!("controller-{lost}.toml"));
    let _refused = start("controller", &old);
    eventually("it hears that it is no member", || {
        let log = fs::read_to_string(old.with_extension("log")).unwrap_or_default();
        log.contains("is not a member").then_some(())
    });

    // With the new one two of three are a majority, whoever of the others dies.
    cluster.controllers = vec![waiting];
    let (_, first) = &mut processes[0];
    first.kill();
    for job in [&id, &later] {
        let shown = cluster.wait(job);
        assert_eq!(shown["status"], "succeeded", "{shown:#}");
    }
    let submitted = cluster
        .ask_any(&Request::json("/v1/jobs", &job::noop(2)))
        .ok();
    let last = cluster.wait(&job::id_of(&submitted));
    assert_eq!(last["status"], "succeeded", "{last:#}");
}
