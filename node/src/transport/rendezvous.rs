//! The client of rendezvous servers: requests over a TLS stream that the shell carries.
//!
//! One connection for each server, opened by the first request and closed after 30 s without one.
//! The server proves its name by TLS, which the shell checks; what it says about others is checked
//! by [`super::call`] (R20).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sremp_common::label::VERSION_HEADER;
use sremp_common::long_frame::{LongFrameReader, encode_long_frame};
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Message, Register, RequestId};

use super::call::{Body, CallId, Expected, Place, Sent};
use super::status::Counters;
use super::{CallError, ConnId, DialError, Effect, RendezvousServer, Transport};

/// Calls that wait at, or are sent to, one server.
const MAX_CALLS: usize = 64;
/// Servers of one node.
pub(super) const MAX_SERVERS: usize = 16;
/// Time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// A connection without a request.
const IDLE: Duration = Duration::from_secs(30);

/// One server, and the connection to it if there is one.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: RendezvousServer,
    waiting: VecDeque<CallId>,
    wire: Option<Wire>,
}

#[derive(Debug)]
struct Wire {
    conn: ConnId,
    /// `None` until TLS stands.
    exporter: Option<[u8; 32]>,
    reader: LongFrameReader,
    outstanding: BTreeMap<RequestId, CallId>,
    next_request: RequestId,
    /// How often bytes have come.
    heard: u64,
    /// When to give up connecting, or to close for want of use.
    deadline: Instant,
}

impl Server {
    pub(super) const fn new(config: RendezvousServer) -> Self {
        Self { config, waiting: VecDeque::new(), wire: None }
    }

    fn load(&self) -> usize {
        let sent = self.wire.as_ref().map_or(0, |wire| wire.outstanding.len());
        self.waiting.len().saturating_add(sent)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let wire = self.wire.as_ref()?;
        (wire.exporter.is_none() || self.load() == 0).then_some(wire.deadline)
    }

    /// All calls here, waiting or sent: for checks.
    pub(super) fn calls(&self) -> impl Iterator<Item = CallId> {
        let sent = self.wire.iter().flat_map(|wire| wire.outstanding.values().copied());
        self.waiting.iter().copied().chain(sent)
    }
}

impl Transport {
    pub(super) fn call_server(&mut self, place: usize, body: Body, tag: u64, now: Now) {
        let expected = match &body {
            Body::Register(_) => Some(Expected::Registered),
            // A Register that somebody else signed would be for another TLS session.
            Body::Message(Message::Register(_)) => None,
            Body::Message(message) => {
                Expected::of(message).filter(|expected| expected.is_rendezvous())
            }
        };
        let Some(expected) = expected else {
            return self.answer_now(tag, CallError::Unsendable);
        };
        let Some(server) = self.servers.get_mut(place) else {
            return self.answer_now(tag, CallError::Unreachable(DialError::NoAddress));
        };
        if server.load() >= MAX_CALLS {
            return self.answer_now(tag, CallError::Busy);
        }
        match self.calls.insert(Place::Server(place), body, expected, tag, now.instant) {
            Ok(id) => server.waiting.push_back(id),
            Err(error) => return self.answer_now(tag, error),
        }
        if server.wire.is_none() {
            let conn = self.next_conn;
            self.next_conn = self.next_conn.wrapping_add(2);
            server.wire = Some(Wire::new(conn, now.instant));
            Counters::count(&mut self.counters.dials);
            self.effects.push_back(Effect::DialTls { conn, server: server.config.clone() });
        }
        self.send_to_server(place, now);
    }

    /// The server that a connection belongs to.
    pub(super) fn server_of(&self, conn: ConnId) -> Option<usize> {
        self.servers
            .iter()
            .position(|server| server.wire.as_ref().is_some_and(|wire| wire.conn == conn))
    }

    pub(super) fn tls_connected(&mut self, place: usize, exporter: [u8; 32], now: Now) {
        let Some(wire) = self.servers.get_mut(place).and_then(|server| server.wire.as_mut()) else {
            return;
        };
        wire.exporter = Some(exporter);
        wire.deadline = now.instant + IDLE;
        let (conn, bytes) = (wire.conn, VERSION_HEADER.to_vec());
        self.effects.push_back(Effect::Write { conn, bytes });
        self.send_to_server(place, now);
    }

    fn send_to_server(&mut self, place: usize, now: Now) {
        let Some(server) = self.servers.get_mut(place) else { return };
        let Some(wire) = server.wire.as_mut() else { return };
        let Some(exporter) = wire.exporter else { return };
        for id in std::mem::take(&mut server.waiting) {
            let Some(body) = self.calls.take_body(id) else { continue };
            let message = match body {
                Body::Message(message) => message,
                Body::Register(registration) => {
                    let identity = self.local.identity.identity().clone();
                    let secret = &self.local.identity_secret;
                    let signature = registration.sign(secret, &identity, &exporter);
                    Message::Register(Register {
                        identity,
                        registration,
                        signature,
                        invite: server.config.invite,
                    })
                }
            };
            let request = wire.next_request;
            // Even numbers: we are the initiator.
            wire.next_request = wire.next_request.wrapping_add(2);
            // Fits by type: an identity has at most 32 KiB, and the rest is small.
            let bytes = encode_long_frame(&message.encode(request)).unwrap_or_default();
            self.calls.mark_sent(id, Sent { conn: wire.conn, request, heard: wire.heard });
            wire.outstanding.insert(request, id);
            wire.deadline = now.instant + IDLE;
            self.effects.push_back(Effect::Write { conn: wire.conn, bytes });
        }
    }

    pub(super) fn server_bytes(&mut self, place: usize, mut bytes: &[u8], now: Now) {
        if let Some(wire) = self.servers.get_mut(place).and_then(|server| server.wire.as_mut()) {
            wire.heard = wire.heard.wrapping_add(1);
        }
        loop {
            let Some(wire) = self.servers.get_mut(place).and_then(|server| server.wire.as_mut())
            else {
                return;
            };
            match wire.reader.read(&mut bytes) {
                Ok(None) => return,
                Ok(Some(message)) => match Message::decode(&message) {
                    Ok((request, message)) => self.server_answered(place, request, message, now),
                    Err(_) => self.server_breach(place, "a message that cannot be read"),
                },
                Err(_) => self.server_breach(place, "another protocol"),
            }
        }
    }

    fn server_answered(&mut self, place: usize, request: RequestId, message: Message, now: Now) {
        let Some(wire) = self.servers.get_mut(place).and_then(|server| server.wire.as_mut()) else {
            return;
        };
        wire.deadline = now.instant + IDLE;
        let Some(id) = wire.outstanding.remove(&request) else {
            return Counters::count(&mut self.counters.late_answers);
        };
        let Some(call) = self.calls.get(id) else { return };
        let result = call.expected.check(&message).map(|()| message);
        let is_breach = matches!(result, Err(CallError::Misbehaved(_)));
        self.answer(id, result);
        if is_breach {
            self.server_breach(place, "an earlier answer was wrong");
        }
    }

    fn server_breach(&mut self, place: usize, what: &'static str) {
        Counters::count(&mut self.counters.misbehaved);
        self.drop_server_wire(place, &CallError::Misbehaved(what));
    }

    /// The connection is gone: what was sent or waits for it is answered.
    pub(super) fn drop_server_wire(&mut self, place: usize, error: &CallError) {
        let Some(server) = self.servers.get_mut(place) else { return };
        let Some(wire) = server.wire.take() else { return };
        let waiting = std::mem::take(&mut server.waiting);
        self.effects.push_back(Effect::Close { conn: wire.conn });
        for id in wire.outstanding.into_values().chain(waiting) {
            self.answer(id, Err(error.clone()));
        }
    }

    /// TLS failed, or the stream ended.
    pub(super) fn server_ended(&mut self, place: usize, why: DialError) {
        let Some(server) = self.servers.get(place) else { return };
        let was_open = server.wire.as_ref().is_some_and(|wire| wire.exporter.is_some());
        let error = if was_open { CallError::Closed } else { CallError::Unreachable(why) };
        self.drop_server_wire(place, &error);
    }

    /// A call to a server has timed out: a connection on which nothing came since is dead.
    pub(super) fn server_call_expired(&mut self, place: usize, id: CallId, sent: Option<Sent>) {
        let Some(server) = self.servers.get_mut(place) else { return };
        server.waiting.retain(|waiting| *waiting != id);
        let Some(wire) = server.wire.as_mut() else { return };
        let Some(sent) = sent else { return };
        wire.outstanding.remove(&sent.request);
        if wire.heard == sent.heard {
            Counters::count(&mut self.counters.silent);
            self.drop_server_wire(place, &CallError::TimedOut);
        }
    }

    pub(super) fn servers_handle_timeout(&mut self, now: Now) {
        for place in 0..self.servers.len() {
            let Some(server) = self.servers.get(place) else { continue };
            if server.poll_timeout().is_some_and(|at| at <= now.instant) {
                self.drop_server_wire(place, &CallError::Unreachable(DialError::TimedOut));
            }
        }
    }

    /// When a connection to a server is given up or closed.
    pub(super) fn servers_timeout(&self) -> Option<Instant> {
        self.servers.iter().filter_map(Server::poll_timeout).min()
    }
}

impl Wire {
    fn new(conn: ConnId, now: Instant) -> Self {
        Self {
            conn,
            exporter: None,
            reader: LongFrameReader::new(),
            outstanding: BTreeMap::new(),
            next_request: 0,
            heard: 0,
            deadline: now + CONNECT_TIMEOUT,
        }
    }
}
