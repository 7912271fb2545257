//! Where the Noise library gets its primitives: ciphers from ring (fast), X25519 and BLAKE2s from
//! its own defaults, randomness from our generator, so that a seed replays a handshake.

use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use crate::entropy::Entropy;

/// For one handshake: its generator is used once.
pub(super) struct Resolver(Entropy);

impl Resolver {
    pub(super) const fn new(entropy: Entropy) -> Self {
        Self(entropy)
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        // Asked for once per handshake, and a handshake has its own fork: no output is used twice.
        Some(Box::new(Generator(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

struct Generator(Entropy);

impl Random for Generator {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill(dest);
        Ok(())
    }
}
