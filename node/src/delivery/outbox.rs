//! The outbox: one row for each blob and recipient, from the transaction that made the blob until
//! the one that records that a mailbox of the recipient holds it.
//!
//! A blob for many recipients is stored once. It is never made twice: a retry sends the same bytes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::time::{Now, Timestamp};

use crate::store::{StoreError, Table, Tx, decode_row};

/// After this long a blob that no mailbox took is given up, visibly.
pub const PARCEL_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
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
}

/// One blob on its way to one recipient.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parcel {
    /// To whom.
    pub recipient: IdentityKey,
    /// Which blob; also the order in which they leave.
    pub blob: u64,
    /// See [`Purpose`].
    pub purpose: Purpose,
    /// When it was made.
    pub made: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct BlobRow {
    /// Recipients that still wait for it.
    waiting: u32,
    /// Some recipient has it.
    stored: bool,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

/// The outbox tables.
#[derive(Debug)]
pub struct Outbox;

impl Outbox {
    /// Puts a blob on its way to all recipients; answers its number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(
        tx: &Tx,
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
        tx.write(
            Table::OutboxBlobs,
            &blob.to_be_bytes(),
            &BlobRow { waiting, stored: false, bytes },
        )?;
        for recipient in recipients {
            let parcel =
                Parcel { recipient: *recipient, blob, purpose: purpose.clone(), made: now.wall };
            tx.write(Table::Outbox, &key(recipient, blob), &parcel)?;
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
        tx.scan(Table::Outbox, &key(recipient, from), Some(&key(recipient, u64::MAX)), limit)?
            .into_iter()
            .map(|(_, value)| decode_row(Table::Outbox, &value))
            .collect()
    }

    /// Everybody for whom something waits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recipients(tx: &Tx) -> Result<Vec<IdentityKey>, StoreError> {
        let mut all = Vec::new();
        let mut from = Vec::new();
        while let Some((key, value)) = tx.scan(Table::Outbox, &from, None, 1)?.into_iter().next() {
            let parcel: Parcel = decode_row(Table::Outbox, &value)?;
            all.push(parcel.recipient);
            from = key.get(..32).unwrap_or_default().to_vec();
            from.extend_from_slice(&[u8::MAX; 9]);
        }
        Ok(all)
    }

    /// Parcels that wait, for all together.
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
        Ok(tx.read::<BlobRow>(Table::OutboxBlobs, &blob.to_be_bytes())?.map(|row| row.bytes))
    }

    /// The commit that a parcel waits for: a Welcome is held back until somebody has its commit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waits_for(tx: &Tx, parcel: &Parcel) -> Result<Option<u64>, StoreError> {
        let Purpose::Welcome(_, Some(commit)) = parcel.purpose else { return Ok(None) };
        let row = tx.read::<BlobRow>(Table::OutboxBlobs, &commit.to_be_bytes())?;
        Ok(row.filter(|row| !row.stored).map(|_| commit))
    }

    /// One parcel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(tx: &Tx, recipient: &IdentityKey, blob: u64) -> Result<Option<Parcel>, StoreError> {
        tx.read(Table::Outbox, &key(recipient, blob))
    }

    /// A parcel is done: stored in a mailbox of its recipient, or given up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn finish(tx: &Tx, parcel: &Parcel, stored: bool) -> Result<(), StoreError> {
        let row_key = key(&parcel.recipient, parcel.blob);
        if tx.get(Table::Outbox, &row_key)?.is_none() {
            return Ok(());
        }
        tx.delete(Table::Outbox, &row_key);
        let mut numbers = Numbers::read(tx)?;
        numbers.waiting = numbers.waiting.saturating_sub(1);
        numbers.write(tx)?;
        let blob_key = parcel.blob.to_be_bytes();
        let Some(mut row) = tx.read::<BlobRow>(Table::OutboxBlobs, &blob_key)? else {
            return Ok(());
        };
        row.waiting = row.waiting.saturating_sub(1);
        row.stored |= stored;
        if row.waiting == 0 {
            tx.delete(Table::OutboxBlobs, &blob_key);
            return Ok(());
        }
        tx.write(Table::OutboxBlobs, &blob_key, &row)
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
