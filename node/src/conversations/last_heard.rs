//! When members of a group were added, were last heard, and renewed their keys in it last.
//!
//! Whoever writes nothing renews no keys: what is said to them is only as safe as keys of long ago. People
//! are shown that, and decide (RFC 9750, section 5: idle members). Who was added when says what of ours
//! they may have missed. All of it is by our own clock, so no rule of a group depends on it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::Timestamp;

use crate::store::{StoreError, Table, Tx, decode_row};

/// A member who is heard all the time is noted this often.
const NOTED_EVERY: Duration = Duration::from_secs(600);

/// What is known of one member; nothing before something has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastHeard {
    /// When something of theirs came last, to within ten minutes.
    pub at: Option<Timestamp>,
    /// When their leaf changed last, since we are in the group.
    pub keys_at: Option<Timestamp>,
    /// When they were added, since we are in the group.
    pub added_at: Option<Timestamp>,
}

impl LastHeard {
    /// Something of a member's came.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note(
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let known = Self::of(tx, group, who)?;
        // A time in the future was noted by a clock that was wrong.
        let is_fresh = |at: Timestamp| at <= now && now.since(at) < NOTED_EVERY;
        if known.at.is_some_and(is_fresh) {
            return Ok(());
        }
        tx.write(Table::LastHeard, &key(group, who), &Self { at: Some(now), ..known })
    }

    /// A member's leaf changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn renewed(
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let known = Self::of(tx, group, who)?;
        tx.write(Table::LastHeard, &key(group, who), &Self { keys_at: Some(now), ..known })
    }

    /// A member was added.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn added(
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let new = Self { at: None, keys_at: Some(now), added_at: Some(now) };
        tx.write(Table::LastHeard, &key(group, who), &new)
    }

    /// Somebody is no member any more.
    pub fn forget(tx: &Tx, group: &GroupId, who: &IdentityKey) {
        tx.delete(Table::LastHeard, &key(group, who));
    }

    /// What is known of the members of a group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn of_group(tx: &Tx, group: &GroupId) -> Result<BTreeMap<IdentityKey, Self>, StoreError> {
        let mut all = BTreeMap::new();
        for (key, value) in tx.scan_prefix(Table::LastHeard, group.as_bytes(), usize::MAX)? {
            let who = key.last_chunk::<32>().and_then(|who| IdentityKey::from_bytes(*who).ok());
            if let Some(who) = who {
                all.insert(who, decode_row(Table::LastHeard, &value)?);
            }
        }
        Ok(all)
    }

    fn of(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<Self, StoreError> {
        Ok(tx.read(Table::LastHeard, &key(group, who))?.unwrap_or_default())
    }
}

fn key(group: &GroupId, who: &IdentityKey) -> Vec<u8> {
    [group.as_bytes().as_slice(), who.as_bytes()].concat()
}
