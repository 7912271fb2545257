//! Labelled input and labelled hash: what is signed or hashed always says what for.
//!
//! ```text
//! LabelledInput(label, ctx, body) = "SREMP-v1" 00
//!                                 || u8(len label)     || label
//!                                 || u16le(len ctx)    || ctx
//!                                 || u32le(len body)   || body
//! ```
//! Every part has its length in front, so two different inputs never have the same bytes.

use sha2::{Digest as _, Sha256};

use crate::label::{HashLabel, INPUT_PREFIX};

/// SHA-256 over `LabelledInput(label, ctx, body)`.
#[must_use]
pub fn labelled_hash(label: HashLabel, ctx: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(labelled_head(label.as_str(), ctx, body));
    hasher.update(body);
    hasher.finalize().into()
}

/// Plain SHA-256, where a signature's body names another value by its digest.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Everything in front of the body.
///
/// Labels are shorter than 256 bytes; a context of 64 KiB or a body of 4 GiB cannot occur, because
/// every message is bounded far below; the saturated length would only make the input unverifiable.
pub(crate) fn labelled_head(label: &str, ctx: &[u8], body: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(64);
    head.extend_from_slice(INPUT_PREFIX);
    head.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
    head.extend_from_slice(label.as_bytes());
    head.extend_from_slice(&u16::try_from(ctx.len()).unwrap_or(u16::MAX).to_le_bytes());
    head.extend_from_slice(ctx);
    head.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    head
}
