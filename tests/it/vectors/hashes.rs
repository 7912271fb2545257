//! `hashes.json`: labelled hashes, and what is made of them: blob ids, token hashes, proofs of work.

use serde_json::{Value, json};
use sremp_common::hash::labelled_hash;
use sremp_common::id::{BlobId, Token, hex};
use sremp_common::label::HashLabel;
use sremp_common::pow::Work;

use super::cast::{NOW, alice, bob, relay};
use super::file::File;

const LABELS: [HashLabel; 7] = [
    HashLabel::BlobId,
    HashLabel::Pow,
    HashLabel::Wrap,
    HashLabel::Tag,
    HashLabel::SafetyNumber,
    HashLabel::TokenHash,
    HashLabel::StateId,
];

pub(super) fn file() -> File {
    let mut file = File::new(
        "hashes.json",
        "SHA-256 over LabelledInput(label, ctx, body), and what is made of it. Protocol sections 3.2 and 9.4.",
    );
    for label in LABELS {
        let (ctx, body) = (b"context".as_slice(), b"body".as_slice());
        let hash = labelled_hash(label, ctx, body);
        file.valid(&format!("{}, labelled", label.as_str()), labelled(label, ctx, body, &hash));
        // The boundary between context and body is part of the input.
        let moved = labelled(label, b"contextb", b"ody", &hash);
        let name = format!("{}, boundary moved", label.as_str());
        file.mutated(&name, "the same bytes, cut elsewhere, have another hash", moved);
    }
    add_blob_ids(&mut file);
    add_token_hashes(&mut file);
    add_proofs_of_work(&mut file);
    file
}

fn labelled(label: HashLabel, ctx: &[u8], body: &[u8], hash: &[u8; 32]) -> Value {
    json!({
        "kind": "labelled",
        "label": label.as_str(),
        "ctx": hex(ctx),
        "body": hex(body),
        "hash": hex(hash),
    })
}

fn add_blob_ids(file: &mut File) {
    let (alice, bob) = (alice().identity.key(), bob().identity.key());
    let item = |recipient: &[u8; 32], blob: &[u8], id: BlobId| {
        json!({
            "kind": "blob id",
            "recipient": hex(recipient),
            "blob": hex(blob),
            "blob_id": id.to_string(),
        })
    };
    for blob in [b"".as_slice(), b"one blob", &[0xFF; 300]] {
        let id = BlobId::of(&alice, blob);
        let name = format!("blob id of {} bytes", blob.len());
        file.valid(&name, item(alice.as_bytes(), blob, id));
        let name = format!("{name}, other recipient");
        file.mutated(&name, "the recipient is part of it", item(bob.as_bytes(), blob, id));
    }
}

fn add_token_hashes(file: &mut File) {
    for byte in [0x00, 0x42] {
        let token = [byte; 16];
        let hash = Token::new(token).hash();
        let name = format!("token hash of {byte:#04x}");
        let item = |token: &[u8]| json!({ "kind": "token hash", "token": hex(token), "hash": hash.to_string() });
        file.valid(&name, item(&token));
        file.mutated(
            &format!("{name}, other token"),
            "one bit",
            item(&super::mutate::flip(&token, 0, 0)),
        );
    }
}

fn add_proofs_of_work(file: &mut File) {
    const DIFFICULTY: u8 = 12;
    let (relay, recipient) = (relay().identity.key(), alice().identity.key());
    for (name, blob) in
        [("store", Some(BlobId::of(&recipient, b"one blob"))), ("key package", None)]
    {
        let work = Work { relay: &relay, recipient: &recipient, blob, hour: NOW.hour() };
        let nonce = work.search(DIFFICULTY, 0, 1 << 20).unwrap();
        let item = |hour: u64, nonce: u64, zero_bits: u32| {
            json!({
                "kind": "proof of work",
                "relay": hex(relay.as_bytes()),
                "recipient": hex(recipient.as_bytes()),
                "blob_id": blob.map(|blob| blob.to_string()),
                "hour": hour,
                "nonce": nonce,
                "difficulty": DIFFICULTY,
                "zero_bits": zero_bits,
            })
        };
        file.valid(
            &format!("proof of work, {name}"),
            item(work.hour, nonce, work.zero_bits(nonce)),
        );
        let late = Work { hour: work.hour.saturating_add(1), ..work };
        assert!(late.zero_bits(nonce) < u32::from(DIFFICULTY));
        file.mutated(
            &format!("proof of work, {name}, other hour"),
            "the hour is part of it",
            item(late.hour, nonce, work.zero_bits(nonce)),
        );
        let wrong = nonce.checked_sub(1).unwrap();
        assert!(work.zero_bits(wrong) < u32::from(DIFFICULTY));
        file.mutated(
            &format!("proof of work, {name}, nonce before"),
            "too few zero bits",
            item(work.hour, wrong, work.zero_bits(wrong)),
        );
    }
}
