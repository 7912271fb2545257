//! How somebody can be reached: relays, tokens that open their mailboxes, addresses seen last.
//!
//! Kept for contacts and for fellow members of groups alike; learned from links, identities, MLS
//! leaves, rendezvous servers and connections.

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey, SealKey, Token};
use sremp_common::identity::RelayRecord;
use sremp_common::limit::MAX_RELAYS;
use sremp_common::time::Timestamp;
use sremp_common::wire::Endpoint;

use crate::store::{StoreError, Table, Tx};
use crate::transport::{Candidate, Origin};

/// Tokens kept for one person, newest first.
const MAX_TOKENS: usize = 16;
/// Addresses kept for one person.
const MAX_ADDRESSES: usize = 8;

/// Where a token came from: a newer one from the same source replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenSource {
    /// A contact link.
    Link,
    /// The leaf of a group.
    Group(GroupId),
}

/// An address, and who says so: an address from the user may be private, one from a registry or
/// a stranger may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Where.
    pub endpoint: Endpoint,
    /// The user gave it.
    pub from_user: bool,
}

impl Address {
    fn candidate(&self) -> Candidate {
        let origin = if self.from_user { Origin::User } else { Origin::Told };
        Candidate { endpoint: self.endpoint.clone(), origin }
    }
}

/// How one identity can be reached.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reach {
    /// Relays that hold mailboxes for it, in its order of preference.
    pub relays: Vec<RelayRecord>,
    /// Tokens that open its mailboxes, newest first.
    pub tokens: Vec<(TokenSource, Token)>,
    /// Addresses of its own node, newest first.
    pub addresses: Vec<Address>,
    /// Relays and sealing key are from the identity itself, which goes before leaves of groups:
    /// those may be older.
    #[serde(default)]
    pub from_identity: bool,
    /// Blobs are sealed to this key.
    pub seal_key: Option<SealKey>,
    /// Wants the relay path at once.
    pub prefers_async: bool,
    /// When a rendezvous server was last asked.
    pub asked_at: Option<Timestamp>,
}

impl Reach {
    /// What is known; empty when nothing is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn of(tx: &Tx, key: &IdentityKey) -> Result<Self, StoreError> {
        Ok(tx.read(Table::Endpoints, key.as_bytes())?.unwrap_or_default())
    }

    /// Writes what is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn save(&self, tx: &Tx, key: &IdentityKey) -> Result<(), StoreError> {
        tx.write(Table::Endpoints, key.as_bytes(), self)
    }

    /// Takes a token; the one before from the same source is worth nothing any more.
    pub fn learn_token(&mut self, source: TokenSource, token: Token) {
        self.tokens.retain(|(other, known)| *other != source && *known != token);
        self.tokens.insert(0, (source, token));
        self.tokens.truncate(MAX_TOKENS);
    }

    /// Takes the relays, unless there are none in the message.
    pub fn learn_relays(&mut self, relays: &[RelayRecord]) {
        if !relays.is_empty() {
            self.relays = relays.iter().take(MAX_RELAYS).cloned().collect();
        }
    }

    /// Takes an address as the newest.
    pub fn learn_address(&mut self, endpoint: Endpoint, from_user: bool) {
        let from_user = from_user
            || self.addresses.iter().any(|known| known.endpoint == endpoint && known.from_user);
        self.addresses.retain(|known| known.endpoint != endpoint);
        self.addresses.insert(0, Address { endpoint, from_user });
        self.addresses.truncate(MAX_ADDRESSES);
    }

    /// Where its own node may be dialled.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        self.addresses.iter().map(Address::candidate).collect()
    }

    /// The token that a group's member gave to this group: a keeper cannot connect two groups by it.
    /// Another one where there is none.
    #[must_use]
    pub fn token_in(&self, group: &GroupId) -> Option<Token> {
        let of_group = |source: &TokenSource| *source == TokenSource::Group(*group);
        let found = self.tokens.iter().find(|(source, _)| of_group(source));
        found.map(|(_, token)| *token).or_else(|| self.token())
    }

    /// The best token, if any: the newest of a group; a link's is good for an invitation only.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        let of_group =
            self.tokens.iter().find(|(source, _)| matches!(source, TokenSource::Group(_)));
        of_group.or_else(|| self.tokens.first()).map(|(_, token)| *token)
    }
}
