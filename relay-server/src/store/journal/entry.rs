//! Entries of a record: what happened to mailboxes, in order.
//!
//! ```text
//! put         01 || owner 32 || blob id 16 || u64le expires_at || u64le now || from_stranger
//!                || u32le(length) || blob
//! share       02 || the same without the blob: that of the last put
//! acknowledge 03 || owner 32 || u64le sequence
//! use         04 || owner 32 || token hash 32 || u64le day || u64le bytes; a blob was stored with it
//! ```
//! Numbers and times of messages are not in it: they follow from what the database holds, as they did
//! the first time.

use sremp_common::id::{BlobId, IdentityKey, TokenHash};
use sremp_common::time::Timestamp;

use crate::store::{Blob, Mailboxes, Place, StoreError, Use};

const PUT: u8 = 1;
const SHARE: u8 = 2;
const ACKNOWLEDGE: u8 = 3;
const USE: u8 = 4;

/// Bytes of an entry at most, beside a blob.
pub(super) const MOST: usize = 1 + 32 + 32 + 8 + 8 + 1 + 4;

/// What a record that has the right checksum, but cannot be read, is called.
const UNREADABLE: StoreError = StoreError::Corrupt("an entry of the journal");

/// A blob was put, or shared with the last one that was put.
pub(super) fn put(out: &mut Vec<u8>, blob: Option<&[u8]>, place: &Place, now: Timestamp) {
    let Place { owner, blob_id, expires_at, from_stranger } = place;
    out.push(if blob.is_some() { PUT } else { SHARE });
    out.extend_from_slice(owner.as_bytes());
    out.extend_from_slice(blob_id.as_bytes());
    out.extend_from_slice(&expires_at.as_millis().to_le_bytes());
    out.extend_from_slice(&now.as_millis().to_le_bytes());
    out.push(u8::from(*from_stranger));
    if let Some(blob) = blob {
        // Blobs are bounded far below.
        out.extend_from_slice(&u32::try_from(blob.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(blob);
    }
}

/// A message was acknowledged.
pub(super) fn acknowledge(out: &mut Vec<u8>, owner: &IdentityKey, sequence: u64) {
    out.push(ACKNOWLEDGE);
    out.extend_from_slice(owner.as_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
}

/// A token let a blob in.
pub(super) fn used(
    out: &mut Vec<u8>,
    owner: &IdentityKey,
    token: &TokenHash,
    day: u64,
    bytes: u64,
) {
    out.push(USE);
    out.extend_from_slice(owner.as_bytes());
    out.extend_from_slice(token.as_bytes());
    out.extend_from_slice(&day.to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
}

/// Does again what the entries say.
///
/// # Errors
/// [`StoreError::Corrupt`] for what is no entry, and those of `mailboxes`.
pub(super) fn replay<M: Mailboxes>(entries: &[u8], mailboxes: &mut M) -> Result<(), StoreError> {
    let mut reader = Reader(entries);
    let mut blob: Option<Blob<'_>> = None;
    while !reader.0.is_empty() {
        match reader.byte()? {
            kind @ (PUT | SHARE) => {
                let owner = reader.owner()?;
                let blob_id = BlobId::new(reader.array()?);
                let expires_at = Timestamp::from_millis(reader.number()?);
                let now = Timestamp::from_millis(reader.number()?);
                let from_stranger = reader.byte()? == 1;
                if kind == PUT {
                    let length = u32::from_le_bytes(reader.array()?);
                    blob = Some(Blob::new(reader.bytes(length)?));
                }
                let place = Place { owner, blob_id, expires_at, from_stranger };
                mailboxes.put(blob.as_mut().ok_or(UNREADABLE)?, &place, now)?;
            }
            ACKNOWLEDGE => {
                let owner = reader.owner()?;
                mailboxes.acknowledge(&owner, reader.number()?)?;
            }
            USE => {
                let owner = reader.owner()?;
                let token = TokenHash::new(reader.array()?);
                let day = reader.number()?;
                let bytes = reader.number()?;
                mailboxes.count_use(&owner, &token, day, Use::Store { bytes })?;
            }
            _ => return Err(UNREADABLE),
        }
    }
    Ok(())
}

/// What is left of a record.
struct Reader<'r>(&'r [u8]);

impl<'r> Reader<'r> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(UNREADABLE)?;
        self.0 = rest;
        Ok(*array)
    }

    fn owner(&mut self) -> Result<IdentityKey, StoreError> {
        IdentityKey::from_bytes(self.array()?).map_err(|_| UNREADABLE)
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self, length: u32) -> Result<&'r [u8], StoreError> {
        let length = usize::try_from(length).map_err(|_| UNREADABLE)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(UNREADABLE)?;
        self.0 = rest;
        Ok(bytes)
    }
}
