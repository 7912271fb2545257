//! Lookups at a rendezvous server, beside a bare TLS server that answers as many bytes with as many:
//! the same library and settings, the same client, the same number of connections, in turns.
//!
//! The server has [`PEOPLE`] registered, each client asks for another one each time, from an address
//! of its own (the limits are for one address), and looks at what it is told. Whoever asks the bare
//! server does the same.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sremp_common::entropy::Entropy;
use sremp_common::identity::{Flags, IdentityData};
use sremp_common::io::Clock;
use sremp_common::io::lifecycle::Lifecycle;
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::label::{RENDEZVOUS_ALPN, TLS_EXPORTER, VERSION_HEADER};
use sremp_common::long_frame::encode_long_frame;
use sremp_common::name::Username;
use sremp_common::wire::{List, Lookup, Message, Register, Registration};
use sremp_rendezvous::config::Config;
use sremp_rendezvous::io::certificates::Certificates;
use sremp_rendezvous::io::{Server, dev_cert};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::figure::{Report, Target};
use super::{Effort, progress};

/// Clients, each with one lookup under way.
const CLIENTS: usize = 32;
/// Who is registered.
const PEOPLE: usize = 1_000;
/// Lookups of one network in a minute: as many as can be configured.
const LOOKUPS_PER_MINUTE: u32 = 1_000_000;
/// Bytes at the start of an answer that are the same for everybody who is found: length, type,
/// request id, one peer.
const SAME: usize = 9;
/// Unmeasured time of each turn.
const WARM_UP: Duration = Duration::from_millis(300);

pub fn measure(report: &mut Report, effort: Effort) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    progress("lookups at the rendezvous server, and a bare TLS echo");
    let (ours, bare) = runtime.block_on(turns(effort));
    let ratios: Vec<f64> = ours.iter().zip(&bare).map(|(ours, bare)| ours / bare).collect();
    report.add("rendezvous: lookups", "lookups/s", &ours, None);
    report.add("  bare TLS echo of the same size", "answers/s", &bare, None);
    report.add("  lookups over echoes", "times", &ratios, Some(Target::AtLeast(0.7)));
}

async fn turns(effort: Effort) -> (Vec<f64>, Vec<f64>) {
    let directory = tempfile::tempdir().unwrap();
    let now = Clock::start().now().wall;
    let certs =
        dev_cert::write(&directory.path().join("c"), &["127.0.0.1".to_owned()], now).unwrap();
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    (config.tls.cert, config.tls.key) = (Some(certs.cert.clone()), Some(certs.key.clone()));
    config.limits.lookups_per_minute = LOOKUPS_PER_MINUTE;
    let (life, _wishes) = Lifecycle::new();
    let data = directory.path().join("data");
    let server = Server::start(&config, &data, life.clone()).await.unwrap();
    let address = server.ready().listening;
    let server = tokio::spawn(server.run());
    let tls = connector(&certs.ca);
    let talk = Arc::new(populate(address, &tls).await);

    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo_address = echo.local_addr().unwrap();
    let acceptor =
        TlsAcceptor::from(Certificates::load(&certs.cert, &certs.key).unwrap().current());
    let echo = tokio::spawn(echo_server(echo, acceptor, Arc::clone(&talk)));

    let time = Duration::from_millis(effort.relay_ms);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        ours.push(turn(address, &tls, &talk, time).await);
        bare.push(turn(echo_address, &tls, &talk, time).await);
    }
    echo.abort();
    life.stop();
    server.await.unwrap().unwrap();
    (ours, bare)
}

fn connector(ca: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![RENDEZVOUS_ALPN.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// What is said: questions of one length, and the answers', which have one length too.
struct Talk {
    questions: Vec<Vec<u8>>,
    answer: Vec<u8>,
}

/// Headers are exchanged; the echo has one, too. Each client comes from an address of its own.
async fn connect(address: SocketAddr, client: usize, tls: &TlsConnector) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    let own = [127, 0, 1, u8::try_from(client + 1).unwrap()];
    socket.bind(SocketAddr::from((own, 0))).unwrap();
    let stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tls.connect(name, stream).await.unwrap();
    stream.write_all(&VERSION_HEADER).await.unwrap();
    let mut header = VERSION_HEADER;
    stream.read_exact(&mut header).await.unwrap();
    stream
}

/// Registers everybody, and looks everybody up.
async fn populate(address: SocketAddr, tls: &TlsConnector) -> Talk {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let tls = tls.clone();
        clients.spawn(async move {
            let mut stream = connect(address, client, &tls).await;
            let mut questions = Vec::new();
            for number in (client..PEOPLE).step_by(CLIENTS) {
                questions.push(register(&mut stream, number).await);
            }
            questions
        });
    }
    let questions = clients.join_all().await.concat();
    let mut stream = connect(address, 0, tls).await;
    let mut answers = Vec::new();
    for question in &questions {
        let found = exchange(&mut stream, question).await;
        let Ok((2, Message::LookupResponse(response))) = Message::decode(&found) else { panic!() };
        assert_eq!(response.peers.len(), 1);
        answers.push(encode_long_frame(&found).unwrap());
    }
    let answer = answers.pop().unwrap();
    let alike = |other: &Vec<u8>| other.len() == answer.len() && other[..SAME] == answer[..SAME];
    assert!(answers.iter().all(alike));
    Talk { questions, answer }
}

/// Registers somebody; gives the frame that looks him up.
async fn register(stream: &mut TlsStream<TcpStream>, number: usize) -> Vec<u8> {
    let (_, session) = stream.get_ref();
    let exporter = session.export_keying_material([0; 32], TLS_EXPORTER, None).unwrap();
    let secret = IdentitySecret::generate(&mut Entropy::from_number(number as u64));
    let data = IdentityData {
        username: Username::new("Somebody").unwrap(),
        identity_key: secret.public(),
        noise_key: NoiseSecret::generate(&mut Entropy::from_number(number as u64)).public(),
        flags: Flags::default(),
        extensions: None,
        version: 1,
        created: Clock::start().now().wall,
    };
    let identity = data.sign(&secret).unwrap().identity().clone();
    let endpoints = List::new(vec!["127.0.0.1:7330".parse().unwrap()]).unwrap();
    let registration = Registration { endpoints, ttl: 86_400, listed: false };
    let signature = registration.sign(&secret, &identity, &exporter);
    let register = Message::Register(Register { identity, registration, signature, invite: None });
    let registered = exchange(stream, &encode_long_frame(&register.encode(0)).unwrap()).await;
    assert!(matches!(Message::decode(&registered), Ok((0, Message::Registered(_)))));
    let lookup = Message::Lookup(Lookup::one(secret.public())).encode(2);
    encode_long_frame(&lookup).unwrap()
}

/// Sends a frame and gives the content of the one that comes back.
async fn exchange(stream: &mut TlsStream<TcpStream>, frame: &[u8]) -> Vec<u8> {
    stream.write_all(frame).await.unwrap();
    let length = stream.read_u32_le().await.unwrap();
    let mut content = vec![0; length as usize];
    stream.read_exact(&mut content).await.unwrap();
    content
}

/// Answers as many bytes as a question has with an answer, and knows nothing else.
async fn echo_server(listener: TcpListener, acceptor: TlsAcceptor, talk: Arc<Talk>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (acceptor, talk) = (acceptor.clone(), Arc::clone(&talk));
        connections.spawn(async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut header = VERSION_HEADER;
            stream.read_exact(&mut header).await.unwrap();
            stream.write_all(&header).await.unwrap();
            let mut asked = vec![0; talk.questions[0].len()];
            while stream.read_exact(&mut asked).await.is_ok() {
                if stream.write_all(&talk.answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Answers a second, with all clients at once.
async fn turn(address: SocketAddr, tls: &TlsConnector, talk: &Arc<Talk>, time: Duration) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut stream = connect(address, client, tls).await;
        let (talk, count) = (Arc::clone(talk), Arc::clone(&count));
        clients.spawn(async move {
            let mut told = vec![0; talk.answer.len()];
            // Each begins elsewhere, so that no two ask for the same.
            let start = client * PEOPLE / CLIENTS;
            for question in talk.questions.iter().cycle().skip(start) {
                stream.write_all(question).await.unwrap();
                stream.read_exact(&mut told).await.unwrap();
                assert_eq!(told[..SAME], talk.answer[..SAME], "another answer than wanted");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (before, began) = (count.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let rate = (count.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    // A client that has stopped would be missing in the rate without a word.
    assert!(clients.try_join_next().is_none());
    clients.shutdown().await;
    rate
}
