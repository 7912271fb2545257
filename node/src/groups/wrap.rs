//! The outer layer of what members of one state send each other: hides MLS' own framing.
//!
//! ```text
//! blob = nonce (24) || tag (8) || XChaCha20-Poly1305(wrap key, nonce, aad = tag, padded)
//! tag  = SipHash-2-4(tag key, nonce), little-endian
//! ```
//! Both keys come from the MLS exporter of the state's epoch. By the tag a member finds the state; for
//! anybody else two blobs have nothing in common. The tag is computed for each kept state until one
//! matches, so it has to be cheap; it finds, and proves nothing: that is the AEAD's part.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{Key, KeyInit as _, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use siphasher::sip::SipHasher24;
use sremp_common::hash::labelled_hash;
use sremp_common::label::HashLabel;

use super::padding;

const NONCE: usize = 24;
const TAG: usize = 8;

#[cfg(test)]
thread_local! {
    /// Tags that were computed to find states: what finding costs.
    pub(super) static TAGS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The two keys of one state.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct WrapKeys {
    wrap: ByteArray<32>,
    tag: ByteArray<16>,
}

impl std::fmt::Debug for WrapKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrapKeys([redacted])")
    }
}

impl WrapKeys {
    /// The keys of an epoch's exporter secret.
    pub(super) fn derive(exporter: &[u8]) -> Self {
        let mut tag = [0; 16];
        let hash = labelled_hash(HashLabel::Tag, &[], exporter);
        tag.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self {
            wrap: ByteArray::new(labelled_hash(HashLabel::Wrap, &[], exporter)),
            tag: ByteArray::new(tag),
        }
    }

    fn tag(&self, nonce: &[u8]) -> [u8; TAG] {
        SipHasher24::new_with_key(&self.tag).hash(nonce).to_le_bytes()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(Key::from_slice(self.wrap.as_slice()))
    }

    /// Wraps bytes; none when they are too long for a blob.
    pub(super) fn wrap(&self, nonce: [u8; NONCE], kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
        let padded = padding::pad(kind, bytes)?;
        let tag = self.tag(&nonce);
        let payload = Payload { msg: &padded, aad: &tag };
        let sealed = self.cipher().encrypt(XNonce::from_slice(&nonce), payload).ok()?;
        Some([nonce.as_slice(), &tag, &sealed].concat())
    }

    /// Kind and bytes; none when the blob was damaged.
    pub(super) fn unwrap(&self, blob: &Blob<'_>) -> Option<(u8, Vec<u8>)> {
        let payload = Payload { msg: blob.sealed, aad: blob.tag };
        let padded = self.cipher().decrypt(XNonce::from_slice(blob.nonce), payload).ok()?;
        padding::unpad(&padded)
    }

    /// Whether this state wrapped the blob.
    pub(super) fn matches(&self, blob: &Blob<'_>) -> bool {
        #[cfg(test)]
        TAGS.with(|tags| tags.set(tags.get() + 1));
        self.tag(blob.nonce) == *blob.tag
    }
}

/// The parts of a wrapped blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blob<'a> {
    nonce: &'a [u8; NONCE],
    tag: &'a [u8; TAG],
    sealed: &'a [u8],
}

impl<'a> Blob<'a> {
    /// None when the bytes are too short.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (nonce, rest) = bytes.split_first_chunk()?;
        let (tag, sealed) = rest.split_first_chunk()?;
        Some(Self { nonce, tag, sealed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::padding::{MAX_CONTENT, OVERHEAD, pad, unpad};

    #[test]
    fn wraps_and_tells_its_own_from_others() {
        let [ours, theirs] = [b"one", b"two"].map(|secret| WrapKeys::derive(secret));
        let bytes = ours.wrap([7; NONCE], 9, b"text").unwrap();
        let blob = Blob::parse(&bytes).unwrap();
        assert!(ours.matches(&blob));
        assert!(!theirs.matches(&blob));
        assert_eq!(ours.unwrap(&blob), Some((9, b"text".to_vec())));
        assert_eq!(theirs.unwrap(&blob), None);
        assert!(Blob::parse(&bytes[..NONCE + TAG - 1]).is_none());
        assert_eq!(format!("{ours:?}"), "WrapKeys([redacted])");
    }

    #[test]
    fn tags_are_siphash() {
        // The test vector of the paper: key 00 to 0f, message 00 to 0e.
        let bytes: Vec<u8> = (0..16).collect();
        let key: [u8; 16] = bytes.clone().try_into().unwrap();
        let hash = SipHasher24::new_with_key(&key).hash(&bytes[..15]);
        assert_eq!(hash, 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn sizes_are_few() {
        let keys = WrapKeys::derive(b"x");
        for (length, size) in [(0, 256), (203, 256), (204, 512), (459, 512), (460, 1024)] {
            assert_eq!(keys.wrap([0; NONCE], 1, &vec![5; length]).unwrap().len(), size, "{length}");
        }
        let most = vec![5; MAX_CONTENT];
        let blob = keys.wrap([0; NONCE], 1, &most).unwrap();
        assert_eq!(blob.len(), sremp_common::limit::MAX_BLOB);
        assert_eq!(keys.unwrap(&Blob::parse(&blob).unwrap()).unwrap().1, most);
        assert!(keys.wrap([0; NONCE], 1, &vec![5; MAX_CONTENT + 1]).is_none());
    }

    #[test]
    fn padding_has_one_form() {
        let good = pad(1, b"abc").unwrap();
        assert_eq!(good.len() + OVERHEAD, 256);
        assert_eq!(unpad(&good), Some((1, b"abc".to_vec())));
        let change = |place: usize, byte: u8| {
            let mut bad = good.clone();
            bad[place] = byte;
            unpad(&bad)
        };
        assert_eq!(change(100, 1), None);
        assert_eq!(change(1, 255), None);
        assert_eq!(change(4, 255), None);
        assert_eq!(unpad(&good[..good.len() - 1]), None);
        assert_eq!(unpad(&[good.as_slice(), &[0; 256]].concat()), None);
        assert_eq!(unpad(&[1, 2]), None);
    }
}
