//! Network tasks: dial, accept, read, write. They carry bytes and decide nothing, but for one
//! thing: after a name is resolved, a private address is not dialled unless that is allowed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sremp_common::wire::{Endpoint, Host};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::tls;
use crate::transport::{ConnId, DialError, Effect, Input, RendezvousServer, is_public};

/// Reports that may wait for the core: readers stop reading when it is full.
pub const MAX_REPORTS: usize = 1024;
/// Bytes read at a time.
const READ: usize = 64 * 1024;
/// Time to write what was left when a connection is closed.
const LINGER: Duration = Duration::from_secs(3);
/// Time to open a TLS session with a rendezvous server.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are accepted at a time.
const MAX_ACCEPTED: usize = 512;
/// Pause after a failed accept, for example because no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a network task reports.
#[derive(Debug)]
pub enum NetEvent {
    /// Somebody connected; the sender writes to them.
    Accepted(ConnId, SocketAddr, mpsc::UnboundedSender<Write>, oneshot::Sender<()>),
    /// Anything else, ready for the transport.
    Input(Input),
}

/// An order to a connection's writer. The transport bounds what is under way.
#[derive(Debug)]
pub enum Write {
    /// Write these bytes.
    Bytes(Vec<u8>),
    /// Close, after what was written before.
    Close,
}

/// What a connection's task is told.
struct Orders {
    orders: mpsc::UnboundedReceiver<Write>,
    /// Ends when nobody wants the connection any more.
    unwanted: oneshot::Receiver<()>,
}

/// The connections, as the core thread knows them.
#[derive(Debug)]
pub struct Network {
    runtime: Handle,
    reports: mpsc::Sender<NetEvent>,
    connections: BTreeMap<ConnId, Connection>,
}

#[derive(Debug)]
struct Connection {
    writer: mpsc::UnboundedSender<Write>,
    /// The task that dials, until it has reached somebody.
    dial: Option<AbortHandle>,
    /// Dropped when the connection shall end: then its task has little time left.
    wanted: oneshot::Sender<()>,
}

impl Network {
    /// No connections; tasks run on `runtime`.
    #[must_use]
    pub const fn new(runtime: Handle, reports: mpsc::Sender<NetEvent>) -> Self {
        Self { runtime, reports, connections: BTreeMap::new() }
    }

    /// Takes note of a report, and gives the transport's part of it.
    pub fn note(&mut self, event: NetEvent) -> Input {
        match event {
            NetEvent::Accepted(conn, from, writer, wanted) => {
                self.connections.insert(conn, Connection { writer, dial: None, wanted });
                Input::Accepted { conn, from }
            }
            NetEvent::Input(input) => {
                match &input {
                    Input::Connected { conn } | Input::TlsConnected { conn, .. } => {
                        if let Some(connection) = self.connections.get_mut(conn) {
                            connection.dial = None;
                        }
                    }
                    Input::DialFailed { conn, .. } | Input::Eof { conn } => {
                        self.connections.remove(conn);
                    }
                    Input::Accepted { .. } | Input::Bytes { .. } | Input::Written { .. } => {}
                }
                input
            }
        }
    }

    /// Does what the transport asks for.
    pub fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Dial { conn, to, allow_private } => {
                let (writer, orders) = mpsc::unbounded_channel();
                let (wanted, unwanted) = oneshot::channel();
                let orders = Orders { orders, unwanted };
                let task = dial(conn, to, allow_private, self.reports.clone(), orders);
                let dial = Some(self.runtime.spawn(task).abort_handle());
                self.connections.insert(conn, Connection { writer, dial, wanted });
            }
            Effect::DialTls { conn, server } => {
                let (writer, orders) = mpsc::unbounded_channel();
                let (wanted, unwanted) = oneshot::channel();
                let orders = Orders { orders, unwanted };
                let task = dial_tls(conn, server, self.reports.clone(), orders);
                let dial = Some(self.runtime.spawn(task).abort_handle());
                self.connections.insert(conn, Connection { writer, dial, wanted });
            }
            Effect::Write { conn, bytes } => {
                if let Some(connection) = self.connections.get(&conn) {
                    // A writer that is gone has reported, or will report, the end of the stream.
                    let _ = connection.writer.send(Write::Bytes(bytes));
                }
            }
            Effect::Close { conn } => {
                if let Some(connection) = self.connections.remove(&conn) {
                    match connection.dial {
                        Some(dial) => dial.abort(),
                        None => {
                            let _ = connection.writer.send(Write::Close);
                            drop(connection.wanted);
                        }
                    }
                }
            }
        }
    }

    /// Gives writers the time to say goodbye.
    pub async fn drain(&mut self) {
        for connection in std::mem::take(&mut self.connections).into_values() {
            let _ = connection.writer.send(Write::Close);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn dial(
    conn: ConnId,
    to: Endpoint,
    allow_private: bool,
    reports: mpsc::Sender<NetEvent>,
    orders: Orders,
) {
    match connect(&to, allow_private).await {
        Ok(stream) => {
            if reports.send(NetEvent::Input(Input::Connected { conn })).await.is_ok() {
                carry(conn, stream, reports, orders).await;
            }
        }
        Err(why) => {
            let _ = reports.send(NetEvent::Input(Input::DialFailed { conn, why })).await;
        }
    }
}

/// Resolves, checks each address, and connects to the first one that may be dialled and answers:
/// the address that was checked is the address that is dialled.
async fn connect(to: &Endpoint, allow_private: bool) -> Result<TcpStream, DialError> {
    let addresses: Vec<SocketAddr> = match &to.host {
        Host::Address(address) => vec![SocketAddr::new(*address, to.port)],
        Host::Name(name) => {
            let found = tokio::net::lookup_host((name.as_str(), to.port)).await;
            found.map_err(|_| DialError::NameNotFound)?.collect()
        }
    };
    let mut why = DialError::NameNotFound;
    for address in addresses {
        if !allow_private && !is_public(address.ip()) {
            tracing::info!(
                "an address of a private network was not dialled, because somebody else named it; \
                 in closed networks set node.allow_private_addresses"
            );
            why = DialError::Private;
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => why = tls::dial_error(&error),
        }
    }
    Err(why)
}

async fn dial_tls(
    conn: ConnId,
    server: RendezvousServer,
    reports: mpsc::Sender<NetEvent>,
    orders: Orders,
) {
    let open = async {
        let config = tls::client_config(server.ca.as_deref())?;
        tls::connect(&server.endpoint, config).await
    };
    match tokio::time::timeout(TLS_TIMEOUT, open).await {
        Ok(Ok((stream, exporter))) => {
            let connected = Input::TlsConnected { conn, exporter };
            if reports.send(NetEvent::Input(connected)).await.is_ok() {
                carry(conn, stream, reports, orders).await;
            }
        }
        failed => {
            let why = if let Ok(Err(error)) = failed {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(server = %server.endpoint, %error, source, "no TLS session");
                error.reason()
            } else {
                tracing::warn!(server = %server.endpoint, "no TLS session in time");
                DialError::TimedOut
            };
            let _ = reports.send(NetEvent::Input(Input::DialFailed { conn, why })).await;
        }
    }
}

/// Carries bytes both ways until either side ends.
async fn carry<S: AsyncRead + AsyncWrite + Send + 'static>(
    conn: ConnId,
    stream: S,
    reports: mpsc::Sender<NetEvent>,
    orders: Orders,
) {
    let (reader, writer) = tokio::io::split(stream);
    let Orders { orders, unwanted } = orders;
    tokio::select! {
        // A peer that does not read cannot hold the connection any longer than this.
        () = async {
            let _ = unwanted.await;
            tokio::time::sleep(LINGER).await;
        } => {}
        () = read(conn, reader, &reports) => {
            let _ = reports.send(NetEvent::Input(Input::Eof { conn })).await;
        }
        wanted = write(conn, writer, orders, &reports) => {
            if !wanted {
                let _ = reports.send(NetEvent::Input(Input::Eof { conn })).await;
            }
        }
    }
}

async fn read(conn: ConnId, mut reader: impl AsyncRead + Unpin, reports: &mpsc::Sender<NetEvent>) {
    let mut buffer = vec![0; READ];
    while let Ok(count) = reader.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return };
        let input = Input::Bytes { conn, bytes: bytes.to_vec() };
        if reports.send(NetEvent::Input(input)).await.is_err() {
            return;
        }
    }
}

/// Writes until told to close (`true`), or until the stream fails (`false`).
async fn write(
    conn: ConnId,
    mut writer: impl AsyncWrite + Unpin,
    mut orders: mpsc::UnboundedReceiver<Write>,
    reports: &mpsc::Sender<NetEvent>,
) -> bool {
    while let Some(order) = orders.recv().await {
        match order {
            Write::Bytes(bytes) => {
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return false;
                }
                let written = Input::Written { conn, bytes: bytes.len() };
                if reports.send(NetEvent::Input(written)).await.is_err() {
                    return true;
                }
            }
            Write::Close => break,
        }
    }
    let _ = tokio::time::timeout(LINGER, writer.shutdown()).await;
    true
}

/// Accepts connections and hands them to the core.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Where it listens: with the port that the system chose, if it was asked to.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts for ever; at most `MAX_ACCEPTED` connections are open at a time.
    pub async fn accept(self, reports: mpsc::Sender<NetEvent>) {
        let permits = Arc::new(Semaphore::new(MAX_ACCEPTED));
        let next = AtomicU64::new(2);
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let Ok((stream, from)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let conn = next.fetch_add(2, Ordering::Relaxed);
            let (writer, orders) = mpsc::unbounded_channel();
            let (wanted, unwanted) = oneshot::channel();
            let accepted = NetEvent::Accepted(conn, from, writer, wanted);
            if reports.send(accepted).await.is_err() {
                return;
            }
            let orders = Orders { orders, unwanted };
            let reports = reports.clone();
            tokio::spawn(async move {
                carry(conn, stream, reports, orders).await;
                drop(permit);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that leads inside is as good as the address: what was resolved is checked, each of it,
    /// and dialled without being resolved again.
    #[tokio::test]
    async fn r11_a_name_that_leads_inside_is_not_dialled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
            let endpoint: Endpoint = format!("{host}:{port}").parse().unwrap();
            assert_eq!(connect(&endpoint, false).await.unwrap_err(), DialError::Private, "{host}");
            assert!(connect(&endpoint, true).await.is_ok(), "{host}");
        }
    }

    #[tokio::test]
    async fn why_a_dial_failed_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint: Endpoint = listener.local_addr().unwrap().into();
        drop(listener);
        assert_eq!(connect(&endpoint, true).await.unwrap_err(), DialError::Refused);
        // Reserved for names that never exist (RFC 6761).
        let endpoint: Endpoint = "nowhere.invalid:1".parse().unwrap();
        assert_eq!(connect(&endpoint, true).await.unwrap_err(), DialError::NameNotFound);
    }
}
