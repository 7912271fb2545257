//! Text forms: Bech32m (BIP 350), so that a slip of the hand is noticed, with the role in front.
//!
//! | prefix | what |
//! |---|---|
//! | `sremp1...` | an identity key: a person's or program's id |
//! | `sremplink1...` | a contact link |
//! | `sremprelay1...` | a relay link: the relay's identity key and where it listens |
//! | `srempinvite1...` | an invitation to a rendezvous server (a relay's is in its link) |

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Checksum, Hrp};
use serde::{Deserialize, Serialize};

use crate::id::{IdentityKey, Token};
use crate::identity::RelayRecord;
use crate::limit::{MAX_ENDPOINTS, MAX_RELAYS, MAX_TEXT_FORM};
use crate::name::Username;
use crate::wire::{Endpoint, List, decode, encode};

const ID: &str = "sremp";
const CONTACT: &str = "sremplink";
const RELAY: &str = "sremprelay";
const INVITE: &str = "srempinvite";

/// Rendezvous servers in one link.
const MAX_LINK_SERVERS: usize = 4;

/// Bech32m with its length limit raised: links are longer than bitcoin addresses. Past 1,023
/// characters the checksum no longer promises to find every four errors, only all but 2^-30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LongBech32m {}

impl Checksum for LongBech32m {
    type MidstateRepr = u32;
    const CODE_LENGTH: usize = MAX_TEXT_FORM;
    const CHECKSUM_LENGTH: usize = bech32::Bech32m::CHECKSUM_LENGTH;
    const GENERATOR_SH: [u32; 5] = bech32::Bech32m::GENERATOR_SH;
    const TARGET_RESIDUE: u32 = bech32::Bech32m::TARGET_RESIDUE;
}

/// Why a text is not the form that was asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TextError {
    /// A character is wrong or missing.
    #[error("the checksum does not match: a character is wrong or missing; copy it again")]
    Checksum,
    /// Right form, other role.
    #[error("this is {found}, but {wanted} is needed here")]
    WrongRole {
        /// What the prefix says.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// Nothing of ours.
    #[error("this is neither an id nor a link of SREMP")]
    NotOurs,
    /// The checksum holds, but what is inside does not decode.
    #[error("the content is damaged, or made by a newer version")]
    Content,
}

/// Everything that a stranger needs for a first contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactLink {
    /// Who.
    pub identity_key: IdentityKey,
    /// What they call themselves: shown until the identity itself is known.
    pub name: Username,
    /// Where their own node may be dialled.
    pub addresses: List<Endpoint, MAX_ENDPOINTS>,
    /// Relays that hold their mailboxes.
    pub relays: List<RelayRecord, MAX_RELAYS>,
    /// Rendezvous servers that know them (host:port; private authorities are not in links).
    pub rendezvous: List<Endpoint, MAX_LINK_SERVERS>,
    /// Worth one key package and one Welcome each day it is used, until revoked.
    pub token: Option<Token>,
}

/// A relay as people pass it on: who it is and where, and an invitation where it wants one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayLink {
    /// The relay's own identity: a dialler expects exactly this one.
    pub identity_key: IdentityKey,
    /// Where it listens.
    pub endpoints: List<Endpoint, MAX_ENDPOINTS>,
    /// Opens a mailbox at a relay that takes new owners by invitation. Absent from the array, not
    /// nil, when there is none: then the link is that of every version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<Token>,
}

impl RelayLink {
    /// The relay itself, as it is shown to others: without the invitation.
    #[must_use]
    pub fn record(&self) -> RelayRecord {
        RelayRecord { identity_key: self.identity_key, endpoints: self.endpoints.clone() }
    }
}

impl From<RelayRecord> for RelayLink {
    fn from(record: RelayRecord) -> Self {
        let RelayRecord { identity_key, endpoints } = record;
        Self { identity_key, endpoints, invite: None }
    }
}

/// `sremp1...`
#[must_use]
pub fn encode_identity_key(key: &IdentityKey) -> String {
    to_text(ID, key.as_bytes())
}

/// The identity key of `sremp1...`
///
/// # Errors
/// [`TextError`].
pub fn decode_identity_key(text: &str) -> Result<IdentityKey, TextError> {
    let bytes: [u8; 32] = from_text(ID, text)?.try_into().map_err(|_| TextError::Content)?;
    IdentityKey::from_bytes(bytes).map_err(|_| TextError::Content)
}

/// `sremplink1...`
#[must_use]
pub fn encode_contact_link(link: &ContactLink) -> String {
    to_text(CONTACT, &encode(link))
}

/// The link of `sremplink1...`
///
/// # Errors
/// [`TextError`].
pub fn decode_contact_link(text: &str) -> Result<ContactLink, TextError> {
    decode(&from_text(CONTACT, text)?).map_err(|_| TextError::Content)
}

/// `sremprelay1...`
#[must_use]
pub fn encode_relay_link(link: &RelayLink) -> String {
    to_text(RELAY, &encode(link))
}

/// The link of `sremprelay1...`
///
/// # Errors
/// [`TextError`].
pub fn decode_relay_link(text: &str) -> Result<RelayLink, TextError> {
    decode(&from_text(RELAY, text)?).map_err(|_| TextError::Content)
}

/// `srempinvite1...`
#[must_use]
pub fn encode_invite(token: &Token) -> String {
    to_text(INVITE, token.as_bytes())
}

/// The token of `srempinvite1...`
///
/// # Errors
/// [`TextError`].
pub fn decode_invite(text: &str) -> Result<Token, TextError> {
    let bytes: [u8; 16] = from_text(INVITE, text)?.try_into().map_err(|_| TextError::Content)?;
    Ok(Token::new(bytes))
}

/// What a text claims to be, judged by its prefix alone.
#[must_use]
pub fn role_of(text: &str) -> Option<&'static str> {
    let (prefix, _) = text.rsplit_once('1')?;
    describe(&prefix.to_ascii_lowercase())
}

fn describe(prefix: &str) -> Option<&'static str> {
    match prefix {
        ID => Some("an id"),
        CONTACT => Some("a contact link"),
        RELAY => Some("a relay link"),
        INVITE => Some("an invitation"),
        _ => None,
    }
}

fn to_text(prefix: &'static str, bytes: &[u8]) -> String {
    // Prefixes are constants of this file; content is bounded by its types below the code length.
    Hrp::parse(prefix)
        .ok()
        .and_then(|hrp| bech32::encode::<LongBech32m>(hrp, bytes).ok())
        .unwrap_or_default()
}

fn from_text(wanted: &'static str, text: &str) -> Result<Vec<u8>, TextError> {
    let text = text.trim();
    let found = role_of(text).ok_or(TextError::NotOurs)?;
    let checked = CheckedHrpstring::new::<LongBech32m>(text).map_err(|_| TextError::Checksum)?;
    let wanted_role = describe(wanted).unwrap_or_default();
    if found != wanted_role {
        return Err(TextError::WrongRole { found, wanted: wanted_role });
    }
    Ok(checked.byte_iter().collect())
}

#[cfg(test)]
mod tests;
