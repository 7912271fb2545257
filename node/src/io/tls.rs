//! TLS to rendezvous servers: who the server is, decided by the system's roots or by the one
//! authority that the user named for it.
//!
//! TLS 1.3 only, this protocol only, and a full handshake every time: a registration is signed
//! over the session's exporter, which has to be new. What is said inside is not known here.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sremp_common::label::{RENDEZVOUS_ALPN, TLS_EXPORTER};
use sremp_common::limit::HANDSHAKE_TIMEOUT;
use sremp_common::wire::{Endpoint, Host};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::transport::{CertificateFault, DialError};

/// A connection to a server that has proved its name.
pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Bytes of a file with an authority's certificate.
const MAX_CA_FILE: u64 = 1 << 20;

/// How long one of several addresses may take to answer.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The system has no certificates to trust.
    #[error(
        "this system has no root certificates; install them, or name the server's own with ca=FILE"
    )]
    NoRoots,
    /// The file that the user named cannot be read.
    #[error("cannot read the certificate authority {}", path.display())]
    ReadCa {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is nothing usable in it.
    #[error("{} holds no certificate in PEM form", .0.display())]
    NoCa(PathBuf),
    /// The library refuses the settings: a defect of ours.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
    /// The endpoint's name is none that a certificate could have.
    #[error("`{0}` is not a name that a certificate can prove")]
    Name(String),
    /// The name has no address, or none of its addresses answers.
    #[error("cannot reach {0}")]
    Unreachable(Endpoint, #[source] io::Error),
    /// It took longer than ten seconds.
    #[error("{0} does not answer in time")]
    TimedOut(Endpoint),
    /// The certificate is expired, for another name, or by an authority that is not trusted.
    #[error("the certificate of {0} is not accepted")]
    Certificate(Endpoint, #[source] rustls::Error),
    /// The server speaks no TLS 1.3, not this protocol, or no TLS at all.
    #[error("{0} is no rendezvous server that this version can talk to")]
    Handshake(Endpoint, #[source] io::Error),
    /// The server did not confirm the protocol.
    #[error("{0} speaks TLS, but is no rendezvous server")]
    Protocol(Endpoint),
}

impl TlsError {
    /// The same in the few words that the rest of the node knows.
    #[must_use]
    pub fn reason(&self) -> DialError {
        match self {
            Self::NoRoots | Self::ReadCa { .. } | Self::NoCa(_) => DialError::NoAuthority,
            Self::Setup(_) => DialError::Failed,
            Self::Name(_) => DialError::Certificate(CertificateFault::OtherName),
            Self::Unreachable(_, error) => dial_error(error),
            Self::TimedOut(_) => DialError::TimedOut,
            Self::Certificate(_, error) => DialError::Certificate(certificate_fault(error)),
            Self::Handshake(..) | Self::Protocol(_) => DialError::Protocol,
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a person can do nothing about the others")]
fn certificate_fault(error: &rustls::Error) -> CertificateFault {
    use rustls::CertificateError as E;
    let rustls::Error::InvalidCertificate(error) = error else {
        return CertificateFault::Unacceptable;
    };
    match error {
        E::Expired | E::ExpiredContext { .. } => CertificateFault::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => CertificateFault::NotYetValid,
        E::NotValidForName | E::NotValidForNameContext { .. } => CertificateFault::OtherName,
        // An authority of the same name, with another key.
        E::UnknownIssuer | E::BadSignature => CertificateFault::UnknownIssuer,
        _ => CertificateFault::Unacceptable,
    }
}

/// Why there is no TCP connection.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others say nothing to a person")]
pub(super) fn dial_error(error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::NotFound => DialError::NameNotFound,
        io::ErrorKind::ConnectionRefused => DialError::Refused,
        io::ErrorKind::TimedOut => DialError::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => DialError::NoRoute,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => DialError::HungUp,
        _ => DialError::Failed,
    }
}

/// How to judge servers: by the certificates in `ca` alone, or without it by the system's roots.
///
/// # Errors
/// [`TlsError`] when there is nothing to judge by.
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match ca {
        Some(path) => roots_of_file(path)?,
        None => system_roots()?,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![RENDEZVOUS_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Connects, and checks that the server is who the endpoint says. Gives the stream and the
/// exporter that names this session, and no other one.
///
/// # Errors
/// [`TlsError`]. Nothing of ours has been sent then but the endpoint's name.
pub async fn connect(
    endpoint: &Endpoint,
    config: Arc<ClientConfig>,
) -> Result<(TlsStream, [u8; 32]), TlsError> {
    let name = server_name(endpoint)?;
    let connected = timeout(HANDSHAKE_TIMEOUT, async {
        let stream =
            dial(endpoint).await.map_err(|error| TlsError::Unreachable(endpoint.clone(), error))?;
        // Requests are small and wanted at once; without it they are only later.
        let _ = stream.set_nodelay(true);
        let connector = TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(|error| judge(endpoint, error))
    });
    let stream = connected.await.map_err(|_| TlsError::TimedOut(endpoint.clone()))??;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(RENDEZVOUS_ALPN) {
        return Err(TlsError::Protocol(endpoint.clone()));
    }
    let exporter =
        session.export_keying_material([0; 32], TLS_EXPORTER, None).map_err(TlsError::Setup)?;
    Ok((stream, exporter))
}

/// The addresses of the endpoint one after the other, until one takes the connection.
async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = match &endpoint.host {
        Host::Address(address) => vec![SocketAddr::new(*address, endpoint.port)],
        Host::Name(name) => {
            let resolved = tokio::net::lookup_host((name.as_str(), endpoint.port)).await;
            resolved
                .map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?
                .take(MAX_ADDRESSES)
                .collect()
        }
    };
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

/// What the server's certificate has to prove.
fn server_name(endpoint: &Endpoint) -> Result<ServerName<'static>, TlsError> {
    match &endpoint.host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone()))
        }
    }
}

/// Tells a certificate that is not accepted from all other failures.
fn judge(endpoint: &Endpoint, error: io::Error) -> TlsError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(refused @ rustls::Error::InvalidCertificate(_)) => {
            TlsError::Certificate(endpoint.clone(), refused.clone())
        }
        _ => TlsError::Handshake(endpoint.clone(), error),
    }
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let failed = |source| TlsError::ReadCa { path: path.to_owned(), source };
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CA_FILE).read_to_end(&mut pem))
        .map_err(failed)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let no_ca = || TlsError::NoCa(path.to_owned());
        roots.add(certificate.map_err(|_| no_ca())?).map_err(|_| no_ca())?;
    }
    if roots.is_empty() { Err(TlsError::NoCa(path.to_owned())) } else { Ok(roots) }
}

/// Single certificates of the system that cannot be read are skipped, as browsers do.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}
