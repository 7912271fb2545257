//! Everything that can go wrong with groups, by the rule that was broken.

use sremp_common::id::{GroupId, IdentityKey};

use super::credential::CredentialError;
use super::policy::PolicyError;
use crate::store::StoreError;

/// Why something that we wanted to do with a group was not done. Nothing has changed then, once the
/// caller has refused the input.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// No such group.
    #[error("no such group")]
    NoSuchGroup,
    /// We are not a member any more.
    #[error("you are not a member of this group any more")]
    NotMember,
    /// We proposed to leave; nothing else is done here any more.
    #[error("you are leaving this group")]
    Leaving,
    /// This home is an old copy: its keys may have been used since.
    #[error("this is an old copy of the group: it is joined anew first, by itself")]
    Stale,
    /// What a member offers to come back by does not hold.
    #[error("the way back into the group is refused: {0}")]
    Offer(&'static str),
    /// The policy of the group forbids it.
    #[error("the group's rules forbid it")]
    Policy(#[from] PolicyError),
    /// Nobody proposed to leave.
    #[error("there is nothing to commit")]
    NothingToCommit,
    /// So many rival changes are kept that no other of an ordinary member is.
    #[error(
        "members have made too many rival changes of this group; only an admin can change it now"
    )]
    TooManyRivals,
    /// A certificate does not hold.
    #[error("a member's certificate is refused")]
    Credential(#[from] CredentialError),
    /// A key package is refused.
    #[error("the key package is refused")]
    KeyPackage(#[from] KeyPackageError),
    /// A Welcome is refused.
    #[error("the invitation is refused")]
    Welcome(#[from] WelcomeError),
    /// Longer than a message may be.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// Only members confirm, and only messages of members.
    #[error("{0:?} is not a member in that state of the group")]
    NotMemberThen(IdentityKey),
    /// The state in which the messages came is not kept any more.
    #[error("the state of the group in which this happened is not kept any more")]
    StateGone,
    /// OpenMLS refused: a defect of ours, or a damaged store. The text says where.
    #[error("the group's cryptography failed: {0}")]
    Mls(&'static str),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Why somebody's key package is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyPackageError {
    /// Not a key package message, or damaged, or its signature does not hold.
    #[error("it is malformed or forged")]
    Malformed,
    /// None of them is for the group's cipher suite.
    #[error("their program does not support the group's cipher suite")]
    Suite,
    /// It says nothing about its validity, or is valid for longer than is allowed.
    #[error("its lifetime is out of range")]
    Lifetime,
    /// It is not valid any more, by our clock.
    #[error("it has expired")]
    Expired,
    /// It is not valid yet, by our clock.
    #[error("it is not valid yet: is a clock wrong?")]
    NotYetValid,
    /// It belongs to another identity.
    #[error("it belongs to somebody else")]
    WrongOwner,
    /// Its leaf does not say how its owner is reached.
    #[error("its leaf is incomplete")]
    Leaf,
}

/// Why a Welcome is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WelcomeError {
    /// Not a Welcome, or damaged.
    #[error("it is malformed or forged")]
    Malformed,
    /// It was made for somebody else, or for a key package that was used or has expired.
    #[error("it is for somebody else, or was used already")]
    NotForUs,
    /// The state it leads into was entered before.
    #[error("it was used already")]
    Replayed,
    /// It leads into an earlier epoch than the one at which we came in.
    #[error("it is older than the one that you joined by")]
    Late,
    /// We are a member of this group already, by another's invitation into the same state, or who sent it
    /// never was one.
    #[error("it would replace a group that you are a member of")]
    LiveGroup(GroupId),
    /// We are a member of this group, and so is, or was, who sent it, but no admin as we know it: we may
    /// have been taken out and added anew, and not have heard of it yet.
    #[error("it would replace a group that you are a member of, and its sender is no admin of it")]
    UnknownAdmin(GroupId),
    /// Who made it is no admin of the group.
    #[error("its sender may not invite")]
    NotAdmin,
    /// The group says nothing about its rules, or breaks them.
    #[error("the group's rules are missing or broken")]
    Policy,
}

/// Why a blob was not opened. Nothing has changed, once the caller has refused the input.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No state of ours has this tag: the blob is sealed, or early, or later than we keep states.
    #[error("no known state of a group opens this blob")]
    UnknownState,
    /// The right state, but something that it builds on has not come yet: try again later.
    #[error("something that this builds on has not come yet")]
    Early(GroupId),
    /// Processed before.
    #[error("this was processed before")]
    Duplicate(GroupId),
    /// More than 256 messages of its sender behind: its key is gone.
    #[error("this came too late within its epoch: its key is gone")]
    TooLate(GroupId),
    /// More than 4,096 messages of its sender are missing before it.
    #[error("more than 4096 messages are missing before this one")]
    Gap(GroupId),
    /// We are not a member in that state.
    #[error("you are not a member of this group any more")]
    NotMember(GroupId),
    /// A commit or proposal that its sender may not make.
    #[error("the group's rules forbid this change")]
    Policy {
        /// In which group.
        group: GroupId,
        /// Who made it.
        by: IdentityKey,
        /// Which rule it breaks.
        source: PolicyError,
    },
    /// A certificate in a commit does not hold.
    #[error("a member's certificate is refused")]
    Credential {
        /// In which group.
        group: GroupId,
        /// Who made it; nobody in particular when it is in what we keep ourselves.
        by: Option<IdentityKey>,
        /// Which rule it breaks.
        source: CredentialError,
    },
    /// More rival commits than are kept.
    #[error("too many rival changes of this group")]
    TooManyRivals(GroupId),
    /// Its author has made more rival commits than are kept of one member.
    #[error("one of more rival changes of one member than are kept")]
    Outdone(GroupId),
    /// Damaged, forged, or malformed. The text says what is wrong.
    #[error("invalid: {why}")]
    Invalid {
        /// In which group.
        group: GroupId,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl OpenError {
    /// In which group the rules were broken by what came, and by whom: whatever of it a program that
    /// keeps to them never makes.
    pub(crate) const fn forbidden(&self) -> Option<(GroupId, IdentityKey)> {
        match self {
            Self::Policy { group, by, .. } | Self::Credential { group, by: Some(by), .. } => {
                Some((*group, *by))
            }
            Self::UnknownState
            | Self::Early(_)
            | Self::Duplicate(_)
            | Self::TooLate(_)
            | Self::Gap(_)
            | Self::NotMember(_)
            | Self::Credential { .. }
            | Self::TooManyRivals(_)
            | Self::Outdone(_)
            | Self::Invalid { .. }
            | Self::Store(_) => None,
        }
    }
}
