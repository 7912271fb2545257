//! Calls to identities, over whatever connection there is: the contract of this layer.
//!
//! A [`Transport`] holds every connection of a node: those that it dials, those that it accepts, and
//! those to rendezvous servers. Above it nobody sees a connection: a [`Target`] is called, and the
//! call is answered once. Below it the shell carries bytes and resolves names, nothing else.
//!
//! It stores nothing, decides nothing about messages, and trusts nobody: what a peer does wrong is
//! counted in [`Counters`] and closes the peer's session; it is never an error of ours.
//!
//! ```text
//! call --> Link, one for each target --> Session, one Connection --> Effect::Write
//!            |
//!            +-- no session? Dial: candidates 250 ms apart --> Effect::Dial
//! ```

mod address;
mod call;
mod check;
mod dial;
mod gate;
mod incoming;
mod keep;
mod life;
mod link;
mod policy;
mod reason;
mod rendezvous;
mod session;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sremp_common::connection::{Local, ReassemblyBudget, Role};
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, Token};
use sremp_common::identity::VerifiedIdentity;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Endpoint, ErrorBody, ErrorCode, Message, Registration, RequestId};

use call::{Body, CallId, Calls, Place};
use gate::Gate;
use keep::Keep;
use life::End;
use link::{Link, LinkKey};
use rendezvous::Server;
use session::Session;

pub use address::{Candidate, Origin, is_public};
pub use incoming::{
    MAX_CONNECTIONS, MAX_HALF_OPEN, MAX_HALF_OPEN_PER_NETWORK, MAX_STRANGER_SESSIONS,
};
pub use reason::{CertificateFault, DialError};
pub use session::WRITE_WINDOW;
pub use status::{Counters, Direction, SessionKind, SessionView};

/// A connection. The transport gives odd numbers to those that it dials, the shell gives even
/// numbers to those that it accepts; a number is never used twice.
pub type ConnId = u64;

/// An open session: the number of its connection.
pub type SessionId = ConnId;

/// What the outside world did.
#[derive(Debug)]
pub enum Input {
    /// Somebody connected to us. `conn` is even and new.
    Accepted {
        /// The shell's number.
        conn: ConnId,
        /// Where the bytes come from.
        from: SocketAddr,
    },
    /// An [`Effect::Dial`] reached somebody.
    Connected {
        /// As in the effect.
        conn: ConnId,
    },
    /// An [`Effect::Dial`] or [`Effect::DialTls`] reached nobody, or only addresses that may not
    /// be dialled, or TLS failed.
    DialFailed {
        /// As in the effect.
        conn: ConnId,
        /// Why.
        why: DialError,
    },
    /// An [`Effect::DialTls`] reached a server that proved its name.
    TlsConnected {
        /// As in the effect.
        conn: ConnId,
        /// TLS exporter of this connection under the label [`sremp_common::label::TLS_EXPORTER`].
        exporter: [u8; 32],
    },
    /// Bytes arrived, in any split.
    Bytes {
        /// On which connection.
        conn: ConnId,
        /// What arrived.
        bytes: Vec<u8>,
    },
    /// As many bytes of earlier [`Effect::Write`]s were taken by the operating system. Without
    /// this a connection stalls at [`WRITE_WINDOW`]: it is how slow readers are noticed.
    Written {
        /// On which connection.
        conn: ConnId,
        /// How many since the last report.
        bytes: usize,
    },
    /// The stream ended or failed.
    Eof {
        /// Which one.
        conn: ConnId,
    },
}

/// What the shell has to do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect by TCP; answer with [`Input::Connected`] or [`Input::DialFailed`].
    Dial {
        /// Number of the new connection.
        conn: ConnId,
        /// Where to.
        to: Endpoint,
        /// When false, every address is checked by [`is_public`] after resolution, and the checked
        /// address is the one that is dialled (R10, R11).
        allow_private: bool,
    },
    /// Connect by TLS 1.3; answer with [`Input::TlsConnected`] or [`Input::DialFailed`].
    DialTls {
        /// Number of the new connection.
        conn: ConnId,
        /// Where to, and whom to believe.
        server: RendezvousServer,
    },
    /// Write; report with [`Input::Written`].
    Write {
        /// On which connection.
        conn: ConnId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close, after what was written before, within a few seconds. Nothing more is heard of the
    /// connection. It also ends a dial.
    Close {
        /// Which one.
        conn: ConnId,
    },
}

/// A rendezvous server as its user configured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RendezvousServer {
    /// Name and port; the certificate must be for this name.
    pub endpoint: Endpoint,
    /// A file with the authority to believe instead of the system's.
    pub ca: Option<PathBuf>,
    /// Shown with every registration: the server decides whether it is needed.
    pub invite: Option<Token>,
}

/// Whom a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The node of somebody who may know who we are.
    Peer(IdentityKey),
    /// A relay that keeps our own mailbox. Shares its session with [`Self::Peer`] of the same key.
    OwnRelay(IdentityKey),
    /// A keeper of somebody's mailbox, who must not learn who we are; one session for each
    /// conversation, so that the keeper cannot connect two of them.
    Anonymous(IdentityKey, u64),
    /// A rendezvous server, by its place in the list given to [`Transport::set_rendezvous`].
    Rendezvous(usize),
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No session, and none of the candidates led to the target.
    #[error("not reachable: {0}")]
    Unreachable(DialError),
    /// The target answered with an error.
    #[error("refused: {:?}", .0.code)]
    Refused(ErrorBody),
    /// No answer in time. The call may have been carried out.
    #[error("timed out")]
    TimedOut,
    /// The session ended before the answer. The call may have been carried out.
    #[error("the session ended")]
    Closed,
    /// The answer is not one to this call, or breaks a rule.
    #[error("the other side broke the protocol: {0}")]
    Misbehaved(&'static str),
    /// The target is one of those that get no session, or none of this kind.
    #[error("rejected")]
    Rejected,
    /// No request, too long, or not one for this kind of target: a defect of ours.
    #[error("this cannot be asked there")]
    Unsendable,
    /// More calls wait for this target than we keep.
    #[error("too many calls wait for this target")]
    Busy,
}

/// What happened, for the layers above.
#[derive(Debug)]
pub enum Event {
    /// A session is open on which either side may call. Not announced: our own anonymous ones.
    SessionUp {
        /// Names it from here on.
        session: SessionId,
        /// Who is there; `None` for an anonymous caller of ours.
        peer: Option<Arc<VerifiedIdentity>>,
        /// Ours: the initiator dialled.
        role: Role,
        /// A relay that we keep a session with.
        relay: bool,
        /// Where the peer's bytes come from, when it dialled us.
        from: Option<SocketAddr>,
    },
    /// A session that was announced has ended.
    SessionDown {
        /// Which one.
        session: SessionId,
        /// Who was there.
        peer: Option<IdentityKey>,
    },
    /// Somebody calls us. To be answered by [`Transport::respond`], unless the type has no answer.
    Incoming {
        /// On which session.
        session: SessionId,
        /// Who calls; `None` when anonymous.
        caller: Option<Arc<VerifiedIdentity>>,
        /// Names the request in its session.
        request_id: RequestId,
        /// The request.
        message: Message,
    },
    /// The one answer to a [`Transport::call`] or [`Transport::register`]. `Ok` is the right type
    /// for the request. `RetrieveMessages` is answered by `Done` when the first batch comes (the
    /// batches themselves are [`Event::Pushed`]); what has no answer (`Ack`, `KeyPackagesLow`) is
    /// answered by `Done` once it is handed to a session, which says nothing about its arrival.
    Answer {
        /// As in the call.
        tag: u64,
        /// The answer, never `Message::Error`.
        result: Result<Message, CallError>,
    },
    /// A keeper of our mailbox sends something by itself: `MessageBatch` or `KeyPackagesLow`.
    Pushed {
        /// On which session.
        session: SessionId,
        /// The keeper.
        from: IdentityKey,
        /// What it sends.
        message: Message,
    },
    /// A dial for an identified session (call, probe or kept relay) tried every candidate in vain.
    Unreached {
        /// Who was dialled.
        peer: IdentityKey,
        /// What the last candidate came to.
        why: DialError,
    },
}

/// What may differ between nodes.
#[derive(Clone, Debug, Default)]
pub struct TransportConfig {
    /// Dial private and special addresses whoever told them: for testnets.
    pub allow_private_addresses: bool,
}

/// Every connection of a node. See the module's text.
///
/// Invariant: each call is in exactly one place, waiting at a link or a rendezvous server, or sent
/// on a session, until its one [`Event::Answer`]; see [`Self::check_invariants`].
#[derive(Debug)]
pub struct Transport {
    local: Arc<Local>,
    config: TransportConfig,
    entropy: Entropy,
    /// Bounds the incomplete messages of all connections together.
    budget: ReassemblyBudget,
    next_conn: ConnId,
    sessions: BTreeMap<ConnId, Session>,
    links: BTreeMap<LinkKey, Link>,
    calls: Calls,
    relays: BTreeMap<IdentityKey, Keep>,
    servers: Vec<Server>,
    gate: Gate,
    known: BTreeSet<IdentityKey>,
    rejected: BTreeSet<IdentityKey>,
    relay_only: BTreeSet<IdentityKey>,
    effects: VecDeque<Effect>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Transport {
    /// A transport without any connection.
    #[must_use]
    pub fn new(local: Arc<Local>, entropy: Entropy, config: TransportConfig) -> Self {
        Self {
            local,
            config,
            entropy,
            budget: ReassemblyBudget::new(ReassemblyBudget::DEFAULT_CAP),
            next_conn: 1,
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            calls: Calls::default(),
            relays: BTreeMap::new(),
            servers: Vec::new(),
            gate: Gate::default(),
            known: BTreeSet::new(),
            rejected: BTreeSet::new(),
            relay_only: BTreeSet::new(),
            effects: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Accepted { conn, from } => self.accepted(conn, from, now),
            Input::Connected { conn } => self.connected(conn, now),
            Input::DialFailed { conn, why } => self.stream_ended(conn, why, now),
            Input::Eof { conn } => self.stream_ended(conn, DialError::HungUp, now),
            Input::TlsConnected { conn, exporter } => {
                if let Some(place) = self.server_of(conn) {
                    self.tls_connected(place, exporter, now);
                }
            }
            Input::Bytes { conn, bytes } => self.bytes_came(conn, &bytes, now),
            Input::Written { conn, bytes } => {
                if let Some(session) = self.sessions.get_mut(&conn) {
                    session.writing = session.writing.saturating_sub(bytes);
                    self.settle(conn, now);
                }
            }
        }
        self.debug_check();
    }

    /// To be called at [`Self::poll_timeout`]; early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        let due: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_due(session.poll_timeout(self.idle_limit(session))))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in due {
            self.session_timeout(conn, now);
        }
        while let Some(id) = self.calls.next_expired(now.instant) {
            self.call_expired(id, now);
        }
        let dials: Vec<_> = self.links.keys().copied().collect();
        for key in dials {
            self.advance_dial(key, now);
        }
        self.dial_due_relays(now);
        self.servers_handle_timeout(now);
        self.debug_check();
    }

    /// When to call [`Self::handle_timeout`]; may move with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self
            .sessions
            .values()
            .filter_map(|session| session.poll_timeout(self.idle_limit(session)))
            .min();
        let others = [self.calls.poll_timeout(), self.links_timeout(), self.servers_timeout()];
        others.into_iter().flatten().chain(sessions).min()
    }

    /// What the shell has to do next.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What happened next, for the layers above.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Calls `target`; answered by exactly one [`Event::Answer`] with `tag`.
    ///
    /// Without a session the candidates are dialled; without candidates the answer is
    /// [`CallError::Unreachable`] at once, unless a dial is under way already.
    pub fn call(
        &mut self,
        target: Target,
        candidates: &[Candidate],
        message: Message,
        tag: u64,
        now: Now,
    ) {
        match target {
            Target::Peer(key) | Target::OwnRelay(key) => {
                self.call_link(LinkKey::Identified(key), candidates, message, tag, now);
            }
            Target::Anonymous(keeper, conversation) => {
                let key = LinkKey::Anonymous(keeper, conversation);
                self.call_link(key, candidates, message, tag, now);
            }
            Target::Rendezvous(place) => {
                self.call_server(place, Body::Message(message), tag, now);
            }
        }
        self.debug_check();
    }

    /// Registers at a rendezvous server: signed by our identity over the connection's TLS
    /// exporter. Answered as a call.
    pub fn register(&mut self, server: usize, registration: Registration, tag: u64, now: Now) {
        self.call_server(server, Body::Register(registration), tag, now);
        self.debug_check();
    }

    /// Answers a request; ignored when the session has ended.
    pub fn respond(
        &mut self,
        session: SessionId,
        request_id: RequestId,
        message: &Message,
        now: Now,
    ) {
        let Some(answering) = self.sessions.get_mut(&session) else { return };
        if let (Some(open), Some(connection)) =
            (answering.open.as_mut(), answering.connection.as_mut())
        {
            open.last_used = now.instant;
            connection.respond(request_id, message);
            self.settle(session, now);
        }
    }

    /// Tries in the background for a direct session; ends in [`Event::SessionUp`] or
    /// [`Event::Unreached`], or in nothing when a session is there already, the peer is rejected,
    /// or no candidate may be dialled.
    pub fn probe_peer(&mut self, peer: IdentityKey, candidates: &[Candidate], now: Now) {
        let key = LinkKey::Identified(peer);
        if self.prepare_link(key, candidates, now).is_ok() {
            self.advance_dial(key, now);
        }
        self.debug_check();
    }

    /// Ends one session.
    pub fn close_session(&mut self, session: SessionId, code: ErrorCode, now: Now) {
        if self.server_of(session).is_none() {
            self.end(session, End::Orderly(code), now);
        }
        self.debug_check();
    }

    /// Ends the identified session with a peer and every dial for one.
    pub fn close_peer(&mut self, peer: &IdentityKey, code: ErrorCode, now: Now) {
        let key = LinkKey::Identified(*peer);
        self.give_up_link(key, &CallError::Closed, now);
        if let Some(conn) = self.links.get(&key).and_then(|link| link.session) {
            self.end(conn, End::Orderly(code), now);
        }
        self.debug_check();
    }

    /// Whether an identified session with this peer is open.
    #[must_use]
    pub fn has_session(&self, peer: &IdentityKey) -> bool {
        self.links.get(&LinkKey::Identified(*peer)).is_some_and(|link| link.session.is_some())
    }

    /// Every open session, by number.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        self.sessions.iter().filter_map(|(conn, session)| self.view(*conn, session)).collect()
    }

    /// What has been counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Transport {
    fn own_key(&self) -> IdentityKey {
        self.local.identity.key()
    }

    fn bytes_came(&mut self, conn: ConnId, bytes: &[u8], now: Now) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.heard = session.heard.wrapping_add(1);
            if let Some(connection) = session.connection.as_mut() {
                connection.handle_bytes(bytes, now);
                self.hear(conn, now);
            }
        } else if let Some(place) = self.server_of(conn) {
            self.server_bytes(place, bytes, now);
        }
    }

    fn stream_ended(&mut self, conn: ConnId, why: DialError, now: Now) {
        if let Some(place) = self.server_of(conn) {
            return self.server_ended(place, why);
        }
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.trouble = why;
        if let Some(connection) = session.connection.as_mut() {
            connection.handle_eof(now);
            self.hear(conn, now);
        }
        // Whatever the connection made of it, there is no stream any more.
        self.end(conn, End::Cut, now);
    }

    fn call_expired(&mut self, id: CallId, now: Now) {
        let Some(call) = self.calls.get(id) else { return };
        let (place, sent) = (call.place, call.sent);
        self.answer(id, Err(CallError::TimedOut));
        match (place, sent) {
            (Place::Server(place), sent) => self.server_call_expired(place, id, sent),
            (Place::Link(key), None) => {
                if let Some(link) = self.links.get_mut(&key) {
                    link.waiting.retain(|waiting| *waiting != id);
                }
            }
            (Place::Link(_), Some(sent)) => {
                let Some(session) = self.sessions.get_mut(&sent.conn) else { return };
                if let Some(open) = session.open.as_mut() {
                    open.outstanding.remove(&sent.request);
                }
                if let Some(connection) = session.connection.as_mut() {
                    connection.abandon(sent.request);
                }
                // Not a byte since the call: the path is dead, and the sooner it is found anew
                // the better.
                if session.heard == sent.heard {
                    Counters::count(&mut self.counters.silent);
                    self.end(sent.conn, End::Orderly(ErrorCode::TimedOut), now);
                }
            }
        }
    }

    /// The one answer to a call.
    fn answer(&mut self, id: CallId, result: Result<Message, CallError>) {
        if let Some(call) = self.calls.remove(id) {
            self.events.push_back(Event::Answer { tag: call.tag, result });
        }
    }

    /// The one answer to a call that was never taken on.
    fn answer_now(&mut self, tag: u64, error: CallError) {
        self.events.push_back(Event::Answer { tag, result: Err(error) });
    }
}
