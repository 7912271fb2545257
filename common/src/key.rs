//! Secret keys: one type for each use, wiped from memory, never shown.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::entropy::Entropy;
use crate::id::{IdentityKey, NoiseKey, SealKey, SignatureBytes};
use crate::label::SignatureLabel;
use crate::signed::signed_input;

/// Signs for an identity. There is no way to sign bytes without saying what for.
#[derive(Clone, ZeroizeOnDrop)]
pub struct IdentitySecret(SigningKey);

impl IdentitySecret {
    /// A fresh key.
    #[must_use]
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self::from_bytes(&entropy.array())
    }

    /// The key of a seed that [`Self::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, to be kept in a private file.
    #[must_use]
    pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// The identity that this key signs for.
    #[must_use]
    pub fn public(&self) -> IdentityKey {
        // A key made from a seed is never of small order, so the checked constructor cannot refuse.
        IdentityKey::from_bytes(self.0.verifying_key().to_bytes())
            .unwrap_or_else(|_| unreachable!("a generated key is a valid key"))
    }

    /// A signature under `label`, bound to `ctx`.
    #[must_use]
    pub fn sign(&self, label: SignatureLabel, ctx: &[u8], body: &[u8]) -> SignatureBytes {
        SignatureBytes::new(self.0.sign(&signed_input(label, ctx, body)).to_bytes())
    }
}

/// The static key of Noise sessions. Its bytes go to the handshake and to the private file, and
/// there is nothing else that it can do.
///
/// ```compile_fail
/// # use sremp_common::{entropy::Entropy, key::NoiseSecret};
/// // A Noise key does not sign.
/// NoiseSecret::generate(&mut Entropy::from_number(1)).sign(b"anything");
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NoiseSecret([u8; 32]);

/// The private half of a key that blobs are sealed to.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealSecret([u8; 32]);

macro_rules! x25519_secret {
    ($name:ident, $public:ident) => {
        impl $name {
            /// A fresh key.
            #[must_use]
            pub fn generate(entropy: &mut Entropy) -> Self {
                Self(entropy.array())
            }

            /// The key of the bytes that [`Self::to_bytes`] gave.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The private bytes: for the private file, and the operation that the key is for.
            #[must_use]
            pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
                zeroize::Zeroizing::new(self.0)
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> $public {
                let secret = x25519_dalek::StaticSecret::from(self.0);
                // Clamping makes the scalar a multiple of 8 and non-zero: the base point's
                // multiples have large order.
                $public::from_bytes(x25519_dalek::PublicKey::from(&secret).to_bytes())
                    .unwrap_or_else(|_| unreachable!("a generated key has large order"))
            }
        }
    };
}
x25519_secret!(NoiseSecret, NoiseKey);
x25519_secret!(SealSecret, SealKey);

macro_rules! redacted {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    )+};
}
redacted!(IdentitySecret, NoiseSecret, SealSecret);

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails to compile when a secret is no longer wiped.
    fn assert_wiped<T: ZeroizeOnDrop>() {}

    #[test]
    fn c07_debug_of_secrets_shows_nothing() {
        assert_wiped::<IdentitySecret>();
        assert_wiped::<NoiseSecret>();
        assert_wiped::<SealSecret>();
        let mut entropy = Entropy::from_number(7);
        let shown = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            IdentitySecret::generate(&mut entropy),
            NoiseSecret::generate(&mut entropy),
            SealSecret::generate(&mut entropy),
            crate::id::Token::new(entropy.array()),
            entropy,
        );
        assert_eq!(
            shown,
            "IdentitySecret([redacted]) NoiseSecret([redacted]) SealSecret([redacted]) \
             Token([redacted]) Entropy([redacted])"
        );
    }
}
