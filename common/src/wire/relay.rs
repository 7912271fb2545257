//! Messages between a node and whoever keeps mailboxes: a relay, or another node for its owner.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bounded::{Bin, List};
use super::endpoint::Endpoint;
use super::error_code::ErrorCode;
use crate::id::{BlobId, GroupId, IdentityKey, Incarnation, Token, TokenHash};
use crate::identity::Identity;
use crate::limit::{
    MAX_ACKS, MAX_ADMISSIONS, MAX_BATCH, MAX_BLOB, MAX_KEY_PACKAGE, MAX_KEY_PACKAGES,
    MAX_KNOWN_CLAIMS, MAX_RECIPIENTS,
};
use crate::time::Timestamp;

/// Quotas of one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayLimits {
    /// Longest blob, in bytes.
    pub max_blob: u32,
    /// Most messages in one mailbox.
    pub max_messages: u32,
    /// Most bytes in one mailbox.
    pub max_bytes: u64,
    /// Seconds that an unacknowledged message is kept.
    pub retention: u32,
}

/// What a mailbox keeper offers, and how it sees the asker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Quotas of each mailbox.
    pub limits: RelayLimits,
    /// Leading zero bits that a proof of work must show; 0 when none is accepted.
    pub pow_difficulty: u8,
    /// The keeper's clock.
    pub time: Timestamp,
    /// Changes when the store was made anew: what was sent before must be sent again.
    pub incarnation: Incarnation,
    /// The asker's address as seen here.
    pub observed: Option<Endpoint>,
}

/// What the owner wishes for its mailbox; the keeper's limits bound it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayCapabilities {
    /// Longest blob that the owner takes, in bytes.
    pub max_message_size: u32,
    /// Seconds that the owner wants messages kept.
    pub max_storage_duration: u32,
}

/// Opens or renews the mailbox of the session's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRegister {
    /// What the owner wishes.
    pub capabilities: RelayCapabilities,
    /// Lets a new owner in where mailboxes are by invitation. Absent from the array, not nil, when
    /// there is none: so it reads for keepers that know nothing of invitations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<Token>,
}

/// The mailbox is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRegistered {
    /// As for `RelayInfoRequest`.
    pub info: RelayInfo,
    /// Messages that wait in the mailbox.
    pub messages: u64,
    /// Bytes that wait in the mailbox.
    pub bytes: u64,
    /// Key packages in stock, without the last resort.
    pub key_packages: u32,
}

/// Says which copy of the owner's home reads the mailbox: each session leaves a fresh incarnation, and
/// names the ones that it may have left before. A copy that was made in between names others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimMailbox {
    /// Stands from now on. Random.
    pub fresh: Incarnation,
    /// What may stand now; empty to take the mailbox over, whatever stands.
    pub known: List<Incarnation, MAX_KNOWN_CLAIMS>,
    /// The home has just started: whoever else reads the mailbox now is another copy. Otherwise it is
    /// an earlier session of this one.
    pub started: bool,
}

/// For whom a token was made: decides which share of the mailbox it may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdmissionClass {
    /// A contact or fellow member.
    Contact,
    /// A stranger with a link.
    Link,
}

/// One token that opens a mailbox, known to the keeper by its hash only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionEntry {
    /// Labelled hash of the token.
    pub token_hash: TokenHash,
    /// For whom it was made.
    pub class: AdmissionClass,
    /// Uses a day; 0 for as many as the mailbox holds.
    pub daily_quota: u32,
}

/// The whole list of tokens; replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAdmission {
    /// The list.
    pub entries: List<AdmissionEntry, MAX_ADMISSIONS>,
}

/// What lets a store, or the taking of a key package, into a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The identity of this session: the owner itself, or somebody whom it admits.
    Session,
    /// A token that the owner gave away.
    Token(Token),
    /// Work done for this relay, recipient, blob and hour (see [`crate::pow`]).
    ProofOfWork {
        /// Hour since the Unix epoch; the keeper takes this one and the one before.
        hour: u64,
        /// Makes the hash small.
        nonce: u64,
    },
}

/// One mailbox that a blob goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Whose mailbox.
    pub identity_key: IdentityKey,
    /// What opens it.
    pub admission: Admission,
}

/// One blob for one or many mailboxes here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMessage {
    /// Sealed; its bytes mean nothing here.
    pub blob: Bin<MAX_BLOB>,
    /// For whom.
    pub recipients: List<Recipient, MAX_RECIPIENTS>,
}

/// What became of a blob in one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreResult {
    /// Nil when it is stored durably, this time or before.
    pub refused: Option<ErrorCode>,
    /// When it will be dropped unread; nil when it was refused or is processed already.
    pub expires_at: Option<Timestamp>,
    /// Seconds to wait before another try.
    pub retry_after: Option<u32>,
}

/// One result for each recipient, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreResponse {
    /// The results.
    pub results: List<StoreResult, MAX_RECIPIENTS>,
}

/// Starts delivery of the own mailbox in this session: what waits, then what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrieveMessages {
    /// Bytes that may be under way unacknowledged (at least one message always may).
    pub window: u32,
}

/// A message as its keeper holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Rises with every message of this keeper; what an acknowledgement names.
    pub sequence: u64,
    /// Name of the blob.
    pub blob_id: BlobId,
    /// When it was stored, by the keeper's clock: a hint.
    pub stored_at: Timestamp,
    /// The blob.
    pub blob: Bin<MAX_BLOB>,
}

/// Some messages, sequences ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageBatch {
    /// The messages.
    pub messages: List<StoredMessage, MAX_BATCH>,
    /// More wait already.
    pub has_more: bool,
}

/// Deletes messages from the own mailbox; unknown sequences are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which ones.
    pub sequences: List<u64, MAX_ACKS>,
}

/// Adds to the stock that the keeper hands out for the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishKeyPackages {
    /// The owner's identity as handed out with each of them.
    pub identity: Identity,
    /// Each for one taker.
    pub key_packages: List<Bin<MAX_KEY_PACKAGE>, MAX_KEY_PACKAGES>,
    /// Handed out when the stock is empty, again and again; nil keeps the one before.
    pub last_resort: Option<Bin<MAX_KEY_PACKAGE>>,
    /// Drop the stock before adding.
    pub replace: bool,
}

/// What the stock holds, without the last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPackageStock {
    /// Key packages in stock.
    pub count: u32,
}

/// Asks for one key package of `owner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeKeyPackage {
    /// Whose.
    pub owner: IdentityKey,
    /// Token or session; a proof of work is bound to the owner's identity key instead of a blob.
    pub admission: Admission,
}

/// One key package, with the identity that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPackageTaken {
    /// As the owner published it; to be verified.
    pub identity: Identity,
    /// An MLS key package message (RFC 9420 section 10); to be verified.
    pub key_package: Bin<MAX_KEY_PACKAGE>,
}

/// A member writes in a group of both sides at this moment, or has stopped. Told on a session between
/// two nodes only: not answered, kept by nobody, and worth nothing a little later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// The group that it writes in.
    pub group: GroupId,
    /// Whether it does.
    pub typing: bool,
}

/// Tells the owner to publish more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPackagesLow {
    /// Key packages left in stock.
    pub count: u32,
}

impl Serialize for AdmissionClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Contact => 0,
            Self::Link => 1,
        })
    }
}

impl<'de> Deserialize<'de> for AdmissionClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Contact),
            1 => Ok(Self::Link),
            _ => Err(D::Error::custom("unknown admission class")),
        }
    }
}

/// `[tag, value]`: `[0, nil]`, `[1, token]`, `[2, [hour, nonce]]`.
impl Serialize for Admission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2)?;
        match self {
            Self::Session => {
                tuple.serialize_element(&0_u8)?;
                tuple.serialize_element(&None::<u8>)?;
            }
            Self::Token(token) => {
                tuple.serialize_element(&1_u8)?;
                tuple.serialize_element(token)?;
            }
            Self::ProofOfWork { hour, nonce } => {
                tuple.serialize_element(&2_u8)?;
                tuple.serialize_element(&(hour, nonce))?;
            }
        }
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Admission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tagged;
        impl<'de> Visitor<'de> for Tagged {
            type Value = Admission;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[tag, value] of an admission")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Admission, A::Error> {
                let missing = || A::Error::invalid_length(1, &"2 elements");
                match seq.next_element::<u8>()?.ok_or_else(missing)? {
                    0 => {
                        seq.next_element::<Option<u8>>()?.ok_or_else(missing)?;
                        Ok(Admission::Session)
                    }
                    1 => seq.next_element()?.map(Admission::Token).ok_or_else(missing),
                    2 => {
                        let (hour, nonce) = seq.next_element()?.ok_or_else(missing)?;
                        Ok(Admission::ProofOfWork { hour, nonce })
                    }
                    _ => Err(A::Error::custom("unknown admission")),
                }
            }
        }
        deserializer.deserialize_tuple(2, Tagged)
    }
}
