//! A real S3 server, SeaweedFS, on free ports of the loopback interface, that never outlives the test.

use std::path::Path;
use std::process::Command;

use crate::process::{ServerProcess, program};

/// Credentials that may do everything. Buckets are made by the first object.
pub(crate) const KEY: (&str, &str) = ("OWNER", "owner-secret");
/// Credentials that may read the bucket [`READABLE`], and nothing else.
pub(crate) const READER: (&str, &str) = ("READER", "reader-secret");
pub(crate) const READABLE: &str = "readable";
/// Role whose credentials the server gives to whoever has a key: it may do everything that a session's policy allows.
pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/executor";

/// A running server. Dropping it kills it.
pub(crate) struct SeaweedFs(ServerProcess);

impl SeaweedFs {
    /// Starts a server, and returns once it answers.
    pub(crate) fn start() -> Self {
        Self(ServerProcess::start(command, ("/healthz", "HTTP/1.1 200")))
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns the server's address.
    pub(crate) fn address(&self) -> String {
        self.0.address()
    }
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
    let mut command = Command::new(program("WEFT_SEAWEEDFS", "stores/bin/weed"));
    command.args(["server", "-filer", "-s3"]);
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
