//! The tokens that we gave away: each opens our mailboxes to whoever holds it.

use serde::{Deserialize, Serialize};
use sremp_common::entropy::Entropy;
use sremp_common::id::Token;
use sremp_common::limit::MAX_ADMISSIONS;
use sremp_common::time::{Now, Timestamp};
use sremp_common::wire::{AdmissionClass, AdmissionEntry};

use crate::store::{StoreError, Table, Tx, decode_row};

/// Uses of a link a day: enough for a poster on a wall, too few to fill a mailbox.
pub const LINK_DAILY_QUOTA: u32 = 32;

/// What a token was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenPurpose {
    /// The standing contact link.
    Link,
    /// A link for one use: deleted when a Welcome has come through it.
    Once,
    /// The leaf of one key package: for the one who takes it, and the group that it leads to.
    Leaf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    purpose: TokenPurpose,
    made: Timestamp,
    /// Day (since the epoch) of the last use, and uses on it.
    used: (u64, u32),
}

/// The tokens table.
#[derive(Debug)]
pub struct Tokens;

impl Tokens {
    /// Makes a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn make(
        tx: &Tx,
        purpose: TokenPurpose,
        entropy: &mut Entropy,
        now: Now,
    ) -> Result<Token, StoreError> {
        let token = Token::new(entropy.array());
        let row = Row { purpose, made: now.wall, used: (0, 0) };
        tx.write(Table::Tokens, token.as_bytes(), &row)?;
        Ok(token)
    }

    /// The standing link's token, made when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn standing_link(tx: &Tx, entropy: &mut Entropy, now: Now) -> Result<Token, StoreError> {
        for (token, row) in Self::all(tx)? {
            if row.purpose == TokenPurpose::Link {
                return Ok(token);
            }
        }
        Self::make(tx, TokenPurpose::Link, entropy, now)
    }

    /// Takes back every link: standing and for one use.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revoke_links(tx: &Tx) -> Result<(), StoreError> {
        for (token, row) in Self::all(tx)? {
            if row.purpose != TokenPurpose::Leaf {
                tx.delete(Table::Tokens, token.as_bytes());
            }
        }
        Ok(())
    }

    /// Counts a use of a token that somebody showed. `None`: unknown, revoked, or its quota for
    /// today is spent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn admit(tx: &Tx, token: &Token, now: Now) -> Result<Option<TokenPurpose>, StoreError> {
        let Some(mut row) = tx.read::<Row>(Table::Tokens, token.as_bytes())? else {
            return Ok(None);
        };
        if row.purpose == TokenPurpose::Leaf {
            return Ok(Some(row.purpose));
        }
        let today = now.wall.day();
        let uses = if row.used.0 == today { row.used.1 } else { 0 };
        if uses >= LINK_DAILY_QUOTA {
            return Ok(None);
        }
        row.used = (today, uses.saturating_add(1));
        tx.write(Table::Tokens, token.as_bytes(), &row)?;
        Ok(Some(row.purpose))
    }

    /// Ends a link for one use.
    pub fn spend(tx: &Tx, token: &Token) {
        tx.delete(Table::Tokens, token.as_bytes());
    }

    /// What our relays are told: hashes, classes and quotas, newest first when there are too many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn admission_list(tx: &Tx) -> Result<Vec<AdmissionEntry>, StoreError> {
        let mut all = Self::all(tx)?;
        all.sort_by_key(|(_, row)| std::cmp::Reverse(row.made));
        all.truncate(MAX_ADMISSIONS);
        let entry = |(token, row): (Token, Row)| {
            let (class, daily_quota) = match row.purpose {
                TokenPurpose::Link => (AdmissionClass::Link, LINK_DAILY_QUOTA),
                TokenPurpose::Once => (AdmissionClass::Link, 2),
                TokenPurpose::Leaf => (AdmissionClass::Contact, 0),
            };
            AdmissionEntry { token_hash: token.hash(), class, daily_quota }
        };
        Ok(all.into_iter().map(entry).collect())
    }

    fn all(tx: &Tx) -> Result<Vec<(Token, Row)>, StoreError> {
        let mut all = Vec::new();
        for (key, value) in tx.scan(Table::Tokens, &[], None, 4 * MAX_ADMISSIONS)? {
            if let Ok(bytes) = <[u8; 16]>::try_from(key.as_slice()) {
                all.push((Token::new(bytes), decode_row(Table::Tokens, &value)?));
            }
        }
        Ok(all)
    }
}
