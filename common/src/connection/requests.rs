//! Which message may come under which number, and which numbers wait for an answer.

use std::collections::{BTreeMap, BTreeSet};

use super::{ConnectionError, NotOpen};
use crate::limit::MAX_OPEN_REQUESTS;
use crate::noise::Role;
use crate::wire::{ErrorCode, Message, RequestId};

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks, and is answered once.
    Request,
    /// Asks, and is answered again and again.
    Subscription,
    /// Tells, and is not answered.
    Notice,
    /// Asks something that is not served over Noise.
    Foreign,
    /// Answers.
    Answer,
    /// Probes; answered by the connection itself.
    Probe,
    /// Ends the session.
    Farewell(ErrorCode),
}

pub(super) fn kind(message: &Message) -> Kind {
    match message {
        Message::RelayInfoRequest(_)
        | Message::RelayRegister(_)
        | Message::SetAdmission(_)
        | Message::ClaimMailbox(_)
        | Message::StoreMessage(_)
        | Message::PublishKeyPackages(_)
        | Message::TakeKeyPackage(_) => Kind::Request,
        Message::RetrieveMessages(_) => Kind::Subscription,
        Message::Ack(_) | Message::KeyPackagesLow(_) | Message::Typing(_) => Kind::Notice,
        Message::Register(_) | Message::Lookup(_) | Message::ListServers(_) => Kind::Foreign,
        Message::Error(_)
        | Message::Pong(_)
        | Message::Done(_)
        | Message::RelayInfo(_)
        | Message::RelayRegistered(_)
        | Message::StoreResponse(_)
        | Message::MessageBatch(_)
        | Message::KeyPackageStock(_)
        | Message::KeyPackageTaken(_)
        | Message::Registered(_)
        | Message::LookupResponse(_)
        | Message::Servers(_) => Kind::Answer,
        Message::Ping(_) => Kind::Probe,
        Message::Close(close) => Kind::Farewell(close.code),
    }
}

/// An anonymous session serves its initiator with these, and its responder with nothing.
pub(super) const fn is_allowed_anonymously(message: &Message, asker: Role) -> bool {
    matches!(asker, Role::Initiator)
        && matches!(
            message,
            Message::RelayInfoRequest(_) | Message::StoreMessage(_) | Message::TakeKeyPackage(_)
        )
}

/// The numbers of one connection's requests. Each side counts in steps of two: the initiator's are
/// even, the responder's odd.
#[derive(Debug)]
pub(super) struct Requests {
    next: RequestId,
    /// Ours that wait for an answer.
    ours: BTreeMap<RequestId, Awaited>,
    /// The peer's that wait for an answer of ours.
    theirs: BTreeSet<RequestId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Once,
    Repeatedly,
    /// The answer to a probe of the connection's own.
    Pong,
}

impl Requests {
    pub(super) const fn new(role: Role) -> Self {
        let next = match role {
            Role::Initiator => 0,
            Role::Responder => 1,
        };
        Self { next, ours: BTreeMap::new(), theirs: BTreeSet::new() }
    }

    /// A number for a message that we send.
    pub(super) fn ask(&mut self, kind: Kind) -> Result<RequestId, NotOpen> {
        let awaited = match kind {
            Kind::Request | Kind::Probe => Some(Awaited::Once),
            Kind::Subscription => Some(Awaited::Repeatedly),
            Kind::Notice | Kind::Farewell(_) => None,
            Kind::Foreign | Kind::Answer => return Err(NotOpen::NotARequest),
        };
        if awaited.is_some() && self.ours.len() >= MAX_OPEN_REQUESTS {
            return Err(NotOpen::TooManyRequests);
        }
        let id = self.take_id();
        if let Some(awaited) = awaited {
            self.ours.insert(id, awaited);
        }
        Ok(id)
    }

    /// A number for a probe of the connection's own. Not counted: there is one in a minute, and
    /// silence ends the connection after the third.
    pub(super) fn probe(&mut self) -> RequestId {
        let id = self.take_id();
        self.ours.insert(id, Awaited::Pong);
        id
    }

    pub(super) fn abandon(&mut self, id: RequestId) {
        self.ours.remove(&id);
    }

    /// Whether `id` is a number of ours.
    pub(super) const fn is_ours(&self, id: RequestId) -> bool {
        id % 2 == self.next % 2
    }

    /// Takes an answer of the peer. Whether its owner wants to see it: late and repeated ones, and
    /// answers to our own probes, are dropped.
    pub(super) fn answered(
        &mut self,
        id: RequestId,
        answer: &Message,
    ) -> Result<bool, ConnectionError> {
        if id >= self.next {
            return Err(ConnectionError::NeverAsked(id));
        }
        match self.ours.get(&id).copied() {
            Some(Awaited::Repeatedly) if matches!(answer, Message::MessageBatch(_)) => Ok(true),
            Some(awaited) => {
                self.ours.remove(&id);
                Ok(awaited != Awaited::Pong)
            }
            None => Ok(false),
        }
    }

    /// Takes a request of the peer that will be answered.
    pub(super) fn asked(&mut self, id: RequestId) -> Result<(), ConnectionError> {
        if self.theirs.len() >= MAX_OPEN_REQUESTS {
            return Err(ConnectionError::TooManyRequests);
        }
        if self.theirs.insert(id) { Ok(()) } else { Err(ConnectionError::DuplicateRequest(id)) }
    }

    /// We answer a request of the peer. A batch leaves its subscription open.
    pub(super) fn answer(&mut self, id: RequestId, answer: &Message) {
        if !matches!(answer, Message::MessageBatch(_)) {
            self.theirs.remove(&id);
        }
    }

    const fn take_id(&mut self) -> RequestId {
        let id = self.next;
        self.next = id.saturating_add(2);
        id
    }
}
