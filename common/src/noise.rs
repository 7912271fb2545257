//! Noise sessions: who may open one, how both sides prove who they are, and what is sealed after.
//!
//! ```text
//! initiator                                          responder
//!   header, message 1: e                        ->
//!                                               <-   header, message 2: e, s, [header, Identity, proof]
//!   message 3: s, [Identity, proof] or nil      ->
//! ```
//! The handshake's steps are types without I/O; each consumes the one before. The initiator
//! verifies the responder completely before message 3 exists, so a wrong host never learns who
//! called. Frames, chunks and timeouts are [`crate::connection`]'s.

mod handshake;
mod proof;
mod resolver;
mod session;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use handshake::MESSAGE_1;
pub use handshake::{Answered, Authenticated, Called, Calling, check_header};
pub use session::{Session, SessionError};

use crate::id::IdentityKey;
use crate::identity::{IdentityError, VerifiedIdentity};
use crate::key::{IdentitySecret, NoiseSecret};
use crate::wire::WireError;

/// First bytes of each direction.
pub type VersionHeader = [u8; 7];

/// What a node, or a relay, opens its sessions with. Shared by all of its connections; a changed
/// identity is a new `Local`, used by the connections that are opened after.
#[derive(Debug)]
pub struct Local {
    /// Who we are, as shown to the other side.
    pub identity: VerifiedIdentity,
    /// Its secret: signs the proof of each handshake.
    pub identity_secret: IdentitySecret,
    /// The secret half of the `noise_key` in the identity.
    pub noise_secret: NoiseSecret,
}

/// Which side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dialled.
    Initiator,
    /// Was dialled.
    Responder,
}

impl Role {
    /// As it stands in a proof.
    const fn number(self) -> u8 {
        match self {
            Self::Initiator => 0,
            Self::Responder => 1,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody who proved an identity in this session.
    Identified(Box<VerifiedIdentity>),
    /// An initiator who showed none.
    Anonymous,
}

impl Caller {
    /// The proved identity's key.
    #[must_use]
    pub fn key(&self) -> Option<IdentityKey> {
        match self {
            Self::Identified(identity) => Some(identity.key()),
            Self::Anonymous => None,
        }
    }
}

/// Why a handshake was given up. The variant names the rule that the peer broke.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The first bytes are not the protocol's.
    #[error("the peer does not speak SREMP")]
    NotSremp,
    /// Another major version: nothing after the header can be understood.
    #[error(
        "the peer speaks version {}.{}, we speak {}.{}", theirs.0, theirs.1, ours.0, ours.1
    )]
    VersionMismatch {
        /// Our major and minor version.
        ours: (u8, u8),
        /// Theirs.
        theirs: (u8, u8),
    },
    /// The responder's header in the clear is not the one that it sent encrypted.
    #[error("the version header was changed on its way")]
    HeaderChanged,
    /// A handshake message that is shorter or longer than its pattern allows.
    #[error("a handshake message has a wrong length")]
    Length,
    /// An ephemeral or static key of small order: the secret agreed with it would be known to all.
    #[error("the peer's key is weak")]
    WeakKey,
    /// A handshake message does not decrypt: damaged, replayed, or made for another prologue.
    #[error("a handshake message does not decrypt")]
    Decrypt,
    /// The payload is not the one encoding of its type.
    #[error("malformed handshake payload")]
    Payload(#[source] WireError),
    /// The identity shown is not valid in itself.
    #[error("the peer's identity is refused")]
    Identity(#[from] IdentityError),
    /// The identity shown names another Noise key than the one that the session runs with.
    #[error("the peer's static key is not the one of its identity")]
    StaticKeyMismatch,
    /// The signature that binds identity and session does not hold.
    #[error("the peer's proof of identity does not hold")]
    BadProof,
    /// The peer is ourselves.
    #[error("the peer has our own key")]
    OwnKey,
    /// Somebody else answered than the one who was dialled.
    #[error("another identity answered than the one that was dialled")]
    WrongIdentity {
        /// Who was dialled.
        expected: IdentityKey,
        /// Who answered.
        found: IdentityKey,
    },
    /// The Noise library refused to work: a defect of ours.
    #[error("the handshake could not be carried out")]
    Noise(#[source] snow::Error),
}

/// Shared by the steps of one handshake.
#[derive(Debug)]
struct Side {
    noise: Box<snow::HandshakeState>,
    local: Arc<Local>,
}
