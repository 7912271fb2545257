//! Blobs for one node alone: a Welcome, and whatever somebody without the state must read.
//!
//! ```text
//! blob = enc (32) || HPKE ciphertext of the padded bytes
//! ```
//! HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, info
//! [`SEAL_INFO`], no additional data. It says nothing about who sealed it.

use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::types::{HpkeAeadType, HpkeCiphertext, HpkeConfig, HpkeKdfType, HpkeKemType};
use sremp_common::id::SealKey;
use sremp_common::key::SealSecret;
use sremp_common::label::SEAL_INFO;

use super::padding;

const ENC: usize = 32;

const fn config() -> HpkeConfig {
    HpkeConfig(HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, HpkeAeadType::ChaCha20Poly1305)
}

/// Seals bytes for whoever holds the private half of `to`; none when they are too long for a blob.
///
/// The ephemeral key is drawn from the system's generator by the HPKE implementation.
pub fn seal(crypto: &impl OpenMlsCrypto, to: &SealKey, kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
    let padded = padding::pad(kind, bytes)?;
    let sealed = crypto.hpke_seal(config(), to.as_bytes(), SEAL_INFO, &[], &padded).ok()?;
    Some([sealed.kem_output.as_slice(), sealed.ciphertext.as_slice()].concat())
}

/// Kind and bytes of a blob that was sealed for one of `secrets`; none for any other bytes.
pub fn open(
    crypto: &impl OpenMlsCrypto,
    secrets: &[SealSecret],
    blob: &[u8],
) -> Option<(u8, Vec<u8>)> {
    let (enc, sealed) = blob.split_at_checked(ENC)?;
    let input =
        HpkeCiphertext { kem_output: enc.to_vec().into(), ciphertext: sealed.to_vec().into() };
    secrets.iter().find_map(|secret| {
        let secret = secret.to_bytes();
        let padded = crypto.hpke_open(config(), &input, secret.as_slice(), SEAL_INFO, &[]).ok()?;
        padding::unpad(&padded)
    })
}
