//! `handshakes.json`: whole Noise handshakes with fixed ephemeral keys, and peers that lie in them.
//!
//! The production steps make the messages. The Noise library alone, with the same keys, makes them a
//! second time: that gives the handshake hashes, and lets a forger put anything into a payload.

mod forge;
mod lies;

use std::sync::Arc;

use serde_json::{Value, json};
use sremp_common::entropy::Entropy;
use sremp_common::frame::append_frame;
use sremp_common::id::{IdentityKey, hex};
use sremp_common::key::NoiseSecret;
use sremp_common::label::VERSION_HEADER;
use sremp_common::noise::{
    Answered, Authenticated, Called, Calling, HandshakeError, Local, Session,
};
use sremp_common::wire::{Message, Ping, Pong, encode};

use super::cast::{Actor, alice, bob, relay};
use super::file::File;
use forge::{Keys, Transcript};

pub(super) fn file() -> File {
    let mut file = File::new(
        "handshakes.json",
        "Noise handshakes: keys, messages, payloads, handshake hashes, first frames. Protocol sections 6.1 to 6.6.",
    );
    for (name, seed, initiator, responder, anonymous) in [
        ("alice dials the relay", 1, alice(), relay(), false),
        ("somebody anonymous dials the relay", 2, alice(), relay(), true),
        ("bob dials alice", 3, bob(), alice(), false),
    ] {
        add_complete(&mut file, name, &Scene::new(seed, initiator, responder, anonymous));
    }
    lies::add_to_initiators(&mut file);
    lies::add_to_responders(&mut file);
    file
}

/// Two sides, and the generators that each draws from.
struct Scene {
    initiator: Actor,
    responder: Actor,
    anonymous: bool,
    initiator_entropy: Entropy,
    responder_entropy: Entropy,
}

impl Scene {
    fn new(seed: u64, initiator: Actor, responder: Actor, anonymous: bool) -> Self {
        let mut entropy = Entropy::from_number(seed);
        let [initiator_entropy, responder_entropy] = [entropy.fork(), entropy.fork()];
        Self { initiator, responder, anonymous, initiator_entropy, responder_entropy }
    }

    /// The static and ephemeral keys that both sides will use.
    fn keys(&self) -> Keys {
        // An initiator draws the key of an anonymous session first, wanted or not; each handshake
        // then draws its ephemeral key from a generator of its own.
        let mut entropy = self.initiator_entropy.clone();
        let throw_away = NoiseSecret::generate(&mut entropy);
        let initiator_static =
            if self.anonymous { &throw_away } else { &self.initiator.noise_secret };
        Keys {
            initiator_static: *initiator_static.to_bytes(),
            initiator_ephemeral: entropy.fork().array(),
            responder_static: *self.responder.noise_secret.to_bytes(),
            responder_ephemeral: self.responder_entropy.clone().fork().array(),
        }
    }

    fn dial(&self, expect: Option<IdentityKey>) -> (Calling, Vec<u8>) {
        let mut entropy = self.initiator_entropy.clone();
        Calling::start(local(&self.initiator), expect, self.anonymous, &mut entropy).unwrap()
    }

    fn answer(
        &self,
        header: &[u8; 7],
        message_1: &[u8],
    ) -> Result<(Answered, Vec<u8>), HandshakeError> {
        let mut entropy = self.responder_entropy.clone();
        Called::start(local(&self.responder), header, &mut entropy)?.answer(message_1)
    }

    fn describe(&self) -> Value {
        let keys = self.keys();
        let side = |actor: &Actor, static_key: [u8; 32], ephemeral: [u8; 32]| {
            json!({
                "identity": hex(&encode(actor.identity.identity())),
                "identity_secret": hex(&*actor.identity_secret.to_bytes()),
                "noise_secret": hex(&static_key),
                "ephemeral_secret": hex(&ephemeral),
            })
        };
        json!({
            "anonymous": self.anonymous,
            "expect": hex(self.responder.identity.key().as_bytes()),
            "initiator": side(&self.initiator, keys.initiator_static, keys.initiator_ephemeral),
            "responder": side(&self.responder, keys.responder_static, keys.responder_ephemeral),
            "header_1": hex(&VERSION_HEADER),
            "header_2": hex(&VERSION_HEADER),
        })
    }
}

fn local(actor: &Actor) -> Arc<Local> {
    Arc::new(Local {
        identity: actor.identity.clone(),
        identity_secret: actor.identity_secret.clone(),
        noise_secret: actor.noise_secret.clone(),
    })
}

fn add_complete(file: &mut File, name: &str, scene: &Scene) {
    let (calling, message_1) = scene.dial(Some(scene.responder.identity.key()));
    let (answered, message_2) = scene.answer(&VERSION_HEADER, &message_1).unwrap();
    let (initiator, message_3) = calling.finish(&VERSION_HEADER, &message_2).unwrap();
    let responder = answered.finish(&message_3).unwrap();
    let transcript = Transcript::of(&scene.keys(), &[message_1, message_2, message_3]);
    let mut item = scene.describe();
    let [hash_1, hash_2, hash_3] = transcript.hashes.each_ref().map(|hash| hex(hash));
    let [message_1, message_2, message_3] =
        transcript.messages.each_ref().map(|message| hex(message));
    let [payload_1, payload_2, payload_3] =
        transcript.payloads.each_ref().map(|payload| hex(payload));
    assert_eq!(payload_1, "");
    item["message_1"] = message_1.into();
    item["message_2"] = message_2.into();
    item["message_3"] = message_3.into();
    item["payload_2"] = payload_2.into();
    item["payload_3"] = payload_3.into();
    item["hash_1"] = hash_1.into();
    item["hash_2"] = hash_2.into();
    item["hash_3"] = hash_3.into();
    item["transport"] = transport(initiator, responder);
    file.valid(name, item);
}

/// The first frames in both directions: a probe and its answer, twice.
fn transport(initiator: Authenticated, responder: Authenticated) -> Value {
    let (mut initiator, mut responder) = (initiator.session, responder.session);
    let mut frames = Vec::new();
    for round in 0..2_u8 {
        let request_id = u64::from(round) * 2;
        let ping = Message::Ping(Ping()).encode(request_id);
        frames.push(frame("initiator", round, &ping, &mut initiator, &mut responder));
        let pong = Message::Pong(Pong()).encode(request_id);
        frames.push(frame("responder", round, &pong, &mut responder, &mut initiator));
    }
    frames.into()
}

fn frame(
    from: &str,
    message_id: u8,
    message: &[u8],
    sealing: &mut Session,
    opening: &mut Session,
) -> Value {
    let size = u8::try_from(message.len()).unwrap();
    let header = [message_id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, size, 0];
    let chunk = [header.as_slice(), message].concat();
    let mut sealed = Vec::new();
    sealing.seal(&chunk, &mut sealed).unwrap();
    assert_eq!(opening.open(&sealed).unwrap(), chunk);
    let mut framed = Vec::new();
    append_frame(&mut framed, &sealed).unwrap();
    json!({ "from": from, "message": hex(message), "chunk": hex(&chunk), "frame": hex(&framed) })
}
