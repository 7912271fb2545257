//! A session's life after its connection: established, settled between two, ended.

use std::sync::Arc;
use std::time::Duration;

use sremp_common::connection::{
    Caller, Closed, Connection, ConnectionError, Event as Heard, Peer, Role,
};
use sremp_common::id::IdentityKey;
use sremp_common::identity::VerifiedIdentity;
use sremp_common::noise::HandshakeError;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::ErrorCode;

use super::dial::HANDSHAKE_PATIENCE;
use super::link::LinkKey;
use super::session::{ANONYMOUS_IDLE, MAX_QUEUED_BYTES, STRANGER_IDLE, Session, Way};
use super::status::Counters;
use super::{CallError, ConnId, DialError, Effect, Event, Transport};

/// Two sessions of one pair that are established within this time come from two dials at once.
/// A later one comes from a peer that has lost the earlier one, even if we have not noticed.
const SIMULTANEOUS: Duration = Duration::from_secs(15);

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// We say goodbye.
    Orderly(ErrorCode),
    /// The peer has said goodbye or is gone; what the connection has to say about it still goes out.
    Flushed,
    /// Nothing more is written: the peer does not read.
    Cut,
}

impl Transport {
    /// TCP has connected to a candidate: the handshake begins.
    pub(super) fn connected(&mut self, conn: ConnId, now: Now) {
        let local = Arc::clone(&self.local);
        let entropy = self.entropy.fork();
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let (Way::Dialled(key), None) = (session.way, &session.connection) else {
            return Counters::count(&mut self.counters.shell_misuse);
        };
        let anonymous = matches!(key, LinkKey::Anonymous(..));
        let expected = Some(*key.identity());
        let mut connection = Connection::dial(local, expected, anonymous, entropy, now);
        connection.set_reassembly_budget(self.budget.clone());
        session.connection = Some(Box::new(connection));
        session.deadline = Some(now.instant + HANDSHAKE_PATIENCE);
        self.hear(conn, now);
    }

    /// Takes in what a connection has made of its bytes, then lets it write.
    pub(super) fn hear(&mut self, conn: ConnId, now: Now) {
        while let Some(heard) = self.next_heard(conn) {
            match heard {
                Heard::Established(peer) => self.established(conn, peer, now),
                Heard::Request { id, message } => self.request(conn, id, message, now),
                Heard::Response { id, message } => self.response(conn, id, message, now),
                Heard::Closed(closed) => self.closed(conn, &closed, now),
            }
        }
        self.settle(conn, now);
    }

    fn next_heard(&mut self, conn: ConnId) -> Option<Heard> {
        self.sessions.get_mut(&conn)?.connection.as_mut()?.poll_event()
    }

    /// Lets a connection write; ends it when its peer does not read.
    pub(super) fn settle(&mut self, conn: ConnId, now: Now) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.transmit(conn, false, &mut self.effects);
        if session.queued_bytes() > MAX_QUEUED_BYTES {
            Counters::count(&mut self.counters.slow_readers);
            return self.end(conn, End::Cut, now);
        }
        if session.connection.as_ref().is_some_and(|connection| connection.is_closed()) {
            // Writing has worn it out: that is the last thing to be heard of it.
            return self.hear(conn, now);
        }
        if let Some(key) = self.link_of(conn) {
            self.send_waiting(key, now);
        }
    }

    /// The link that an open session serves.
    fn link_of(&self, conn: ConnId) -> Option<LinkKey> {
        let session = self.sessions.get(&conn)?;
        match session.way {
            Way::Dialled(key) => Some(key),
            Way::Accepted(_) => session.peer_key().map(LinkKey::Identified),
        }
    }

    fn established(&mut self, conn: ConnId, peer: Peer, now: Now) {
        let Some(session) = self.sessions.get(&conn) else { return };
        match (session.way, peer.caller) {
            (Way::Dialled(key), Caller::Identified(identity)) => {
                self.adopt(conn, key, Arc::from(identity), now);
            }
            // Whom we dial always says who it is.
            (Way::Dialled(_), Caller::Anonymous) => self.end(conn, End::Cut, now),
            (Way::Accepted(_), Caller::Identified(identity)) => {
                self.admit(conn, Arc::from(identity), now);
            }
            (Way::Accepted(_), Caller::Anonymous) => self.admit_anonymous(conn, now),
        }
    }

    /// Makes a session the one of its link, unless another has to stay (N19).
    pub(super) fn adopt(
        &mut self,
        conn: ConnId,
        key: LinkKey,
        peer: Arc<VerifiedIdentity>,
        now: Now,
    ) {
        self.cancel_dial(key, Some(conn));
        let old = self.links.get(&key).and_then(|link| link.session);
        if let Some(old) = old {
            Counters::count(&mut self.counters.duplicates_closed);
            if self.stays(old, conn, &peer.key(), now.instant) {
                return self.end(conn, End::Orderly(ErrorCode::Duplicate), now);
            }
        }
        let is_trusted = self.is_known(&peer.key());
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.opened(Some(Arc::clone(&peer)), now);
            if let Some(connection) = session.connection.as_mut() {
                connection.set_peer_trusted(is_trusted);
                connection.forget_peer();
            }
        }
        // The link changes hands before the old session ends, so that what waits is not lost.
        self.links.entry(key).or_default().session = Some(conn);
        if let Some(old) = old {
            self.end(old, End::Orderly(ErrorCode::Duplicate), now);
        }
        if let Some(keep) = self.relays.get_mut(&peer.key())
            && key == LinkKey::Identified(peer.key())
        {
            keep.went_up(now.instant);
        }
        self.announce(conn, Some(peer));
        self.send_waiting(key, now);
    }

    /// Which of two sessions with one peer stays: decided alike on both sides.
    fn stays(&self, old: ConnId, new: ConnId, peer: &IdentityKey, now: Instant) -> bool {
        let dialled_by_us = |conn| {
            let session: Option<&Session> = self.sessions.get(&conn);
            session.is_some_and(|session| matches!(session.way, Way::Dialled(_)))
        };
        let opened =
            self.sessions.get(&old).and_then(|session| Some(session.open.as_ref()?.opened));
        let at_once = opened.is_some_and(|opened| now.since(opened) < SIMULTANEOUS);
        let by_us = dialled_by_us(old);
        // The same side dials twice only when it has lost its first session.
        at_once && by_us != dialled_by_us(new) && by_us == (self.own_key() < *peer)
    }

    /// Tells the layers above, unless nobody there may call on the session.
    pub(super) fn announce(&mut self, conn: ConnId, peer: Option<Arc<VerifiedIdentity>>) {
        Counters::count(&mut self.counters.sessions_opened);
        let Some(session) = self.sessions.get(&conn).filter(|session| !session.is_ours_anonymous())
        else {
            return;
        };
        let relay = peer.as_ref().is_some_and(|peer| self.relays.contains_key(&peer.key()));
        let (role, from) = match session.way {
            Way::Dialled(_) => (Role::Initiator, None),
            Way::Accepted(from) => (Role::Responder, Some(from)),
        };
        self.events.push_back(Event::SessionUp { session: conn, peer, role, relay, from });
    }

    fn closed(&mut self, conn: ConnId, closed: &Closed, now: Now) {
        let is_open = self.sessions.get(&conn).is_some_and(|session| session.open.is_some());
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.trouble = trouble(closed);
        }
        match (is_open, closed) {
            (false, _) => Counters::count(&mut self.counters.handshakes_failed),
            (true, Closed::Clean(_)) => {}
            (true, Closed::Unclean | Closed::Failed(_)) => {
                Counters::count(&mut self.counters.sessions_broken);
            }
        }
        self.end(conn, End::Flushed, now);
    }

    /// Ends a connection at whatever stage it is, and everything that depends on it.
    pub(super) fn end(&mut self, conn: ConnId, end: End, now: Now) {
        let Some(mut session) = self.sessions.remove(&conn) else { return };
        if let (End::Orderly(code), Some(connection)) = (end, session.connection.as_mut()) {
            connection.close(code);
        }
        if end != End::Cut {
            session.transmit(conn, true, &mut self.effects);
        }
        self.effects.push_back(Effect::Close { conn });
        let peer = session.peer_key();
        let is_announced = !session.is_ours_anonymous();
        let Some(open) = session.open else {
            if let Way::Dialled(key) = session.way {
                Counters::count(&mut self.counters.dials_failed);
                self.attempt_failed(key, conn, session.trouble, now);
            }
            return;
        };
        for id in open.outstanding.into_values() {
            self.answer(id, Err(CallError::Closed));
        }
        if is_announced {
            self.events.push_back(Event::SessionDown { session: conn, peer });
        }
        match (session.way, peer) {
            (Way::Dialled(key), _) => self.unlink(key, conn, now),
            (Way::Accepted(_), Some(peer)) => self.unlink(LinkKey::Identified(peer), conn, now),
            (Way::Accepted(_), None) => {}
        }
    }

    /// How long a session may be without use; `None` for ever.
    pub(super) fn idle_limit(&self, session: &Session) -> Option<Duration> {
        match session.way {
            Way::Dialled(LinkKey::Anonymous(..)) => Some(ANONYMOUS_IDLE),
            Way::Dialled(LinkKey::Identified(_)) => None,
            Way::Accepted(_) => {
                let is_known = session.peer_key().is_some_and(|key| self.is_known(&key));
                (!is_known).then_some(STRANGER_IDLE)
            }
        }
    }

    /// Everything of one connection that is due.
    pub(super) fn session_timeout(&mut self, conn: ConnId, now: Now) {
        let Some(session) = self.sessions.get(&conn) else { return };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        if is_due(session.deadline) {
            if session.connection.is_some() {
                Counters::count(&mut self.counters.handshakes_failed);
            }
            return self.end(conn, End::Cut, now);
        }
        if is_due(session.idle_deadline(self.idle_limit(session))) {
            return self.end(conn, End::Orderly(ErrorCode::Goodbye), now);
        }
        if let Some(connection) =
            self.sessions.get_mut(&conn).and_then(|session| session.connection.as_mut())
        {
            connection.handle_timeout(now);
            self.hear(conn, now);
        }
    }
}

/// Why an attempt whose connection ended so is no session.
const fn trouble(closed: &Closed) -> DialError {
    match closed {
        Closed::Clean(ErrorCode::VersionMismatch) => DialError::Protocol,
        Closed::Clean(_) | Closed::Unclean => DialError::HungUp,
        Closed::Failed(error) => match error {
            ConnectionError::Handshake(HandshakeError::WrongIdentity { .. }) => {
                DialError::WrongIdentity
            }
            ConnectionError::HandshakeCutOff => DialError::HungUp,
            ConnectionError::HandshakeTimedOut
            | ConnectionError::FrameTimedOut
            | ConnectionError::Silent => DialError::TimedOut,
            ConnectionError::Handshake(_)
            | ConnectionError::Frame(_)
            | ConnectionError::Session(_)
            | ConnectionError::Chunk(_)
            | ConnectionError::Malformed(_)
            | ConnectionError::WrongDirection(_)
            | ConnectionError::NeverAsked(_)
            | ConnectionError::DuplicateRequest(_)
            | ConnectionError::TooManyRequests
            | ConnectionError::NotAllowed(_)
            | ConnectionError::NotPolled => DialError::Protocol,
        },
    }
}
