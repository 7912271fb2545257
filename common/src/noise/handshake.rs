//! The steps of the handshake, as types: each method consumes its step and gives the next one.
//!
//! | side | steps |
//! |---|---|
//! | initiator | [`Calling::start`] gives message 1, [`Calling::finish`] takes message 2 and gives message 3 |
//! | responder | [`Called::start`], [`Called::answer`] takes message 1 and gives message 2, [`Answered::finish`] takes message 3 |
//!
//! Headers and lengths around the messages are the caller's.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snow::{Builder, HandshakeState};

use super::proof::Claim;
use super::resolver::Resolver;
use super::session::Session;
use super::{Caller, HandshakeError, Local, Role, Side, VersionHeader};
use crate::entropy::Entropy;
use crate::id::{IdentityKey, NoiseKey, SignatureBytes, is_low_order};
use crate::identity::{Identity, VerifiedIdentity};
use crate::key::NoiseSecret;
use crate::label::{NOISE_PATTERN, NOISE_PROLOGUE, VERSION_HEADER};
use crate::limit::{MAX_NOISE_MESSAGE, NOISE_TAG};
use crate::wire::{Bin, decode, encode};

/// A key on the wire.
const KEY: usize = 32;
/// Message 1 is an ephemeral key and nothing else.
pub(crate) const MESSAGE_1: usize = KEY;
/// Message 2 without its payload: ephemeral key, encrypted static key, tag of the payload.
const MESSAGE_2_MIN: usize = KEY + KEY + NOISE_TAG + NOISE_TAG;
/// Message 3 without its payload.
const MESSAGE_3_MIN: usize = KEY + NOISE_TAG + NOISE_TAG;

/// Payload of message 2.
#[derive(Serialize, Deserialize)]
struct Answer {
    header: Bin<7>,
    identity: Identity,
    proof: SignatureBytes,
}

/// Payload of message 3, unless it is nil.
#[derive(Serialize, Deserialize)]
struct Introduction {
    identity: Identity,
    proof: SignatureBytes,
}

/// A finished handshake: both sides have proved what they claim.
#[derive(Debug)]
pub struct Authenticated {
    /// Seals and opens everything from here on.
    pub session: Session,
    /// Who is at the other end.
    pub caller: Caller,
}

/// Checks the first bytes of the other side.
///
/// # Errors
/// [`HandshakeError::NotSremp`], [`HandshakeError::VersionMismatch`]. A minor version that we do
/// not know is fine.
pub fn check_header(theirs: &VersionHeader) -> Result<(), HandshakeError> {
    let [s, r, e, m, p, major, minor] = *theirs;
    let [our_s, our_r, our_e, our_m, our_p, our_major, our_minor] = VERSION_HEADER;
    if [s, r, e, m, p] != [our_s, our_r, our_e, our_m, our_p] {
        return Err(HandshakeError::NotSremp);
    }
    if major != our_major {
        return Err(HandshakeError::VersionMismatch {
            ours: (our_major, our_minor),
            theirs: (major, minor),
        });
    }
    Ok(())
}

/// The initiator, after message 1.
#[derive(Debug)]
pub struct Calling {
    side: Side,
    expect: Option<IdentityKey>,
    anonymous: bool,
}

impl Calling {
    /// Starts a handshake. `expect` is who was dialled. An `anonymous` caller shows no identity,
    /// and its static key is made for this session alone.
    ///
    /// # Errors
    /// [`HandshakeError::Noise`] only.
    pub fn start(
        local: Arc<Local>,
        expect: Option<IdentityKey>,
        anonymous: bool,
        entropy: &mut Entropy,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let throw_away = NoiseSecret::generate(entropy);
        let secret = if anonymous { &throw_away } else { &local.noise_secret };
        let noise = build(Role::Initiator, secret, &VERSION_HEADER, entropy)?;
        let mut side = Side { noise, local };
        let message = side.write(&[])?;
        Ok((Self { side, expect, anonymous }, message))
    }

    /// Verifies the responder completely and only then makes message 3, which tells who we are.
    ///
    /// # Errors
    /// [`HandshakeError`], naming the broken rule.
    pub fn finish(
        mut self,
        header: &VersionHeader,
        message: &[u8],
    ) -> Result<(Authenticated, Vec<u8>), HandshakeError> {
        check_header(header)?;
        let hash = self.side.hash();
        check_ephemeral(message, MESSAGE_2_MIN)?;
        let payload = self.side.read(message)?;
        let static_key = self.side.remote_static()?;
        let answer: Answer = decode(&payload).map_err(HandshakeError::Payload)?;
        if *answer.header != *header {
            return Err(HandshakeError::HeaderChanged);
        }
        let responder = answer.identity.verify()?;
        self.side.check_peer(&responder, &static_key)?;
        let claim = Claim {
            role: Role::Responder,
            noise_key: &static_key,
            identity: &responder,
            peer: None,
            hash: &hash,
        };
        claim.verify(&answer.proof)?;
        if let Some(expected) = self.expect
            && expected != responder.key()
        {
            return Err(HandshakeError::WrongIdentity { expected, found: responder.key() });
        }
        self.introduce(responder)
    }

    fn introduce(
        mut self,
        responder: VerifiedIdentity,
    ) -> Result<(Authenticated, Vec<u8>), HandshakeError> {
        let introduction = (!self.anonymous).then(|| Introduction {
            identity: self.side.local.identity.identity().clone(),
            proof: self.side.prove(Role::Initiator, Some(responder.key())),
        });
        let message = self.side.write(&encode(&introduction))?;
        let session = Session::new(*self.side.noise)?;
        let caller = Caller::Identified(Box::new(responder));
        Ok((Authenticated { session, caller }, message))
    }
}

/// The responder, before message 1.
#[derive(Debug)]
pub struct Called(Side);

impl Called {
    /// Prepares to answer an initiator whose header is `header`.
    ///
    /// # Errors
    /// As [`check_header`]; [`HandshakeError::Noise`].
    pub fn start(
        local: Arc<Local>,
        header: &VersionHeader,
        entropy: &mut Entropy,
    ) -> Result<Self, HandshakeError> {
        check_header(header)?;
        let noise = build(Role::Responder, &local.noise_secret, header, entropy)?;
        Ok(Self(Side { noise, local }))
    }

    /// Takes message 1 and gives message 2. [`VERSION_HEADER`] goes in front of it in the clear.
    ///
    /// # Errors
    /// [`HandshakeError`], naming the broken rule.
    pub fn answer(mut self, message: &[u8]) -> Result<(Answered, Vec<u8>), HandshakeError> {
        if message.len() != MESSAGE_1 {
            return Err(HandshakeError::Length);
        }
        check_ephemeral(message, MESSAGE_1)?;
        self.0.read(message)?;
        let answer = Answer {
            header: Bin::new(VERSION_HEADER.to_vec()).unwrap_or_default(),
            identity: self.0.local.identity.identity().clone(),
            proof: self.0.prove(Role::Responder, None),
        };
        let message = self.0.write(&encode(&answer))?;
        Ok((Answered(self.0), message))
    }
}

/// The responder, after message 2.
#[derive(Debug)]
pub struct Answered(Side);

impl Answered {
    /// Takes message 3, and with it learns who called.
    ///
    /// # Errors
    /// [`HandshakeError`], naming the broken rule.
    pub fn finish(mut self, message: &[u8]) -> Result<Authenticated, HandshakeError> {
        if message.len() < MESSAGE_3_MIN {
            return Err(HandshakeError::Length);
        }
        let hash = self.0.hash();
        let payload = self.0.read(message)?;
        let static_key = self.0.remote_static()?;
        let introduction: Option<Introduction> =
            decode(&payload).map_err(HandshakeError::Payload)?;
        let caller = match introduction {
            None => {
                self.0.check_static(&static_key)?;
                Caller::Anonymous
            }
            Some(Introduction { identity, proof }) => {
                let initiator = identity.verify()?;
                self.0.check_peer(&initiator, &static_key)?;
                let claim = Claim {
                    role: Role::Initiator,
                    noise_key: &static_key,
                    identity: &initiator,
                    peer: Some(self.0.local.identity.key()),
                    hash: &hash,
                };
                claim.verify(&proof)?;
                Caller::Identified(Box::new(initiator))
            }
        };
        Ok(Authenticated { session: Session::new(*self.0.noise)?, caller })
    }

    /// The static key that message 3 comes with.
    #[cfg(test)]
    pub(super) fn read_static(&mut self, message: &[u8]) -> NoiseKey {
        self.0.read(message).unwrap();
        self.0.remote_static().unwrap()
    }
}

impl Side {
    /// Handshake hash over everything so far.
    fn hash(&self) -> Vec<u8> {
        self.noise.get_handshake_hash().to_vec()
    }

    fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let room = payload.len().saturating_add(MESSAGE_2_MIN).min(MAX_NOISE_MESSAGE);
        let mut message = vec![0; room];
        let length =
            self.noise.write_message(payload, &mut message).map_err(HandshakeError::Noise)?;
        message.truncate(length);
        Ok(message)
    }

    fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let mut payload = vec![0; message.len()];
        let length =
            self.noise.read_message(message, &mut payload).map_err(|_| HandshakeError::Decrypt)?;
        payload.truncate(length);
        Ok(payload)
    }

    /// The peer's static key, as soon as it has come. Not of small order.
    fn remote_static(&self) -> Result<NoiseKey, HandshakeError> {
        self.noise
            .get_remote_static()
            .and_then(|bytes| <[u8; KEY]>::try_from(bytes).ok())
            .and_then(|bytes| NoiseKey::from_bytes(bytes).ok())
            .ok_or(HandshakeError::WeakKey)
    }

    fn prove(&self, role: Role, peer: Option<IdentityKey>) -> SignatureBytes {
        let identity = &self.local.identity;
        let noise_key = &identity.data().noise_key;
        Claim { role, noise_key, identity, peer, hash: &self.hash() }
            .sign(&self.local.identity_secret)
    }

    /// Identity and session name the same static key, and neither key is ours.
    fn check_peer(
        &self,
        peer: &VerifiedIdentity,
        static_key: &NoiseKey,
    ) -> Result<(), HandshakeError> {
        if peer.key() == self.local.identity.key() {
            return Err(HandshakeError::OwnKey);
        }
        if peer.data().noise_key != *static_key {
            return Err(HandshakeError::StaticKeyMismatch);
        }
        self.check_static(static_key)
    }

    fn check_static(&self, static_key: &NoiseKey) -> Result<(), HandshakeError> {
        if *static_key == self.local.identity.data().noise_key {
            return Err(HandshakeError::OwnKey);
        }
        Ok(())
    }
}

/// Messages 1 and 2 begin with an ephemeral key in the clear. The library accepts any; we do not.
fn check_ephemeral(message: &[u8], min: usize) -> Result<(), HandshakeError> {
    let ephemeral = message.first_chunk::<KEY>().ok_or(HandshakeError::Length)?;
    if message.len() < min {
        return Err(HandshakeError::Length);
    }
    if is_low_order(ephemeral) {
        return Err(HandshakeError::WeakKey);
    }
    Ok(())
}

fn build(
    role: Role,
    secret: &NoiseSecret,
    initiator_header: &VersionHeader,
    entropy: &mut Entropy,
) -> Result<Box<HandshakeState>, HandshakeError> {
    let prologue = [NOISE_PROLOGUE, initiator_header].concat();
    let private = secret.to_bytes();
    let built = NOISE_PATTERN
        .parse()
        .map(|pattern| Builder::with_resolver(pattern, Box::new(Resolver::new(entropy.fork()))))
        .and_then(|builder| builder.local_private_key(&*private))
        .and_then(|builder| builder.prologue(&prologue))
        .and_then(|builder| match role {
            Role::Initiator => builder.build_initiator(),
            Role::Responder => builder.build_responder(),
        });
    built.map(Box::new).map_err(HandshakeError::Noise)
}
