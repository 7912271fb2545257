//! Receipts. How production opens them is proved beside the groups; here their bytes are fixed.

use serde_json::json;
use sremp_common::id::{GroupId, IdentityKey, MessageId, SignatureBytes, hex};
use sremp_common::key::IdentitySecret;
use sremp_common::label::SignatureLabel;
use sremp_common::signed;
use sremp_common::wire::{Bin, List, encode};

use super::super::cast::{NOW, alice, bob};
use super::super::file::File;
use super::GROUP;
use super::certificates::leaf_of;

/// A receipt under way, and what a verifier has to know besides.
#[derive(Clone)]
struct Case {
    group: GroupId,
    epoch: u64,
    leaf_key: [u8; 32],
    author: IdentityKey,
    kind: u8,
    signature: SignatureBytes,
}

fn ids() -> List<MessageId, 512> {
    List::new(vec![MessageId::new([1; 16]), MessageId::new([2; 16])]).unwrap()
}

impl Case {
    fn ctx(&self) -> Vec<u8> {
        encode(&(&self.group, self.epoch))
    }

    fn body(&self) -> Vec<u8> {
        encode(&(self.author, ids(), self.kind, NOW))
    }

    fn holds(&self) -> bool {
        let label = SignatureLabel::Delivery;
        signed::verify(&self.leaf_key, label, &self.ctx(), &self.body(), &self.signature).is_ok()
    }

    fn describe(&self) -> serde_json::Value {
        let body = Bin::<10_000>::new(self.body()).unwrap();
        json!({
            "kind": "receipt",
            "group_id": self.group.to_string(),
            "epoch": self.epoch,
            "leaf_key": hex(&self.leaf_key),
            "bytes": hex(&encode(&(alice().identity.key(), body, self.signature))),
        })
    }
}

/// Alice confirms two messages of Bob.
pub(super) fn add(file: &mut File) {
    let (seed, _, signer) = leaf_of(&alice());
    for (name, kind) in [("delivered", 0), ("read", 1)] {
        let unsigned = Case {
            group: GROUP,
            epoch: 7,
            leaf_key: signer.leaf_key(),
            author: bob().identity.key(),
            kind,
            signature: SignatureBytes::new([0; 64]),
        };
        let signature = sign_as_leaf(&seed, &unsigned.ctx(), &unsigned.body());
        let case = Case { signature, ..unsigned };
        assert!(case.holds());
        let mut item = case.describe();
        item["leaf_secret"] = hex(&seed).into();
        item["fields"] = json!({
            "author": hex(case.author.as_bytes()),
            "message_ids": ids().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "kind": kind,
            "time": NOW.as_millis(),
        });
        item["from"] = hex(alice().identity.key().as_bytes()).into();
        file.valid(&format!("receipt, {name}"), item);
        let mut refuse = |what: &str, why: &str, case: Case| {
            assert!(!case.holds(), "{what} holds");
            file.mutated(&format!("receipt, {name}, {what}"), why, case.describe());
        };
        refuse(
            "another group",
            "the group is signed",
            Case { group: GroupId::new([0; 16]), ..case.clone() },
        );
        refuse("another epoch", "the epoch is signed", Case { epoch: 8, ..case.clone() });
        refuse(
            "another author",
            "the author is signed",
            Case { author: alice().identity.key(), ..case.clone() },
        );
        refuse("another kind", "the kind is signed", Case { kind: 1 - kind, ..case.clone() });
        refuse(
            "the identity key",
            "the leaf key signs, not the identity key",
            Case { leaf_key: *alice().identity.key().as_bytes(), ..case },
        );
    }
}

/// The leaf signer signs inside the groups only; its key is an Ed25519 seed like any other.
fn sign_as_leaf(seed: &[u8; 32], ctx: &[u8], body: &[u8]) -> SignatureBytes {
    IdentitySecret::from_bytes(seed).sign(SignatureLabel::Delivery, ctx, body)
}
