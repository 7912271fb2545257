//! Key packages: what others add us with, and what we add others with.

use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    KeyPackage, KeyPackageIn, Lifetime, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    ProtocolVersion,
};
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::storage::StorageProvider as _;
use serde::{Deserialize, Serialize};
use sremp_common::id::IdentityKey;
use sremp_common::limit::MAX_KEY_PACKAGE;
use sremp_common::time::{Now, Timestamp};

use super::credential::CredentialError;
use super::extension::{Validity, capabilities, leaf_extensions};
use super::{CLOCK_MARGIN, GroupError, Groups, KeyPackageError, LeafInfo, StateId, Suite};
use crate::store::{StoreError, Table, Tx};

/// Prefix of rows of table `KeyPackages` about our own key packages.
const OWN: u8 = b'k';

/// Prefix of rows of the same table about states that a Welcome led us into.
const WELCOMED: u8 = b'w';

/// Key packages that one taker gets at once, one for each suite of their owner.
const MAX_SUITES: usize = 8;

/// Rows looked at in one pass of [`Groups::expire`].
const MAX_EXPIRED: usize = 10_000;

/// A key package that passed [`Groups::check_key_package`].
#[derive(Clone)]
pub struct CheckedKeyPackage {
    pub(super) key_package: KeyPackage,
    pub(super) owner: IdentityKey,
    pub(super) leaf: LeafInfo,
}

/// OpenMLS shows the leaf's extension as bytes, and with it the owner's token.
impl std::fmt::Debug for CheckedKeyPackage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckedKeyPackage").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl CheckedKeyPackage {
    /// Whose it is.
    #[must_use]
    pub const fn owner(&self) -> IdentityKey {
        self.owner
    }

    /// How its owner is reached.
    #[must_use]
    pub const fn leaf(&self) -> &LeafInfo {
        &self.leaf
    }
}

/// A row about one of our key packages.
#[derive(Serialize, Deserialize)]
struct OwnRow {
    reference: Vec<u8>,
    until: Timestamp,
}

/// Lifetimes of MLS are left open: see [`Validity`].
pub(super) fn open_lifetime() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}

impl Groups {
    /// Makes key packages for others to add us with, one for each suite, valid for 84 days, whose leaves
    /// say how to reach us. They go to one taker, who uses one of them. Their private halves are kept
    /// until they are used (those of a last resort: until they have expired). Returned as MLS key package
    /// messages, one after the other.
    ///
    /// # Errors
    /// [`GroupError::Store`], [`GroupError::Mls`].
    pub fn make_key_packages(
        &mut self,
        tx: &Tx,
        leaf: &LeafInfo,
        last_resort: bool,
        now: Now,
    ) -> Result<Vec<u8>, GroupError> {
        let mut all = Vec::new();
        for suite in Suite::ALL {
            all.extend(self.make_key_package(tx, suite, leaf, last_resort, now)?);
        }
        Ok(all)
    }

    /// As [`Self::make_key_packages`], for one suite alone.
    ///
    /// # Errors
    /// As [`Self::make_key_packages`].
    pub fn make_key_package(
        &mut self,
        tx: &Tx,
        suite: Suite,
        leaf: &LeafInfo,
        last_resort: bool,
        now: Now,
    ) -> Result<Vec<u8>, GroupError> {
        let failed = |_| GroupError::Mls("key package");
        let provider = self.engine.provider(tx, StateId::new([0; 16]));
        let validity = Validity::starting(now.wall);
        let mut builder = KeyPackage::builder()
            .leaf_node_capabilities(capabilities())
            .leaf_node_extensions(leaf_extensions(leaf)?)
            .key_package_extensions(validity.extensions()?)
            .key_package_lifetime(open_lifetime());
        if last_resort {
            builder = builder.mark_as_last_resort();
        }
        let bundle = builder
            .build(suite.mls(), &provider, &self.signer, self.signer.credential())
            .map_err(failed)?;
        let reference = bundle
            .key_package()
            .hash_ref(provider.crypto())
            .map_err(|_| GroupError::Mls("key package reference"))?;
        let reference =
            rmp_serde::to_vec(&reference).map_err(|_| StoreError::Encode(Table::KeyPackages))?;
        let key = [&[OWN], sremp_common::hash::sha256(&reference).as_slice()].concat();
        // Kept for another week after it has expired: a Welcome may be late.
        let until = validity.not_after + super::MAX_PAST_TIME;
        tx.write(Table::KeyPackages, &key, &OwnRow { reference, until })?;
        MlsMessageOut::from(bundle.into_key_package())
            .to_bytes()
            .map_err(|_| GroupError::Mls("key package encoding"))
    }

    /// Checks the key package for a group of this suite among those that somebody handed out for `owner`:
    /// form, signatures, suite, certificate, leaf, and by our clock its lifetime.
    ///
    /// # Errors
    /// [`GroupError::KeyPackage`], [`GroupError::Credential`].
    pub fn check_key_package(
        &self,
        bytes: &[u8],
        owner: &IdentityKey,
        suite: Suite,
        now: Now,
    ) -> Result<CheckedKeyPackage, GroupError> {
        let key_package = self.parse(bytes, suite)?;
        let (certified, leaf) =
            self.certificates.verify_leaf(key_package.leaf_node()).map_err(|error| {
                if error == CredentialError::LeafInfo {
                    GroupError::KeyPackage(KeyPackageError::Leaf)
                } else {
                    GroupError::Credential(error)
                }
            })?;
        if certified.identity_key != *owner {
            return Err(KeyPackageError::WrongOwner.into());
        }
        Validity::of(&key_package)?.check_time(now.wall)?;
        certified.check_time(now.wall)?;
        Ok(CheckedKeyPackage { key_package, owner: *owner, leaf })
    }

    /// The one of this suite among key package messages that follow each other.
    pub(super) fn parse(&self, bytes: &[u8], suite: Suite) -> Result<KeyPackage, KeyPackageError> {
        let malformed = || KeyPackageError::Malformed;
        if bytes.len() > MAX_KEY_PACKAGE {
            return Err(malformed());
        }
        let (mut rest, mut found, mut count) = (bytes, None, 0_usize);
        while !rest.is_empty() || count == 0 {
            count = count.saturating_add(1);
            // Version, wire format, version again, suite: OpenMLS keeps it to itself until it validates.
            let number = rest.get(6..8).map(<[u8]>::to_vec);
            let message = MlsMessageIn::tls_deserialize(&mut rest).map_err(|_| malformed())?;
            let MlsMessageBodyIn::KeyPackage(key_package) = message.extract() else {
                return Err(malformed());
            };
            if count > MAX_SUITES {
                return Err(malformed());
            }
            if number.as_deref() == Some(&suite.number().to_be_bytes()) {
                found = Some(key_package);
            }
        }
        let key_package: KeyPackageIn = found.ok_or(KeyPackageError::Suite)?;
        key_package
            .validate(&self.engine.crypto, ProtocolVersion::Mls10)
            .map_err(|_| KeyPackageError::Malformed)
    }

    /// Notes that a Welcome led us into this state. False when one did before.
    pub(super) fn note_welcome(
        tx: &Tx,
        state: StateId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let key = [&[WELCOMED], state.as_bytes().as_slice()].concat();
        if tx.get(Table::KeyPackages, &key)?.is_some() {
            return Ok(false);
        }
        // No key package that could open it again lives longer.
        let until = now + super::extension::KEY_PACKAGE_LIFETIME * 2 + CLOCK_MARGIN;
        tx.write(Table::KeyPackages, &key, &until)?;
        Ok(true)
    }

    /// Deletes what cannot be of use any more.
    pub(super) fn expire_key_packages(&self, tx: &Tx, now: Timestamp) -> Result<(), GroupError> {
        let damaged = |_| StoreError::Row(Table::KeyPackages);
        let provider = self.engine.provider(tx, StateId::new([0; 16]));
        for (key, value) in tx.scan_prefix(Table::KeyPackages, &[OWN], MAX_EXPIRED)? {
            let row: OwnRow = rmp_serde::from_slice(&value).map_err(damaged)?;
            if row.until < now {
                let reference: openmls::prelude::KeyPackageRef =
                    rmp_serde::from_slice(&row.reference).map_err(damaged)?;
                provider.storage().delete_key_package(&reference)?;
                tx.delete(Table::KeyPackages, &key);
            }
        }
        for (key, value) in tx.scan_prefix(Table::KeyPackages, &[WELCOMED], MAX_EXPIRED)? {
            let until: Timestamp = rmp_serde::from_slice(&value).map_err(damaged)?;
            if until < now {
                tx.delete(Table::KeyPackages, &key);
            }
        }
        Ok(())
    }
}
