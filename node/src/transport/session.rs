//! One connection to a peer, from the first attempt to its end: what the transport knows about
//! it. It decides nothing about other connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sremp_common::connection::Connection;
use sremp_common::id::IdentityKey;
use sremp_common::identity::VerifiedIdentity;
use sremp_common::time::{Instant, Now, Timestamp};
use sremp_common::wire::RequestId;

use super::call::CallId;
use super::link::LinkKey;
use super::{ConnId, DialError, Effect};

/// Bytes that the shell may hold unwritten for one connection. The rest stays in the connection,
/// where small messages still overtake large ones, and where slow readers are noticed.
pub const WRITE_WINDOW: usize = 256 * 1024;
/// Bytes that may wait behind the window before a peer counts as one that does not read: a full
/// window of pushes, a message each way, and room for answers.
pub(super) const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// Our own calls wait in their queue while this much is unsent, so that they alone never make a
/// peer look slow.
const CALLS_WAIT_ABOVE: usize = 4 * 1024 * 1024;
/// Calls of ours that may be unanswered on one session.
pub(super) const MAX_OUTSTANDING: usize = 256;
/// `RetrieveMessages` of one session; a keeper pushes under the latest only.
const MAX_STREAMS: usize = 4;
/// An anonymous session of ours without a call.
pub(super) const ANONYMOUS_IDLE: Duration = Duration::from_secs(30);
/// A session with a stranger, or an anonymous caller, without a request.
pub(super) const STRANGER_IDLE: Duration = Duration::from_secs(60);

/// How a connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// We dialled, for this link.
    Dialled(LinkKey),
    /// Somebody dialled us from here.
    Accepted(SocketAddr),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) way: Way,
    /// `None` while TCP connects.
    pub(super) connection: Option<Box<Connection>>,
    /// When the current step must be done: connecting, or the handshake. `None` once open.
    pub(super) deadline: Option<Instant>,
    pub(super) open: Option<Open>,
    /// Bytes that the shell holds.
    pub(super) writing: usize,
    /// How often bytes have come: tells whether anything came since a call went out.
    pub(super) heard: u64,
    /// Why it is no session, should it end before it is one.
    pub(super) trouble: DialError,
}

/// What an established session has.
#[derive(Debug)]
pub(super) struct Open {
    /// `None` for an anonymous caller.
    pub(super) peer: Option<Arc<VerifiedIdentity>>,
    pub(super) since: Timestamp,
    pub(super) opened: Instant,
    /// Last request or answer, either way.
    pub(super) last_used: Instant,
    pub(super) outstanding: BTreeMap<RequestId, CallId>,
    streams: BTreeSet<RequestId>,
}

impl Session {
    pub(super) const fn new(
        way: Way,
        connection: Option<Box<Connection>>,
        deadline: Instant,
    ) -> Self {
        Self {
            way,
            connection,
            deadline: Some(deadline),
            open: None,
            writing: 0,
            heard: 0,
            trouble: DialError::TimedOut,
        }
    }

    pub(super) fn opened(&mut self, peer: Option<Arc<VerifiedIdentity>>, now: Now) {
        self.deadline = None;
        self.open = Some(Open {
            peer,
            since: now.wall,
            opened: now.instant,
            last_used: now.instant,
            outstanding: BTreeMap::new(),
            streams: BTreeSet::new(),
        });
    }

    pub(super) fn peer_key(&self) -> Option<IdentityKey> {
        self.open.as_ref()?.peer.as_ref().map(|peer| peer.key())
    }

    /// Accepted, and the handshake is not done.
    pub(super) const fn is_half_open(&self) -> bool {
        matches!(self.way, Way::Accepted(_)) && self.open.is_none()
    }

    /// Our anonymous sessions are nobody's business above: on them nobody calls us.
    pub(super) const fn is_ours_anonymous(&self) -> bool {
        matches!(self.way, Way::Dialled(LinkKey::Anonymous(..)))
    }

    /// Whether another call of ours may go out now.
    pub(super) fn has_room(&self) -> bool {
        let queued = self.queued_bytes();
        queued < CALLS_WAIT_ABOVE
            && self.open.as_ref().is_some_and(|open| open.outstanding.len() < MAX_OUTSTANDING)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.connection.as_ref().map_or(0, |connection| connection.queued_bytes())
    }

    /// Hands bytes to the shell, as many as the window has room for, or all when `flush`.
    pub(super) fn transmit(&mut self, conn: ConnId, flush: bool, effects: &mut VecDeque<Effect>) {
        let Some(connection) = self.connection.as_mut() else { return };
        while flush || self.writing < WRITE_WINDOW {
            let Some(bytes) = connection.poll_transmit() else { break };
            self.writing = self.writing.saturating_add(bytes.len());
            // One write for all frames: they arrive together, and are handled together.
            match effects.back_mut() {
                Some(Effect::Write { conn: same, bytes: before }) if *same == conn => {
                    before.extend_from_slice(&bytes);
                }
                _ => effects.push_back(Effect::Write { conn, bytes }),
            }
        }
    }

    /// When [`super::Transport::handle_timeout`] has something to do for this session.
    pub(super) fn poll_timeout(&self, idle_limit: Option<Duration>) -> Option<Instant> {
        let connection = self.connection.as_ref().and_then(|connection| connection.poll_timeout());
        let idle = self.idle_deadline(idle_limit);
        [connection, self.deadline, idle].into_iter().flatten().min()
    }

    /// When the session has been without use for `limit`.
    pub(super) fn idle_deadline(&self, limit: Option<Duration>) -> Option<Instant> {
        let open = self.open.as_ref().filter(|open| open.outstanding.is_empty())?;
        Some(open.last_used + limit?)
    }
}

impl Open {
    pub(super) fn add_stream(&mut self, request: RequestId) {
        self.streams.insert(request);
        if self.streams.len() > MAX_STREAMS {
            self.streams.pop_first();
        }
    }

    pub(super) fn is_stream(&self, request: RequestId) -> bool {
        self.streams.contains(&request)
    }
}
