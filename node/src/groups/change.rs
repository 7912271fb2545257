//! Making commits, and proposing to leave.
//!
//! A commit is made on a copy of the tip's rows under a scratch prefix, because its own bytes name the
//! state that it makes; then the rows are moved there. The tip's own rows stay as they are.

use openmls::prelude::{
    CommitMessageBundle, LeafNodeIndex, LeafNodeParameters, MlsGroup, MlsGroupCreateConfig,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, QueuedProposal, SenderRatchetConfiguration,
};
use openmls_traits::OpenMlsProvider as _;
use serde_bytes::ByteArray;
use sremp_common::hash::sha256;
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::Now;

use super::convergence::branch::Commit;
use super::convergence::record::Record;
use super::extension::{capabilities, group_extensions, leaf_extensions};
use super::key_package::open_lifetime;
use super::message::KIND_MLS;
use super::policy::{self, Policy, PolicyError, Removal, Step};
use super::states::{child_id, entered, mls_id, root_id};
use super::storage::Storage;
use super::view::View;
use super::{
    Change, Changed, CheckedKeyPackage, GroupError, GroupKind, Groups, LeafInfo, LostWork,
    Recipient, Sealed, StateId, Suite,
};
use crate::store::{Table, Tx};

/// Messages of one sender that may come out of order, and that may be missing in a row.
const SENDER_RATCHET: (u32, u32) = (256, 4096);

pub(super) fn sender_ratchet() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(SENDER_RATCHET.0, SENDER_RATCHET.1)
}

/// What a commit of ours is to do.
struct Plan {
    adds: Vec<CheckedKeyPackage>,
    /// Removed by us; leaves are carried out besides.
    removals: Vec<IdentityKey>,
    leaves: Vec<IdentityKey>,
    policy: Policy,
    leaf: Option<LeafInfo>,
    work: Vec<LostWork>,
}

/// A commit that was made, with the group behind it.
struct Made {
    mls: MlsGroup,
    commit: Vec<u8>,
    welcome: Option<Vec<u8>>,
    state: StateId,
}

impl Groups {
    /// Makes a group of which we are the only member. The name of a chat of two is empty.
    ///
    /// # Errors
    /// [`GroupError::Policy`], [`GroupError::Store`], [`GroupError::Mls`].
    pub fn create(
        &mut self,
        tx: &Tx,
        kind: GroupKind,
        name: &str,
        suite: Suite,
        leaf: &LeafInfo,
        now: Now,
    ) -> Result<GroupId, GroupError> {
        let group = GroupId::new(self.engine.random());
        let state = root_id(&group, &[]);
        let policy = Policy::new(kind, name, self.own)?;
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite.mls())
            .capabilities(capabilities())
            .lifetime(open_lifetime())
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(sender_ratchet())
            .with_group_context_extensions(group_extensions(policy.encode())?)
            .with_leaf_node_extensions(leaf_extensions(leaf)?)
            .map_err(|_| GroupError::Mls("leaf extensions"))?
            .build();
        let provider = self.engine.provider(tx, state);
        let credential = self.signer.credential();
        let mls = MlsGroup::new_with_group_id(
            &provider,
            &self.signer,
            &config,
            mls_id(&group),
            credential,
        )
        .map_err(|_| GroupError::Mls("create"))?;
        let loaded = self.loaded_from(mls)?;
        let mut first = entered(state, None, &loaded.mls, now);
        first.own_update_at = now.wall;
        self.save_record(tx, &group, Record::new(first))?;
        self.enter(tx, &group, state, loaded)?;
        Ok(group)
    }

    /// Makes and merges a commit. It also carries out the leaves that were proposed at the tip.
    ///
    /// # Errors
    /// [`GroupError::Policy`] names the rule that forbids it; [`GroupError::NothingToCommit`],
    /// [`GroupError::NotMember`], [`GroupError::Leaving`], [`GroupError::TooManyRivals`],
    /// [`GroupError::Store`], [`GroupError::Mls`].
    pub fn change(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        change: Change,
        now: Now,
    ) -> Result<Changed, GroupError> {
        let tip = self.acting_tip(tx, group)?;
        let parent = self.record(tx, group)?.state(tip).ok_or(GroupError::StateGone)?.clone();
        let loaded = self.take(tx, group, tip)?;
        let (before, keys) = (std::sync::Arc::clone(&loaded.view), loaded.keys);
        self.put(tip, loaded);

        let by_admin = before.policy.is_admin(&self.own);
        if self.record(tx, group)?.is_full(by_admin) {
            // Others would refuse it, as we would theirs.
            return Err(GroupError::TooManyRivals);
        }
        let plan = plan(change, &before, self.own, &parent.leaves)?;
        let joined: Vec<Recipient> =
            plan.adds.iter().map(|added| (added.owner, added.leaf.clone())).collect();
        let reference = |added: &CheckedKeyPackage| {
            let reference = added.key_package.hash_ref(&self.engine.crypto);
            reference.map(|reference| reference.as_slice().to_vec())
        };
        let references = plan.adds.iter().map(reference).collect::<Result<_, _>>();
        let references = references.map_err(|_| GroupError::Mls("key package reference"))?;
        let made = self.commit(tx, group, tip, &before, &plan)?;
        let commit = keys
            .and_then(|keys| keys.wrap(self.engine.random(), KIND_MLS, &made.commit))
            .ok_or(GroupError::TooLong(super::MAX_CONTENT))?;

        let loaded = self.loaded_from(made.mls)?;
        let after = std::sync::Arc::clone(&loaded.view);
        let epoch = loaded.mls.epoch().as_u64();
        let mut state = entered(made.state, Some(tip), &loaded.mls, now);
        state.own_update_at = if plan.leaf.is_some() { now.wall } else { parent.own_update_at };
        state.commit = Some(Commit {
            committer: self.own,
            by_admin,
            removes: plan.removals.iter().chain(&plan.leaves).copied().collect(),
            digest: ByteArray::new(sha256(&made.commit)),
        });
        state.work = plan.work;
        self.settle(tx, group, state, now.wall)?;
        self.enter(tx, group, made.state, loaded)?;
        tx.put(Table::GroupCommits, made.state.as_bytes(), commit.clone());
        let mut events = after.changes_since(&before, &plan.leaves, &self.own);
        self.note_former(tx, group, &before, &events)?;
        if events.is_empty() {
            events.push(super::GroupEvent::Updated(self.own));
        }
        Ok(Changed {
            commit,
            recipients: std::sync::Arc::clone(&before.others),
            welcome: made.welcome,
            joined,
            references,
            state: made.state,
            epoch,
            events,
        })
    }

    /// The tip, if we may act there.
    pub(super) fn acting_tip(&mut self, tx: &Tx, group: &GroupId) -> Result<StateId, GroupError> {
        let record = self.record(tx, group)?;
        let tip = record.state(record.tip()).ok_or(GroupError::StateGone)?;
        if !tip.active {
            return Err(GroupError::NotMember);
        }
        if record.leaving {
            return Err(GroupError::Leaving);
        }
        if record.stale {
            return Err(GroupError::Stale);
        }
        Ok(tip.id)
    }

    /// Judges the plan, and makes and merges its commit on a copy of the tip.
    fn commit(
        &self,
        tx: &Tx,
        group: &GroupId,
        tip: StateId,
        before: &View,
        plan: &Plan,
    ) -> Result<Made, GroupError> {
        let by_us = plan.removals.iter().map(|who| Removal { who: *who, proposer: self.own });
        let leaves = plan.leaves.iter().map(|who| Removal { who: *who, proposer: *who });
        policy::judge(&Step {
            before: &before.policy,
            members_before: &before.keys(),
            committer: self.own,
            added: &plan.adds.iter().map(|added| added.owner).collect::<Vec<_>>(),
            removed: &by_us.chain(leaves).collect::<Vec<_>>(),
            after: &plan.policy,
        })?;
        let scratch = self.engine.provider(tx, StateId::new(self.engine.random()));
        scratch.storage.copy_from(tip)?;
        let mut mls =
            MlsGroup::load(&scratch.storage, &mls_id(group))?.ok_or(GroupError::StateGone)?;
        queue_kept(&mut mls, &scratch.storage)?;
        let bundle = self.build(&mut mls, &scratch, before, plan)?;
        let encoded = |_| GroupError::Mls("commit encoding");
        let commit = bundle.commit().to_bytes().map_err(encoded)?;
        let welcome = bundle
            .into_welcome_msg()
            .map(|welcome| welcome.to_bytes())
            .transpose()
            .map_err(encoded)?;
        mls.merge_pending_commit(&scratch).map_err(|_| GroupError::Mls("merge"))?;
        let state = child_id(tip, &commit);
        let target = Storage::new(tx, state);
        target.copy_from(scratch.storage.state())?;
        scratch.storage.delete_all()?;
        Ok(Made { mls, commit, welcome, state })
    }

    fn build(
        &self,
        mls: &mut MlsGroup,
        provider: &super::provider::Provider<'_>,
        before: &View,
        plan: &Plan,
    ) -> Result<CommitMessageBundle, GroupError> {
        let failed = |_| GroupError::Mls("commit");
        let removed: Option<Vec<LeafNodeIndex>> =
            plan.removals.iter().map(|who| before.index_of(who)).collect();
        let removed = removed.ok_or(PolicyError::NotMember)?;
        let mut builder = mls
            .commit_builder()
            .propose_adds(plan.adds.iter().map(|added| added.key_package.clone()))
            .propose_removals(removed);
        if let Some(leaf) = &plan.leaf {
            let parameters = LeafNodeParameters::builder()
                .with_credential_with_key(self.signer.credential())
                .with_capabilities(capabilities())
                .with_extensions(leaf_extensions(leaf)?)
                .build();
            builder = builder.leaf_node_parameters(parameters).force_self_update(true);
        }
        if plan.policy != before.policy {
            builder = builder
                .propose_group_context_extensions(group_extensions(plan.policy.encode())?)
                .map_err(failed)?;
        }
        builder
            .load_psks(provider.storage())
            .map_err(failed)?
            .create_group_info(false)
            .build(provider.rand(), provider.crypto(), &self.signer, |_| true)
            .map_err(failed)?
            .stage_commit(provider)
            .map_err(|_| GroupError::Mls("staging"))
    }

    /// Proposes our own removal; another member carries it out. From then on we only read. When the epoch
    /// changes without it, [`super::Summary::leaving`] is still set, and it has to be proposed again.
    ///
    /// # Errors
    /// [`GroupError::Leaving`] when it was proposed in this state already, [`GroupError::Policy`]
    /// ([`PolicyError::LastAdmin`], [`PolicyError::Alone`]), [`GroupError::NotMember`], [`GroupError::Store`].
    pub fn propose_leave(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        _now: Now,
    ) -> Result<Sealed, GroupError> {
        let mut record = self.record(tx, group)?.clone();
        let tip = record.tip();
        if record.stale {
            return Err(GroupError::Stale);
        }
        let state = record.state_mut(tip).ok_or(GroupError::StateGone)?;
        if !state.active {
            return Err(GroupError::NotMember);
        }
        if state.leave_sent {
            return Err(GroupError::Leaving);
        }
        state.leave_sent = true;
        record.leaving = true;
        let mut loaded = self.take(tx, group, tip)?;
        policy::may_leave(&loaded.view.policy, &loaded.view.keys(), &self.own)?;
        let provider = self.engine.provider(tx, tip);
        let proposal = loaded
            .mls
            .leave_group(&provider, &self.signer)
            .map_err(|_| GroupError::Mls("leave"))?
            .to_bytes()
            .map_err(|_| GroupError::Mls("leave encoding"))?;
        let sealed = self.seal_for_members(&loaded, tip, KIND_MLS, &proposal)?;
        Self::keep_own_proposal(tx, tip, &sealed.blob);
        self.put_changed(tip, loaded);
        self.save_record(tx, group, record)?;
        Ok(sealed)
    }

    /// We do not want to leave any more.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn stay(&mut self, tx: &Tx, group: &GroupId) -> Result<(), GroupError> {
        let mut record = self.record(tx, group)?.clone();
        record.leaving = false;
        Ok(self.save_record(tx, group, record)?)
    }
}

/// The proposals that were kept beside OpenMLS' queue, put into it: on the copy that they leave.
pub(super) fn queue_kept(mls: &mut MlsGroup, storage: &Storage<'_>) -> Result<(), GroupError> {
    for proposal in storage.kept_proposals::<QueuedProposal>()? {
        mls.store_pending_proposal(storage, proposal)?;
    }
    storage.drop_kept_proposals()?;
    Ok(())
}

/// What a change means for the members and rules of `before`.
fn plan(
    change: Change,
    before: &View,
    own: IdentityKey,
    proposed_leaves: &[IdentityKey],
) -> Result<Plan, GroupError> {
    let mut leaves = proposed_leaves.to_vec();
    leaves.sort_unstable();
    leaves.dedup();
    leaves.retain(|who| before.member(who).is_some() && *who != own);
    let (mut adds, mut removals, mut leaf, mut work) = (Vec::new(), Vec::new(), None, Vec::new());
    match &change {
        Change::Add(key_packages) => {
            adds.clone_from(key_packages);
            work.push(LostWork::Added(adds.iter().map(|added| added.owner).collect()));
        }
        Change::Remove(members) => {
            removals.clone_from(members);
            removals.sort_unstable();
            removals.dedup();
            // Who wants to go is let go.
            removals.retain(|who| !leaves.contains(who));
            work.push(LostWork::Removed(members.clone()));
        }
        Change::Rename(name) => work.push(LostWork::Renamed(name.clone())),
        Change::Promote(member) => work.push(LostWork::Promoted(*member)),
        Change::Demote(member) => work.push(LostWork::Demoted(*member)),
        Change::Update(info) => {
            leaf = Some(info.clone());
            work.push(LostWork::Updated);
        }
        Change::CommitProposals if leaves.is_empty() => return Err(GroupError::NothingToCommit),
        Change::CommitProposals => {}
    }
    if !leaves.is_empty() {
        work.push(LostWork::LeavesCommitted(leaves.clone()));
    }
    let remaining: Vec<IdentityKey> = before
        .keys()
        .into_iter()
        .filter(|key| !removals.contains(key) && !leaves.contains(key))
        .collect();
    let policy = changed_policy(&change, before, &before.policy.restricted_to(&remaining))?;
    let nothing = adds.is_empty()
        && removals.is_empty()
        && leaves.is_empty()
        && leaf.is_none()
        && policy == before.policy;
    if nothing {
        return Err(GroupError::NothingToCommit);
    }
    Ok(Plan { adds, removals, leaves, policy, leaf, work })
}

/// The rules after the change, when `rules` are those that follow from who remains.
fn changed_policy(change: &Change, before: &View, rules: &Policy) -> Result<Policy, PolicyError> {
    let rules = rules.clone();
    let is_direct = rules.kind == GroupKind::Direct;
    match change {
        Change::Rename(_) | Change::Promote(_) | Change::Demote(_) if is_direct => {
            Err(PolicyError::DirectHasNoPolicy)
        }
        Change::Rename(name) => Ok(rules.renamed(name)),
        Change::Promote(member) | Change::Demote(member) if before.member(member).is_none() => {
            Err(PolicyError::NotMember)
        }
        Change::Promote(member) => Ok(rules.promoted(*member)),
        Change::Demote(member) => Ok(rules.demoted(member)),
        Change::Add(_) | Change::Remove(_) | Change::Update(_) | Change::CommitProposals => {
            Ok(rules)
        }
    }
}
