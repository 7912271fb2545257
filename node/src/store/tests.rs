//! Tests of the store: the overlays against a plain map, and who may open the file.

use std::collections::BTreeMap;

use proptest::prelude::*;
use redb::ReadableTable as _;

use super::*;

const T: Table = Table::Messages;

#[test]
fn c12_two_processes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let first = Store::open(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(&error, StoreError::InUse(at) if *at == path));
    let help = error.to_string();
    assert!(help.contains("in use") && help.contains("--home"), "{help}");
    // The first is unharmed.
    let tx = first.begin().unwrap();
    tx.put(T, b"k", b"v".to_vec());
    tx.accept().unwrap();
    tx.commit().unwrap();
    drop(first);
    let again = Store::open(&path).unwrap();
    assert_eq!(again.begin().unwrap().get(T, b"k").unwrap(), Some(b"v".to_vec()));
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    let write = |version: u32| {
        let store = Store::open(&path).unwrap();
        let tx = store.begin().unwrap();
        tx.write(Table::Meta, SCHEMA_ROW, &version).unwrap();
        tx.accept().unwrap();
        tx.commit().unwrap();
    };
    write(SCHEMA_VERSION + 1);
    for _ in 0..2 {
        assert!(matches!(
            Store::open(&path),
            Err(StoreError::NewerSchema { found, known })
                if found == SCHEMA_VERSION + 1 && known == SCHEMA_VERSION
        ));
    }
}

#[test]
fn one_transaction_at_a_time() {
    let store = Store::in_memory().unwrap();
    let first = store.begin().unwrap();
    assert!(matches!(store.begin(), Err(StoreError::Nested)));
    drop(first);
    let second = store.begin().unwrap();
    second.commit().unwrap();
    store.begin().unwrap();
}

#[test]
fn refused_inputs_and_dropped_transactions_leave_nothing() {
    let store = Store::in_memory().unwrap();
    let tx = store.begin().unwrap();
    tx.put(T, b"kept", b"1".to_vec());
    tx.accept().unwrap();
    tx.put(T, b"kept", b"2".to_vec());
    tx.put(T, b"other", b"2".to_vec());
    assert_eq!(tx.get(T, b"kept").unwrap(), Some(b"2".to_vec()));
    tx.refuse();
    assert_eq!(tx.get(T, b"kept").unwrap(), Some(b"1".to_vec()));
    assert_eq!(tx.get(T, b"other").unwrap(), None);
    tx.put(T, b"unaccepted", b"3".to_vec());
    tx.commit().unwrap();

    let tx = store.begin().unwrap();
    assert_eq!(tx.scan(T, &[], None, 9).unwrap(), [(b"kept".to_vec(), b"1".to_vec())]);
    tx.delete(T, b"kept");
    tx.accept().unwrap();
    drop(tx);
    let tx = store.begin().unwrap();
    assert_eq!(tx.get(T, b"kept").unwrap(), Some(b"1".to_vec()));
}

#[test]
fn nothing_is_written_for_nothing() {
    #[derive(Debug)]
    struct Counting(redb::backends::InMemoryBackend, Arc<std::sync::atomic::AtomicUsize>);
    impl StorageBackend for Counting {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> std::io::Result<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.write(offset, data)
        }
    }
    let syncs = Arc::default();
    let backend = Counting(redb::backends::InMemoryBackend::new(), Arc::clone(&syncs));
    let store = Store::with_backend(backend).unwrap();
    let before = syncs.load(Ordering::Relaxed);
    let tx = store.begin().unwrap();
    tx.get(T, b"k").unwrap();
    tx.put(T, b"k", b"v".to_vec());
    tx.refuse();
    tx.accept().unwrap();
    assert!(!tx.is_dirty());
    tx.commit().unwrap();
    assert_eq!(syncs.load(Ordering::Relaxed), before);
    let tx = store.begin().unwrap();
    tx.put(T, b"k", b"v".to_vec());
    tx.accept().unwrap();
    assert!(tx.is_dirty());
    tx.commit().unwrap();
    assert!(syncs.load(Ordering::Relaxed) > before);
}

#[test]
fn tables_of_others_share_the_transaction() {
    const OTHERS: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("others");
    let store = Store::in_memory().unwrap();
    let tx = store.begin().unwrap();
    tx.with_transaction(|writer| {
        writer.open_table(OTHERS).unwrap().insert(1, 2).unwrap();
    });
    tx.refuse();
    tx.commit().unwrap();
    let tx = store.begin().unwrap();
    let found = tx.with_transaction(|writer| {
        writer.open_table(OTHERS).unwrap().get(1).unwrap().map(|value| value.value())
    });
    assert_eq!(found, Some(2));
}

#[test]
fn rows_that_do_not_decode_say_where() {
    let store = Store::in_memory().unwrap();
    let tx = store.begin().unwrap();
    tx.put(Table::Relays, b"k", vec![0xC1]);
    assert!(matches!(tx.read::<u32>(Table::Relays, b"k"), Err(StoreError::Row(Table::Relays))));
    tx.write(Table::Relays, b"k", &7_u32).unwrap();
    assert_eq!(tx.read::<u32>(Table::Relays, b"k").unwrap(), Some(7));
    assert_eq!(tx.read::<u32>(Table::Relays, b"none").unwrap(), None);
}

#[test]
fn table_names_differ() {
    let name = |table: &Table| {
        let definition = table.definition();
        redb::TableHandle::name(&definition).to_owned()
    };
    let mut names: Vec<_> = Table::ALL.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Table::ALL.len());
}

#[test]
fn large_batches_are_written_early_and_stay_readable() {
    let store = Store::in_memory().unwrap();
    let tx = store.begin().unwrap();
    for n in 0..40_u8 {
        tx.put(T, &[n], vec![n; 1024 * 1024]);
        tx.accept().unwrap();
    }
    tx.delete(T, &[3]);
    tx.put(T, &[4], b"new".to_vec());
    tx.accept().unwrap();
    assert_eq!(tx.get(T, &[5]).unwrap().unwrap().len(), 1024 * 1024);
    assert_eq!(tx.get(T, &[3]).unwrap(), None);
    let found = tx.scan_back(T, &[2], &[5], 9).unwrap();
    assert_eq!(found.iter().map(|(key, _)| key[0]).collect::<Vec<_>>(), [4, 2]);
    tx.commit().unwrap();
    let tx = store.begin().unwrap();
    assert_eq!(tx.scan(T, &[], None, 99).unwrap().len(), 39);
}

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, u8),
    Delete(Vec<u8>),
    Accept,
    Refuse,
    Commit,
    Reopen,
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
    ScanBack(Vec<u8>, Vec<u8>, usize),
    Prefix(Vec<u8>, usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || prop::collection::vec(prop::sample::select(vec![0_u8, 1, 254, 255]), 0..4);
    let op = prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
        3 => key().prop_map(Op::Delete),
        2 => Just(Op::Accept),
        1 => Just(Op::Refuse),
        1 => Just(Op::Commit),
        1 => Just(Op::Reopen),
        2 => (key(), prop::option::of(key()), 0..9_usize).prop_map(|(a, b, n)| Op::Scan(a, b, n)),
        2 => (key(), key(), 0..9_usize).prop_map(|(a, b, n)| Op::ScanBack(a, b, n)),
        2 => (key(), 0..9_usize).prop_map(|(key, n)| Op::Prefix(key, n)),
    ];
    prop::collection::vec(op, 1..60)
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn expect(
    map: &Map,
    keep: impl Fn(&[u8]) -> bool,
    limit: usize,
    back: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows =
        map.iter().filter(|(key, _)| keep(key)).map(|(key, value)| (key.clone(), value.clone()));
    let mut rows: Vec<_> = rows.collect();
    if back {
        rows.reverse();
    }
    rows.truncate(limit);
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whatever is written, accepted, refused, committed and lost: it reads like three maps.
    #[test]
    fn overlays_read_like_maps(ops in ops()) {
        let store = Store::in_memory().unwrap();
        let (mut durable, mut batch, mut input) = (Map::new(), Map::new(), Map::new());
        let mut tx = store.begin().unwrap();
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    tx.put(T, &key, vec![value]);
                    input.insert(key, vec![value]);
                }
                Op::Delete(key) => {
                    tx.delete(T, &key);
                    input.remove(&key);
                }
                Op::Accept => {
                    tx.accept().unwrap();
                    batch.clone_from(&input);
                }
                Op::Refuse => {
                    tx.refuse();
                    input.clone_from(&batch);
                }
                Op::Commit => {
                    tx.commit().unwrap();
                    durable.clone_from(&batch);
                    input.clone_from(&batch);
                    tx = store.begin().unwrap();
                }
                Op::Reopen => {
                    drop(tx);
                    batch.clone_from(&durable);
                    input.clone_from(&durable);
                    tx = store.begin().unwrap();
                }
                Op::Scan(from, until, limit) => {
                    let inside = |key: &[u8]| key >= &from[..] && until.as_deref().is_none_or(|until| key < until);
                    let found = tx.scan(T, &from, until.as_deref(), limit).unwrap();
                    prop_assert_eq!(found, expect(&input, inside, limit, false));
                }
                Op::ScanBack(from, until, limit) => {
                    let inside = |key: &[u8]| key >= &from[..] && key < &until[..];
                    prop_assert_eq!(tx.scan_back(T, &from, &until, limit).unwrap(), expect(&input, inside, limit, true));
                }
                Op::Prefix(prefix, limit) => {
                    let inside = |key: &[u8]| key.starts_with(&prefix);
                    prop_assert_eq!(tx.scan_prefix(T, &prefix, limit).unwrap(), expect(&input, inside, limit, false));
                }
            }
            for (key, value) in &input {
                let found = tx.get(T, key).unwrap();
                prop_assert_eq!(found.as_ref(), Some(value));
            }
        }
    }
}
