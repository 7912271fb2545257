//! The tables in one redb file. A batch is one write transaction; it is on disk when
//! [`Store::batch`] returns, or nothing of it is.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use redb::{
    CompactionError, Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase as _,
    ReadableTable as _, ReadableTableMetadata as _, StorageBackend, StorageError, TableDefinition,
    WriteTransaction,
};

use super::{ReadRows, Row, Rows, StoreError, Table};

/// Layout of the rows. Raised when an older program could no longer read them.
const SCHEMA: u64 = 1;

/// Key of the layout's number in [`Table::Meta`].
const SCHEMA_KEY: &[u8] = b"schema";

/// Who may read the file: its owner. Addresses of people are in it.
const FILE_MODE: u32 = 0o600;

/// How the file is used.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bytes of the file that are kept in memory.
    pub cache_bytes: usize,
}

/// The open file.
pub struct Store(Database);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`StoreError`], naming the cause.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(StorageError::Io)
            .map_err(failed)?;
        let database = Database::builder().set_cache_size(options.cache_bytes).create_file(file);
        Self::prepared(database.map_err(cannot_open)?)
    }

    /// The same over any backend: memory, or one that loses what was not synced.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_backend(
        backend: impl StorageBackend,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(options.cache_bytes);
        Self::prepared(builder.create_with_backend(backend).map_err(cannot_open)?)
    }

    /// Makes the tables, and sees to it that their layout is known.
    fn prepared(database: Database) -> Result<Self, StoreError> {
        let store = Self(database);
        let found = store.schema()?;
        match found {
            Some(SCHEMA) => Ok(store),
            Some(found) => Err(StoreError::Schema { found, known: SCHEMA }),
            None => {
                store.batch(|rows| rows.put(Table::Meta, SCHEMA_KEY, &SCHEMA.to_be_bytes()))?;
                Ok(store)
            }
        }
    }

    fn schema(&self) -> Result<Option<u64>, StoreError> {
        let transaction = self.0.begin_read().map_err(failed)?;
        let table = match transaction.open_table(definition(Table::Meta)) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let row = table.get(SCHEMA_KEY).map_err(failed)?;
        let found = row.map(|row| row.value().try_into().map_or(0, u64::from_be_bytes));
        Ok(found)
    }

    /// What the store holds now: what is on disk, and nothing of a batch that is under way.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let transaction = self.0.begin_read().map_err(failed)?;
        let mut tables = BTreeMap::new();
        for table in Table::ALL {
            match transaction.open_table(definition(table)) {
                Ok(open) => drop(tables.insert(table, open)),
                // Nothing was ever written to it.
                Err(redb::TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Snapshot(tables))
    }

    /// Gives unused space back to the system; true if there was any.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while there is a snapshot.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        self.0.compact().map_err(|error| {
            if matches!(error, CompactionError::TransactionInProgress) {
                StoreError::Busy
            } else {
                failed(error)
            }
        })
    }

    /// Carries out `work` in one transaction. When it changed something, the change is durable
    /// when this returns; when it fails, nothing has changed.
    ///
    /// # Errors
    /// What `work` or the store reports. After [`StoreError::Database`] the store is of no more
    /// use: the process should start again from the file.
    pub fn batch<T>(
        &self,
        work: impl FnOnce(&mut RedbRows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut transaction = self.0.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        // Strangers choose what is stored: a checksum alone must not decide about a commit that
        // was cut short, and a restart must not have to walk the file.
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let mut rows = RedbRows { transaction: &transaction, changed: false };
        let result = work(&mut rows);
        let changed = rows.changed;
        let ended = if changed && result.is_ok() {
            transaction.commit().map_err(failed)
        } else {
            transaction.abort().map_err(failed)
        };
        // What went wrong first is the cause.
        result.and_then(|value| ended.map(|()| value))
    }
}

/// What the store held at one moment. It costs room in the file until it is dropped.
pub struct Snapshot(BTreeMap<Table, ReadOnlyTable<&'static [u8], &'static [u8]>>);

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    /// Writes it to a new file, which a server can be started with, and gives the number of rows.
    /// The file has its name only when all of it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Exists`], or what the system says.
    pub fn write(&self, path: &Path) -> Result<u64, StoreError> {
        if path.exists() {
            return Err(StoreError::Exists(path.to_owned()));
        }
        let io = |error| failed(StorageError::Io(error));
        let mut draft = path.as_os_str().to_owned();
        draft.push(".part");
        let draft = Path::new(&draft);
        // A draft is what an interrupted backup left behind.
        let _ = std::fs::remove_file(draft);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(draft)
            .map_err(io)?;
        let rows = self.copy_to(Database::builder().create_file(file).map_err(cannot_open)?)?;
        std::fs::rename(draft, path).map_err(io)?;
        Ok(rows)
    }

    fn copy_to(&self, copy: Database) -> Result<u64, StoreError> {
        let mut transaction = copy.begin_write().map_err(failed)?;
        transaction.set_two_phase_commit(true);
        let mut rows = 0_u64;
        for (table, from) in &self.0 {
            let mut to = transaction.open_table(definition(*table)).map_err(failed)?;
            for row in from.iter().map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                to.insert(key.value(), value.value()).map_err(failed)?;
                rows = rows.saturating_add(1);
            }
        }
        transaction.commit().map_err(failed)?;
        Ok(rows)
    }
}

impl ReadRows for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(table) = self.0.get(&table) else { return Ok(None) };
        let row = table.get(key).map_err(failed)?;
        Ok(row.map(|row| row.value().to_vec()))
    }
}

/// The tables within a borrowed transaction.
pub struct RedbRows<'t> {
    transaction: &'t WriteTransaction,
    changed: bool,
}

impl std::fmt::Debug for RedbRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbRows").field("changed", &self.changed).finish_non_exhaustive()
    }
}

impl RedbRows<'_> {
    fn table(
        &self,
        table: Table,
    ) -> Result<redb::Table<'_, &'static [u8], &'static [u8]>, StoreError> {
        self.transaction.open_table(definition(table)).map_err(failed)
    }
}

impl ReadRows for RedbRows<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.table(table)?;
        let row = table.get(key).map_err(failed)?;
        Ok(row.map(|row| row.value().to_vec()))
    }
}

impl Rows for RedbRows<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.changed = true;
        self.table(table)?.insert(key, value).map_err(failed)?;
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.changed = true;
        self.table(table)?.remove(key).map_err(failed)?;
        Ok(())
    }

    fn next(&self, table: Table, after: Option<&[u8]>) -> Result<Option<Row>, StoreError> {
        let table = self.table(table)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = table.range::<&[u8]>((from, Bound::Unbounded)).map_err(failed)?;
        match range.next() {
            Some(row) => {
                let (key, value) = row.map_err(failed)?;
                Ok(Some((key.value().to_vec(), value.value().to_vec())))
            }
            None => Ok(None),
        }
    }

    fn count(&self, table: Table) -> Result<u64, StoreError> {
        self.table(table)?.len().map_err(failed)
    }
}

const fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Entries => "entries",
        Table::Listed => "listed",
        Table::Standing => "standing",
        Table::Expired => "expired",
        Table::Origins => "origins",
        Table::NetworkCounts => "network_counts",
        Table::NetworkExpired => "network_expired",
        Table::Invites => "invites",
    })
}

/// A full disk is told from one that fails: only the former gets better by itself.
fn failed(error: impl Into<redb::Error>) -> StoreError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let error = error.into();
    let is_full =
        matches!(&error, redb::Error::Io(io) if matches!(io.kind(), StorageFull | QuotaExceeded));
    if is_full { StoreError::Full(Box::new(error)) } else { StoreError::Database(Box::new(error)) }
}

fn cannot_open(error: DatabaseError) -> StoreError {
    if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
        StoreError::AlreadyOpen
    } else {
        failed(error)
    }
}
