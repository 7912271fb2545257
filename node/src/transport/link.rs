//! Links: for each target its session or the search for one, and the calls that wait for it.

use std::collections::VecDeque;

use sremp_common::connection::NotOpen;
use sremp_common::id::IdentityKey;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Done, Message};

use super::address::Candidate;
use super::call::{Body, CallId, Expected, Place, Sent};
use super::dial::{CONNECT_TIMEOUT, Dial};
use super::session::{Session, Way};
use super::status::Counters;
use super::{CallError, ConnId, DialError, Effect, Event, Origin, Transport};

/// Calls that wait at one link.
const MAX_WAITING: usize = 1024;
/// Links, that is targets with a session, a dial or a call.
const MAX_LINKS: usize = 8192;

/// What has one session at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LinkKey {
    /// Both sides say who they are.
    Identified(IdentityKey),
    /// We do not, and use the session for one conversation.
    Anonymous(IdentityKey, u64),
}

impl LinkKey {
    /// Who is expected at the other end.
    pub(super) const fn identity(&self) -> &IdentityKey {
        match self {
            Self::Identified(key) | Self::Anonymous(key, _) => key,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) session: Option<ConnId>,
    pub(super) dial: Option<Dial>,
    pub(super) waiting: VecDeque<CallId>,
}

impl Link {
    const fn is_unused(&self) -> bool {
        self.session.is_none() && self.dial.is_none()
    }
}

impl Transport {
    pub(super) fn call_link(
        &mut self,
        key: LinkKey,
        candidates: &[Candidate],
        message: Message,
        tag: u64,
        now: Now,
    ) {
        let expected = Expected::of(&message).filter(|expected| !expected.is_rendezvous());
        let Some(expected) = expected else {
            return self.answer_now(tag, CallError::Unsendable);
        };
        if let Err(error) = self.prepare_link(key, candidates, now) {
            return self.answer_now(tag, error);
        }
        let Some(link) = self.links.get_mut(&key) else { return };
        if link.waiting.len() >= MAX_WAITING {
            return self.answer_now(tag, CallError::Busy);
        }
        let body = Body::Message(message);
        match self.calls.insert(Place::Link(key), body, expected, tag, now.instant) {
            Ok(id) => link.waiting.push_back(id),
            Err(error) => return self.answer_now(tag, error),
        }
        self.send_waiting(key, now);
        self.advance_dial(key, now);
    }

    /// Makes sure that there is a session, or a dial with something to try.
    pub(super) fn prepare_link(
        &mut self,
        key: LinkKey,
        candidates: &[Candidate],
        now: Now,
    ) -> Result<(), CallError> {
        if self.rejected.contains(key.identity()) || self.is_relay_only(&key) {
            return Err(CallError::Rejected);
        }
        if *key.identity() == self.own_key() {
            return Err(CallError::Unreachable(DialError::NoAddress));
        }
        if !self.links.contains_key(&key) && self.links.len() >= MAX_LINKS {
            return Err(CallError::Busy);
        }
        let link = self.links.entry(key).or_default();
        if link.session.is_some() {
            return Ok(());
        }
        let dial = link.dial.get_or_insert_with(|| Dial::new(now.instant));
        dial.add(candidates, self.config.allow_private_addresses);
        if dial.is_over() {
            let why = dial.trouble();
            link.dial = None;
            self.drop_unused_link(key);
            return Err(CallError::Unreachable(why));
        }
        Ok(())
    }

    /// Sends what waits at a link, as far as its session has room.
    pub(super) fn send_waiting(&mut self, key: LinkKey, now: Now) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let Some(conn) = link.session else { return };
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let mut answers = Vec::new();
        while session.has_room() {
            let Some(id) = link.waiting.pop_front() else { break };
            let (Some(Body::Message(message)), Some(connection), Some(open)) =
                (self.calls.body(id), session.connection.as_mut(), session.open.as_mut())
            else {
                continue;
            };
            let request = match connection.request(message) {
                Ok(request) => request,
                Err(NotOpen::NotARequest | NotOpen::TooLong) => {
                    answers.push((id, Err(CallError::Unsendable)));
                    continue;
                }
                Err(NotOpen::NotEstablished | NotOpen::Closed | NotOpen::TooManyRequests) => {
                    link.waiting.push_front(id);
                    break;
                }
            };
            open.last_used = now.instant;
            self.calls.take_body(id);
            self.calls.mark_sent(id, Sent { conn, request, heard: session.heard });
            if self.calls.get(id).is_some_and(|call| call.expected == Expected::Nothing) {
                answers.push((id, Ok(Message::Done(Done()))));
            } else {
                open.outstanding.insert(request, id);
            }
        }
        session.transmit(conn, false, &mut self.effects);
        for (id, result) in answers {
            self.answer(id, result);
        }
    }

    /// Starts the attempts that are due; ends the dial when none is left.
    pub(super) fn advance_dial(&mut self, key: LinkKey, now: Now) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let Some(dial) = link.dial.as_mut() else { return };
        while let Some(candidate) = dial.next_due(now.instant) {
            let conn = self.next_conn;
            self.next_conn = self.next_conn.wrapping_add(2);
            dial.started(conn, now.instant);
            let deadline = now.instant + CONNECT_TIMEOUT;
            let session = Session::new(Way::Dialled(key), None, deadline);
            self.sessions.insert(conn, session);
            Counters::count(&mut self.counters.dials);
            self.effects.push_back(Effect::Dial {
                conn,
                to: candidate.endpoint,
                allow_private: self.config.allow_private_addresses
                    || candidate.origin == Origin::User,
            });
        }
        if dial.is_over() {
            let why = dial.trouble();
            self.dial_was_in_vain(key, why, now);
        }
    }

    fn dial_was_in_vain(&mut self, key: LinkKey, why: DialError, now: Now) {
        let Some(link) = self.links.get_mut(&key) else { return };
        link.dial = None;
        for id in std::mem::take(&mut link.waiting) {
            self.answer(id, Err(CallError::Unreachable(why)));
        }
        self.drop_unused_link(key);
        if let LinkKey::Identified(peer) = key {
            self.events.push_back(Event::Unreached { peer, why });
        }
        self.relay_went_down(key, now);
    }

    /// Ends every attempt of a link but one. None of them has told the peer who we are: that is
    /// the last message of a handshake, and makes a session at once.
    pub(super) fn cancel_dial(&mut self, key: LinkKey, but: Option<ConnId>) {
        let Some(dial) = self.links.get_mut(&key).and_then(|link| link.dial.take()) else { return };
        for conn in dial.attempts().iter().copied().filter(|conn| Some(*conn) != but) {
            self.sessions.remove(&conn);
            self.effects.push_back(Effect::Close { conn });
        }
    }

    /// An attempt has ended without a session.
    pub(super) fn attempt_failed(&mut self, key: LinkKey, conn: ConnId, why: DialError, now: Now) {
        if let Some(dial) = self.links.get_mut(&key).and_then(|link| link.dial.as_mut()) {
            dial.failed(conn, why, now.instant);
            self.advance_dial(key, now);
        }
    }

    /// Answers everything that waits at a link, and forgets its dial.
    pub(super) fn give_up_link(&mut self, key: LinkKey, error: &CallError, now: Now) {
        let Some(link) = self.links.get(&key) else { return };
        if link.dial.is_some() {
            self.cancel_dial(key, None);
            self.relay_went_down(key, now);
        }
        let Some(link) = self.links.get_mut(&key) else { return };
        for id in std::mem::take(&mut link.waiting) {
            self.answer(id, Err(error.clone()));
        }
        self.drop_unused_link(key);
    }

    /// The session of a link has ended, and no other took its place.
    pub(super) fn unlink(&mut self, key: LinkKey, conn: ConnId, now: Now) {
        let Some(link) = self.links.get_mut(&key).filter(|link| link.session == Some(conn)) else {
            return;
        };
        link.session = None;
        self.give_up_link(key, &CallError::Closed, now);
        self.relay_went_down(key, now);
    }

    /// When the link is that of a kept relay, it is to be dialled again.
    fn relay_went_down(&mut self, key: LinkKey, now: Now) {
        if let LinkKey::Identified(relay) = key
            && let Some(keep) = self.relays.get_mut(&relay)
            && keep.next_dial.is_none()
        {
            keep.went_down(now.instant, &mut self.entropy);
        }
    }

    pub(super) fn drop_unused_link(&mut self, key: LinkKey) {
        if self.links.get(&key).is_some_and(Link::is_unused) {
            self.links.remove(&key);
        }
    }

    /// Dials kept relays whose time has come.
    pub(super) fn dial_due_relays(&mut self, now: Now) {
        let due: Vec<_> = self
            .relays
            .iter_mut()
            .filter(|(_, keep)| keep.next_dial.is_some_and(|at| at <= now.instant))
            .map(|(relay, keep)| {
                keep.next_dial = None;
                (*relay, keep.candidates.clone())
            })
            .collect();
        for (relay, candidates) in due {
            let key = LinkKey::Identified(relay);
            match self.prepare_link(key, &candidates, now) {
                Ok(()) => self.advance_dial(key, now),
                Err(error) => {
                    if let CallError::Unreachable(why) = error {
                        self.events.push_back(Event::Unreached { peer: relay, why });
                    }
                    if let Some(keep) = self.relays.get_mut(&relay) {
                        keep.went_down(now.instant, &mut self.entropy);
                    }
                }
            }
        }
    }

    /// When a dial has another attempt to start, or a kept relay is to be dialled.
    pub(super) fn links_timeout(&self) -> Option<Instant> {
        let dials = self.links.values().filter_map(|link| link.dial.as_ref()?.poll_timeout());
        let keeps = self.relays.values().filter_map(|keep| keep.next_dial);
        dials.chain(keeps).min()
    }
}
