//! `texts.json`: ids and links, and the slips that their checksum must notice.

use serde_json::{Value, json};
use sremp_common::id::{Token, hex};
use sremp_common::text::{
    ContactLink, RelayLink, decode_contact_link, decode_identity_key, decode_invite,
    decode_relay_link, encode_contact_link, encode_identity_key, encode_invite, encode_relay_link,
};
use sremp_common::wire::{List, encode};

use super::cast::{alice, bob, endpoint_list, relay_record};
use super::file::File;

pub(super) fn file() -> File {
    let mut file = File::new(
        "texts.json",
        "Bech32m text forms; `content` is what is inside. Protocol section 5.",
    );
    let mut add = |name: &str, role: &str, text: &str, content: &[u8]| {
        let item = |text: &str| json!({ "role": role, "text": text, "content": hex(content) });
        file.valid(name, item(text));
        assert!(accepts(role, &text.to_uppercase()));
        file.valid(&format!("{name}, upper case"), item(&text.to_uppercase()));
        for (slip, why, text) in slips(text) {
            assert!(!accepts(role, &text), "{name}, {slip} is accepted");
            file.mutated(&format!("{name}, {slip}"), why, item(&text));
        }
    };
    for (name, key) in
        [("id of alice", alice().identity.key()), ("id of bob", bob().identity.key())]
    {
        add(name, "id", &encode_identity_key(&key), key.as_bytes());
    }
    let relay = RelayLink::from(relay_record());
    add("relay link", "relay link", &encode_relay_link(&relay), &encode(&relay));
    let invited = RelayLink { invite: Some(Token::new([0x78; 16])), ..relay };
    let text = encode_relay_link(&invited);
    add("relay link, with an invitation", "relay link", &text, &encode(&invited));
    let token = Token::new([0x79; 16]);
    add("invitation", "invitation", &encode_invite(&token), token.as_bytes());
    for (name, link) in [("contact link", contact_link()), ("contact link, bare", bare_link())] {
        add(name, "contact link", &encode_contact_link(&link), &encode(&link));
    }
    add_other_roles(&mut file);
    file
}

fn contact_link() -> ContactLink {
    let alice = alice();
    ContactLink {
        identity_key: alice.identity.key(),
        name: alice.identity.data().username.clone(),
        addresses: endpoint_list(&["192.0.2.1:7330"]),
        relays: List::new(vec![relay_record()]).unwrap(),
        rendezvous: endpoint_list(&["rendezvous.example.org:7332"]),
        token: Some(Token::new([0x77; 16])),
    }
}

fn bare_link() -> ContactLink {
    let bob = bob();
    ContactLink {
        identity_key: bob.identity.key(),
        name: bob.identity.data().username.clone(),
        addresses: List::default(),
        relays: List::default(),
        rendezvous: List::default(),
        token: None,
    }
}

fn accepts(role: &str, text: &str) -> bool {
    match role {
        "id" => decode_identity_key(text).is_ok(),
        "relay link" => decode_relay_link(text).is_ok(),
        "invitation" => decode_invite(text).is_ok(),
        _ => decode_contact_link(text).is_ok(),
    }
}

/// What happens to a text between two people.
fn slips(text: &str) -> [(&'static str, &'static str, String); 5] {
    let (start, rest) = text.split_at(text.rfind('1').unwrap().checked_add(5).unwrap());
    let (before, last) = text.split_at(text.len().checked_sub(1).unwrap());
    let (first, others) = rest.split_at(1);
    let (second, others) = others.split_at(1);
    assert_ne!(first, second, "the sample does not show a swap");
    let other = if first == "q" { "p" } else { "q" };
    [
        ("a character changed", "a slip", format!("{start}{other}{second}{others}")),
        ("two characters swapped", "a slip", format!("{start}{second}{first}{others}")),
        ("the last character missing", "cut off", before.to_owned()),
        (
            "mixed case",
            "upper and lower case are not mixed",
            format!("{before}{}", case_mixed(last, text)),
        ),
        (
            "a character of no group",
            "`b` is not in the alphabet",
            format!("{start}b{second}{others}"),
        ),
    ]
}

/// The last character in upper case; a digit has none, so a letter is appended then.
fn case_mixed(last: &str, _text: &str) -> String {
    let upper = last.to_uppercase();
    if upper == last { format!("{last}Q") } else { upper }
}

fn add_other_roles(file: &mut File) {
    let id = encode_identity_key(&alice().identity.key());
    let relay = encode_relay_link(&relay_record().into());
    let mut add = |name: &str, why: &str, role: &str, text: &str| {
        assert!(!accepts(role, text), "{name} is accepted");
        let item: Value = json!({ "role": role, "text": text });
        file.mutated(name, why, item);
    };
    add("an id for a relay link", "another role", "relay link", &id);
    add("a relay link for an id", "another role", "id", &relay);
    add(
        "prefix exchanged",
        "the prefix is under the checksum",
        "relay link",
        &id.replacen("sremp1", "sremprelay1", 1),
    );
    add("Bech32 instead of Bech32m", "the constant of BIP 173", "id", &plain_bech32());
    add("an id of 31 bytes", "an identity key has 32 bytes", "id", &with_prefix("sremp", &[7; 31]));
    add("an id of small order", "not an identity key", "id", &with_prefix("sremp", &[0; 32]));
    add(
        "an invitation of 17 bytes",
        "a token has 16 bytes",
        "invitation",
        &with_prefix("srempinvite", &[7; 17]),
    );
    let no_invite = [&[0x93], &encode(&relay_record())[1..], &[0xC0]].concat();
    add(
        "a relay link with nil for an invitation",
        "an invitation that is not there is left out",
        "relay link",
        &with_prefix("sremprelay", &no_invite),
    );
    let mut trailing = encode(&relay_record());
    trailing.push(0xC0);
    add(
        "a relay link with a byte more",
        "a byte follows the content",
        "relay link",
        &with_prefix("sremprelay", &trailing),
    );
}

fn plain_bech32() -> String {
    let hrp = bech32::Hrp::parse("sremp").unwrap();
    bech32::encode::<bech32::Bech32>(hrp, alice().identity.key().as_bytes()).unwrap()
}

fn with_prefix(prefix: &str, bytes: &[u8]) -> String {
    bech32::encode::<bech32::Bech32m>(bech32::Hrp::parse(prefix).unwrap(), bytes).unwrap()
}
