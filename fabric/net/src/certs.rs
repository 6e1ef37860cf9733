//! Makes the authority of a cluster, and the certificates of its processes.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};
use weft_runtime::clock::unix_ms;

use crate::handshake::{controller_name, node_name};
use crate::security::Certificates;

/// Common name of an authority: the certificates that it signs name their issuer by it.
const AUTHORITY: &str = "Weft cluster authority";
/// Validity of an authority.
const AUTHORITY_VALIDITY: Duration = Duration::days(3_650);
/// Validity of a certificate of a process.
const CERTIFICATE_VALIDITY: Duration = Duration::days(365);
/// Validity begins this long ago, because clocks differ.
const BACKDATED: Duration = Duration::hours(1);

/// A process that a certificate is issued to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A controller, by its number.
    Controller(u64),
    /// A node, by its name.
    Node(String),
}

impl Subject {
    /// Name of its files in the folder of certificates.
    fn stem(&self) -> String {
        match self {
            Subject::Controller(member) => format!("controller-{member}"),
            Subject::Node(node) => node.clone(),
        }
    }

    fn name(&self) -> String {
        match self {
            Subject::Controller(member) => controller_name(*member),
            Subject::Node(node) => node_name(node),
        }
    }
}

fn authority_files(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("ca.pem"), folder.join("ca.key"))
}

/// Makes an authority in a folder: `ca.pem`, which every process needs, and `ca.key`, which only
/// issuing needs.
///
/// Errors: the folder has an authority, or cannot be written to.
pub fn make_authority(folder: &Path) -> anyhow::Result<()> {
    let (certificate, key) = authority_files(folder);
    if certificate.exists() || key.exists() {
        bail!(
            "`{}` has an authority already: certificates that it signed would be worthless with another",
            folder.display()
        );
    }
    fs::create_dir_all(folder).with_context(|| format!("`{}`", folder.display()))?;
    let pair = KeyPair::generate()?;
    let signed = authority()?.self_signed(&pair)?;
    write_key(&key, &pair)?;
    write(&certificate, &signed.pem(), 0o644)
}

/// Issues a certificate and a key to a process, in the folder of the authority. Those that it had are
/// replaced.
///
/// Errors: the folder has no authority, or cannot be written to.
pub fn issue(folder: &Path, subject: &Subject) -> anyhow::Result<Certificates> {
    if let Subject::Node(node) = subject
        && (node == "ca" || node.starts_with("controller-"))
    {
        bail!("a node cannot be named `{node}`: its files would replace those of others");
    }
    let (ca, ca_key) = authority_files(folder);
    let text = fs::read_to_string(&ca_key).with_context(|| {
        format!(
            "`{}` (`weft certs ca` makes an authority)",
            ca_key.display()
        )
    })?;
    let signing = KeyPair::from_pem(&text)
        .with_context(|| format!("`{}` is not a private key in PEM", ca_key.display()))?;
    let issuer = Issuer::new(authority()?, signing);
    let mut params = CertificateParams::new([subject.name()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, subject.name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, CERTIFICATE_VALIDITY)?;
    let pair = KeyPair::generate()?;
    let signed = params.signed_by(&pair, &issuer)?;
    let files = Certificates {
        ca,
        certificate: folder.join(format!("{}.pem", subject.stem())),
        key: folder.join(format!("{}.key", subject.stem())),
    };
    write_key(&files.key, &pair)?;
    write(&files.certificate, &signed.pem(), 0o644)?;
    Ok(files)
}

fn authority() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_VALIDITY)?;
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, validity: Duration) -> anyhow::Result<()> {
    let now = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_ms() / 1000)?)?;
    params.not_before = now - BACKDATED;
    params.not_after = now + validity;
    Ok(())
}

fn write_key(path: &Path, pair: &KeyPair) -> anyhow::Result<()> {
    write(path, &pair.serialize_pem(), 0o600)
}

/// Writes a file with these permissions, in place of one that is there.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("`{}`", path.display()));
        }
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let file = options.create_new(true).write(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("`{}`", path.display()))
}
