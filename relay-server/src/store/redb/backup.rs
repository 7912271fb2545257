//! A copy of the whole store as it was at one moment, made while the store is used.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use redb::{
    Builder, Database, Durability, Key, ReadTransaction, ReadableTable as _, TableDefinition, Value,
};

use super::{
    BLOBS, EXPIRY, INCARNATION_KEY, JOURNAL_KEY, MAILBOXES, MESSAGES, NAMES, SHARES, SPENT, STATE,
    TOKENS, packages, rules,
};
use crate::store::StoreError;

/// Bytes that are copied between two commits, so that a copy of any size needs little memory.
const PIECE: usize = 16 << 20;
/// Memory for pages of the copy.
const CACHE: usize = 16 << 20;

/// The store at one moment. What is changed after it is not seen, and the pages that it needs stay
/// in the file as long as it is there.
pub struct Snapshot(pub(super) ReadTransaction);

impl Snapshot {
    /// Writes a store of its own into `file`, which must not be there yet; gives its length in
    /// bytes. The copy has no incarnation: whoever runs a relay on it gets another one, and senders
    /// learn that what they stored after the copy was made is gone.
    ///
    /// # Errors
    /// [`StoreError`]; what is in `file` then is worth nothing.
    pub fn write(&self, file: &Path) -> Result<u64, StoreError> {
        let failed = |error: std::io::Error| StoreError::Database(Box::new(error));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
        let target = Builder::new().set_cache_size(CACHE).create(file)?;
        let mut copy = Copy { source: &self.0, target: &target };
        copy.table(BLOBS)?;
        copy.table(SHARES)?;
        copy.table(MESSAGES)?;
        copy.table(NAMES)?;
        copy.table(EXPIRY)?;
        copy.table(MAILBOXES)?;
        copy.table(TOKENS)?;
        copy.table(SPENT)?;
        copy.table(STATE)?;
        packages::copy(&mut copy)?;
        rules::copy(&mut copy)?;
        let last = target.begin_write()?;
        let mut state = last.open_table(STATE)?;
        state.remove(INCARNATION_KEY)?;
        state.remove(JOURNAL_KEY)?;
        drop(state);
        last.commit()?;
        drop(target);
        let written = File::open(file).map_err(failed)?;
        written.sync_all().map_err(failed)?;
        if let Some(directory) = file.parent() {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        Ok(written.metadata().map_err(failed)?.len())
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

/// Copies tables one after the other.
pub(super) struct Copy<'c> {
    source: &'c ReadTransaction,
    target: &'c Database,
}

impl Copy<'_> {
    /// Copies one table, if it is there.
    pub(super) fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'_, K, V>,
    ) -> Result<(), StoreError> {
        let source = match self.source.open_table(definition) {
            Ok(source) => source,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut rows = source.iter()?;
        loop {
            let mut transaction = self.target.begin_write()?;
            transaction.set_durability(Durability::None)?;
            let mut target = transaction.open_table(definition)?;
            let mut copied = 0_usize;
            let mut is_done = false;
            while copied < PIECE {
                let Some(row) = rows.next() else {
                    is_done = true;
                    break;
                };
                let (key, value) = row?;
                let value = value.value();
                copied = copied.saturating_add(V::as_bytes(&value).as_ref().len());
                target.insert(key.value(), value)?;
            }
            drop(target);
            transaction.commit()?;
            if is_done {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::id::{BlobId, IdentityKey, Incarnation, Token};
    use sremp_common::key::IdentitySecret;
    use sremp_common::time::Timestamp;
    use sremp_common::wire::{AdmissionClass, AdmissionEntry, RelayCapabilities};

    use super::*;
    use crate::store::{
        Blob, Invite, Mailboxes as _, PageLimit, Place, RedbMailboxes, RedbStore, Rules as _,
    };

    const EVERYTHING: PageLimit = PageLimit { messages: 9999, bytes: u64::MAX, always_one: true };

    fn key() -> IdentityKey {
        IdentitySecret::generate(&mut Entropy::from_number(1)).public()
    }

    fn change<R>(store: &RedbStore, work: impl FnOnce(&mut RedbMailboxes<'_>) -> R) -> R {
        let transaction = store.begin().unwrap();
        let result =
            RedbMailboxes::within(&transaction, |boxes| Ok::<_, StoreError>(work(boxes))).unwrap();
        transaction.commit().unwrap();
        result
    }

    fn put(boxes: &mut RedbMailboxes<'_>, number: u32) {
        let bytes = [&number.to_le_bytes()[..], &[7; 5000]].concat();
        let blob_id = BlobId::of(&key(), &bytes);
        let expires_at = Timestamp::from_millis(1_000_000);
        let place =
            Place { owner: key(), blob_id, expires_at, from_stranger: number.is_multiple_of(2) };
        boxes.put(&mut Blob::new(&bytes), &place, Timestamp::from_millis(5)).unwrap();
    }

    #[test]
    fn a_copy_is_the_store_at_one_moment_with_another_incarnation() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(&directory.path().join("a"), 1 << 20).unwrap();
        let (first, second) = (Incarnation::new([1; 16]), Incarnation::new([2; 16]));
        let token_hash = Token::new([3; 16]).hash();
        let wishes = RelayCapabilities { max_message_size: 9, max_storage_duration: 9 };
        let totals = change(&store, |boxes| {
            assert_eq!(boxes.incarnation(first).unwrap(), first);
            boxes.register(&key(), wishes).unwrap();
            let class = AdmissionClass::Contact;
            let entry = AdmissionEntry { token_hash, class, daily_quota: 0 };
            boxes.set_admission(&key(), &[entry]).unwrap();
            let invite = Invite { uses: 3, expires_at: Timestamp::from_millis(9) };
            boxes.add_invite(&token_hash, invite).unwrap();
            boxes.ban("somebody").unwrap();
            (0..4000).for_each(|number| put(boxes, number));
            boxes.totals().unwrap()
        });
        let before = change(&store, |boxes| boxes.list(&key(), 0, EVERYTHING).unwrap());
        let rows = store.rows();
        let snapshot = store.snapshot().unwrap();
        // What happens from now on is not in it.
        change(&store, |boxes| {
            for sequence in 1..2000 {
                boxes.acknowledge(&key(), sequence).unwrap();
            }
            put(boxes, 9999);
        });
        let file = directory.path().join("b");
        let length = snapshot.write(&file).unwrap();
        assert_eq!(length, std::fs::metadata(&file).unwrap().len());
        assert!(snapshot.write(&file).is_err(), "nothing is overwritten");
        drop(snapshot);

        let copy = RedbStore::open(&file, 1 << 20).unwrap();
        let written: u64 = rows.iter().map(|(_, rows)| rows).sum();
        assert_eq!(copy.rows().iter().map(|(_, rows)| rows).sum::<u64>(), written - 1);
        change(&copy, |boxes| {
            assert_eq!(boxes.totals().unwrap(), totals);
            assert_eq!(boxes.list(&key(), 0, EVERYTHING).unwrap(), before);
            assert_eq!(boxes.incarnation(second).unwrap(), second);
            assert!(boxes.token(&key(), &token_hash, 0).unwrap().is_some());
            assert_eq!((boxes.invites().unwrap().len(), boxes.bans().unwrap().len()), (1, 1));
        });
        // The room that was drained is given back.
        let size = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().len();
        let full = size("a");
        change(&store, |boxes| {
            for sequence in 2000..4000 {
                boxes.acknowledge(&key(), sequence).unwrap();
            }
        });
        assert!(store.compact().unwrap());
        assert!(size("a") < full / 2, "{} of {full}", size("a"));
    }
}
