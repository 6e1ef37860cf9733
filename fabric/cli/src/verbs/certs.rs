//! `weft certs`: the authority of a cluster, and certificates of its processes.

use serde_json::json;

use crate::Program;
use crate::arguments::CertsCommand;
use crate::failure::Failure;
use crate::terminal::Output;

/// Runs `weft certs`.
pub(crate) fn certs(
    program: &dyn Program,
    command: &CertsCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        CertsCommand::Ca(of) => {
            program.make_authority(&of.dir)?;
            let (ca, key) = (of.dir.join("ca.pem"), of.dir.join("ca.key"));
            let text = || {
                format!(
                    "made `{}`, which every process needs, and `{}`, which only `weft certs issue` needs: keep it apart",
                    ca.display(),
                    key.display()
                )
            };
            output.either(&json!({ "ca": ca, "key": key }).to_string(), text)
        }
        CertsCommand::Issue(issue) => {
            let files = program.issue_certificate(&issue.of.dir, issue.role, &issue.name)?;
            let text = || {
                format!(
                    "[tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"",
                    files.ca.display(),
                    files.certificate.display(),
                    files.key.display()
                )
            };
            output.either(&json!(files).to_string(), text)
        }
    }
}
