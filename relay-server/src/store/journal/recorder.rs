//! Mailboxes that write down what happens to them.

use sremp_common::id::{BlobId, IdentityKey, Incarnation, TokenHash};
use sremp_common::identity::Identity;
use sremp_common::time::Timestamp;
use sremp_common::wire::{AdmissionEntry, RelayCapabilities};

use super::{Journal, entry};
use crate::store::{
    Blob, Gone, Held, Invite, Mailbox, Mailboxes, Page, PageLimit, Place, Publication,
    RedbMailboxes, Rules, StoreError, Taken, TokenUse, Totals, Use,
};

/// The mailboxes of one transaction, and the entries of what was not made durable yet.
#[derive(Debug)]
pub struct Recorder<M> {
    mailboxes: M,
    entries: Vec<u8>,
    /// The longest record that there may be: more is not written down, but committed.
    room: usize,
    /// Bytes of the records that the database does not know.
    journaled: u64,
    /// Something has happened that no entry can say, or too much: only a commit makes it durable, and
    /// whatever comes after it.
    needs_commit: bool,
}

impl<M> Recorder<M> {
    /// Nothing has happened yet in this transaction, which `journal` is to make durable.
    #[must_use]
    pub fn new(mailboxes: M, journal: &Journal) -> Self {
        let (room, journaled) = (journal.room(), journal.used());
        Self { mailboxes, entries: Vec::new(), room, journaled, needs_commit: false }
    }

    /// Bytes of the journal that are still to be written to the database.
    #[must_use]
    pub const fn journaled(&self) -> u64 {
        self.journaled
    }

    /// Only a commit will do for what has happened.
    pub fn need_commit(&mut self) {
        self.needs_commit = true;
        self.entries = Vec::new();
    }

    /// Writes down so many bytes of what happens, unless that is of no use any more.
    fn note(&mut self, length: usize, entry: impl FnOnce(&mut Vec<u8>)) {
        if self.needs_commit || self.entries.len().saturating_add(length) > self.room {
            return self.need_commit();
        }
        entry(&mut self.entries);
    }

    /// Makes what has happened durable. False when only a commit can do that.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&mut self, journal: &mut Journal) -> Result<bool, StoreError> {
        if self.needs_commit || !journal.append(&self.entries)? {
            return Ok(false);
        }
        self.entries.clear();
        (self.room, self.journaled) = (journal.room(), journal.used());
        Ok(true)
    }
}

impl Recorder<RedbMailboxes<'_>> {
    /// Writes what is kept in memory, and that the journal's records are in the database. The commit
    /// and [`Journal::restart`] must follow.
    ///
    /// # Errors
    /// Whatever the database says.
    pub fn finish(self, journal: &Journal) -> Result<(), StoreError> {
        let mut mailboxes = self.mailboxes;
        if let Some(next) = journal.next_generation() {
            mailboxes.set_journal_generation(next)?;
        }
        mailboxes.finish()
    }
}

impl<M: Mailboxes> Mailboxes for Recorder<M> {
    fn put(
        &mut self,
        blob: &mut Blob<'_>,
        place: &Place,
        now: Timestamp,
    ) -> Result<Held, StoreError> {
        let bytes = (!blob.is_stored()).then_some(blob.bytes());
        let length = bytes.map_or(0, <[u8]>::len).saturating_add(entry::MOST);
        self.note(length, |entries| entry::put(entries, bytes, place, now));
        self.mailboxes.put(blob, place, now)
    }

    fn acknowledge(
        &mut self,
        owner: &IdentityKey,
        sequence: u64,
    ) -> Result<Option<Gone>, StoreError> {
        let gone = self.mailboxes.acknowledge(owner, sequence)?;
        if gone.is_some() {
            self.note(entry::MOST, |entries| entry::acknowledge(entries, owner, sequence));
        }
        Ok(gone)
    }

    fn count_use(
        &mut self,
        owner: &IdentityKey,
        token: &TokenHash,
        day: u64,
        what: Use,
    ) -> Result<(), StoreError> {
        match what {
            Use::Store { bytes } => {
                self.note(entry::MOST, |entries| entry::used(entries, owner, token, day, bytes));
            }
            Use::Take => self.need_commit(),
        }
        self.mailboxes.count_use(owner, token, day, what)
    }

    fn expire(&mut self, now: Timestamp, limit: usize) -> Result<Vec<Gone>, StoreError> {
        let gone = self.mailboxes.expire(now, limit)?;
        // Proofs of work that went with it go again another time.
        if !gone.is_empty() {
            self.need_commit();
        }
        Ok(gone)
    }

    fn incarnation(&mut self, fresh: Incarnation) -> Result<Incarnation, StoreError> {
        self.need_commit();
        self.mailboxes.incarnation(fresh)
    }

    fn register(
        &mut self,
        owner: &IdentityKey,
        wishes: RelayCapabilities,
    ) -> Result<Mailbox, StoreError> {
        self.need_commit();
        self.mailboxes.register(owner, wishes)
    }

    fn set_claim(&mut self, owner: &IdentityKey, claim: Incarnation) -> Result<(), StoreError> {
        self.need_commit();
        self.mailboxes.set_claim(owner, claim)
    }

    fn remove_mailbox(&mut self, owner: &IdentityKey, limit: usize) -> Result<bool, StoreError> {
        self.need_commit();
        self.mailboxes.remove_mailbox(owner, limit)
    }

    fn set_admission(
        &mut self,
        owner: &IdentityKey,
        entries: &[AdmissionEntry],
    ) -> Result<(), StoreError> {
        self.need_commit();
        self.mailboxes.set_admission(owner, entries)
    }

    fn spend_work(
        &mut self,
        owner: &IdentityKey,
        hour: u64,
        nonce: u64,
        limit: usize,
    ) -> Result<bool, StoreError> {
        self.need_commit();
        self.mailboxes.spend_work(owner, hour, nonce, limit)
    }

    fn publish(
        &mut self,
        owner: &IdentityKey,
        publication: &Publication<'_>,
        limit: u32,
    ) -> Result<u32, StoreError> {
        self.need_commit();
        self.mailboxes.publish(owner, publication, limit)
    }

    fn take_key_package(&mut self, owner: &IdentityKey) -> Result<Option<Taken>, StoreError> {
        self.need_commit();
        self.mailboxes.take_key_package(owner)
    }

    fn totals(&mut self) -> Result<Totals, StoreError> {
        self.mailboxes.totals()
    }

    fn mailbox(&mut self, owner: &IdentityKey) -> Result<Option<Mailbox>, StoreError> {
        self.mailboxes.mailbox(owner)
    }

    fn claim(&mut self, owner: &IdentityKey) -> Result<Option<Incarnation>, StoreError> {
        self.mailboxes.claim(owner)
    }

    fn token(
        &mut self,
        owner: &IdentityKey,
        token: &TokenHash,
        day: u64,
    ) -> Result<Option<TokenUse>, StoreError> {
        self.mailboxes.token(owner, token, day)
    }

    fn find(&mut self, owner: &IdentityKey, blob_id: &BlobId) -> Result<Option<Held>, StoreError> {
        self.mailboxes.find(owner, blob_id)
    }

    fn list(
        &mut self,
        owner: &IdentityKey,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.mailboxes.list(owner, after, limit)
    }

    fn identity(&mut self, owner: &IdentityKey) -> Result<Option<Identity>, StoreError> {
        self.mailboxes.identity(owner)
    }
}

impl<M: Rules> Rules for Recorder<M> {
    fn add_invite(&mut self, token: &TokenHash, invite: Invite) -> Result<bool, StoreError> {
        self.need_commit();
        self.mailboxes.add_invite(token, invite)
    }

    fn remove_invite(&mut self, token: &TokenHash) -> Result<bool, StoreError> {
        self.need_commit();
        self.mailboxes.remove_invite(token)
    }

    fn spend_invite(&mut self, token: &TokenHash, now: Timestamp) -> Result<bool, StoreError> {
        self.need_commit();
        self.mailboxes.spend_invite(token, now)
    }

    fn expire_invites(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.need_commit();
        self.mailboxes.expire_invites(now)
    }

    fn ban(&mut self, whom: &str) -> Result<bool, StoreError> {
        self.need_commit();
        self.mailboxes.ban(whom)
    }

    fn unban(&mut self, whom: &str) -> Result<bool, StoreError> {
        self.need_commit();
        self.mailboxes.unban(whom)
    }

    fn invites(&mut self) -> Result<Vec<(TokenHash, Invite)>, StoreError> {
        self.mailboxes.invites()
    }

    fn bans(&mut self) -> Result<Vec<String>, StoreError> {
        self.mailboxes.bans()
    }
}
