//! The tokens that we gave away: each opens our mailboxes to whoever holds it.

use std::collections::BTreeSet;
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

/// Uses a day of a token that was only offered: an invitation, and what the members of a lively group
/// send before our relays know that it was taken up.
const OFFERED_DAILY_QUOTA: u32 = 512;
/// A link for a single use is good for this long.
const ONCE_LIFETIME: Duration = Duration::from_secs(86_400);
/// Key packages are good for 84 days; their tokens a little longer.
const OFFERED_LIFETIME: Duration = Duration::from_secs(91 * 86_400);
/// Days that a member's token is good for after no leaf of ours carries it any more: longer than
/// the states are kept in which somebody could still find it.
const REPLACED_DAYS: u64 = 8;
/// Tokens that our relays know and nobody has yet. What is handed out opens our mailboxes at
/// once, even if we are gone a moment later.
const SPARES: usize = 16;

const SPARES_ROW: &[u8] = b"spare tokens";
const TAKEN_BACK_ROW: &[u8] = b"tokens taken back";

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
    /// Given to nobody yet; relays know it already.
    Spare,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    purpose: TokenPurpose,
    made: Timestamp,
    /// Day (since the epoch) of the last use, and uses on it. For a member's token: the last day
    /// on which a leaf of ours carried it.
    used: (u64, u32),
}

/// Members' tokens that the last rotation took back: as many as there were.
#[derive(Debug, Serialize, Deserialize)]
struct TakenBack {
    /// Of the rotation, since the epoch.
    day: u64,
    tokens: BTreeSet<Token>,
}

impl TokenPurpose {
    /// Uses a day; 0 for as many as the mailbox holds.
    const fn daily_quota(self) -> u32 {
        match self {
            Self::Link => LINK_DAILY_QUOTA,
            Self::Once => 1,
            Self::Offered | Self::Spare => OFFERED_DAILY_QUOTA,
            Self::Leaf => 0,
        }
    }

    /// Who goes first when relays cannot be told of all: nobody who takes key packages crowds out
    /// members and links.
    const fn rank(self) -> u8 {
        match self {
            Self::Leaf => 0,
            Self::Link | Self::Once => 1,
            Self::Spare => 2,
            Self::Offered => 3,
        }
    }
}

impl Row {
    fn is_over(&self, now: Now) -> bool {
        let age = now.wall.since(self.made);
        match self.purpose {
            TokenPurpose::Once => age > ONCE_LIFETIME,
            TokenPurpose::Offered => age > OFFERED_LIFETIME,
            TokenPurpose::Link | TokenPurpose::Leaf | TokenPurpose::Spare => false,
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

    /// Takes back every token, whatever it was made for. Those of members stay taken back, also when
    /// an old leaf stands again after a switch of the branch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revoke_all(tx: &Tx, now: Now) -> Result<(), StoreError> {
        let mut taken_back = TakenBack { day: now.wall.day(), tokens: BTreeSet::new() };
        for (token, row) in Self::all(tx)? {
            tx.delete(Table::Tokens, token.as_bytes());
            if row.purpose == TokenPurpose::Leaf {
                taken_back.tokens.insert(token);
            }
        }
        tx.delete(Table::Meta, SPARES_ROW);
        tx.write(Table::Meta, TAKEN_BACK_ROW, &taken_back)
    }

    /// Whether the last rotation took a token back.
    fn is_taken_back(tx: &Tx, token: &Token) -> Result<bool, StoreError> {
        let taken_back = tx.read::<TakenBack>(Table::Meta, TAKEN_BACK_ROW)?;
        Ok(taken_back.is_some_and(|taken_back| taken_back.tokens.contains(token)))
    }

    /// Whether a token opens anything.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_known(tx: &Tx, token: &Token) -> Result<bool, StoreError> {
        Ok(tx.read::<Row>(Table::Tokens, token.as_bytes())?.is_some())
    }

    /// Whether a token is in a key package of ours that nobody has used yet, as far as we know.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_offered(tx: &Tx, token: &Token) -> Result<bool, StoreError> {
        let row = tx.read::<Row>(Table::Tokens, token.as_bytes())?;
        Ok(row.is_some_and(|row| row.purpose == TokenPurpose::Offered))
    }

    /// Hands out a token that our relays know already, if there is one left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn hand_out(
        tx: &Tx,
        purpose: TokenPurpose,
        entropy: &mut Entropy,
        now: Now,
    ) -> Result<Token, StoreError> {
        let mut spares = Self::spares(tx)?;
        if spares.is_empty() {
            return Self::make(tx, purpose, entropy, now);
        }
        let token = spares.remove(0);
        tx.write(Table::Meta, SPARES_ROW, &spares)?;
        let row = Row { purpose, made: now.wall, used: (now.wall.day(), 0) };
        tx.write(Table::Tokens, token.as_bytes(), &row)?;
        Ok(token)
    }

    /// Makes as many spare tokens as are missing; answers whether any were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn fill_spares(tx: &Tx, entropy: &mut Entropy, now: Now) -> Result<bool, StoreError> {
        let mut spares = Self::spares(tx)?;
        if spares.len() >= SPARES {
            return Ok(false);
        }
        while spares.len() < SPARES {
            spares.push(Self::make(tx, TokenPurpose::Spare, entropy, now)?);
        }
        tx.write(Table::Meta, SPARES_ROW, &spares)?;
        Ok(true)
    }

    /// Oldest first.
    fn spares(tx: &Tx) -> Result<Vec<Token>, StoreError> {
        Ok(tx.read(Table::Meta, SPARES_ROW)?.unwrap_or_default())
    }

    /// Takes a token back: whoever holds it is a stranger again.
    pub fn revoke(tx: &Tx, token: &Token) {
        tx.delete(Table::Tokens, token.as_bytes());
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
        match row.purpose {
            TokenPurpose::Leaf => return Ok(Some(row.purpose)),
            // Nobody can know it.
            TokenPurpose::Spare => return Ok(None),
            TokenPurpose::Link | TokenPurpose::Once | TokenPurpose::Offered => {}
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

    /// A leaf of ours carries this token, so whoever holds it is a fellow member: the key package that it
    /// was in was used, or after a switch of the branch an old leaf stands that was replaced long ago. Answers whether it opened nothing until now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn carry(tx: &Tx, token: &Token, now: Now) -> Result<bool, StoreError> {
        let row = tx.read::<Row>(Table::Tokens, token.as_bytes())?;
        if row.is_some_and(|row| row.purpose == TokenPurpose::Leaf)
            || Self::is_taken_back(tx, token)?
        {
            return Ok(false);
        }
        let row = Row { purpose: TokenPurpose::Leaf, made: now.wall, used: (now.wall.day(), 0) };
        tx.write(Table::Tokens, token.as_bytes(), &row)?;
        Ok(true)
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

    /// Takes back members' tokens that no leaf of ours has carried for eight days;
    /// `in_use` are those that one carries today. Answers whether there were any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expire_replaced(
        tx: &Tx,
        in_use: &BTreeSet<Token>,
        now: Now,
    ) -> Result<bool, StoreError> {
        let (today, mut any) = (now.wall.day(), false);
        let taken_back = tx.read::<TakenBack>(Table::Meta, TAKEN_BACK_ROW)?;
        if taken_back.is_some_and(|it| today.saturating_sub(it.day) > 2 * REPLACED_DAYS) {
            // No state is kept any more in which one of them stands.
            tx.delete(Table::Meta, TAKEN_BACK_ROW);
        }
        for (token, mut row) in Self::all(tx)? {
            if row.purpose != TokenPurpose::Leaf {
                continue;
            }
            if in_use.contains(&token) {
                row.used = (today, 0);
                tx.write(Table::Tokens, token.as_bytes(), &row)?;
            } else if today.saturating_sub(row.used.0.max(row.made.day())) > REPLACED_DAYS {
                Self::revoke(tx, &token);
                any = true;
            }
        }
        Ok(any)
    }

    /// What our relays are told: hashes, classes and quotas, newest first when there are too many.
    /// A link for a single use works at one place only: the relay that comes first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn admission_list(tx: &Tx, is_first: bool) -> Result<Vec<AdmissionEntry>, StoreError> {
        let mut all = Self::all(tx)?;
        all.retain(|(_, row)| is_first || row.purpose != TokenPurpose::Once);
        all.sort_by_key(|(_, row)| (row.purpose.rank(), std::cmp::Reverse(row.made)));
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
