//! How a connection ends, and why.

use crate::chunk::ChunkError;
use crate::frame::FrameError;
use crate::noise::{HandshakeError, SessionError};
use crate::wire::{ErrorCode, RequestId, Undecodable};

/// How a connection ended.
#[derive(Debug)]
pub enum Closed {
    /// One side said so: the code is its reason.
    Clean(ErrorCode),
    /// The stream ended without a farewell: something may be missing.
    Unclean,
    /// We gave it up.
    Failed(ConnectionError),
}

/// Why a connection was given up. The variant names the rule that the peer broke.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// A step of the handshake.
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
    /// Header, handshake and authentication took longer than `HANDSHAKE_TIMEOUT`.
    #[error("the handshake took too long")]
    HandshakeTimedOut,
    /// The stream ended before the handshake.
    #[error("the connection ended within the handshake")]
    HandshakeCutOff,
    /// An illegal frame.
    #[error("an illegal frame")]
    Frame(#[from] FrameError),
    /// A frame did not become whole within `REASSEMBLY_TIMEOUT`.
    #[error("a frame was not completed in time")]
    FrameTimedOut,
    /// A frame that could not be opened or sealed.
    #[error("the session failed")]
    Session(#[from] SessionError),
    /// An illegal chunk.
    #[error("an illegal chunk")]
    Chunk(#[from] ChunkError),
    /// A message that does not decode.
    #[error("a malformed message")]
    Malformed(#[source] Undecodable),
    /// A request under a number of ours, or an answer under one of the peer's own.
    #[error("message type {0} in the wrong direction")]
    WrongDirection(u8),
    /// An answer to something that was never asked.
    #[error("an answer to request {0}, which was never made")]
    NeverAsked(RequestId),
    /// A request under a number that still waits for its answer.
    #[error("a second request {0}")]
    DuplicateRequest(RequestId),
    /// More than `MAX_OPEN_REQUESTS`, or more answers than the peer reads.
    #[error("too many requests at a time")]
    TooManyRequests,
    /// A request that an anonymous session must not make.
    #[error("message type {0} in an anonymous session")]
    NotAllowed(u8),
    /// Nothing came for `IDLE_TIMEOUT`.
    #[error("the peer is silent")]
    Silent,
    /// The owner fed more than it polled: a defect of ours.
    #[error("events were not polled")]
    NotPolled,
}

impl ConnectionError {
    /// What the peer is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Handshake(HandshakeError::VersionMismatch { .. }) => ErrorCode::VersionMismatch,
            Self::Handshake(_) | Self::Session(_) => ErrorCode::AuthenticationFailed,
            Self::HandshakeTimedOut
            | Self::FrameTimedOut
            | Self::Silent
            | Self::Chunk(ChunkError::TimedOut) => ErrorCode::TimedOut,
            Self::Chunk(ChunkError::TooLong { .. }) => ErrorCode::TooLarge,
            Self::Chunk(ChunkError::NoRoom) => ErrorCode::Unavailable,
            Self::TooManyRequests => ErrorCode::RateLimited,
            Self::NotAllowed(_) => ErrorCode::NotAllowed,
            Self::NotPolled => ErrorCode::Internal,
            Self::HandshakeCutOff
            | Self::Frame(_)
            | Self::Chunk(_)
            | Self::Malformed(_)
            | Self::WrongDirection(_)
            | Self::NeverAsked(_)
            | Self::DuplicateRequest(_) => ErrorCode::Malformed,
        }
    }

    /// The session still stands, so that a farewell can be sealed.
    pub(super) const fn can_be_told(&self) -> bool {
        !matches!(self, Self::Session(_) | Self::Handshake(_))
    }
}

/// Why a request was not taken. Nothing of it was sent.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotOpen {
    /// The handshake is still going on.
    #[error("the connection is not established yet")]
    NotEstablished,
    /// The connection is over.
    #[error("the connection is closed")]
    Closed,
    /// `MAX_OPEN_REQUESTS` wait for an answer already.
    #[error("too many requests wait for an answer")]
    TooManyRequests,
    /// Longer than `MAX_MESSAGE`.
    #[error("the message is too long")]
    TooLong,
    /// Not a request, or not one for this kind of session.
    #[error("this message is no request here")]
    NotARequest,
}
