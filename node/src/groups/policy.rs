//! Who may do what: the group-context extension, and the judgement over every commit.
//!
//! Pure: identities and policies in, verdict out. The same function judges our own commits before they
//! are made and others' commits before they are merged, so every member comes to the same verdict.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sremp_common::id::IdentityKey;
use sremp_common::limit::MAX_NAME_BYTES;
use sremp_common::name::Username;
use sremp_common::wire::{List, Text, decode, encode};

use super::{GroupKind, Role};

/// Admins of one group.
pub const MAX_ADMINS: usize = 64;

/// Members of one group.
pub const MAX_MEMBERS: usize = 1024;

/// Version of the rules of this file and of [`super::convergence`] that a group keeps to: what all of
/// its members have to decide alike. It stands in the policy, so that nobody decides by others.
const RULES: u8 = 1;

/// First bytes of MessagePack's short arrays, and its last one-byte number.
const FIRST_ARRAY: u8 = 0x90;
const LAST_ARRAY: u8 = 0x9f;
const LAST_NUMBER: u8 = 0x7f;

/// Which rule a change breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum PolicyError {
    /// Only admins change membership, name and roles.
    #[error("only admins may do this")]
    NotAdmin,
    /// A chat of two has two members.
    #[error("nobody can be added to a chat of two")]
    DirectIsFull,
    /// A chat of two has no name and no roles.
    #[error("a chat of two has no name and no roles")]
    DirectHasNoPolicy,
    /// The kind of a group never changes.
    #[error("the kind of a group cannot change")]
    KindChanged,
    /// Already a member.
    #[error("already a member")]
    AlreadyMember,
    /// Not a member.
    #[error("not a member")]
    NotMember,
    /// Too many members.
    #[error("a group has at most {MAX_MEMBERS} members")]
    TooManyMembers,
    /// Too many admins.
    #[error("a group has at most {MAX_ADMINS} admins")]
    TooManyAdmins,
    /// A group with members needs an admin.
    #[error("the last admin cannot leave or step down: promote somebody first")]
    LastAdmin,
    /// Nobody else is there.
    #[error("you are the only member: there is nobody to leave")]
    Alone,
    /// One's own removal is proposed, not committed.
    #[error("to remove yourself, leave")]
    RemoveSelf,
    /// A name that cannot be shown.
    #[error("not a name for a group")]
    Name,
    /// The group context has no policy, or not in its one encoding, or something besides it.
    #[error("the group's rules are missing or malformed")]
    Malformed,
    /// The group keeps to rules of a later version.
    #[error("the group keeps to rules that this program does not know yet: update it")]
    UnknownRules,
    /// A proposal of a kind, or from a sender, that is not allowed here.
    #[error("a proposal that is not allowed")]
    Proposal,
    /// Somebody outside the group wants to change it.
    #[error("changes from outside are not accepted")]
    External,
}

/// What the members agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What the group is.
    pub kind: GroupKind,
    /// Its name; empty for a chat of two.
    pub name: String,
    /// Its admins, ascending; empty for a chat of two, where both are.
    admins: Vec<IdentityKey>,
}

/// `[rules, kind, name, admins]`, as it stands in the group context.
#[derive(Serialize, Deserialize)]
struct PolicyData {
    rules: u8,
    kind: u8,
    name: Text<MAX_NAME_BYTES>,
    admins: List<IdentityKey, MAX_ADMINS>,
}

impl Policy {
    /// The policy of a new group.
    ///
    /// # Errors
    /// [`PolicyError::Name`], [`PolicyError::DirectHasNoPolicy`].
    pub fn new(kind: GroupKind, name: &str, creator: IdentityKey) -> Result<Self, PolicyError> {
        let admins = match kind {
            GroupKind::Direct => Vec::new(),
            GroupKind::Group => vec![creator],
        };
        let policy = Self { kind, name: name.to_owned(), admins };
        policy.check_form()?;
        Ok(policy)
    }

    /// The bytes of the extension.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&PolicyData {
            rules: RULES,
            kind: match self.kind {
                GroupKind::Direct => 0,
                GroupKind::Group => 1,
            },
            // Both are within their bounds in every policy that passed `check_form`.
            name: Text::truncated(&self.name),
            admins: List::truncated(self.admins.clone()),
        })
    }

    /// The policy of an extension's bytes.
    ///
    /// # Errors
    /// [`PolicyError::UnknownRules`], [`PolicyError::Malformed`], or the rule that it breaks.
    pub fn decode(bytes: &[u8]) -> Result<Self, PolicyError> {
        // What follows the version may have another form in another version.
        if let [FIRST_ARRAY..=LAST_ARRAY, rules @ ..=LAST_NUMBER, ..] = bytes
            && *rules != RULES
        {
            return Err(PolicyError::UnknownRules);
        }
        let data: PolicyData = decode(bytes).map_err(|_| PolicyError::Malformed)?;
        if data.rules != RULES {
            return Err(PolicyError::UnknownRules);
        }
        let kind = match data.kind {
            0 => GroupKind::Direct,
            1 => GroupKind::Group,
            _ => return Err(PolicyError::Malformed),
        };
        let policy = Self { kind, name: data.name.into_string(), admins: data.admins.into_vec() };
        if !policy.admins.is_sorted_by(|a, b| a < b) {
            return Err(PolicyError::Malformed);
        }
        policy.check_form()?;
        Ok(policy)
    }

    fn check_form(&self) -> Result<(), PolicyError> {
        match self.kind {
            GroupKind::Direct if !self.name.is_empty() || !self.admins.is_empty() => {
                Err(PolicyError::DirectHasNoPolicy)
            }
            GroupKind::Direct => Ok(()),
            GroupKind::Group if Username::new(&self.name).is_err() => Err(PolicyError::Name),
            GroupKind::Group if self.admins.len() > MAX_ADMINS => Err(PolicyError::TooManyAdmins),
            GroupKind::Group => Ok(()),
        }
    }

    /// What a member may do.
    #[must_use]
    pub fn role(&self, member: &IdentityKey) -> Role {
        if self.is_admin(member) { Role::Admin } else { Role::Member }
    }

    /// Whether a member changes membership, name and roles.
    #[must_use]
    pub fn is_admin(&self, member: &IdentityKey) -> bool {
        self.kind == GroupKind::Direct || self.admins.binary_search(member).is_ok()
    }

    /// The policy once `members` are all that remain: who went is no admin any more, and when no admin
    /// remains, the longest-standing member (the first leaf) becomes one.
    #[must_use]
    pub fn restricted_to(&self, members: &[IdentityKey]) -> Self {
        let mut policy = self.clone();
        policy.admins.retain(|admin| members.contains(admin));
        if policy.kind == GroupKind::Group && policy.admins.is_empty() {
            policy.admins.extend(members.first());
        }
        policy
    }

    /// The same with another name.
    #[must_use]
    pub fn renamed(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same with one more admin.
    #[must_use]
    pub fn promoted(mut self, member: IdentityKey) -> Self {
        if let Err(place) = self.admins.binary_search(&member) {
            self.admins.insert(place, member);
        }
        self
    }

    /// The same with one admin less.
    #[must_use]
    pub fn demoted(mut self, member: &IdentityKey) -> Self {
        self.admins.retain(|admin| admin != member);
        self
    }
}

/// A removal in a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) who: IdentityKey,
    /// Who proposed it; equal to `who` when they leave.
    pub(super) proposer: IdentityKey,
}

/// One commit, as far as the rules are concerned.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) before: &'a Policy,
    /// In leaf order.
    pub(super) members_before: &'a [IdentityKey],
    pub(super) committer: IdentityKey,
    pub(super) added: &'a [IdentityKey],
    pub(super) removed: &'a [Removal],
    pub(super) after: &'a Policy,
}

/// Whether the commit keeps to the rules of the state that it leaves.
pub(super) fn judge(step: &Step<'_>) -> Result<(), PolicyError> {
    let is_admin = step.before.is_admin(&step.committer);
    if step.after.kind != step.before.kind {
        return Err(PolicyError::KindChanged);
    }
    if !step.members_before.contains(&step.committer) {
        return Err(PolicyError::External);
    }
    judge_removals(step, is_admin)?;
    let gone: BTreeSet<&IdentityKey> = step.removed.iter().map(|removal| &removal.who).collect();
    let remaining: Vec<IdentityKey> =
        step.members_before.iter().filter(|member| !gone.contains(member)).copied().collect();
    judge_additions(step, is_admin, remaining.len())?;
    let expected = step.before.restricted_to(&remaining);
    if *step.after == expected {
        return Ok(());
    }
    if !is_admin {
        return Err(PolicyError::NotAdmin);
    }
    step.after.check_form()?;
    let is_member = |admin: &IdentityKey| remaining.contains(admin) || step.added.contains(admin);
    if !step.after.admins.iter().all(is_member) {
        return Err(PolicyError::NotMember);
    }
    if step.after.kind == GroupKind::Group && step.after.admins.is_empty() {
        return Err(PolicyError::LastAdmin);
    }
    Ok(())
}

fn judge_removals(step: &Step<'_>, is_admin: bool) -> Result<(), PolicyError> {
    let members: BTreeSet<&IdentityKey> = step.members_before.iter().collect();
    for removal in step.removed {
        if !members.contains(&removal.who) {
            return Err(PolicyError::NotMember);
        }
        if removal.who == step.committer {
            return Err(PolicyError::RemoveSelf);
        }
        if removal.proposer == removal.who {
            continue; // A leave: any member may carry it out.
        }
        if removal.proposer != step.committer {
            return Err(PolicyError::Proposal);
        }
        if !is_admin {
            return Err(PolicyError::NotAdmin);
        }
    }
    Ok(())
}

fn judge_additions(step: &Step<'_>, is_admin: bool, remaining: usize) -> Result<(), PolicyError> {
    if step.added.is_empty() {
        return Ok(());
    }
    if !is_admin {
        return Err(PolicyError::NotAdmin);
    }
    let after = remaining.saturating_add(step.added.len());
    match step.before.kind {
        GroupKind::Direct if after > 2 => return Err(PolicyError::DirectIsFull),
        GroupKind::Group if after > MAX_MEMBERS => return Err(PolicyError::TooManyMembers),
        GroupKind::Direct | GroupKind::Group => {}
    }
    // One leaf for each identity in this version.
    let mut taken: BTreeSet<&IdentityKey> = step.members_before.iter().collect();
    if !step.added.iter().all(|added| taken.insert(added)) {
        return Err(PolicyError::AlreadyMember);
    }
    Ok(())
}

/// Whether this member may propose to leave.
pub(super) fn may_leave(
    policy: &Policy,
    members: &[IdentityKey],
    who: &IdentityKey,
) -> Result<(), PolicyError> {
    if members.iter().all(|member| member == who) {
        return Err(PolicyError::Alone);
    }
    let other_admin = members.iter().any(|member| member != who && policy.is_admin(member));
    if policy.is_admin(who) && !other_admin {
        return Err(PolicyError::LastAdmin);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
