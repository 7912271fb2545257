//! Policies of groups, and leaf information.

use serde_json::json;
use sremp_common::id::{IdentityKey, SealKey, Token, hex};
use sremp_common::key::SealSecret;
use sremp_common::wire::{List, Text, decode, encode};
use sremp_node::groups::policy::Policy;
use sremp_node::groups::{GroupKind, LeafInfo};

use super::super::cast::{alice, bob, relay_record};
use super::super::file::File;
use super::super::mutate::{extended, replaced, truncated};

pub(super) fn add(file: &mut File) {
    let (alice, bob) = (alice().identity.key(), bob().identity.key());
    let group = Policy::new(GroupKind::Group, "Hiking", alice).unwrap();
    let two = group.clone().promoted(bob);
    let direct = Policy::new(GroupKind::Direct, "", alice).unwrap();
    let mut sorted = [alice, bob];
    sorted.sort_unstable();
    for (name, policy, kind, text, admins) in [
        ("group", group, 1, "Hiking", vec![alice]),
        ("two admins", two, 1, "Hiking", sorted.to_vec()),
        ("direct", direct, 0, "", Vec::new()),
    ] {
        let bytes = policy.encode();
        assert_eq!(bytes, raw(kind, text, &admins));
        assert_eq!(Policy::decode(&bytes).unwrap(), policy);
        let admins: Vec<String> = admins.iter().map(|admin| hex(admin.as_bytes())).collect();
        let fields = json!({ "rules": 1, "kind": kind, "name": text, "admins": admins });
        file.valid(
            &format!("policy, {name}"),
            json!({ "kind": "policy", "bytes": hex(&bytes), "fields": fields }),
        );
    }
    let mut refuse = |name: &str, why: &str, bytes: &[u8]| {
        assert!(Policy::decode(bytes).is_err(), "{name} is accepted");
        file.mutated(
            &format!("policy, {name}"),
            why,
            json!({ "kind": "policy", "bytes": hex(bytes) }),
        );
    };
    let [low, high] = sorted;
    refuse("admins descending", "admins are ascending", &raw(1, "Hiking", &[high, low]));
    refuse("an admin twice", "admins are ascending", &raw(1, "Hiking", &[low, low]));
    refuse("other rules", "rules of version 1", &raw_by(2, 1, "Hiking", &[low]));
    refuse("another kind", "kinds are 0 and 1", &raw(2, "Hiking", &[low]));
    refuse("a direct group with a name", "a direct group has none", &raw(0, "Hiking", &[]));
    refuse("a direct group with an admin", "both members are admins", &raw(0, "", &[low]));
    refuse("a group without name", "a name has at least one character", &raw(1, "", &[low]));
    refuse(
        "a name with an override",
        "a name by the rules of section 4.2",
        &raw(1, "a\u{202E}b", &[low]),
    );
    refuse("truncated", "the last byte is missing", &truncated(&raw(1, "Hiking", &[low])));
    refuse("extended", "a byte follows", &extended(&raw(1, "Hiking", &[low])));
    add_leaf_information(file);
}

/// Any `[rules, kind, name, admins]`, by the rules of the only version.
fn raw(kind: u8, name: &str, admins: &[IdentityKey]) -> Vec<u8> {
    raw_by(1, kind, name, admins)
}

fn raw_by(rules: u8, kind: u8, name: &str, admins: &[IdentityKey]) -> Vec<u8> {
    encode(&(
        rules,
        kind,
        Text::<1000>::new(name).unwrap(),
        List::<IdentityKey, 100>::new(admins.to_vec()).unwrap(),
    ))
}

fn add_leaf_information(file: &mut File) {
    let seal_key = SealSecret::from_bytes([0xA3; 32]).public();
    let leaf = LeafInfo {
        relays: List::new(vec![relay_record()]).unwrap(),
        seal_key,
        token: Token::new([0x1E; 16]),
    };
    let bytes = encode(&leaf);
    let fields = json!({
        "relays": [{
            "identity_key": hex(relay_record().identity_key.as_bytes()),
            "endpoints": relay_record().endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }],
        "seal_key": seal_key.to_string(),
        "token": "1e".repeat(16),
    });
    file.valid(
        "leaf information",
        json!({ "kind": "leaf", "bytes": hex(&bytes), "fields": fields }),
    );
    let mut refuse = |name: &str, why: &str, bytes: &[u8]| {
        assert!(decode::<LeafInfo>(bytes).is_err(), "{name} is accepted");
        file.mutated(
            &format!("leaf information, {name}"),
            why,
            json!({ "kind": "leaf", "bytes": hex(bytes) }),
        );
    };
    refuse("truncated", "the last byte is missing", &truncated(&bytes));
    refuse("extended", "a byte follows", &extended(&bytes));
    let at = super::super::mutate::position(&bytes, seal_key.as_bytes());
    assert!(SealKey::from_bytes([0; 32]).is_err());
    refuse("seal key zero", "a key of small order", &replaced(&bytes, at, 32, &[0; 32]));
    let five = vec![relay_record(); 5];
    let five = encode(&(List::<_, 5>::new(five).unwrap(), seal_key, Token::new([0x1E; 16])));
    refuse("five relays", "at most four", &five);
}
