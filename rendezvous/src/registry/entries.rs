//! The rows of the registry: one entry for each identity, and the indexes that go with it.
//!
//! ```text
//! entries   identity key               -> Entry
//! listed    identity key               -> nothing        standing, and wants to be listed
//! standing  u64be(expires_at) || key   -> nothing        until it is withdrawn
//! expired   u64be(forget_at)  || key   -> nothing        from then until it is forgotten
//! meta      "bytes"                    -> u64be          length of all entries
//! ```
//! What is counted for networks is in [`networks`].
//! An index may lag behind the clock; whoever reads an entry judges its times again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::IdentityKey;
use sremp_common::identity::Identity;
use sremp_common::limit::{MAX_ENDPOINTS, REGISTRATION_TTL_MAX};
use sremp_common::time::Timestamp;
use sremp_common::wire::{Endpoint, List, PeerInfo, decode, encode};

use super::RETENTION;
use super::networks::{self, Network};
use crate::store::{ReadRows, Rows, StoreError, Table};

const BYTES_KEY: &[u8] = b"bytes";

const DAY_MS: u64 = 24 * 3_600_000;

/// How far a clock may have been ahead when a registration was made.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3_600);

/// What is known of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Verified before it came here.
    pub(super) identity: Identity,
    /// Its version, so that it need not be parsed again.
    pub(super) version: u64,
    /// Where it can be dialled while the registration stands.
    pub(super) endpoints: List<Endpoint, MAX_ENDPOINTS>,
    /// Its owner wants to be seen in listings.
    pub(super) listed: bool,
    /// Time of the last registration.
    pub(super) registered_at: Timestamp,
    /// End of it.
    pub(super) expires_at: Timestamp,
    /// Which index it is in: false for standing, true for expired.
    pub(super) withdrawn: bool,
}

impl Entry {
    /// Whether the registration stands. One that lasts longer than any can last was made by a
    /// clock that has been set back since: it does not count.
    pub(super) fn stands(&self, now: Timestamp) -> bool {
        let longest = Duration::from_secs(REGISTRATION_TTL_MAX.into()) + CLOCK_TOLERANCE;
        now < self.expires_at && self.expires_at <= now + longest
    }

    /// Whether it is kept no longer.
    pub(super) fn is_forgotten(&self, now: Timestamp) -> bool {
        self.forget_at() <= now
    }

    fn forget_at(&self) -> Timestamp {
        self.expires_at + RETENTION
    }

    /// What others are told: endpoints only while the registration stands, the day instead of the
    /// time.
    pub(super) fn shown(self, now: Timestamp) -> PeerInfo {
        let online = self.stands(now);
        let day = self.registered_at.day().saturating_mul(DAY_MS);
        PeerInfo {
            identity: self.identity,
            endpoints: if online { self.endpoints } else { List::default() },
            last_seen: Timestamp::from_millis(day),
            online,
        }
    }

    /// Bytes of its row.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(encode(self).len()).unwrap_or(u64::MAX)
    }

    /// The row that says when something is due.
    fn due(&self, key: &[u8]) -> (Table, Vec<u8>) {
        let (table, at) = if self.withdrawn {
            (Table::Expired, self.forget_at())
        } else {
            (Table::Standing, self.expires_at)
        };
        let mut row = at.as_millis().to_be_bytes().to_vec();
        row.extend_from_slice(key);
        (table, row)
    }
}

/// The entry of an identity.
pub(super) fn load(rows: &impl ReadRows, key: &IdentityKey) -> Result<Option<Entry>, StoreError> {
    load_row(rows, key.as_bytes())
}

/// The entry of a row's key. One that does not decode counts as none: it is replaced by the next
/// registration.
pub(super) fn load_row(rows: &impl ReadRows, key: &[u8]) -> Result<Option<Entry>, StoreError> {
    Ok(rows.get(Table::Entries, key)?.and_then(|bytes| decode(&bytes).ok()))
}

/// Length of all entries.
pub(super) fn total_bytes(rows: &impl ReadRows) -> Result<u64, StoreError> {
    let row = rows.get(Table::Meta, BYTES_KEY)?;
    Ok(row.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
}

/// Writes an entry, which came from `network`, in place of the `old` one.
pub(super) fn save(
    rows: &mut impl Rows,
    key: &IdentityKey,
    old: Option<&Entry>,
    new: &Entry,
    network: Network,
) -> Result<(), StoreError> {
    if let Some(old) = old {
        // Under the network that it had.
        remove_due(rows, key.as_bytes(), old)?;
    }
    networks::assign(rows, key, network)?;
    save_row(rows, key.as_bytes(), old, new)
}

fn put_due(rows: &mut impl Rows, key: &[u8], entry: &Entry) -> Result<(), StoreError> {
    let (table, row) = entry.due(key);
    if table == Table::Expired {
        networks::expired(rows, key, &row)?;
    }
    rows.put(table, &row, &[])
}

fn remove_due(rows: &mut impl Rows, key: &[u8], entry: &Entry) -> Result<(), StoreError> {
    let (table, row) = entry.due(key);
    if table == Table::Expired {
        networks::not_expired(rows, key, &row)?;
    }
    rows.delete(table, &row)
}

fn save_row(
    rows: &mut impl Rows,
    key: &[u8],
    old: Option<&Entry>,
    new: &Entry,
) -> Result<(), StoreError> {
    if let Some(old) = old {
        remove_due(rows, key, old)?;
    }
    rows.put(Table::Entries, key, &encode(new))?;
    put_due(rows, key, new)?;
    if new.listed && !new.withdrawn {
        rows.put(Table::Listed, key, &[])?;
    } else {
        rows.delete(Table::Listed, key)?;
    }
    let before = total_bytes(rows)?.saturating_sub(old.map_or(0, Entry::bytes));
    set_total_bytes(rows, before.saturating_add(new.bytes()))
}

fn remove(rows: &mut impl Rows, key: &[u8], entry: &Entry) -> Result<(), StoreError> {
    remove_due(rows, key, entry)?;
    networks::release(rows, key)?;
    rows.delete(Table::Listed, key)?;
    rows.delete(Table::Entries, key)?;
    let bytes = total_bytes(rows)?.saturating_sub(entry.bytes());
    set_total_bytes(rows, bytes)
}

fn set_total_bytes(rows: &mut impl Rows, bytes: u64) -> Result<(), StoreError> {
    rows.put(Table::Meta, BYTES_KEY, &bytes.to_be_bytes())
}

/// Moves registrations that have expired from one index to the other.
pub(super) fn withdraw_due(
    rows: &mut impl Rows,
    now: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    for done in 0..limit {
        let Some(Due { row, key }) = first_due(rows, Table::Standing, now)? else {
            return Ok(done);
        };
        match load_row(rows, &key)? {
            Some(old) if old.due(&key) == (Table::Standing, row.clone()) => {
                let new = Entry { withdrawn: true, ..old.clone() };
                save_row(rows, &key, Some(&old), &new)?;
            }
            // The row says something about an entry that is no longer there.
            _ => rows.delete(Table::Standing, &row)?,
        }
    }
    Ok(limit)
}

/// Removes identities whose retention is over.
pub(super) fn forget_due(
    rows: &mut impl Rows,
    now: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    for done in 0..limit {
        let Some(Due { row, key }) = first_due(rows, Table::Expired, now)? else { return Ok(done) };
        forget(rows, &row, &key)?;
    }
    Ok(limit)
}

/// Removes the identity that has been expired for longest, but not that of `but`. False when
/// there is none.
pub(super) fn forget_longest_expired(
    rows: &mut impl Rows,
    but: &IdentityKey,
) -> Result<bool, StoreError> {
    let mut next = rows.next(Table::Expired, None)?;
    if let Some((row, _)) = &next
        && key_of(row) == but.as_bytes()
    {
        next = rows.next(Table::Expired, Some(row))?;
    }
    let Some((row, _)) = next else { return Ok(false) };
    let key = key_of(&row).to_vec();
    forget(rows, &row, &key)?;
    Ok(true)
}

/// Removes the identity of a network that has been expired for longest. False when none has.
pub(super) fn forget_longest_expired_of(
    rows: &mut impl Rows,
    network: Network,
) -> Result<bool, StoreError> {
    let Some(row) = networks::longest_expired(rows, network)? else { return Ok(false) };
    let key = key_of(&row).to_vec();
    forget(rows, &row, &key)?;
    Ok(true)
}

fn forget(rows: &mut impl Rows, row: &[u8], key: &[u8]) -> Result<(), StoreError> {
    match load_row(rows, key)? {
        Some(entry) if entry.due(key) == (Table::Expired, row.to_vec()) => {
            remove(rows, key, &entry)
        }
        _ => {
            networks::not_expired(rows, key, row)?;
            networks::release(rows, key)?;
            rows.delete(Table::Expired, row)
        }
    }
}

/// A row of an index whose time has come, and its identity key.
struct Due {
    row: Vec<u8>,
    key: Vec<u8>,
}

/// The first row of an index, if its time has come.
fn first_due(rows: &impl Rows, table: Table, now: Timestamp) -> Result<Option<Due>, StoreError> {
    let Some((row, _)) = rows.next(table, None)? else { return Ok(None) };
    let due = row.first_chunk::<8>().map_or(0, |at| u64::from_be_bytes(*at));
    if due > now.as_millis() {
        return Ok(None);
    }
    let key = key_of(&row).to_vec();
    Ok(Some(Due { row, key }))
}

/// The identity key at the end of an index row.
fn key_of(row: &[u8]) -> &[u8] {
    row.split_at_checked(8).map_or(&[], |(_, key)| key)
}
