//! A journal in front of the database: what a batch did is durable after one write and one sync of a
//! few pages in a row, and the database is written once for many batches.
//!
//! ```text
//! transaction of the database   |---------------------------------| commit: everything, synced twice
//! batches                         a   b      c    d   ...   z
//! journal, generation 7          [a] [b]    [c]  [d]  ...  [z]    generation 8 begins at the front
//! ```
//! The transaction stays open over many batches. Each batch is answered when its record is in the
//! journal. After a crash the database is what it was at its last commit, and what the records did is
//! done again, in their order. The commit that makes them superfluous counts the generation up, in the
//! same transaction: a record of another generation, or of another store, is none.
//!
//! A message that is read soon after it was stored is never written to the database at all.
//!
//! The file, of a fixed length that is occupied from the start, so that a sync writes nothing but what
//! was appended, holds records one after the other, and then whatever was there before:
//! ```text
//! record = u32le(length) || SHA-256 of label "relay-journal", incarnation, generation, position, entries
//!        || entries
//! ```
//! Records end at the first that is not whole: what a crash tore was not answered yet. Only what
//! happens often has an entry; after anything else the transaction must be committed.

mod entry;
mod file;
mod recorder;
#[cfg(test)]
mod tests;

use std::path::Path;

use sremp_common::id::Incarnation;

pub use self::file::Journal;
pub(crate) use self::file::occupy;
pub use self::recorder::Recorder;

use super::{Mailboxes as _, RedbMailboxes, RedbStore, StoreError};

/// The longest journal, in bytes: all of it is read at the start.
pub const MAX_JOURNAL: u64 = 64 << 20;

/// A database with its journal.
#[derive(Debug)]
pub struct JournaledStore {
    /// The database.
    pub store: RedbStore,
    /// The journal in front of it.
    pub journal: Journal,
}

impl JournaledStore {
    /// A store that makes everything durable by a commit.
    #[must_use]
    pub const fn without_journal(store: RedbStore) -> Self {
        Self { store, journal: Journal::none() }
    }

    /// Does again what the journal at `path` says and the database does not know yet, commits that,
    /// and makes a journal of `capacity` bytes; 0 for none. Gives the store's incarnation, too, which
    /// is `fresh` if it had none.
    ///
    /// Where there is no room for a journal, the store goes on without one.
    ///
    /// # Errors
    /// Those of the database, and of a journal that cannot be read.
    pub fn open(
        store: RedbStore,
        path: &Path,
        capacity: u64,
        fresh: Incarnation,
    ) -> Result<(Self, Incarnation), StoreError> {
        let transaction = store.begin()?;
        let (incarnation, generation) = RedbMailboxes::within(&transaction, |mailboxes| {
            let incarnation = mailboxes.incarnation(fresh)?;
            let generation = mailboxes.journal_generation()?;
            let records = file::read(path, incarnation, generation)?;
            for record in &records {
                entry::replay(record, mailboxes)?;
            }
            if !records.is_empty() {
                tracing::info!(records = records.len(), "took over what the journal holds");
            }
            // Also when there was none: what a crash tore at the front must never be read.
            let next = generation.saturating_add(1);
            mailboxes.set_journal_generation(next)?;
            Ok::<_, StoreError>((incarnation, next))
        })?;
        transaction.commit()?;
        let journal = Journal::create(path, capacity, incarnation, generation)?;
        Ok((Self { store, journal }, incarnation))
    }
}
