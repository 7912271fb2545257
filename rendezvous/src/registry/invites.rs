//! The rows of invitations.
//!
//! ```text
//! invites   hash of the token -> u32be(uses) || u64be(expires_at)
//! ```

use sremp_common::id::{Token, TokenHash};
use sremp_common::invite::{Invite, MAX_INVITES};
use sremp_common::time::Timestamp;

use crate::store::{ReadRows, Rows, StoreError, Table};

/// Bytes of a row.
const ROW_BYTES: usize = 12;

/// An invitation, if there is one by this token. A row that does not decode counts as none.
fn load(rows: &impl ReadRows, token: &TokenHash) -> Result<Option<Invite>, StoreError> {
    Ok(rows.get(Table::Invites, token.as_bytes())?.and_then(|row| decoded(&row)))
}

/// Whether a token lets somebody in.
pub(super) fn is_good(
    rows: &impl ReadRows,
    token: Option<&Token>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(token) = token else { return Ok(false) };
    Ok(load(rows, &token.hash())?.is_some_and(|invite| invite.is_good(now)))
}

/// Uses an invitation up by one; with the last one it is gone.
pub(super) fn spend(
    rows: &mut impl Rows,
    token: Option<&Token>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(token) = token.map(Token::hash) else { return Ok(()) };
    match load(rows, &token)?.and_then(|invite| invite.spent(now)) {
        Some(left) if left.uses > 0 => put(rows, &token, left),
        Some(_) => rows.delete(Table::Invites, token.as_bytes()),
        None => Ok(()),
    }
}

/// Keeps an invitation. False when there is no room for it.
///
/// # Errors
/// [`StoreError`], as for all others.
pub fn add(
    rows: &mut impl Rows,
    token: &TokenHash,
    invite: Invite,
    now: Timestamp,
) -> Result<bool, StoreError> {
    expire(rows, now)?;
    if rows.count(Table::Invites)? >= u64::try_from(MAX_INVITES).unwrap_or(u64::MAX) {
        return Ok(false);
    }
    put(rows, token, invite)?;
    Ok(true)
}

/// Takes an invitation back; whoever came in by it stays. False when there was none.
///
/// # Errors
/// [`StoreError`].
pub fn remove(rows: &mut impl Rows, token: &TokenHash) -> Result<bool, StoreError> {
    let is_there = rows.get(Table::Invites, token.as_bytes())?.is_some();
    rows.delete(Table::Invites, token.as_bytes())?;
    Ok(is_there)
}

/// Every invitation, in the order of the hashes.
///
/// # Errors
/// [`StoreError`].
pub fn all(rows: &impl Rows) -> Result<Vec<(TokenHash, Invite)>, StoreError> {
    let mut all = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    while let Some((key, row)) = rows.next(Table::Invites, after.as_deref())? {
        let token = <[u8; 32]>::try_from(key.as_slice()).ok().map(TokenHash::new);
        all.extend(token.zip(decoded(&row)));
        after = Some(key);
    }
    Ok(all)
}

/// Drops those whose time is over.
///
/// # Errors
/// [`StoreError`].
pub fn expire(rows: &mut impl Rows, now: Timestamp) -> Result<(), StoreError> {
    for (token, invite) in all(rows)? {
        if !invite.is_good(now) {
            remove(rows, &token)?;
        }
    }
    Ok(())
}

fn put(rows: &mut impl Rows, token: &TokenHash, invite: Invite) -> Result<(), StoreError> {
    let expires_at = invite.expires_at.as_millis().to_be_bytes();
    let row = [&invite.uses.to_be_bytes()[..], &expires_at].concat();
    rows.put(Table::Invites, token.as_bytes(), &row)
}

fn decoded(row: &[u8]) -> Option<Invite> {
    let row: &[u8; ROW_BYTES] = row.try_into().ok()?;
    let (uses, expires_at) = row.split_first_chunk::<4>()?;
    let expires_at = Timestamp::from_millis(u64::from_be_bytes(expires_at.try_into().ok()?));
    Some(Invite { uses: u32::from_be_bytes(*uses), expires_at })
}
