//! What the database says, as an error of a store.

use crate::store::StoreError;

macro_rules! from_redb {
    ($($error:ident),+) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                from_any(error.into())
            }
        }
    )+};
}
from_redb!(
    CommitError,
    CompactionError,
    SetDurabilityError,
    StorageError,
    TableError,
    TransactionError
);

impl From<redb::DatabaseError> for StoreError {
    fn from(error: redb::DatabaseError) -> Self {
        if matches!(error, redb::DatabaseError::DatabaseAlreadyOpen) {
            return Self::AlreadyOpen;
        }
        from_any(error.into())
    }
}

/// A full disk is told from one that fails: only the former gets better by itself.
fn from_any(error: redb::Error) -> StoreError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let is_full =
        matches!(&error, redb::Error::Io(io) if matches!(io.kind(), StorageFull | QuotaExceeded));
    if is_full {
        return StoreError::Full(Box::new(error));
    }
    StoreError::Database(Box::new(error))
}
