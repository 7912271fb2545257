//! Which of several rival commits stands: a pure function of the commits, never of their arrival.
//!
//! The states of a group form a tree. From its root, at each state with more than one child, the
//! commits that made the children are compared:
//!
//! 1. an admin's commit beats another member's;
//! 2. a commit that removes a member beats a commit of that member (if removals go in a circle, so
//!    that nobody would be left, this rule decides nothing, and the next one is left out: each of
//!    the removed knows only how deep its own branch is);
//! 3. the deeper branch wins (the one whose own tip has the higher epoch);
//! 4. then the lower identity of the committer;
//! 5. then the lower digest of the commit.
//!
//! Ranks of the first divergence come before depth, so that a member without rights cannot outrun the
//! admins by committing to its own branch.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sremp_common::id::IdentityKey;

use crate::groups::StateId;

/// What the rules need to know of the commit that made a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::groups) struct Commit {
    pub(in crate::groups) committer: IdentityKey,
    /// The committer was an admin in the parent state.
    pub(in crate::groups) by_admin: bool,
    /// Whom it removes.
    pub(in crate::groups) removes: Vec<IdentityKey>,
    /// SHA-256 of the commit.
    pub(in crate::groups) digest: ByteArray<32>,
}

/// One state, as the rules see it.
#[derive(Clone, Debug)]
pub(in crate::groups) struct Branch<'a> {
    pub(in crate::groups) id: StateId,
    pub(in crate::groups) parent: Option<StateId>,
    pub(in crate::groups) epoch: u64,
    pub(in crate::groups) commit: Option<&'a Commit>,
}

/// The state at the end of the branch that stands, from `root` on. The root itself when it has no
/// children, or is unknown.
pub(in crate::groups) fn tip(states: &[Branch<'_>], root: StateId) -> StateId {
    let mut children: BTreeMap<StateId, Vec<&Branch<'_>>> = BTreeMap::new();
    for state in states {
        if let Some(parent) = state.parent {
            children.entry(parent).or_default().push(state);
        }
    }
    // The tips of the children are needed before their parents': highest epochs first. A child's
    // epoch is one above its parent's, whatever the order of the slice.
    let mut order: Vec<&Branch<'_>> = states.iter().collect();
    order.sort_by_key(|state| (Reverse(state.epoch), state.id));
    let mut tips: BTreeMap<StateId, (StateId, u64)> = BTreeMap::new();
    for state in order {
        let rivals = children.get(&state.id).map_or(&[][..], Vec::as_slice);
        let end = match winner(rivals, &tips) {
            Some(child) => tips.get(&child).copied().unwrap_or((child, state.epoch)),
            None => (state.id, state.epoch),
        };
        tips.insert(state.id, end);
    }
    tips.get(&root).map_or(root, |(tip, _)| *tip)
}

/// The child whose commit stands against its rivals.
fn winner(rivals: &[&Branch<'_>], tips: &BTreeMap<StateId, (StateId, u64)>) -> Option<StateId> {
    let commits = || rivals.iter().filter_map(|rival| Some((rival, rival.commit?)));
    let any_admin = commits().any(|(_, commit)| commit.by_admin);
    let in_class = || commits().filter(move |(_, commit)| commit.by_admin == any_admin);
    let is_removed =
        |committer: &IdentityKey| in_class().any(|(_, other)| other.removes.contains(committer));
    let anybody_left = in_class().any(|(_, commit)| !is_removed(&commit.committer));
    in_class()
        .filter(|(_, commit)| !anybody_left || !is_removed(&commit.committer))
        .min_by_key(|(rival, commit)| {
            let epoch = tips.get(&rival.id).map_or(rival.epoch, |(_, epoch)| *epoch);
            let depth = if anybody_left { epoch } else { 0 };
            (Reverse(depth), commit.committer, commit.digest, rival.id)
        })
        .map(|(rival, _)| rival.id)
}

/// Whether `ancestor` is `state` or one of its ancestors.
pub(in crate::groups) fn is_ancestor(
    states: &[Branch<'_>],
    ancestor: StateId,
    state: StateId,
) -> bool {
    path(states, state).contains(&ancestor)
}

/// The state and its ancestors, youngest first.
pub(in crate::groups) fn path(states: &[Branch<'_>], from: StateId) -> Vec<StateId> {
    let mut path = Vec::new();
    let mut next = Some(from);
    while let Some(id) = next
        && path.len() <= states.len()
    {
        path.push(id);
        next = states.iter().find(|state| state.id == id).and_then(|state| state.parent);
    }
    path
}

#[cfg(test)]
mod tests;
