//! A node talks only to a rendezvous server that proves its name, by an authority that the node
//! trusts, over TLS 1.3, for this protocol (R19).
#![expect(clippy::disallowed_methods, reason = "servers of a test are tasks")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sremp_common::label::{RENDEZVOUS_ALPN, TLS_EXPORTER};
use sremp_common::wire::Endpoint;
use sremp_node::io::tls::{TlsError, client_config, connect};
use sremp_node::transport::{CertificateFault as Fault, DialError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// An authority, and the file by which a node trusts it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file, _directory: directory }
    }

    fn certify(&self, params: &CertificateParams) -> Certified {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certified { chain: vec![certificate.der().clone()], key }
    }
}

struct Certified {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

/// What a good server has.
fn good() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn changed(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = good();
    change(&mut params);
    params
}

/// Shows a certificate without asking whether the key fits it.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn server_config(certified: Certified, protocols: &[&[u8]]) -> Arc<ServerConfig> {
    let secret = PrivateKeyDer::try_from(certified.key.serialize_der()).unwrap();
    let key = ring::sign::any_supported_type(&secret).unwrap();
    let shown = CertifiedKey::new(certified.chain, key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// What a server got from the client: application data, and its own exporter.
type Seen = JoinHandle<(Vec<u8>, Option<[u8; 32]>)>;

/// A TLS server for one connection.
async fn serve(config: Arc<ServerConfig>) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else {
            return (Vec::new(), None);
        };
        let session = stream.get_ref().1;
        let exporter = session.export_keying_material([0; 32], TLS_EXPORTER, None).ok();
        let mut data = Vec::new();
        // How the client leaves does not matter here.
        let _ = stream.read_to_end(&mut data).await;
        (data, exporter)
    });
    (address, seen)
}

/// A server that answers the first bytes of one connection with `answer`, and closes.
async fn answer(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4_096]).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    address
}

/// A ServerHello of RFC 5246: TLS 1.2, without `supported_versions`.
fn server_hello_of_tls_1_2() -> Vec<u8> {
    // Version, random, no session id, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
    let body = [&[3, 3][..], &[9; 32], &[0, 0xc0, 0x2b, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let handshake = [&[2, 0, 0, length][..], &body].concat();
    [&[22, 3, 3, 0, length + 4][..], &handshake].concat()
}

async fn dial(address: SocketAddr, authority: &Authority) -> Result<[u8; 32], TlsError> {
    let config = client_config(Some(&authority.file)).unwrap();
    let (_, exporter) = connect(&Endpoint::from(address), config).await?;
    Ok(exporter)
}

/// Dials a server that shows such a certificate; it must be the certificate that is refused, and
/// the server must hear nothing.
async fn refuses(what: &str, fault: Fault, certified: Certified, authority: &Authority) {
    let (address, seen) = serve(server_config(certified, &[RENDEZVOUS_ALPN])).await;
    let result = dial(address, authority).await;
    let Err(error @ TlsError::Certificate(..)) = result else { panic!("{what}: {result:?}") };
    assert_eq!(error.reason(), DialError::Certificate(fault), "{what}");
    let (data, _) = seen.await.unwrap();
    assert!(data.is_empty(), "{what}");
}

#[tokio::test]
async fn a_good_server_is_accepted_and_both_know_the_session() {
    let authority = Authority::new();
    let config = server_config(authority.certify(&good()), &[b"other", RENDEZVOUS_ALPN]);
    let (address, seen) = serve(Arc::clone(&config)).await;
    let exporter = dial(address, &authority).await.unwrap();
    assert_eq!(seen.await.unwrap(), (Vec::new(), Some(exporter)));
    let (address, seen) = serve(config).await;
    assert_ne!(dial(address, &authority).await.unwrap(), exporter);
    seen.await.unwrap();
}

#[tokio::test]
async fn r19_servers_with_a_bad_certificate() {
    let authority = Authority::new();
    let another_name = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let expired = changed(|params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let not_yet_valid = changed(|params| params.not_before = date_time_ymd(3000, 1, 1));
    let for_clients = changed(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    for (what, fault, params) in [
        ("another name", Fault::OtherName, another_name),
        ("expired", Fault::Expired, expired),
        ("not yet valid", Fault::NotYetValid, not_yet_valid),
        ("for clients", Fault::Unacceptable, for_clients),
    ] {
        refuses(what, fault, authority.certify(&params), &authority).await;
    }
    let unknown = Fault::UnknownIssuer;
    refuses("another authority", unknown, Authority::new().certify(&good()), &authority).await;

    let key = KeyPair::generate().unwrap();
    let chain = vec![good().self_signed(&key).unwrap().der().clone()];
    refuses("self-signed", unknown, Certified { chain, key }, &authority).await;

    let stolen = Certified { key: KeyPair::generate().unwrap(), ..authority.certify(&good()) };
    refuses("a certificate without its key", unknown, stolen, &authority).await;
}

#[tokio::test]
async fn r19_servers_of_another_protocol() {
    let authority = Authority::new();
    for (what, bytes) in [
        ("TLS 1.2", server_hello_of_tls_1_2()),
        ("no TLS", b"SREMP\x01\x00 in the clear".to_vec()),
        ("nothing", Vec::new()),
    ] {
        let result = dial(answer(bytes).await, &authority).await;
        assert!(matches!(result, Err(TlsError::Handshake(..))), "{what}: {result:?}");
    }

    let (address, seen) = serve(server_config(authority.certify(&good()), &[b"h2"])).await;
    let result = dial(address, &authority).await;
    assert!(matches!(result, Err(TlsError::Handshake(..))), "{result:?}");
    assert!(seen.await.unwrap().0.is_empty());

    let (address, seen) = serve(server_config(authority.certify(&good()), &[])).await;
    let result = dial(address, &authority).await;
    assert!(matches!(result, Err(TlsError::Protocol(_))), "{result:?}");
    assert!(seen.await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_apart() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let result = dial(address, &authority).await;
    let Err(error @ TlsError::Unreachable(..)) = result else { panic!("{result:?}") };
    assert_eq!(error.reason(), DialError::Refused);
}

#[test]
fn an_authority_that_cannot_be_read_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    assert!(matches!(client_config(Some(&file)), Err(TlsError::ReadCa { .. })));
    for text in [
        "",
        "nothing",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA",
    ] {
        fs::write(&file, text).unwrap();
        assert!(matches!(client_config(Some(&file)), Err(TlsError::NoCa(_))), "{text}");
    }
}
