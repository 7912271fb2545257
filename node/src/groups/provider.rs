//! What OpenMLS is given to work with: primitives, our generator, and one state's rows.

use std::sync::Mutex;

use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;
use openmls_traits::random::OpenMlsRand;
use sremp_common::entropy::Entropy;

use super::StateId;
use super::storage::Storage;
use crate::store::Tx;

/// Primitives and generator, for the life of the process.
///
/// Keys and secrets that OpenMLS asks for come from our [`Entropy`]. What HPKE draws when it seals
/// (RFC 9180 ephemeral keys), and the reuse guards, `RustCrypto` draws from the system by itself: a
/// simulation is replayed with the same decisions, not with the same bytes.
pub(super) struct Engine {
    pub(super) crypto: RustCrypto,
    rand: Rand,
}

impl Engine {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self { crypto: RustCrypto::default(), rand: Rand(Mutex::new(entropy)) }
    }

    /// `N` random bytes for ourselves.
    pub(super) fn random<const N: usize>(&self) -> [u8; N] {
        self.rand.with(Entropy::array)
    }

    pub(super) const fn provider<'a>(&'a self, tx: &'a Tx, state: StateId) -> Provider<'a> {
        Provider { engine: self, storage: Storage::new(tx, state) }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Our generator, behind the shared reference that OpenMLS holds. Never contended: one thread at a time
/// works with groups.
pub(super) struct Rand(Mutex<Entropy>);

impl Rand {
    fn with<R>(&self, f: impl FnOnce(&mut Entropy) -> R) -> R {
        // A panic elsewhere leaves the generator as good as it was.
        f(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Our generator never fails.
#[derive(Debug, thiserror::Error)]
#[error("no entropy")]
pub(super) enum NoEntropy {}

impl OpenMlsRand for Rand {
    type Error = NoEntropy;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        Ok(self.with(Entropy::array))
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, NoEntropy> {
        let mut bytes = vec![0; len];
        self.with(|entropy| entropy.fill(&mut bytes));
        Ok(bytes)
    }
}

/// One operation's view.
pub(super) struct Provider<'a> {
    engine: &'a Engine,
    pub(super) storage: Storage<'a>,
}

impl<'a> OpenMlsProvider for Provider<'a> {
    type CryptoProvider = RustCrypto;
    type RandProvider = Rand;
    type StorageProvider = Storage<'a>;

    fn storage(&self) -> &Storage<'a> {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        &self.engine.crypto
    }

    fn rand(&self) -> &Rand {
        &self.engine.rand
    }
}
