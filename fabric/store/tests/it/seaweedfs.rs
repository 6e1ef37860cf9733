//! A real S3 server, SeaweedFS, on free ports of the loopback interface, that never outlives the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Credentials that may do everything. Buckets are made by the first object.
pub(crate) const KEY: (&str, &str) = ("OWNER", "owner-secret");
/// Credentials that may read the bucket [`READABLE`], and nothing else.
pub(crate) const READER: (&str, &str) = ("READER", "reader-secret");
pub(crate) const READABLE: &str = "readable";
/// Role whose credentials the server gives to whoever has a key: it may do everything that a session's policy allows.
pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/executor";

/// Looks at a server that starts, and the pause between two.
const LOOKS: u32 = 600;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Starts of a server whose ports another process took.
const STARTS: u32 = 3;

/// A running server. Dropping it kills it.
pub(crate) struct SeaweedFs {
    process: Child,
    guard: Child,
    port: u16,
    _folder: TempDir,
}

impl SeaweedFs {
    /// Starts a server, and returns once it answers.
    pub(crate) fn start() -> Self {
        (0..STARTS)
            .find_map(|_| Self::try_start())
            .expect("the server starts")
    }

    /// Nothing if it ended before it answered.
    fn try_start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = ports();
        let process = command(folder.path(), &ports).spawn();
        let process = process.expect("seaweedfs is installed: `cargo xtask test` does it");
        let guard = guard(process.id());
        let mut server = Self {
            process,
            guard,
            port: ports[0],
            _folder: folder,
        };
        for _ in 0..LOOKS {
            if server.process.try_wait().expect("our child").is_some() {
                return None;
            }
            if server.is_healthy() {
                return Some(server);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("the server does not answer");
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns the server's address.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn is_healthy(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address()) else {
            return false;
        };
        let request = "GET /healthz HTTP/1.1\r\nHost: s3\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes());
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        read.is_ok() && answer.starts_with("HTTP/1.1 200")
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        for process in [&mut self.process, &mut self.guard] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The program: where `cargo xtask test` says, or where it installs it.
fn program() -> PathBuf {
    std::env::var_os("WEFT_SEAWEEDFS").map_or_else(
        || {
            let home = std::env::var_os("HOME").unwrap_or_default();
            Path::new(&home).join(".cache/weft/stores/bin/weed")
        },
        PathBuf::from,
    )
}

fn command(folder: &Path, ports: &[u16; 8]) -> Command {
    let config = folder.join("s3.json");
    let may_read = ["Read", "List"].map(|action| format!("\"{action}:{READABLE}\""));
    let identity = |name: &str, (key, secret): (&str, &str), actions: &str| {
        format!(
            r#"{{"name":"{name}","credentials":[{{"accessKey":"{key}","secretKey":"{secret}"}}],"actions":[{actions}]}}"#
        )
    };
    let identities = [
        identity("owner", KEY, "\"Admin\""),
        identity("reader", READER, &may_read.join(",")),
    ];
    let text = format!(r#"{{"identities":[{}]}}"#, identities.join(","));
    std::fs::write(&config, text).expect("it writes");
    let roles = folder.join("iam.json");
    std::fs::write(&roles, sts()).expect("it writes");
    let mut command = Command::new(program());
    command
        .current_dir(folder)
        .args(["server", "-filer", "-s3"]);
    let path = |name: &str| folder.join(name).display().to_string();
    for (name, value) in [
        ("dir", folder.display().to_string()),
        ("ip", "127.0.0.1".into()),
        ("ip.bind", "127.0.0.1".into()),
        ("s3.port", ports[0].to_string()),
        ("s3.port.grpc", ports[1].to_string()),
        ("master.port", ports[2].to_string()),
        ("master.port.grpc", ports[3].to_string()),
        ("volume.port", ports[4].to_string()),
        ("volume.port.grpc", ports[5].to_string()),
        ("filer.port", ports[6].to_string()),
        ("filer.port.grpc", ports[7].to_string()),
        ("filer.localSocket", path("filer.sock")),
        ("s3.localSocket", path("s3.sock")),
        ("s3.config", config.display().to_string()),
        ("s3.iam.config", roles.display().to_string()),
        ("s3.port.iceberg", "0".into()),
        ("s3.port.lance", "0".into()),
        ("master.telemetry", "false".into()),
        // Each bucket takes seven volumes.
        ("volume.max", "200".into()),
        ("master.volumeSizeLimitMB", "64".into()),
    ] {
        command.arg(format!("-{name}={value}"));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Settings of the service that gives credentials of [`ROLE`].
fn sts() -> String {
    let allow = |what: &str| {
        format!(r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow",{what}}}]}}"#)
    };
    let trust = allow(r#""Principal":{"AWS":"*"},"Action":["sts:AssumeRole"]"#);
    let all = allow(r#""Action":["s3:*"],"Resource":["*"]"#);
    // The signing key is 32 bytes and more, in Base64.
    format!(
        r#"{{
            "sts":{{"tokenDuration":"1h","maxSessionLength":"12h","issuer":"weft","signingKey":"dGVzdC1zaWduaW5nLWtleS1vZi0zMi1ieXRlcy1vci1tb3Jl"}},
            "policy":{{"defaultEffect":"Deny","storeType":"memory"}},
            "roles":[{{"roleName":"executor","roleArn":"{ROLE}","trustPolicy":{trust},"attachedPolicies":["all"]}}],
            "policies":[{{"name":"all","document":{all}}}]
        }}"#
    )
}

/// Ports that nobody listens on.
fn ports() -> [u16; 8] {
    // All at once, so that they differ.
    let listeners = [(); 8].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

/// A process that kills another one when the test's process is gone, however that ended: the pipe between them closes.
pub(crate) fn guard(pid: u32) -> Child {
    let mut guard = Command::new("sh");
    guard.args(["-c", "read -r line; kill -9 \"$1\"", "sh", &pid.to_string()]);
    guard
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    guard.spawn().expect("there is a shell")
}
