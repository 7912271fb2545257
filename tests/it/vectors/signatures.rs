//! `signatures.json`: each signature label, its input bytes and its signature.

use serde_json::{Value, json};
use sremp_common::id::{IdentityKey, SignatureBytes, hex};
use sremp_common::key::IdentitySecret;
use sremp_common::label::SignatureLabel;
use sremp_common::signed::signed_input;

use super::file::File;
use super::mutate::flip;

struct Case {
    label: SignatureLabel,
    ctx: Vec<u8>,
    body: Vec<u8>,
}

pub(super) fn file() -> File {
    let mut file = File::new(
        "signatures.json",
        "Ed25519 over LabelledInput(label, ctx, body). `secret` is the seed. Protocol section 3.",
    );
    let secret = IdentitySecret::from_bytes(&[0x11; 32]);
    for label in SignatureLabel::ALL {
        for (size, ctx_length, body_length) in
            [("empty", 0, 0), ("short", 32, 5), ("long", 300, 70_000)]
        {
            let case = Case { label, ctx: pattern(ctx_length), body: pattern(body_length) };
            let name = format!("{}, {size}", label.as_str());
            if size == "short" {
                add_mutations(&mut file, &secret, &case);
            }
            file.valid(&name, describe(&secret, &case));
        }
    }
    add_weak_keys(&mut file);
    file
}

/// Long bodies are given by their length: byte `i` is `i mod 251`.
fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn sign(secret: &IdentitySecret, case: &Case) -> SignatureBytes {
    secret.sign(case.label, &case.ctx, &case.body)
}

fn describe(secret: &IdentitySecret, case: &Case) -> Value {
    let input = signed_input(case.label, &case.ctx, &case.body);
    let mut item = json!({
        "secret": hex(&*secret.to_bytes()),
        "public": hex(secret.public().as_bytes()),
        "label": case.label.as_str(),
        "ctx": hex(&case.ctx),
        "signature": hex(sign(secret, case).as_bytes()),
    });
    if case.body.len() > 1_000 {
        item["body_length"] = case.body.len().into();
        item["input_sha256"] = hex(&sremp_common::hash::sha256(&input)).into();
    } else {
        item["body"] = hex(&case.body).into();
        item["input"] = hex(&input).into();
    }
    item
}

fn add_mutations(file: &mut File, secret: &IdentitySecret, case: &Case) {
    let label = case.label.as_str();
    let signature = sign(secret, case);
    let verify = |label: SignatureLabel, ctx: &[u8], body: &[u8], signature: &[u8; 64]| {
        secret.public().verify(label, ctx, body, &SignatureBytes::new(*signature))
    };
    let mut add = |name: &str,
                   why: &str,
                   label: SignatureLabel,
                   ctx: &[u8],
                   body: &[u8],
                   signature: &[u8]| {
        let signature: [u8; 64] = signature.try_into().unwrap();
        assert!(verify(label, ctx, body, &signature).is_err(), "{name} verifies");
        file.mutated(
            name,
            why,
            json!({
                "public": hex(secret.public().as_bytes()),
                "label": label.as_str(),
                "ctx": hex(ctx),
                "body": hex(body),
                "signature": hex(&signature),
            }),
        );
    };
    let bytes = signature.as_bytes().as_slice();
    for other in SignatureLabel::ALL.into_iter().filter(|other| *other != case.label) {
        let name = format!("{label}, used as {}", other.as_str());
        add(&name, "a signature made for something else", other, &case.ctx, &case.body, bytes);
    }
    add(
        &format!("{label}, other body"),
        "one bit of the body differs",
        case.label,
        &case.ctx,
        &flip(&case.body, 4, 0),
        bytes,
    );
    add(
        &format!("{label}, other context"),
        "one bit of the context differs",
        case.label,
        &flip(&case.ctx, 0, 7),
        &case.body,
        bytes,
    );
    add(
        &format!("{label}, without context"),
        "the context is missing",
        case.label,
        &[],
        &case.body,
        bytes,
    );
    add(
        &format!("{label}, damaged R"),
        "one bit of R differs",
        case.label,
        &case.ctx,
        &case.body,
        &flip(bytes, 0, 0),
    );
    add(
        &format!("{label}, damaged S"),
        "one bit of S differs",
        case.label,
        &case.ctx,
        &case.body,
        &flip(bytes, 32, 0),
    );
    add(
        &format!("{label}, S not reduced"),
        "S + L: the same equation, another encoding",
        case.label,
        &case.ctx,
        &case.body,
        &not_reduced(bytes),
    );
}

/// `R || S + L` for the group order L: a second encoding of the same signature.
fn not_reduced(signature: &[u8]) -> Vec<u8> {
    let order =
        sremp_common::id::unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
            .unwrap();
    let (r, s) = signature.split_at(32);
    let mut carry = 0_u16;
    let mut sum = Vec::new();
    for (a, b) in s.iter().zip(order) {
        let digit = u16::from(*a).saturating_add(u16::from(b)).saturating_add(carry);
        sum.push(u8::try_from(digit & 0xFF).unwrap());
        carry = digit >> 8;
    }
    assert_eq!(carry, 0);
    [r, &sum].concat()
}

/// Public keys under which signatures prove nothing, or that are none.
fn add_weak_keys(file: &mut File) {
    let keys = [
        ("the neutral point", format!("01{}", "00".repeat(31))),
        ("a point of order 4", "00".repeat(32)),
        (
            "a point of order 8",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a".into(),
        ),
        ("not canonical", format!("ee{}7f", "ff".repeat(30))),
        ("not on the curve", format!("02{}", "00".repeat(31))),
        ("not canonical, of large order", format!("f0{}7f", "ff".repeat(30))),
        ("not canonical, of large order, other sign", format!("f0{}", "ff".repeat(31))),
    ];
    for (name, key) in keys {
        let bytes: [u8; 32] = sremp_common::id::unhex(&key).unwrap().try_into().unwrap();
        assert!(IdentityKey::from_bytes(bytes).is_err(), "{name} is accepted");
        // R neutral, S zero: under a weak key this satisfies the cofactored equation.
        let signature = format!("01{}", "00".repeat(63));
        file.mutated(
            &format!("key: {name}"),
            "a public key that must not be accepted",
            json!({ "public": key, "label": "identity", "ctx": "", "body": "", "signature": signature }),
        );
    }
}
