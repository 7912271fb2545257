//! Conversations: with one contact, or of a group. Each stands on MLS groups.

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::time::Timestamp;

use super::content::Lifetime;
use super::history::MessageRow;
use crate::groups::{LostWork, StateId};
use crate::store::{StoreError, Table, Tx, decode_row};

/// Conversations that a node keeps at most.
pub const MAX_CONVERSATIONS: usize = 10_000;
/// A number may run ahead of what was seen, and of our own clock, by this much (milliseconds); a
/// larger one, of a liar or of a clock that is wrong by more than a day, is cut.
const MAX_LEAP: u64 = 24 * 3600 * 1000;

/// Which conversation: what its history is filed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConversationId {
    /// With one contact, on whichever direct group both sides settle on.
    Contact(IdentityKey),
    /// Of a group.
    Group(GroupId),
}

impl ConversationId {
    /// The row key; no key is the prefix of another.
    #[must_use]
    pub fn to_key(self) -> Vec<u8> {
        match self {
            Self::Contact(key) => [b"c".as_slice(), key.as_bytes()].concat(),
            Self::Group(group) => [b"g".as_slice(), group.as_bytes()].concat(),
        }
    }

    /// The text form: the contact's id, or the group's.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Contact(key) => key.to_string(),
            Self::Group(group) => group.to_string(),
        }
    }
}

/// Where we stand in a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// We may write.
    #[default]
    Active,
    /// We have proposed to leave and wait until somebody commits it.
    Leaving,
    /// We left.
    Left,
    /// We were removed.
    Removed,
}

/// Where and when our identity was sent in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileSent {
    /// In which group.
    pub group: GroupId,
    /// Under which state.
    pub state: StateId,
    /// When, by our clock.
    pub at: Timestamp,
}

/// What was said about the time after which messages vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// After which; nothing: they stay.
    pub lifetime: Option<Lifetime>,
    /// Where it stands in the history, with author and id.
    pub place: (u64, IdentityKey, MessageId),
}

/// What is kept about a conversation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conversation {
    /// Which one.
    pub id: ConversationId,
    /// A group's name; empty for a contact.
    pub name: String,
    /// The MLS groups that it stands on: one for a group; for a contact all that either side
    /// made, of which the lowest one is written to in which the other was heard.
    pub groups: Vec<GroupId>,
    /// Highest Lamport number seen (see [`super::content`]).
    pub lamport: u64,
    /// See [`Standing`].
    pub standing: Standing,
    /// Our leaf keys are to be renewed before the next message: we have just joined, or how we
    /// are reached has changed.
    pub update_due: bool,
    /// Own messages since our leaf keys were renewed.
    pub since_update: u32,
    /// Renewals of ours since somebody was heard in the newest state. Every epoch bounds how far
    /// its messages may overtake each other, so renewing goes on; but not so far that a member who
    /// is away falls further behind than old states are kept.
    #[serde(default)]
    pub update_unheard: u32,
    /// What our commits on lost branches did: to be done again, where it still makes sense.
    #[serde(default)]
    pub redo: Vec<LostWork>,
    /// The highest number of a message that we wrote and do not have, because this home is an old
    /// copy; 0 when it is none.
    #[serde(default)]
    pub forgotten: u64,
    /// The contact was heard in another group than before: what was encrypted where it never was is
    /// still to be encrypted again.
    #[serde(default)]
    pub moved: bool,
    /// Our identity is to be sent, as soon as the group is quiet.
    #[serde(default)]
    pub profile_due: bool,
    /// It is to be sent with our next message: some members may not know us.
    #[serde(default)]
    pub introduce: bool,
    /// Where it was sent last.
    #[serde(default)]
    pub profile_sent: Option<ProfileSent>,
    /// The highest number of a message that we wrote, whether it is still here or has vanished.
    #[serde(default)]
    pub written: u64,
    /// After which time its messages vanish: what was said last about that.
    #[serde(default)]
    pub timer: Option<Timer>,
    /// We have added somebody who does not know the timer yet: it is to be said again.
    #[serde(default)]
    pub timer_due: bool,
}

impl Conversation {
    /// A conversation without a group yet.
    #[must_use]
    pub const fn new(id: ConversationId, name: String) -> Self {
        Self {
            id,
            name,
            groups: Vec::new(),
            lamport: 0,
            standing: Standing::Active,
            update_due: false,
            since_update: 0,
            update_unheard: 0,
            redo: Vec::new(),
            forgotten: 0,
            moved: false,
            profile_due: false,
            introduce: false,
            profile_sent: None,
            written: 0,
            timer: None,
            timer_due: false,
        }
    }

    /// One conversation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(tx: &Tx, id: ConversationId) -> Result<Option<Self>, StoreError> {
        tx.read(Table::Conversations, &id.to_key())
    }

    /// The conversation with a contact or of a group, a new one without a name where there is none yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find_or_new(tx: &Tx, id: ConversationId) -> Result<Self, StoreError> {
        Ok(Self::find(tx, id)?.unwrap_or_else(|| Self::new(id, String::new())))
    }

    /// The conversation that stands on an MLS group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn of_group(tx: &Tx, group: &GroupId) -> Result<Option<Self>, StoreError> {
        let key = [b"m".as_slice(), group.as_bytes()].concat();
        match tx.read::<ConversationId>(Table::Conversations, &key)? {
            Some(id) => Self::find(tx, id),
            None => Ok(None),
        }
    }

    /// Writes the conversation, and which groups it stands on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn save(&self, tx: &Tx) -> Result<(), StoreError> {
        tx.write(Table::Conversations, &self.id.to_key(), self)
    }

    /// Adds an MLS group that the conversation stands on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stand_on(&mut self, tx: &Tx, group: GroupId) -> Result<(), StoreError> {
        if !self.groups.contains(&group) {
            self.groups.push(group);
            self.groups.sort_unstable();
        }
        let key = [b"m".as_slice(), group.as_bytes()].concat();
        tx.write(Table::Conversations, &key, &self.id)?;
        self.save(tx)
    }

    /// All conversations.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all(tx: &Tx) -> Result<Vec<Self>, StoreError> {
        let mut all = Vec::new();
        for prefix in [b"c", b"g"] {
            for (_, value) in tx.scan_prefix(Table::Conversations, prefix, MAX_CONVERSATIONS)? {
                all.push(decode_row(Table::Conversations, &value)?);
            }
        }
        Ok(all)
    }

    /// The number of the next line: after everything seen, and not before our own clock.
    pub fn next_lamport(&mut self, now: Timestamp) -> u64 {
        self.lamport = self.lamport.saturating_add(1).max(now.as_millis());
        self.lamport
    }

    /// A timer's row is in the history: the last one in its order is in force.
    pub fn set_timer(&mut self, row: &MessageRow) {
        let place = (row.lamport, row.from, row.message_id);
        if self.timer.is_none_or(|timer| timer.place < place) {
            self.timer = Some(Timer { lifetime: row.lifetime, place });
        }
    }

    /// How long messages that are written now stay.
    #[must_use]
    pub fn lifetime(&self) -> Option<Lifetime> {
        self.timer.and_then(|timer| timer.lifetime)
    }

    /// The number of the next message of ours.
    pub fn write_lamport(&mut self, now: Timestamp) -> u64 {
        self.written = self.next_lamport(now);
        self.written
    }

    /// Takes a number that a message came with; answers the number that it is filed under.
    pub fn witness_lamport(&mut self, claimed: u64, now: Timestamp) -> u64 {
        let highest = self.lamport.max(now.as_millis()).saturating_add(MAX_LEAP);
        let filed = claimed.min(highest);
        self.lamport = self.lamport.max(filed);
        filed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_what_was_seen_whatever_the_clocks_say() {
        let at = Timestamp::from_millis;
        let mut conversation =
            Conversation::new(ConversationId::Group(GroupId::new([1; 16])), String::new());
        // A member whose clock is an hour ahead writes; our answer still comes after it.
        let ahead = conversation.witness_lamport(5_000_000, at(1_000_000));
        assert!(conversation.next_lamport(at(1_000_001)) > ahead);
        // A clock in the far future does not push everything else out of sight.
        let cut = conversation.witness_lamport(u64::MAX, at(1_000_002));
        assert_eq!(cut, 5_000_001 + MAX_LEAP);
        assert!(conversation.next_lamport(at(1_000_003)) > cut);
    }
}
