//! What a restart costs: nothing that grows with what is stored.

use std::io;
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, RepairSession, StorageBackend};
use sremp_common::entropy::Entropy;
use sremp_common::id::{BlobId, IdentityKey, Incarnation};
use sremp_common::key::IdentitySecret;
use sremp_common::time::Timestamp;
use sremp_common::wire::RelayCapabilities;

use crate::store::{Blob, Mailboxes as _, Place, RedbMailboxes, RedbStore, StoreError};

/// Memory for pages: much less than what is stored.
const CACHE: usize = 1 << 20;
/// Bytes of a blob.
const BLOB: usize = 64 << 10;

/// A disk in memory. A copy of it is what a killed process leaves behind.
#[derive(Clone, Debug)]
struct Disk(Arc<InMemoryBackend>);

impl Disk {
    fn new() -> Self {
        Self(Arc::new(InMemoryBackend::new()))
    }

    /// What is there at this moment, under another store.
    fn copied(&self) -> Self {
        let copy = Self::new();
        let length = self.0.len().unwrap();
        copy.0.set_len(length).unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.0.read(0, &mut bytes).unwrap();
        copy.0.write(0, &bytes).unwrap();
        copy
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

fn owner() -> IdentityKey {
    IdentitySecret::generate(&mut Entropy::from_number(1)).public()
}

fn within<R>(store: &RedbStore, work: impl FnOnce(&mut RedbMailboxes<'_>) -> R) -> R {
    let transaction = store.begin().unwrap();
    let result =
        RedbMailboxes::within(&transaction, |boxes| Ok::<_, StoreError>(work(boxes))).unwrap();
    transaction.commit().unwrap();
    result
}

fn fill(store: &RedbStore, numbers: std::ops::Range<u64>) {
    within(store, |boxes| {
        for number in numbers {
            put(boxes, number);
        }
    });
}

fn put(boxes: &mut RedbMailboxes<'_>, number: u64) {
    let mut bytes = vec![7; BLOB];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let blob_id = BlobId::of(&owner(), &bytes);
    let expires_at = Timestamp::from_millis(u64::MAX);
    let place = Place { owner: owner(), blob_id, expires_at, from_stranger: false };
    boxes.put(&mut Blob::new(&bytes), &place, Timestamp::from_millis(1)).unwrap();
}

/// What a process that is killed at this moment leaves behind, opened by somebody who would rather
/// give up than walk through the file.
fn open_without_repair(disk: &Disk) -> Result<Database, DatabaseError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_repair_callback(RepairSession::abort);
    builder.create_with_backend(disk.copied())
}

/// The allocator's state is a part of every commit, so that nothing has to be read to find out what
/// is free. (In builds with debug assertions the database reads everything all the same, to check
/// that; so bytes are not counted here.)
#[test]
fn a_restart_after_a_kill_does_not_walk_through_what_is_stored() {
    let disk = Disk::new();
    let store = RedbStore::with_backend(disk.clone(), CACHE).unwrap();
    within(&store, |boxes| {
        let wishes = RelayCapabilities { max_message_size: 9, max_storage_duration: 9 };
        boxes.register(&owner(), wishes).unwrap();
    });
    for step in 0..5 {
        fill(&store, step * 20..(step + 1) * 20);
        assert!(open_without_repair(&disk).is_ok(), "after a store");
        within(&store, |boxes| {
            assert!(boxes.acknowledge(&owner(), step * 20 + 1).unwrap().is_some());
        });
        assert!(open_without_repair(&disk).is_ok(), "after a deletion");
    }
    // In the middle of a transaction, too.
    let transaction = store.begin().unwrap();
    let mut boxes = RedbMailboxes::open(&transaction).unwrap();
    put(&mut boxes, 1000);
    assert!(open_without_repair(&disk).is_ok(), "in a transaction");
    boxes.finish().unwrap();
    transaction.commit().unwrap();
    // It would be noticed: a commit without that state has to be repaired.
    drop(store);
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    RedbMailboxes::within(&transaction, |boxes| boxes.incarnation(Incarnation::new([1; 16])))
        .unwrap();
    transaction.commit().unwrap();
    let refused = open_without_repair(&disk);
    assert!(matches!(refused, Err(DatabaseError::RepairAborted)), "{refused:?}");
}
