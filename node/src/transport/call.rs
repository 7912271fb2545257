//! Calls that have no answer yet: until when, to whom, and what an answer must look like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sremp_common::id::IdentityKey;
use sremp_common::time::Instant;
use sremp_common::wire::{LookupResponse, LookupTarget, Message, Registration, RequestId};

use super::link::LinkKey;
use super::{CallError, ConnId};

/// Time for an answer, from the call on: dialling and waiting in the queue count.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// One second more for so many bytes: a large blob on a slow uplink is not a dead peer.
const BYTES_PER_SECOND: usize = 32 * 1024;

/// Bytes of calls that are not sent yet, over all targets: sixteen of the longest messages.
const MAX_UNSENT_BYTES: usize = 64 * 1024 * 1024;

/// Our own number of a call; the caller's tags need not be unique.
pub(super) type CallId = u64;

/// Where a call waits or was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Link(LinkKey),
    Server(usize),
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    Message(Message),
    /// Becomes a `Register` once there is a TLS session to sign over.
    Register(Registration),
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) tag: u64,
    pub(super) place: Place,
    /// `None` once sent.
    body: Option<Body>,
    pub(super) expected: Expected,
    /// `None` for a stream, which may begin at any time.
    deadline: Option<Instant>,
    pub(super) sent: Option<Sent>,
}

/// On which connection a call went out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) conn: ConnId,
    pub(super) request: RequestId,
    /// How often bytes had come on it before.
    pub(super) heard: u64,
}

/// Every call without an answer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    next: CallId,
    calls: BTreeMap<CallId, Call>,
    unsent_bytes: usize,
    deadlines: BTreeSet<(Instant, CallId)>,
}

impl Calls {
    pub(super) fn insert(
        &mut self,
        place: Place,
        body: Body,
        expected: Expected,
        tag: u64,
        now: Instant,
    ) -> Result<CallId, CallError> {
        let unsent_bytes = self.unsent_bytes.saturating_add(weight(&body));
        if unsent_bytes > MAX_UNSENT_BYTES {
            return Err(CallError::Busy);
        }
        self.unsent_bytes = unsent_bytes;
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let deadline = (expected != Expected::Stream).then(|| now + patience(&body));
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        let call = Call { tag, place, body: Some(body), expected, deadline, sent: None };
        self.calls.insert(id, call);
        Ok(id)
    }

    /// A call goes out: what is to be sent is taken out of it.
    pub(super) fn take_body(&mut self, id: CallId) -> Option<Body> {
        let body = self.calls.get_mut(&id)?.body.take()?;
        self.unsent_bytes = self.unsent_bytes.saturating_sub(weight(&body));
        Some(body)
    }

    /// A call went out.
    pub(super) fn mark_sent(&mut self, id: CallId, sent: Sent) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.sent = Some(sent);
        }
    }

    pub(super) fn get(&self, id: CallId) -> Option<&Call> {
        self.calls.get(&id)
    }

    pub(super) fn remove(&mut self, id: CallId) -> Option<Call> {
        self.take_body(id);
        let call = self.calls.remove(&id)?;
        if let Some(deadline) = call.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        Some(call)
    }

    /// A call whose time is over, if any.
    pub(super) fn next_expired(&self, now: Instant) -> Option<CallId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// When the next call's time is over.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn body(&self, id: CallId) -> Option<&Body> {
        self.calls.get(&id)?.body.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (CallId, &Call)> {
        self.calls.iter().map(|(id, call)| (*id, call))
    }
}

fn patience(body: &Body) -> Duration {
    let seconds = u64::try_from(weight(body) / BYTES_PER_SECOND).unwrap_or(u64::MAX);
    CALL_TIMEOUT + Duration::from_secs(seconds)
}

/// Bytes of the parts that can be large.
fn weight(body: &Body) -> usize {
    if let Body::Message(Message::StoreMessage(store)) = body {
        store.blob.len()
    } else if let Body::Message(Message::PublishKeyPackages(publish)) = body {
        publish.key_packages.iter().map(|package| package.len()).sum()
    } else {
        0
    }
}

/// What answers a request. Whatever else comes is a breach of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// No answer: done once handed to a session.
    Nothing,
    /// Batches under one request, as long as the session lasts.
    Stream,
    RelayInfo,
    RelayRegistered,
    Done,
    /// With this many results.
    StoreResponse(usize),
    KeyPackageStock,
    KeyPackageTaken,
    Registered,
    LookupResponse(LookupTarget),
    Servers,
}

impl Expected {
    /// The answer to a message; `None` when the message is no request of the transport's users.
    pub(super) fn of(message: &Message) -> Option<Self> {
        Some(match message {
            Message::RelayInfoRequest(_) => Self::RelayInfo,
            Message::RelayRegister(_) => Self::RelayRegistered,
            Message::SetAdmission(_) | Message::ClaimMailbox(_) => Self::Done,
            Message::StoreMessage(store) => Self::StoreResponse(store.recipients.len()),
            Message::RetrieveMessages(_) => Self::Stream,
            Message::Ack(_) | Message::KeyPackagesLow(_) | Message::Typing(_) => Self::Nothing,
            Message::PublishKeyPackages(_) => Self::KeyPackageStock,
            Message::TakeKeyPackage(_) => Self::KeyPackageTaken,
            Message::Register(_) => Self::Registered,
            Message::Lookup(lookup) => Self::LookupResponse(lookup.asked()?),
            Message::ListServers(_) => Self::Servers,
            Message::Error(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Close(_)
            | Message::Done(_)
            | Message::RelayInfo(_)
            | Message::RelayRegistered(_)
            | Message::StoreResponse(_)
            | Message::MessageBatch(_)
            | Message::KeyPackageStock(_)
            | Message::KeyPackageTaken(_)
            | Message::Registered(_)
            | Message::LookupResponse(_)
            | Message::Servers(_) => return None,
        })
    }

    /// Whether the request is one to a rendezvous server.
    pub(super) const fn is_rendezvous(&self) -> bool {
        matches!(self, Self::Registered | Self::LookupResponse(_) | Self::Servers)
    }

    /// Whether `message` answers the request. What an answer says about third parties is checked
    /// here only as far as it is self-contained: a lookup's identities (R20).
    pub(super) fn check(&self, message: &Message) -> Result<(), CallError> {
        let fits = match (self, message) {
            (_, Message::Error(error)) => return Err(CallError::Refused(error.clone())),
            (Self::StoreResponse(count), Message::StoreResponse(response)) => {
                response.results.len() == *count
            }
            (Self::LookupResponse(target), Message::LookupResponse(response)) => {
                return check_lookup(target, response).map_err(CallError::Misbehaved);
            }
            (Self::Stream, Message::MessageBatch(_))
            | (Self::RelayInfo, Message::RelayInfo(_))
            | (Self::RelayRegistered, Message::RelayRegistered(_))
            | (Self::Done, Message::Done(_))
            | (Self::KeyPackageStock, Message::KeyPackageStock(_))
            | (Self::KeyPackageTaken, Message::KeyPackageTaken(_))
            | (Self::Registered, Message::Registered(_))
            | (Self::Servers, Message::Servers(_)) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(CallError::Misbehaved("not an answer to this request")) }
    }
}

/// R20: a registry is believed about nothing that it cannot prove.
fn check_lookup(target: &LookupTarget, response: &LookupResponse) -> Result<(), &'static str> {
    let mut keys = Vec::with_capacity(response.peers.len());
    for info in response.peers.iter() {
        let identity = info.identity.verify().map_err(|_| "an identity that does not verify")?;
        if !info.online && !info.endpoints.is_empty() {
            return Err("endpoints of somebody who is not online");
        }
        keys.push(identity.key());
    }
    match target {
        LookupTarget::One(_) if keys.len() > 1 || response.has_more => {
            Err("more than one answer to a lookup of one")
        }
        LookupTarget::One(wanted) if keys.iter().any(|key| !wanted.is(key)) => {
            Err("somebody who was not asked for")
        }
        LookupTarget::Listed(after) if !is_page_after(after.as_ref(), &keys) => {
            Err("a page out of order")
        }
        LookupTarget::Listed(_) if response.has_more && keys.is_empty() => {
            Err("an empty page before others")
        }
        LookupTarget::One(_) | LookupTarget::Listed(_) => Ok(()),
    }
}

fn is_page_after(after: Option<&IdentityKey>, keys: &[IdentityKey]) -> bool {
    let starts_after = match (after, keys.first()) {
        (Some(after), Some(first)) => after < first,
        (None, _) | (_, None) => true,
    };
    starts_after && keys.is_sorted_by(|left, right| left < right)
}
