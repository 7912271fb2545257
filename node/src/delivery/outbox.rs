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
/// Rows for one recipient; further messages are refused until some have gone.
pub const MAX_PARCELS: usize = 100_000;

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
        let blob = next_number(tx)?;
        if recipients.is_empty() {
            return Ok(blob);
        }
        let waiting = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
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
    pub fn count(tx: &Tx, limit: usize) -> Result<usize, StoreError> {
        Ok(tx.scan(Table::Outbox, &[], None, limit)?.len())
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
        tx.delete(Table::Outbox, &key(&parcel.recipient, parcel.blob));
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

    /// Drops what waits for a recipient of one group: a removed member, a left group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drop_welcomes(
        tx: &Tx,
        recipient: &IdentityKey,
        group: &GroupId,
    ) -> Result<(), StoreError> {
        for parcel in Self::waiting(tx, recipient, 0, MAX_PARCELS)? {
            if matches!(&parcel.purpose, Purpose::Welcome(of, _) if of == group) {
                Self::finish(tx, &parcel, false)?;
            }
        }
        Ok(())
    }
}

fn key(recipient: &IdentityKey, blob: u64) -> Vec<u8> {
    [recipient.as_bytes().as_slice(), &blob.to_be_bytes()].concat()
}

/// Numbers rise for ever: a number is never used for two blobs.
fn next_number(tx: &Tx) -> Result<u64, StoreError> {
    const ROW: &[u8] = b"next-blob";
    let next: u64 = tx.read(Table::Meta, ROW)?.unwrap_or(1);
    tx.write(Table::Meta, ROW, &next.saturating_add(1))?;
    Ok(next)
}
