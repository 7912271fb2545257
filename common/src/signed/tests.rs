//! A signature holds for what it was made for, and for nothing else.

use proptest::prelude::*;

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

proptest! {
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
