//! Requests: Welcomes from people who are not contacts. They wait for the user, and are bounded.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::identity::Identity;
use sremp_common::time::{Now, Timestamp};

use crate::store::{StoreError, Table, Tx, decode_row};

/// Requests that wait at a time, from all strangers together.
pub const MAX_REQUESTS: usize = 32;
/// A request that nobody answered for so long makes room for others. Whoever sent it may ask again.
const REQUEST_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// A Welcome that waits for the user's word.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Who invites, as the Welcome proves.
    pub from: IdentityKey,
    /// The identity that came with it, verified.
    pub identity: Identity,
    /// The group.
    pub group: GroupId,
    /// A direct conversation, not a group with a name.
    pub direct: bool,
    /// The group's name.
    pub name: String,
    /// When it came.
    pub received_at: Timestamp,
    /// The MLS Welcome.
    #[serde(with = "serde_bytes")]
    pub welcome: Vec<u8>,
}

/// The requests table.
#[derive(Debug)]
pub struct Requests;

impl Requests {
    /// Writes a request, if there is room for it (one with the same group always has room).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(tx: &Tx, request: &Request) -> Result<bool, StoreError> {
        let key = key(&request.from, &request.group);
        let known = tx.get(Table::Requests, &key)?.is_some();
        if !known && tx.scan(Table::Requests, &[], None, MAX_REQUESTS)?.len() >= MAX_REQUESTS {
            return Ok(false);
        }
        tx.write(Table::Requests, &key, request)?;
        Ok(true)
    }

    /// Removes a request that was answered.
    pub fn remove(tx: &Tx, request: &Request) {
        tx.delete(Table::Requests, &key(&request.from, &request.group));
    }

    /// Forgets what nobody answered in time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expire(tx: &Tx, now: Now) -> Result<(), StoreError> {
        for request in Self::all(tx)? {
            if now.wall.since(request.received_at) > REQUEST_LIFETIME {
                Self::remove(tx, &request);
            }
        }
        Ok(())
    }

    /// All that wait.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all(tx: &Tx) -> Result<Vec<Request>, StoreError> {
        tx.scan(Table::Requests, &[], None, MAX_REQUESTS)?
            .into_iter()
            .map(|(_, value)| decode_row(Table::Requests, &value))
            .collect()
    }
}

fn key(from: &IdentityKey, group: &GroupId) -> Vec<u8> {
    [from.as_bytes().as_slice(), group.as_bytes()].concat()
}
