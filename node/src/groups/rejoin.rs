//! Coming back from outside: a member that cannot follow any more joins its own group anew by an
//! external commit (RFC 9420 section 12.4.3.2), which also takes its old leaf out.
//!
//! ```text
//!   lost member ←─ offer: GroupInfo, wrap keys ─── any member
//!   lost member ─── external commit, wrapped under the state of the offer ─→ all members
//! ```
//! Nobody else may come in this way: the commit removes exactly the leaf of the identity that it adds.

use std::collections::BTreeSet;
use std::sync::Arc;

use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    LeafNodeParameters, MlsGroup, MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent,
    Proposal, Sender, StagedCommit,
};
use openmls_traits::OpenMlsProvider as _;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sremp_common::hash::sha256;
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::Now;
use sremp_common::wire::{Bin, List};

use super::certificates::{Certificates, Claim};
use super::convergence::branch::Commit;
use super::convergence::marks::Mark;
use super::convergence::record::{OwnWork, Record};
use super::extension::{capabilities, leaf_extensions, policy_bytes};
use super::index::Entry;
use super::join::join_config;
use super::message::KIND_REJOIN;
use super::policy::{MAX_MEMBERS, Policy, PolicyError};
use super::states::{LINEAGE, child_id, mls_id, root_id};
use super::storage::Storage;
use super::verdict;
use super::view::View;
use super::wrap::WrapKeys;
use super::{
    Changed, GroupError, GroupEvent, GroupKind, Groups, LeafInfo, LostWork, MAX_TREE, OpenError,
    Opened, StateId,
};
use crate::store::Tx;

/// A way back into the group, for one of its members alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// The state that it leads back to.
    pub mark: Mark,
    /// Whoever offers came through the state where the other one stands.
    pub is_ahead: bool,
    /// What that state came through, youngest first: by it the other one knows what of its own work is
    /// undone.
    past: List<Mark, LINEAGE>,
    /// The MLS GroupInfo of that state, with its tree.
    group_info: Bin<MAX_TREE>,
    /// What the external commit is wrapped with.
    keys: WrapKeys,
}

impl Offer {
    /// The state that it leads to, and what that one came through, youngest first.
    fn lineage(&self) -> impl Iterator<Item = Mark> + '_ {
        std::iter::once(self.mark).chain(self.past.iter().copied())
    }

    /// Of what our own commits did: what is in the state that it leads to, and what is not. What is older
    /// than all that it says about itself is in it, if both sides have anything in common.
    fn divide(&self, ours: &Record) -> (OwnWork, OwnWork) {
        let theirs: BTreeSet<Mark> = self.lineage().collect();
        let oldest = theirs.first().map_or(0, |mark| mark.epoch);
        let is_near = self.is_ahead || ours.lineage().any(|mark| theirs.contains(&mark));
        let has = |mark: &Mark| theirs.contains(mark) || (is_near && mark.epoch < oldest);
        ours.own_work().into_iter().partition(|(mark, _)| has(mark))
    }
}

impl Groups {
    /// Makes a way back to our tip, for a member at it; also when we want to leave.
    ///
    /// # Errors
    /// [`GroupError::NotMember`], [`GroupError::Stale`], [`GroupError::Store`], [`GroupError::Mls`].
    pub fn offer(&mut self, tx: &Tx, group: &GroupId, is_ahead: bool) -> Result<Offer, GroupError> {
        let record = self.record(tx, group)?;
        if record.stale {
            return Err(GroupError::Stale);
        }
        let tip = record.tip();
        let state = record.state(tip).ok_or(GroupError::StateGone)?;
        if !state.active {
            return Err(GroupError::NotMember);
        }
        let mark = state.mark();
        let known: Vec<Mark> = record.lineage().collect();
        let past = Self::lineage(tx, group, known)?;
        let loaded = self.take(tx, group, tip)?;
        let info = loaded.mls.export_group_info(&self.engine.crypto, &self.signer, true);
        let keys = loaded.keys;
        self.put(tip, loaded);
        let bytes = info.map_err(|_| GroupError::Mls("group info"))?.to_bytes();
        let bytes = bytes.map_err(|_| GroupError::Mls("group info encoding"))?;
        Ok(Offer {
            mark,
            is_ahead,
            past: List::truncated(past),
            group_info: Bin::new(bytes).map_err(|_| GroupError::TooLong(MAX_TREE))?,
            keys: keys.ok_or(GroupError::NotMember)?,
        })
    }

    /// Takes the way back: our branch, whatever it was, is given up.
    ///
    /// # Errors
    /// [`GroupError::Offer`] says what is wrong with it; [`GroupError::NoSuchGroup`],
    /// [`GroupError::Credential`], [`GroupError::Policy`], [`GroupError::Store`], [`GroupError::Mls`].
    pub fn rejoin(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        offer: &Offer,
        leaf: &LeafInfo,
        now: Now,
    ) -> Result<Changed, GroupError> {
        let record = self.record(tx, group)?;
        let old_tip = record.tip();
        if !record.state(old_tip).is_some_and(|state| state.active) {
            return Err(GroupError::NotMember);
        }
        let leaving = record.leaving;
        let (done, undone) = offer.divide(record);
        let before = self.view(tx, group, old_tip)?;
        let (scratch, mls, commit) = self.external_commit(tx, offer, leaf)?;
        if mls.group_id() != &mls_id(group) {
            return Err(GroupError::Offer("it leads into another group"));
        }
        if mls.epoch().as_u64() != offer.mark.epoch.saturating_add(1) {
            return Err(GroupError::Offer("it leads into another epoch than it says"));
        }
        self.check_tree(&mls, &before.policy)?;
        let wrapped = offer.keys.wrap(self.engine.random(), KIND_REJOIN, &commit);
        let wrapped = wrapped.ok_or(GroupError::TooLong(super::MAX_CONTENT))?;

        if !offer.is_ahead {
            // Whoever stands where we came through is not behind, but on another side.
            Self::forget_past(tx, group)?;
        }
        let state = root_id(group, &commit);
        let target = Storage::new(tx, state);
        target.copy_from(scratch)?;
        Storage::new(tx, scratch).delete_all()?;
        let epoch = mls.epoch().as_u64();
        self.enter_welcomed(tx, group, state, mls, now)?;
        let mut record = self.record(tx, group)?.clone();
        // Nobody at the new tip knows that we want to go: it has to be proposed there.
        record.leaving = leaving;
        record.come_by(offer.lineage().collect(), done);
        if let Some(entered) = record.state_mut(state) {
            entered.own_update_at = now.wall;
        }
        self.save_record(tx, group, record)?;
        let after = self.view(tx, group, state)?;
        let mut events = after.changes_since(&before, &[], &self.own);
        self.note_former(tx, group, &before, &events)?;
        events.insert(0, GroupEvent::Rejoined(self.own));
        // Our leaf is new in any case.
        let mut lost: Vec<LostWork> = undone.into_iter().map(|(_, work)| work).collect();
        lost.retain_mut(|work| *work != LostWork::Updated && work.held_in(&before));
        events.insert(0, GroupEvent::Switched { lost });
        Ok(Changed {
            commit: wrapped,
            recipients: Arc::clone(&after.others),
            welcome: None,
            joined: Vec::new(),
            references: Vec::new(),
            state,
            epoch,
            events,
        })
    }

    /// The group behind an external commit, in rows of its own, and the commit.
    fn external_commit(
        &self,
        tx: &Tx,
        offer: &Offer,
        leaf: &LeafInfo,
    ) -> Result<(StateId, MlsGroup, Vec<u8>), GroupError> {
        let message = MlsMessageIn::tls_deserialize_exact(&*offer.group_info)
            .map_err(|_| GroupError::Offer("it is malformed"))?;
        let MlsMessageBodyIn::GroupInfo(info) = message.extract() else {
            return Err(GroupError::Offer("it is no GroupInfo"));
        };
        let scratch = self.engine.provider(tx, StateId::new(self.engine.random()));
        let parameters = LeafNodeParameters::builder()
            .with_credential_with_key(self.signer.credential())
            .with_capabilities(capabilities())
            .with_extensions(leaf_extensions(leaf)?)
            .build();
        let (mls, bundle) = MlsGroup::external_commit_builder()
            .with_config(join_config())
            .skip_lifetime_validation()
            .build_group(&scratch, info, self.signer.credential())
            .map_err(|_| GroupError::Offer("its tree or its signature does not hold"))?
            .leaf_node_parameters(parameters)
            .load_psks(scratch.storage())
            .map_err(|_| GroupError::Mls("external commit"))?
            .build(scratch.rand(), scratch.crypto(), &self.signer, |_| true)
            .map_err(|_| GroupError::Offer("no commit can be made in it"))?
            .finalize(&scratch)
            .map_err(|_| GroupError::Mls("external commit"))?;
        let commit = bundle.commit().to_bytes();
        let commit = commit.map_err(|_| GroupError::Mls("external commit encoding"))?;
        Ok((scratch.storage.state(), mls, commit))
    }

    /// Verifies every member of a tree that somebody handed us, and the rules of its group.
    fn check_tree(&self, mls: &MlsGroup, known: &Policy) -> Result<(), GroupError> {
        let bytes = policy_bytes(mls.extensions()).ok_or(PolicyError::Malformed)?;
        let policy = Policy::decode(bytes)?;
        let claims: Vec<Claim> =
            mls.members().map(|member| (member.credential, member.signature_key)).collect();
        self.certificates.verify_ahead(&claims, &*self.workers, &mut || ());
        let mut keys = Vec::new();
        for (credential, leaf_key) in &claims {
            keys.push(self.certificates.verify(credential, leaf_key)?.identity_key);
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        let most = if policy.kind == GroupKind::Direct { 2 } else { MAX_MEMBERS };
        let one_leaf_each = keys.len() == count && keys.contains(&self.own);
        if !one_leaf_each || count > most || policy.kind != known.kind {
            return Err(GroupError::Offer("its members are not those of such a group"));
        }
        if policy.restricted_to(&keys) != policy {
            return Err(GroupError::Offer("its rules do not fit its members"));
        }
        Ok(())
    }

    /// A member comes back: its external commit enters the tree like any commit of an ordinary member.
    pub(super) fn open_rejoin(
        &mut self,
        tx: &Tx,
        entry: &Entry,
        wrapped: &[u8],
        bytes: &[u8],
        now: Now,
    ) -> Result<Opened, OpenError> {
        let Entry { group, state: parent, .. } = *entry;
        let invalid = |why| OpenError::Invalid { group, why };
        let message = MlsMessageIn::tls_deserialize_exact(bytes)
            .map_err(|_| invalid("malformed MLS message"))?;
        let MlsMessageBodyIn::PublicMessage(message) = message.extract() else {
            return Err(invalid("not an MLS public message"));
        };
        let before = self.parent_of(tx, entry, bytes)?;
        let child = child_id(parent, bytes);
        let provider = self.engine.provider(tx, child);
        provider.storage.copy_from(parent)?;
        let mut mls = MlsGroup::load(&provider.storage, &mls_id(&group))?
            .ok_or(invalid("the parent state is not kept any more"))?;
        let processed =
            mls.process_message(&provider, message).map_err(|error| verdict::of(group, &error))?;
        if !matches!(processed.sender(), Sender::NewMemberCommit) {
            return Err(invalid("an open message that is no external commit"));
        }
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err(invalid("not a commit"));
        };
        let by = returning(&staged, &self.certificates)
            .ok_or(invalid("an external commit of nobody"))?;
        judge_rejoin(&staged, &before, by).map_err(|source| OpenError::Policy {
            group,
            by,
            source,
        })?;
        mls.merge_staged_commit(&provider, *staged)
            .map_err(|_| invalid("the commit cannot be merged"))?;
        let commit = Commit {
            committer: by,
            // Coming back decides nothing about others.
            by_admin: false,
            removes: Vec::new(),
            digest: ByteArray::new(sha256(bytes)),
        };
        let opened = self.enter_committed(tx, entry, wrapped, (child, mls), commit, &[], now)?;
        Ok(with_return(opened, by))
    }
}

/// Says that somebody is back where the tip moved on because of it.
fn with_return(opened: Opened, who: IdentityKey) -> Opened {
    let Opened::Changed { group, epoch, by, mut events, raced } = opened else { return opened };
    if !events.is_empty() {
        events.insert(0, GroupEvent::Rejoined(who));
    }
    Opened::Changed { group, epoch, by, events, raced }
}

/// Who comes back, by the certificate of the new leaf.
fn returning(staged: &StagedCommit, certificates: &Certificates) -> Option<IdentityKey> {
    let (certified, _) = certificates.verify_leaf(staged.update_path_leaf_node()?).ok()?;
    Some(certified.identity_key)
}

/// The commit may take out the old leaf of the same identity, and do nothing else.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not named here is not allowed")]
fn judge_rejoin(staged: &StagedCommit, before: &View, who: IdentityKey) -> Result<(), PolicyError> {
    let (mut inits, mut removed) = (0_usize, Vec::new());
    for queued in staged.queued_proposals() {
        match queued.proposal() {
            Proposal::ExternalInit(_) => inits = inits.saturating_add(1),
            Proposal::Remove(remove) => removed.push(remove.removed()),
            _ => return Err(PolicyError::External),
        }
    }
    let own_leaf = before.index_of(&who).ok_or(PolicyError::NotMember)?;
    if inits != 1 || removed != [own_leaf] {
        return Err(PolicyError::External);
    }
    let after = policy_bytes(staged.group_context().extensions());
    let after = after.and_then(|bytes| Policy::decode(bytes).ok());
    if after.as_ref() != Some(&before.policy) {
        return Err(PolicyError::NotAdmin);
    }
    Ok(())
}

/// What a test needs to forge an offer.
#[cfg(test)]
impl Offer {
    pub(super) fn group_info(&self) -> &[u8] {
        &self.group_info
    }

    pub(super) fn with_group_info(&self, bytes: Vec<u8>) -> Self {
        Self { group_info: Bin::new(bytes).unwrap(), ..self.clone() }
    }
}
