//! One TCP connection as a state machine without I/O: version header, Noise handshake, frames,
//! chunks, requests and answers, keep-alive, orderly end.
//!
//! Whoever holds a [`Connection`] feeds it bytes and moments, and after each call takes what it has
//! to say: [`Connection::poll_event`] until `None`, then [`Connection::poll_transmit`] until `None`,
//! then [`Connection::poll_timeout`]. The last event is [`Event::Closed`]; it comes exactly once.
//! What the peer does wrong is such an event, never an error of a method.
//!
//! An idle connection holds its two cipher states, its timers and nothing else.

mod error;
mod open;
mod opening;
mod requests;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

pub use crate::chunk::ReassemblyBudget;
pub use crate::noise::{Caller, Local, Role};
pub use error::{Closed, ConnectionError, NotOpen};

use crate::entropy::Entropy;
use crate::id::IdentityKey;
use crate::noise::Authenticated;
use crate::time::{Instant, Now};
use crate::wire::{ErrorCode, Message, RequestId};
use open::{Open, Outcome};
use opening::Opening;

/// Bytes that may be handed in between [`Event::Established`] and its being polled.
const MAX_HELD: usize = 1024 * 1024;

/// Who is at the other end, and which end is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who is at the other end.
    pub caller: Caller,
    /// Our role.
    pub role: Role,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Both sides have proved who they are. Comes once, before all other events but `Closed`.
    Established(Peer),
    /// The peer asks; to be answered with [`Connection::respond`] unless its type has no answer.
    Request {
        /// Names the request in the answer.
        id: RequestId,
        /// What it asks.
        message: Message,
    },
    /// The peer answers. A subscription is answered again and again under one id.
    Response {
        /// What [`Connection::request`] gave.
        id: RequestId,
        /// The answer, or [`Message::Error`].
        message: Message,
    },
    /// The connection is over. Nothing comes after this; what is still to be written may be.
    Closed(Closed),
}

/// One connection. See the module for how it is driven.
pub struct Connection {
    role: Role,
    entropy: Entropy,
    stage: Stage,
    /// [`Event::Closed`] was queued; in [`Stage::Open`] only the farewell is left to be sent.
    closed: bool,
    peer: Option<Peer>,
    trusted: bool,
    budget: Option<ReassemblyBudget>,
    events: VecDeque<Event>,
    /// Bytes of the handshake.
    transmit: VecDeque<Vec<u8>>,
    /// What came after the handshake waits here until the owner has seen `Established`, so that it
    /// can say how far it trusts the peer before the peer's first message is judged.
    held: Option<Held>,
    now: Instant,
}

enum Stage {
    Opening(Box<Opening>),
    Open(Box<Open>),
    Over,
}

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    eof: bool,
    /// The owner has seen `Established`.
    released: bool,
}

impl Connection {
    /// A connection that we dialled. `expect` is who must answer. An `anonymous` one shows no
    /// identity of ours; only the messages of anonymous sessions can be sent on it.
    #[must_use]
    pub fn dial(
        local: Arc<Local>,
        expect: Option<IdentityKey>,
        anonymous: bool,
        mut entropy: Entropy,
        now: Now,
    ) -> Self {
        let started = Opening::dial(local, expect, anonymous, &mut entropy, now.instant);
        let mut connection = Self::new(Role::Initiator, entropy, now);
        match started {
            Ok((opening, bytes)) => {
                connection.stage = Stage::Opening(Box::new(opening));
                connection.transmit.push_back(bytes);
            }
            Err(error) => connection.fail(error),
        }
        connection
    }

    /// A connection that somebody else dialled.
    #[must_use]
    pub fn accept(local: Arc<Local>, mut entropy: Entropy, now: Now) -> Self {
        let opening = Opening::accept(local, entropy.fork(), now.instant);
        let mut connection = Self::new(Role::Responder, entropy, now);
        connection.stage = Stage::Opening(Box::new(opening));
        connection
    }

    fn new(role: Role, entropy: Entropy, now: Now) -> Self {
        Self {
            role,
            entropy,
            stage: Stage::Over,
            closed: false,
            peer: None,
            trusted: false,
            budget: None,
            events: VecDeque::new(),
            transmit: VecDeque::new(),
            held: None,
            now: now.instant,
        }
    }

    /// Takes what came from the stream, cut anyhow.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Now) {
        self.now = now.instant;
        self.release();
        if self.closed {
            return;
        }
        let processed = match &mut self.held {
            Some(held) if held.bytes.len().saturating_add(bytes.len()) > MAX_HELD => {
                Err(ConnectionError::NotPolled)
            }
            Some(held) => {
                held.bytes.extend_from_slice(bytes);
                Ok(())
            }
            None => self.process(bytes),
        };
        self.settle(processed);
    }

    /// The stream has ended: nothing more will come.
    pub fn handle_eof(&mut self, now: Now) {
        self.now = now.instant;
        self.release();
        if self.closed {
            return;
        }
        match (&mut self.held, &self.stage) {
            (Some(held), _) => held.eof = true,
            (None, Stage::Opening(_)) => self.fail(ConnectionError::HandshakeCutOff),
            (None, Stage::Open(_) | Stage::Over) => self.end(Closed::Unclean),
        }
    }

    /// Time has passed. Calling early, or twice, is harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now.instant;
        if self.closed {
            return;
        }
        let outcome = match &mut self.stage {
            Stage::Opening(opening) => opening.check_time(self.now).map(|()| Outcome::Proceed),
            Stage::Open(open) => open.handle_timeout(self.now, &mut self.entropy),
            Stage::Over => Ok(Outcome::Proceed),
        };
        match outcome {
            Ok(Outcome::Proceed | Outcome::ClosedByPeer(_)) => {}
            Ok(Outcome::Renew) => self.close(ErrorCode::Goodbye),
            Err(error) => self.fail(error),
        }
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            _ if self.closed => None,
            Stage::Opening(opening) => Some(opening.deadline()),
            Stage::Open(open) => Some(open.deadline()),
            Stage::Over => None,
        }
    }

    /// The next bytes to write to the stream, in order. When this gives `None` after
    /// [`Event::Closed`], the stream can be closed.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if let Some(bytes) = self.transmit.pop_front() {
            drop_if_empty(&mut self.transmit);
            return Some(bytes);
        }
        let Stage::Open(open) = &mut self.stage else { return None };
        match open.poll_transmit() {
            Ok(Some(bytes)) => {
                self.settle(Ok(()));
                Some(bytes)
            }
            Ok(None) => {
                if self.closed {
                    self.stage = Stage::Over;
                }
                None
            }
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.release();
        let event = self.events.pop_front()?;
        drop_if_empty(&mut self.events);
        if let (Event::Established(_), Some(held)) = (&event, &mut self.held) {
            held.released = true;
        }
        Some(event)
    }

    /// Asks the peer.
    ///
    /// # Errors
    /// [`NotOpen`]; nothing was queued then.
    pub fn request(&mut self, message: &Message) -> Result<RequestId, NotOpen> {
        match &mut self.stage {
            _ if self.closed => Err(NotOpen::Closed),
            Stage::Opening(_) => Err(NotOpen::NotEstablished),
            Stage::Open(open) => open.request(message),
            Stage::Over => Err(NotOpen::Closed),
        }
    }

    /// Answers a request of the peer; a subscription is answered again and again under one id. Does
    /// nothing once the connection is closed. An answer that is too long is replaced by an error.
    pub fn respond(&mut self, id: RequestId, message: &Message) {
        if let (Stage::Open(open), false) = (&mut self.stage, self.closed) {
            open.respond(id, message);
        }
    }

    /// No longer waits for the answer to a request; if it comes, it is dropped.
    pub fn abandon(&mut self, id: RequestId) {
        if let Stage::Open(open) = &mut self.stage {
            open.abandon(id);
        }
    }

    /// Ends the connection in order: what is queued is sent, then `code`.
    pub fn close(&mut self, code: ErrorCode) {
        if self.closed {
            return;
        }
        match &mut self.stage {
            Stage::Open(open) => open.say_farewell(code),
            Stage::Opening(_) | Stage::Over => {
                self.stage = Stage::Over;
                self.transmit = VecDeque::new();
            }
        }
        self.finish(Closed::Clean(code));
    }

    /// Raises the bound on the peer's messages from `MAX_MESSAGE_STRANGER` to `MAX_MESSAGE`, or
    /// lowers it again. Judged with every chunk; what follows the handshake is not judged before
    /// [`Event::Established`] was polled.
    pub const fn set_peer_trusted(&mut self, trusted: bool) {
        self.trusted = trusted;
    }

    /// Accounts incomplete messages in a budget that is shared with other connections.
    pub fn set_reassembly_budget(&mut self, budget: ReassemblyBudget) {
        if let Stage::Open(open) = &mut self.stage {
            open.set_budget(budget.clone());
        }
        self.budget = Some(budget);
    }

    /// Bytes that are queued and not polled yet. Grows while the peer reads slowly.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let handshake =
            self.transmit.iter().fold(0_usize, |sum, bytes| sum.saturating_add(bytes.len()));
        match &self.stage {
            Stage::Open(open) => handshake.saturating_add(open.queued_bytes()),
            Stage::Opening(_) | Stage::Over => handshake,
        }
    }

    /// Requests can be sent.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Open(_)) && !self.closed
    }

    /// [`Event::Closed`] has come, or is next.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Who is at the other end, once that is proved, until [`Self::forget_peer`].
    #[must_use]
    pub const fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Drops the copy of the peer's identity: it may be tens of kilobytes, with a picture, and
    /// whoever holds ten thousand connections has it from [`Event::Established`].
    pub fn forget_peer(&mut self) {
        self.peer = None;
    }

    /// Processes what waited for the owner to see `Established`.
    fn release(&mut self) {
        let Some(held) = self.held.take_if(|held| held.released) else { return };
        if self.closed {
            return;
        }
        let processed = self.process(&held.bytes);
        self.settle(processed);
        if held.eof && !self.closed {
            self.end(Closed::Unclean);
        }
    }

    fn process(&mut self, mut input: &[u8]) -> Result<(), ConnectionError> {
        match &mut self.stage {
            Stage::Opening(opening) => {
                opening.check_time(self.now)?;
                if let Some(done) = opening.handle_bytes(&mut input, &mut self.transmit)? {
                    self.establish(done);
                    self.held = Some(Held { bytes: input.to_vec(), ..Held::default() });
                }
            }
            Stage::Open(open) => {
                let outcome = open.handle_bytes(input, self.trusted, self.now, &mut self.events)?;
                if let Outcome::ClosedByPeer(code) = outcome {
                    self.end(Closed::Clean(code));
                }
            }
            Stage::Over => {}
        }
        Ok(())
    }

    fn establish(&mut self, done: Authenticated) {
        let Stage::Opening(opening) = &self.stage else { return };
        let anonymous = opening.is_anonymous() || done.caller == Caller::Anonymous;
        let mut open = Open::new(done.session, self.role, anonymous, &mut self.entropy, self.now);
        if let Some(budget) = &self.budget {
            open.set_budget(budget.clone());
        }
        self.stage = Stage::Open(Box::new(open));
        let peer = Peer { caller: done.caller, role: self.role };
        self.peer = Some(peer.clone());
        self.events.push_back(Event::Established(peer));
    }

    /// After each step: a failure ends the connection, and so do keys that are nearly used up.
    fn settle(&mut self, result: Result<(), ConnectionError>) {
        match (result, &self.stage) {
            (Err(error), _) => self.fail(error),
            (Ok(()), Stage::Open(open)) if open.is_worn() => self.close(ErrorCode::Goodbye),
            (Ok(()), _) => {}
        }
    }

    /// Ends the connection for a reason that the peer is told, if there is still a way to.
    fn fail(&mut self, error: ConnectionError) {
        if self.closed {
            self.stage = Stage::Over;
            return;
        }
        match &mut self.stage {
            Stage::Open(open) if error.can_be_told() => open.break_off(error.code()),
            // A mismatch of versions leaves our header in `transmit`: the peer reports both.
            Stage::Opening(_) | Stage::Open(_) | Stage::Over => self.stage = Stage::Over,
        }
        self.finish(Closed::Failed(error));
    }

    /// Ends the connection at once: nobody reads at the other end.
    fn end(&mut self, closed: Closed) {
        self.stage = Stage::Over;
        self.finish(closed);
    }

    fn finish(&mut self, closed: Closed) {
        self.closed = true;
        self.held = None;
        self.events.push_back(Event::Closed(closed));
    }
}

/// A queue keeps its memory when it runs empty; ten thousand idle connections should not.
fn drop_if_empty<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Opening(_) => "opening",
            Stage::Open(_) => "open",
            Stage::Over => "over",
        };
        f.debug_struct("Connection")
            .field("role", &self.role)
            .field("stage", &stage)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
