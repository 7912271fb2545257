//! The relay's own database file, and how its transactions are made durable.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use redb::{
    Builder, Database, Durability, ReadableDatabase as _, StorageBackend, WriteTransaction,
};

use super::Snapshot;
use crate::store::StoreError;

/// A database that holds mailboxes and nothing else.
pub struct RedbStore {
    database: Database,
}

impl RedbStore {
    /// Opens the file, or creates it with mode 0600. `cache` bytes of pages are kept in memory.
    ///
    /// # Errors
    /// [`StoreError::AlreadyOpen`] when another process has the file.
    pub fn open(path: &Path, cache: usize) -> Result<Self, StoreError> {
        create_closed(path).map_err(|error| StoreError::Database(Box::new(error)))?;
        let database = Builder::new().set_cache_size(cache).create(path)?;
        Ok(Self { database })
    }

    /// A database on something else than a file: memory, or a disk that fails on purpose.
    ///
    /// # Errors
    /// Whatever the database says.
    pub fn with_backend(backend: impl StorageBackend, cache: usize) -> Result<Self, StoreError> {
        let database = Builder::new().set_cache_size(cache).create_with_backend(backend)?;
        Ok(Self { database })
    }

    /// Begins a transaction that will be durable when its commit returns: synced, in two phases
    /// (strangers choose what is stored, and redb's checksums are not cryptographic), and with the
    /// allocator's state (so that a restart after a crash does not walk the file).
    ///
    /// # Errors
    /// Whatever the database says.
    pub fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    /// The store as it is after the last commit.
    ///
    /// # Errors
    /// Whatever the database says.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot(self.database.begin_read()?))
    }

    /// Moves what is stored to the front of the file, and gives the rest back to the system. True
    /// when that was of any use. Nobody else can use the store meanwhile, and a snapshot that is
    /// still there is an error.
    ///
    /// # Errors
    /// Whatever the database says.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        Ok(self.database.compact()?)
    }

    /// Every table with the number of its rows.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> Vec<(String, u64)> {
        use redb::{ReadableTableMetadata as _, TableHandle as _};
        let transaction = self.database.begin_read().unwrap();
        let tables = transaction.list_tables().unwrap();
        tables
            .map(|table| {
                let name = table.name().to_owned();
                (name, transaction.open_untyped_table(table).unwrap().len().unwrap())
            })
            .collect()
    }
}

/// Makes sure that the file is there, closed to others (redb would leave it to the umask), and that
/// its name is on disk: a store that a power failure can take away whole keeps nothing.
fn create_closed(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedbStore")
    }
}
