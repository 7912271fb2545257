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
//!   call ─→ Link (one per peer) ─→ Session (one Connection) ─→ Effect::Write
//!              │ no session?                                       │
//!              └─→ Dial: candidates, 250 ms apart ─→ Effect::Dial  └─→ the shell
//! ```

mod address;
mod call;
mod dial;
mod incoming;
mod keep;
mod link;
mod rendezvous;
mod session;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sremp_common::connection::{Local, Role};
use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::identity::{RelayRecord, VerifiedIdentity};
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Endpoint, ErrorBody, ErrorCode, Message, Registration, RequestId};

pub use address::{Candidate, Origin, is_public};
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
    #[error("not reachable")]
    Unreachable,
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
    /// The target is one of those that get no session.
    #[error("rejected")]
    Rejected,
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
    effects: VecDeque<Effect>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Transport {
    /// A transport without any connection.
    #[must_use]
    pub fn new(local: Arc<Local>, entropy: Entropy, config: TransportConfig) -> Self;

    /// Replaces our identity for connections from now on.
    pub fn set_local(&mut self, local: Arc<Local>);

    /// Replaces the list of those who get no session: open ones end, waiting calls are answered.
    pub fn set_rejected(&mut self, rejected: BTreeSet<IdentityKey>, now: Now);

    /// Replaces the list of those we know (contacts, fellow members): they may send larger messages
    /// and keep idle sessions.
    pub fn set_known(&mut self, known: BTreeSet<IdentityKey>);

    /// Replaces the list of rendezvous servers. Calls to a place whose server changes are answered.
    pub fn set_rendezvous(&mut self, servers: Vec<RendezvousServer>);

    /// Calls `target`; answered by exactly one [`Event::Answer`] with `tag`.
    ///
    /// Without a session the candidates are dialled; without candidates the answer is
    /// [`CallError::Unreachable`] at once, unless a dial is under way already.
    pub fn call(&mut self, target: Target, candidates: &[Candidate], message: Message, tag: u64, now: Now);

    /// Registers at a rendezvous server: signed by our identity over the connection's TLS exporter.
    pub fn register(&mut self, server: usize, registration: Registration, tag: u64, now: Now);

    /// Answers a request; ignored when the session has ended.
    pub fn respond(&mut self, session: SessionId, request_id: RequestId, message: &Message, now: Now);

    /// Ends one session.
    pub fn close_session(&mut self, session: SessionId, code: ErrorCode, now: Now);

    /// Ends the identified session with a peer and every dial for one.
    pub fn close_peer(&mut self, peer: &IdentityKey, code: ErrorCode, now: Now);

    /// Keeps an identified session with a relay up, until [`Self::drop_relay`].
    pub fn keep_relay(&mut self, record: &RelayRecord, origin: Origin, now: Now);

    /// No longer keeps a session with this relay; an open one ends.
    pub fn drop_relay(&mut self, relay: &IdentityKey, now: Now);

    /// Tries in the background for a direct session; ends in [`Event::SessionUp`] or
    /// [`Event::Unreached`], or in nothing when a session is there already.
    pub fn probe_peer(&mut self, peer: IdentityKey, candidates: &[Candidate], now: Now);

    /// Whether an identified session with this peer is open.
    #[must_use]
    pub fn has_session(&self, peer: &IdentityKey) -> bool;

    /// Every open session.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView>;

    /// What has been counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters;

    /// Ends every session in an orderly way: before the program ends.
    pub fn shut_down(&mut self, now: Now);

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Now);

    /// To be called at [`Self::poll_timeout`]; early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Now);

    /// When to call [`Self::handle_timeout`]; may move with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant>;

    /// What the shell has to do next.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect>;

    /// What happened next, for the layers above.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event>;

    /// Panics when an invariant is broken: for debug builds and the simulator.
    pub fn check_invariants(&self);
}
