//! Signatures: made for one purpose, verified over the bytes that came, before they are parsed.

use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

use crate::hash::labelled_head;
use crate::id::{IdentityKey, SignatureBytes, checked};
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
    let key = match checked(key) {
        Some(key) => key,
        None => VerifyingKey::from_bytes(key).map_err(|_| BadSignature)?,
    };
    let signature = Signature::from_bytes(signature.as_bytes());
    if holds_strictly(&key, &signed_input(label, ctx, body), &signature) {
        Ok(())
    } else {
        Err(BadSignature)
    }
}

/// What the library's `verify_strict` says, without the square root that it takes to find the point R.
///
/// The library's `verify` computes R from everything else, and compares its one encoding with the bytes
/// in the signature. So bytes that pass are canonical, and have small order only if they are among eight.
fn holds_strictly(key: &VerifyingKey, input: &[u8], signature: &Signature) -> bool {
    !SMALL_ORDER.contains(signature.r_bytes())
        && !key.is_weak()
        && key.verify(input, signature).is_ok()
}

/// The encodings of the eight points of small order.
const SMALL_ORDER: [[u8; 32]; 8] = [
    edge(0x01, 0x00, 0x00),
    edge(0xec, 0xff, 0x7f),
    edge(0x00, 0x00, 0x00),
    edge(0x00, 0x00, 0x80),
    order_eight(&LOW, 0x05),
    order_eight(&LOW, 0x85),
    order_eight(&HIGH, 0x7a),
    order_eight(&HIGH, 0xfa),
];

const fn edge(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// The two coordinates of the points of order eight, but for the last byte, which also has the sign.
const LOW: [u8; 32] = *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\
    \xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x00";
const HIGH: [u8; 32] = *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\
    \x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x00";

const fn order_eight(coordinate: &[u8; 32], last: u8) -> [u8; 32] {
    let mut bytes = *coordinate;
    bytes[31] = last;
    bytes
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
