//! `identities.json`: whole identities, field by field, and what must be refused.

use serde_json::{Value, json};
use sremp_common::id::{SignatureBytes, hex};
use sremp_common::identity::{Identity, VerifiedIdentity};
use sremp_common::key::IdentitySecret;
use sremp_common::label::SignatureLabel;
use sremp_common::wire::{Bin, decode, encode};

use super::cast::{Actor, NOW, alice, bob, mallory, picture_only, relay};
use super::file::File;
use super::mutate::{extended, flip, position, replaced, truncated};

pub(super) fn file() -> File {
    let mut file = File::new(
        "identities.json",
        "Encoded identities with their fields. `identity` is [bin(identity_data), signature]. Protocol section 4.",
    );
    for (name, actor) in
        [("alice", alice()), ("bob", bob()), ("relay", relay()), ("mallory", mallory())]
    {
        file.valid(name, describe(&actor.identity, &actor.identity_secret));
    }
    let bob = bob();
    let next = bob
        .identity
        .succeed(&bob.identity_secret, NOW, |data| {
            data.extensions = Some(picture_only());
            data.flags.is_machine_account = true;
            Ok(())
        })
        .unwrap();
    file.valid("bob, version 2", describe(&next, &bob.identity_secret));
    add_damaged(&mut file, &alice());
    add_signed_nonsense(&mut file, &alice());
    file
}

/// The fields, as the protocol names them, and the bytes.
pub(super) fn describe(identity: &VerifiedIdentity, secret: &IdentitySecret) -> Value {
    let data = identity.data();
    let extensions = data.extensions.as_ref().map(|extensions| {
        let metadata = extensions.additional_metadata.as_ref().map(|metadata| {
            metadata
                .iter()
                .map(|(key, value)| (key.clone(), hex(value).into()))
                .collect::<serde_json::Map<_, _>>()
        });
        json!({
            "profile_picture": extensions.profile_picture.as_ref().map(|picture| hex(picture)),
            "additional_metadata": metadata,
        })
    });
    json!({
        "secret": hex(&*secret.to_bytes()),
        "identity": hex(&encode(identity.identity())),
        "digest": hex(&identity.identity().digest()),
        "fields": {
            "username": &*data.username,
            "identity_key": hex(data.identity_key.as_bytes()),
            "noise_key": data.noise_key.to_string(),
            "flags": {
                "uses_relay": data.flags.uses_relay,
                "is_machine_account": data.flags.is_machine_account,
                "is_relay_server": data.flags.is_relay_server,
                "prefers_async": data.flags.prefers_async,
            },
            "extensions": extensions,
            "version": data.version,
            "created": data.created.as_millis(),
        },
        "relays": data.relays().iter().map(|relay| hex(&encode(relay))).collect::<Vec<_>>(),
        "seal_key": data.seal_key().map(|key| key.to_string()),
    })
}

fn refuse(file: &mut File, name: &str, why: &str, bytes: &[u8]) {
    let verified = decode::<Identity>(bytes).map(|identity| identity.verify());
    assert!(!matches!(verified, Ok(Ok(_))), "{name} is accepted");
    file.mutated(name, why, json!({ "identity": hex(bytes) }));
}

/// Damage that nobody signed.
fn add_damaged(file: &mut File, actor: &Actor) {
    let bytes = encode(actor.identity.identity());
    let name_at = position(&bytes, b"Alice");
    let signature_at = bytes.len().checked_sub(1).unwrap();
    refuse(file, "other name", "one bit of the name differs", &flip(&bytes, name_at, 0));
    refuse(
        file,
        "other signature",
        "one bit of the signature differs",
        &flip(&bytes, signature_at, 0),
    );
    refuse(file, "truncated identity", "the last byte is missing", &truncated(&bytes));
    refuse(file, "extended identity", "a byte follows", &extended(&bytes));
    let two = replaced(&bytes, 0, 1, &[0xDC, 0x00, 0x02]);
    refuse(file, "long array header", "an array of two in a form that is not the shortest", &two);
    let data = data_bytes(actor);
    let swapped = replaced(&bytes, position(&bytes, &data), data.len(), &data_bytes(&mallory()));
    refuse(file, "other length", "the data of somebody else under this header", &swapped);
    let foreign =
        raw(&data_bytes(&mallory()), &sign(&actor.identity_secret, &data_bytes(&mallory())));
    refuse(
        file,
        "signed by another key",
        "the data names another key than the one that signed",
        &foreign,
    );
    let mislabelled = actor.identity_secret.sign(SignatureLabel::MlsLeaf, &[], &data);
    refuse(
        file,
        "signed under another label",
        "the signature is for a leaf certificate",
        &raw(&data, &mislabelled),
    );
}

/// What its owner signed, and what is refused all the same.
fn add_signed_nonsense(file: &mut File, actor: &Actor) {
    let data = data_bytes(actor);
    let secret = &actor.identity_secret;
    let mut signed = |name: &str, why: &str, data: &[u8]| {
        refuse(file, name, why, &raw(data, &sign(secret, data)));
    };
    let version_at = data.len().checked_sub(10).unwrap();
    assert_eq!(data.get(version_at), Some(&1));
    signed("version 0", "version 0 does not exist", &replaced(&data, version_at, 1, &[0]));
    signed(
        "long integer",
        "a version in a form that is not the shortest",
        &replaced(&data, version_at, 1, &[0xCC, 1]),
    );
    signed("trailing data", "a byte follows the data inside the signature", &extended(&data));
    let fields = |count: u8| replaced(&data, 0, 1, &[0x90 | count]);
    let without_created = fields(6).split_at(data.len().checked_sub(9).unwrap()).0.to_vec();
    signed("six fields", "one field is missing", &without_created);
    signed("eight fields", "one field too many", &extended(&fields(8)));
    let name_at = position(&data, b"Alice");
    let renamed = |name: &[u8]| {
        let header = 0xA0 | u8::try_from(name.len()).unwrap();
        replaced(&data, name_at.checked_sub(1).unwrap(), 6, &[&[header], name].concat())
    };
    signed("empty name", "a name has at least one character", &renamed(b""));
    signed("name with an escape", "U+001B is a control character", &renamed(b"\x1b[31m"));
    signed(
        "name with an override",
        "U+202E turns the text around it",
        &renamed("a\u{202E}b".as_bytes()),
    );
    signed("name with a space at its end", "spaces only between words", &renamed(b"Alice "));
    signed(
        "name not in NFC",
        "the accent is a character of its own",
        &renamed("Ali\u{301}ce".as_bytes()),
    );
    signed("name not UTF-8", "text is UTF-8", &renamed(b"\xff\xfe"));
    signed(
        "name as bytes",
        "a name is text",
        &replaced(&data, name_at.checked_sub(1).unwrap(), 6, b"\xC4\x05Alice"),
    );
    let noise_key = *actor.identity.data().noise_key.as_bytes();
    let noise_at = position(&data, &noise_key);
    signed("Noise key zero", "a key of small order", &replaced(&data, noise_at, 32, &[0; 32]));
    signed("Noise key one", "a key of small order", &replaced(&data, noise_at, 32, &one()));
    let order_8 =
        sremp_common::id::unhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
            .unwrap();
    signed(
        "Noise key of order 8",
        "a key of small order",
        &replaced(&data, noise_at, 32, &order_8),
    );
    let flags_at = position(&data, &[0x94, 0xC3, 0xC2, 0xC2, 0xC3]);
    signed(
        "flag as number",
        "a flag is a boolean",
        &replaced(&data, flags_at.checked_add(1).unwrap(), 1, &[1]),
    );
    let unsorted = {
        // The two keys of Alice's metadata, with their values, the other way round.
        let map_at = position(&data, b"\x82\xA6relays").checked_add(1).unwrap();
        let seal_at = position(&data, b"\xA8seal_key");
        let end = seal_at.checked_add(9 + 34).unwrap();
        let entries = data.get(map_at..end).unwrap();
        let (relays, seal) = entries.split_at(seal_at.checked_sub(map_at).unwrap());
        replaced(&data, map_at, entries.len(), &[seal, relays].concat())
    };
    signed("metadata not ascending", "map keys are strictly ascending", &unsorted);
    let seal_at = position(&data, b"\xA8seal_key").checked_add(9).unwrap();
    signed(
        "seal key too short",
        "a seal key has 32 bytes",
        &replaced(&data, seal_at, 34, b"\xC4\x01x"),
    );
    signed(
        "relays not decodable",
        "the value of a known key must decode",
        &relays_replaced(&data, seal_at),
    );
}

fn relays_replaced(data: &[u8], seal_value_at: usize) -> Vec<u8> {
    let value_at = position(data, b"\xA6relays").checked_add(7).unwrap();
    let end = seal_value_at.checked_sub(9).unwrap();
    replaced(data, value_at, end.checked_sub(value_at).unwrap(), b"\xC4\x01\xC0")
}

fn one() -> [u8; 32] {
    let mut key = [0; 32];
    *key.first_mut().unwrap() = 1;
    key
}

fn data_bytes(actor: &Actor) -> Vec<u8> {
    encode(actor.identity.data())
}

fn sign(secret: &IdentitySecret, data: &[u8]) -> SignatureBytes {
    secret.sign(SignatureLabel::Identity, &[], data)
}

/// `[bin, signature]` whatever is inside.
fn raw(data: &[u8], signature: &SignatureBytes) -> Vec<u8> {
    encode(&(Bin::<40_000>::new(data.to_vec()).unwrap(), *signature))
}
