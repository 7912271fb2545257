//! Which of several rival commits stands: a pure function of the commits, never of their arrival.
//!
//! The states of a group form a tree. From its root, at each state with more than one child, the
//! commits that made the children are compared:
//!
//! 1. an admin's commit beats another member's;
//! 2. a commit that removes a member beats a commit of that member (if removals go in a circle, so
//!    that nobody would be left, this rule decides nothing, and the next two are left out: each of
//!    the removed knows only how far its own branch goes);
//!    Beyond that, a commit that removes somebody beats one that removes nobody: whoever is removed does
//!    not hear of what follows, and could not know that a longer branch without them has won;
//! 3. the branch with more commits of admins wins (from the divergence to its own tip);
//! 4. then the deeper branch (the one whose own tip has the higher epoch);
//! 5. then the lower identity of the committer;
//! 6. then the lower digest of the commit.
//!
//! Rights come before depth, so that a member without them cannot outrun the admins by committing to
//! its own branch, nor take back what an admin decided after the divergence.

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
    let mut ends: BTreeMap<StateId, End> = BTreeMap::new();
    for state in order {
        let rivals = children.get(&state.id).map_or(&[][..], Vec::as_slice);
        let own = End { tip: state.id, by_admins: 0, epoch: state.epoch };
        let mut end =
            winner(rivals, &ends).and_then(|child| ends.get(&child)).copied().unwrap_or(own);
        let by_admin = state.commit.is_some_and(|commit| commit.by_admin);
        end.by_admins = end.by_admins.saturating_add(u64::from(by_admin));
        ends.insert(state.id, end);
    }
    ends.get(&root).map_or(root, |end| end.tip)
}

/// Where the branch that goes on from a state ends.
#[derive(Clone, Copy, Debug)]
struct End {
    tip: StateId,
    /// Commits of admins on the way there, the one that made the state included.
    by_admins: u64,
    epoch: u64,
}

/// The child whose commit stands against its rivals.
fn winner(rivals: &[&Branch<'_>], ends: &BTreeMap<StateId, End>) -> Option<StateId> {
    let commits = || rivals.iter().filter_map(|rival| Some((rival, rival.commit?)));
    let any_admin = commits().any(|(_, commit)| commit.by_admin);
    let in_class = || commits().filter(move |(_, commit)| commit.by_admin == any_admin);
    let is_removed =
        |committer: &IdentityKey| in_class().any(|(_, other)| other.removes.contains(committer));
    let anybody_left = in_class().any(|(_, commit)| !is_removed(&commit.committer));
    in_class()
        .filter(|(_, commit)| !anybody_left || !is_removed(&commit.committer))
        .min_by_key(|(rival, commit)| {
            let end = ends.get(&rival.id).filter(|_| anybody_left);
            let length = end.map_or((0, 0), |end| (end.by_admins, end.epoch));
            (commit.removes.is_empty(), Reverse(length), commit.committer, commit.digest, rival.id)
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
