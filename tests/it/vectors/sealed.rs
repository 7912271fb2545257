//! `sealed.json`: blobs wrapped under an epoch's exporter, and blobs sealed to one key.
//!
//! The wrap is not public, so it is written down here a second time; `node/src/groups/tests/vectors.rs`
//! holds production against the file.

mod made_elsewhere;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use openmls_rust_crypto::RustCrypto;
use serde_json::{Value, json};
use sremp_common::hash::labelled_hash;
use sremp_common::id::{hex, unhex};
use sremp_common::key::SealSecret;
use sremp_common::label::HashLabel;
use sremp_node::groups::seal;

use super::file::File;
use super::mutate::{extended, flip, truncated};

const EXPORTER: [u8; 32] = [0x55; 32];
/// Nonce, tag, and the cipher's own tag.
const OVERHEAD: usize = 24 + 8 + 16;

pub(super) fn file() -> File {
    let mut file = File::new(
        "sealed.json",
        "Blobs: wrapped under the exporter secret of an epoch, and sealed to one key. Protocol sections 12.5 and 12.6.",
    );
    add_wrapped(&mut file);
    add_sealed(&mut file);
    file
}

fn content(length: u8) -> Vec<u8> {
    (0..length).collect()
}

fn nonce(first: u8) -> [u8; 24] {
    let mut nonce = [0x24; 24];
    *nonce.first_mut().unwrap() = first;
    nonce
}

fn wrap_key() -> [u8; 32] {
    labelled_hash(HashLabel::Wrap, &[], &EXPORTER)
}

fn tag_key() -> [u8; 16] {
    let hash = labelled_hash(HashLabel::Tag, &[], &EXPORTER);
    *hash.first_chunk().unwrap()
}

/// Kind, length and bytes, filled up with zeros to a bucket of 256 bytes or a doubling of it.
fn padded(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let mut padded = [&[kind], length.to_le_bytes().as_slice(), bytes].concat();
    let bucket = (padded.len() + OVERHEAD).next_power_of_two().max(256);
    padded.resize(bucket - OVERHEAD, 0);
    padded
}

/// What any member of the epoch can make of any bytes.
fn wrapped(nonce: [u8; 24], padded: &[u8], with_tag: bool) -> Vec<u8> {
    let tag = siphasher::sip::SipHasher24::new_with_key(&tag_key()).hash(&nonce).to_le_bytes();
    let cipher = XChaCha20Poly1305::new(&wrap_key().into());
    let aad: &[u8] = if with_tag { &tag } else { &[] };
    let sealed = cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: padded, aad }).unwrap();
    [nonce.as_slice(), &tag, &sealed].concat()
}

fn add_wrapped(file: &mut File) {
    // 203 bytes fill the smallest bucket exactly.
    for (number, (kind, length)) in
        [(1, 0), (1, 11), (2, 203), (1, 204), (1, 250)].into_iter().enumerate()
    {
        let content = content(length);
        let nonce = nonce(u8::try_from(number).unwrap());
        let blob = wrapped(nonce, &padded(kind, &content), true);
        let item = json!({
            "kind": "wrap",
            "exporter": hex(&EXPORTER),
            "wrap_key": hex(&wrap_key()),
            "tag_key": hex(&tag_key()),
            "content_kind": kind,
            "content": hex(&content),
            "blob": hex(&blob),
        });
        file.valid(&format!("wrap, {length} bytes of kind {kind}"), item);
    }
    let hello = padded(1, b"hello");
    let blob = wrapped(nonce(9), &hello, true);
    let forged = |padded: &[u8], with_tag: bool| wrapped(nonce(0xF0), padded, with_tag);
    let mut refuse = |name: &str, why: &str, exporter: [u8; 32], blob: &[u8]| {
        let item = json!({ "kind": "wrap", "exporter": hex(&exporter), "blob": hex(blob) });
        file.mutated(&format!("wrap, {name}"), why, item);
    };
    refuse("another epoch", "the tag of another epoch", [0x56; 32], &blob);
    refuse("nonce damaged", "the tag does not match", EXPORTER, &flip(&blob, 0, 0));
    refuse("tag damaged", "the tag does not match", EXPORTER, &flip(&blob, 24, 0));
    refuse("ciphertext damaged", "does not decrypt", EXPORTER, &flip(&blob, 32, 0));
    refuse("last bit damaged", "does not decrypt", EXPORTER, &flip(&blob, 255, 7));
    refuse("truncated", "the last byte is missing", EXPORTER, &truncated(&blob));
    refuse("extended", "a byte follows", EXPORTER, &extended(&blob));
    refuse("empty", "shorter than nonce and tag", EXPORTER, b"");
    refuse(
        "padding not zero",
        "padding is zeros",
        EXPORTER,
        &forged(&flip(&hello, hello.len() - 1, 0), true),
    );
    refuse(
        "shorter than announced",
        "the length is beyond the end",
        EXPORTER,
        &forged(&flip(&hello, 4, 7), true),
    );
    let larger = [hello.as_slice(), &[0; 256]].concat();
    refuse("another bucket", "512 bytes where 256 are enough", EXPORTER, &forged(&larger, true));
    refuse("no head", "shorter than kind and length", EXPORTER, &forged(&[1, 0], true));
    refuse(
        "tag not authenticated",
        "the tag is the additional data",
        EXPORTER,
        &forged(&hello, false),
    );
}

fn add_sealed(file: &mut File) {
    let crypto = RustCrypto::default();
    let secret = SealSecret::from_bytes([0xA3; 32]);
    let describe = |secret: &SealSecret, blob: &[u8]| {
        json!({
            "kind": "seal",
            "secret": hex(&*secret.to_bytes()),
            "public": secret.public().to_string(),
            "blob": hex(blob),
        })
    };
    let open =
        |secret: &SealSecret, blob: &[u8]| seal::open(&crypto, std::slice::from_ref(secret), blob);
    for (name, text) in [
        ("short", made_elsewhere::SHORT),
        ("long", made_elsewhere::LONG),
        ("another kind", made_elsewhere::OTHER_KIND),
    ] {
        let blob = unhex(text).unwrap();
        let (kind, content) = open(&secret, &blob).unwrap();
        let mut item: Value = describe(&secret, &blob);
        item["content_kind"] = kind.into();
        item["content"] = hex(&content).into();
        file.valid(&format!("seal, {name}"), item);
    }
    let blob = unhex(made_elsewhere::SHORT).unwrap();
    let mut refuse = |name: &str, why: &str, secret: &SealSecret, blob: &[u8]| {
        assert_eq!(open(secret, blob), None, "{name} opens");
        file.mutated(&format!("seal, {name}"), why, describe(secret, blob));
    };
    refuse("another key", "sealed to somebody else", &SealSecret::from_bytes([0xA4; 32]), &blob);
    refuse("ephemeral key damaged", "one bit", &secret, &flip(&blob, 0, 0));
    refuse(
        "ephemeral key zero",
        "a key of small order",
        &secret,
        &super::mutate::replaced(&blob, 0, 32, &[0; 32]),
    );
    refuse("ciphertext damaged", "one bit", &secret, &flip(&blob, 100, 0));
    refuse("truncated", "the last byte is missing", &secret, &truncated(&blob));
    refuse("empty", "nothing", &secret, b"");
    for (name, why, text) in [
        ("padding not zero", "padding is zeros", made_elsewhere::PADDING_NOT_ZERO),
        ("another bucket", "512 bytes where 256 are enough", made_elsewhere::OTHER_BUCKET),
        ("another info", "sealed for another protocol", made_elsewhere::OTHER_INFO),
    ] {
        refuse(name, why, &secret, &unhex(text).unwrap());
    }
}
