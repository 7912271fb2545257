//! Names of things: one newtype per meaning, so that two of them cannot be swapped.

use std::cell::Cell;
use std::fmt;

use ed25519_dalek::VerifyingKey;

use crate::hash::labelled_hash;
use crate::label::HashLabel;
use crate::wire::fixed_bytes;

/// Why bytes are not the named thing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// Not a point on the curve, or not in its one encoding.
    #[error("not a public key")]
    NotAKey,
    /// A key of small order: signatures under it, or secrets agreed with it, prove nothing.
    #[error("a weak public key")]
    WeakKey,
    /// Wrong number of bytes.
    #[error("wrong length")]
    WrongLength,
}

/// Declares a newtype over `[u8; N]` for which all bytes are legal.
macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The bytes' meaning is opaque: all are legal.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// As [`Self::new`].
            ///
            /// # Errors
            /// None; the signature is that of the checked ids.
            pub const fn from_bytes(bytes: [u8; $len]) -> Result<Self, IdError> {
                Ok(Self(bytes))
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        fixed_bytes!($name, $len);
    };
}

/// Shows an id as hexadecimal.
macro_rules! shown_as_hex {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex(&self.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = unhex(text).ok_or(IdError::WrongLength)?;
                bytes.try_into().map(Self).map_err(|_| IdError::WrongLength)
            }
        }
    };
}

/// Shows that there is one, and nothing of it.
macro_rules! redacted {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

/// An identity: its Ed25519 public key, which never changes. Text form: [`crate::text`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityKey([u8; 32]);

impl IdentityKey {
    /// Checks that the bytes are a key in its one encoding, and not of small order.
    ///
    /// # Errors
    /// [`IdError::NotAKey`], [`IdError::WeakKey`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, IdError> {
        if checked(&bytes).is_some() {
            return Ok(Self(bytes));
        }
        if !is_reduced(&bytes) {
            return Err(IdError::NotAKey);
        }
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| IdError::NotAKey)?;
        if key.is_weak() {
            return Err(IdError::WeakKey);
        }
        note_checked(&bytes, key);
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Enough of the text form to tell two people apart in a list or a debug log.
    #[must_use]
    pub fn short(&self) -> String {
        crate::text::encode_identity_key(self).chars().take(14).collect()
    }
}

fixed_bytes!(IdentityKey, 32);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.short())
    }
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::text::encode_identity_key(self))
    }
}

opaque_id! {
    /// The bytes by which somebody is looked for at a rendezvous server. Whether they are a key is
    /// not checked: that takes longer than to search for them, and what is no key is nobody's.
    SoughtKey, 32
}
redacted!(SoughtKey);

impl SoughtKey {
    /// Looks for the owner of a key.
    #[must_use]
    pub const fn of(key: &IdentityKey) -> Self {
        Self(key.0)
    }

    /// Whether this is the key that is looked for.
    #[must_use]
    pub fn is(&self, key: &IdentityKey) -> bool {
        self.0 == key.0
    }
}

/// An X25519 public key, not of small order (RFC 7748 section 6.1): for Noise, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoiseKey([u8; 32]);

/// An X25519 public key, not of small order: blobs are sealed to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealKey([u8; 32]);

macro_rules! x25519_key {
    ($name:ident) => {
        impl $name {
            /// Refuses the encodings of points of small order, with and without the high bit.
            ///
            /// # Errors
            /// [`IdError::WeakKey`].
            pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, IdError> {
                if is_low_order(&bytes) { Err(IdError::WeakKey) } else { Ok(Self(bytes)) }
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        fixed_bytes!($name, 32);
        shown_as_hex!($name);
    };
}
x25519_key!(NoiseKey);
x25519_key!(SealKey);

/// Whether the coordinate in an Ed25519 public key is below 2^255 - 19 (RFC 8032 section 5.1.3). The
/// library reduces the others, so that a point would have two keys. (The other second form, a sign
/// for x = 0, belongs to points of small order only.)
fn is_reduced([first, middle @ .., last]: &[u8; 32]) -> bool {
    *first < 0xED || middle.iter().any(|byte| *byte != 0xFF) || last & 0x7F != 0x7F
}

/// Keys that are remembered as checked, in each thread.
const CHECKED_KEYS: usize = 64;

thread_local! {
    /// Keys that passed [`IdentityKey::from_bytes`] lately. The same few keys stand in nearly every
    /// row and message, and the square root that finds the point costs more than all other decoding
    /// of a row; and a key that was just read is often verified with next. Only saves time: what is in
    /// it never changes an answer.
    static CHECKED: [Cell<Option<VerifyingKey>>; CHECKED_KEYS] =
        const { [const { Cell::new(None) }; CHECKED_KEYS] };
}

/// The key with its point, if it passed [`IdentityKey::from_bytes`] lately.
pub(crate) fn checked(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    CHECKED.with(|places| place_of(bytes, places)?.get().filter(|key| key.as_bytes() == bytes))
}

fn note_checked(bytes: &[u8; 32], key: VerifyingKey) {
    CHECKED.with(|places| {
        if let Some(place) = place_of(bytes, places) {
            place.set(Some(key));
        }
    });
}

/// Each key has one place. Keys that are made to share one displace each other, at the cost of a
/// check that everybody else's key pays for too.
fn place_of<'p, P>(key: &[u8; 32], places: &'p [P]) -> Option<&'p P> {
    places.get(usize::from(key[0]).checked_rem(places.len())?)
}

/// Every X25519 public key of small order, without the high bit, which X25519 ignores: 0, 1, the
/// two points of order 8, p - 1, p and p + 1, with p = 2^255 - 19.
const LOW_ORDER: [[u8; 32]; 7] = [
    small(0),
    small(1),
    *b"\xe0\xeb\x7a\x7c\x3b\x41\xb8\xae\x16\x56\xe3\xfa\xf1\x9f\xc4\x6a\
       \xda\x09\x8d\xeb\x9c\x32\xb1\xfd\x86\x62\x05\x16\x5f\x49\xb8\x00",
    *b"\x5f\x9c\x95\xbc\xa3\x50\x8c\x24\xb1\xd0\xb1\x55\x9c\x83\xef\x5b\
       \x04\x44\x5c\xc4\x58\x1c\x8e\x86\xd8\x22\x4e\xdd\xd0\x9f\x11\x57",
    near_p(0xEC),
    near_p(0xED),
    near_p(0xEE),
];

const fn small(number: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = number;
    bytes
}

const fn near_p(first: u8) -> [u8; 32] {
    let mut bytes = [0xFF; 32];
    bytes[0] = first;
    bytes[31] = 0x7F;
    bytes
}

/// Whether an X25519 public key has small order: then every shared secret with it is zero.
#[must_use]
pub fn is_low_order(public: &[u8; 32]) -> bool {
    let mut coordinate = *public;
    coordinate[31] &= 0x7F;
    LOW_ORDER.contains(&coordinate)
}

opaque_id!(
    /// A message, across all paths that it takes: 16 random bytes from its author.
    MessageId, 16
);
shown_as_hex!(MessageId);
opaque_id!(
    /// An MLS group: 16 random bytes from its creator.
    GroupId, 16
);
shown_as_hex!(GroupId);
opaque_id!(
    /// A blob in one mailbox: labelled hash over recipient and blob.
    BlobId, 16
);
shown_as_hex!(BlobId);
opaque_id!(
    /// One life of a relay's store.
    Incarnation, 16
);
shown_as_hex!(Incarnation);
opaque_id!(
    /// What a mailbox keeper knows of a token.
    TokenHash, 32
);
shown_as_hex!(TokenHash);
opaque_id!(
    /// An Ed25519 signature.
    SignatureBytes, 64
);
shown_as_hex!(SignatureBytes);
opaque_id!(
    /// Opens a mailbox to whoever holds it. A secret between owner and holder.
    Token, 16
);
redacted!(Token);

impl Token {
    /// What the keeper of the mailbox is told instead of the token.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(labelled_hash(HashLabel::TokenHash, &[], &self.0))
    }
}

impl BlobId {
    /// The id of `blob` in the mailbox of `recipient`.
    #[must_use]
    pub fn of(recipient: &IdentityKey, blob: &[u8]) -> Self {
        let hash = labelled_hash(HashLabel::BlobId, recipient.as_bytes(), blob);
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal of either case.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high << 4) | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Entropy;
    use crate::key::IdentitySecret;

    /// By agreement with a fixed scalar: the result is zero for exactly the points of small order.
    fn agrees_on_zero(public: &[u8; 32]) -> bool {
        x25519_dalek::x25519([0x40; 32], *public) == [0; 32]
    }

    #[test]
    fn the_list_of_weak_keys_is_what_agreement_says() {
        let mut entropy = Entropy::from_number(1);
        let mut keys: Vec<[u8; 32]> = LOW_ORDER.to_vec();
        keys.extend((0..=u8::MAX).flat_map(|number| [small(number), near_p(number)]));
        keys.extend((0..200).map(|_| entropy.array::<32>()));
        let mut weak = 0;
        for mut key in keys {
            for flip in [0, 0x80] {
                key[31] ^= flip;
                assert_eq!(is_low_order(&key), agrees_on_zero(&key), "{}", hex(&key));
                weak += u32::from(is_low_order(&key));
            }
        }
        // The seven, with and without the high bit; five of them are met again on the way.
        assert_eq!(weak, 2 * (7 + 5));
    }

    #[test]
    fn a_key_that_was_refused_is_refused_again_and_a_good_one_taken_again() {
        let mut entropy = Entropy::from_number(2);
        for _ in 0..300 {
            let good = *IdentitySecret::generate(&mut entropy).public().as_bytes();
            let bad = entropy.array();
            let verdict = IdentityKey::from_bytes(bad);
            for _ in 0..2 {
                assert_eq!(IdentityKey::from_bytes(good), Ok(IdentityKey(good)));
                assert_eq!(IdentityKey::from_bytes(bad), verdict);
            }
        }
        for weak in [small(0), small(1), near_p(0xEC)] {
            assert_eq!(IdentityKey::from_bytes(weak), Err(IdError::WeakKey));
            assert_eq!(IdentityKey::from_bytes(weak), Err(IdError::WeakKey));
        }
    }
}
