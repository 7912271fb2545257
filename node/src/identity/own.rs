//! Our own identity: its secrets, its newest version, and how it changes.
//!
//! The identity's secret stands in a private file of the home. What rotates (Noise key, sealing
//! keys) stands in the store, so that it changes in the one transaction that raises the version.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::connection::Local;
use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::identity::{Flags, Identity, IdentityData, IdentityError, VerifiedIdentity};
use sremp_common::key::{IdentitySecret, NoiseSecret, SealSecret};
use sremp_common::name::Username;
use sremp_common::time::{Now, Timestamp};

use crate::groups::LeafSigner;
use crate::store::{StoreError, Table, Tx};

/// Age at which the sealing key is replaced.
const SEAL_KEY_AGE: Duration = Duration::from_secs(30 * 86_400);
/// Validity of the certificate of a device's leaf key: the device, not the calendar, ends it.
const LEAF_LIFETIME: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Time that the private half of a sealing key is kept, counted from its making: 30 days in use, 84
/// days in the last key package that names it, and some for what is under way.
const SEAL_KEY_KEPT: Duration = Duration::from_secs(125 * 86_400);

const ROW_IDENTITY: &[u8] = b"own-identity";
const ROW_SECRETS: &[u8] = b"own-secrets";

/// Why the own identity cannot be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The home has not been set up.
    #[error("this home has no identity yet; create one with `sremp init --name NAME`")]
    Missing,
    /// The file and the store speak of two identities.
    #[error(
        "the private key file belongs to another identity than the store; restore both from the same home"
    )]
    OtherKey,
    /// The change breaks a rule.
    #[error("the identity cannot be changed like this")]
    Identity(#[from] IdentityError),
    /// The key of this device is damaged.
    #[error("the device key in the store is damaged; restore the home from a backup")]
    Leaf,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// What rotates, as stored.
#[derive(Clone, Serialize, Deserialize)]
struct Secrets {
    noise: [u8; 32],
    /// Newest last.
    seal: Vec<SealRow>,
    /// The MLS leaf key of this device, and its certificate.
    #[serde(with = "serde_bytes")]
    leaf: Vec<u8>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SealRow {
    secret: [u8; 32],
    made: Timestamp,
}

/// Our own identity in memory.
#[derive(Clone, Debug)]
pub struct Own {
    identity: VerifiedIdentity,
    identity_secret: IdentitySecret,
    noise: NoiseSecret,
    seal: Vec<(SealSecret, Timestamp)>,
    leaf: zeroize::Zeroizing<Vec<u8>>,
}

impl Own {
    /// Makes the first version of an identity and writes it into the transaction.
    ///
    /// # Errors
    /// [`OwnError`].
    pub fn create(
        tx: &Tx,
        identity_secret: IdentitySecret,
        name: Username,
        entropy: &mut Entropy,
        now: Now,
    ) -> Result<Self, OwnError> {
        let noise = NoiseSecret::generate(entropy);
        let seal = SealSecret::generate(entropy);
        let device = entropy.array();
        let not_after = now.wall + LEAF_LIFETIME;
        let leaf = LeafSigner::generate(&identity_secret, device, now.wall, not_after, entropy);
        let mut data = IdentityData {
            username: name,
            identity_key: identity_secret.public(),
            noise_key: noise.public(),
            flags: Flags::default(),
            extensions: None,
            version: 1,
            created: now.wall,
        };
        data.set_seal_key(seal.public())?;
        let own = Self {
            identity: data.sign(&identity_secret)?,
            identity_secret,
            noise,
            seal: vec![(seal, now.wall)],
            leaf: leaf.to_bytes(),
        };
        own.save(tx)?;
        Ok(own)
    }

    /// Reads the newest version.
    ///
    /// # Errors
    /// [`OwnError::Missing`], [`OwnError::OtherKey`], or what is wrong with the rows.
    pub fn load(tx: &Tx, identity_secret: IdentitySecret) -> Result<Self, OwnError> {
        let identity: Identity = tx.read(Table::Meta, ROW_IDENTITY)?.ok_or(OwnError::Missing)?;
        let secrets: Secrets = tx.read(Table::Meta, ROW_SECRETS)?.ok_or(OwnError::Missing)?;
        let identity = identity.verify()?;
        if identity.key() != identity_secret.public() {
            return Err(OwnError::OtherKey);
        }
        Ok(Self {
            identity,
            identity_secret,
            noise: NoiseSecret::from_bytes(secrets.noise),
            seal: secrets
                .seal
                .iter()
                .map(|row| (SealSecret::from_bytes(row.secret), row.made))
                .collect(),
            leaf: zeroize::Zeroizing::new(secrets.leaf),
        })
    }

    fn save(&self, tx: &Tx) -> Result<(), StoreError> {
        let seal = self
            .seal
            .iter()
            .map(|(secret, made)| SealRow { secret: *secret.to_bytes(), made: *made })
            .collect();
        let secrets = Secrets { noise: *self.noise.to_bytes(), seal, leaf: self.leaf.to_vec() };
        tx.write(Table::Meta, ROW_SECRETS, &secrets)?;
        tx.write(Table::Meta, ROW_IDENTITY, self.identity.identity())
    }

    /// Whose identity it is.
    #[must_use]
    pub const fn key(&self) -> IdentityKey {
        self.identity.key()
    }

    /// The newest version.
    #[must_use]
    pub const fn identity(&self) -> &VerifiedIdentity {
        &self.identity
    }

    /// Signs for the identity.
    #[must_use]
    pub const fn identity_secret(&self) -> &IdentitySecret {
        &self.identity_secret
    }

    /// Signs in MLS groups, for this device.
    ///
    /// # Errors
    /// [`OwnError::Leaf`] when the stored key is damaged.
    pub fn leaf_signer(&self) -> Result<LeafSigner, OwnError> {
        LeafSigner::from_bytes(&self.leaf).map_err(|_| OwnError::Leaf)
    }

    /// The private halves that blobs may be sealed to, newest first.
    #[must_use]
    pub fn seal_secrets(&self) -> Vec<SealSecret> {
        self.seal.iter().rev().map(|(secret, _)| secret.clone()).collect()
    }

    /// What connections are opened with.
    #[must_use]
    pub fn local(&self) -> Arc<Local> {
        Arc::new(Local {
            identity: self.identity.clone(),
            identity_secret: self.identity_secret.clone(),
            noise_secret: self.noise.clone(),
        })
    }

    /// Changes what the identity says; the version rises by one.
    ///
    /// # Errors
    /// [`OwnError::Identity`] when a rule is broken: nothing has changed then.
    pub fn change(
        &mut self,
        tx: &Tx,
        now: Now,
        change: impl FnOnce(&mut IdentityData) -> Result<(), IdentityError>,
    ) -> Result<(), OwnError> {
        self.identity = self.identity.succeed(&self.identity_secret, now.wall, change)?;
        Ok(self.save(tx)?)
    }

    /// Replaces the Noise key; sessions that stand are not affected.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn rotate_noise(
        &mut self,
        tx: &Tx,
        entropy: &mut Entropy,
        now: Now,
    ) -> Result<(), OwnError> {
        let fresh = NoiseSecret::generate(entropy);
        let public = fresh.public();
        let identity = self.identity.succeed(&self.identity_secret, now.wall, |data| {
            data.noise_key = public;
            Ok(())
        })?;
        self.noise = fresh;
        self.identity = identity;
        Ok(self.save(tx)?)
    }

    /// Replaces the sealing key once a month, and forgets halves that nobody can still use.
    /// Answers whether the identity changed.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn rotate_seal_if_due(
        &mut self,
        tx: &Tx,
        entropy: &mut Entropy,
        now: Now,
    ) -> Result<bool, OwnError> {
        let due = self.seal.last().is_none_or(|(_, made)| now.wall.since(*made) >= SEAL_KEY_AGE);
        if !due {
            return Ok(false);
        }
        let fresh = SealSecret::generate(entropy);
        let public = fresh.public();
        self.identity = self
            .identity
            .succeed(&self.identity_secret, now.wall, |data| data.set_seal_key(public))?;
        self.seal.retain(|(_, made)| now.wall.since(*made) < SEAL_KEY_KEPT);
        self.seal.push((fresh, now.wall));
        self.save(tx)?;
        Ok(true)
    }
}
