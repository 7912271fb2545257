//! The signature that binds an identity to one session.
//!
//! ```text
//! label  channel-auth
//! ctx    handshake hash after the previous message
//! body   [role, own noise_key, SHA-256(own Identity), peer identity key or nil]
//! ```
//! The hash makes the proof useless on any other connection, the role stops reflection, the peer's
//! key stops misbinding, the digest stops mixing versions of an identity. The responder signs nil
//! for the peer: in message 2 it does not know who calls.

use serde::Serialize;
use serde_bytes::Bytes;

use super::{HandshakeError, Role};
use crate::id::{IdentityKey, NoiseKey, SignatureBytes};
use crate::identity::VerifiedIdentity;
use crate::key::IdentitySecret;
use crate::label::SignatureLabel;
use crate::wire::encode;

/// What a proof says.
pub(super) struct Claim<'a> {
    /// Of the one who signs.
    pub(super) role: Role,
    /// Of the one who signs.
    pub(super) noise_key: &'a NoiseKey,
    /// Of the one who signs.
    pub(super) identity: &'a VerifiedIdentity,
    /// The other one, if known.
    pub(super) peer: Option<IdentityKey>,
    /// Handshake hash after the previous message.
    pub(super) hash: &'a [u8],
}

#[derive(Serialize)]
struct Body<'a>(u8, &'a NoiseKey, &'a Bytes, Option<IdentityKey>);

impl Claim<'_> {
    pub(super) fn sign(&self, secret: &IdentitySecret) -> SignatureBytes {
        secret.sign(SignatureLabel::ChannelAuth, self.hash, &self.body())
    }

    pub(super) fn verify(&self, proof: &SignatureBytes) -> Result<(), HandshakeError> {
        self.identity
            .key()
            .verify(SignatureLabel::ChannelAuth, self.hash, &self.body(), proof)
            .map_err(|_| HandshakeError::BadProof)
    }

    fn body(&self) -> Vec<u8> {
        let digest = self.identity.identity().digest();
        encode(&Body(self.role.number(), self.noise_key, Bytes::new(&digest), self.peer))
    }
}
