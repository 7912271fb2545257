//! Everything durable of a node: one redb file, one transaction for each batch of inputs, one
//! overlay for each input.
//!
//! An input reads and writes through a [`Tx`]. What it writes stays in the overlay until the input
//! is accepted; a refused input leaves nothing behind. All accepted inputs of a batch become durable
//! together in [`Tx::commit`], and only then may effects leave. The store knows nothing of what the
//! rows mean; the modules that own the tables do.

mod table;
#[cfg(test)]
mod tests;
mod tx;

pub use table::Table;
pub use tx::{Tx, decode_row};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sremp_common::io::private::{PrivateError, write_private_new};

use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, StorageBackend};

/// Version of the rows' formats. A store with a higher one was written by a newer program.
pub const SCHEMA_VERSION: u32 = 1;

/// Page cache of the database, in bytes: an idle node stays small.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Row of table [`Table::Meta`] that holds the schema version.
const SCHEMA_ROW: &[u8] = b"schema";

/// Why the store cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error(
        "the data file {0} is in use: is another `sremp run` with the same home directory running? Stop it, or use another --home"
    )]
    InUse(PathBuf),
    /// The file was written by a newer version of the program.
    #[error(
        "the data was written by a newer version (format {found}, this version knows up to {known}): update sremp"
    )]
    NewerSchema {
        /// As found.
        found: u32,
        /// The highest one that we read.
        known: u32,
    },
    /// A transaction was begun while another one is open: a defect of ours.
    #[error("another transaction is open")]
    Nested,
    /// A row cannot be decoded: the file is damaged, or a defect of ours.
    #[error("a row of table {0:?} is damaged")]
    Row(Table),
    /// A value cannot be encoded: a defect of ours.
    #[error("a value for table {0:?} cannot be encoded")]
    Encode(Table),
    /// The mailboxes kept for friends failed.
    #[error("the mailboxes kept for friends failed")]
    Mailboxes(#[source] Box<sremp_relay::store::StoreError>),
    /// The data file cannot be made.
    #[error("the data file cannot be made")]
    File(#[source] Box<PrivateError>),
    /// The database failed: disk full, damaged, or gone.
    #[error("the database failed")]
    Database(#[source] Box<redb::Error>),
}

/// The node's one store. Cheap to share; at most one [`Tx`] is open at a time.
#[derive(Debug)]
pub struct Store {
    database: Database,
    open: Arc<AtomicBool>,
}

impl Store {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NewerSchema`], [`StoreError::Database`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // Made with its mode, not closed afterwards: nobody else can have opened it in between.
        match write_private_new(path, &[]) {
            Ok(()) | Err(PrivateError::Exists(_)) => {}
            Err(error) => return Err(StoreError::File(Box::new(error))),
        }
        let database = builder().create(path).map_err(|error| {
            if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                StoreError::InUse(path.to_owned())
            } else {
                error.into()
            }
        })?;
        Self::from_database(database)
    }

    /// A store on another backend: in memory, or one that crashes, for the simulator.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, StoreError> {
        Self::from_database(builder().create_with_backend(backend)?)
    }

    /// A store in memory, gone when dropped.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::with_backend(redb::backends::InMemoryBackend::new())
    }

    fn from_database(database: Database) -> Result<Self, StoreError> {
        let store = Self { database, open: Arc::new(AtomicBool::new(false)) };
        let tx = store.begin()?;
        match tx.read::<u32>(Table::Meta, SCHEMA_ROW)? {
            Some(found) if found > SCHEMA_VERSION => {
                return Err(StoreError::NewerSchema { found, known: SCHEMA_VERSION });
            }
            Some(_) => {}
            None => tx.write(Table::Meta, SCHEMA_ROW, &SCHEMA_VERSION)?,
        }
        tx.accept()?;
        tx.commit()?;
        Ok(store)
    }

    /// Begins the transaction of one batch of inputs.
    ///
    /// # Errors
    /// [`StoreError::Nested`] while another one is open, [`StoreError::Database`].
    pub fn begin(&self) -> Result<Tx, StoreError> {
        if self.open.swap(true, Ordering::AcqRel) {
            return Err(StoreError::Nested);
        }
        let guard = tx::OpenGuard(Arc::clone(&self.open));
        Tx::new(guard, self.database.begin_read()?, self.database.begin_write()?)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

macro_rules! from_redb {
    ($($error:ty),+) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )+};
}
from_redb!(
    redb::CommitError,
    DatabaseError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);
