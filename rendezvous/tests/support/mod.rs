//! A server process and a blocking client for tests: rustls over a plain TCP stream, so that
//! nothing of the server's own shell is on both sides.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use sremp_common::entropy::Entropy;
use sremp_common::identity::{Extensions, Flags, IdentityData, VerifiedIdentity};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::label::{RENDEZVOUS_ALPN, TLS_EXPORTER, VERSION_HEADER};
use sremp_common::limit::MAX_ENDPOINTS;
use sremp_common::long_frame::{LongFrameReader, encode_long_frame};
use sremp_common::name::Username;
use sremp_common::time::Timestamp;
use sremp_common::wire::{
    Bin, Endpoint, ErrorCode, List, Lookup, Message, PeerInfo, Register, Registered, Registration,
    RequestId,
};
use tempfile::TempDir;

/// Longer than anything takes; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with certificates for 127.0.0.1 in `certs`.
pub(crate) fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let certs = home.path().join("certs");
    run(&["dev-cert", certs.to_str().unwrap(), "127.0.0.1", "localhost"], 0);
    home
}

pub(crate) fn program(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sremp-rendezvous"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a short command printed.
pub(crate) struct Printed {
    pub(crate) stdout: String,
    stderr: String,
}

impl Printed {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// The error object: the last line of standard error.
    pub(crate) fn json_error(&self) -> Value {
        let line = self.stderr.lines().last().unwrap();
        let value: Value = serde_json::from_str(line).unwrap();
        value["error"].clone()
    }
}

/// Runs a command to its end, which must have the given exit code.
pub(crate) fn run(arguments: &[impl AsRef<std::ffi::OsStr>], code: i32) -> Printed {
    let Output { status, stdout, stderr } = program(arguments).output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(status.code(), Some(code), "{stdout}{stderr}");
    Printed { stdout, stderr }
}

/// The arguments of a server in `home`, on a port that the system chooses.
pub(crate) fn run_arguments(home: &TempDir, flags: &[&str]) -> Vec<String> {
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let mut arguments: Vec<String> =
        flags.iter().chain(&["run", "--listen", "127.0.0.1:0"]).map(|&part| part.into()).collect();
    arguments.extend(["--data".into(), path("data")]);
    arguments.extend(["--cert".into(), path("certs/cert.pem")]);
    arguments.extend(["--key".into(), path("certs/key.pem")]);
    arguments
}

/// The first line of a process's standard output.
pub(crate) fn first_line(child: &mut Child) -> String {
    let mut line = Vec::new();
    let stdout = child.stdout.as_mut().unwrap();
    // Byte by byte: what follows stays in the pipe.
    let mut byte = [0];
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// A running server, killed when the test ends.
pub(crate) struct Server {
    child: Mutex<Child>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    ca: std::path::PathBuf,
    log: Mutex<Receiver<String>>,
}

impl Server {
    pub(crate) fn start(home: &TempDir) -> Self {
        Self::start_with(home, &[])
    }

    pub(crate) fn start_with(home: &TempDir, environment: &[(&str, &str)]) -> Self {
        Self::spawn(home, &run_arguments(home, &["--json"]), environment)
    }

    /// With the configuration in `rendezvous.toml`.
    pub(crate) fn start_configured(home: &TempDir, environment: &[(&str, &str)]) -> Self {
        let mut arguments = run_arguments(home, &["--json"]);
        let config = home.path().join("rendezvous.toml");
        arguments.extend(["--config".to_owned(), config.to_str().unwrap().to_owned()]);
        Self::spawn(home, &arguments, environment)
    }

    fn spawn(home: &TempDir, arguments: &[String], environment: &[(&str, &str)]) -> Self {
        let mut command = program(arguments);
        command.envs(environment.iter().copied());
        Self::run(home, command)
    }

    /// Started by this command line, which must ask for JSON; ready when this returns.
    pub(crate) fn run(home: &TempDir, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (lines, log) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody may be interested any more.
                let _ = lines.send(line);
            }
        });
        let line = first_line(&mut child);
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            panic!("no ready line: {line:?} {:?}", log.iter().collect::<Vec<_>>());
        };
        let address = ready["listening"].as_str().unwrap().parse().unwrap();
        let metrics = ready["metrics"].as_str().map(|text| text.parse().unwrap());
        let ca = home.path().join("certs/ca.pem");
        Self { child: Mutex::new(child), address, metrics, ca, log: Mutex::new(log) }
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> u64 {
        let id = self.child.lock().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1_024
    }

    /// SIGKILL, and wait.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn terminate(&self) -> Option<i32> {
        let mut child = self.child.lock().unwrap();
        signal(&child, "TERM");
        child.wait().unwrap().code()
    }

    /// Its exit code, when it ends by itself.
    pub(crate) fn wait(&self) -> Option<i32> {
        self.child.lock().unwrap().wait().unwrap().code()
    }

    pub(crate) fn hang_up(&self) {
        signal(&self.child.lock().unwrap(), "HUP");
    }

    /// Waits until a line with `text` has been logged.
    pub(crate) fn wait_for_log(&self, text: &str) {
        let log = self.log.lock().unwrap();
        while !log.recv_timeout(PATIENCE).unwrap().contains(text) {}
    }

    /// Waits until so many connections are open.
    pub(crate) fn wait_for_open_connections(&self, home: &TempDir, wanted: u64) {
        wait_for_status(home, |status| status["connections"]["open"] == wanted);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            // Ended already, in some tests.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until the server in `home` says of itself what is wanted.
pub(crate) fn wait_for_status(home: &TempDir, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let data = home.path().join("data");
    let arguments = ["--json", "status", "--data", data.to_str().unwrap()];
    let start = Instant::now();
    loop {
        let answer = program(&arguments).output().unwrap();
        let status = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        if is_wanted(&status) {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "{status}");
    }
}

/// As the server makes its data directory.
pub(crate) fn make_private(directory: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// Somebody who registers.
pub(crate) struct Person {
    secret: IdentitySecret,
    pub(crate) identity: VerifiedIdentity,
}

impl Person {
    /// Version 2 of somebody.
    pub(crate) fn new(number: u64) -> Self {
        Self::with(number, None)
    }

    /// The same, with a picture of so many bytes.
    pub(crate) fn with_picture(number: u64, bytes: usize) -> Self {
        let picture = Bin::new(vec![1; bytes]).unwrap();
        let none = Extensions::default();
        Self::with(number, Some(Extensions { profile_picture: Some(picture), ..none }))
    }

    fn with(number: u64, extensions: Option<Extensions>) -> Self {
        let secret = IdentitySecret::generate(&mut Entropy::from_number(number));
        let data = IdentityData {
            username: Username::new("Somebody").unwrap(),
            identity_key: secret.public(),
            noise_key: NoiseSecret::generate(&mut Entropy::from_number(number)).public(),
            flags: Flags::default(),
            extensions,
            version: 2,
            created: Timestamp::from_millis(1),
        };
        let identity = data.sign(&secret).unwrap();
        Self { secret, identity }
    }

    /// Where is this person?
    pub(crate) fn lookup(&self) -> Message {
        Message::Lookup(Lookup::one(self.identity.key()))
    }

    /// The same person, `more` versions after the first.
    pub(crate) fn with_version(&self, more: u64) -> Self {
        let mut data = self.identity.data().clone();
        data.version = 1 + more;
        let identity = data.sign(&self.secret).unwrap();
        Self { secret: self.secret.clone(), identity }
    }
}

/// A TCP connection from one of this machine's own addresses.
pub(crate) fn connect_from(server: SocketAddr, own: IpAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(own, 0)).unwrap();
        socket.connect(server).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn alpn() -> Vec<Vec<u8>> {
    vec![RENDEZVOUS_ALPN.to_vec()]
}

/// A session with a server.
pub(crate) struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    reader: LongFrameReader,
    unread: Vec<u8>,
    next: RequestId,
    pub(crate) exporter: [u8; 32],
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Self {
        Self::try_connect(server, alpn()).expect("a session")
    }

    /// A session in which the server has sent its header; `None` when it closes instead.
    pub(crate) fn try_connect(server: &Server, protocols: Vec<Vec<u8>>) -> Option<Self> {
        let tcp = TcpStream::connect(server.address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(server, tcp, protocols)
    }

    /// The same over a connection that stands already.
    pub(crate) fn over(server: &Server, tcp: TcpStream, protocols: Vec<Vec<u8>>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&server.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols;
        let name = ServerName::from(server.address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        stream.write_all(&VERSION_HEADER).ok()?;
        let mut header = [0; 7];
        stream.read_exact(&mut header).ok()?;
        let mut reader = LongFrameReader::new();
        assert_eq!(reader.read(&mut header.as_slice()), Ok(None));
        let exporter = stream.conn.export_keying_material([0; 32], TLS_EXPORTER, None).unwrap();
        Some(Self { stream, reader, unread: Vec::new(), next: 0, exporter })
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &Message) -> Message {
        let id = self.next;
        self.next += 2;
        self.stream.write_all(&encode_long_frame(&request.encode(id)).unwrap()).unwrap();
        let (answered, message) = self.read().expect("an answer");
        assert_eq!(answered, id);
        message
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) fn read(&mut self) -> Option<(RequestId, Message)> {
        self.read_on().unwrap()
    }

    fn read_on(&mut self) -> std::io::Result<Option<(RequestId, Message)>> {
        loop {
            let mut bytes = self.unread.as_slice();
            let frame = self.reader.read(&mut bytes).unwrap();
            self.unread = bytes.to_vec();
            if let Some(frame) = frame {
                return Ok(Some(Message::decode(&frame).unwrap()));
            }
            let mut buffer = [0; 4_096];
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                count => self.unread.extend_from_slice(&buffer[..count]),
            }
        }
    }

    pub(crate) fn signed(&self, person: &Person, ttl: u32, listed: bool) -> Register {
        let endpoints = List::new(vec!["198.51.100.7:7330".parse().unwrap()]).unwrap();
        self.signed_at(person, endpoints, ttl, listed)
    }

    pub(crate) fn signed_at(
        &self,
        person: &Person,
        endpoints: List<Endpoint, MAX_ENDPOINTS>,
        ttl: u32,
        listed: bool,
    ) -> Register {
        let registration = Registration { endpoints, ttl, listed };
        let identity = person.identity.identity().clone();
        let signature = registration.sign(&person.secret, &identity, &self.exporter);
        Register { identity, registration, signature, invite: None }
    }

    pub(crate) fn register(
        &mut self,
        person: &Person,
        ttl: u32,
        listed: bool,
    ) -> Result<Registered, ErrorCode> {
        match self.ask(&Message::Register(self.signed(person, ttl, listed))) {
            Message::Registered(registered) => Ok(registered),
            Message::Error(error) => Err(error.code),
            other => panic!("{other:?}"),
        }
    }

    /// The same, with a server that may die meanwhile: nothing then.
    pub(crate) fn try_register(&mut self, person: &Person) -> Option<Registered> {
        let register = Message::Register(self.signed(person, 3_600, false));
        let frame = encode_long_frame(&register.encode(self.next)).unwrap();
        self.next += 2;
        self.stream.write_all(&frame).ok()?;
        match self.read_any()? {
            (_, Message::Registered(registered)) => Some(registered),
            (_, other) => panic!("{other:?}"),
        }
    }

    /// Sends all requests at once, and waits for all answers, which come in the same order.
    pub(crate) fn ask_all(&mut self, requests: &[Message]) -> Vec<Message> {
        let first = self.next;
        let ids = (first..).step_by(2);
        let frames: Vec<u8> = requests
            .iter()
            .zip(ids.clone())
            .flat_map(|(request, id)| encode_long_frame(&request.encode(id)).unwrap())
            .collect();
        self.write_raw(&frames);
        let answers = ids.take(requests.len()).map(|id| {
            self.next = id + 2;
            let (answered, message) = self.read().expect("an answer");
            assert_eq!(answered, id);
            message
        });
        answers.collect()
    }

    /// Writes bytes, whatever they are; the server may have closed already.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next message; `None` at the end of the stream, however it came.
    pub(crate) fn read_any(&mut self) -> Option<(RequestId, Message)> {
        self.read_on().ok().flatten()
    }

    /// The code with which a request is refused, if it is.
    pub(crate) fn code_of(&mut self, request: &Message) -> Option<ErrorCode> {
        match self.ask(request) {
            Message::Error(error) => Some(error.code),
            _ => None,
        }
    }

    /// Tickets for resumption that the server has sent.
    pub(crate) fn tickets(&self) -> u32 {
        self.stream.conn.tls13_tickets_received()
    }
}

pub(crate) fn lookup(client: &mut Client, person: &Person) -> Option<PeerInfo> {
    match client.ask(&person.lookup()) {
        Message::LookupResponse(response) => response.peers.into_iter().next(),
        other => panic!("{other:?}"),
    }
}

/// The description of the fatal alert that the server answers `bytes` with; `Some(0)` when it
/// closes without one.
pub(crate) fn alert_of(server: SocketAddr, bytes: &[u8]) -> Option<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut answer);
    match answer.as_slice() {
        // Record of type alert: version, length 2, level fatal, description.
        [21, 3, _, 0, 2, 2, description, ..] => Some(*description),
        [] => Some(0),
        _ => None,
    }
}

/// A ClientHello of RFC 5246, without the extension `supported_versions` of TLS 1.3.
pub(crate) fn client_hello_of_tls_1_2() -> Vec<u8> {
    let u16be = |value: usize| u16::try_from(value).unwrap().to_be_bytes();
    let extension =
        |number: u16, body: &[u8]| [&number.to_be_bytes()[..], &u16be(body.len()), body].concat();
    let extensions = [
        // X25519 and P-256; uncompressed points; ECDSA with P-256 and SHA-256.
        extension(10, &[0, 4, 0, 0x1d, 0, 0x17]),
        extension(11, &[1, 0]),
        extension(13, &[0, 2, 4, 3]),
        extension(23, &[]),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256; no compression.
        &[0, 2, 0xc0, 0x2b, 1, 0],
        &u16be(extensions.len()),
        &extensions,
    ]
    .concat();
    let handshake = [&[1, 0][..], &u16be(body.len()), &body].concat();
    [&[22, 3, 1][..], &u16be(handshake.len()), &handshake].concat()
}
