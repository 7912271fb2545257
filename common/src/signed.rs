//! Signatures: made for one purpose, verified over the bytes that came, before they are parsed.

use ed25519_dalek::{Signature, VerifyingKey};

use crate::hash::labelled_head;
use crate::id::{IdentityKey, SignatureBytes};
use crate::label::SignatureLabel;

/// A signature that does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the signature does not hold")]
pub struct BadSignature;

/// The bytes that are signed: `LabelledInput(label, ctx, body)` (see [`crate::hash`]).
#[must_use]
pub fn signed_input(label: SignatureLabel, ctx: &[u8], body: &[u8]) -> Vec<u8> {
    let mut input = labelled_head(label.as_str(), ctx, body);
    input.extend_from_slice(body);
    input
}

/// Verifies strictly (RFC 8032 with canonical encodings only and no small-order components).
///
/// # Errors
/// [`BadSignature`], without saying which part is wrong.
pub fn verify(
    key: &[u8; 32],
    label: SignatureLabel,
    ctx: &[u8],
    body: &[u8],
    signature: &SignatureBytes,
) -> Result<(), BadSignature> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| BadSignature)?;
    key.verify_strict(&signed_input(label, ctx, body), &Signature::from_bytes(signature.as_bytes()))
        .map_err(|_| BadSignature)
}

impl IdentityKey {
    /// As [`verify`], with this identity's key.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(
        &self,
        label: SignatureLabel,
        ctx: &[u8],
        body: &[u8],
        signature: &SignatureBytes,
    ) -> Result<(), BadSignature> {
        verify(self.as_bytes(), label, ctx, body, signature)
    }
}

/// A value whose signature has not been checked yet. [`Signed::verify`] is the only way out.
///
/// Holds the bytes as they came: they are what was signed, and what is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The signed bytes.
    pub body: Vec<u8>,
    /// Over them.
    pub signature: SignatureBytes,
}

impl Signed {
    /// The body, once its signature holds.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(
        &self,
        key: &IdentityKey,
        label: SignatureLabel,
        ctx: &[u8],
    ) -> Result<&[u8], BadSignature> {
        key.verify(label, ctx, &self.body, &self.signature)?;
        Ok(&self.body)
    }
}

#[cfg(test)]
mod tests;
