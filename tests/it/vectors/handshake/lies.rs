//! Peers that lie in a handshake. Each has valid cryptography around the lie, so that nothing but
//! the check that it aims at can stop it.

use serde_json::Value;
use sremp_common::id::{IdentityKey, SignatureBytes, hex};
use sremp_common::label::{SignatureLabel, VERSION_HEADER};
use sremp_common::wire::{Bin, encode};

use super::super::cast::{Actor, alice, bob, mallory, relay};
use super::super::file::File;
use super::super::mutate::{extended, flip, replaced, truncated};
use super::Scene;
use super::forge::{Forger, Keys};

/// What goes into a proof, right or wrong.
struct Claim<'a> {
    role: u8,
    noise_key: [u8; 32],
    identity: &'a Actor,
    signer: &'a Actor,
    peer: Option<IdentityKey>,
    label: SignatureLabel,
}

impl<'a> Claim<'a> {
    fn of_responder(actor: &'a Actor) -> Self {
        let noise_key = *actor.noise_secret.public().as_bytes();
        let label = SignatureLabel::ChannelAuth;
        Self { role: 1, noise_key, identity: actor, signer: actor, peer: None, label }
    }

    fn of_initiator(actor: &'a Actor, responder: &Actor) -> Self {
        Self { role: 0, peer: Some(responder.identity.key()), ..Self::of_responder(actor) }
    }

    fn prove(&self, hash: &[u8]) -> SignatureBytes {
        let noise_key = Bin::<32>::new(self.noise_key.to_vec()).unwrap();
        let digest = Bin::<32>::new(self.identity.identity.identity().digest().to_vec()).unwrap();
        let body = encode(&(self.role, noise_key, digest, self.peer));
        self.signer.identity_secret.sign(self.label, hash, &body)
    }

    fn payload_2(&self, header: [u8; 7], hash: &[u8]) -> Vec<u8> {
        let header = Bin::<7>::new(header.to_vec()).unwrap();
        encode(&(header, self.identity.identity.identity(), self.prove(hash)))
    }

    fn payload_3(&self, hash: &[u8]) -> Vec<u8> {
        encode(&(self.identity.identity.identity(), self.prove(hash)))
    }
}

fn scene() -> Scene {
    Scene::new(7, alice(), relay(), false)
}

/// A message 2 made by whoever holds `static_of`'s Noise key.
fn forged_2(static_of: &Actor, payload: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let keys = Keys { responder_static: *static_of.noise_secret.to_bytes(), ..scene().keys() };
    Forger::new(&keys, &VERSION_HEADER).message_2(payload)
}

/// Refused by the initiator: alice, who dialled the relay.
fn to_initiator(file: &mut File, name: &str, why: &str, header: [u8; 7], message_2: &[u8]) {
    let scene = scene();
    let (calling, message_1) = scene.dial(Some(scene.responder.identity.key()));
    assert!(calling.finish(&header, message_2).is_err(), "{name}: the initiator goes on");
    let mut item = scene.describe();
    item["refused_by"] = "initiator".into();
    item["header_2"] = hex(&header).into();
    item["message_1"] = hex(&message_1).into();
    item["message_2"] = hex(message_2).into();
    file.mutated(name, why, item);
}

pub(super) fn add_to_initiators(file: &mut File) {
    let (relay, mallory, alice) = (relay(), mallory(), alice());
    let mut lie = |name: &str, why: &str, static_of: &Actor, claim: Claim<'_>| {
        let message = forged_2(static_of, |hash| claim.payload_2(VERSION_HEADER, hash));
        to_initiator(file, &format!("message 2: {name}"), why, VERSION_HEADER, &message);
    };
    let honest = || Claim::of_responder(&relay);
    lie(
        "somebody else",
        "a valid identity, but not the one that was dialled",
        &mallory,
        Claim::of_responder(&mallory),
    );
    lie("the initiator itself", "one's own key", &alice, Claim::of_responder(&alice));
    lie(
        "another static key",
        "the static key is not the identity's",
        &mallory,
        Claim { signer: &mallory, ..honest() },
    );
    lie(
        "a stolen Noise key",
        "the Noise key alone does not prove the identity",
        &relay,
        Claim { signer: &mallory, ..honest() },
    );
    lie("the initiator's role", "a proof reflected", &relay, Claim { role: 0, ..honest() });
    lie(
        "a peer named",
        "the responder does not know who calls",
        &relay,
        Claim { peer: Some(alice.identity.key()), ..honest() },
    );
    lie(
        "a proof for another Noise key",
        "the proof names the Noise key",
        &relay,
        Claim { noise_key: *mallory.noise_secret.public().as_bytes(), ..honest() },
    );
    lie(
        "a proof under another label",
        "a signature made for something else",
        &relay,
        Claim { label: SignatureLabel::MlsLeaf, ..honest() },
    );
    let proof_for_other_identity = forged_2(&relay, |hash| {
        let proof = Claim { identity: &mallory, signer: &relay, ..honest() }.prove(hash);
        encode(&(Bin::<7>::new(VERSION_HEADER.to_vec()).unwrap(), relay.identity.identity(), proof))
    });
    let mut send = |name: &str, why: &str, header: [u8; 7], message: &[u8]| {
        to_initiator(file, &format!("message 2: {name}"), why, header, message);
    };
    send(
        "a proof for another identity",
        "the proof names the identity",
        VERSION_HEADER,
        &proof_for_other_identity,
    );
    let replayed = forged_2(&relay, |_| honest().payload_2(VERSION_HEADER, &[7; 32]));
    send(
        "a proof from another connection",
        "the proof names the handshake",
        VERSION_HEADER,
        &replayed,
    );
    add_headers_and_damage(&mut send, &relay);
}

fn add_headers_and_damage(send: &mut impl FnMut(&str, &str, [u8; 7], &[u8]), relay: &Actor) {
    let honest = |header: [u8; 7]| {
        forged_2(relay, |hash| Claim::of_responder(relay).payload_2(header, hash))
    };
    let message = honest(VERSION_HEADER);
    send("header changed in the clear", "the two headers differ", *b"SREMP\x01\x01", &message);
    send(
        "header changed inside",
        "the two headers differ",
        VERSION_HEADER,
        &honest(*b"SREMP\x01\x01"),
    );
    send("major version 2", "another major version", *b"SREMP\x02\x00", &honest(*b"SREMP\x02\x00"));
    send("another protocol", "not SREMP", *b"SREMQ\x01\x00", &honest(*b"SREMQ\x01\x00"));
    send("ephemeral damaged", "one bit", VERSION_HEADER, &flip(&message, 0, 0));
    send(
        "ephemeral zero",
        "a key of small order",
        VERSION_HEADER,
        &replaced(&message, 0, 32, &[0; 32]),
    );
    send("static key damaged", "one bit", VERSION_HEADER, &flip(&message, 40, 3));
    send("payload damaged", "one bit", VERSION_HEADER, &flip(&message, message.len() / 2, 7));
    send("truncated", "the last byte is missing", VERSION_HEADER, &truncated(&message));
    send("extended", "a byte follows", VERSION_HEADER, &extended(&message));
    send("empty", "nothing", VERSION_HEADER, &[]);
    let trailing = forged_2(relay, |hash| {
        extended(&Claim::of_responder(relay).payload_2(VERSION_HEADER, hash))
    });
    send("a byte after the payload", "not in canonical form", VERSION_HEADER, &trailing);
    send(
        "payload nil",
        "the responder always shows its identity",
        VERSION_HEADER,
        &forged_2(relay, |_| vec![0xC0]),
    );
    let other_prologue = Forger::new(&scene().keys(), b"SREMP\x01\x01")
        .message_2(|hash| Claim::of_responder(relay).payload_2(VERSION_HEADER, hash));
    send(
        "the initiator's header changed on its way",
        "it is in the prologue",
        VERSION_HEADER,
        &other_prologue,
    );
}

/// A message 3 made by whoever holds `static_of`'s Noise key.
fn forged_3(static_of: &Actor, payload: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let relay = relay();
    let keys = Keys { initiator_static: *static_of.noise_secret.to_bytes(), ..scene().keys() };
    let mut forger = Forger::new(&keys, &VERSION_HEADER);
    forger.message_2(|hash| Claim::of_responder(&relay).payload_2(VERSION_HEADER, hash));
    forger.message_3(payload)
}

/// Refused by the responder: the relay.
fn to_responder(
    file: &mut File,
    name: &str,
    why: &str,
    header: [u8; 7],
    message_1: &[u8],
    message_3: &[u8],
) {
    let scene = scene();
    let finished =
        scene.answer(&header, message_1).and_then(|(answered, _)| answered.finish(message_3));
    assert!(finished.is_err(), "{name}: the responder goes on");
    let mut item: Value = scene.describe();
    item["refused_by"] = "responder".into();
    item["header_1"] = hex(&header).into();
    item["message_1"] = hex(message_1).into();
    item["message_3"] = hex(message_3).into();
    file.mutated(name, why, item);
}

pub(super) fn add_to_responders(file: &mut File) {
    let (alice, relay, mallory, bob) = (alice(), relay(), mallory(), bob());
    let (_, message_1) = scene().dial(None);
    let mut send = |name: &str, why: &str, message_3: &[u8]| {
        to_responder(
            file,
            &format!("message 3: {name}"),
            why,
            VERSION_HEADER,
            &message_1,
            message_3,
        );
    };
    let honest = || Claim::of_initiator(&alice, &relay);
    let mut lie = |name: &str, why: &str, static_of: &Actor, claim: Claim<'_>| {
        send(name, why, &forged_3(static_of, |hash| claim.payload_3(hash)));
    };
    lie("the responder itself", "one's own key", &relay, Claim::of_initiator(&relay, &relay));
    lie(
        "another static key",
        "the static key is not the identity's",
        &mallory,
        Claim { signer: &mallory, ..honest() },
    );
    lie(
        "a stolen Noise key",
        "the Noise key alone does not prove the identity",
        &alice,
        Claim { signer: &mallory, ..honest() },
    );
    lie("the responder's role", "a proof reflected", &alice, Claim { role: 1, ..honest() });
    lie(
        "nobody named",
        "the initiator names the responder",
        &alice,
        Claim { peer: None, ..honest() },
    );
    lie(
        "somebody else named",
        "a proof passed on to another responder",
        &alice,
        Claim { peer: Some(bob.identity.key()), ..honest() },
    );
    lie(
        "a proof under another label",
        "a signature made for something else",
        &alice,
        Claim { label: SignatureLabel::Identity, ..honest() },
    );
    send(
        "a proof from another connection",
        "the proof names the handshake",
        &forged_3(&alice, |_| honest().payload_3(&[7; 32])),
    );
    send(
        "anonymous with the responder's own key",
        "one's own key",
        &forged_3(&relay, |_| vec![0xC0]),
    );
    send("empty payload", "nil is one byte", &forged_3(&alice, |_| Vec::new()));
    send("a byte after nil", "not in canonical form", &forged_3(&alice, |_| vec![0xC0, 0xC0]));
    let message = forged_3(&alice, |hash| honest().payload_3(hash));
    send("static key damaged", "one bit", &flip(&message, 0, 0));
    send("payload damaged", "one bit", &flip(&message, message.len().checked_sub(1).unwrap(), 0));
    send("truncated", "the last byte is missing", &truncated(&message));
    send("empty", "nothing", &[]);
    add_first_messages(file, &message_1, &message);
}

/// What is wrong from the beginning.
fn add_first_messages(file: &mut File, message_1: &[u8], message_3: &[u8]) {
    for (name, why, header, message_1) in [
        ("ephemeral zero", "a key of small order", VERSION_HEADER, vec![0; 32]),
        (
            "with a payload",
            "message 1 is an ephemeral key and nothing else",
            VERSION_HEADER,
            extended(message_1),
        ),
        ("truncated", "the last byte is missing", VERSION_HEADER, truncated(message_1)),
        ("damaged", "one bit", VERSION_HEADER, flip(message_1, 0, 0)),
        ("major version 0", "another major version", *b"SREMP\x00\x01", message_1.to_vec()),
        ("another protocol", "not SREMP", *b"sremp\x01\x00", message_1.to_vec()),
        (
            "header changed on its way",
            "it is in the prologue",
            *b"SREMP\x01\x01",
            message_1.to_vec(),
        ),
    ] {
        to_responder(file, &format!("message 1: {name}"), why, header, &message_1, message_3);
    }
}
