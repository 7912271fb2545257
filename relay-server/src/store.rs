//! What a keeper remembers: the operations on mailboxes inside one transaction.
//!
//! [`Mailboxes`] is the whole contract between the engine and a database. One value of it lives
//! for one transaction: everything that it did becomes durable together, or not at all. Policy
//! (who may do what, and quotas) is not here but in [`crate::engine`].
//!
//! Rules that every implementation keeps, proved by the conformance suite:
//! - sequences rise strictly over the life of the store and are never used again, also not after
//!   their messages are gone;
//! - `stored_at` rises strictly within one mailbox, whatever the clock does;
//! - the counters of a [`Mailbox`] and the [`Totals`] equal the rows;
//! - one blob is stored once, however many mailboxes hold it, and goes with the last of them;
//! - a key package is handed out at most once.

pub mod journal;
pub mod redb;
pub mod rules;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod model;

use sremp_common::id::{BlobId, IdentityKey, Incarnation, TokenHash};
use sremp_common::identity::Identity;
use sremp_common::limit::MAX_KEY_PACKAGE;
use sremp_common::time::Timestamp;
use sremp_common::wire::{AdmissionClass, AdmissionEntry, Bin, RelayCapabilities, StoredMessage};

pub use self::journal::{Journal, JournaledStore, Recorder};
pub use self::redb::{RedbMailboxes, RedbStore, Snapshot};
pub use self::rules::{Invite, Rules};

/// Key packages that are remembered as published, so that one that is published again (because an
/// answer was lost) is not handed out twice.
pub const PACKAGES_REMEMBERED: u64 = 1024;

/// Why the store could not do what was asked. Nothing of the transaction may be used after it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file.
    #[error("the store is in use by another process")]
    AlreadyOpen,
    /// The database, or the disk below it, failed.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no room left on the disk. Nothing of the transaction was stored, and what was
    /// stored before it is safe; the store must be opened anew.
    #[error("the disk is full")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A message was put where no mailbox is: a defect of the caller.
    #[error("there is no such mailbox")]
    NoMailbox,
    /// A row is not what this program writes.
    #[error("the store is damaged: {0}")]
    Corrupt(&'static str),
    /// Written by a newer version of this program.
    #[error("the store has layout {found}, but this program knows layouts up to {known}")]
    Newer {
        /// What the store says.
        found: u64,
        /// What this program knows.
        known: u64,
    },
}

/// One mailbox, with counters that equal its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// Longest blob that the owner takes, in bytes.
    pub max_blob: u32,
    /// Seconds that the owner wants messages kept.
    pub retention: u32,
    /// Messages that wait.
    pub messages: u64,
    /// Bytes of blobs that wait.
    pub bytes: u64,
    /// Those of the messages that came from strangers.
    pub stranger_messages: u64,
    /// Their bytes.
    pub stranger_bytes: u64,
    /// When the last message was stored; the next one is stored later.
    pub last_stored_at: Timestamp,
    /// Key packages in stock, without the last resort.
    pub key_packages: u32,
    /// The stock after the last publication: what a low stock is measured against.
    pub key_packages_full: u32,
}

/// The whole store, with counters that equal its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Open mailboxes.
    pub mailboxes: u64,
    /// Messages in all of them.
    pub messages: u64,
    /// Bytes of their blobs, counted once for each mailbox.
    pub bytes: u64,
}

/// A token of a mailbox, with its use of one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// For whom it was made.
    pub class: AdmissionClass,
    /// Uses a day; 0 for no quota of its own.
    pub daily_quota: u32,
    /// Blobs stored with it on the day in question.
    pub stored: u32,
    /// Bytes of these blobs, each counted in whole KiB.
    pub stored_bytes: u64,
    /// Key packages taken with it on the day in question.
    pub taken: u32,
}

/// What a token is used for. Counted apart: one use of a link is one key package and one Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A blob is stored.
    Store {
        /// Its length.
        bytes: u64,
    },
    /// A key package is taken.
    Take,
}

/// A blob on its way into one or many mailboxes: stored with the first, shared with the others.
#[derive(Debug)]
pub struct Blob<'b> {
    bytes: &'b [u8],
    /// Where it is stored, once it is.
    number: Option<u64>,
}

impl<'b> Blob<'b> {
    /// A blob that is not stored yet.
    #[must_use]
    pub const fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, number: None }
    }

    /// The blob itself.
    #[must_use]
    pub const fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// Whether a mailbox holds it already.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        self.number.is_some()
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Where a blob goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose mailbox; it must exist.
    pub owner: IdentityKey,
    /// Name of the blob in this mailbox; must not be there yet.
    pub blob_id: BlobId,
    /// When it is dropped unread.
    pub expires_at: Timestamp,
    /// Whether it counts against the strangers' share.
    pub from_stranger: bool,
}

/// A message that is in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When it is dropped unread.
    pub expires_at: Timestamp,
}

/// How much of a mailbox to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// At most so many messages.
    pub messages: usize,
    /// At most so many bytes of blobs; but see `always_one`.
    pub bytes: u64,
    /// The first message is read even if it is longer than `bytes`.
    pub always_one: bool,
}

/// Some messages of one mailbox, sequences ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The messages.
    pub messages: Vec<StoredMessage>,
    /// More follow.
    pub has_more: bool,
}

/// A message that is gone, because its owner acknowledged it or its time had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Whose it was.
    pub owner: IdentityKey,
    /// Its number.
    pub sequence: u64,
    /// Bytes of its blob.
    pub bytes: u64,
}

/// What an owner adds to its stock of key packages.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'p> {
    /// Handed out with each key package.
    pub identity: &'p Identity,
    /// Each for one taker. What was published before is not added again.
    pub key_packages: &'p [Bin<MAX_KEY_PACKAGE>],
    /// Replaces the last resort, when there is one.
    pub last_resort: Option<&'p [u8]>,
    /// Drop the stock first.
    pub replace: bool,
}

/// A key package that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// As the owner published it.
    pub identity: Identity,
    /// The key package.
    pub key_package: Vec<u8>,
    /// The stock that is left.
    pub left: u32,
    /// The stock after the last publication.
    pub full: u32,
}

/// The operations inside one transaction. See the module's rules.
///
/// Every method fails only with a [`StoreError`]: then the transaction must be given up.
pub trait Mailboxes: Rules {
    /// The store's incarnation; the first call in its life makes it `fresh`.
    fn incarnation(&mut self, fresh: Incarnation) -> Result<Incarnation, StoreError>;

    /// Counters over everything.
    fn totals(&mut self) -> Result<Totals, StoreError>;

    /// The mailbox of `owner`, if it is open.
    fn mailbox(&mut self, owner: &IdentityKey) -> Result<Option<Mailbox>, StoreError>;

    /// Opens the mailbox, or renews what its owner wishes; its content stays.
    fn register(
        &mut self,
        owner: &IdentityKey,
        wishes: RelayCapabilities,
    ) -> Result<Mailbox, StoreError>;

    /// Which copy of its owner's home read the mailbox last.
    fn claim(&mut self, owner: &IdentityKey) -> Result<Option<Incarnation>, StoreError>;

    /// Another copy reads the mailbox from now on.
    fn set_claim(&mut self, owner: &IdentityKey, claim: Incarnation) -> Result<(), StoreError>;

    /// Removes at most `limit` messages of the mailbox, and when none is left everything else of
    /// it. True when the mailbox is gone, or never was.
    fn remove_mailbox(&mut self, owner: &IdentityKey, limit: usize) -> Result<bool, StoreError>;

    /// Replaces the list of tokens. Tokens that stay keep their count of the day.
    fn set_admission(
        &mut self,
        owner: &IdentityKey,
        entries: &[AdmissionEntry],
    ) -> Result<(), StoreError>;

    /// The token and its use on `day`, if it is on the owner's list.
    fn token(
        &mut self,
        owner: &IdentityKey,
        token: &TokenHash,
        day: u64,
    ) -> Result<Option<TokenUse>, StoreError>;

    /// Counts one use of a token on `day`; nothing when the token is not on the list.
    fn count_use(
        &mut self,
        owner: &IdentityKey,
        token: &TokenHash,
        day: u64,
        what: Use,
    ) -> Result<(), StoreError>;

    /// Marks a proof of work for a key package as spent. False when it was spent before, or when
    /// `limit` proofs were spent for this owner and hour.
    fn spend_work(
        &mut self,
        owner: &IdentityKey,
        hour: u64,
        nonce: u64,
        limit: usize,
    ) -> Result<bool, StoreError>;

    /// The message with this blob, if the mailbox holds it.
    fn find(&mut self, owner: &IdentityKey, blob_id: &BlobId) -> Result<Option<Held>, StoreError>;

    /// Puts a blob into a mailbox. `stored_at` is `now`, or later than the last one of the mailbox.
    fn put(
        &mut self,
        blob: &mut Blob<'_>,
        place: &Place,
        now: Timestamp,
    ) -> Result<Held, StoreError>;

    /// Messages with sequences above `after`. `has_more` is exact.
    fn list(
        &mut self,
        owner: &IdentityKey,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, StoreError>;

    /// Deletes a message from its owner's mailbox, if it is there.
    fn acknowledge(
        &mut self,
        owner: &IdentityKey,
        sequence: u64,
    ) -> Result<Option<Gone>, StoreError>;

    /// Deletes at most `limit` messages whose time had come at `now`, the oldest first, and what
    /// is known of spent proofs of work of hours before the last one.
    fn expire(&mut self, now: Timestamp, limit: usize) -> Result<Vec<Gone>, StoreError>;

    /// The identity that the owner published last.
    fn identity(&mut self, owner: &IdentityKey) -> Result<Option<Identity>, StoreError>;

    /// Adds to the stock of key packages as far as `limit` allows, and gives its size.
    fn publish(
        &mut self,
        owner: &IdentityKey,
        publication: &Publication<'_>,
        limit: u32,
    ) -> Result<u32, StoreError>;

    /// Takes one key package out of the stock, or reads the last resort when the stock is empty.
    fn take_key_package(&mut self, owner: &IdentityKey) -> Result<Option<Taken>, StoreError>;
}
