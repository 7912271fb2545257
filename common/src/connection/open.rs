//! The connection once it is established: what comes in is opened, put together, decoded and
//! handed on; what goes out is cut up and sealed when there is room for it.

use std::collections::VecDeque;
use std::time::Duration;

use super::requests::{Kind, Requests, is_allowed_anonymously, kind};
use super::{ConnectionError, Event, NotOpen, ReassemblyBudget};
use crate::chunk::{Incoming, MAX_CHUNK_FRAME, Outgoing};
use crate::entropy::Entropy;
use crate::frame::{FrameDecoder, frame_header};
use crate::limit::{
    CHUNK_PAYLOAD, IDLE_TIMEOUT, MAX_MESSAGE, MAX_MESSAGE_STRANGER, MAX_OPEN_REQUESTS,
    MAX_SESSION_AGE, NOISE_TAG, PING_AFTER, REASSEMBLY_TIMEOUT,
};
use crate::noise::{Role, Session};
use crate::time::Instant;
use crate::wire::{
    Close, ErrorBody, ErrorCode, Message, Ping, Pong, RequestId, Undecodable, WireError,
};

/// Answers that the connection gives by itself while this many messages are queued already go to
/// somebody who does not read.
const MAX_QUEUED_MESSAGES: usize = 2 * MAX_OPEN_REQUESTS;

/// An established connection.
pub(super) struct Open {
    role: Role,
    /// One side showed no identity.
    anonymous: bool,
    session: Session,
    frames: FrameDecoder,
    incoming: Incoming,
    outgoing: Outgoing,
    requests: Requests,
    established: Instant,
    last_received: Instant,
    ping_at: Instant,
    ping_after: Duration,
    /// When the frame that is incomplete began.
    frame_began: Option<Instant>,
}

/// What a step leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Proceed,
    /// The session has lived long enough.
    Renew,
    /// The peer said farewell.
    ClosedByPeer(ErrorCode),
}

impl Open {
    pub(super) fn new(
        session: Session,
        role: Role,
        anonymous: bool,
        entropy: &mut Entropy,
        now: Instant,
    ) -> Self {
        let ping_after = jittered_ping(entropy);
        Self {
            role,
            anonymous,
            session,
            frames: FrameDecoder::default(),
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            requests: Requests::new(role),
            established: now,
            last_received: now,
            ping_at: now + ping_after,
            ping_after,
            frame_began: None,
        }
    }

    pub(super) fn set_budget(&mut self, budget: ReassemblyBudget) {
        self.incoming.set_budget(budget);
    }

    pub(super) fn handle_bytes(
        &mut self,
        mut input: &[u8],
        trusted: bool,
        now: Instant,
        events: &mut VecDeque<Event>,
    ) -> Result<Outcome, ConnectionError> {
        if input.is_empty() {
            return Ok(Outcome::Proceed);
        }
        self.last_received = now;
        self.ping_at = now + self.ping_after;
        let max_message = if trusted { MAX_MESSAGE } else { MAX_MESSAGE_STRANGER };
        while let Some(frame) = self.frames.pull(&mut input, MAX_CHUNK_FRAME)? {
            self.frame_began = None;
            let chunk = self.session.open(&frame)?;
            if let Some(message) = self.incoming.handle_chunk(&chunk, max_message, now)? {
                let outcome = self.receive(&message, events)?;
                if outcome != Outcome::Proceed {
                    return Ok(outcome);
                }
            }
        }
        if self.frames.is_partial() {
            self.frame_began.get_or_insert(now);
        }
        Ok(Outcome::Proceed)
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        entropy: &mut Entropy,
    ) -> Result<Outcome, ConnectionError> {
        if now >= self.last_received + IDLE_TIMEOUT {
            return Err(ConnectionError::Silent);
        }
        if self.frame_began.is_some_and(|began| now >= began + REASSEMBLY_TIMEOUT) {
            return Err(ConnectionError::FrameTimedOut);
        }
        self.incoming.check_time(now)?;
        if now >= self.established + MAX_SESSION_AGE {
            return Ok(Outcome::Renew);
        }
        if now >= self.ping_at {
            self.ping_after = jittered_ping(entropy);
            self.ping_at = now + self.ping_after;
            let id = self.requests.probe();
            self.send(id, &Message::Ping(Ping()));
        }
        Ok(Outcome::Proceed)
    }

    pub(super) fn deadline(&self) -> Instant {
        let frame = self.frame_began.map(|began| began + REASSEMBLY_TIMEOUT);
        let others = [frame, self.incoming.deadline(), Some(self.established + MAX_SESSION_AGE)];
        let silent = self.ping_at.min(self.last_received + IDLE_TIMEOUT);
        others.into_iter().flatten().fold(silent, Instant::min)
    }

    /// Frames, ready to be written, of about one full chunk together.
    pub(super) fn poll_transmit(&mut self) -> Result<Option<Vec<u8>>, ConnectionError> {
        let mut out = Vec::new();
        while out.len() < CHUNK_PAYLOAD {
            let Some(chunk) = self.outgoing.next_chunk() else { break };
            out.extend_from_slice(&frame_header(chunk.len().saturating_add(NOISE_TAG))?);
            self.session.seal(&chunk, &mut out)?;
        }
        Ok((!out.is_empty()).then_some(out))
    }

    pub(super) fn request(&mut self, message: &Message) -> Result<RequestId, NotOpen> {
        let kind = kind(message);
        if matches!(kind, Kind::Farewell(_)) {
            return Err(NotOpen::NotARequest);
        }
        let is_probe = kind == Kind::Probe;
        if self.anonymous && !is_probe && !is_allowed_anonymously(message, self.role) {
            return Err(NotOpen::NotARequest);
        }
        let id = self.requests.ask(kind)?;
        self.outgoing.push(message.encode(id)).map_err(|_| {
            self.requests.abandon(id);
            NotOpen::TooLong
        })?;
        Ok(id)
    }

    pub(super) fn respond(&mut self, id: RequestId, message: &Message) {
        // Under a number of ours it would be a request.
        if self.requests.is_ours(id) {
            return;
        }
        self.requests.answer(id, message);
        self.send(id, message);
    }

    pub(super) fn abandon(&mut self, id: RequestId) {
        self.requests.abandon(id);
    }

    /// Queues the farewell behind everything else.
    pub(super) fn say_farewell(&mut self, code: ErrorCode) {
        let id = self.requests.ask(Kind::Farewell(code)).unwrap_or_default();
        self.outgoing.push_last(Message::Close(Close { code }).encode(id));
    }

    /// Queues the farewell, and drops what is too long to be worth waiting for.
    pub(super) fn break_off(&mut self, code: ErrorCode) {
        self.outgoing.drop_large();
        self.say_farewell(code);
    }

    pub(super) const fn queued_bytes(&self) -> usize {
        self.outgoing.queued_bytes()
    }

    pub(super) fn is_worn(&self) -> bool {
        self.session.is_worn()
    }

    /// Whether anything is allocated for messages or frames.
    #[cfg(test)]
    pub(super) fn holds_buffers(&self) -> bool {
        self.frames.is_partial()
            || self.incoming.buffered_bytes() > 0
            || self.outgoing.queued_messages() > 0
    }

    #[cfg(test)]
    pub(super) const fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<Outcome, ConnectionError> {
        match Message::decode(bytes) {
            Ok((id, message)) => self.dispatch(id, message, events),
            Err(Undecodable { request_id: Some(id), error: WireError::UnknownType(_) }) => {
                self.receive_unknown(id, events)?;
                Ok(Outcome::Proceed)
            }
            Err(error) => Err(ConnectionError::Malformed(error)),
        }
    }

    fn dispatch(
        &mut self,
        id: RequestId,
        message: Message,
        events: &mut VecDeque<Event>,
    ) -> Result<Outcome, ConnectionError> {
        match (kind(&message), self.requests.is_ours(id)) {
            (Kind::Answer, true) => {
                if self.requests.answered(id, &message)? {
                    events.push_back(Event::Response { id, message });
                }
            }
            (Kind::Probe, false) => self.reply(id, &Message::Pong(Pong()))?,
            (Kind::Farewell(code), false) => return Ok(Outcome::ClosedByPeer(code)),
            (Kind::Foreign, false) => self.reply(id, &unsupported())?,
            (kind @ (Kind::Request | Kind::Subscription | Kind::Notice), false) => {
                self.check_allowed(id, &message)?;
                if kind != Kind::Notice {
                    self.requests.asked(id)?;
                }
                events.push_back(Event::Request { id, message });
            }
            (Kind::Answer, false) | (_, true) => {
                return Err(ConnectionError::WrongDirection(message.type_number()));
            }
        }
        Ok(Outcome::Proceed)
    }

    fn check_allowed(&mut self, id: RequestId, message: &Message) -> Result<(), ConnectionError> {
        let asker = match self.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        if !self.anonymous || is_allowed_anonymously(message, asker) {
            return Ok(());
        }
        let text = "not in an anonymous session";
        self.reply(id, &Message::Error(ErrorBody::new(ErrorCode::NotAllowed, text)))?;
        Err(ConnectionError::NotAllowed(message.type_number()))
    }

    /// A message of a type that a newer version may know: a request is refused, and a request of
    /// ours that is answered so has failed.
    fn receive_unknown(
        &mut self,
        id: RequestId,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let error = unsupported();
        if !self.requests.is_ours(id) {
            return self.reply(id, &error);
        }
        if self.requests.answered(id, &error)? {
            events.push_back(Event::Response { id, message: error });
        }
        Ok(())
    }

    /// Answers by itself, unless the peer makes us answer without reading the answers.
    fn reply(&mut self, id: RequestId, message: &Message) -> Result<(), ConnectionError> {
        if self.outgoing.queued_messages() >= MAX_QUEUED_MESSAGES {
            return Err(ConnectionError::TooManyRequests);
        }
        self.send(id, message);
        Ok(())
    }

    fn send(&mut self, id: RequestId, message: &Message) {
        if self.outgoing.push(message.encode(id)).is_err() {
            let error = ErrorBody::new(ErrorCode::TooLarge, "the answer is too long");
            // An error is short: it is never given back.
            let _ = self.outgoing.push(Message::Error(error).encode(id));
        }
    }
}

fn unsupported() -> Message {
    Message::Error(ErrorBody::new(ErrorCode::Unsupported, "unknown message type"))
}

/// [`PING_AFTER`], a fifth less to a fifth more.
fn jittered_ping(entropy: &mut Entropy) -> Duration {
    let fifth = u64::try_from(PING_AFTER.as_millis()).unwrap_or(u64::MAX) / 5;
    let jitter = entropy.below(fifth.saturating_mul(2).saturating_add(1));
    Duration::from_millis(fifth.saturating_mul(4).saturating_add(jitter))
}
