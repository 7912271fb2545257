//! What a state says about its members and rules, parsed once, and how two states differ.

use std::sync::Arc;

use openmls::prelude::{LeafNodeIndex, MlsGroup};
use sremp_common::id::IdentityKey;

use super::certificates::Certificates;
use super::extension::policy_bytes;
use super::policy::Policy;
use super::{GroupError, GroupEvent, Member, Recipient, Roster};

/// Members and rules of one state. All leaves were verified before the state was entered.
#[derive(Debug)]
pub(super) struct View {
    pub(super) policy: Policy,
    /// In leaf order.
    pub(super) members: Arc<Roster>,
    /// Their leaves, in the same order.
    leaves: Vec<LeafNodeIndex>,
    /// All but ourselves.
    pub(super) others: Arc<[Recipient]>,
}

impl View {
    pub(super) fn of(
        group: &MlsGroup,
        own: &IdentityKey,
        certificates: &Certificates,
    ) -> Result<Self, GroupError> {
        let bytes = policy_bytes(group.extensions()).ok_or(GroupError::Mls("no policy"))?;
        let policy = Policy::decode(bytes)?;
        let (mut members, mut leaves) = (Vec::new(), Vec::new());
        for (index, leaf) in group.public_group().treesync().full_leaves() {
            let (certified, info) = certificates.parse_leaf(leaf)?;
            let leaf_key = leaf.signature_key().as_slice().try_into();
            let member_view = Member {
                identity_key: certified.identity_key,
                leaf: info,
                role: policy.role(&certified.identity_key),
                leaf_key: leaf_key.map_err(|_| GroupError::Mls("leaf key"))?,
            };
            members.push(member_view);
            leaves.push(index);
        }
        let others = members
            .iter()
            .filter(|member| member.identity_key != *own)
            .map(|member| (member.identity_key, member.leaf.clone()))
            .collect();
        Ok(Self { policy, members: Arc::new(Roster::new(members)), leaves, others })
    }

    /// Identity keys, in leaf order.
    pub(super) fn keys(&self) -> Vec<IdentityKey> {
        self.members.iter().map(|member| member.identity_key).collect()
    }

    pub(super) fn member(&self, key: &IdentityKey) -> Option<&Member> {
        self.members.find(key)
    }

    pub(super) fn at(&self, index: LeafNodeIndex) -> Option<&Member> {
        self.members.get(self.leaves.binary_search(&index).ok()?)
    }

    pub(super) fn index_of(&self, key: &IdentityKey) -> Option<LeafNodeIndex> {
        self.leaves.get(self.members.place(key)?).copied()
    }

    /// What is different in `self`, as compared to `before`. `leavers` are those who went by their own
    /// wish, `own` is how we ourselves appear.
    pub(super) fn changes_since(
        &self,
        before: &Self,
        leavers: &[IdentityKey],
        own: &IdentityKey,
    ) -> Vec<GroupEvent> {
        let mut events = Vec::new();
        for old in before.members.iter() {
            let key = old.identity_key;
            if self.member(&key).is_none() {
                events.push(if key == *own {
                    GroupEvent::MeRemoved
                } else if leavers.contains(&key) {
                    GroupEvent::Left(key)
                } else {
                    GroupEvent::Removed(key)
                });
            }
        }
        for new in self.members.iter() {
            let key = new.identity_key;
            let Some(old) = before.member(&key) else {
                events.push(GroupEvent::Added(key));
                continue;
            };
            if old.role != new.role {
                events.push(match new.role {
                    super::Role::Admin => GroupEvent::Promoted(key),
                    super::Role::Member => GroupEvent::Demoted(key),
                });
            }
            if old.leaf != new.leaf || old.leaf_key != new.leaf_key {
                events.push(GroupEvent::Updated(key));
            }
        }
        if self.policy.name != before.policy.name {
            events.push(GroupEvent::Renamed(self.policy.name.clone()));
        }
        events
    }
}
