//! Attacks on the handshake and on sealed frames, with the steps carried from one side to the other
//! by hand. What a hostile peer has is mixed from the belongings of several people.

use std::sync::atomic::{AtomicUsize, Ordering};

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use super::testing::{Person, person, sign};
use super::*;
use crate::entropy::Entropy;
use crate::id::unhex;
use crate::label::{NOISE_PATTERN, NOISE_PROLOGUE, VERSION_HEADER};

type Met = Result<(Authenticated, Authenticated), HandshakeError>;

/// One whole handshake; the first refusal on either side is the result.
fn meet(caller: &Person, expect: Option<&Person>, anonymous: bool, callee: &Person) -> Met {
    let expect = expect.map(|person| person.identity.key());
    let (calling, answered, message_2) = half(caller, expect, anonymous, callee)?;
    let (initiator, message_3) = calling.finish(&VERSION_HEADER, &message_2)?;
    Ok((initiator, answered.finish(&message_3)?))
}

/// Up to message 2.
fn half(
    caller: &Person,
    expect: Option<IdentityKey>,
    anonymous: bool,
    callee: &Person,
) -> Result<(Calling, Answered, Vec<u8>), HandshakeError> {
    let (calling, message_1) =
        Calling::start(caller.local(), expect, anonymous, &mut Entropy::from_number(11))?;
    let called = Called::start(callee.local(), &VERSION_HEADER, &mut Entropy::from_number(12))?;
    let (answered, message_2) = called.answer(&message_1)?;
    Ok((calling, answered, message_2))
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let (alice, bob) = (person(1), person(2));
    let (at_alice, at_bob) = meet(&alice, Some(&bob), false, &bob).unwrap();
    assert_eq!(at_alice.caller, Caller::Identified(Box::new(bob.identity.clone())));
    assert_eq!(at_bob.caller, Caller::Identified(Box::new(alice.identity.clone())));
    let (at_alice, at_bob) = meet(&alice, Some(&bob), true, &bob).unwrap();
    assert_eq!(at_alice.caller.key(), Some(bob.identity.key()));
    assert_eq!(at_bob.caller, Caller::Anonymous);
}

#[test]
fn an_anonymous_caller_uses_a_key_that_is_not_its_own() {
    let (alice, bob) = (person(1), person(2));
    let mut seen = Vec::new();
    for seed in [1, 2] {
        let (calling, message_1) =
            Calling::start(alice.local(), None, true, &mut Entropy::from_number(seed)).unwrap();
        let called = Called::start(bob.local(), &VERSION_HEADER, &mut Entropy::from_number(3));
        let (mut answered, message_2) = called.unwrap().answer(&message_1).unwrap();
        let (_, message_3) = calling.finish(&VERSION_HEADER, &message_2).unwrap();
        let key = answered.read_static(&message_3);
        assert_ne!(key, alice.identity.data().noise_key);
        seen.push(key);
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn a_seed_replays_a_handshake() {
    let transcript = || {
        let (calling, _, message_2) = half(&person(1), None, false, &person(2)).unwrap();
        let (_, message_3) = calling.finish(&VERSION_HEADER, &message_2).unwrap();
        (message_2, message_3)
    };
    assert_eq!(transcript(), transcript());
}

#[test]
fn n01_static_key_mismatch() {
    // A valid identity of Alice's, shown over Mallory's own Noise key.
    let (alice, mallory, bob) = (person(1), person(66), person(2));
    let hostile = Person { identity: alice.identity.clone(), ..mallory };
    for met in [meet(&bob, Some(&alice), false, &hostile), meet(&hostile, None, false, &bob)] {
        assert!(matches!(met, Err(HandshakeError::StaticKeyMismatch)), "{met:?}");
    }
}

#[test]
fn n02_another_identity_answers() {
    let (alice, bob, mallory) = (person(1), person(2), person(66));
    let (calling, _, message_2) = half(&alice, Some(bob.identity.key()), false, &mallory).unwrap();
    // The error is all that comes of it: there is no message 3 that would tell who called.
    let Err(HandshakeError::WrongIdentity { expected, found }) =
        calling.finish(&VERSION_HEADER, &message_2)
    else {
        panic!()
    };
    assert_eq!((expected, found), (bob.identity.key(), mallory.identity.key()));
}

#[test]
fn n03_identity_misbinding() {
    // Mallory signs an identity of his own that names Alice's Noise key.
    let (alice, mallory, bob) = (person(1), person(66), person(2));
    let misbound = sign(&mallory.identity_secret, &alice.noise_secret, |_| {});
    // His record points at Alice: she answers as herself, and is not taken for Mallory.
    let met = meet(&bob, Some(&mallory), false, &alice);
    assert!(matches!(met, Err(HandshakeError::WrongIdentity { .. })));
    // He answers himself, without her Noise key.
    let hostile = Person { identity: misbound, ..mallory };
    for met in [meet(&bob, Some(&hostile), false, &hostile), meet(&hostile, None, false, &bob)] {
        assert!(matches!(met, Err(HandshakeError::StaticKeyMismatch)));
    }
}

#[test]
fn n03_a_proof_is_made_for_one_peer_role_and_session() {
    use super::proof::Claim;
    let (alice, bob, carol) = (person(1), person(2), person(3));
    let claim = Claim {
        role: Role::Initiator,
        noise_key: &alice.identity.data().noise_key,
        identity: &alice.identity,
        peer: Some(bob.identity.key()),
        hash: &[1; 32],
    };
    let proof = claim.sign(&alice.identity_secret);
    claim.verify(&proof).unwrap();
    let newer = alice
        .identity
        .succeed(&alice.identity_secret, crate::time::Timestamp::from_millis(1), |_| Ok(()))
        .unwrap();
    for other in [
        Claim { role: Role::Responder, ..claim },
        Claim { noise_key: &bob.identity.data().noise_key, ..claim },
        Claim { identity: &newer, ..claim },
        Claim { identity: &bob.identity, ..claim },
        Claim { peer: Some(carol.identity.key()), ..claim },
        Claim { peer: None, ..claim },
        Claim { hash: &[2; 32], ..claim },
    ] {
        assert!(matches!(other.verify(&proof), Err(HandshakeError::BadProof)));
    }
}

#[test]
fn n04_stolen_noise_key_with_its_identity() {
    // The thief has Alice's Noise key and a copy of her identity, not her identity key.
    let (alice, mallory, bob) = (person(1), person(66), person(2));
    let thief = Person { identity_secret: mallory.identity_secret, ..alice.clone() };
    for met in [meet(&bob, Some(&alice), false, &thief), meet(&thief, None, false, &bob)] {
        assert!(matches!(met, Err(HandshakeError::BadProof)));
    }
    // After she has rotated her Noise key, her old one with her old identity is worth no more.
    let rotated = sign(&alice.identity_secret, &person(9).noise_secret, |data| data.version = 2);
    let thief = Person { identity: rotated, ..thief };
    let met = meet(&bob, Some(&alice), false, &thief);
    assert!(matches!(met, Err(HandshakeError::StaticKeyMismatch)));
}

#[test]
fn n05_the_prologue_binds_the_initiators_header() {
    let mut changed = VERSION_HEADER;
    changed[6] = 1;
    let (calling, message_1) =
        Calling::start(person(1).local(), None, false, &mut Entropy::from_number(1)).unwrap();
    let called = Called::start(person(2).local(), &changed, &mut Entropy::from_number(2)).unwrap();
    let (_, message_2) = called.answer(&message_1).unwrap();
    let finished = calling.finish(&VERSION_HEADER, &message_2);
    assert!(matches!(finished, Err(HandshakeError::Decrypt)));
    // The responder's header is repeated under encryption.
    let (calling, _, message_2) = half(&person(1), None, false, &person(2)).unwrap();
    let finished = calling.finish(&changed, &message_2);
    assert!(matches!(finished, Err(HandshakeError::HeaderChanged)));
}

#[test]
fn n07_the_pattern_has_its_registered_spelling() {
    assert_eq!(NOISE_PATTERN, "Noise_XX_25519_ChaChaPoly_BLAKE2s");
    assert!("Noise_XX_25519_ChaChaPoly_Blake2s".parse::<snow::params::NoiseParams>().is_err());
    // An initiator of the plain library, with name and prologue spelled out, is understood.
    let bob = person(2);
    let mut initiator = raw(&person(1), true, b"SREMP\x01\x00", Box::new(DefaultResolver));
    let mut room = vec![0; 70_000];
    let length = initiator.write_message(&[], &mut room).unwrap();
    let called = Called::start(bob.local(), &VERSION_HEADER, &mut Entropy::from_number(2)).unwrap();
    let (answered, message_2) = called.answer(&room[..length]).unwrap();
    initiator.read_message(&message_2, &mut room).unwrap();
    let length = initiator.write_message(&[0xc0], &mut room).unwrap();
    assert_eq!(answered.finish(&room[..length]).unwrap().caller, Caller::Anonymous);
}

#[test]
fn n08_messages_do_not_come_back() {
    let (alice, bob) = (person(1), person(2));
    let (calling, message_1) =
        Calling::start(alice.local(), None, false, &mut Entropy::from_number(1)).unwrap();
    let reflected = calling.finish(&VERSION_HEADER, &message_1);
    assert!(matches!(reflected, Err(HandshakeError::Length)));
    let (_, answered, message_2) = half(&alice, None, false, &bob).unwrap();
    assert!(matches!(answered.finish(&message_2), Err(HandshakeError::Decrypt)));
    // A sealed frame that comes back to its sender does not open.
    let (mut at_alice, _) = meet(&alice, None, false, &bob).unwrap();
    let mut sealed = Vec::new();
    at_alice.session.seal(b"hello", &mut sealed).unwrap();
    assert_eq!(at_alice.session.open(&sealed), Err(SessionError::Decrypt));
}

#[test]
fn n09_nobody_talks_to_itself() {
    let alice = person(1);
    for anonymous in [false, true] {
        let met = meet(&alice, Some(&alice), anonymous, &alice);
        assert!(matches!(met, Err(HandshakeError::OwnKey)));
    }
    // The same Noise key under another identity, which only its owner can make.
    let twin = Person { identity_secret: person(5).identity_secret, ..alice.clone() };
    let twin = Person { identity: sign(&twin.identity_secret, &twin.noise_secret, |_| {}), ..twin };
    let met = meet(&alice, Some(&twin), false, &twin);
    assert!(matches!(met, Err(HandshakeError::OwnKey)));
    // The same identity under another Noise key: a copy of ourselves, from before a rotation or after.
    let rotated = person(9).noise_secret;
    let copy = Person {
        identity: sign(&alice.identity_secret, &rotated, |data| data.version = 2),
        noise_secret: rotated,
        ..alice.clone()
    };
    for (caller, callee) in [(&alice, &copy), (&copy, &alice)] {
        let met = meet(caller, Some(callee), false, callee);
        assert!(matches!(met, Err(HandshakeError::OwnKey)));
    }
    // The responder checks for itself: an anonymous caller with the responder's own static key.
    let mut initiator = raw(&alice, true, &VERSION_HEADER, Box::new(DefaultResolver));
    let called =
        Called::start(alice.local(), &VERSION_HEADER, &mut Entropy::from_number(2)).unwrap();
    let finished = finish_by_hand(&mut initiator, called, &[0xc0]);
    assert!(matches!(finished, Err(HandshakeError::OwnKey)));
}

#[test]
fn n10_weak_ephemeral_keys() {
    let (alice, bob) = (person(1), person(2));
    for point in low_order_points() {
        let called =
            Called::start(bob.local(), &VERSION_HEADER, &mut Entropy::from_number(2)).unwrap();
        assert!(matches!(called.answer(&point), Err(HandshakeError::WeakKey)));
        let (calling, _, mut message_2) = half(&alice, None, false, &bob).unwrap();
        message_2[..32].copy_from_slice(&point);
        let finished = calling.finish(&VERSION_HEADER, &message_2);
        assert!(matches!(finished, Err(HandshakeError::WeakKey)));
    }
}

#[test]
fn n10_weak_static_keys() {
    let (alice, bob) = (person(1), person(2));
    let mut room = vec![0; 70_000];
    for point in low_order_points() {
        let (calling, message_1) =
            Calling::start(alice.local(), None, false, &mut Entropy::from_number(1)).unwrap();
        let mut responder = raw(&bob, false, &VERSION_HEADER, WeakResolver::new(point));
        responder.read_message(&message_1, &mut room).unwrap();
        let length = responder.write_message(b"whatever", &mut room).unwrap();
        let finished = calling.finish(&VERSION_HEADER, &room[..length]);
        assert!(matches!(finished, Err(HandshakeError::WeakKey)));

        let mut initiator = raw(&alice, true, &VERSION_HEADER, WeakResolver::new(point));
        let called =
            Called::start(bob.local(), &VERSION_HEADER, &mut Entropy::from_number(2)).unwrap();
        let finished = finish_by_hand(&mut initiator, called, &[0xc0]);
        assert!(matches!(finished, Err(HandshakeError::WeakKey)));
    }
}

#[test]
fn n12_a_forged_frame_does_not_advance_the_nonce() {
    let (mut at_alice, mut at_bob) = meet(&person(1), None, false, &person(2)).unwrap();
    let mut sealed = Vec::new();
    at_alice.session.seal(b"genuine", &mut sealed).unwrap();
    let mut forged = sealed.clone();
    forged[3] ^= 1;
    assert_eq!(at_bob.session.open(&forged), Err(SessionError::Decrypt));
    assert_eq!(at_bob.session.received(), 0);
    // And we do not go on after it: neither with the genuine frame, nor with one of ours.
    assert_eq!(at_bob.session.open(&sealed), Err(SessionError::Broken));
    assert_eq!(at_bob.session.seal(b"x", &mut Vec::new()), Err(SessionError::Broken));
    for short in [&[][..], &[0; 15], &[0; 16]] {
        let (_, mut at_bob) = meet(&person(1), None, false, &person(2)).unwrap();
        assert_eq!(at_bob.session.open(short), Err(SessionError::Decrypt));
    }
}

#[test]
fn n13_frames_under_one_key_are_counted() {
    let (mut at_alice, mut at_bob) = meet(&person(1), None, false, &person(2)).unwrap();
    at_alice.session.limit_frames(1000);
    at_bob.session.limit_frames(999);
    for number in 0..1000_u32 {
        let mut sealed = Vec::new();
        at_alice.session.seal(&number.to_le_bytes(), &mut sealed).unwrap();
        assert_eq!(at_alice.session.is_worn(), number >= 874);
        let opened = at_bob.session.open(&sealed);
        if number < 999 {
            assert_eq!(opened.unwrap(), number.to_le_bytes());
        } else {
            assert_eq!(opened, Err(SessionError::Exhausted));
        }
    }
    let mut sealed = Vec::new();
    assert_eq!(at_alice.session.seal(b"x", &mut sealed), Err(SessionError::Exhausted));
    assert_eq!(at_alice.session.open(b"x"), Err(SessionError::Broken));
    assert!(sealed.is_empty());
}

#[test]
fn n13_the_library_stops_at_the_last_nonce() {
    let (alice, bob) = (person(1), person(2));
    let mut initiator = raw(&alice, true, &VERSION_HEADER, Box::new(DefaultResolver));
    let mut responder = raw(&bob, false, &VERSION_HEADER, Box::new(DefaultResolver));
    let (mut message, mut room) = (vec![0; 200], vec![0; 200]);
    let length = initiator.write_message(&[], &mut message).unwrap();
    responder.read_message(&message[..length], &mut room).unwrap();
    let length = responder.write_message(&[], &mut message).unwrap();
    initiator.read_message(&message[..length], &mut room).unwrap();
    initiator.write_message(&[], &mut message).unwrap();
    let stateless = initiator.into_stateless_transport_mode().unwrap();
    let refused = stateless.write_message(u64::MAX, b"x", &mut message);
    assert_eq!(refused, Err(snow::Error::State(snow::error::StateProblem::Exhausted)));
}

#[test]
fn n14_handshake_messages_of_every_wrong_length() {
    let (alice, bob) = (person(1), person(2));
    let called = || Called::start(bob.local(), &VERSION_HEADER, &mut Entropy::from_number(2));
    let (_, message_1) =
        Calling::start(alice.local(), None, false, &mut Entropy::from_number(11)).unwrap();
    for cut in 0..message_1.len() {
        let answered = called().unwrap().answer(&message_1[..cut]);
        assert!(matches!(answered, Err(HandshakeError::Length)));
    }
    let answered = called().unwrap().answer(&[&message_1[..], &[0]].concat());
    assert!(matches!(answered, Err(HandshakeError::Length)));

    let (calling, _, message_2) = half(&alice, None, false, &bob).unwrap();
    let (_, message_3) = calling.finish(&VERSION_HEADER, &message_2).unwrap();
    let longer_2 = [&message_2[..], &[0]].concat();
    let longer_3 = [&message_3[..], &[0]].concat();
    // Every tenth is enough in the middle, where only the length differs.
    let cuts = |whole: usize| (0..=whole).filter(move |n| n % 10 == 0 || *n < 100 || *n == whole);
    for cut in cuts(longer_2.len()).filter(|cut| *cut != message_2.len()) {
        let (calling, _, _) = half(&alice, None, false, &bob).unwrap();
        let finished = calling.finish(&VERSION_HEADER, &longer_2[..cut]);
        assert!(matches!(finished, Err(HandshakeError::Length | HandshakeError::Decrypt)));
    }
    for cut in cuts(longer_3.len()).filter(|cut| *cut != message_3.len()) {
        let (_, answered, _) = half(&alice, None, false, &bob).unwrap();
        let finished = answered.finish(&longer_3[..cut]);
        assert!(matches!(finished, Err(HandshakeError::Length | HandshakeError::Decrypt)));
    }
}

#[test]
fn n14_payloads_with_anything_extra() {
    let (alice, bob) = (person(1), person(2));
    for payload in [&[][..], &[0xc0, 0xc0], &[0x90], &[0x92, 0xc0, 0xc0], &[0xc4, 0]] {
        let mut initiator = raw(&alice, true, &VERSION_HEADER, Box::new(DefaultResolver));
        let called =
            Called::start(bob.local(), &VERSION_HEADER, &mut Entropy::from_number(2)).unwrap();
        let finished = finish_by_hand(&mut initiator, called, payload);
        assert!(matches!(finished, Err(HandshakeError::Payload(_))));
    }
}

#[test]
fn n18_a_noise_key_proves_no_identity() {
    // The compiler refuses to sign with a NoiseSecret (see its documentation). Its bytes, taken for
    // an identity key by whoever stole them, prove nothing either.
    let (alice, bob) = (person(1), person(2));
    let bytes = alice.noise_secret.to_bytes();
    let thief = Person { identity_secret: IdentitySecret::from_bytes(&bytes), ..alice.clone() };
    assert!(matches!(meet(&thief, None, false, &bob), Err(HandshakeError::BadProof)));
    assert_ne!(thief.identity_secret.public().as_bytes(), alice.noise_secret.public().as_bytes());
}

/// The plain library, as a hostile or foreign implementation would use it.
fn raw(
    person: &Person,
    initiator: bool,
    header: &[u8; 7],
    resolver: Box<dyn CryptoResolver + Send>,
) -> snow::HandshakeState {
    let prologue = [NOISE_PROLOGUE, header].concat();
    let secret = person.noise_secret.to_bytes();
    let builder = snow::Builder::with_resolver(
        "Noise_XX_25519_ChaChaPoly_BLAKE2s".parse().unwrap(),
        resolver,
    )
    .local_private_key(&*secret)
    .unwrap()
    .prologue(&prologue)
    .unwrap();
    if initiator { builder.build_initiator() } else { builder.build_responder() }.unwrap()
}

/// A handshake by an initiator of the plain library, with any payload in message 3.
fn finish_by_hand(
    initiator: &mut snow::HandshakeState,
    called: Called,
    payload: &[u8],
) -> Result<Authenticated, HandshakeError> {
    let mut room = vec![0; 70_000];
    let length = initiator.write_message(&[], &mut room).unwrap();
    let (answered, message_2) = called.answer(&room[..length])?;
    initiator.read_message(&message_2, &mut room).unwrap();
    let length = initiator.write_message(payload, &mut room).unwrap();
    answered.finish(&room[..length])
}

/// All encodings of the points of small order (RFC 7748 section 6.1), with and without the top bit,
/// which is ignored.
fn low_order_points() -> Vec<[u8; 32]> {
    let hex = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let low = hex.map(|hex| <[u8; 32]>::try_from(unhex(hex).unwrap()).unwrap());
    let high = low.map(|mut point| {
        point[31] |= 0x80;
        point
    });
    [low, high].concat()
}

/// Gives a static key of small order, whose shared secrets are zero, and an honest ephemeral one.
struct WeakResolver {
    point: [u8; 32],
    keys_made: AtomicUsize,
}

impl WeakResolver {
    fn new(point: [u8; 32]) -> Box<Self> {
        Box::new(Self { point, keys_made: AtomicUsize::new(0) })
    }
}

impl CryptoResolver for WeakResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match self.keys_made.fetch_add(1, Ordering::Relaxed) {
            0 => Some(Box::new(WeakKey(self.point))),
            _ => DefaultResolver.resolve_dh(choice),
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct WeakKey([u8; 32]);

impl Dh for WeakKey {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _: &[u8]) {}

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), snow::Error> {
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.0
    }

    fn privkey(&self) -> &[u8] {
        &self.0
    }

    fn dh(&self, _: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        out.fill(0);
        Ok(())
    }
}
