//! Certificates of leaf keys.

use serde::Serialize;
use serde_bytes::ByteArray;
use serde_json::json;
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, hex};
use sremp_common::label::SignatureLabel;
use sremp_common::time::Timestamp;
use sremp_common::wire::{Bin, encode};
use sremp_node::groups::{LeafSigner, credential};

use super::super::cast::{Actor, NOW, alice, mallory};
use super::super::file::File;
use super::super::mutate::{extended, flip, truncated};

const DEVICE: [u8; 16] = [0xDE; 16];
const NOT_AFTER: Timestamp = Timestamp::from_millis(2_000_000_000_000);

/// The seed and the certificate of Alice's leaf key, as production makes them.
pub(super) fn leaf_of(actor: &Actor) -> ([u8; 32], Vec<u8>, LeafSigner) {
    let mut entropy = Entropy::from_number(12);
    let signer = LeafSigner::generate(&actor.identity_secret, DEVICE, NOW, NOT_AFTER, &mut entropy);
    let bytes = signer.to_bytes();
    let (seed, certificate) = bytes.split_first_chunk().unwrap();
    (*seed, certificate.to_vec(), signer)
}

#[derive(Serialize)]
struct Body(IdentityKey, ByteArray<16>, ByteArray<32>, Timestamp, Timestamp);

pub(super) fn add(file: &mut File) {
    let alice = alice();
    let (seed, certificate, signer) = leaf_of(&alice);
    let leaf_key = signer.leaf_key();
    let not_before = credential::verify(&certificate, &leaf_key).unwrap().not_before;
    file.valid(
        "certificate",
        json!({
            "kind": "certificate",
            "identity_secret": hex(&*alice.identity_secret.to_bytes()),
            "leaf_secret": hex(&seed),
            "leaf_key": hex(&leaf_key),
            "certificate": hex(&certificate),
            "fields": {
                "identity_key": hex(alice.identity.key().as_bytes()),
                "device_id": hex(&DEVICE),
                "mls_signature_key": hex(&leaf_key),
                "not_before": not_before.as_millis(),
                "not_after": NOT_AFTER.as_millis(),
            },
        }),
    );
    let mut refuse = |name: &str, why: &str, leaf_key: &[u8; 32], certificate: &[u8]| {
        assert!(credential::verify(certificate, leaf_key).is_err(), "{name} is accepted");
        let item = json!({
            "kind": "certificate",
            "leaf_key": hex(leaf_key),
            "certificate": hex(certificate),
        });
        file.mutated(&format!("certificate, {name}"), why, item);
    };
    refuse("another leaf key", "it certifies another key", &[9; 32], &certificate);
    refuse("damaged", "one bit of the device id", &leaf_key, &flip(&certificate, 40, 0));
    refuse(
        "signature damaged",
        "one bit",
        &leaf_key,
        &flip(&certificate, certificate.len() - 1, 0),
    );
    refuse("truncated", "the last byte is missing", &leaf_key, &truncated(&certificate));
    refuse("extended", "a byte follows", &leaf_key, &extended(&certificate));
    let body = |key: &Actor, leaf: [u8; 32]| {
        let (device, leaf) = (ByteArray::new(DEVICE), ByteArray::new(leaf));
        encode(&Body(key.identity.key(), device, leaf, NOW, NOT_AFTER))
    };
    let signed = |signer: &Actor, label: SignatureLabel, body: Vec<u8>| {
        let signature = signer.identity_secret.sign(label, &[], &body);
        encode(&(Bin::<1000>::new(body).unwrap(), signature))
    };
    let label = SignatureLabel::MlsLeaf;
    let stolen = signed(&mallory(), label, body(&alice, leaf_key));
    refuse("signed by somebody else", "the identity key in it did not sign", &leaf_key, &stolen);
    let mislabelled = signed(&alice, SignatureLabel::Identity, body(&alice, leaf_key));
    refuse(
        "signed under another label",
        "a signature made for something else",
        &leaf_key,
        &mislabelled,
    );
    let own = *alice.identity.key().as_bytes();
    let reused = signed(&alice, label, body(&alice, own));
    refuse("the identity key as leaf key", "a key has one use", &own, &reused);
    let trailing = signed(&alice, label, extended(&body(&alice, leaf_key)));
    refuse("a byte after the body", "not in canonical form", &leaf_key, &trailing);
}
