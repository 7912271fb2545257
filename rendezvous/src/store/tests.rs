//! Both stores give the same answers, and a file keeps what was committed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

fn in_memory() -> Store {
    Store::with_backend(::redb::backends::InMemoryBackend::new(), OPTIONS).unwrap()
}

const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 1 << 20 };

#[derive(Clone, Debug)]
enum Operation {
    Put(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
}

fn operation() -> impl Strategy<Value = Operation> {
    let table = prop_oneof![Just(Table::Entries), Just(Table::Listed)];
    let key = proptest::collection::vec(0_u8..4, 1..3);
    (table, key, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4))).prop_map(
        |(table, key, value)| match value {
            Some(value) => Operation::Put(table, key, value),
            None => Operation::Delete(table, key),
        },
    )
}

fn apply(rows: &mut impl Rows, operation: &Operation) -> Result<(), StoreError> {
    match operation {
        Operation::Put(table, key, value) => rows.put(*table, key, value),
        Operation::Delete(table, key) => rows.delete(*table, key),
    }
}

/// Everything that the trait shows of a table.
fn contents(rows: &impl Rows, table: Table) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let mut all = BTreeMap::new();
    let mut after: Option<Vec<u8>> = None;
    while let Some((key, value)) = rows.next(table, after.as_deref())? {
        assert_eq!(rows.get(table, &key)?.as_ref(), Some(&value));
        assert!(after.is_none_or(|after| after < key));
        all.insert(key.clone(), value);
        after = Some(key);
    }
    assert_eq!(rows.count(table)?, u64::try_from(all.len()).unwrap());
    Ok(all)
}

proptest! {
    #[test]
    fn both_stores_agree(batches in proptest::collection::vec(proptest::collection::vec(operation(), 0..10), 0..6)) {
        let store = in_memory();
        let mut memory = MemoryRows::default();
        for batch in &batches {
            for operation in batch {
                apply(&mut memory, operation).unwrap();
            }
            store.batch(|rows| batch.iter().try_for_each(|operation| apply(rows, operation))).unwrap();
            for table in [Table::Entries, Table::Listed] {
                let theirs = store.batch(|rows| contents(rows, table)).unwrap();
                prop_assert_eq!(theirs, contents(&memory, table).unwrap());
            }
        }
    }
}

#[test]
fn a_failed_batch_leaves_nothing() {
    let store = in_memory();
    let failed = store.batch(|rows| {
        rows.put(Table::Entries, b"a", b"1")?;
        Err::<(), _>(StoreError::AlreadyOpen)
    });
    assert!(failed.is_err());
    assert_eq!(store.batch(|rows| rows.count(Table::Entries)).unwrap(), 0);
}

#[test]
fn a_file_keeps_what_was_committed_and_has_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let store = Store::open(&path, OPTIONS).unwrap();
    store.batch(|rows| rows.put(Table::Entries, b"a", b"1")).unwrap();
    assert!(matches!(Store::open(&path, OPTIONS), Err(StoreError::AlreadyOpen)));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(store);
    let store = Store::open(&path, OPTIONS).unwrap();
    assert_eq!(store.batch(|rows| rows.get(Table::Entries, b"a")).unwrap(), Some(b"1".to_vec()));
}

#[test]
fn another_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let store = Store::open(&path, OPTIONS).unwrap();
    store.batch(|rows| rows.put(Table::Meta, b"schema", &7_u64.to_be_bytes())).unwrap();
    drop(store);
    let error = Store::open(&path, OPTIONS).unwrap_err();
    assert!(matches!(error, StoreError::Schema { found: 7, known: 1 }));
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    std::fs::write(&path, b"not a database, but long enough to look at its beginning").unwrap();
    assert!(matches!(Store::open(&path, OPTIONS), Err(StoreError::Database(_))));
}
