//! The server's side of one connection, inside its TLS session: header, frames, requests one
//! after the other, time limits.
//!
//! Bytes and moments in; bytes, and what the registry has to answer, out. While it is being
//! answered nothing is read: a client that does not wait fills its own buffers, not ours. Answers
//! to what came together are gathered, so that they leave together, up to a bound.

#[cfg(test)]
mod tests;

use std::time::Duration;

use sremp_common::label::VERSION_HEADER;
use sremp_common::limit::{HANDSHAKE_TIMEOUT, REASSEMBLY_TIMEOUT};
use sremp_common::long_frame::{LongFrameError, LongFrameReader, encode_long_frame};
use sremp_common::time::Instant;
use sremp_common::wire::{
    Close, ErrorBody, ErrorCode, LookupTarget, Message, Pong, RequestId, Undecodable, WireError,
};

use crate::registry::{Question, Request, Wanted};

/// Request id of what answers no request: odd, hence the responder's own.
pub const UNASKED: RequestId = 1;

/// Bytes of gathered answers beyond which the registry is not asked again before they are taken: one
/// TLS record. One answer may pass it, and the short ones that need no registry are few: they answer
/// what came with one read.
const MAX_GATHERED: usize = 16 * 1024;

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// One of the two sides said so.
    Closed,
    /// The stream ended without a CLOSE; between two messages that is how most clients leave.
    Eof,
    /// The stream ended within a message.
    CutOff,
    /// No header, half a message, or nothing at all for too long.
    TimedOut,
    /// The client broke a rule of the protocol.
    Malformed,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    reader: LongFrameReader,
    /// Bytes that came with the last read, and how many of them are read.
    unread: Vec<u8>,
    read: usize,
    /// Sent, but not yet polled; see [`MAX_GATHERED`].
    outgoing: Vec<u8>,
    waiting: Waiting,
    idle_timeout: Duration,
    /// Until when something must happen; what, follows from the state.
    deadline: Instant,
    ending: Option<Ending>,
}

/// Whether the registry has something to answer.
#[derive(Debug)]
enum Waiting {
    No,
    ToBePolled(RequestId, Wanted),
    ForAnswer(RequestId),
}

impl Session {
    /// A connection whose TLS handshake is done. Its header is ready to be sent at once.
    #[must_use]
    pub fn new(idle_timeout: Duration, now: Instant) -> Self {
        Self {
            reader: LongFrameReader::new(),
            unread: Vec::new(),
            read: 0,
            outgoing: VERSION_HEADER.to_vec(),
            waiting: Waiting::No,
            idle_timeout,
            deadline: now + HANDSHAKE_TIMEOUT,
            ending: None,
        }
    }

    /// Whether more bytes may be handed in. What is handed in all the same is kept.
    #[must_use]
    pub const fn wants_bytes(&self) -> bool {
        matches!(self.waiting, Waiting::No) && self.ending.is_none()
    }

    /// Bytes from the client, in any split.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) {
        if self.ending.is_some() {
            return;
        }
        let was_partial = !self.reader.at_boundary();
        self.unread.extend_from_slice(bytes);
        self.read_on(now);
        // The rest of a message that began earlier gets no more time.
        if self.wants_bytes() && !was_partial && !self.reader.at_boundary() {
            self.deadline = now + REASSEMBLY_TIMEOUT.min(self.idle_timeout);
        }
    }

    /// The client's stream has ended.
    pub fn handle_eof(&mut self) {
        let clean = self.reader.at_boundary() && self.read == self.unread.len();
        self.end(if clean { Ending::Eof } else { Ending::CutOff });
    }

    /// The registry's answer to the request that was polled.
    pub fn handle_answer(&mut self, answer: &Message, now: Instant) {
        let Waiting::ForAnswer(id) = self.waiting else { return };
        self.waiting = Waiting::No;
        self.send(id, answer);
        self.deadline = now + self.idle_timeout;
        self.read_on(now);
    }

    /// Time has passed. Early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ending.is_none() && self.wants_bytes() && now >= self.deadline {
            self.send(UNASKED, &Message::Close(Close { code: ErrorCode::TimedOut }));
            self.end(Ending::TimedOut);
        }
    }

    /// When to call [`Self::handle_timeout`]. None while the registry is at work, which has no
    /// time limit here.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wants_bytes().then_some(self.deadline)
    }

    /// Ends the session from this side, with the reason.
    pub fn close(&mut self, code: ErrorCode) {
        if self.ending.is_none() {
            self.send(UNASKED, &Message::Close(Close { code }));
            self.end(Ending::Closed);
        }
    }

    /// What the registry has to answer next; the answer goes to [`Self::handle_answer`]. To be
    /// polled again when what is to be written has been polled.
    pub fn poll_wanted(&mut self) -> Option<Wanted> {
        if self.outgoing.len() > MAX_GATHERED {
            return None;
        }
        match std::mem::replace(&mut self.waiting, Waiting::No) {
            Waiting::ToBePolled(id, wanted) => {
                self.waiting = Waiting::ForAnswer(id);
                Some(wanted)
            }
            other @ (Waiting::No | Waiting::ForAnswer(_)) => {
                self.waiting = other;
                None
            }
        }
    }

    /// Bytes to be written, in order. To be polled until there are none, also after the end.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.outgoing.is_empty()).then(|| std::mem::take(&mut self.outgoing))
    }

    /// Whether, and why, the connection is over.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Reads messages up to the first that the registry has to answer.
    fn read_on(&mut self, now: Instant) {
        let mut buffer = std::mem::take(&mut self.unread);
        let mut bytes = buffer.get(self.read..).unwrap_or_default();
        while self.wants_bytes() {
            let had_header = self.reader.header_seen();
            let read = self.reader.read(&mut bytes);
            if !had_header && self.reader.header_seen() {
                self.deadline = now + self.idle_timeout;
            }
            match read {
                Ok(Some(frame)) => {
                    self.deadline = now + self.idle_timeout;
                    self.handle_frame(&frame);
                }
                Ok(None) => break,
                Err(error) => self.refuse_stream(error),
            }
        }
        self.read = buffer.len().saturating_sub(bytes.len());
        if self.read == buffer.len() {
            buffer.clear();
            self.read = 0;
        }
        // An end has emptied it for good.
        if self.ending.is_none() {
            self.unread = buffer;
        }
    }

    fn handle_frame(&mut self, frame: &[u8]) {
        match Message::decode(frame) {
            // An even id is the initiator's.
            Ok((id, message)) if id.is_multiple_of(2) => self.handle_message(id, message),
            Ok((id, _)) => self.refuse(id, ErrorCode::Malformed, "a client's request ids are even"),
            Err(Undecodable { request_id: Some(id), error: WireError::UnknownType(_) }) => {
                self.unsupported(id);
            }
            Err(undecodable) => {
                let id = undecodable.request_id.unwrap_or(UNASKED);
                self.refuse(id, ErrorCode::Malformed, &undecodable.to_string());
            }
        }
    }

    fn handle_message(&mut self, id: RequestId, message: Message) {
        match message {
            Message::Register(register) => self.request(id, Request::Register(Box::new(register))),
            Message::Lookup(lookup) => match lookup.asked() {
                Some(LookupTarget::One(key)) => self.question(id, Question::One(key)),
                Some(LookupTarget::Listed(after)) => self.request(id, Request::List(after)),
                None => self.refuse(id, ErrorCode::Malformed, "either a target or a listing"),
            },
            Message::ListServers(_) => self.question(id, Question::Servers),
            Message::Ping(_) => self.send(id, &Message::Pong(Pong())),
            // An error is never answered by an error.
            Message::Close(_) | Message::Error(_) => self.end(Ending::Closed),
            Message::Pong(_)
            | Message::Done(_)
            | Message::RelayInfoRequest(_)
            | Message::RelayInfo(_)
            | Message::RelayRegister(_)
            | Message::RelayRegistered(_)
            | Message::SetAdmission(_)
            | Message::ClaimMailbox(_)
            | Message::StoreMessage(_)
            | Message::StoreResponse(_)
            | Message::RetrieveMessages(_)
            | Message::MessageBatch(_)
            | Message::Ack(_)
            | Message::PublishKeyPackages(_)
            | Message::KeyPackageStock(_)
            | Message::TakeKeyPackage(_)
            | Message::KeyPackageTaken(_)
            | Message::KeyPackagesLow(_)
            | Message::Typing(_)
            | Message::Registered(_)
            | Message::LookupResponse(_)
            | Message::Servers(_) => self.unsupported(id),
        }
    }

    fn request(&mut self, id: RequestId, request: Request) {
        self.waiting = Waiting::ToBePolled(id, Wanted::Request(request));
    }

    fn question(&mut self, id: RequestId, question: Question) {
        self.waiting = Waiting::ToBePolled(id, Wanted::Question(question));
    }

    /// A request that is not served here: the connection goes on.
    fn unsupported(&mut self, id: RequestId) {
        let error =
            ErrorBody::new(ErrorCode::Unsupported, "a rendezvous server does not serve this");
        self.send(id, &Message::Error(error));
    }

    /// A request that breaks a rule of its form: whatever follows cannot be trusted.
    fn refuse(&mut self, id: RequestId, code: ErrorCode, text: &str) {
        self.send(id, &Message::Error(ErrorBody::new(code, text)));
        self.end(Ending::Malformed);
    }

    /// A stream that cannot be read on. Whoever does not speak the protocol is told nothing.
    fn refuse_stream(&mut self, error: LongFrameError) {
        match error {
            LongFrameError::NotSremp => self.end(Ending::Malformed),
            LongFrameError::Version { .. } => {
                self.refuse(UNASKED, ErrorCode::VersionMismatch, &error.to_string());
            }
            LongFrameError::TooLong { .. } => {
                self.refuse(UNASKED, ErrorCode::TooLarge, &error.to_string());
            }
        }
    }

    fn send(&mut self, id: RequestId, message: &Message) {
        // Answers are bounded by their types and by the registry's pages; if one were too long
        // all the same, the client had better be told than left waiting.
        let frame = encode_long_frame(&message.encode(id)).or_else(|_| {
            let error = ErrorBody::new(ErrorCode::Internal, "the answer is too long");
            encode_long_frame(&Message::Error(error).encode(id))
        });
        let mut frame = frame.unwrap_or_default();
        if self.outgoing.is_empty() {
            self.outgoing = frame;
        } else {
            self.outgoing.append(&mut frame);
        }
    }

    fn end(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            (self.unread, self.read) = (Vec::new(), 0);
            self.waiting = Waiting::No;
        }
    }
}
