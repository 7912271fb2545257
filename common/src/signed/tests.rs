//! A signature holds for what it was made for, and for nothing else.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use sha2::{Digest as _, Sha512};

use super::*;
use crate::entropy::Entropy;
use crate::hash::labelled_hash;
use crate::key::IdentitySecret;
use crate::label::HashLabel;

fn secret() -> IdentitySecret {
    IdentitySecret::generate(&mut Entropy::from_number(1))
}

#[test]
fn a_signature_under_one_label_fails_under_every_other() {
    let secret = secret();
    for made in SignatureLabel::ALL {
        let signature = secret.sign(made, b"context", b"body");
        for read in SignatureLabel::ALL {
            let verified = secret.public().verify(read, b"context", b"body", &signature);
            assert_eq!(verified.is_ok(), made == read, "{made:?} {read:?}");
        }
    }
}

#[test]
fn a_signature_holds_for_one_key_context_and_body() {
    let (secret, label) = (secret(), SignatureLabel::Delivery);
    let signature = secret.sign(label, b"context", b"body");
    let other = IdentitySecret::generate(&mut Entropy::from_number(2)).public();
    assert_eq!(other.verify(label, b"context", b"body", &signature), Err(BadSignature));
    for (ctx, body) in [
        (&b"context"[..], &b"bodx"[..]),
        (b"contexu", b"body"),
        (b"", b"contextbody"),
        (b"contextbody", b""),
        (b"contex", b"tbody"),
        (b"contextb", b"ody"),
    ] {
        assert_eq!(secret.public().verify(label, ctx, body, &signature), Err(BadSignature));
    }
}

#[test]
fn labels_are_all_different_and_fit_their_length() {
    let hashes = [
        HashLabel::BlobId,
        HashLabel::Pow,
        HashLabel::Wrap,
        HashLabel::Tag,
        HashLabel::SafetyNumber,
        HashLabel::TokenHash,
        HashLabel::StateId,
    ];
    let mut labels: Vec<&str> = SignatureLabel::ALL.map(SignatureLabel::as_str).to_vec();
    labels.extend(hashes.map(HashLabel::as_str));
    let count = labels.len();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), count);
    assert!(labels.iter().all(|label| (1..256).contains(&label.len())));
}

#[test]
fn the_signed_bytes_are_as_documented() {
    let input = signed_input(SignatureLabel::Identity, b"ctx", b"body");
    assert_eq!(input, b"SREMP-v1\0\x08identity\x03\0ctx\x04\0\0\0body");
    // The hash runs over the same form.
    let hash = labelled_hash(HashLabel::Tag, b"ctx", b"body");
    assert_eq!(hash, crate::hash::sha256(b"SREMP-v1\0\x03tag\x03\0ctx\x04\0\0\0body"));
}

#[test]
fn weak_keys_verify_nothing() {
    // The neutral point: with it, a signature of R = neutral point and S = 0 "holds" for any bytes
    // when verification is not strict.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    assert!(IdentityKey::from_bytes(neutral).is_err());
    let mut signature = [0; 64];
    signature[0] = 1;
    let verified =
        verify(&neutral, SignatureLabel::Identity, b"", b"any", &SignatureBytes::new(signature));
    assert_eq!(verified, Err(BadSignature));
}

#[test]
fn a_second_form_of_a_signature_is_refused() {
    // S + L is congruent to S: accepted by lenient verifiers, so that one signature has many forms.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let (secret, label) = (secret(), SignatureLabel::Identity);
    let mut signature = *secret.sign(label, b"", b"body").as_bytes();
    let mut carry = 0_u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    let second = SignatureBytes::new(signature);
    assert_eq!(secret.public().verify(label, b"", b"body", &second), Err(BadSignature));
}

/// The points of small order, and what is made of them: a key, and an R, to each of which one was added.
/// An S that is right for any of them where the library counts in whole multiples of the group's order.
#[test]
fn verification_is_as_strict_as_the_library_s() {
    let (secret, nonce) = (Scalar::from(77_u64), Scalar::from(1_234_567_u64));
    let mut verdicts = [0; 2];
    for (of_key, key_torsion) in EIGHT_TORSION.iter().enumerate() {
        for (of_nonce, nonce_torsion) in EIGHT_TORSION.iter().enumerate() {
            // With a key of small order alone, and with an honest one; the same for R.
            for (a, r) in [(secret, nonce), (Scalar::ZERO, nonce), (secret, Scalar::ZERO)] {
                let point = EdwardsPoint::mul_base(&a) + key_torsion;
                let key = VerifyingKey::from_bytes(&point.compress().to_bytes()).unwrap();
                let big_r = (EdwardsPoint::mul_base(&r) + nonce_torsion).compress().to_bytes();
                // Whether the torsion cancels out depends on the message.
                for number in 0..16_u8 {
                    let hash = Sha512::digest([&big_r[..], key.as_bytes(), &[number]].concat());
                    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
                    let s = r + k * a;
                    let signature = Signature::from_components(big_r, s.to_bytes());
                    let expected = key.verify_strict(&[number], &signature).is_ok();
                    let case = (of_key, of_nonce, a == secret, r == nonce, number);
                    assert_eq!(holds_strictly(&key, &[number], &signature), expected, "{case:?}");
                    verdicts[usize::from(expected)] += 1;
                }
            }
        }
    }
    assert!(verdicts[0] > 100 && verdicts[1] > 100, "both kinds are among them: {verdicts:?}");
}

#[test]
fn all_points_of_small_order_are_known() {
    let encoded = |point: &EdwardsPoint| point.compress().to_bytes();
    let (mut expected, mut known) = (EIGHT_TORSION.map(|point| encoded(&point)), SMALL_ORDER);
    expected.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, expected);
}

proptest! {
    /// Whatever was changed in a signature, in its R or in the key.
    #[test]
    fn damaged_signatures_are_judged_as_the_library_judges_them(
        place in 0..96_usize, bits in 0..=255_u8, other in any::<[u8; 32]>(), swaps in any::<bool>(),
    ) {
        let secret = SigningKey::from_bytes(&[7; 32]);
        let mut bytes = secret.sign(b"body").to_bytes().to_vec();
        bytes.extend(secret.verifying_key().to_bytes());
        bytes[place] ^= bits;
        if swaps {
            bytes[..32].copy_from_slice(&other);
        }
        let signature = Signature::from_slice(&bytes[..64]).unwrap();
        if let Ok(key) = VerifyingKey::from_bytes(bytes[64..].try_into().unwrap()) {
            let expected = key.verify_strict(b"body", &signature).is_ok();
            prop_assert_eq!(holds_strictly(&key, b"body", &signature), expected);
        }
    }

    /// Bytes that move between context and body, or look like a length, change the input.
    #[test]
    fn different_parts_never_give_the_same_input(
        first in (0..5_usize, parts(), parts()),
        second in (0..5_usize, parts(), parts()),
    ) {
        let input = |(label, ctx, body): &(usize, Vec<u8>, Vec<u8>)| {
            signed_input(SignatureLabel::ALL[*label], ctx, body)
        };
        prop_assert_eq!(input(&first) == input(&second), first == second);
        let (label, ctx, body) = &first;
        for cut in 0..ctx.len() {
            let moved = (*label, ctx[..cut].to_vec(), [&ctx[cut..], body].concat());
            prop_assert_ne!(input(&first), input(&moved));
        }
    }
}

/// Few different bytes, so that parts are often alike.
fn parts() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(b'i')], 0..6)
}
