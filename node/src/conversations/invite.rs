//! Invites: somebody is to join a group, and a key package of theirs is still needed.
//!
//! A row stands from the wish until the commit that adds them. Whatever happens in between, a
//! restart finds the row and goes on asking.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::{Now, Timestamp};

use crate::store::{StoreError, Table, Tx, decode_row};

/// Invites that wait at a time.
pub const MAX_INVITES: usize = 1024;
/// After this long without a key package the wish is given up, visibly.
pub const INVITE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// A wish that somebody joins a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invite {
    /// The group.
    pub group: GroupId,
    /// Who shall join.
    pub who: IdentityKey,
    /// When the wish was made.
    pub made: Timestamp,
    /// They were an admin before, and shall be one again.
    #[serde(default)]
    pub as_admin: bool,
}

/// The invites table.
#[derive(Debug)]
pub struct Invites;

impl Invites {
    /// Writes a wish; the same one again changes nothing but its age.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(tx: &Tx, group: GroupId, who: IdentityKey, now: Now) -> Result<(), StoreError> {
        let as_admin = Self::find(tx, &group, &who)?.is_some_and(|invite| invite.as_admin);
        let invite = Invite { group, who, made: now.wall, as_admin };
        tx.write(Table::Invites, &key(&group, &who), &invite)
    }

    /// Whoever is wished for shall be an admin, as they were before. Nothing when there is no such
    /// wish.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn make_admin(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<(), StoreError> {
        let Some(invite) = Self::find(tx, group, who)? else { return Ok(()) };
        tx.write(Table::Invites, &key(group, who), &Invite { as_admin: true, ..invite })
    }

    /// A wish, if it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<Option<Invite>, StoreError> {
        tx.read(Table::Invites, &key(group, who))
    }

    /// The wish is fulfilled, or given up.
    pub fn remove(tx: &Tx, group: &GroupId, who: &IdentityKey) {
        tx.delete(Table::Invites, &key(group, who));
    }

    /// The wishes that one person joins any of these groups are void.
    pub fn remove_all_of(tx: &Tx, groups: &[GroupId], who: &IdentityKey) {
        for group in groups {
            Self::remove(tx, group, who);
        }
    }

    /// All wishes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all(tx: &Tx) -> Result<Vec<Invite>, StoreError> {
        tx.scan(Table::Invites, &[], None, MAX_INVITES)?
            .into_iter()
            .map(|(_, value)| decode_row(Table::Invites, &value))
            .collect()
    }

    /// The wishes of one group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn of_group(tx: &Tx, group: &GroupId) -> Result<Vec<Invite>, StoreError> {
        tx.scan_prefix(Table::Invites, group.as_bytes(), MAX_INVITES)?
            .into_iter()
            .map(|(_, value)| decode_row(Table::Invites, &value))
            .collect()
    }
}

fn key(group: &GroupId, who: &IdentityKey) -> Vec<u8> {
    [group.as_bytes().as_slice(), who.as_bytes()].concat()
}
