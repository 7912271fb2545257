//! Who somebody is: name, keys, flags, relays, signed by the key that is the identity.
//!
//! An [`Identity`] travels as opaque bytes and a signature, and says nothing until
//! [`Identity::verify`] has checked both; the bytes that came are the bytes that are passed on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hash::sha256;
use crate::id::{IdError, IdentityKey, NoiseKey, SealKey, SignatureBytes};
use crate::key::IdentitySecret;
use crate::label::SignatureLabel;
use crate::limit::{
    MAX_ENDPOINTS, MAX_IDENTITY, MAX_METADATA_ENTRIES, MAX_METADATA_KEY, MAX_METADATA_VALUE,
    MAX_PICTURE, MAX_RELAYS,
};
use crate::name::Username;
use crate::signed::BadSignature;
use crate::time::Timestamp;
use crate::wire::{Bin, Endpoint, List, WireError, decode, encode};

/// Metadata key of the relays that hold mailboxes for this identity.
pub const METADATA_RELAYS: &str = "relays";
/// Metadata key of the X25519 key that blobs are sealed to.
pub const METADATA_SEAL_KEY: &str = "seal_key";

/// An identity as it travels: `[bin(IdentityVerifiedData), bin64 signature]`. Not verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    verified: Bin<MAX_IDENTITY>,
    signature: SignatureBytes,
}

/// `IdentityVerifiedData` of specification section 3.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityData {
    /// What the identity calls itself.
    pub username: Username,
    /// What it is; also the key of the signature.
    pub identity_key: IdentityKey,
    /// Static key of its Noise sessions; may rotate.
    pub noise_key: NoiseKey,
    /// See [`Flags`].
    pub flags: Flags,
    /// Picture and metadata.
    pub extensions: Option<Extensions>,
    /// Raised by one with every change.
    pub version: u64,
    /// Renewed with every change.
    pub created: Timestamp,
}

/// What an identity says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// Its relays are listed in the metadata.
    pub uses_relay: bool,
    /// A bot: shown wherever the name is.
    pub is_machine_account: bool,
    /// A relay server, not a person's node.
    pub is_relay_server: bool,
    /// Senders should start the relay path at once.
    pub prefers_async: bool,
}

/// Picture and metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extensions {
    /// An image, never decoded by servers.
    pub profile_picture: Option<Bin<MAX_PICTURE>>,
    /// Keys ascending; unknown ones are kept.
    pub additional_metadata: Option<BTreeMap<String, Bin<MAX_METADATA_VALUE>>>,
}

/// A relay that holds mailboxes: who it is, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RelayRecord {
    /// The relay's own identity: a dialler expects exactly this one.
    pub identity_key: IdentityKey,
    /// Where it listens.
    pub endpoints: List<Endpoint, MAX_ENDPOINTS>,
}

impl PartialOrd for List<Endpoint, MAX_ENDPOINTS> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for List<Endpoint, MAX_ENDPOINTS> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.iter().cmp(other.iter())
    }
}

/// Why an identity is refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not an encoding of the data.
    #[error("malformed identity")]
    Malformed(#[from] WireError),
    /// Forged, or damaged.
    #[error("the identity's signature does not hold")]
    Signature(#[from] BadSignature),
    /// A metadata key or the number of entries is out of bounds.
    #[error("metadata out of bounds")]
    Metadata,
    /// A key in the metadata is no key.
    #[error("bad key in metadata")]
    Key(#[from] IdError),
    /// Version 0 does not exist.
    #[error("version 0")]
    Version,
    /// With all its extensions the identity is longer than 32 KiB.
    #[error("the identity would be longer than {MAX_IDENTITY} bytes")]
    TooLong,
}

/// An identity whose signature holds, with its parsed data. Only [`Identity::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedIdentity {
    identity: Identity,
    data: IdentityData,
}

impl Identity {
    /// Checks the signature over the bytes as they came, then parses them.
    ///
    /// # Errors
    /// [`IdentityError`], naming the broken rule.
    pub fn verify(&self) -> Result<VerifiedIdentity, IdentityError> {
        // The key stands inside the signed bytes, so they are parsed to find it, and nothing of
        // the result is used before the signature holds.
        let data: IdentityData = decode(&self.verified)?;
        data.identity_key.verify(SignatureLabel::Identity, &[], &self.verified, &self.signature)?;
        data.check()?;
        Ok(VerifiedIdentity { identity: self.clone(), data })
    }

    /// Digest of the whole identity, as named in proofs and registrations.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(&encode(self))
    }
}

impl IdentityData {
    /// Signs the data as an identity.
    ///
    /// # Errors
    /// [`IdentityError::TooLong`], [`IdentityError::Metadata`], [`IdentityError::Version`].
    pub fn sign(self, secret: &IdentitySecret) -> Result<VerifiedIdentity, IdentityError> {
        self.check()?;
        let body = encode(&self);
        let signature = secret.sign(SignatureLabel::Identity, &[], &body);
        let verified = Bin::new(body).map_err(|_| IdentityError::TooLong)?;
        Identity { verified, signature }.verify()
    }

    /// The rules that the types do not carry.
    fn check(&self) -> Result<(), IdentityError> {
        if self.version == 0 {
            return Err(IdentityError::Version);
        }
        let Some(metadata) = self.metadata() else { return Ok(()) };
        if metadata.len() > MAX_METADATA_ENTRIES
            || metadata.keys().any(|key| key.is_empty() || key.len() > MAX_METADATA_KEY)
        {
            return Err(IdentityError::Metadata);
        }
        self.relays_checked()?;
        self.seal_key_checked()?;
        Ok(())
    }

    fn metadata(&self) -> Option<&BTreeMap<String, Bin<MAX_METADATA_VALUE>>> {
        self.extensions.as_ref()?.additional_metadata.as_ref()
    }

    fn relays_checked(&self) -> Result<Vec<RelayRecord>, IdentityError> {
        let Some(bytes) = self.metadata().and_then(|metadata| metadata.get(METADATA_RELAYS)) else {
            return Ok(Vec::new());
        };
        Ok(decode::<List<RelayRecord, MAX_RELAYS>>(bytes)?.into_vec())
    }

    fn seal_key_checked(&self) -> Result<Option<SealKey>, IdentityError> {
        let Some(bytes) = self.metadata().and_then(|metadata| metadata.get(METADATA_SEAL_KEY))
        else {
            return Ok(None);
        };
        let bytes: [u8; 32] =
            bytes.to_vec().try_into().map_err(|_| IdentityError::Key(IdError::WrongLength))?;
        Ok(Some(SealKey::from_bytes(bytes)?))
    }

    /// The relays that hold mailboxes for this identity, in order of preference.
    #[must_use]
    pub fn relays(&self) -> Vec<RelayRecord> {
        self.relays_checked().unwrap_or_default()
    }

    /// The key that blobs for this identity are sealed to.
    #[must_use]
    pub fn seal_key(&self) -> Option<SealKey> {
        self.seal_key_checked().ok().flatten()
    }

    /// Replaces the relays, and with them the flag `uses_relay`.
    ///
    /// # Errors
    /// [`IdentityError::Metadata`] when there are too many, or their addresses are too long.
    pub fn set_relays(&mut self, relays: Vec<RelayRecord>) -> Result<(), IdentityError> {
        self.flags.uses_relay = !relays.is_empty();
        if relays.is_empty() {
            return self.set_metadata(METADATA_RELAYS, None);
        }
        let list = List::<_, MAX_RELAYS>::new(relays).map_err(|_| IdentityError::Metadata)?;
        self.set_metadata(METADATA_RELAYS, Some(encode(&list)))
    }

    /// Replaces the key that blobs are sealed to.
    ///
    /// # Errors
    /// None in practice: the key fits.
    pub fn set_seal_key(&mut self, key: SealKey) -> Result<(), IdentityError> {
        self.set_metadata(METADATA_SEAL_KEY, Some(key.as_bytes().to_vec()))
    }

    fn set_metadata(&mut self, key: &str, value: Option<Vec<u8>>) -> Result<(), IdentityError> {
        let extensions = self.extensions.get_or_insert_with(Extensions::default);
        let metadata = extensions.additional_metadata.get_or_insert_with(BTreeMap::new);
        match value {
            Some(value) => {
                let value = Bin::new(value).map_err(|_| IdentityError::Metadata)?;
                metadata.insert(key.to_owned(), value);
            }
            None => {
                metadata.remove(key);
            }
        }
        Ok(())
    }
}

impl VerifiedIdentity {
    /// The identity as it came, to be passed on.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it says.
    #[must_use]
    pub const fn data(&self) -> &IdentityData {
        &self.data
    }

    /// Whose it is.
    #[must_use]
    pub const fn key(&self) -> IdentityKey {
        self.data.identity_key
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.data.version
    }

    /// How `newer` relates to this identity of the same key (specification 3.1.5).
    #[must_use]
    pub fn compare(&self, newer: &Self) -> Succession {
        match newer.data.version.cmp(&self.data.version) {
            std::cmp::Ordering::Greater => Succession::Newer,
            std::cmp::Ordering::Equal if newer.identity == self.identity => Succession::Same,
            std::cmp::Ordering::Equal => Succession::Equivocation,
            std::cmp::Ordering::Less => Succession::Rollback,
        }
    }

    /// The next version: one higher, made now, changed by `change`, signed again.
    ///
    /// # Errors
    /// [`IdentityError`] when the change breaks a bound; nothing has changed then.
    pub fn succeed(
        &self,
        secret: &IdentitySecret,
        now: Timestamp,
        change: impl FnOnce(&mut IdentityData) -> Result<(), IdentityError>,
    ) -> Result<Self, IdentityError> {
        let mut data = self.data.clone();
        change(&mut data)?;
        data.version = data.version.saturating_add(1);
        data.created = now;
        data.sign(secret)
    }
}

/// How a second identity of one key relates to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// To be taken.
    Newer,
    /// The same bytes.
    Same,
    /// Same version, other content: its owner, or somebody with its key, says two things.
    Equivocation,
    /// Older than what is known: replayed.
    Rollback,
}

#[cfg(test)]
mod tests;
