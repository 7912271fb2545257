//! Runs one [`Connection`] over one stream, in one task: bytes in and out, timers, commands of its
//! owner, events to its owner. Accepting, dialling and what the messages mean are others' work.
//!
//! The owner must never wait for the driver: it hands commands over with `try_send` and takes a full
//! queue for a peer that does not read. The driver does wait for the owner: while an event finds no
//! room, nothing more is read.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::connection::{Connection, Event, NotOpen};
use crate::time::{Instant, Now};
use crate::wire::{ErrorCode, Message, RequestId};

/// Bytes read at a time, into a buffer on the stack: an idle connection has none.
const READ_BUFFER: usize = 32 * 1024;
/// Time that a peer has to see our end of the stream and end its own.
const LINGER: Duration = Duration::from_secs(1);

/// What the owner of a connection wants of it.
#[derive(Debug)]
pub enum Command {
    /// Ask the peer.
    Request {
        /// What to ask.
        message: Box<Message>,
        /// Told the number under which the answer will come.
        asked: Option<oneshot::Sender<Result<RequestId, NotOpen>>>,
    },
    /// Answer the peer.
    Respond {
        /// Number of its request.
        id: RequestId,
        /// The answer.
        message: Box<Message>,
    },
    /// As [`Connection::set_peer_trusted`].
    Trust(bool),
    /// End the connection in order.
    Close(ErrorCode),
}

/// What a peer that reads slowly may cost.
#[derive(Clone, Copy, Debug)]
pub struct DriveLimits {
    /// Bytes that may be queued for it.
    pub max_queued: usize,
    /// Time that it may take for each piece of at most about 32 KiB; also for the whole farewell.
    pub write_timeout: Duration,
}

impl Default for DriveLimits {
    /// Two of the longest messages, and ten seconds.
    fn default() -> Self {
        Self { max_queued: 8 * 1024 * 1024, write_timeout: Duration::from_secs(10) }
    }
}

/// Why the driver stopped. The owner has been given [`Event::Closed`] in every case but the last.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The connection ended by its own rules: the event says how.
    #[error("closed")]
    Closed,
    /// The stream failed.
    #[error("the stream failed")]
    Stream(#[source] io::Error),
    /// The peer did not read what was written, or too much was queued for it.
    #[error("the peer reads too slowly")]
    SlowReader,
    /// Nobody takes the events any more.
    #[error("the owner is gone")]
    Abandoned,
}

/// Runs `connection` over `stream` until it is closed and everything is written.
///
/// Each event is handed over as `wrap(event)`, so that many connections can share one queue. `now`
/// reads the clocks. The connection is boxed, because futures keep a copy of what they are given beside
/// what they make of it. When all senders of `commands` are dropped, the connection is closed in order.
pub async fn drive<S, T>(
    stream: S,
    connection: Box<Connection>,
    mut commands: mpsc::Receiver<Command>,
    events: &mpsc::Sender<T>,
    wrap: impl Fn(Event) -> T,
    now: impl Fn() -> Now,
    limits: DriveLimits,
) -> Stopped
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut driver = Driver::new(stream, connection, limits);
    loop {
        driver.refill(now().instant);
        if driver.is_done() {
            break;
        }
        let wake = driver.wake_after(now().instant);
        tokio::select! {
            moved = driver.move_bytes(&now) => {
                if let Err(error) = moved {
                    driver.stop(Stopped::Stream(error), now());
                }
            }
            permit = events.reserve(), if driver.event.is_some() => match (permit, driver.event.take()) {
                (Ok(permit), Some(event)) => permit.send(wrap(event)),
                _ => return Stopped::Abandoned,
            },
            command = commands.recv(), if !driver.connection.is_closed() => {
                driver.obey(command.unwrap_or(Command::Close(ErrorCode::Goodbye)), now());
            }
            () = sleep(wake) => driver.handle_timeout(now()),
        }
    }
    driver.linger().await;
    driver.stopped.unwrap_or(Stopped::Closed)
}

struct Driver<S> {
    stream: S,
    connection: Box<Connection>,
    limits: DriveLimits,
    /// Next to be handed over.
    event: Option<Event>,
    /// Being written, and how far.
    out: Vec<u8>,
    written: usize,
    /// When what is being written must have been taken.
    write_by: Option<Instant>,
    /// When the farewell must have been taken.
    flush_by: Option<Instant>,
    eof: bool,
    stopped: Option<Stopped>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    const fn new(stream: S, connection: Box<Connection>, limits: DriveLimits) -> Self {
        Self {
            stream,
            connection,
            limits,
            event: None,
            out: Vec::new(),
            written: 0,
            write_by: None,
            flush_by: None,
            eof: false,
            stopped: None,
        }
    }

    /// Takes the next event and the next bytes from the connection when their places are free.
    fn refill(&mut self, now: Instant) {
        if self.event.is_none() {
            self.event = self.connection.poll_event();
            if matches!(self.event, Some(Event::Established(_))) {
                // The event carries the identity; two copies are one too many.
                self.connection.forget_peer();
            }
        }
        if self.stopped.is_some() {
            self.out = Vec::new();
            self.write_by = None;
            return;
        }
        if self.out.is_empty() {
            self.out = self.connection.poll_transmit().unwrap_or_default();
            self.written = 0;
            self.write_by = (!self.out.is_empty()).then(|| now + self.limits.write_timeout);
            // Sealing may have failed.
            if self.event.is_none() {
                self.event = self.connection.poll_event();
            }
        }
        if self.connection.is_closed() {
            self.flush_by.get_or_insert(now + self.limits.write_timeout);
        }
    }

    const fn is_done(&self) -> bool {
        self.connection.is_closed() && self.event.is_none() && self.out.is_empty()
    }

    fn wake_after(&self, now: Instant) -> Duration {
        // Without anything to wait for there is a command or an event.
        const LONG: Duration = Duration::from_secs(3600);
        let flush_by = if self.out.is_empty() { None } else { self.flush_by };
        [self.connection.poll_timeout(), self.write_by, flush_by]
            .into_iter()
            .flatten()
            .min()
            .map_or(LONG, |at| at.since(now))
    }

    fn handle_timeout(&mut self, now: Now) {
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        if !self.out.is_empty() && (is_past(self.write_by) || is_past(self.flush_by)) {
            self.stop(Stopped::SlowReader, now);
        }
        self.connection.handle_timeout(now);
    }

    fn obey(&mut self, command: Command, now: Now) {
        match command {
            Command::Request { message, asked } => {
                let id = self.connection.request(&message);
                if let Some(asked) = asked {
                    // Whoever asked may not care any more.
                    let _ = asked.send(id);
                }
            }
            Command::Respond { id, message } => self.connection.respond(id, &message),
            Command::Trust(trusted) => self.connection.set_peer_trusted(trusted),
            Command::Close(code) => self.connection.close(code),
        }
        if self.connection.queued_bytes() > self.limits.max_queued {
            self.stop(Stopped::SlowReader, now);
        }
    }

    /// Nothing more is read or written.
    fn stop(&mut self, why: Stopped, now: Now) {
        self.connection.handle_eof(now);
        self.stopped.get_or_insert(why);
        self.eof = true;
    }

    /// Writes and reads once, whichever is possible first.
    async fn move_bytes(&mut self, now: &impl Fn() -> Now) -> io::Result<()> {
        poll_fn(|cx| {
            if let Poll::Ready(written) = self.poll_write(cx) {
                return Poll::Ready(written);
            }
            self.poll_read(cx, now)
        })
        .await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = self.out.get(self.written..).unwrap_or_default();
        if rest.is_empty() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_write(cx, rest) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => {
                self.written = self.written.saturating_add(count);
                if self.written >= self.out.len() {
                    self.out = Vec::new();
                    self.write_by = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: &impl Fn() -> Now) -> Poll<io::Result<()>> {
        if self.eof || self.event.is_some() || self.connection.is_closed() {
            return Poll::Pending;
        }
        let mut bytes = [MaybeUninit::uninit(); READ_BUFFER];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                self.eof = true;
                self.connection.handle_eof(now());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => {
                self.connection.handle_bytes(buffer.filled(), now());
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Ends our side and waits a moment for the peer's end: closing while its bytes are unread
    /// would reset the stream, and the farewell with it.
    async fn linger(&mut self) {
        if self.stopped.is_some() || self.stream.shutdown().await.is_err() || self.eof {
            return;
        }
        let ended = poll_fn(|cx| {
            loop {
                let mut bytes = [MaybeUninit::uninit(); READ_BUFFER];
                let mut buffer = ReadBuf::uninit(&mut bytes);
                match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
        });
        // Whether it ended in time makes no difference.
        let _ = timeout(LINGER, ended).await;
    }
}

#[cfg(test)]
mod tests;
