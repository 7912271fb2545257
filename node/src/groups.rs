//! Conversations as MLS groups (RFC 9420), behind a small API. A chat of two is a group of two.
//!
//! Nothing here knows of contacts, history or delivery, and nothing of OpenMLS leaves. Every method reads
//! and writes through the [`Tx`] that it is given; the caller accepts or refuses it, and says so with
//! [`Groups::accepted`] or [`Groups::refused`] before the next call.
//!
//! Each epoch's state has rows of its own. A commit, ours or another's, is made on a copy of its parent's
//! rows, so the parent still opens late messages, and still takes rival commits: which of them stands is
//! decided by `convergence` alone, by the same rules on every member.
mod certificates;
mod change;
mod convergence;
pub mod credential;
mod error;
pub mod extension;
mod former;
mod index;
mod join;
mod key_package;
mod message;
mod note;
mod open;
mod padding;
pub mod policy;
mod provider;
mod rejoin;
pub mod seal;
mod states;
mod storage;
mod suite;
#[cfg(test)]
mod tests;
mod types;
mod verdict;
mod view;
mod welcome;
mod wrap;

pub use certificates::Workers;
pub use convergence::marks::{Mark, Marks, Standing};
pub use convergence::record::{MAX_PAST_EPOCHS, MAX_PAST_TIME};
pub use convergence::sides::{Split, choose};
pub use credential::{CredentialError, LeafSigner};
pub use error::{GroupError, KeyPackageError, OpenError, WelcomeError};
pub use key_package::CheckedKeyPackage;
pub use note::{Note, NoteBody, Probe, SEALED_NOTE, Wants};
pub use padding::MAX_CONTENT;
pub use rejoin::Offer;
pub use suite::{NoSuchSuite, Suite};
pub use types::{
    Change, Changed, GroupEvent, GroupKind, Joined, LeafInfo, LostWork, Member, Opened,
    ReceiptBody, ReceiptKind, Recipient, Role, Roster, Sealed, StateId, Summary,
};

pub use welcome::Welcomes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::id::{GroupId, IdentityKey, SealKey};
use sremp_common::key::SealSecret;
use sremp_common::time::{Now, Timestamp};

use crate::store::{Table, Tx};
use certificates::{Alone, Certificates};
use convergence::record::Record;
use index::TagIndex;
use provider::Engine;
use states::Loaded;

/// How far clocks may differ before a fresh certificate or key package is refused.
const CLOCK_MARGIN: Duration = Duration::from_secs(3600);

/// Bytes of what holds the ratchet tree of a group: a Welcome, or a GroupInfo. The largest group of the
/// post-quantum suite, when all have renewed their keys and are reached by four relays, takes 3.4 million.
pub const MAX_TREE: usize = 7 * 512 * 1024;

/// Groups of one node.
const MAX_GROUPS: usize = 100_000;

/// All groups of this node.
///
/// What is held in memory is a cache of the store: [`Self::refused`] drops what has changed since.
#[derive(Debug)]
pub struct Groups {
    own: IdentityKey,
    signer: LeafSigner,
    engine: Engine,
    certificates: Certificates,
    workers: Arc<dyn Workers>,
    /// None until the first blob comes.
    index: Option<TagIndex>,
    records: BTreeMap<GroupId, Record>,
    loaded: BTreeMap<StateId, Loaded>,
    /// Counts uses of loaded groups, to drop the one that was not used for longest.
    uses: u64,
    touched_records: BTreeSet<GroupId>,
    touched_states: BTreeSet<StateId>,
    /// The commits that were read last.
    commits: Option<(note::Way, note::Commits)>,
}

impl Groups {
    /// No group is loaded yet.
    #[must_use]
    pub fn new(signer: LeafSigner, own: IdentityKey, entropy: Entropy) -> Self {
        Self {
            own,
            signer,
            engine: Engine::new(entropy),
            certificates: Certificates::default(),
            workers: Arc::new(Alone),
            index: None,
            records: BTreeMap::new(),
            loaded: BTreeMap::new(),
            uses: 0,
            touched_records: BTreeSet::new(),
            touched_states: BTreeSet::new(),
            commits: None,
        }
    }

    /// From now on these do what can be done side by side.
    pub fn set_workers(&mut self, workers: Arc<dyn Workers>) {
        self.workers = workers;
    }

    /// The group as it stands at its tip.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`], [`GroupError::Mls`].
    pub fn summary(&mut self, tx: &Tx, group: &GroupId) -> Result<Summary, GroupError> {
        let record = self.record(tx, group)?;
        let (tip, leaving) = (record.tip(), record.leaving);
        let state = record.state(tip).ok_or(GroupError::StateGone)?;
        let (active, mut leaves) = (state.active, state.leaves.clone());
        leaves.sort_unstable();
        leaves.dedup();
        let entered_at = state.entered_at;
        let loaded = self.take(tx, group, tip)?;
        let view = &loaded.view;
        let summary = Summary {
            id: *group,
            kind: view.policy.kind,
            name: view.policy.name.clone(),
            epoch: loaded.mls.epoch().as_u64(),
            epoch_authenticator: loaded.mls.epoch_authenticator().as_slice().to_vec(),
            suite: u16::from(loaded.mls.ciphersuite()),
            members: Arc::clone(&view.members),
            active,
            leaving: leaving && active,
            leave_proposed: leaves,
            state: tip,
            entered_at,
        };
        self.put(tip, loaded);
        Ok(summary)
    }

    /// Whether somebody has proposed to leave at the tip. Reads the record alone, no state.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn anybody_leaves(&mut self, tx: &Tx, group: &GroupId) -> Result<bool, GroupError> {
        let record = self.record(tx, group)?;
        Ok(record.state(record.tip()).is_some_and(|state| !state.leaves.is_empty()))
    }

    /// When our own leaf at the tip was renewed, by our clock; 0 for never. Reads the record alone, no state.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn own_update_at(&mut self, tx: &Tx, group: &GroupId) -> Result<Timestamp, GroupError> {
        let record = self.record(tx, group)?;
        Ok(record.state(record.tip()).map(|state| state.own_update_at).unwrap_or_default())
    }

    /// Whether a commit of ours would be kept: hostile members can fill the room of the ordinary ones.
    ///
    /// # Errors
    /// As [`Self::summary`].
    pub fn has_room(&mut self, tx: &Tx, group: &GroupId) -> Result<bool, GroupError> {
        let tip = self.record(tx, group)?.tip();
        let is_admin = self.view(tx, group, tip)?.policy.is_admin(&self.own);
        Ok(!self.record(tx, group)?.is_full(is_admin))
    }

    /// The group's cipher suite.
    ///
    /// # Errors
    /// As [`Self::summary`].
    pub fn suite(&mut self, tx: &Tx, group: &GroupId) -> Result<Suite, GroupError> {
        let tip = self.record(tx, group)?.tip();
        let loaded = self.take(tx, group, tip)?;
        let suite = Suite::of(loaded.mls.ciphersuite()).ok_or(GroupError::Mls("suite"));
        self.put(tip, loaded);
        suite
    }

    /// The group's tip: the state that is written in.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn tip(&mut self, tx: &Tx, group: &GroupId) -> Result<StateId, GroupError> {
        Ok(self.record(tx, group)?.tip())
    }

    /// Whether we came in by a Welcome of this member, and nothing has happened in the group since.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn was_invited_by(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
    ) -> Result<bool, GroupError> {
        let record = self.record(tx, group)?;
        let epoch = record.state(record.tip()).map(|state| state.epoch);
        Ok(record.joined_by == Some(*who) && epoch == Some(record.joined_epoch))
    }

    /// Whether somebody was an admin in a state of the group, which is one that is kept: both are in a
    /// chat of two.
    ///
    /// # Errors
    /// As [`Self::summary`].
    pub fn was_admin(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: StateId,
        who: &IdentityKey,
    ) -> Result<bool, GroupError> {
        Ok(self.view(tx, group, state)?.policy.is_admin(who))
    }

    /// How many members the group has at its tip, ourselves included.
    ///
    /// # Errors
    /// As [`Self::summary`].
    pub fn member_count(&mut self, tx: &Tx, group: &GroupId) -> Result<usize, GroupError> {
        let tip = self.record(tx, group)?.tip();
        let loaded = self.take(tx, group, tip)?;
        let count = loaded.view.members.len();
        self.put(tip, loaded);
        Ok(count)
    }

    /// Whether `state` is the tip of the group or an ancestor of it. A state that is not kept any more
    /// counts as on the branch: nothing is sent again after so long.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn is_on_branch(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: &StateId,
    ) -> Result<bool, GroupError> {
        Ok(self.record(tx, group)?.is_on_branch(*state))
    }

    /// All groups, live or left.
    ///
    /// # Errors
    /// [`GroupError::Store`].
    pub fn groups(&self, tx: &Tx) -> Result<Vec<GroupId>, GroupError> {
        let rows = tx.scan(Table::Groups, &[], None, MAX_GROUPS)?;
        let id = |(key, _): (Vec<u8>, Vec<u8>)| key.try_into().ok().map(GroupId::new);
        Ok(rows.into_iter().filter_map(id).collect())
    }

    /// The caller has accepted the transaction's input.
    pub fn accepted(&mut self) {
        self.touched_records.clear();
        self.touched_states.clear();
        if let Some(index) = &mut self.index {
            index.accepted();
        }
    }

    /// The caller has refused the transaction's input: what was changed in memory since is dropped, and
    /// read again when it is needed.
    pub fn refused(&mut self) {
        for group in std::mem::take(&mut self.touched_records) {
            self.records.remove(&group);
        }
        for state in std::mem::take(&mut self.touched_states) {
            self.loaded.remove(&state);
        }
        if let Some(index) = &mut self.index {
            index.refused();
        }
    }

    /// Seals bytes for one node: a Welcome, or anything that somebody without the state must read.
    ///
    /// # Errors
    /// [`GroupError::TooLong`].
    pub fn seal(&self, to: &SealKey, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, GroupError> {
        seal::seal(&self.engine.crypto, to, kind, bytes).ok_or(GroupError::TooLong(MAX_CONTENT))
    }

    /// Kind and bytes of what [`Self::seal`] made for one of `secrets`; none for any other bytes.
    #[must_use]
    pub fn unseal(&self, secrets: &[SealSecret], blob: &[u8]) -> Option<(u8, Vec<u8>)> {
        seal::open(&self.engine.crypto, secrets, blob)
    }

    /// Deletes states that are behind by more than [`MAX_PAST_EPOCHS`] or were left more than
    /// [`MAX_PAST_TIME`] ago, and key packages that expired. Late messages and rival commits of those
    /// states cannot be opened any more.
    ///
    /// # Errors
    /// [`GroupError::Store`].
    pub fn expire(&mut self, tx: &Tx, now: Now) -> Result<(), GroupError> {
        for group in self.groups(tx)? {
            self.expire_states(tx, &group, now.wall)?;
        }
        self.expire_key_packages(tx, now.wall)
    }
}
