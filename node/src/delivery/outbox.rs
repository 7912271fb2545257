//! The outbox: what waits for whom, from the transaction that made a blob until the one that records
//! that a mailbox of each recipient holds it.
//!
//! ```text
//! Outbox          recipient || blob   ->  nothing: this recipient still waits
//! OutboxProgress  blob                ->  what the blob is for, and how many still wait
//! OutboxBlobs     blob                ->  its bytes, written once
//! Pauses          recipient           ->  failed attempts in a row, if there are any
//! ```
//! A blob for many recipients is stored once. It is never made twice: a retry sends the same bytes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::time::{Now, Timestamp};

use super::lane::Pauses;
use crate::store::{StoreError, Table, Tx};

/// After this long a blob that no mailbox took is given up, visibly.
pub const PARCEL_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// A note says where we stand now.
const NOTE_LIFETIME: Duration = Duration::from_secs(3600);
/// Rows for all recipients; further messages are refused until some have gone.
pub const MAX_PARCELS: u64 = 200_000;

/// What a blob is for: who has to know when it is stored, or given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A message of ours.
    Message(MessageId),
    /// A commit or proposal of ours.
    Commit(GroupId),
    /// A Welcome of ours, held back until a member has the commit (the number of its blob).
    Welcome(GroupId, Option<u64>),
    /// A receipt of ours.
    Receipt,
    /// What we told a member about where we stand: of no use later.
    Note,
}

impl Purpose {
    /// After this long a blob that no mailbox took is given up, visibly.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        match self {
            Self::Message(_) | Self::Commit(_) | Self::Welcome(..) | Self::Receipt => {
                PARCEL_LIFETIME
            }
            Self::Note => NOTE_LIFETIME,
        }
    }
}

/// One blob, on its way to those who still wait for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parcel {
    /// Which blob; also the order in which they leave.
    pub blob: u64,
    /// See [`Purpose`].
    pub purpose: Purpose,
    /// The group that it belongs to: blobs of two groups never share a session with a relay.
    pub group: GroupId,
    /// When it was made.
    pub made: Timestamp,
    /// Bytes of the blob.
    pub length: usize,
    /// Recipients that still wait for it.
    waiting: u32,
    /// Some recipient has it.
    stored: bool,
}

/// The outbox tables.
#[derive(Debug)]
pub struct Outbox;

impl Outbox {
    /// Puts a blob of a group on its way to all recipients; answers its number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(
        tx: &Tx,
        group: GroupId,
        bytes: Vec<u8>,
        recipients: &[IdentityKey],
        purpose: &Purpose,
        now: Now,
    ) -> Result<u64, StoreError> {
        let waiting = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
        let mut numbers = Numbers::read(tx)?;
        let blob = numbers.last.saturating_add(1);
        numbers.last = blob;
        numbers.waiting = numbers.waiting.saturating_add(waiting.into());
        numbers.write(tx)?;
        if recipients.is_empty() {
            return Ok(blob);
        }
        let (purpose, length) = (purpose.clone(), bytes.len());
        let parcel =
            Parcel { blob, purpose, group, made: now.wall, length, waiting, stored: false };
        parcel.write(tx)?;
        tx.put(Table::OutboxBlobs, &blob.to_be_bytes(), bytes);
        for recipient in recipients {
            tx.put(Table::Outbox, &key(recipient, blob), Vec::new());
        }
        Ok(blob)
    }

    /// The parcels of one recipient from a blob number on, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waiting(
        tx: &Tx,
        recipient: &IdentityKey,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Parcel>, StoreError> {
        let until = key(recipient, u64::MAX);
        let mut parcels = Vec::new();
        for (key, _) in tx.scan(Table::Outbox, &key(recipient, from), Some(&until), limit)? {
            let blob = key.last_chunk().copied().map_or(0, u64::from_be_bytes);
            parcels.push(Self::parcel(tx, blob)?.ok_or(StoreError::Row(Table::Outbox))?);
        }
        Ok(parcels)
    }

    /// Failed attempts in a row of one recipient.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn pauses(tx: &Tx, recipient: &IdentityKey) -> Result<Pauses, StoreError> {
        Ok(tx.read(Table::Pauses, recipient.as_bytes())?.unwrap_or_default())
    }

    /// Keeps them: without this a node that is started again and again would come back at once each
    /// time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep_pauses(tx: &Tx, recipient: &IdentityKey, pauses: Pauses) -> Result<(), StoreError> {
        if pauses == Pauses::default() {
            tx.delete(Table::Pauses, recipient.as_bytes());
            return Ok(());
        }
        tx.write(Table::Pauses, recipient.as_bytes(), &pauses)
    }

    /// Forgets those of recipients for whom nothing waits any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drop_old_pauses(tx: &Tx, waiting: &[IdentityKey]) -> Result<(), StoreError> {
        for (key, _) in tx.scan(Table::Pauses, &[], None, usize::MAX)? {
            if !waiting.iter().any(|recipient| recipient.as_bytes().as_slice() == key) {
                tx.delete(Table::Pauses, &key);
            }
        }
        Ok(())
    }

    /// Everybody for whom something waits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recipients(tx: &Tx) -> Result<Vec<IdentityKey>, StoreError> {
        let mut all = Vec::new();
        let mut from = Vec::new();
        while let Some((key, _)) = tx.scan(Table::Outbox, &from, None, 1)?.into_iter().next() {
            let damaged = || StoreError::Row(Table::Outbox);
            let recipient = *key.first_chunk().ok_or_else(damaged)?;
            all.push(IdentityKey::from_bytes(recipient).map_err(|_| damaged())?);
            from = [recipient.as_slice(), &[u8::MAX; 9]].concat();
        }
        Ok(all)
    }

    /// Parcels that wait, counted once for each recipient.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count(tx: &Tx) -> Result<u64, StoreError> {
        Ok(Numbers::read(tx)?.waiting)
    }

    /// The bytes of a blob, while somebody waits for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bytes(tx: &Tx, blob: u64) -> Result<Option<Vec<u8>>, StoreError> {
        tx.get(Table::OutboxBlobs, &blob.to_be_bytes())
    }

    /// The commit that a parcel waits for: a Welcome is held back until somebody has its commit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waits_for(tx: &Tx, parcel: &Parcel) -> Result<Option<u64>, StoreError> {
        let Purpose::Welcome(_, Some(commit)) = parcel.purpose else { return Ok(None) };
        Ok(Self::parcel(tx, commit)?.filter(|parcel| !parcel.stored).map(|_| commit))
    }

    /// A blob that somebody waits for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn parcel(tx: &Tx, blob: u64) -> Result<Option<Parcel>, StoreError> {
        tx.read(Table::OutboxProgress, &blob.to_be_bytes())
    }

    /// Whether this recipient still waits for a blob.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waits(tx: &Tx, recipient: &IdentityKey, blob: u64) -> Result<bool, StoreError> {
        Ok(tx.get(Table::Outbox, &key(recipient, blob))?.is_some())
    }

    /// A blob is done for some of its recipients: stored in a mailbox of theirs, or given up. Answers
    /// how far it has come; none when nobody waited for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn finish(
        tx: &Tx,
        blob: u64,
        recipients: &[IdentityKey],
        stored: bool,
    ) -> Result<Option<Parcel>, StoreError> {
        let mut done = 0_u32;
        for recipient in recipients {
            if Self::waits(tx, recipient, blob)? {
                tx.delete(Table::Outbox, &key(recipient, blob));
                done = done.saturating_add(1);
            }
        }
        let mut numbers = Numbers::read(tx)?;
        numbers.waiting = numbers.waiting.saturating_sub(done.into());
        numbers.write(tx)?;
        let Some(mut parcel) = Self::parcel(tx, blob)? else { return Ok(None) };
        parcel.waiting = parcel.waiting.saturating_sub(done);
        parcel.stored |= stored && done > 0;
        if parcel.waiting > 0 {
            parcel.write(tx)?;
        } else {
            tx.delete(Table::OutboxProgress, &blob.to_be_bytes());
            tx.delete(Table::OutboxBlobs, &blob.to_be_bytes());
        }
        Ok(Some(parcel))
    }
}

impl Parcel {
    /// Nobody waits for it any more; whether somebody has it.
    #[must_use]
    pub const fn is_done(&self) -> Option<bool> {
        if self.waiting == 0 { Some(self.stored) } else { None }
    }

    /// Whether it is given up when no mailbox takes it now.
    #[must_use]
    pub fn is_too_old(&self, now: Now) -> bool {
        now.wall.since(self.made) > self.purpose.lifetime()
    }

    /// Whether more than one recipient still waits for it.
    #[must_use]
    pub const fn has_others(&self) -> bool {
        self.waiting > 1
    }

    fn write(&self, tx: &Tx) -> Result<(), StoreError> {
        tx.write(Table::OutboxProgress, &self.blob.to_be_bytes(), self)
    }
}

fn key(recipient: &IdentityKey, blob: u64) -> Vec<u8> {
    [recipient.as_bytes().as_slice(), &blob.to_be_bytes()].concat()
}

/// Of the whole outbox.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Numbers {
    /// The last blob's: numbers rise for ever, and none is used for two blobs.
    last: u64,
    /// Rows that wait.
    waiting: u64,
}

impl Numbers {
    const ROW: &[u8] = b"outbox";

    fn read(tx: &Tx) -> Result<Self, StoreError> {
        Ok(tx.read(Table::Meta, Self::ROW)?.unwrap_or_default())
    }

    fn write(self, tx: &Tx) -> Result<(), StoreError> {
        tx.write(Table::Meta, Self::ROW, &self)
    }
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;
    use sremp_common::time::Instant;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_blob_is_kept_once_and_as_long_as_somebody_waits() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let now = Now { instant: Instant::from_millis(0), wall: Timestamp::from_millis(1) };
        let mut entropy = Entropy::from_number(1);
        let mut people: Vec<_> =
            (0..5).map(|_| IdentitySecret::generate(&mut entropy).public()).collect();
        people.sort_unstable();
        let group = GroupId::new([9; 16]);
        let commit =
            Outbox::add(&tx, group, vec![7; 100], &people, &Purpose::Commit(group), now).unwrap();
        let welcome = Purpose::Welcome(group, Some(commit));
        let welcome = Outbox::add(&tx, group, vec![8], &people[..1], &welcome, now).unwrap();
        assert_eq!(Outbox::count(&tx).unwrap(), 6);
        assert_eq!(Outbox::recipients(&tx).unwrap(), people);
        assert_eq!(tx.scan(Table::OutboxBlobs, &[], None, 9).unwrap().len(), 2);

        let held = Outbox::parcel(&tx, welcome).unwrap().unwrap();
        assert_eq!(Outbox::waits_for(&tx, &held).unwrap(), Some(commit));
        Outbox::finish(&tx, commit, &people[1..3], true).unwrap();
        assert_eq!(Outbox::waits_for(&tx, &held).unwrap(), None);
        // The same answer again changes nothing.
        Outbox::finish(&tx, commit, &people[1..3], true).unwrap();
        assert_eq!(Outbox::count(&tx).unwrap(), 4);
        let of_first: Vec<_> =
            Outbox::waiting(&tx, &people[0], 0, 9).unwrap().iter().map(|row| row.blob).collect();
        assert_eq!(of_first, [commit, welcome]);
        Outbox::finish(&tx, commit, &people, false).unwrap();
        assert_eq!(Outbox::bytes(&tx, commit).unwrap(), None);
        assert_eq!(Outbox::count(&tx).unwrap(), 1);
    }
}
