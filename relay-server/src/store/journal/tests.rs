//! What a journal must keep: everything that was written before a crash, and nothing that was not.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sremp_common::entropy::Entropy;
use sremp_common::id::{BlobId, IdentityKey, Incarnation, Token};
use sremp_common::key::IdentitySecret;
use sremp_common::time::Timestamp;
use sremp_common::wire::{AdmissionClass, AdmissionEntry, RelayCapabilities};

use super::*;
use crate::store::{Blob, Mailboxes, Page, PageLimit, Place, TokenUse, Totals, Use};

const CAPACITY: u64 = 64 << 10;
const FIRST: Incarnation = Incarnation::new([1; 16]);
const EVERYTHING: PageLimit = PageLimit { messages: 9999, bytes: u64::MAX, always_one: true };

fn key(number: u64) -> IdentityKey {
    IdentitySecret::generate(&mut Entropy::from_number(number)).public()
}

fn token() -> Token {
    Token::new([3; 16])
}

/// A relay's files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn journal(&self) -> PathBuf {
        self.path("journal")
    }

    fn open_with(&self, capacity: u64) -> JournaledStore {
        let store = RedbStore::open(&self.path("store"), 1 << 20).unwrap();
        let fresh = Incarnation::new([9; 16]);
        JournaledStore::open(store, &self.journal(), capacity, fresh).unwrap().0
    }

    fn open(&self) -> JournaledStore {
        self.open_with(CAPACITY)
    }

    /// With the mailboxes of two people, and a token of the first.
    fn registered() -> Self {
        let files = Self::new();
        let store = RedbStore::open(&files.path("store"), 1 << 20).unwrap();
        let (opened, _) = JournaledStore::open(store, &files.journal(), CAPACITY, FIRST).unwrap();
        commit(&opened.store, |boxes| {
            let wishes = RelayCapabilities { max_message_size: 9, max_storage_duration: 9 };
            boxes.register(&key(1), wishes).unwrap();
            boxes.register(&key(2), wishes).unwrap();
            let (token_hash, class) = (token().hash(), AdmissionClass::Contact);
            let entry = AdmissionEntry { token_hash, class, daily_quota: 0 };
            boxes.set_admission(&key(1), &[entry]).unwrap();
        });
        files
    }
}

fn commit<R>(store: &RedbStore, work: impl FnOnce(&mut RedbMailboxes<'_>) -> R) -> R {
    let transaction = store.begin().unwrap();
    let result =
        RedbMailboxes::within(&transaction, |boxes| Ok::<_, StoreError>(work(boxes))).unwrap();
    transaction.commit().unwrap();
    result
}

/// What a batch does.
type Batch<'b> = &'b dyn Fn(&mut dyn Mailboxes);

/// Some batches, each written to the journal; then the process dies.
fn batches(opened: &mut JournaledStore, works: &[Batch<'_>]) {
    let transaction = opened.store.begin().unwrap();
    let mut boxes = Recorder::new(RedbMailboxes::open(&transaction).unwrap(), &opened.journal);
    for work in works {
        work(&mut boxes);
        assert!(boxes.write(&mut opened.journal).unwrap());
    }
    drop(boxes);
    transaction.abort().unwrap();
}

fn put(boxes: &mut dyn Mailboxes, owners: &[u64], number: u32) {
    let bytes = [&number.to_le_bytes()[..], &[7; 500]].concat();
    let mut blob = Blob::new(&bytes);
    for owner in owners.iter().map(|owner| key(*owner)) {
        let blob_id = BlobId::of(&owner, &bytes);
        let expires_at = Timestamp::from_millis(1_000_000);
        let from_stranger = number.is_multiple_of(2);
        let place = Place { owner, blob_id, expires_at, from_stranger };
        boxes.put(&mut blob, &place, Timestamp::from_millis(5)).unwrap();
    }
}

/// Everything that a mailbox shows.
#[derive(Debug, PartialEq)]
struct Shown {
    totals: Totals,
    pages: [Page; 2],
    token: Option<TokenUse>,
}

fn shown(boxes: &mut dyn Mailboxes) -> Shown {
    let pages = [1, 2].map(|owner| boxes.list(&key(owner), 0, EVERYTHING).unwrap());
    let token = boxes.token(&key(1), &token().hash(), 4).unwrap();
    Shown { totals: boxes.totals().unwrap(), pages, token }
}

fn one(boxes: &mut dyn Mailboxes) {
    put(boxes, &[1, 2], 1);
    boxes.count_use(&key(1), &token().hash(), 4, Use::Store { bytes: 504 }).unwrap();
}

fn two(boxes: &mut dyn Mailboxes) {
    put(boxes, &[2], 2);
    boxes.acknowledge(&key(1), 1).unwrap().unwrap();
}

#[test]
fn what_was_written_before_a_crash_is_there_after_it() {
    let (files, straight) = (Files::registered(), Files::registered());
    batches(&mut files.open(), &[&one, &two]);
    let expected = commit(&straight.open().store, |boxes| {
        one(boxes);
        two(boxes);
        shown(boxes)
    });
    assert_eq!((expected.totals.messages, expected.pages[1].messages.len()), (2, 2));
    // Twice: what was taken over is not taken over again.
    for _ in 0..2 {
        assert_eq!(commit(&files.open().store, |boxes| shown(boxes)), expected);
    }
}

#[test]
fn a_journal_that_is_full_or_has_no_words_asks_for_a_commit() {
    let files = Files::registered();
    let mut opened = files.open();
    let transaction = opened.store.begin().unwrap();
    let mut boxes = Recorder::new(RedbMailboxes::open(&transaction).unwrap(), &opened.journal);
    let mut number = 0;
    loop {
        put(&mut boxes, &[1], number);
        number += 1;
        if !boxes.write(&mut opened.journal).unwrap() {
            break;
        }
    }
    assert!(number > 50, "{number}");
    boxes.finish(&opened.journal).unwrap();
    transaction.commit().unwrap();
    opened.journal.restart();
    // Again from the front, over what is there.
    batches(&mut opened, &[&|boxes| put(boxes, &[2], 7777)]);
    let transaction = opened.store.begin().unwrap();
    let mut boxes = Recorder::new(RedbMailboxes::open(&transaction).unwrap(), &opened.journal);
    let wishes = RelayCapabilities { max_message_size: 8, max_storage_duration: 9 };
    boxes.register(&key(1), wishes).unwrap();
    assert!(!boxes.write(&mut opened.journal).unwrap());
    put(&mut boxes, &[1], 8888);
    assert!(!boxes.write(&mut opened.journal).unwrap(), "whatever comes after it waits as well");
    drop(boxes);
    transaction.abort().unwrap();
    drop(opened);
    let shown = commit(&files.open().store, |boxes| shown(boxes));
    assert_eq!(shown.pages[0].messages.len(), usize::try_from(number).unwrap());
    assert_eq!(shown.pages[1].messages.len(), 1);
}

#[test]
fn records_of_another_generation_or_another_store_are_none() {
    let (files, other) = (Files::registered(), Files::registered());
    // The process dies between the commit and its next record.
    let mut opened = files.open();
    let transaction = opened.store.begin().unwrap();
    let mut boxes = Recorder::new(RedbMailboxes::open(&transaction).unwrap(), &opened.journal);
    put(&mut boxes, &[1], 1);
    assert!(boxes.write(&mut opened.journal).unwrap());
    boxes.finish(&opened.journal).unwrap();
    transaction.commit().unwrap();
    drop(opened);
    assert_eq!(commit(&files.open().store, |boxes| boxes.totals().unwrap().messages), 1);
    // A copy of a store has no incarnation, and gets another one.
    batches(&mut other.open(), &[&one]);
    let copy = files.open().store.snapshot().unwrap();
    std::fs::remove_file(other.path("store")).unwrap();
    copy.write(&other.path("store")).unwrap();
    assert_eq!(commit(&other.open().store, |boxes| boxes.totals().unwrap().messages), 1);
}

#[test]
fn a_journal_can_be_made_longer_or_be_left_out() {
    let files = Files::registered();
    let length = || std::fs::metadata(files.journal()).map(|file| file.len()).ok();
    for (capacity, length_then) in [(1 << 17, Some(1 << 17)), (0, None), (1 << 16, Some(1 << 16))] {
        let before = files.open_with(capacity);
        assert_eq!(length(), length_then);
        drop(before);
    }
    batches(&mut files.open(), &[&one]);
    assert_eq!(commit(&files.open_with(0).store, |boxes| boxes.totals().unwrap().messages), 2);
}

/// The journal after some batches, and where each record ends.
fn journal_of(files: &Files) -> (Vec<u8>, Vec<usize>) {
    let works: [Batch<'_>; 3] = [&one, &two, &|boxes| put(boxes, &[1, 2], 3)];
    batches(&mut files.open(), &works);
    let bytes = std::fs::read(files.journal()).unwrap();
    let generation = generation(files.0.path());
    let mut ends = vec![0];
    for entries in file::read(&files.journal(), FIRST, generation).unwrap() {
        ends.push(ends.last().unwrap() + 36 + entries.len());
    }
    assert_eq!(ends.len(), 4);
    (bytes, ends)
}

fn generation(directory: &Path) -> u64 {
    let store = RedbStore::open(&directory.join("store"), 1 << 20).unwrap();
    commit(&store, |boxes| boxes.journal_generation().unwrap())
}

#[test]
fn whatever_a_crash_tears_what_was_whole_before_it_stays() {
    let files = Files::registered();
    let (bytes, ends) = journal_of(&files);
    let generation = generation(files.0.path());
    // Every page of the end may be there or not; here, everything after a place is what was before.
    for place in (0..ends[3]).step_by(7) {
        let mut torn = bytes.clone();
        torn[place..].fill(0);
        std::fs::write(files.journal(), &torn).unwrap();
        let whole = ends[1..].iter().filter(|end| **end <= place).count();
        let records = file::read(&files.journal(), FIRST, generation).unwrap();
        // The last bytes of a record may be zero themselves.
        assert!(records.len() == whole || bytes[place..ends[whole + 1]].iter().all(|b| *b == 0));
    }
    let mut torn = bytes;
    torn[ends[2]] ^= 1;
    std::fs::write(files.journal(), &torn).unwrap();
    let shown = commit(&files.open().store, |boxes| shown(boxes));
    assert_eq!((shown.totals.messages, shown.token.unwrap().stored), (2, 1));
}

proptest! {
    #[test]
    fn entries_that_are_none_are_an_error_and_no_panic(
        entries in prop::collection::vec(any::<u8>(), 0..200),
        kind in 1_u8..=4,
    ) {
        let files = Files::registered();
        let opened = files.open();
        let transaction = opened.store.begin().unwrap();
        let mut boxes = RedbMailboxes::open(&transaction).unwrap();
        let entries = [vec![kind], entries].concat();
        prop_assert!(entry::replay(&entries, &mut boxes).is_err() || kind == 3 || kind == 4);
    }
}
