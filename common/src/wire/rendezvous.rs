//! Messages between a node and a rendezvous server.

use serde::{Deserialize, Serialize};

use super::bounded::List;
use super::encode;
use super::endpoint::Endpoint;
use crate::id::{IdentityKey, SignatureBytes, SoughtKey, Token};
use crate::identity::{Identity, VerifiedIdentity};
use crate::key::IdentitySecret;
use crate::label::SignatureLabel;
use crate::limit::{MAX_ENDPOINTS, MAX_LIST_PAGE, MAX_SERVERS};
use crate::signed::BadSignature;
use crate::time::Timestamp;

/// What a registration says and its signature covers (with the identity's hash in front).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Where the peer can be dialled; may be empty: then only its relays are announced.
    pub endpoints: List<Endpoint, MAX_ENDPOINTS>,
    /// Seconds that the registration should last; clamped by the server.
    pub ttl: u32,
    /// Shown in listings.
    pub listed: bool,
}

/// What the signature of a registration covers: `[SHA-256(identity), endpoints, ttl, listed]`.
///
/// The identity is named by the digest of its own encoding, so that one signature can never be
/// moved to another version of it.
#[must_use]
pub fn registration_body(identity: &Identity, registration: &Registration) -> Vec<u8> {
    let digest = identity.digest();
    let digest = serde_bytes::Bytes::new(&digest);
    encode(&(digest, &registration.endpoints, registration.ttl, registration.listed))
}

impl Registration {
    /// Signs the registration of `identity` for the one TLS session that has this `exporter`
    /// (label [`crate::label::TLS_EXPORTER`], no context, 32 bytes): it is worth nothing in
    /// another session, or at another server.
    #[must_use]
    pub fn sign(
        &self,
        secret: &IdentitySecret,
        identity: &Identity,
        exporter: &[u8; 32],
    ) -> SignatureBytes {
        let body = registration_body(identity, self);
        secret.sign(SignatureLabel::RendezvousRegister, exporter, &body)
    }

    /// Checks that the identity's own key signed this registration in this TLS session.
    ///
    /// # Errors
    /// [`BadSignature`], without saying which part is wrong.
    pub fn verify(
        &self,
        signature: &SignatureBytes,
        identity: &VerifiedIdentity,
        exporter: &[u8; 32],
    ) -> Result<(), BadSignature> {
        let body = registration_body(identity.identity(), self);
        identity.key().verify(SignatureLabel::RendezvousRegister, exporter, &body, signature)
    }
}

/// Registers or renews.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Who.
    pub identity: Identity,
    /// Where.
    pub registration: Registration,
    /// Label `rdv-register`, context the TLS exporter, body
    /// `[SHA-256(identity), endpoints, ttl, listed]`.
    pub signature: SignatureBytes,
    /// Lets somebody new in at a server that takes new identities by invitation. Absent from the
    /// array, not nil, when there is none: then the message is that of every version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<Token>,
}

/// The registration stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// When it ends, by the server's clock.
    pub expires_at: Timestamp,
    /// Seconds after which to register again.
    pub renewal_interval: u32,
    /// The client's address as seen here.
    pub observed: Option<Endpoint>,
}

/// What a lookup asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupTarget {
    /// One identity.
    One(SoughtKey),
    /// A page of the listed identities, after this key (nil for the first page).
    Listed(Option<IdentityKey>),
}

/// `[target, list_all, after]` (specification 7.2, with paging).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Set for one identity.
    pub target: Option<SoughtKey>,
    /// Set for a page of a listing; exactly one of the two.
    pub list_all: bool,
    /// Last key of the page before.
    pub after: Option<IdentityKey>,
}

impl Lookup {
    /// A lookup of one identity.
    #[must_use]
    pub const fn one(target: IdentityKey) -> Self {
        Self { target: Some(SoughtKey::of(&target)), list_all: false, after: None }
    }

    /// A page of a listing.
    #[must_use]
    pub const fn listed(after: Option<IdentityKey>) -> Self {
        Self { target: None, list_all: true, after }
    }

    /// What is asked for; `None` when the fields contradict each other.
    #[must_use]
    pub fn asked(&self) -> Option<LookupTarget> {
        match (self.target, self.list_all, self.after) {
            (Some(target), false, None) => Some(LookupTarget::One(target)),
            (None, true, after) => Some(LookupTarget::Listed(after)),
            _ => None,
        }
    }
}

/// Somebody who is or was registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Who; to be verified.
    pub identity: Identity,
    /// Where; empty once the registration has expired.
    pub endpoints: List<Endpoint, MAX_ENDPOINTS>,
    /// Start of the day (UTC) of the last registration.
    pub last_seen: Timestamp,
    /// The registration stands.
    pub online: bool,
}

/// Who was found: at most one for a lookup of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupResponse {
    /// Ascending by identity key.
    pub peers: List<PeerInfo, MAX_LIST_PAGE>,
    /// More follow after the last one.
    pub has_more: bool,
}

/// Asks for other rendezvous servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListServers();

/// Suggestions for a person to consider; never used by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    /// Names and ports: TLS needs the name.
    pub servers: List<Endpoint, MAX_SERVERS>,
    /// The server's clock.
    pub time: Timestamp,
}
