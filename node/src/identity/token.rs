//! The tokens that we gave away: each opens our mailboxes to whoever holds it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::entropy::Entropy;
use sremp_common::id::Token;
use sremp_common::limit::MAX_ADMISSIONS;
use sremp_common::time::{Now, Timestamp};
use sremp_common::wire::{AdmissionClass, AdmissionEntry};

use crate::store::{StoreError, Table, Tx, decode_row};

/// Uses of a link a day: enough for a poster on a wall, too few to fill a mailbox.
pub const LINK_DAILY_QUOTA: u32 = 32;

/// Uses a day of a token that was only offered: an invitation, and what follows it at once.
const OFFERED_DAILY_QUOTA: u32 = 64;
/// A link for a single use is good for this long.
const ONCE_LIFETIME: Duration = Duration::from_secs(86_400);
/// Key packages are good for 84 days; their tokens a little longer.
const OFFERED_LIFETIME: Duration = Duration::from_secs(91 * 86_400);

/// What a token was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenPurpose {
    /// The standing contact link.
    Link,
    /// A link for one use, within a day: spent when a key package is taken with it.
    Once,
    /// In the leaf of a key package that nobody has used yet: good for an invitation.
    Offered,
    /// In our leaf of a group: for its members.
    Leaf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    purpose: TokenPurpose,
    made: Timestamp,
    /// Day (since the epoch) of the last use, and uses on it.
    used: (u64, u32),
}

impl TokenPurpose {
    /// Uses a day; 0 for as many as the mailbox holds.
    const fn daily_quota(self) -> u32 {
        match self {
            Self::Link => LINK_DAILY_QUOTA,
            Self::Once => 1,
            Self::Offered => OFFERED_DAILY_QUOTA,
            Self::Leaf => 0,
        }
    }
}

impl Row {
    fn is_over(&self, now: Now) -> bool {
        let age = now.wall.since(self.made);
        match self.purpose {
            TokenPurpose::Once => age > ONCE_LIFETIME,
            TokenPurpose::Offered => age > OFFERED_LIFETIME,
            TokenPurpose::Link | TokenPurpose::Leaf => false,
        }
    }
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
            if matches!(row.purpose, TokenPurpose::Link | TokenPurpose::Once) {
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
        if row.is_over(now) {
            return Ok(None);
        }
        let today = now.wall.day();
        let uses = if row.used.0 == today { row.used.1 } else { 0 };
        if uses >= row.purpose.daily_quota() {
            return Ok(None);
        }
        row.used = (today, uses.saturating_add(1));
        tx.write(Table::Tokens, token.as_bytes(), &row)?;
        Ok(Some(row.purpose))
    }

    /// A key package was used: whoever holds its token is a fellow member now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn promote(tx: &Tx, token: &Token) -> Result<(), StoreError> {
        if let Some(row) = tx.read::<Row>(Table::Tokens, token.as_bytes())? {
            tx.write(Table::Tokens, token.as_bytes(), &Row { purpose: TokenPurpose::Leaf, ..row })?;
        }
        Ok(())
    }

    /// Forgets tokens whose time is over; answers whether there were any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expire(tx: &Tx, now: Now) -> Result<bool, StoreError> {
        let mut any = false;
        for (token, row) in Self::all(tx)? {
            if row.is_over(now) {
                tx.delete(Table::Tokens, token.as_bytes());
                any = true;
            }
        }
        Ok(any)
    }

    /// Ends a link for one use; other tokens stay.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn spend_once(tx: &Tx, token: &Token) -> Result<(), StoreError> {
        let row = tx.read::<Row>(Table::Tokens, token.as_bytes())?;
        if row.is_some_and(|row| row.purpose == TokenPurpose::Once) {
            tx.delete(Table::Tokens, token.as_bytes());
        }
        Ok(())
    }

    /// What our relays are told: hashes, classes and quotas, newest first when there are too many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn admission_list(tx: &Tx) -> Result<Vec<AdmissionEntry>, StoreError> {
        let mut all = Self::all(tx)?;
        all.sort_by_key(|(_, row)| std::cmp::Reverse(row.made));
        // Members' tokens before everything else: nobody who takes key packages crowds them out.
        all.sort_by_key(|(_, row)| row.purpose != TokenPurpose::Leaf);
        all.truncate(MAX_ADMISSIONS);
        let entry = |(token, row): (Token, Row)| AdmissionEntry {
            token_hash: token.hash(),
            class: if row.purpose == TokenPurpose::Leaf {
                AdmissionClass::Contact
            } else {
                AdmissionClass::Link
            },
            daily_quota: row.purpose.daily_quota(),
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
