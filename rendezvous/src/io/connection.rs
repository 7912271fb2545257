//! One connection: TLS handshake, then a [`Session`] driven over the stream.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use sremp_common::io::Clock;
use sremp_common::io::doors::Visitor;
use sremp_common::io::gate::Slot;
use sremp_common::io::lifecycle::Lifecycle;
use sremp_common::label::{RENDEZVOUS_ALPN, TLS_EXPORTER};
use sremp_common::limit::HANDSHAKE_TIMEOUT;
use sremp_common::neighbourhood::blurred;
use sremp_common::time::Instant;
use sremp_common::wire::{ErrorCode, Message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::Certificates;
use super::storage::Jobs;
use crate::protocol::{Ending, Session};
use crate::registry::{Origin, Wanted};

/// Bytes read at a time.
const READ_BUFFER: usize = 4 * 1024;

/// How long a client may take to read an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) jobs: Jobs,
    pub(super) clock: Clock,
    pub(super) certificates: Arc<Certificates>,
    pub(super) life: Lifecycle,
    /// Seconds after which a silent connection is closed.
    pub(super) idle_timeout: AtomicU32,
    /// Seconds that a stop may take.
    pub(super) drain_timeout: AtomicU32,
    /// Connections that ended by a failed handshake, broke, or broke a rule, since the start.
    pub(super) failed: AtomicU64,
}

/// Why a connection failed below the protocol.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the client did not ask for this protocol (ALPN)")]
    Protocol,
    #[error("the TLS session has no exporter: {0}")]
    Exporter(rustls::Error),
    #[error("the client does not read its answers")]
    WriteTimeout,
    #[error("the connection broke: {0}")]
    Broken(io::Error),
}

/// Serves one client to its end.
pub(super) async fn attend(visitor: Visitor, shared: Arc<Shared>) {
    let address = visitor.address.ip();
    let tls = shared.certificates.current();
    match serve(visitor, tls, &shared).await {
        Ok(ending) => {
            if ending == Ending::Malformed {
                shared.failed.fetch_add(1, Ordering::Relaxed);
            }
            tracing::debug!(network = blurred(address), ?ending, "connection closed");
        }
        Err(error) => {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(network = blurred(address), %error, "connection failed");
        }
    }
}

async fn serve(
    visitor: Visitor,
    tls: Arc<ServerConfig>,
    shared: &Shared,
) -> Result<Ending, ConnectionError> {
    let Visitor { stream, address, slot } = visitor;
    // Answers are small and wanted at once; without it they are only later.
    let _ = stream.set_nodelay(true);
    let mut stream = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(stream))
        .await
        .map_err(|_| ConnectionError::HandshakeTimeout)?
        .map_err(ConnectionError::Handshake)?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(RENDEZVOUS_ALPN) {
        return Err(ConnectionError::Protocol);
    }
    let exporter = session
        .export_keying_material([0; 32], TLS_EXPORTER, None)
        .map_err(ConnectionError::Exporter)?;
    // TLS alone proves nothing about the client; who registered will be known.
    slot.established(false);
    let origin = Origin { address, exporter };
    let ending = drive(&mut stream, origin, &slot, shared).await?;
    // The client may be gone already.
    let _ = timeout(WRITE_TIMEOUT, stream.shutdown()).await;
    Ok(ending)
}

/// Moves bytes and requests until the session ends.
async fn drive(
    stream: &mut TlsStream<TcpStream>,
    origin: Origin,
    slot: &Slot,
    shared: &Shared,
) -> Result<Ending, ConnectionError> {
    // Read once whenever something has come, or has been waited for.
    let mut now = shared.clock.now();
    let idle_timeout = Duration::from_secs(shared.idle_timeout.load(Ordering::Relaxed).into());
    let mut session = Session::new(idle_timeout, now.instant);
    let farewell = shared.life.farewell(slot.number());
    let mut timer = Timer::new();
    tokio::pin!(farewell);
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        match session.poll_wanted() {
            Some(Wanted::Question(question)) => {
                let answer = shared.jobs.answer(&question, &origin, now).await;
                session.handle_answer(&answer, now.instant);
                continue;
            }
            Some(Wanted::Request(request)) => {
                // What is answered already does not wait for a commit.
                write(stream, &mut session).await?;
                let answer = shared.jobs.ask(request, origin).await;
                if matches!(answer, Message::Registered(_)) {
                    slot.established(true);
                }
                now = shared.clock.now();
                session.handle_answer(&answer, now.instant);
                continue;
            }
            None => write(stream, &mut session).await?,
        }
        if let Some(ending) = session.ending() {
            return Ok(ending);
        }
        if !session.wants_bytes() {
            // There is room for answers again.
            now = shared.clock.now();
            continue;
        }
        let event = tokio::select! {
            read = stream.read(&mut buffer) => Event::Read(read),
            () = timer.wait(session.poll_timeout(), now.instant) => Event::Time,
            () = &mut farewell => Event::Farewell,
        };
        now = shared.clock.now();
        match event {
            Event::Read(Ok(count)) if count > 0 => {
                session.handle_bytes(buffer.get(..count).unwrap_or_default(), now.instant);
            }
            Event::Read(Ok(_)) => session.handle_eof(),
            // Many clients leave without saying goodbye to TLS.
            Event::Read(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                session.handle_eof();
            }
            Event::Read(Err(error)) => return Err(ConnectionError::Broken(error)),
            Event::Time => session.handle_timeout(now.instant),
            Event::Farewell => session.close(ErrorCode::Unavailable),
        }
    }
}

/// What a connection waited for.
enum Event {
    Read(io::Result<usize>),
    Time,
    Farewell,
}

async fn write(
    stream: &mut TlsStream<TcpStream>,
    session: &mut Session,
) -> Result<(), ConnectionError> {
    while let Some(bytes) = session.poll_transmit() {
        let mut written = pin!(async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        });
        // Nearly always there is room at once: no timer is made then.
        let at_once = poll_fn(|context| Poll::Ready(written.as_mut().poll(context))).await;
        let result = match at_once {
            Poll::Ready(result) => result,
            Poll::Pending => {
                timeout(WRITE_TIMEOUT, written).await.map_err(|_| ConnectionError::WriteTimeout)?
            }
        };
        result.map_err(ConnectionError::Broken)?;
    }
    Ok(())
}

/// One timer for all deadlines of a connection. Deadlines move with every message, mostly to a later
/// time: it is left to wake too early then, which costs less than to move it each time.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    set_to: Option<Instant>,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), set_to: None }
    }

    /// Waits for a deadline, which may be another one each time, at most.
    async fn wait(&mut self, deadline: Option<Instant>, now: Instant) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        if self.set_to.is_none_or(|set_to| deadline < set_to) {
            self.set_to = Some(deadline);
            self.sleep.as_mut().reset(tokio::time::Instant::now() + deadline.since(now));
        }
        self.sleep.as_mut().await;
        self.set_to = None;
    }
}
