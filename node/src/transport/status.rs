//! What a person or a metric may know about connections: views and counters, no behaviour.

use sremp_common::id::IdentityKey;
use sremp_common::time::Timestamp;

use super::link::LinkKey;
use super::session::{Session, Way};
use super::{ConnId, SessionId, Transport};

/// Who opened a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We dialled.
    Outgoing,
    /// The peer dialled.
    Incoming,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// With somebody's node; both know who the other is.
    Peer,
    /// With a relay that keeps our mailbox.
    OwnRelay,
    /// With a keeper that does not know who we are.
    AnonymousOutgoing,
    /// With somebody who did not say who they are.
    AnonymousIncoming,
}

/// One open session, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its number.
    pub session: SessionId,
    /// Who is there; `None` for an anonymous caller of ours.
    pub peer: Option<IdentityKey>,
    /// What it is for.
    pub kind: SessionKind,
    /// Who opened it.
    pub direction: Direction,
    /// When it was open.
    pub since: Timestamp,
    /// Calls of ours that wait for an answer.
    pub outstanding: usize,
}

/// What has happened since the start. All of it is the network's or a peer's doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Attempts to connect.
    pub dials: u64,
    /// Attempts that reached nobody in time.
    pub dials_failed: u64,
    /// Connections on which the handshake failed or took too long, ours and others'. Another
    /// identity than the one dialled is among them.
    pub handshakes_failed: u64,
    /// Sessions opened, either way.
    pub sessions_opened: u64,
    /// Sessions that ended without a close message, or by a breach of the protocol.
    pub sessions_broken: u64,
    /// Second sessions of one pair that were closed.
    pub duplicates_closed: u64,
    /// Connections that were closed because their peer is rejected.
    pub rejected: u64,
    /// Connections that were refused because too many were half-open, or open.
    pub refused_full: u64,
    /// Sessions that were closed because their peer did not read.
    pub slow_readers: u64,
    /// Sessions that were closed because nothing came back.
    pub silent: u64,
    /// Answers and requests that broke a rule above the session.
    pub misbehaved: u64,
    /// Answers that came after their call was given up.
    pub late_answers: u64,
    /// Inputs of the shell that made no sense, such as a number used twice.
    pub shell_misuse: u64,
}

impl Counters {
    /// Adds one.
    pub(super) const fn count(counter: &mut u64) {
        *counter = counter.saturating_add(1);
    }
}

impl Transport {
    /// A session as a person sees it; `None` until it is open.
    pub(super) fn view(&self, conn: ConnId, session: &Session) -> Option<SessionView> {
        let open = session.open.as_ref()?;
        let peer = session.peer_key();
        let kind = match (session.way, peer) {
            (Way::Dialled(LinkKey::Anonymous(..)), _) => SessionKind::AnonymousOutgoing,
            (Way::Accepted(_), None) => SessionKind::AnonymousIncoming,
            (_, Some(key)) if self.relays.contains_key(&key) => SessionKind::OwnRelay,
            _ => SessionKind::Peer,
        };
        let direction = match session.way {
            Way::Dialled(_) => Direction::Outgoing,
            Way::Accepted(_) => Direction::Incoming,
        };
        let outstanding = open.outstanding.len();
        Some(SessionView { session: conn, peer, kind, direction, since: open.since, outstanding })
    }
}
