//! What others do: who is let in, and what becomes of their requests and answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sremp_common::connection::Connection;
use sremp_common::identity::VerifiedIdentity;
use sremp_common::limit::HANDSHAKE_TIMEOUT;
use sremp_common::time::Now;
use sremp_common::wire::{Done, ErrorBody, ErrorCode, Message, RequestId};

use super::call::Expected;
use super::gate::network_of;
use super::life::End;
use super::link::LinkKey;
use super::session::{Session, Way};
use super::status::Counters;
use super::{CallError, ConnId, Effect, Event, Transport};

/// Accepted connections whose handshake is not done. One costs at most 128 KiB.
pub const MAX_HALF_OPEN: usize = 128;
/// The same from one network (/24 or /64), so that one place cannot keep all others out.
pub const MAX_HALF_OPEN_PER_NETWORK: usize = 32;
/// Open sessions with strangers and anonymous callers: contacts always find room beside them.
pub const MAX_STRANGER_SESSIONS: usize = 256;
/// Connections of all kinds at which no more are accepted.
pub const MAX_CONNECTIONS: usize = 4096;

impl Transport {
    pub(super) fn accepted(&mut self, conn: ConnId, from: SocketAddr, now: Now) {
        if !conn.is_multiple_of(2) || self.sessions.contains_key(&conn) {
            return Counters::count(&mut self.counters.shell_misuse);
        }
        if !self.has_room_for(from.ip()) || !self.gate.admits(from.ip(), now.instant) {
            Counters::count(&mut self.counters.refused_full);
            return self.effects.push_back(Effect::Close { conn });
        }
        let entropy = self.entropy.fork();
        let mut connection = Connection::accept(Arc::clone(&self.local), entropy, now);
        connection.set_reassembly_budget(self.budget.clone());
        let deadline = now.instant + HANDSHAKE_TIMEOUT;
        let way = Way::Accepted(from);
        let session = Session::new(way, Some(Box::new(connection)), deadline);
        self.sessions.insert(conn, session);
        self.hear(conn, now);
    }

    fn has_room_for(&self, from: IpAddr) -> bool {
        let network = network_of(from);
        let (mut half_open, mut same_network) = (0_usize, 0_usize);
        for session in self.sessions.values().filter(|session| session.is_half_open()) {
            half_open = half_open.saturating_add(1);
            if matches!(session.way, Way::Accepted(other) if network_of(other.ip()) == network) {
                same_network = same_network.saturating_add(1);
            }
        }
        self.sessions.len() < MAX_CONNECTIONS
            && half_open < MAX_HALF_OPEN
            && same_network < MAX_HALF_OPEN_PER_NETWORK
    }

    /// A caller has said who it is.
    pub(super) fn admit(&mut self, conn: ConnId, caller: Arc<VerifiedIdentity>, now: Now) {
        let key = caller.key();
        if self.rejected.contains(&key) {
            Counters::count(&mut self.counters.rejected);
            // The same as when there is no room: it is not told why.
            return self.end(conn, End::Orderly(ErrorCode::Unavailable), now);
        }
        if self.relay_only.contains(&key) {
            return self.end(conn, End::Orderly(ErrorCode::Unavailable), now);
        }
        if !self.is_known(&key) && !self.has_room_for_stranger() {
            Counters::count(&mut self.counters.refused_full);
            return self.end(conn, End::Orderly(ErrorCode::Unavailable), now);
        }
        self.adopt(conn, LinkKey::Identified(key), caller, now);
    }

    /// A caller does not say who it is.
    pub(super) fn admit_anonymous(&mut self, conn: ConnId, now: Now) {
        if !self.has_room_for_stranger() {
            Counters::count(&mut self.counters.refused_full);
            return self.end(conn, End::Orderly(ErrorCode::Unavailable), now);
        }
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.opened(None, now);
            self.announce(conn, None);
        }
    }

    fn has_room_for_stranger(&self) -> bool {
        let is_stranger = |session: &&Session| {
            matches!(session.way, Way::Accepted(_))
                && session.open.is_some()
                && session.peer_key().is_none_or(|key| !self.is_known(&key))
        };
        self.sessions.values().filter(is_stranger).count() < MAX_STRANGER_SESSIONS
    }

    pub(super) fn request(&mut self, conn: ConnId, id: RequestId, message: Message, now: Now) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        if session.is_ours_anonymous() {
            // Whatever we answered would say something about who we are.
            Counters::count(&mut self.counters.misbehaved);
            return self.end(conn, End::Orderly(ErrorCode::NotAllowed), now);
        }
        let Some(open) = session.open.as_mut() else { return };
        open.last_used = now.instant;
        let caller = open.peer.clone();
        let is_served = Expected::of(&message).is_some_and(|expected| !expected.is_rendezvous());
        match (message, caller) {
            (message @ Message::KeyPackagesLow(_), Some(from)) => {
                let from = from.key();
                self.events.push_back(Event::Pushed { session: conn, from, message });
            }
            (message, caller) if is_served => {
                let request_id = id;
                let session = conn;
                self.events.push_back(Event::Incoming { session, caller, request_id, message });
            }
            _ => {
                Counters::count(&mut self.counters.misbehaved);
                let error = ErrorBody::new(ErrorCode::Unsupported, "not served here");
                self.respond(conn, id, &Message::Error(error), now);
            }
        }
    }

    pub(super) fn response(&mut self, conn: ConnId, id: RequestId, message: Message, now: Now) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let from = session.peer_key();
        let Some(open) = session.open.as_mut() else { return };
        open.last_used = now.instant;
        let Some(call_id) = open.outstanding.remove(&id) else {
            return self.unasked(conn, id, message, now);
        };
        let Some(expected) = self.calls.get(call_id).map(|call| call.expected.clone()) else {
            return;
        };
        match (expected.check(&message), expected, from) {
            (Ok(()), Expected::Stream, Some(from)) => {
                open.add_stream(id);
                self.answer(call_id, Ok(Message::Done(Done())));
                self.events.push_back(Event::Pushed { session: conn, from, message });
            }
            (Ok(()), _, _) => self.answer(call_id, Ok(message)),
            (Err(error), _, _) => {
                let is_breach = matches!(error, CallError::Misbehaved(_));
                self.answer(call_id, Err(error));
                if is_breach {
                    self.breach(conn, now);
                }
            }
        }
    }

    /// An answer under a number for which no call waits.
    fn unasked(&mut self, conn: ConnId, id: RequestId, message: Message, now: Now) {
        let Some(session) = self.sessions.get(&conn) else { return };
        let is_stream = session.open.as_ref().is_some_and(|open| open.is_stream(id));
        match (message, session.peer_key()) {
            (message @ Message::MessageBatch(_), Some(from)) if is_stream => {
                self.events.push_back(Event::Pushed { session: conn, from, message });
            }
            // A keeper that ends its stream: without the session nobody asks for a new one.
            _ if is_stream => self.breach(conn, now),
            _ => Counters::count(&mut self.counters.late_answers),
        }
    }

    fn breach(&mut self, conn: ConnId, now: Now) {
        Counters::count(&mut self.counters.misbehaved);
        self.end(conn, End::Orderly(ErrorCode::Malformed), now);
    }
}
