//! Where the registry keeps its rows: a few ordered tables, all changes of one batch in one
//! transaction. What the rows mean is [`crate::registry`]'s concern.

mod memory;
mod redb;

#[cfg(test)]
mod tests;

pub use memory::MemoryRows;
pub use redb::{RedbRows, Snapshot, Store, StoreOptions};

/// The tables. Keys and values are bytes; keys are in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Schema version and totals.
    Meta,
    /// Identity key to entry.
    Entries,
    /// Identity keys of those that a listing may show.
    Listed,
    /// When to withdraw: time (big-endian) and identity key.
    Standing,
    /// When to forget: time (big-endian) and identity key.
    Expired,
    /// Identity key to the network that it came from.
    Origins,
    /// Network to the number of its identities.
    NetworkCounts,
    /// Network, time (big-endian) and identity key of those that have expired.
    NetworkExpired,
    /// Hash of a token to the invitation that it is.
    Invites,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Entries,
        Self::Listed,
        Self::Standing,
        Self::Expired,
        Self::Origins,
        Self::NetworkCounts,
        Self::NetworkExpired,
        Self::Invites,
    ];
}

/// Why the store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Two processes on one file.
    #[error("another process is using this data directory")]
    AlreadyOpen,
    /// Written by a version that lays out its rows in another way.
    #[error(
        "the store has layout {found}, this program knows {known}; use the program that wrote it"
    )]
    Schema {
        /// What the file says.
        found: u64,
        /// What is known here.
        known: u64,
    },
    /// Nothing is overwritten.
    #[error("{} exists already; give another name", .0.display())]
    Exists(std::path::PathBuf),
    /// The file is being read for a backup.
    #[error("a backup is being written; try again when it is done")]
    Busy,
    /// There is no room left on the disk. Nothing of the batch was stored, and what was before is
    /// there. The store has to be opened anew.
    #[error("the disk is full")]
    Full(#[source] Box<::redb::Error>),
    /// The file cannot be opened, read or written.
    #[error("the store failed")]
    Database(#[source] Box<::redb::Error>),
}

/// The tables at one moment.
pub trait ReadRows {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
}

/// The tables within one transaction. Reads see the writes before them.
pub trait Rows: ReadRows {
    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`StoreError::Database`], as for all others.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a key, which need not be there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;

    /// The first row whose key is greater than `after`; without `after`, the first row.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    fn next(&self, table: Table, after: Option<&[u8]>) -> Result<Option<Row>, StoreError>;

    /// Rows of a table, without walking it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    fn count(&self, table: Table) -> Result<u64, StoreError>;
}

/// Key and value.
pub type Row = (Vec<u8>, Vec<u8>);
