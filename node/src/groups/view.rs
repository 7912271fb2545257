//! What a state says about its members and rules, parsed once, and how two states differ.

use std::sync::Arc;

use openmls::prelude::{LeafNodeIndex, MlsGroup};
use sremp_common::id::IdentityKey;

use super::extension::{parse_leaf, policy_bytes};
use super::policy::Policy;
use super::{GroupError, GroupEvent, Member, Recipient};

/// Members and rules of one state. All leaves were verified before the state was entered.
#[derive(Debug)]
pub(super) struct View {
    pub(super) policy: Policy,
    /// In leaf order.
    pub(super) members: Vec<(LeafNodeIndex, Member)>,
    /// All but ourselves.
    pub(super) others: Arc<[Recipient]>,
}

impl View {
    pub(super) fn of(group: &MlsGroup, own: &IdentityKey) -> Result<Self, GroupError> {
        let bytes = policy_bytes(group.extensions()).ok_or(GroupError::Mls("no policy"))?;
        let policy = Policy::decode(bytes)?;
        let mut members = Vec::new();
        for member in group.members() {
            let leaf = group.public_group().leaf(member.index).ok_or(GroupError::Mls("no leaf"))?;
            let (certified, info) = parse_leaf(leaf)?;
            let leaf_key = leaf.signature_key().as_slice().try_into();
            let member_view = Member {
                identity_key: certified.identity_key,
                leaf: info,
                role: policy.role(&certified.identity_key),
                leaf_key: leaf_key.map_err(|_| GroupError::Mls("leaf key"))?,
            };
            members.push((member.index, member_view));
        }
        let others = members
            .iter()
            .filter(|(_, member)| member.identity_key != *own)
            .map(|(_, member)| (member.identity_key, member.leaf.clone()))
            .collect();
        Ok(Self { policy, members, others })
    }

    /// Identity keys, in leaf order.
    pub(super) fn keys(&self) -> Vec<IdentityKey> {
        self.members.iter().map(|(_, member)| member.identity_key).collect()
    }

    pub(super) fn member(&self, key: &IdentityKey) -> Option<&Member> {
        self.members.iter().map(|(_, member)| member).find(|member| member.identity_key == *key)
    }

    pub(super) fn at(&self, index: LeafNodeIndex) -> Option<&Member> {
        self.members.iter().find(|(at, _)| *at == index).map(|(_, member)| member)
    }

    pub(super) fn index_of(&self, key: &IdentityKey) -> Option<LeafNodeIndex> {
        self.members.iter().find(|(_, member)| member.identity_key == *key).map(|(index, _)| *index)
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
        for (_, old) in &before.members {
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
        for (_, new) in &self.members {
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
