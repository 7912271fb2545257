//! Conversations as MLS groups (RFC 9420), behind a small API.
//!
//! Nothing here knows of contacts, history or delivery. Every method reads and writes through the
//! [`Tx`] that it is given; the caller accepts or refuses it, and says so with [`Groups::accepted`] or
//! [`Groups::refused`].

pub mod credential;
mod error;
pub mod policy;
mod types;

pub use error::{GroupError, KeyPackageError, OpenError, WelcomeError};
pub use types::{
    Change, Changed, GroupEvent, GroupKind, Joined, LeafInfo, LostWork, Member, Opened,
    ReceiptBody, ReceiptKind, Recipient, Role, Sealed, StateId, Summary,
};

use sremp_common::entropy::Entropy;
use sremp_common::id::{GroupId, IdentityKey, SealKey};
use sremp_common::key::{IdentitySecret, SealSecret};
use sremp_common::time::{Now, Timestamp};

use crate::store::Tx;

/// The MLS signature key of this device, with its certificate.
#[derive(Debug)]
pub struct LeafSigner;

impl LeafSigner {
    /// A fresh key, certified by `identity` until `not_after`.
    #[must_use]
    pub fn generate(
        _identity: &IdentitySecret,
        _device_id: [u8; 16],
        _not_after: Timestamp,
        _entropy: &mut Entropy,
        _now: Now,
    ) -> Self {
        Self
    }

    /// The key of the bytes that [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// [`credential::CredentialError`].
    pub fn from_bytes(_bytes: &[u8]) -> Result<Self, credential::CredentialError> {
        Ok(Self)
    }

    /// Key and certificate, to be kept in a private file.
    #[must_use]
    pub fn to_bytes(&self) -> zeroize::Zeroizing<Vec<u8>> {
        zeroize::Zeroizing::new(Vec::new())
    }
}

/// A key package that passed [`Groups::check_key_package`].
#[derive(Clone, Debug)]
pub struct CheckedKeyPackage;

/// All groups of this node.
#[derive(Debug)]
pub struct Groups;

#[expect(unused_variables, clippy::unused_self, reason = "skeleton")]
impl Groups {
    /// No group is loaded yet.
    #[must_use]
    pub fn new(leaf_signer: LeafSigner, own: IdentityKey, entropy: Entropy) -> Self {
        Self
    }

    /// Makes a key package for others to add us with; its private half is kept.
    ///
    /// # Errors
    /// [`GroupError::Store`].
    pub fn make_key_package(
        &mut self,
        tx: &Tx,
        leaf: &LeafInfo,
        last_resort: bool,
        now: Now,
    ) -> Result<Vec<u8>, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Checks a key package that somebody handed out for `owner`.
    ///
    /// # Errors
    /// [`GroupError::KeyPackage`], [`GroupError::Credential`].
    pub fn check_key_package(
        &self,
        bytes: &[u8],
        owner: &IdentityKey,
        now: Now,
    ) -> Result<CheckedKeyPackage, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Makes a group of which we are the only member.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn create(
        &mut self,
        tx: &Tx,
        kind: GroupKind,
        name: &str,
        leaf: &LeafInfo,
        now: Now,
    ) -> Result<GroupId, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Makes and merges a commit.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn change(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        change: Change,
        now: Now,
    ) -> Result<Changed, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Proposes our own removal; another member commits it.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn propose_leave(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        now: Now,
    ) -> Result<Sealed, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Encrypts content for all other members.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn encrypt(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        content: &[u8],
        now: Now,
    ) -> Result<Sealed, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Makes a receipt, for the author alone.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn receipt(
        &mut self,
        tx: &Tx,
        receipt: &ReceiptBody,
        now: Now,
    ) -> Result<(Vec<u8>, LeafInfo), GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Opens a wrapped blob and applies what is in it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&mut self, tx: &Tx, blob: &[u8], now: Now) -> Result<Opened, OpenError> {
        Err(OpenError::UnknownState)
    }

    /// Joins the group of a Welcome. The caller refuses the input when the inviter is not wanted.
    ///
    /// # Errors
    /// [`GroupError::Welcome`], [`GroupError::Credential`].
    pub fn join(&mut self, tx: &Tx, welcome: &[u8], now: Now) -> Result<Joined, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// The group as it stands at its tip.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn summary(&mut self, tx: &Tx, group: &GroupId) -> Result<Summary, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Whether `state` is the tip or an ancestor of it. A state that is not kept any more counts as on
    /// the branch: nothing is sent again after so long.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn is_on_branch(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: &StateId,
    ) -> Result<bool, GroupError> {
        Ok(true)
    }

    /// All groups, live or left.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn groups(&self, tx: &Tx) -> Result<Vec<GroupId>, GroupError> {
        Ok(Vec::new())
    }

    /// Deletes everything about a group.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn forget(&mut self, tx: &Tx, group: &GroupId) -> Result<(), GroupError> {
        Ok(())
    }

    /// Deletes states beyond 8 epochs or 7 days, and key packages that expired.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn expire(&mut self, tx: &Tx, now: Now) -> Result<(), GroupError> {
        Ok(())
    }

    /// The caller has accepted the transaction's input.
    pub fn accepted(&mut self) {}

    /// The caller has refused the transaction's input: what was loaded since is dropped.
    pub fn refused(&mut self) {}

    /// Seals bytes for one node: a Welcome, or anything that somebody without the state must read.
    ///
    /// # Errors
    /// [`GroupError::Mls`].
    pub fn seal(&self, to: &SealKey, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, GroupError> {
        Err(GroupError::Mls("not written yet"))
    }

    /// Opens what [`Self::seal`] made for one of our keys: the kind and the bytes.
    #[must_use]
    pub fn unseal(&self, secrets: &[SealSecret], blob: &[u8]) -> Option<(u8, Vec<u8>)> {
        None
    }
}
