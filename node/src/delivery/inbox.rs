//! What became of each blob that came in: exactly one verdict, recorded with what it changed.
//!
//! A blob that cannot be read yet waits here, within bounds; when there is no room for it, it is
//! refused and *not* recorded, so that it can come again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::BlobId;
use sremp_common::limit::MAX_BLOB;
use sremp_common::time::{Now, Timestamp};

use crate::store::{StoreError, Table, Tx, decode_row};

/// Blobs that wait for a state, all together.
pub const MAX_DEFERRED: usize = 8192;
/// Bytes of all blobs that wait.
pub const MAX_DEFERRED_BYTES: usize = 16 * MAX_BLOB;
/// Time that a blob may wait: as long as epochs' states are kept.
const DEFERRED_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// Verdicts outlive every retry: relays keep blobs for 30 days.
const VERDICT_LIFETIME: Duration = Duration::from_secs(35 * 86_400);
/// Rows looked at in one pass of housekeeping.
const PASS: usize = 512;

/// What became of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It changed something.
    Applied,
    /// Its content was here before, by another path or in another blob.
    Duplicate,
    /// It can never be used: why.
    Invalid(String),
    /// No room for it now; not recorded.
    Refused,
    /// A stranger's invitation, and as many as may wait for the user do; not recorded.
    TooManyRequests,
    /// Its group has no room for one more rival commit; not recorded. Members who still need it bring
    /// it again.
    Crowded,
    /// From a stranger, and no invitation; not recorded.
    NoInvitation,
    /// It waits for a state that is not here yet.
    Deferred,
}

impl Verdict {
    /// Whether it stands for the same blob for ever. If not, the blob is worth a look when it comes again.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        match self {
            Self::Applied | Self::Duplicate | Self::Invalid(_) | Self::Deferred => true,
            Self::Refused | Self::TooManyRequests | Self::Crowded | Self::NoInvitation => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct VerdictRow {
    verdict: Verdict,
    at: Timestamp,
}

/// A blob that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deferred {
    /// When it came.
    pub received_at: Timestamp,
    /// Which of all that ever waited it is, as [`Inbox::defer`] counts: they are read in that order,
    /// because the keys of an author's messages that are far behind are gone.
    #[serde(default)]
    pub number: u64,
    /// Through an admission that was meant for strangers.
    pub from_stranger: bool,
    /// It is sealed for us, and what it says is not due yet. Otherwise it waits for a state: looking
    /// again whether it can be unsealed is work for nothing.
    #[serde(default = "unknown")]
    pub sealed: bool,
    /// The blob.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Of a blob that began to wait before this was noted.
const fn unknown() -> bool {
    true
}

/// The tables of verdicts and waiting blobs.
#[derive(Debug)]
pub struct Inbox;

impl Inbox {
    /// The verdict on a blob, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn verdict(tx: &Tx, id: &BlobId) -> Result<Option<Verdict>, StoreError> {
        Ok(tx.read::<VerdictRow>(Table::Verdicts, id.as_bytes())?.map(|row| row.verdict))
    }

    /// Records a verdict; a refusal is not recorded.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn record(tx: &Tx, id: &BlobId, verdict: Verdict, now: Now) -> Result<(), StoreError> {
        if !verdict.is_recorded() {
            return Ok(());
        }
        if !matches!(verdict, Verdict::Deferred)
            && let Some(waited) = tx.read::<Deferred>(Table::Deferred, id.as_bytes())?
        {
            let mut numbers = Numbers::read(tx)?;
            numbers.rows = numbers.rows.saturating_sub(1);
            numbers.bytes = numbers.bytes.saturating_sub(waited.bytes.len());
            numbers.write(tx)?;
            tx.delete(Table::Deferred, id.as_bytes());
        }
        tx.write(Table::Verdicts, id.as_bytes(), &VerdictRow { verdict, at: now.wall })
    }

    /// Keeps a blob until its state is here, if there is room. Without room it stays where it is,
    /// with its sender or its relay: what was acknowledged is never dropped to make room.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn defer(tx: &Tx, id: &BlobId, mut deferred: Deferred) -> Result<bool, StoreError> {
        let mut numbers = Numbers::read(tx)?;
        numbers.ever = numbers.ever.saturating_add(1);
        deferred.number = numbers.ever;
        numbers.rows = numbers.rows.saturating_add(1);
        numbers.bytes = numbers.bytes.saturating_add(deferred.bytes.len());
        if numbers.rows > MAX_DEFERRED || numbers.bytes > MAX_DEFERRED_BYTES {
            return Ok(false);
        }
        numbers.write(tx)?;
        tx.write(Table::Deferred, id.as_bytes(), &deferred)?;
        Ok(true)
    }

    /// Whether any blob waits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn anything_waits(tx: &Tx) -> Result<bool, StoreError> {
        Ok(Numbers::read(tx)?.rows > 0)
    }

    /// Whether this blob waits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn still_waits(tx: &Tx, id: &BlobId) -> Result<bool, StoreError> {
        Ok(Self::verdict(tx, id)? == Some(Verdict::Deferred))
    }

    /// All blobs that wait, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn deferred(tx: &Tx) -> Result<Vec<(BlobId, Deferred)>, StoreError> {
        let mut all = Vec::new();
        for (key, value) in tx.scan(Table::Deferred, &[], None, MAX_DEFERRED)? {
            if let Ok(bytes) = <[u8; 16]>::try_from(key.as_slice()) {
                all.push((BlobId::new(bytes), decode_row::<Deferred>(Table::Deferred, &value)?));
            }
        }
        all.sort_by_key(|(_, deferred)| deferred.number);
        Ok(all)
    }

    /// One pass of housekeeping from a key on: forgets old verdicts and blobs that waited too
    /// long. Answers where to go on; empty when the end was reached.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expire(tx: &Tx, from: &[u8], now: Now) -> Result<Vec<u8>, StoreError> {
        for (id, deferred) in Self::deferred(tx)? {
            if now.wall.since(deferred.received_at) > DEFERRED_LIFETIME {
                Self::record(tx, &id, Verdict::Invalid("its epoch never came".into()), now)?;
            }
        }
        let rows = tx.scan(Table::Verdicts, from, None, PASS)?;
        for (key, value) in &rows {
            let row: VerdictRow = decode_row(Table::Verdicts, value)?;
            if now.wall.since(row.at) > VERDICT_LIFETIME && row.verdict != Verdict::Deferred {
                tx.delete(Table::Verdicts, key);
            }
        }
        if rows.len() < PASS {
            return Ok(Vec::new());
        }
        let mut next = rows.last().map(|(key, _)| key.clone()).unwrap_or_default();
        next.push(0);
        Ok(next)
    }
}

/// Of the blobs that wait.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Numbers {
    rows: usize,
    bytes: usize,
    #[serde(default)]
    ever: u64,
}

impl Numbers {
    const ROW: &[u8] = b"deferred";

    fn read(tx: &Tx) -> Result<Self, StoreError> {
        Ok(tx.read(Table::Meta, Self::ROW)?.unwrap_or_default())
    }

    fn write(self, tx: &Tx) -> Result<(), StoreError> {
        tx.write(Table::Meta, Self::ROW, &self)
    }
}
