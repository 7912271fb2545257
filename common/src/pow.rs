//! Proof of work: what an unknown sender without a token pays for a place in a mailbox.
//!
//! ```text
//! hash = LabelledHash("pow", ctx = relay identity key, body = recipient || subject || hour u64le || nonce u64le)
//! ```
//! `subject` is the blob's id, or the owner's identity key when a key package is asked for. The
//! proof holds when the hash begins with at least `difficulty` zero bits.

use crate::hash::labelled_hash;
use crate::id::{BlobId, IdentityKey};
use crate::label::HashLabel;

/// What the work is done for: useless for anything else.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The keeper of the mailbox.
    pub relay: &'a IdentityKey,
    /// Its owner.
    pub recipient: &'a IdentityKey,
    /// The blob; `None` for the taking of a key package.
    pub blob: Option<BlobId>,
    /// Hour since the Unix epoch.
    pub hour: u64,
}

impl Work<'_> {
    /// Leading zero bits that `nonce` achieves.
    #[must_use]
    pub fn zero_bits(&self, nonce: u64) -> u32 {
        let mut body = Vec::with_capacity(80);
        body.extend_from_slice(self.recipient.as_bytes());
        match &self.blob {
            Some(blob) => body.extend_from_slice(blob.as_bytes()),
            None => body.extend_from_slice(self.recipient.as_bytes()),
        }
        body.extend_from_slice(&self.hour.to_le_bytes());
        body.extend_from_slice(&nonce.to_le_bytes());
        let hash = labelled_hash(HashLabel::Pow, self.relay.as_bytes(), &body);
        let mut zeros = 0_u32;
        for byte in hash {
            zeros = zeros.saturating_add(byte.leading_zeros());
            if byte != 0 {
                break;
            }
        }
        zeros
    }

    /// The first nonce from `start` within `tries` that reaches `difficulty`. Bounded, so that a
    /// caller can do other things in between.
    #[must_use]
    pub fn search(&self, difficulty: u8, start: u64, tries: u64) -> Option<u64> {
        (start..start.saturating_add(tries))
            .find(|nonce| self.zero_bits(*nonce) >= u32::from(difficulty))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entropy::Entropy, key::IdentitySecret};

    #[test]
    fn a_proof_is_bound_to_everything_it_names() {
        let mut entropy = Entropy::from_number(3);
        let [a, b] = [0; 2].map(|_| IdentitySecret::generate(&mut entropy).public());
        let blob = BlobId::of(&b, b"blob");
        let work = Work { relay: &a, recipient: &b, blob: Some(blob), hour: 5 };
        let nonce = work.search(12, 0, 1 << 20).unwrap();
        assert!(work.zero_bits(nonce) >= 12);
        for other in [
            Work { relay: &b, ..work },
            Work { recipient: &a, ..work },
            Work { blob: Some(BlobId::of(&b, b"other")), ..work },
            Work { hour: 6, ..work },
        ] {
            assert!(other.zero_bits(nonce) < 12);
        }
    }
}
