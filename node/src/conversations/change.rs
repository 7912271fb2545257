//! What was done to messages after they were written: reactions, edits, deletions.
//!
//! ```text
//! Changes         conversation || author || message || kind || actor  ->  the last one of the actor
//! EarlyChanges    actor || when it came || key in Changes             ->  until when it is kept, length
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
const MAX_EARLY_OF_ONE: u64 = 128;
/// Bytes of the texts of those.
const MAX_EARLY_BYTES_OF_ONE: u64 = 256 * 1024;
/// Changes that wait, of all actors: then the oldest goes of whoever has the most.
const MAX_EARLY: u64 = 8192;
/// Bytes of the texts of those.
const MAX_EARLY_BYTES: u64 = 64 * 1024 * 1024;
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

/// A change that waits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Early {
    until: Timestamp,
    /// Bytes of its text.
    length: u64,
}

/// How many changes wait, and the bytes of their texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    changes: u64,
    bytes: u64,
}

impl Waiting {
    const OF_ONE: Self = Self { changes: MAX_EARLY_OF_ONE, bytes: MAX_EARLY_BYTES_OF_ONE };
    const OF_ALL: Self = Self { changes: MAX_EARLY, bytes: MAX_EARLY_BYTES };

    const fn plus(self, length: u64) -> Self {
        let (changes, bytes) = (self.changes.saturating_add(1), self.bytes.saturating_add(length));
        Self { changes, bytes }
    }

    const fn minus(self, length: u64) -> Self {
        let (changes, bytes) = (self.changes.saturating_sub(1), self.bytes.saturating_sub(length));
        Self { changes, bytes }
    }

    const fn is_within(self, bounds: Self) -> bool {
        self.changes <= bounds.changes && self.bytes <= bounds.bytes
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

    /// Keeps a change until its message comes, in place of older ones when there are too many. One that
    /// is dropped must not be left at a relay: it would be in the way of everything behind it.
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
    ) -> Result<(), StoreError> {
        Self::remove(tx, target, kind, actor)?;
        let length = u64::try_from(row.value.len()).unwrap_or(u64::MAX);
        let all = usize::try_from(MAX_EARLY).unwrap_or(usize::MAX);
        let own = tx.scan_prefix(Table::EarlyChanges, actor.as_bytes(), all)?;
        Self::make_room(tx, &own, length)?;
        if !Self::waiting(tx)?.plus(length).is_within(Waiting::OF_ALL) {
            Self::remove_oldest_of_most(tx)?;
            if !Self::waiting(tx)?.plus(length).is_within(Waiting::OF_ALL) {
                return Ok(());
            }
        }
        tx.write(Table::Meta, ROW_COUNT, &Self::waiting(tx)?.plus(length))?;
        let longest = u64::try_from(EARLY_LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let most = Timestamp::from_millis(now.wall.as_millis().saturating_add(longest));
        let until = lifetime.map_or(most, |it| it.end(row.at, now.wall).min(most));
        row.early = Some(now.wall);
        let key = key(target, kind, actor);
        let early = Early { until, length };
        tx.write(Table::EarlyChanges, &early_key(actor, now.wall, &key), &early)?;
        tx.write(Table::Changes, &key, &row)
    }

    /// Drops the oldest of an actor's changes until one more fits.
    fn make_room(tx: &Tx, rows: &[(Vec<u8>, Vec<u8>)], length: u64) -> Result<(), StoreError> {
        let mut sum = Self::sum(rows)?;
        for (key, value) in rows {
            if sum.plus(length).is_within(Waiting::OF_ONE) {
                break;
            }
            sum = sum.minus(decode_row::<Early>(Table::EarlyChanges, value)?.length);
            Self::remove_early(tx, key)?;
        }
        Ok(())
    }

    /// Drops the oldest change of the actor who has the most of what there is too much of.
    fn remove_oldest_of_most(tx: &Tx) -> Result<(), StoreError> {
        let too_many = Self::waiting(tx)?.changes >= MAX_EARLY;
        let all = usize::try_from(MAX_EARLY).unwrap_or(usize::MAX);
        let rows = tx.scan(Table::EarlyChanges, &[], None, all)?;
        let of_each = rows.chunk_by(|(one, _), (other, _)| one.get(..32) == other.get(..32));
        let most = of_each.max_by_key(|rows| {
            let sum = Self::sum(rows).unwrap_or_default();
            if too_many { sum.changes } else { sum.bytes }
        });
        most.and_then(<[_]>::first).map_or(Ok(()), |(oldest, _)| Self::remove_early(tx, oldest))
    }

    fn sum(rows: &[(Vec<u8>, Vec<u8>)]) -> Result<Waiting, StoreError> {
        rows.iter().try_fold(Waiting::default(), |sum, (_, value)| {
            Ok(sum.plus(decode_row::<Early>(Table::EarlyChanges, value)?.length))
        })
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
        for (key, early) in tx.scan(Table::EarlyChanges, &[], None, limit)? {
            if decode_row::<Early>(Table::EarlyChanges, &early)?.until <= now.wall {
                Self::remove_early(tx, &key)?;
            }
        }
        Ok(())
    }

    fn remove_early(tx: &Tx, early: &[u8]) -> Result<(), StoreError> {
        let key = early.get(EARLY_HEAD..).ok_or(StoreError::Row(Table::EarlyChanges))?;
        let row: Option<Early> = tx.read(Table::EarlyChanges, early)?;
        tx.delete(Table::Changes, key);
        tx.delete(Table::EarlyChanges, early);
        let length = row.map_or(0, |row| row.length);
        tx.write(Table::Meta, ROW_COUNT, &Self::waiting(tx)?.minus(length))
    }

    fn waiting(tx: &Tx) -> Result<Waiting, StoreError> {
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
                .unwrap();
        };
        keep(0, &honest, None);
        for number in 0..1000 {
            keep(number, &liar, None);
        }
        let kept = |number, actor| {
            Changes::find(&tx, &target(number), ChangeKind::Reaction, actor).unwrap().is_some()
        };
        assert_eq!((0..1000).filter(|number| kept(*number, &liar)).count(), 128);
        assert!(kept(999, &liar) && !kept(0, &liar), "the oldest goes");
        assert!(kept(0, &honest), "nobody pushes out what another one did");
        // The same once more takes no more room, and a message that is here takes it out of the list.
        keep(999, &liar, None);
        assert_eq!(Changes::waiting(&tx).unwrap(), Waiting { changes: 129, bytes: 129 });
        Changes::write(&tx, &target(0), ChangeKind::Reaction, &honest, &row(10)).unwrap();
        assert_eq!(Changes::waiting(&tx).unwrap().changes, 128);
        // What belongs to a message that vanishes does not wait for longer than that one stays.
        let minute = Lifetime::try_from(60).unwrap();
        keep(2000, &honest, Some(minute));
        Changes::expire(&tx, at(2000 + 61_000)).unwrap();
        assert!(!kept(2000, &honest) && kept(999, &liar));
        Changes::expire(&tx, at(3000 + 30 * 86_400_000)).unwrap();
        assert_eq!(Changes::waiting(&tx).unwrap(), Waiting::default());
        assert!(kept(0, &honest), "it stands at its message");
    }

    #[test]
    fn many_who_fill_what_waits_push_out_one_another_and_nobody_who_has_little() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let mut entropy = Entropy::from_number(1);
        let mut somebody = || IdentitySecret::generate(&mut entropy).public();
        let (honest, liars) = (somebody(), [(); 65].map(|()| somebody()));
        let target = |number: u64| Target {
            conversation: ConversationId::Group(GroupId::new([1; 16])),
            author: honest,
            message: MessageId::new(u128::from(number).to_be_bytes()),
        };
        let keep = |number: u64, actor: &IdentityKey, row: ChangeRow| {
            let (target, kind) = (target(number), ChangeKind::Reaction);
            Changes::keep_early(&tx, &target, kind, actor, row, None, at(number)).unwrap();
        };
        keep(0, &honest, row(1));
        for liar in &liars {
            (0..128).for_each(|number| keep(number, liar, row(1)));
        }
        assert_eq!(Changes::waiting(&tx).unwrap().changes, MAX_EARLY);
        // There is room for whoever comes with little, and what was there of such stays.
        keep(1, &honest, row(1));
        let kept = |number, actor| {
            Changes::find(&tx, &target(number), ChangeKind::Reaction, actor).unwrap().is_some()
        };
        assert!(kept(0, &honest) && kept(1, &honest));
        assert_eq!(Changes::waiting(&tx).unwrap().changes, MAX_EARLY);
        // Long texts are fewer.
        let long = ChangeRow { value: "x".repeat(60_000), ..row(2) };
        (200..210).for_each(|number| keep(number, &honest, long.clone()));
        assert!(kept(209, &honest) && kept(206, &honest) && !kept(205, &honest));
    }
}
