//! What the layers above decide about connections in general: whom to keep a session with, whom
//! to know, whom to reject, and which rendezvous servers there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use sremp_common::connection::Local;
use sremp_common::id::IdentityKey;
use sremp_common::identity::RelayRecord;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::ErrorCode;

use super::keep::Keep;
use super::life::End;
use super::link::LinkKey;
use super::rendezvous::{MAX_SERVERS, Server};
use super::status::Counters;
use super::{CallError, Candidate, Origin, RendezvousServer, Transport};

impl Transport {
    /// Keeps an identified session with a relay up, until [`Self::drop_relay`]. A new record of a
    /// kept relay replaces its addresses and is dialled without waiting.
    pub fn keep_relay(&mut self, record: &RelayRecord, origin: Origin, now: Now) {
        let candidates = record
            .endpoints
            .iter()
            .map(|endpoint| Candidate { endpoint: endpoint.clone(), origin })
            .collect();
        let relay = record.identity_key;
        match self.relays.get_mut(&relay) {
            Some(keep) if keep.candidates == candidates => {}
            Some(keep) => {
                keep.candidates = candidates;
                keep.retry_at(now.instant);
            }
            None => {
                let mut keep = Keep::new(candidates, now.instant);
                if self.has_session(&relay) {
                    keep.went_up(now.instant);
                }
                self.relays.insert(relay, keep);
            }
        }
        self.set_trust();
        self.dial_due_relays(now);
        self.debug_check();
    }

    /// A relay refused, and said that it is of no use before `until`: it is not dialled earlier.
    pub fn relay_waits(&mut self, relay: &IdentityKey, until: Instant) {
        if let Some(keep) = self.relays.get_mut(relay) {
            keep.wait_until(until);
        }
    }

    /// No longer keeps a session with this relay; an open one ends.
    pub fn drop_relay(&mut self, relay: &IdentityKey, now: Now) {
        if self.relays.remove(relay).is_some() {
            self.close_peer(relay, ErrorCode::Goodbye, now);
        }
    }

    /// Dials kept relays without waiting: the network may have changed.
    pub fn retry_relays(&mut self, now: Now) {
        for keep in self.relays.values_mut() {
            keep.retry_at(now.instant);
        }
        self.dial_due_relays(now);
        self.debug_check();
    }

    /// Ends every session in an orderly way, before the program ends.
    pub fn shut_down(&mut self, now: Now) {
        self.relays.clear();
        let keys: Vec<_> = self.links.keys().copied().collect();
        for key in keys {
            self.give_up_link(key, &CallError::Closed, now);
        }
        let conns: Vec<_> = self.sessions.keys().copied().collect();
        for conn in conns {
            self.end(conn, End::Orderly(ErrorCode::Goodbye), now);
        }
        self.set_rendezvous(Vec::new());
    }

    /// Replaces our identity for connections from now on.
    pub fn set_local(&mut self, local: Arc<Local>) {
        self.local = local;
    }

    /// Replaces the list of those we know (contacts, fellow members): they may send larger
    /// messages and keep idle sessions. Kept relays need not be in it.
    pub fn set_known(&mut self, known: BTreeSet<IdentityKey>) {
        self.known = known;
        self.set_trust();
    }

    /// Replaces the list of those who get no session: open ones end, waiting calls are answered.
    pub fn set_rejected(&mut self, rejected: BTreeSet<IdentityKey>, now: Now) {
        self.rejected = rejected;
        let is_rejected = |key: &LinkKey| self.rejected.contains(key.identity());
        let keys: Vec<_> = self.links.keys().filter(|key| is_rejected(key)).copied().collect();
        for key in keys {
            self.give_up_link(key, &CallError::Rejected, now);
            if let Some(conn) = self.links.get(&key).and_then(|link| link.session) {
                Counters::count(&mut self.counters.rejected);
                self.end(conn, End::Orderly(ErrorCode::Unavailable), now);
            }
        }
        self.debug_check();
    }

    /// Replaces the list of those who do not learn our address: no session with them is dialled,
    /// kept or let in, though a session that does not say who we are may use the relay in their node.
    pub fn set_relay_only(&mut self, relay_only: BTreeSet<IdentityKey>, now: Now) {
        self.relay_only = relay_only;
        let shut: Vec<_> =
            self.links.keys().filter(|key| self.is_relay_only(key)).copied().collect();
        for key in shut {
            self.give_up_link(key, &CallError::Closed, now);
            if let Some(conn) = self.links.get(&key).and_then(|link| link.session) {
                self.end(conn, End::Orderly(ErrorCode::Goodbye), now);
            }
        }
        self.debug_check();
    }

    pub(super) fn is_relay_only(&self, key: &LinkKey) -> bool {
        matches!(key, LinkKey::Identified(peer) if self.relay_only.contains(peer))
    }

    /// Replaces the list of rendezvous servers, of which the first 16 count. Calls that wait for
    /// a place whose server changes are answered with [`CallError::Closed`].
    pub fn set_rendezvous(&mut self, mut servers: Vec<RendezvousServer>) {
        servers.truncate(MAX_SERVERS);
        for place in 0..self.servers.len() {
            if self.servers.get(place).map(|server| &server.config) != servers.get(place) {
                self.drop_server_wire(place, &CallError::Closed);
            }
        }
        self.servers.truncate(servers.len());
        for (place, config) in servers.into_iter().enumerate() {
            match self.servers.get_mut(place) {
                Some(server) => server.config = config,
                None => self.servers.push(Server::new(config)),
            }
        }
        self.debug_check();
    }

    pub(super) fn is_known(&self, key: &IdentityKey) -> bool {
        self.known.contains(key) || self.relays.contains_key(key)
    }

    /// Tells every open connection how large a message its peer may send.
    fn set_trust(&mut self) {
        for session in self.sessions.values_mut() {
            let Some(peer) = session.peer_key() else { continue };
            let is_known = self.known.contains(&peer) || self.relays.contains_key(&peer);
            if let Some(connection) = session.connection.as_mut() {
                connection.set_peer_trusted(is_known);
            }
        }
    }
}
