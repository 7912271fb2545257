//! `end_to_end.json`: what members tell each other inside blobs: certificates, leaf information,
//! policies, contents, receipts, invitations; and the names and numbers derived on the way.

mod certificates;
mod contents;
mod policies;
mod receipts;

use serde_json::json;
use sremp_common::hash::labelled_hash;
use sremp_common::id::{GroupId, IdentityKey, hex};
use sremp_common::label::HashLabel;
use sremp_common::wire::{Bin, encode};
use sremp_node::identity::safety_number;

use super::cast::{alice, bob, relay};
use super::file::File;

pub(super) const GROUP: GroupId = GroupId::new([0x6A; 16]);

pub(super) fn file() -> File {
    let mut file = File::new(
        "end_to_end.json",
        "What stands inside blobs, and what is derived from it. Protocol section 12.",
    );
    certificates::add(&mut file);
    policies::add(&mut file);
    contents::add(&mut file);
    receipts::add(&mut file);
    add_invitation(&mut file);
    add_state_ids(&mut file);
    add_safety_numbers(&mut file);
    file
}

fn add_invitation(file: &mut File) {
    let welcome = Bin::<1000>::new(b"an MLS Welcome".to_vec()).unwrap();
    let alice = alice();
    let bytes = encode(&(alice.identity.identity(), &welcome));
    file.valid(
        "invitation",
        json!({
            "kind": "invitation",
            "bytes": hex(&bytes),
            "identity": hex(&encode(alice.identity.identity())),
            "welcome": hex(&welcome),
        }),
    );
}

fn add_state_ids(file: &mut File) {
    for (name, ctx, body) in [
        ("created", GROUP.as_bytes(), b"".as_slice()),
        ("welcomed", GROUP.as_bytes(), b"an encoded GroupContext"),
        ("child", &[0x1D; 16], b"an encoded commit"),
    ] {
        let hash = labelled_hash(HashLabel::StateId, ctx, body);
        let id = hash.split_at(16).0;
        let item = |body: &[u8]| json!({ "kind": "state id", "ctx": hex(ctx), "body": hex(body), "state_id": hex(id) });
        file.valid(&format!("state id, {name}"), item(body));
        let other = [body, b"!"].concat();
        file.mutated(
            &format!("state id, {name}, other commit"),
            "the commit is part of it",
            item(&other),
        );
    }
}

fn add_safety_numbers(file: &mut File) {
    let [alice, bob, relay] = [alice(), bob(), relay()].map(|actor| actor.identity.key());
    let item = |a: &IdentityKey, b: &IdentityKey, number: &str| json!({ "kind": "safety number", "one": hex(a.as_bytes()), "other": hex(b.as_bytes()), "number": number });
    let number = safety_number(&alice, &bob);
    file.valid("safety number", item(&alice, &bob, &number));
    file.valid("safety number, the other side", item(&bob, &alice, &number));
    assert_ne!(safety_number(&alice, &relay), number);
    file.mutated(
        "safety number, somebody else",
        "another pair has another number",
        item(&alice, &relay, &number),
    );
}
