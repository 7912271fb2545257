//! The Noise library with fixed keys and nothing of ours around it.

use snow::{Builder, HandshakeState};
use sremp_common::label::{NOISE_PATTERN, NOISE_PROLOGUE, VERSION_HEADER};

/// Secret halves.
pub(super) struct Keys {
    pub(super) initiator_static: [u8; 32],
    pub(super) initiator_ephemeral: [u8; 32],
    pub(super) responder_static: [u8; 32],
    pub(super) responder_ephemeral: [u8; 32],
}

/// Everything that passed, and the handshake hash after each message.
pub(super) struct Transcript {
    pub(super) messages: [Vec<u8>; 3],
    pub(super) payloads: [Vec<u8>; 3],
    pub(super) hashes: [Vec<u8>; 3],
}

impl Transcript {
    /// Replays what production made: the same keys and payloads must give the same messages.
    pub(super) fn of(keys: &Keys, messages: &[Vec<u8>; 3]) -> Self {
        let [_, message_2, message_3] = messages;
        let mut forger = Forger::new(keys, &VERSION_HEADER);
        let payload_2 = forger.clone_and_read_2(keys, message_2);
        let made_2 = forger.message_2(|_| payload_2.clone());
        let payload_3 = forger.clone_and_read_3(keys, &payload_2, message_3);
        let made_3 = forger.message_3(|_| payload_3.clone());
        let made = [forger.message_1.clone(), made_2, made_3];
        assert_eq!(&made, messages, "the Noise library alone makes other messages");
        Self {
            messages: made,
            payloads: [Vec::new(), payload_2, payload_3],
            hashes: forger.hashes.try_into().unwrap(),
        }
    }
}

/// Both sides of one handshake in one hand.
pub(super) struct Forger {
    initiator: HandshakeState,
    responder: HandshakeState,
    pub(super) message_1: Vec<u8>,
    hashes: Vec<Vec<u8>>,
}

impl Forger {
    /// After message 1, which is read by the responder already.
    pub(super) fn new(keys: &Keys, initiator_header: &[u8; 7]) -> Self {
        let mut initiator =
            builder(&keys.initiator_static, &keys.initiator_ephemeral, initiator_header, true);
        let mut responder =
            builder(&keys.responder_static, &keys.responder_ephemeral, initiator_header, false);
        let message_1 = write(&mut initiator, &[]);
        read(&mut responder, &message_1);
        let hashes = vec![initiator.get_handshake_hash().to_vec()];
        Self { initiator, responder, message_1, hashes }
    }

    /// Message 2 with the payload that `payload` makes from the handshake hash.
    pub(super) fn message_2(&mut self, payload: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let payload = payload(self.responder.get_handshake_hash());
        let message = write(&mut self.responder, &payload);
        read(&mut self.initiator, &message);
        self.hashes.push(self.initiator.get_handshake_hash().to_vec());
        message
    }

    /// Message 3, in the same way.
    pub(super) fn message_3(&mut self, payload: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let payload = payload(self.initiator.get_handshake_hash());
        let message = write(&mut self.initiator, &payload);
        read(&mut self.responder, &message);
        self.hashes.push(self.responder.get_handshake_hash().to_vec());
        message
    }

    fn clone_and_read_2(&self, keys: &Keys, message_2: &[u8]) -> Vec<u8> {
        let mut initiator =
            builder(&keys.initiator_static, &keys.initiator_ephemeral, &VERSION_HEADER, true);
        assert_eq!(write(&mut initiator, &[]), self.message_1);
        read(&mut initiator, message_2)
    }

    fn clone_and_read_3(&self, keys: &Keys, payload_2: &[u8], message_3: &[u8]) -> Vec<u8> {
        let mut responder =
            builder(&keys.responder_static, &keys.responder_ephemeral, &VERSION_HEADER, false);
        read(&mut responder, &self.message_1);
        write(&mut responder, payload_2);
        read(&mut responder, message_3)
    }
}

fn builder(
    static_key: &[u8; 32],
    ephemeral: &[u8; 32],
    header: &[u8; 7],
    initiator: bool,
) -> HandshakeState {
    let prologue = [NOISE_PROLOGUE, header].concat();
    let builder = Builder::new(NOISE_PATTERN.parse().unwrap())
        .local_private_key(static_key)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(ephemeral)
        .prologue(&prologue)
        .unwrap();
    if initiator { builder.build_initiator() } else { builder.build_responder() }.unwrap()
}

fn write(side: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 65_535];
    let length = side.write_message(payload, &mut message).unwrap();
    message.truncate(length);
    message
}

fn read(side: &mut HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; 65_535];
    let length = side.read_message(message, &mut payload).unwrap();
    payload.truncate(length);
    payload
}
