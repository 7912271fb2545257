//! Mailboxes in a redb file: append-mostly, one transaction at a time.
//!
//! ```text
//! relay.blobs          number                -> blob             number = sequence of its first message
//! relay.shares         number                -> mailboxes        only while more than one holds the blob
//! relay.messages       owner, sequence       -> number, blob id, times, length
//! relay.names          owner, blob id        -> sequence         what is stored again is found here
//! relay.expiry         expires_at, sequence  -> owner
//! relay.mailboxes      owner                 -> wishes, counters
//! relay.tokens         owner, token hash     -> class, quota, use of one day
//! relay.identities     owner                 -> identity as published
//! relay.packages       owner, number         -> key package
//! relay.package_names  owner, digest         -> number           also of packages that are gone
//! relay.last_resorts   owner                 -> key package
//! relay.spent          hour, owner, nonce    -> ()               proofs of work for key packages
//! relay.invites        token hash            -> uses, end
//! relay.bans           text                  -> ()               identities and networks
//! relay.state          name                  -> layout, highest sequence, totals; incarnation;
//!                                               generation of the journal
//! ```
//! Blobs, the bulk, are only ever appended at one end; the index rows are small. A node has these
//! tables in its own file: [`RedbMailboxes`] needs a write transaction and nothing else.

mod backup;
mod errors;
mod file;
mod kept;
mod packages;
#[cfg(test)]
mod restart;
mod rows;
mod rules;

use std::fmt;

use redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};
use sremp_common::id::{BlobId, IdentityKey, Incarnation, TokenHash};
use sremp_common::identity::Identity;
use sremp_common::time::Timestamp;
use sremp_common::wire::{AdmissionEntry, Bin, RelayCapabilities, StoredMessage};

pub use self::backup::Snapshot;
pub use self::file::RedbStore;

use self::kept::Kept;
use self::rows::{
    MAILBOX_ROW, MESSAGE_ROW, MailboxRow, MessageRow, NumberNumber, OwnerName, OwnerNumber,
    OwnerToken, StateRow, TOKEN_ROW, TokenRow, WorkKey, number_at_end, number_number, owner_name,
    owner_number, owner_of, owner_token, work_key,
};
use super::{
    Blob, Gone, Held, Mailbox, Mailboxes, Page, PageLimit, Place, Publication, StoreError, Taken,
    TokenUse, Totals, Use,
};

const BLOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("relay.blobs");
const SHARES: TableDefinition<'_, u64, u32> = TableDefinition::new("relay.shares");
const MESSAGES: TableDefinition<'_, &OwnerNumber, &[u8; MESSAGE_ROW]> =
    TableDefinition::new("relay.messages");
const NAMES: TableDefinition<'_, &OwnerName, u64> = TableDefinition::new("relay.names");
const EXPIRY: TableDefinition<'_, &NumberNumber, &[u8; 32]> = TableDefinition::new("relay.expiry");
const MAILBOXES: TableDefinition<'_, &[u8; 32], &[u8; MAILBOX_ROW]> =
    TableDefinition::new("relay.mailboxes");
const TOKENS: TableDefinition<'_, &OwnerToken, &[u8; TOKEN_ROW]> =
    TableDefinition::new("relay.tokens");
const SPENT: TableDefinition<'_, &WorkKey, ()> = TableDefinition::new("relay.spent");
const CLAIMS: TableDefinition<'_, &[u8; 32], &[u8; 16]> = TableDefinition::new("relay.claims");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("relay.state");

/// Key of the row of highest sequence and totals.
const STATE_KEY: &str = "state";
/// Key of the incarnation.
const INCARNATION_KEY: &str = "incarnation";
/// Key of the generation of the journal's records that are not in the database.
const JOURNAL_KEY: &str = "journal";

/// The mailboxes inside one redb write transaction.
///
/// Tables are opened once; counters, and rows that change often, are written by [`Self::finish`], which
/// [`Self::within`] calls.
pub struct RedbMailboxes<'t> {
    transaction: &'t WriteTransaction,
    state: StateRow,
    state_changed: bool,
    rows: Table<'t, &'static str, &'static [u8]>,
    blobs: Table<'t, u64, &'static [u8]>,
    shares: Table<'t, u64, u32>,
    messages: Table<'t, &'static OwnerNumber, &'static [u8; MESSAGE_ROW]>,
    names: Table<'t, &'static OwnerName, u64>,
    expiry: Table<'t, &'static NumberNumber, &'static [u8; 32]>,
    mailboxes: Table<'t, &'static [u8; 32], &'static [u8; MAILBOX_ROW]>,
    tokens: Table<'t, &'static OwnerToken, &'static [u8; TOKEN_ROW]>,
    kept_mailboxes: Kept<IdentityKey, Mailbox>,
    kept_tokens: Kept<OwnerToken, TokenRow>,
}

impl<'t> RedbMailboxes<'t> {
    /// Opens the tables, creating those that are missing.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a layout of the future, and whatever the database says.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        let rows = transaction.open_table(STATE)?;
        let state = match rows.get(STATE_KEY)? {
            Some(row) => StateRow::decode(row.value())?,
            None => StateRow::default(),
        };
        Ok(Self {
            transaction,
            state,
            state_changed: false,
            rows,
            blobs: transaction.open_table(BLOBS)?,
            shares: transaction.open_table(SHARES)?,
            messages: transaction.open_table(MESSAGES)?,
            names: transaction.open_table(NAMES)?,
            expiry: transaction.open_table(EXPIRY)?,
            mailboxes: transaction.open_table(MAILBOXES)?,
            tokens: transaction.open_table(TOKENS)?,
            kept_mailboxes: Kept::new(),
            kept_tokens: Kept::new(),
        })
    }

    /// Does `work` with the mailboxes of this transaction, and writes the counters. The commit is
    /// the caller's; after an error the transaction must be given up.
    ///
    /// # Errors
    /// Those of `work` and of the database.
    pub fn within<R, E: From<StoreError>>(
        transaction: &'t WriteTransaction,
        work: impl FnOnce(&mut Self) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut mailboxes = Self::open(transaction)?;
        let result = work(&mut mailboxes)?;
        mailboxes.finish()?;
        Ok(result)
    }

    /// Writes what is kept in memory during the transaction. Must come before the commit.
    ///
    /// # Errors
    /// Whatever the database says.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.write_mailboxes()?;
        self.write_tokens()?;
        if self.state_changed {
            self.rows.insert(STATE_KEY, self.state.encode().as_slice())?;
        }
        Ok(())
    }

    /// The generation of the journal's records that are not in the database yet.
    pub(super) fn journal_generation(&mut self) -> Result<u64, StoreError> {
        let row = self.rows.get(JOURNAL_KEY)?;
        let row = row.map(|row| row.value().try_into().map(u64::from_le_bytes)).transpose();
        Ok(row.map_err(|_| StoreError::Corrupt("generation of the journal"))?.unwrap_or(0))
    }

    /// Records of the journal count only with this generation, once this transaction is committed.
    pub(super) fn set_journal_generation(&mut self, generation: u64) -> Result<(), StoreError> {
        self.rows.insert(JOURNAL_KEY, generation.to_le_bytes().as_slice())?;
        // The layout is written with it: an older program must not pass over the journal.
        self.state_changed = true;
        Ok(())
    }

    fn change_totals(&mut self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.state.totals);
        self.state_changed = true;
    }

    fn write_mailbox(&mut self, owner: &IdentityKey, mailbox: Mailbox) -> Result<(), StoreError> {
        if self.kept_mailboxes.is_full() {
            self.write_mailboxes()?;
        }
        self.kept_mailboxes.write(*owner, mailbox);
        Ok(())
    }

    fn write_mailboxes(&mut self) -> Result<(), StoreError> {
        for (owner, mailbox) in self.kept_mailboxes.take() {
            self.mailboxes.insert(owner.as_bytes(), &MailboxRow(mailbox).encode())?;
        }
        Ok(())
    }

    fn token_row(&mut self, key: &OwnerToken) -> Result<Option<TokenRow>, StoreError> {
        if let Some(row) = self.kept_tokens.get(key) {
            return Ok(Some(row));
        }
        let row = self.tokens.get(key)?.map(|row| TokenRow::decode(row.value())).transpose()?;
        if let Some(row) = row {
            if self.kept_tokens.is_full() {
                self.write_tokens()?;
            }
            self.kept_tokens.read(*key, row);
        }
        Ok(row)
    }

    fn write_tokens(&mut self) -> Result<(), StoreError> {
        for (key, row) in self.kept_tokens.take() {
            self.tokens.insert(&key, &row.encode())?;
        }
        Ok(())
    }

    /// Stores the blob, or notes one more mailbox that holds it; gives its number.
    fn hold_blob(&mut self, blob: &mut Blob<'_>, sequence: u64) -> Result<u64, StoreError> {
        let Some(number) = blob.number else {
            self.blobs.insert(sequence, blob.bytes)?;
            blob.number = Some(sequence);
            return Ok(sequence);
        };
        let holders = self.shares.get(number)?.map_or(1, |holders| holders.value());
        self.shares.insert(number, holders.saturating_add(1))?;
        Ok(number)
    }

    /// One mailbox less holds the blob; without any it is deleted.
    fn release_blob(&mut self, number: u64) -> Result<(), StoreError> {
        let holders = self.shares.get(number)?.map_or(1, |holders| holders.value());
        match holders {
            0 | 1 => drop(self.blobs.remove(number)?),
            2 => drop(self.shares.remove(number)?),
            more => drop(self.shares.insert(number, more.saturating_sub(1))?),
        }
        Ok(())
    }

    fn remove_message(
        &mut self,
        owner: &IdentityKey,
        sequence: u64,
    ) -> Result<Option<Gone>, StoreError> {
        let row = match self.messages.remove(&owner_number(owner, sequence))? {
            Some(row) => MessageRow::decode(row.value())?,
            None => return Ok(None),
        };
        self.names.remove(&owner_name(owner, row.blob_id.as_bytes()))?;
        self.expiry.remove(&number_number(row.expires_at.as_millis(), sequence))?;
        self.release_blob(row.blob)?;
        let bytes = u64::from(row.length);
        let mut mailbox = self.mailbox(owner)?.ok_or(StoreError::Corrupt("message of nobody"))?;
        mailbox.messages = mailbox.messages.saturating_sub(1);
        mailbox.bytes = mailbox.bytes.saturating_sub(bytes);
        if row.from_stranger {
            mailbox.stranger_messages = mailbox.stranger_messages.saturating_sub(1);
            mailbox.stranger_bytes = mailbox.stranger_bytes.saturating_sub(bytes);
        }
        self.write_mailbox(owner, mailbox)?;
        self.change_totals(|totals| {
            totals.messages = totals.messages.saturating_sub(1);
            totals.bytes = totals.bytes.saturating_sub(bytes);
        });
        Ok(Some(Gone { owner: *owner, sequence, bytes }))
    }

    fn forget_spent(&self, before_hour: u64, limit: usize) -> Result<(), StoreError> {
        let mut spent = self.transaction.open_table(SPENT)?;
        let until: WorkKey = rows::join(&[&before_hour.to_be_bytes()]);
        let mut old = Vec::new();
        for row in spent.range::<&WorkKey>(..&until)?.take(limit) {
            old.push(*row?.0.value());
        }
        for key in old {
            spent.remove(&key)?;
        }
        Ok(())
    }
}

impl Mailboxes for RedbMailboxes<'_> {
    fn incarnation(&mut self, fresh: Incarnation) -> Result<Incarnation, StoreError> {
        if let Some(row) = self.rows.get(INCARNATION_KEY)? {
            let bytes = row.value().try_into().map_err(|_| StoreError::Corrupt("incarnation"))?;
            return Ok(Incarnation::new(bytes));
        }
        self.rows.insert(INCARNATION_KEY, fresh.as_bytes().as_slice())?;
        Ok(fresh)
    }

    fn totals(&mut self) -> Result<Totals, StoreError> {
        Ok(self.state.totals)
    }

    fn mailbox(&mut self, owner: &IdentityKey) -> Result<Option<Mailbox>, StoreError> {
        if let Some(mailbox) = self.kept_mailboxes.get(owner) {
            return Ok(Some(mailbox));
        }
        let row = self.mailboxes.get(owner.as_bytes())?;
        let mailbox = row.map(|row| MailboxRow::decode(row.value())).transpose()?;
        if let Some(mailbox) = mailbox {
            if self.kept_mailboxes.is_full() {
                self.write_mailboxes()?;
            }
            self.kept_mailboxes.read(*owner, mailbox);
        }
        Ok(mailbox)
    }

    fn register(
        &mut self,
        owner: &IdentityKey,
        wishes: RelayCapabilities,
    ) -> Result<Mailbox, StoreError> {
        let known = self.mailbox(owner)?;
        if known.is_none() {
            self.change_totals(|totals| totals.mailboxes = totals.mailboxes.saturating_add(1));
        }
        let mailbox = Mailbox {
            max_blob: wishes.max_message_size,
            retention: wishes.max_storage_duration,
            ..known.unwrap_or_default()
        };
        self.write_mailbox(owner, mailbox)?;
        Ok(mailbox)
    }

    fn claim(&mut self, owner: &IdentityKey) -> Result<Option<Incarnation>, StoreError> {
        let claims = self.transaction.open_table(CLAIMS)?;
        let row = claims.get(owner.as_bytes())?;
        Ok(row.map(|row| Incarnation::new(*row.value())))
    }

    fn set_claim(&mut self, owner: &IdentityKey, claim: Incarnation) -> Result<(), StoreError> {
        if self.mailbox(owner)?.is_none() {
            return Err(StoreError::NoMailbox);
        }
        let mut claims = self.transaction.open_table(CLAIMS)?;
        claims.insert(owner.as_bytes(), claim.as_bytes())?;
        Ok(())
    }

    fn remove_mailbox(&mut self, owner: &IdentityKey, limit: usize) -> Result<bool, StoreError> {
        if self.mailbox(owner)?.is_none() {
            return Ok(true);
        }
        let mut sequences = Vec::new();
        let (from, until) = (owner_number(owner, 0), owner_number(owner, u64::MAX));
        for row in self.messages.range::<&OwnerNumber>(&from..=&until)?.take(limit) {
            sequences.push(number_at_end(row?.0.value()));
        }
        for sequence in &sequences {
            self.remove_message(owner, *sequence)?;
        }
        if sequences.len() == limit {
            return Ok(false);
        }
        self.write_tokens()?;
        let (from, until) = (owner_token(owner, &[0; 32]), owner_token(owner, &[255; 32]));
        self.tokens.retain_in::<&OwnerToken, _>(&from..=&until, |_, _| false)?;
        packages::forget(self.transaction, owner)?;
        self.transaction.open_table(CLAIMS)?.remove(owner.as_bytes())?;
        self.kept_mailboxes.forget(owner);
        self.mailboxes.remove(owner.as_bytes())?;
        self.change_totals(|totals| totals.mailboxes = totals.mailboxes.saturating_sub(1));
        Ok(true)
    }

    fn set_admission(
        &mut self,
        owner: &IdentityKey,
        entries: &[AdmissionEntry],
    ) -> Result<(), StoreError> {
        self.write_tokens()?;
        let mut old = std::collections::BTreeMap::new();
        let (from, until) = (owner_token(owner, &[0; 32]), owner_token(owner, &[255; 32]));
        for row in self.tokens.range::<&OwnerToken>(&from..=&until)? {
            let (key, row) = row?;
            old.insert(*key.value(), TokenRow::decode(row.value())?);
        }
        for entry in entries {
            let key = owner_token(owner, entry.token_hash.as_bytes());
            let AdmissionEntry { class, daily_quota, .. } = *entry;
            let row = match old.remove(&key) {
                Some(known) => TokenRow { class, daily_quota, ..known },
                None => TokenRow { class, daily_quota, day: 0, stored: 0, stored_kib: 0, taken: 0 },
            };
            self.tokens.insert(&key, &row.encode())?;
        }
        for key in old.keys() {
            self.tokens.remove(key)?;
        }
        Ok(())
    }

    fn token(
        &mut self,
        owner: &IdentityKey,
        token: &TokenHash,
        day: u64,
    ) -> Result<Option<TokenUse>, StoreError> {
        let row = self.token_row(&owner_token(owner, token.as_bytes()))?;
        Ok(row.map(|row| row.on(day)))
    }

    fn count_use(
        &mut self,
        owner: &IdentityKey,
        token: &TokenHash,
        day: u64,
        what: Use,
    ) -> Result<(), StoreError> {
        let key = owner_token(owner, token.as_bytes());
        if let Some(row) = self.token_row(&key)? {
            self.kept_tokens.write(key, row.used(day, what));
        }
        Ok(())
    }

    fn spend_work(
        &mut self,
        owner: &IdentityKey,
        hour: u64,
        nonce: u64,
        limit: usize,
    ) -> Result<bool, StoreError> {
        let mut spent = self.transaction.open_table(SPENT)?;
        let (from, until) = (work_key(hour, owner, 0), work_key(hour, owner, u64::MAX));
        if spent.range::<&WorkKey>(&from..=&until)?.take(limit).count() >= limit {
            return Ok(false);
        }
        let known = spent.insert(&work_key(hour, owner, nonce), ())?.is_some();
        Ok(!known)
    }

    fn find(&mut self, owner: &IdentityKey, blob_id: &BlobId) -> Result<Option<Held>, StoreError> {
        let Some(sequence) = self.names.get(&owner_name(owner, blob_id.as_bytes()))? else {
            return Ok(None);
        };
        let sequence = sequence.value();
        let row = self.messages.get(&owner_number(owner, sequence))?;
        let row = row.ok_or(StoreError::Corrupt("name of no message"))?;
        let MessageRow { stored_at, expires_at, .. } = MessageRow::decode(row.value())?;
        Ok(Some(Held { sequence, stored_at, expires_at }))
    }

    fn put(
        &mut self,
        blob: &mut Blob<'_>,
        place: &Place,
        now: Timestamp,
    ) -> Result<Held, StoreError> {
        let Place { owner, blob_id, expires_at, from_stranger } = *place;
        let mut mailbox = self.mailbox(&owner)?.ok_or(StoreError::NoMailbox)?;
        let bytes = blob.len();
        let length = u32::try_from(bytes).map_err(|_| StoreError::Corrupt("blob of 4 GiB"))?;
        let sequence = self.state.sequence.saturating_add(1);
        let stored_at = now.max(next_moment(mailbox.last_stored_at));

        let number = self.hold_blob(blob, sequence)?;
        let row =
            MessageRow { blob: number, blob_id, stored_at, expires_at, length, from_stranger };
        self.messages.insert(&owner_number(&owner, sequence), &row.encode())?;
        self.names.insert(&owner_name(&owner, blob_id.as_bytes()), sequence)?;
        self.expiry.insert(&number_number(expires_at.as_millis(), sequence), owner.as_bytes())?;

        mailbox.last_stored_at = stored_at;
        mailbox.messages = mailbox.messages.saturating_add(1);
        mailbox.bytes = mailbox.bytes.saturating_add(bytes);
        if from_stranger {
            mailbox.stranger_messages = mailbox.stranger_messages.saturating_add(1);
            mailbox.stranger_bytes = mailbox.stranger_bytes.saturating_add(bytes);
        }
        self.write_mailbox(&owner, mailbox)?;
        self.state.sequence = sequence;
        self.change_totals(|totals| {
            totals.messages = totals.messages.saturating_add(1);
            totals.bytes = totals.bytes.saturating_add(bytes);
        });
        Ok(Held { sequence, stored_at, expires_at })
    }

    fn list(
        &mut self,
        owner: &IdentityKey,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut bytes = 0_u64;
        let Some(first) = after.checked_add(1) else { return Ok(page) };
        let (from, until) = (owner_number(owner, first), owner_number(owner, u64::MAX));
        for row in self.messages.range::<&OwnerNumber>(&from..=&until)? {
            let (key, row) = row?;
            let row = MessageRow::decode(row.value())?;
            bytes = bytes.saturating_add(row.length.into());
            let is_free = limit.always_one && page.messages.is_empty();
            if page.messages.len() >= limit.messages || (bytes > limit.bytes && !is_free) {
                page.has_more = true;
                break;
            }
            let blob = self.blobs.get(row.blob)?.ok_or(StoreError::Corrupt("message, no blob"))?;
            let blob = Bin::new(blob.value().to_vec())
                .map_err(|_| StoreError::Corrupt("blob beyond the bound"))?;
            let MessageRow { blob_id, stored_at, .. } = row;
            let sequence = number_at_end(key.value());
            page.messages.push(StoredMessage { sequence, blob_id, stored_at, blob });
        }
        Ok(page)
    }

    fn acknowledge(
        &mut self,
        owner: &IdentityKey,
        sequence: u64,
    ) -> Result<Option<Gone>, StoreError> {
        self.remove_message(owner, sequence)
    }

    fn expire(&mut self, now: Timestamp, limit: usize) -> Result<Vec<Gone>, StoreError> {
        let mut due = Vec::new();
        let until = number_number(now.as_millis(), u64::MAX);
        for row in self.expiry.range::<&NumberNumber>(..=&until)?.take(limit) {
            let (key, owner) = row?;
            due.push((number_at_end(key.value()), owner_of(owner.value())?));
        }
        let mut gone = Vec::with_capacity(due.len());
        for (sequence, owner) in due {
            gone.extend(self.remove_message(&owner, sequence)?);
        }
        self.forget_spent(now.hour().saturating_sub(1), limit)?;
        Ok(gone)
    }

    fn identity(&mut self, owner: &IdentityKey) -> Result<Option<Identity>, StoreError> {
        packages::identity(self.transaction, owner)
    }

    fn publish(
        &mut self,
        owner: &IdentityKey,
        publication: &Publication<'_>,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let mut mailbox = self.mailbox(owner)?.ok_or(StoreError::NoMailbox)?;
        let count = packages::publish(self.transaction, owner, publication, limit)?;
        mailbox.key_packages = count;
        mailbox.key_packages_full = count;
        self.write_mailbox(owner, mailbox)?;
        Ok(count)
    }

    fn take_key_package(&mut self, owner: &IdentityKey) -> Result<Option<Taken>, StoreError> {
        let Some(mut mailbox) = self.mailbox(owner)? else { return Ok(None) };
        let Some(identity) = packages::identity(self.transaction, owner)? else { return Ok(None) };
        let full = mailbox.key_packages_full;
        if let Some(key_package) = packages::take(self.transaction, owner)? {
            let left = mailbox.key_packages.saturating_sub(1);
            mailbox.key_packages = left;
            self.write_mailbox(owner, mailbox)?;
            return Ok(Some(Taken { identity, key_package, left, full }));
        }
        let last_resort = packages::last_resort(self.transaction, owner)?;
        Ok(last_resort.map(|key_package| Taken { identity, key_package, left: 0, full }))
    }
}

/// The first moment after `last`.
fn next_moment(last: Timestamp) -> Timestamp {
    last + std::time::Duration::from_millis(1)
}

impl fmt::Debug for RedbMailboxes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbMailboxes").field("totals", &self.state.totals).finish_non_exhaustive()
    }
}
