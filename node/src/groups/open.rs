//! Opening wrapped blobs: messages, proposals to leave, and commits of others.

use std::sync::Arc;

use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    ContentType, LeafNodeIndex, MlsGroup, MlsMessageBodyIn, MlsMessageIn, ProcessedMessage,
    ProcessedMessageContent, Proposal, ProtocolMessage, QueuedProposal, Sender, StagedCommit,
};
use openmls_traits::OpenMlsProvider as _;
use serde_bytes::ByteArray;
use sremp_common::hash::sha256;
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::limit::MAX_BLOB;
use sremp_common::time::Now;

use super::certificates::Certificates;
use super::change::queue_kept;
use super::convergence::branch::Commit;
use super::convergence::record::Settled;
use super::credential::CredentialError;
use super::extension::policy_bytes;
use super::index::Entry;
use super::message::{KIND_MLS, KIND_RECEIPT, KIND_REJOIN, fail};
use super::policy::{self, MAX_MEMBERS, Policy, PolicyError, Removal, Step};
use super::states::{child_id, entered, mls_id};
use super::verdict;
use super::view::View;
use super::wrap::Blob;
use super::{GroupEvent, Groups, OpenError, Opened, StateId};
use crate::store::{Table, Tx};

/// What a commit does, once it was found to keep to the rules.
struct Judged {
    leavers: Vec<IdentityKey>,
    removes: Vec<IdentityKey>,
}

/// Why a commit is refused.
enum Refusal {
    Policy(PolicyError),
    Credential(CredentialError),
}

impl From<PolicyError> for Refusal {
    fn from(error: PolicyError) -> Self {
        Self::Policy(error)
    }
}

impl From<CredentialError> for Refusal {
    fn from(error: CredentialError) -> Self {
        Self::Credential(error)
    }
}

impl Groups {
    /// Opens a wrapped blob and applies what is in it.
    ///
    /// # Errors
    /// [`OpenError::UnknownState`] when no state of ours wrapped it: it is sealed, or comes before the
    /// commit that leads into its state; [`OpenError::Early`] when something that it refers to has not
    /// come; both may succeed later. Everything else is final.
    pub fn open(&mut self, tx: &Tx, blob: &[u8], now: Now) -> Result<Opened, OpenError> {
        if blob.len() > MAX_BLOB {
            return Err(OpenError::UnknownState);
        }
        let wrapped = blob;
        let blob = Blob::parse(wrapped).ok_or(OpenError::UnknownState)?;
        let entry = self.index(tx)?.find(&blob).ok_or(OpenError::UnknownState)?;
        let invalid = |why| OpenError::Invalid { group: entry.group, why };
        let (kind, bytes) = entry.keys.unwrap(&blob).ok_or(invalid("the blob is damaged"))?;
        match kind {
            KIND_MLS => {}
            KIND_RECEIPT => return self.open_receipt(tx, &entry, &bytes),
            KIND_REJOIN => {
                let entry = self.standing(tx, entry)?;
                return self.open_rejoin(tx, &entry, wrapped, &bytes, now);
            }
            _ => return Err(invalid("an unknown kind of content")),
        }
        let message = MlsMessageIn::tls_deserialize_exact(&bytes)
            .map_err(|_| invalid("malformed MLS message"))?;
        // Public messages are how outsiders speak, and how insiders would be seen speaking.
        let MlsMessageBodyIn::PrivateMessage(message) = message.extract() else {
            return Err(invalid("not an MLS private message"));
        };
        match message.content_type() {
            ContentType::Application => self.open_message(tx, &entry, message.into()),
            ContentType::Proposal => self.open_proposal(tx, &entry, wrapped, message.into()),
            ContentType::Commit => {
                let entry = self.standing(tx, entry)?;
                self.open_commit(tx, &entry, wrapped, &bytes, message.into(), now)
            }
            #[expect(unreachable_patterns, reason = "OpenMLS' features may add kinds")]
            _ => Err(invalid("an unknown kind of MLS message")),
        }
    }

    /// Whether a blob holds a commit whose state is not in the tree. A commit that was applied once can
    /// be missing later: whoever joins anew, by a Welcome or from outside, starts another tree.
    ///
    /// # Errors
    /// [`OpenError::Store`].
    pub fn misses_commit(&mut self, tx: &Tx, blob: &[u8]) -> Result<bool, OpenError> {
        let Some(parsed) = Blob::parse(blob) else { return Ok(false) };
        let Some(entry) = self.index(tx)?.find(&parsed) else { return Ok(false) };
        let entry = self.standing(tx, entry)?;
        let Some((kind, bytes)) = entry.keys.unwrap(&parsed) else { return Ok(false) };
        let is_commit = match kind {
            KIND_REJOIN => true,
            KIND_MLS => {
                let message =
                    MlsMessageIn::tls_deserialize_exact(&bytes).map(MlsMessageIn::extract);
                matches!(message, Ok(MlsMessageBodyIn::PrivateMessage(message))
                    if message.content_type() == ContentType::Commit)
            }
            _ => false,
        };
        let group = entry.group;
        let record = self.record(tx, &group).map_err(|error| fail(group, error))?;
        Ok(is_commit && record.state(child_id(entry.state, &bytes)).is_none())
    }

    /// The same state where the tip came through it, if it is kept twice: before and after we joined
    /// anew. Both have the same keys; what a commit leads to belongs to the one that stands.
    fn standing(&mut self, tx: &Tx, entry: Entry) -> Result<Entry, OpenError> {
        let record = self.record(tx, &entry.group).map_err(|error| fail(entry.group, error))?;
        Ok(Entry { state: record.standing_twin(entry.state), ..entry })
    }

    fn open_message(
        &mut self,
        tx: &Tx,
        entry: &Entry,
        message: ProtocolMessage,
    ) -> Result<Opened, OpenError> {
        let Entry { group, state, .. } = *entry;
        let mut loaded = self.take(tx, &group, state).map_err(|error| fail(group, error))?;
        let provider = self.engine.provider(tx, state);
        let processed = loaded
            .mls
            .process_message(&provider, message)
            .map_err(|error| verdict::of(group, &error))?;
        let sender = sender(&processed, &loaded.view, group)?;
        let ProcessedMessageContent::ApplicationMessage(content) = processed.into_content() else {
            // OpenMLS gives our own messages back unread.
            return Err(OpenError::Duplicate(group));
        };
        let epoch = loaded.mls.epoch().as_u64();
        self.put_changed(state, loaded);
        let former = self.is_former(tx, &group, state, &sender)?;
        let content = content.into_bytes();
        Ok(Opened::Message { group, state, epoch, sender, former, content })
    }

    /// Whether somebody who is a member in `state` is none at the tip.
    fn is_former(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: StateId,
        who: &IdentityKey,
    ) -> Result<bool, OpenError> {
        let broken = |error| fail(*group, error);
        let tip = self.record(tx, group).map_err(broken)?.tip();
        if tip == state {
            return Ok(false);
        }
        Ok(self.view(tx, group, tip).map_err(broken)?.member(who).is_none())
    }

    fn open_proposal(
        &mut self,
        tx: &Tx,
        entry: &Entry,
        wrapped: &[u8],
        message: ProtocolMessage,
    ) -> Result<Opened, OpenError> {
        let Entry { group, state, .. } = *entry;
        let mut loaded = self.take(tx, &group, state).map_err(|error| fail(group, error))?;
        let provider = self.engine.provider(tx, state);
        let processed = loaded
            .mls
            .process_message(&provider, message)
            .map_err(|error| verdict::of(group, &error))?;
        let who = sender(&processed, &loaded.view, group)?;
        let refused = |source| OpenError::Policy { group, by: who, source };
        let content = processed.into_content();
        if matches!(content, ProcessedMessageContent::OwnPrivateMessage) {
            return Err(OpenError::Duplicate(group));
        }
        let ProcessedMessageContent::ProposalMessage(proposal) = content else {
            return Err(refused(PolicyError::Proposal));
        };
        // A member may propose its own removal, and nothing else.
        let Proposal::Remove(remove) = proposal.proposal() else {
            return Err(refused(PolicyError::Proposal));
        };
        if loaded.view.at(remove.removed()).map(|member| member.identity_key) != Some(who) {
            return Err(refused(PolicyError::Proposal));
        }
        policy::may_leave(&loaded.view.policy, &loaded.view.keys(), &who).map_err(refused)?;
        provider.storage().keep_proposal(&*proposal)?;
        Self::keep_proposal(tx, state, wrapped)?;
        self.put_changed(state, loaded);

        let mut record = self.record(tx, &group).map_err(|error| fail(group, error))?.clone();
        if let Some(state) = record.state_mut(state) {
            // A member that repeats itself costs its own sender ratchet, and one entry for each time.
            if state.leaves.len() >= MAX_MEMBERS {
                return Err(OpenError::TooManyRivals(group));
            }
            state.leaves.push(who);
        }
        self.save_record(tx, &group, record)?;
        Ok(Opened::LeaveProposed { group, who })
    }

    fn open_commit(
        &mut self,
        tx: &Tx,
        entry: &Entry,
        wrapped: &[u8],
        bytes: &[u8],
        message: ProtocolMessage,
        now: Now,
    ) -> Result<Opened, OpenError> {
        let Entry { group, state: parent, .. } = *entry;
        let before = self.parent_of(tx, entry, bytes)?;
        let child = child_id(parent, bytes);
        let (mls, by, judged) = self.process_commit(tx, &group, parent, child, message, &before)?;
        let commit = Commit {
            committer: by,
            by_admin: before.policy.is_admin(&by),
            removes: judged.removes,
            digest: ByteArray::new(sha256(bytes)),
        };
        self.enter_committed(tx, entry, wrapped, (child, mls), commit, &judged.leavers, now)
    }

    /// The state that a commit leaves, if the commit is new and there is room for its state.
    pub(super) fn parent_of(
        &mut self,
        tx: &Tx,
        entry: &Entry,
        bytes: &[u8],
    ) -> Result<Arc<View>, OpenError> {
        let Entry { group, state: parent, .. } = *entry;
        let broken = |error| fail(group, error);
        let record = self.record(tx, &group).map_err(broken)?;
        if record.state(child_id(parent, bytes)).is_some() {
            return Err(OpenError::Duplicate(group));
        }
        if record.is_full(true) {
            return Err(OpenError::TooManyRivals(group));
        }
        self.view(tx, &group, parent).map_err(broken)
    }

    /// Another's commit was processed: its state enters the tree, and the rules decide anew.
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of two functions, taken out for its length"
    )]
    pub(super) fn enter_committed(
        &mut self,
        tx: &Tx,
        entry: &Entry,
        wrapped: &[u8],
        (child, mls): (StateId, MlsGroup),
        commit: Commit,
        leavers: &[IdentityKey],
        now: Now,
    ) -> Result<Opened, OpenError> {
        let Entry { group, state: parent, .. } = *entry;
        let broken = |error| fail(group, error);
        let by = commit.committer;
        self.make_room(tx, &group, &commit, parent)?;
        let record = self.record(tx, &group).map_err(broken)?;
        let own_update_at =
            record.state(parent).map(|state| state.own_update_at).unwrap_or_default();
        let old_tip = record.tip();
        let raced = record.states().iter().any(|state| state.parent == Some(parent));
        let loaded = self.loaded_from(mls).map_err(broken)?;
        let after = Arc::clone(&loaded.view);
        let epoch = loaded.mls.epoch().as_u64().saturating_sub(1);
        let mut state = entered(child, Some(parent), &loaded.mls, now);
        state.active = loaded.mls.is_active();
        state.own_update_at = own_update_at;
        state.commit = Some(commit);
        // While the old tip is still kept.
        let old_view = self.view(tx, &group, old_tip).map_err(broken)?;
        self.enter(tx, &group, child, loaded)?;
        tx.put(Table::GroupCommits, child.as_bytes(), wrapped.to_vec());
        let settled = self.settle(tx, &group, state, now.wall).map_err(broken)?;
        let events = self.events(tx, &group, settled, &old_view, (child, &after), leavers, by)?;
        Ok(Opened::Changed { group, epoch, by, events, raced })
    }

    /// What is different at the tip after a commit came.
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of one function, taken out for its length"
    )]
    fn events(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        settled: Settled,
        old: &View,
        (child, after): (StateId, &Arc<View>),
        leavers: &[IdentityKey],
        by: IdentityKey,
    ) -> Result<Vec<GroupEvent>, OpenError> {
        let broken = |error| fail(*group, error);
        let lost = match settled {
            Settled::Unchanged => return Ok(Vec::new()),
            Settled::Advanced => None,
            Settled::Switched(lost) => Some(lost),
        };
        let tip = self.record(tx, group).map_err(broken)?.tip();
        let now_at = if tip == child {
            Arc::clone(after)
        } else {
            self.view(tx, group, tip).map_err(broken)?
        };
        let mut events = now_at.changes_since(old, leavers, &self.own);
        self.note_former(tx, group, old, &events).map_err(broken)?;
        match lost {
            Some(mut lost) => {
                lost.retain_mut(|work| work.held_in(old));
                events.insert(0, GroupEvent::Switched { lost });
            }
            None if events.is_empty() => events.push(GroupEvent::Updated(by)),
            None => {}
        }
        Ok(events)
    }

    /// Processes a commit on a copy of its parent, judges it, and merges it there.
    fn process_commit(
        &self,
        tx: &Tx,
        group: &GroupId,
        parent: StateId,
        child: StateId,
        message: ProtocolMessage,
        before: &View,
    ) -> Result<(MlsGroup, IdentityKey, Judged), OpenError> {
        let group = *group;
        let provider = self.engine.provider(tx, child);
        provider.storage.copy_from(parent)?;
        let mut mls = MlsGroup::load(&provider.storage, &mls_id(&group))?
            .ok_or(OpenError::Invalid { group, why: "the parent state is not kept any more" })?;
        queue_kept(&mut mls, &provider.storage).map_err(|error| fail(group, error))?;
        let processed =
            mls.process_message(&provider, message).map_err(|error| verdict::of(group, &error))?;
        let by = sender(&processed, before, group)?;
        let content = processed.into_content();
        if matches!(content, ProcessedMessageContent::OwnPrivateMessage) {
            return Err(OpenError::Invalid { group, why: "our own commit, made elsewhere" });
        }
        let ProcessedMessageContent::StagedCommitMessage(staged) = content else {
            return Err(OpenError::Invalid { group, why: "not a commit" });
        };
        let judged =
            judge(&staged, before, by, &self.certificates).map_err(|refusal| match refusal {
                Refusal::Policy(source) => OpenError::Policy { group, by, source },
                Refusal::Credential(source) => {
                    OpenError::Credential { group, by: Some(by), source }
                }
            })?;
        mls.merge_staged_commit(&provider, *staged)
            .map_err(|_| OpenError::Invalid { group, why: "the commit cannot be merged" })?;
        Ok((mls, by, judged))
    }
}

/// Who sent a message: the leaf that MLS authenticated, by its certificate.
fn sender(
    processed: &ProcessedMessage,
    view: &View,
    group: GroupId,
) -> Result<IdentityKey, OpenError> {
    let index = match processed.sender() {
        Sender::Member(index) => *index,
        Sender::External(_) | Sender::NewMemberProposal | Sender::NewMemberCommit => {
            return Err(OpenError::Invalid { group, why: "from outside the group" });
        }
    };
    let member = view.at(index).ok_or(OpenError::Invalid { group, why: "from no member" })?;
    Ok(member.identity_key)
}

/// Judges everything in a commit, before it is merged.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not named here is not allowed")]
fn judge(
    staged: &StagedCommit,
    before: &View,
    by: IdentityKey,
    certificates: &Certificates,
) -> Result<Judged, Refusal> {
    let mut added = Vec::new();
    let mut removed = Vec::new();
    for queued in staged.queued_proposals() {
        let proposer = proposer(queued, before)?;
        match queued.proposal() {
            Proposal::Add(add) if proposer == by => {
                let leaf = add.key_package().leaf_node();
                added.push(certificates.verify_leaf(leaf)?.0.identity_key);
            }
            Proposal::Remove(remove) => {
                let who = identity_at(before, remove.removed())?;
                removed.push(Removal { who, proposer });
            }
            Proposal::GroupContextExtensions(_) if proposer == by => {}
            // Whatever this version does not know, or only the committer may propose.
            _ => return Err(PolicyError::Proposal.into()),
        }
    }
    if let Some(leaf) = staged.update_path_leaf_node() {
        let (certified, _) = certificates.verify_leaf(leaf)?;
        if certified.identity_key != by {
            return Err(CredentialError::IdentityChanged.into());
        }
    }
    let after = policy_bytes(staged.group_context().extensions()).ok_or(PolicyError::Malformed)?;
    policy::judge(&Step {
        before: &before.policy,
        members_before: &before.keys(),
        committer: by,
        added: &added,
        removed: &removed,
        after: &Policy::decode(after)?,
    })?;
    let leavers = removed.iter().filter(|removal| removal.who == removal.proposer);
    Ok(Judged {
        leavers: leavers.map(|removal| removal.who).collect(),
        removes: removed.iter().map(|removal| removal.who).collect(),
    })
}

fn proposer(queued: &QueuedProposal, before: &View) -> Result<IdentityKey, PolicyError> {
    match queued.sender() {
        Sender::Member(index) => identity_at(before, *index),
        Sender::External(_) | Sender::NewMemberProposal | Sender::NewMemberCommit => {
            Err(PolicyError::External)
        }
    }
}

fn identity_at(view: &View, index: LeafNodeIndex) -> Result<IdentityKey, PolicyError> {
    view.at(index).map(|member| member.identity_key).ok_or(PolicyError::NotMember)
}
