//! The certificate that makes an MLS leaf key speak for an identity, and the key itself.
//!
//! ```text
//! credential = [bin body, bin64 signature]
//! body       = [identity_key bin32, device_id bin16, mls_signature_key bin32, not_before, not_after]
//! ```
//! The identity key signs the body under the label `mls-leaf`, and signs nothing inside MLS. Its
//! validity in time is judged by whoever adds the leaf, with their own clock, and never while a commit
//! is processed: clocks that differ must not fork a group.

use ed25519_dalek::{Signer as _, SigningKey};
use openmls::prelude::{BasicCredential, CredentialWithKey, SignatureScheme};
use openmls_traits::signatures::{Signer, SignerError};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, SignatureBytes};
use sremp_common::key::IdentitySecret;
use sremp_common::label::SignatureLabel;
use sremp_common::signed::signed_input;
use sremp_common::time::Timestamp;
use sremp_common::wire::{Bin, decode, encode};
use zeroize::Zeroizing;

/// A certificate's body with its longest numbers is far shorter.
const MAX_BODY: usize = 256;

/// Which rule a certificate breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum CredentialError {
    /// Not a certificate in its one encoding.
    #[error("malformed certificate")]
    Malformed,
    /// The identity key did not sign it.
    #[error("the certificate's signature does not hold")]
    Signature,
    /// It certifies another key than the leaf's.
    #[error("the certificate is for another leaf key")]
    WrongKey,
    /// The identity key itself is the leaf's key: a key serves one purpose.
    #[error("an identity key cannot be a leaf key")]
    IdentityKeyReused,
    /// By our clock it is not valid yet.
    #[error("the certificate is not valid yet: is a clock wrong?")]
    NotYetValid,
    /// By our clock it is not valid any more.
    #[error("the certificate has expired")]
    Expired,
    /// A member's leaf was given to another identity.
    #[error("a member cannot become somebody else")]
    IdentityChanged,
    /// The leaf does not say how its owner is reached.
    #[error("the leaf does not say how its owner is reached")]
    LeafInfo,
}

/// What an identity key signs.
#[derive(Serialize, Deserialize)]
struct Body {
    identity_key: IdentityKey,
    device_id: ByteArray<16>,
    mls_signature_key: ByteArray<32>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// As it travels inside MLS.
#[derive(Serialize, Deserialize)]
struct Certificate {
    body: Bin<MAX_BODY>,
    signature: SignatureBytes,
}

/// A certificate whose signature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Whom the leaf key speaks for.
    pub identity_key: IdentityKey,
    /// Which of their devices.
    pub device_id: [u8; 16],
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

impl Certified {
    /// Whether the certificate is valid at `now`: for whoever adds the leaf, and at first contact.
    ///
    /// # Errors
    /// [`CredentialError::NotYetValid`], [`CredentialError::Expired`].
    pub fn check_time(&self, now: Timestamp) -> Result<(), CredentialError> {
        if now < self.not_before {
            return Err(CredentialError::NotYetValid);
        }
        if now > self.not_after {
            return Err(CredentialError::Expired);
        }
        Ok(())
    }
}

/// Verifies that `credential` certifies `leaf_key`.
///
/// # Errors
/// [`CredentialError`], but for its time.
pub fn verify(credential: &[u8], leaf_key: &[u8]) -> Result<Certified, CredentialError> {
    let certificate: Certificate = decode(credential).map_err(|_| CredentialError::Malformed)?;
    let body: Body = decode(&certificate.body).map_err(|_| CredentialError::Malformed)?;
    body.identity_key
        .verify(SignatureLabel::MlsLeaf, &[], &certificate.body, &certificate.signature)
        .map_err(|_| CredentialError::Signature)?;
    check(&body, leaf_key)
}

/// As [`verify`], for a leaf whose signature was verified when it entered the group: only parsed.
pub(super) fn parse_verified(
    credential: &[u8],
    leaf_key: &[u8],
) -> Result<Certified, CredentialError> {
    let certificate: Certificate = decode(credential).map_err(|_| CredentialError::Malformed)?;
    check(&decode(&certificate.body).map_err(|_| CredentialError::Malformed)?, leaf_key)
}

fn check(body: &Body, leaf_key: &[u8]) -> Result<Certified, CredentialError> {
    if body.mls_signature_key.as_slice() != leaf_key {
        return Err(CredentialError::WrongKey);
    }
    if body.identity_key.as_bytes().as_slice() == leaf_key {
        return Err(CredentialError::IdentityKeyReused);
    }
    Ok(Certified {
        identity_key: body.identity_key,
        device_id: body.device_id.into_array(),
        not_before: body.not_before,
        not_after: body.not_after,
    })
}

/// The MLS signature key of this device, with its certificate.
#[derive(Clone)]
pub struct LeafSigner {
    key: SigningKey,
    certificate: Vec<u8>,
}

impl LeafSigner {
    /// A fresh key, certified by `identity` from an hour before `now` (clocks differ) until `not_after`.
    #[must_use]
    pub fn generate(
        identity: &IdentitySecret,
        device_id: [u8; 16],
        now: Timestamp,
        not_after: Timestamp,
        entropy: &mut Entropy,
    ) -> Self {
        let key = SigningKey::from_bytes(&entropy.array());
        Self::certified(SignatureLabel::MlsLeaf, identity, key, device_id, now, not_after)
    }

    fn certified(
        label: SignatureLabel,
        identity: &IdentitySecret,
        key: SigningKey,
        device_id: [u8; 16],
        now: Timestamp,
        not_after: Timestamp,
    ) -> Self {
        let body = encode(&Body {
            identity_key: identity.public(),
            device_id: ByteArray::new(device_id),
            mls_signature_key: ByteArray::new(key.verifying_key().to_bytes()),
            not_before: now.minus(super::CLOCK_MARGIN),
            not_after,
        });
        let signature = identity.sign(label, &[], &body);
        // Five short fields: the bound cannot be passed.
        let body = Bin::new(body).unwrap_or_default();
        Self { key, certificate: encode(&Certificate { body, signature }) }
    }

    /// The key of the bytes that [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// [`CredentialError`] when they are not a key with a certificate for it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CredentialError> {
        let (seed, certificate) = bytes.split_first_chunk().ok_or(CredentialError::Malformed)?;
        let key = SigningKey::from_bytes(seed);
        verify(certificate, key.verifying_key().as_bytes())?;
        Ok(Self { key, certificate: certificate.to_vec() })
    }

    /// Key and certificate, to be kept in a private file.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let seed = Zeroizing::new(self.key.to_bytes());
        Zeroizing::new([seed.as_slice(), &self.certificate].concat())
    }

    /// The public half.
    #[must_use]
    pub fn leaf_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    pub(super) fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.certificate.clone()).into(),
            signature_key: self.leaf_key().to_vec().into(),
        }
    }

    /// A signature of ours outside MLS: receipts.
    pub(super) fn sign_labelled(
        &self,
        label: SignatureLabel,
        ctx: &[u8],
        body: &[u8],
    ) -> SignatureBytes {
        SignatureBytes::new(self.key.sign(&signed_input(label, ctx, body)).to_bytes())
    }
}

#[cfg(test)]
impl LeafSigner {
    /// The leaf key of another signer, certified by `identity`.
    pub(super) fn certify(identity: &IdentitySecret, other: &Self, now: Timestamp) -> Self {
        let until = now + super::MAX_PAST_TIME;
        let label = SignatureLabel::MlsLeaf;
        Self::certified(label, identity, other.key.clone(), [1; 16], now, until)
    }

    /// A certificate whose signature was made for something else.
    pub(super) fn certify_wrongly(
        identity: &IdentitySecret,
        other: &Self,
        now: Timestamp,
    ) -> Vec<u8> {
        let label = SignatureLabel::Identity;
        Self::certified(label, identity, other.key.clone(), [1; 16], now, now).certificate
    }

    /// An identity key that certifies itself.
    pub(super) fn of_identity(identity: &IdentitySecret, now: Timestamp) -> Self {
        let key = SigningKey::from_bytes(&identity.to_bytes());
        Self::certified(SignatureLabel::MlsLeaf, identity, key, [1; 16], now, now)
    }
}

impl std::fmt::Debug for LeafSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeafSigner([redacted])")
    }
}

impl Signer for LeafSigner {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.key.sign(payload).to_bytes().to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
