//! TLS with certificates on both sides, or plain text on the loopback address.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, bail};
use rustix::net::sockopt::set_tcp_user_timeout;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_core::{ErrorCode, Problem};

use crate::handshake::{Party, controller_name};

/// How long the other side's machine may acknowledge nothing of what it is sent, in milliseconds.
const UNACKNOWLEDGED_MS_MAX: u32 = 2_000;

/// Files with a process' certificate, its key, and the authority that signs the cluster's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// Certificate of the process, valid for its role and number or name.
    pub certificate: PathBuf,
    /// Private key of the certificate.
    pub key: PathBuf,
}

/// Protection of connections. Clones share it.
#[derive(Clone)]
pub struct Security(Option<Arc<Tls>>);

struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Security {
    /// Plain text: whoever reaches the loopback address of this machine is trusted.
    pub fn plain() -> Self {
        Self(None)
    }

    /// TLS 1.3 with these certificates.
    ///
    /// Errors: a file cannot be read, or holds something else.
    pub fn tls(files: &Certificates) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            let added = roots.add(certificate);
            added.with_context(|| format!("`{}`", files.ca.display()))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .with_context(|| format!("`{}` is not a private key in PEM", files.key.display()))?;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .with_context(|| pair(files))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .with_context(|| pair(files))?;
        Ok(Self(Some(Arc::new(Tls {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
        }))))
    }

    /// Sets up a connection. Errors: plain text to another machine.
    fn prepare(&self, stream: &TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)?;
        let address = stream.peer_addr()?;
        if self.0.is_none() && !address.ip().is_loopback() {
            bail!(
                "{address} is not a loopback address, and plain text does not leave the machine: set `tls`"
            );
        }
        Ok(())
    }

    /// Secures a connection that was dialled to controller `member`.
    pub(crate) async fn dialled(&self, stream: TcpStream, member: u64) -> anyhow::Result<Wire> {
        self.prepare(&stream)?;
        let Some(tls) = &self.0 else {
            return Ok(Wire::plain(stream));
        };
        let name = ServerName::try_from(controller_name(member))?;
        let stream = tls.connector.connect(name, stream).await;
        let stream = stream.with_context(|| format!("TLS with controller {member} fails"))?;
        Ok(Wire {
            stream: Stream::Client(Box::new(stream)),
            peer: None,
        })
    }

    /// Secures a connection that was accepted.
    pub(crate) async fn accepted(&self, stream: TcpStream) -> anyhow::Result<Wire> {
        self.prepare(&stream)?;
        let Some(tls) = &self.0 else {
            return Ok(Wire::plain(stream));
        };
        let stream = tls.acceptor.accept(stream).await.context("TLS fails")?;
        let peer = stream.get_ref().1.peer_certificates();
        let peer = peer.and_then(|chain| chain.first());
        let peer = peer
            .context("TLS without a certificate")?
            .clone()
            .into_owned();
        Ok(Wire {
            stream: Stream::Server(Box::new(stream)),
            peer: Some(peer),
        })
    }
}

fn pair(files: &Certificates) -> String {
    format!(
        "the key `{}` does not belong to the certificate `{}`",
        files.key.display(),
        files.certificate.display()
    )
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<CertificateDer<'static>> =
        read.with_context(|| format!("`{}` is not a certificate in PEM", path.display()))?;
    if found.is_empty() {
        bail!("`{}` holds no certificate in PEM", path.display());
    }
    Ok(found)
}

/// A secured connection.
pub(crate) struct Wire {
    stream: Stream,
    /// Certificate of whoever dialled, where there is TLS.
    peer: Option<CertificateDer<'static>>,
}

enum Stream {
    Plain(TcpStream),
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Wire {
    fn plain(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(stream),
            peer: None,
        }
    }

    /// Checks that whoever dialled has the certificate of who it says it is.
    pub(crate) fn check_name(&self, from: &Party) -> Result<(), Problem> {
        let Some(certificate) = &self.peer else {
            return Ok(());
        };
        let name = from.certificate_name();
        let refused = || {
            let detail = format!(
                "the certificate of {from} is not valid for `{name}`: issue one for its role and name"
            );
            Problem::new(ErrorCode::Unauthorized, detail)
        };
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| refused())?;
        let server = ServerName::try_from(name.clone()).map_err(|_| refused())?;
        let valid = parsed.verify_is_valid_for_subject_name(&server);
        valid.map_err(|_| refused())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Client(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Server(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Client(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Server(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Client(stream) => Pin::new(stream).poll_flush(context),
            Stream::Server(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Client(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Server(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
