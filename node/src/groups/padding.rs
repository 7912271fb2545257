//! Sizes say little: every blob, wrapped or sealed, has one of a few sizes.
//!
//! ```text
//! padded = kind (1) || length u32le (4) || bytes || zeros
//! ```
//! Both envelopes add [`OVERHEAD`] bytes, so that a wrapped and a sealed blob cannot be told apart by
//! their sizes, which are 256 bytes and its doublings, and [`MAX_BLOB`] above the largest doubling.

use sremp_common::limit::MAX_BLOB;

/// What an envelope adds to the padded bytes.
pub(super) const OVERHEAD: usize = 48;

const HEAD: usize = 5;
const SMALLEST: usize = 256;

/// Bytes that fit into a blob.
pub const MAX_CONTENT: usize = MAX_BLOB - OVERHEAD - HEAD;

/// The padded bytes; none when they would not fit into a blob.
pub(super) fn pad(kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
    let needed = bytes.len().checked_add(HEAD)?.checked_add(OVERHEAD)?;
    if needed > MAX_BLOB {
        return None;
    }
    let bucket = needed.next_power_of_two().clamp(SMALLEST, MAX_BLOB);
    let mut padded = Vec::with_capacity(bucket);
    padded.push(kind);
    padded.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
    padded.extend_from_slice(bytes);
    padded.resize(bucket.saturating_sub(OVERHEAD), 0);
    Some(padded)
}

/// Kind and bytes; none when the form is not exactly that of [`pad`].
pub(super) fn unpad(padded: &[u8]) -> Option<(u8, Vec<u8>)> {
    let (head, rest) = padded.split_first_chunk::<HEAD>()?;
    let [kind, length @ ..] = *head;
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    let (bytes, zeros) = rest.split_at_checked(length)?;
    let same_size = bytes
        .len()
        .checked_add(HEAD + OVERHEAD)
        .map(|needed| needed.next_power_of_two().clamp(SMALLEST, MAX_BLOB))
        == padded.len().checked_add(OVERHEAD);
    (same_size && zeros.iter().all(|byte| *byte == 0)).then(|| (kind, bytes.to_vec()))
}
