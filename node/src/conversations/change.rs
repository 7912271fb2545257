//! What was done to messages after they were written: reactions, edits, deletions.
//!
//! ```text
//! Changes         conversation || author || message || kind || actor  ->  the last one of the actor
//! EarlyChanges    actor || when it came || key in Changes             ->  until when it is kept
//! ```
//! Of each kind, the last change of each actor to a message stands, in the order of the actor's own
//! numbers: whatever came first, and on whatever path, all members end alike. A change may come
//! before its message. Then it waits, within bounds, and the message meets it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{IdentityKey, MessageId};
use sremp_common::time::{Now, Timestamp};

use super::content::Lifetime;
use super::conversation::ConversationId;
use crate::store::{StoreError, Table, Tx, decode_row};

/// Changes of one actor that wait for their messages: then the oldest goes. Whoever joined late never
/// gets the messages that others still react to.
const MAX_EARLY_OF_ONE: usize = 128;
/// Changes that wait, of all actors.
const MAX_EARLY: u64 = 8192;
/// Messages come within this time, or not at all: relays keep them for so long.
const EARLY_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Changes of one message that are read: one of each kind for each member that there was, and many
/// more than there are.
const MAX_OF_ONE_MESSAGE: usize = 65_536;
const ROW_COUNT: &[u8] = b"early-changes";

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Its author replaces the text.
    Edit,
    /// Its author deletes it.
    Delete,
    /// Somebody thinks something of it.
    Reaction,
}

impl ChangeKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Edit => 1,
            Self::Delete => 2,
            Self::Reaction => 3,
        }
    }

    const fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Edit),
            2 => Some(Self::Delete),
            3 => Some(Self::Reaction),
            _ => None,
        }
    }
}

/// Which message is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub conversation: ConversationId,
    /// Who wrote it.
    pub author: IdentityKey,
    /// Its id.
    pub message: MessageId,
}

/// The last change of a kind by one actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// The actor's number, as it was sent: only compared with others of the same actor.
    pub lamport: u64,
    /// Its id.
    pub id: MessageId,
    /// The actor's clock.
    pub at: Timestamp,
    /// The reaction, or the text; empty once the text stands in the message.
    pub value: String,
    /// It waits for its message, since then.
    pub early: Option<Timestamp>,
    /// The event that holds a reaction.
    pub told: Option<u64>,
}

impl ChangeRow {
    /// Whether it comes after another change of the same actor.
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        (self.lamport, self.id) > (other.lamport, other.id)
    }
}

/// The tables of changes.
#[derive(Debug)]
pub struct Changes;

impl Changes {
    /// The change of a kind that somebody made to a message last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(
        tx: &Tx,
        target: &Target,
        kind: ChangeKind,
        actor: &IdentityKey,
    ) -> Result<Option<ChangeRow>, StoreError> {
        tx.read(Table::Changes, &key(target, kind, actor))
    }

    /// Writes a change to a message that is here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write(
        tx: &Tx,
        target: &Target,
        kind: ChangeKind,
        actor: &IdentityKey,
        row: &ChangeRow,
    ) -> Result<(), StoreError> {
        Self::remove(tx, target, kind, actor)?;
        tx.write(Table::Changes, &key(target, kind, actor), row)
    }

    /// Keeps a change until its message comes. Answers whether there was room for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep_early(
        tx: &Tx,
        target: &Target,
        kind: ChangeKind,
        actor: &IdentityKey,
        mut row: ChangeRow,
        lifetime: Option<Lifetime>,
        now: Now,
    ) -> Result<bool, StoreError> {
        Self::remove(tx, target, kind, actor)?;
        let of_one = tx.scan_prefix(Table::EarlyChanges, actor.as_bytes(), MAX_EARLY_OF_ONE)?;
        if let Some((oldest, _)) = of_one.first().filter(|_| of_one.len() >= MAX_EARLY_OF_ONE) {
            Self::remove_early(tx, oldest)?;
        }
        let count = Self::count_early(tx)?;
        if count >= MAX_EARLY {
            return Ok(false);
        }
        tx.write(Table::Meta, ROW_COUNT, &count.saturating_add(1))?;
        let longest = u64::try_from(EARLY_LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let most = Timestamp::from_millis(now.wall.as_millis().saturating_add(longest));
        let until = lifetime.map_or(most, |it| it.end(row.at, now.wall).min(most));
        row.early = Some(now.wall);
        let key = key(target, kind, actor);
        tx.write(Table::EarlyChanges, &early_key(actor, now.wall, &key), &until)?;
        tx.write(Table::Changes, &key, &row)?;
        Ok(true)
    }

    /// The changes of a message.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn of(
        tx: &Tx,
        target: &Target,
    ) -> Result<Vec<(ChangeKind, IdentityKey, ChangeRow)>, StoreError> {
        let damaged = || StoreError::Row(Table::Changes);
        let prefix = prefix(target);
        let mut all = Vec::new();
        for (key, value) in tx.scan_prefix(Table::Changes, &prefix, MAX_OF_ONE_MESSAGE)? {
            let (kind, actor) =
                key.get(prefix.len()..).and_then(<[u8]>::split_first).ok_or_else(damaged)?;
            let kind = ChangeKind::of_byte(*kind).ok_or_else(damaged)?;
            let actor = actor.try_into().map_err(|_| damaged())?;
            let actor = IdentityKey::from_bytes(actor).map_err(|_| damaged())?;
            all.push((kind, actor, decode_row(Table::Changes, &value)?));
        }
        Ok(all)
    }

    /// Removes a change, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove(
        tx: &Tx,
        target: &Target,
        kind: ChangeKind,
        actor: &IdentityKey,
    ) -> Result<(), StoreError> {
        let key = key(target, kind, actor);
        let Some(row) = tx.read::<ChangeRow>(Table::Changes, &key)? else { return Ok(()) };
        match row.early {
            Some(since) => Self::remove_early(tx, &early_key(actor, since, &key)),
            None => {
                tx.delete(Table::Changes, &key);
                Ok(())
            }
        }
    }

    /// Forgets the changes that nobody's message came for in time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expire(tx: &Tx, now: Now) -> Result<(), StoreError> {
        let limit = usize::try_from(MAX_EARLY).unwrap_or(usize::MAX);
        for (key, until) in tx.scan(Table::EarlyChanges, &[], None, limit)? {
            if decode_row::<Timestamp>(Table::EarlyChanges, &until)? <= now.wall {
                Self::remove_early(tx, &key)?;
            }
        }
        Ok(())
    }

    fn remove_early(tx: &Tx, early: &[u8]) -> Result<(), StoreError> {
        let key = early.get(EARLY_HEAD..).ok_or(StoreError::Row(Table::EarlyChanges))?;
        tx.delete(Table::Changes, key);
        tx.delete(Table::EarlyChanges, early);
        tx.write(Table::Meta, ROW_COUNT, &Self::count_early(tx)?.saturating_sub(1))
    }

    fn count_early(tx: &Tx) -> Result<u64, StoreError> {
        Ok(tx.read(Table::Meta, ROW_COUNT)?.unwrap_or_default())
    }
}

/// Before the change's own key: actor and time.
const EARLY_HEAD: usize = 32 + 8;

fn early_key(actor: &IdentityKey, since: Timestamp, key: &[u8]) -> Vec<u8> {
    [actor.as_bytes().as_slice(), &since.as_millis().to_be_bytes(), key].concat()
}

fn prefix(target: &Target) -> Vec<u8> {
    let conversation = target.conversation.to_key();
    [&conversation, target.author.as_bytes().as_slice(), target.message.as_bytes()].concat()
}

fn key(target: &Target, kind: ChangeKind, actor: &IdentityKey) -> Vec<u8> {
    let mut key = prefix(target);
    key.push(kind.byte());
    key.extend_from_slice(actor.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::id::GroupId;
    use sremp_common::key::IdentitySecret;
    use sremp_common::time::Instant;

    use super::*;
    use crate::store::Store;

    const fn at(millis: u64) -> Now {
        Now { instant: Instant::from_millis(0), wall: Timestamp::from_millis(millis) }
    }

    fn row(lamport: u64) -> ChangeRow {
        let id = MessageId::new([1; 16]);
        ChangeRow {
            lamport,
            id,
            at: at(lamport).wall,
            value: "x".to_owned(),
            early: None,
            told: None,
        }
    }

    #[test]
    fn what_waits_for_its_message_is_bounded_for_each_actor_and_in_time() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let mut entropy = Entropy::from_number(1);
        let [liar, honest] = [(), ()].map(|()| IdentitySecret::generate(&mut entropy).public());
        let target = |number: u64| Target {
            conversation: ConversationId::Group(GroupId::new([1; 16])),
            author: honest,
            message: MessageId::new(u128::from(number).to_be_bytes()),
        };
        let keep = |number: u64, actor: &IdentityKey, lifetime| {
            let kind = ChangeKind::Reaction;
            Changes::keep_early(&tx, &target(number), kind, actor, row(9), lifetime, at(number))
                .unwrap()
        };
        assert!(keep(0, &honest, None));
        for number in 0..1000 {
            assert!(keep(number, &liar, None));
        }
        let kept = |number, actor| {
            Changes::find(&tx, &target(number), ChangeKind::Reaction, actor).unwrap().is_some()
        };
        assert_eq!((0..1000).filter(|number| kept(*number, &liar)).count(), MAX_EARLY_OF_ONE);
        assert!(kept(999, &liar) && !kept(0, &liar), "the oldest goes");
        assert!(kept(0, &honest), "nobody pushes out what another one did");
        // The same once more takes no more room, and a message that is here takes it out of the list.
        assert!(keep(999, &liar, None));
        assert_eq!(Changes::count_early(&tx).unwrap(), 129);
        Changes::write(&tx, &target(0), ChangeKind::Reaction, &honest, &row(10)).unwrap();
        assert_eq!(Changes::count_early(&tx).unwrap(), 128);
        // What belongs to a message that vanishes does not wait for longer than that one stays.
        let minute = Lifetime::try_from(60).unwrap();
        assert!(keep(2000, &honest, Some(minute)));
        Changes::expire(&tx, at(2000 + 61_000)).unwrap();
        assert!(!kept(2000, &honest) && kept(999, &liar));
        Changes::expire(&tx, at(3000 + 30 * 86_400_000)).unwrap();
        assert_eq!(Changes::count_early(&tx).unwrap(), 0);
        assert!(kept(0, &honest), "it stands at its message");
    }
}
