//! The plain data that goes in and out of [`super::Groups`]. No behaviour, no MLS types.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sremp_common::id::{GroupId, IdentityKey, MessageId, SealKey, Token};
use sremp_common::identity::RelayRecord;
use sremp_common::limit::{MAX_RECEIPT_IDS, MAX_RELAYS};
use sremp_common::time::Timestamp;
use sremp_common::wire::List;

use super::view::View;

/// One state of one group: the result of one commit on one parent state. Local to this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateId(ByteArray<16>);

impl StateId {
    /// The id of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(ByteArray::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sremp_common::id::hex(self.as_bytes()))
    }
}

impl fmt::Debug for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateId({self})")
    }
}

/// How a member can be reached by whoever shares a group with them: the leaf-node extension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafInfo {
    /// Relays that hold the member's mailboxes, in order of preference.
    pub relays: List<RelayRecord, MAX_RELAYS>,
    /// Blobs for the member alone are sealed to this key.
    pub seal_key: SealKey,
    /// Opens the member's mailboxes.
    pub token: Token,
}

/// What a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupKind {
    /// A chat of two. Both are admins; nobody can be added.
    Direct,
    /// Any number of members, with admins.
    Group,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Changes membership, name and roles.
    Admin,
    /// Sends, updates its own keys, leaves.
    Member,
}

/// One member, as the group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who: from the leaf's certificate, verified.
    pub identity_key: IdentityKey,
    /// How to reach them.
    pub leaf: LeafInfo,
    /// What they may do.
    pub role: Role,
    /// The Ed25519 key of the leaf, which signs messages and receipts.
    pub leaf_key: [u8; 32],
}

/// Everybody in one state, in leaf order; found by identity without looking at each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    members: Vec<Member>,
    /// Places in `members`, in the order of the identity keys.
    by_key: Vec<usize>,
}

impl Roster {
    /// These members, in leaf order.
    #[must_use]
    pub fn new(members: Vec<Member>) -> Self {
        let mut by_key: Vec<usize> = (0..members.len()).collect();
        by_key.sort_by_key(|place| members.get(*place).map(|member| member.identity_key));
        Self { members, by_key }
    }

    /// Where in leaf order the member of this identity stands.
    #[must_use]
    pub fn place(&self, key: &IdentityKey) -> Option<usize> {
        let at = |place: &usize| self.members.get(*place).map(|member| member.identity_key);
        let found = self.by_key.binary_search_by(|place| at(place).cmp(&Some(*key))).ok()?;
        self.by_key.get(found).copied()
    }

    /// The member of this identity.
    #[must_use]
    pub fn find(&self, key: &IdentityKey) -> Option<&Member> {
        self.members.get(self.place(key)?)
    }
}

impl std::ops::Deref for Roster {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        &self.members
    }
}

/// A group as it stands at its tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Which group.
    pub id: GroupId,
    /// What it is.
    pub kind: GroupKind,
    /// Its name; empty for a chat of two.
    pub name: String,
    /// Commits since its creation.
    pub epoch: u64,
    /// Equal for two members exactly when their states are equal (RFC 9420 section 8.7).
    pub epoch_authenticator: Vec<u8>,
    /// The MLS cipher suite's number.
    pub suite: u16,
    /// Everybody, ourselves included, in leaf order.
    pub members: Arc<Roster>,
    /// False once we were removed, or left.
    pub active: bool,
    /// We have proposed to leave, and nobody has committed it yet.
    pub leaving: bool,
    /// Somebody proposed to leave in this state: [`Change::CommitProposals`] carries it out.
    pub leave_proposed: Vec<IdentityKey>,
    /// The tip.
    pub state: StateId,
    /// When the tip was entered, by our clock.
    pub entered_at: Timestamp,
}

impl Summary {
    /// The member of this identity.
    #[must_use]
    pub fn member(&self, key: &IdentityKey) -> Option<&Member> {
        self.members.find(key)
    }

    /// Whether this identity is a member who may change the group.
    #[must_use]
    pub fn is_admin(&self, key: &IdentityKey) -> bool {
        self.member(key).is_some_and(|member| member.role == Role::Admin)
    }
}

/// Whom a blob is for, and how to reach them.
pub type Recipient = (IdentityKey, LeafInfo);

/// A change that becomes one commit. Every change also carries out leaves proposed in the same state.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds the owners of the key packages. Admins only.
    Add(Vec<super::CheckedKeyPackage>),
    /// Removes members. Admins only.
    Remove(Vec<IdentityKey>),
    /// Gives the group another name. Admins only.
    Rename(String),
    /// Makes a member an admin. Admins only.
    Promote(IdentityKey),
    /// Makes an admin a plain member. Admins only.
    Demote(IdentityKey),
    /// Renews our own keys, and says how to reach us from now on.
    Update(LeafInfo),
    /// Carries out the leaves that were proposed.
    CommitProposals,
}

/// A commit that was made and merged here, to be sent.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Wrapped under the state that the commit leaves.
    pub commit: Vec<u8>,
    /// All members of that state but us: those who are removed by it, too.
    pub recipients: Arc<[Recipient]>,
    /// An MLS Welcome, to be sealed to each of `joined`.
    pub welcome: Option<Vec<u8>>,
    /// Whom the commit added.
    pub joined: Vec<Recipient>,
    /// Key package references of `joined`, in the same order.
    pub references: Vec<Vec<u8>>,
    /// The state that the commit enters.
    pub state: StateId,
    /// Its epoch.
    pub epoch: u64,
    /// What the commit did.
    pub events: Vec<GroupEvent>,
}

impl Changed {
    /// The Welcome taken apart: for each of `joined`, in this order, and what they have in common.
    #[must_use]
    pub fn welcomes(&self) -> Option<super::Welcomes> {
        super::Welcomes::split(self.welcome.as_ref()?, &self.references)
    }
}

/// A proposal or message to be sent.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Wrapped under the state.
    pub blob: Vec<u8>,
    /// All members but us.
    pub recipients: Arc<[Recipient]>,
    /// The state that it was encrypted in: see [`super::Groups::is_on_branch`].
    pub state: StateId,
    /// Its epoch.
    pub epoch: u64,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptKind {
    /// The recipient's node has processed them.
    Delivered,
    /// The recipient's user has seen them.
    Read,
}

/// A receipt to be made.
#[derive(Clone, Debug)]
pub struct ReceiptBody {
    /// In which group.
    pub group: GroupId,
    /// The state in which the messages were opened.
    pub state: StateId,
    /// Whose messages are confirmed: the receipt is for them alone.
    pub author: IdentityKey,
    /// Which messages.
    pub ids: List<MessageId, MAX_RECEIPT_IDS>,
    /// What became of them.
    pub kind: ReceiptKind,
    /// When, by our clock.
    pub time: Timestamp,
}

/// What a blob turned out to be.
#[derive(Clone, Debug)]
pub enum Opened {
    /// Content for us. The sender is authenticated by MLS and its leaf's certificate.
    Message {
        /// In which group.
        group: GroupId,
        /// Opened in this state.
        state: StateId,
        /// Its epoch.
        epoch: u64,
        /// Who wrote it.
        sender: IdentityKey,
        /// The sender is no member any more, at the tip: this is late, or written after the removal in
        /// the last state that the sender has. It cannot be told which.
        former: bool,
        /// What they wrote.
        content: Vec<u8>,
    },
    /// A member confirms messages of ours.
    Receipt {
        /// In which group.
        group: GroupId,
        /// The epoch in which they were confirmed.
        epoch: u64,
        /// Who confirms; verified with its leaf key.
        from: IdentityKey,
        /// Which messages.
        ids: Vec<MessageId>,
        /// What became of them.
        kind: ReceiptKind,
        /// When, by the member's clock.
        time: Timestamp,
    },
    /// A commit was applied. `events` are empty when it lost against a rival for now.
    Changed {
        /// In which group.
        group: GroupId,
        /// The epoch that the commit ends.
        epoch: u64,
        /// Who made the commit.
        by: IdentityKey,
        /// Differences between the tip before and the tip now.
        events: Vec<GroupEvent>,
        /// Somebody else has committed in the same epoch.
        raced: bool,
    },
    /// A member wants to leave: any other member commits it ([`Change::CommitProposals`]).
    LeaveProposed {
        /// In which group.
        group: GroupId,
        /// Who.
        who: IdentityKey,
    },
}

/// What is different at the tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// A member is new.
    Added(IdentityKey),
    /// A member was removed.
    Removed(IdentityKey),
    /// A member left by its own wish.
    Left(IdentityKey),
    /// The group has another name.
    Renamed(String),
    /// A member is an admin now.
    Promoted(IdentityKey),
    /// An admin is a plain member now.
    Demoted(IdentityKey),
    /// A member renewed its keys or changed how it is reached.
    Updated(IdentityKey),
    /// A member who had lost its state is back.
    Rejoined(IdentityKey),
    /// Another branch won: the tip is not a descendant of the tip before. Messages sent in states
    /// that are not [`super::Groups::is_on_branch`] have to be sent again.
    Switched {
        /// Our own commits of the branch that lost, oldest first: do them again if they still make sense.
        lost: Vec<LostWork>,
    },
    /// We are not a member any more.
    MeRemoved,
}

/// What a commit of ours did that is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostWork {
    /// We added these: their key packages are used up, they need new ones and a new Welcome.
    Added(Vec<IdentityKey>),
    /// We removed these.
    Removed(Vec<IdentityKey>),
    /// We gave this name.
    Renamed(String),
    /// We promoted this member.
    Promoted(IdentityKey),
    /// We demoted this member.
    Demoted(IdentityKey),
    /// We renewed our own leaf.
    Updated,
    /// We carried out leaves of these members.
    LeavesCommitted(Vec<IdentityKey>),
}

impl LostWork {
    /// Who is in is decided anew by whatever comes after the switch. Answers whether anything is left to
    /// be done again. (Of a name or a role it cannot be told whether it was given since, or at the same
    /// time on the branch that stands: what was lost is done again.)
    pub fn outlives(&mut self, since: &GroupEvent) -> bool {
        match (self, since) {
            (Self::Removed(people) | Self::LeavesCommitted(people), GroupEvent::Added(who))
            | (Self::Added(people), GroupEvent::Removed(who) | GroupEvent::Left(who)) => {
                people.retain(|it| it != who);
                !people.is_empty()
            }
            _ => true,
        }
    }

    /// Leaves of it what still held in a state that came later: the rest was overruled on our own side.
    /// Answers whether anything is left.
    pub(super) fn held_in(&mut self, later: &View) -> bool {
        match self {
            Self::Added(people) => {
                people.retain(|who| later.member(who).is_some());
                !people.is_empty()
            }
            Self::Removed(people) | Self::LeavesCommitted(people) => {
                people.retain(|who| later.member(who).is_none());
                !people.is_empty()
            }
            Self::Renamed(name) => later.policy.name == *name,
            Self::Promoted(who) => later.policy.is_admin(who),
            Self::Demoted(who) => !later.policy.is_admin(who),
            Self::Updated => true,
        }
    }
}

/// A group that was joined by a Welcome.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Which group.
    pub group: GroupId,
    /// What it is.
    pub kind: GroupKind,
    /// Its name.
    pub name: String,
    /// Who made the Welcome; an admin of the group.
    pub inviter: IdentityKey,
    /// Everybody, ourselves included.
    pub members: Arc<Roster>,
    /// Its epoch.
    pub epoch: u64,
    /// The state entered.
    pub state: StateId,
    /// We were a member already, on a branch that an admin has given up: this state replaces it.
    pub replaced: bool,
}
