//! The connection before it is established: version headers and handshake messages.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ConnectionError;
use crate::entropy::Entropy;
use crate::frame::{FRAME_HEADER, FrameDecoder, append_frame};
use crate::id::IdentityKey;
use crate::label::VERSION_HEADER;
use crate::limit::{HANDSHAKE_TIMEOUT, MAX_HANDSHAKE_BYTES, MAX_NOISE_MESSAGE};
use crate::noise::{
    Answered, Authenticated, Called, Calling, HandshakeError, Local, MESSAGE_1, VersionHeader,
};
use crate::time::Instant;

// The steps below read one header and at most one short and one long frame: that is the bound.
const _: () = assert!(
    VERSION_HEADER.len() + FRAME_HEADER + MESSAGE_1 + FRAME_HEADER + MAX_NOISE_MESSAGE
        <= MAX_HANDSHAKE_BYTES
);

/// A handshake under way.
pub(super) struct Opening {
    /// `None` only after a failure.
    step: Option<Step>,
    /// What has come of the peer's version header.
    header: Vec<u8>,
    frames: FrameDecoder,
    deadline: Instant,
    anonymous: bool,
}

/// What is awaited next.
enum Step {
    HeaderOfInitiator { local: Arc<Local>, entropy: Box<Entropy> },
    Message1(Called),
    Message3(Answered),
    HeaderOfResponder(Calling),
    Message2(Calling, VersionHeader),
}

enum Progress {
    Waiting(Step),
    Next(Step),
    Done(Authenticated),
}

impl Opening {
    /// The initiator's side, and its first bytes: header and message 1.
    pub(super) fn dial(
        local: Arc<Local>,
        expect: Option<IdentityKey>,
        anonymous: bool,
        entropy: &mut Entropy,
        now: Instant,
    ) -> Result<(Self, Vec<u8>), ConnectionError> {
        let (calling, message) = Calling::start(local, expect, anonymous, entropy)?;
        let mut bytes = VERSION_HEADER.to_vec();
        append_frame(&mut bytes, &message)?;
        Ok((Self::new(Step::HeaderOfResponder(calling), anonymous, now), bytes))
    }

    /// The responder's side.
    pub(super) fn accept(local: Arc<Local>, entropy: Entropy, now: Instant) -> Self {
        Self::new(Step::HeaderOfInitiator { local, entropy: Box::new(entropy) }, false, now)
    }

    fn new(step: Step, anonymous: bool, now: Instant) -> Self {
        Self {
            step: Some(step),
            header: Vec::new(),
            frames: FrameDecoder::default(),
            deadline: now + HANDSHAKE_TIMEOUT,
            anonymous,
        }
    }

    /// We show no identity.
    pub(super) const fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn check_time(&self, now: Instant) -> Result<(), ConnectionError> {
        if now >= self.deadline { Err(ConnectionError::HandshakeTimedOut) } else { Ok(()) }
    }

    /// Takes as much of `input` as belongs to the handshake.
    pub(super) fn handle_bytes(
        &mut self,
        input: &mut &[u8],
        transmit: &mut VecDeque<Vec<u8>>,
    ) -> Result<Option<Authenticated>, ConnectionError> {
        while let Some(step) = self.step.take() {
            match self.advance(step, input, transmit)? {
                Progress::Next(step) => self.step = Some(step),
                Progress::Waiting(step) => {
                    self.step = Some(step);
                    break;
                }
                Progress::Done(authenticated) => return Ok(Some(authenticated)),
            }
        }
        Ok(None)
    }

    fn advance(
        &mut self,
        step: Step,
        input: &mut &[u8],
        transmit: &mut VecDeque<Vec<u8>>,
    ) -> Result<Progress, ConnectionError> {
        match step {
            Step::HeaderOfInitiator { local, mut entropy } => {
                let Some(header) = self.pull_header(input)? else {
                    return Ok(Progress::Waiting(Step::HeaderOfInitiator { local, entropy }));
                };
                let called = Called::start(local, &header, &mut entropy);
                if let Err(HandshakeError::VersionMismatch { .. }) = &called {
                    // So that both sides can report both versions.
                    transmit.push_back(VERSION_HEADER.to_vec());
                }
                Ok(Progress::Next(Step::Message1(called?)))
            }
            Step::Message1(called) => {
                let Some(message) = self.frames.pull(input, MESSAGE_1)? else {
                    return Ok(Progress::Waiting(Step::Message1(called)));
                };
                let (answered, message) = called.answer(&message)?;
                let mut bytes = VERSION_HEADER.to_vec();
                append_frame(&mut bytes, &message)?;
                transmit.push_back(bytes);
                Ok(Progress::Next(Step::Message3(answered)))
            }
            Step::Message3(answered) => {
                let Some(message) = self.frames.pull(input, MAX_NOISE_MESSAGE)? else {
                    return Ok(Progress::Waiting(Step::Message3(answered)));
                };
                Ok(Progress::Done(answered.finish(&message)?))
            }
            Step::HeaderOfResponder(calling) => {
                let Some(header) = self.pull_header(input)? else {
                    return Ok(Progress::Waiting(Step::HeaderOfResponder(calling)));
                };
                crate::noise::check_header(&header)?;
                Ok(Progress::Next(Step::Message2(calling, header)))
            }
            Step::Message2(calling, header) => {
                let Some(message) = self.frames.pull(input, MAX_NOISE_MESSAGE)? else {
                    return Ok(Progress::Waiting(Step::Message2(calling, header)));
                };
                let (authenticated, message) = calling.finish(&header, &message)?;
                let mut bytes = Vec::new();
                append_frame(&mut bytes, &message)?;
                transmit.push_back(bytes);
                Ok(Progress::Done(authenticated))
            }
        }
    }

    /// The peer's header, once it is whole. Refuses another protocol at its first wrong byte.
    fn pull_header(&mut self, input: &mut &[u8]) -> Result<Option<VersionHeader>, HandshakeError> {
        let missing = VERSION_HEADER.len().saturating_sub(self.header.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.header.extend_from_slice(taken);
        *input = rest;
        let name = VERSION_HEADER.iter().take(5);
        if self.header.iter().zip(name).any(|(theirs, ours)| theirs != ours) {
            return Err(HandshakeError::NotSremp);
        }
        Ok(VersionHeader::try_from(self.header.as_slice()).ok())
    }
}
