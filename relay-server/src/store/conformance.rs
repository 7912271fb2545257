//! What every store must do, run for each store that there is. A new one adds an implementation of
//! [`Store`] and one line of `conforms!`.

mod random;
mod rules;

use sremp_common::entropy::Entropy;
use sremp_common::id::{BlobId, IdentityKey, Incarnation, Token, TokenHash};
use sremp_common::identity::{Flags, Identity, IdentityData};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::limit::MAX_KEY_PACKAGE;
use sremp_common::name::Username;
use sremp_common::time::Timestamp;
use sremp_common::wire::{AdmissionClass, AdmissionEntry, Bin, RelayCapabilities};

use self::rules::{bans_stay_until_taken_back, invitations_are_used_up};
use super::model::Model;
use super::{
    Blob, Held, Mailboxes, PACKAGES_REMEMBERED, Page, PageLimit, Place, Publication, RedbMailboxes,
    RedbStore, StoreError, Totals, Use,
};

/// A store under test.
pub(crate) trait Store {
    /// Does `work` in one transaction, and commits it or gives it up.
    fn run(&mut self, commit: bool, work: &mut dyn FnMut(&mut dyn Mailboxes));

    /// As after the death of the process: what is not durable is gone.
    fn reopen(&mut self);
}

impl Store for Model {
    fn run(&mut self, commit: bool, work: &mut dyn FnMut(&mut dyn Mailboxes)) {
        let before = self.clone();
        work(self);
        if !commit {
            *self = before;
        }
    }

    fn reopen(&mut self) {}
}

impl Store for RedbStore {
    fn run(&mut self, commit: bool, work: &mut dyn FnMut(&mut dyn Mailboxes)) {
        let transaction = self.begin().unwrap();
        RedbMailboxes::within(&transaction, |mailboxes| {
            work(mailboxes);
            Ok::<_, StoreError>(())
        })
        .unwrap();
        if commit {
            transaction.commit().unwrap();
        } else {
            transaction.abort().unwrap();
        }
    }

    fn reopen(&mut self) {}
}

/// A redb file that is really closed and opened again.
struct RedbFile {
    directory: tempfile::TempDir,
    store: Option<RedbStore>,
}

impl RedbFile {
    const CACHE: usize = 1 << 20;

    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Self { directory, store: None };
        file.reopen();
        file
    }
}

impl Store for RedbFile {
    fn run(&mut self, commit: bool, work: &mut dyn FnMut(&mut dyn Mailboxes)) {
        self.store.as_mut().unwrap().run(commit, work);
    }

    fn reopen(&mut self) {
        self.store = None;
        let path = self.directory.path().join("relay.redb");
        self.store = Some(RedbStore::open(&path, Self::CACHE).unwrap());
        assert!(
            matches!(RedbStore::open(&path, Self::CACHE), Err(StoreError::AlreadyOpen)),
            "one process at a time"
        );
    }
}

/// A redb database in memory.
pub(crate) fn in_memory() -> RedbStore {
    RedbStore::with_backend(redb::backends::InMemoryBackend::new(), 1 << 20).unwrap()
}

macro_rules! conforms {
    ($($name:ident),+ $(,)?) => {
        mod model {$(
            #[test]
            fn $name() {
                super::$name(&mut super::Model::default());
            }
        )+}
        mod redb_in_memory {$(
            #[test]
            fn $name() {
                super::$name(&mut super::in_memory());
            }
        )+}
        mod redb_file {$(
            #[test]
            fn $name() {
                super::$name(&mut super::RedbFile::new());
            }
        )+}
    };
}

conforms![
    a_mailbox_opens_and_goes,
    one_blob_for_many_mailboxes,
    l12_moments_rise_whatever_the_clock_does,
    sequences_are_never_used_again,
    pages_are_cut_exactly,
    expiry_takes_the_oldest_and_no_more_than_it_may,
    tokens_count_by_day_and_survive_a_new_list,
    spent_work_is_spent,
    m09_each_key_package_is_handed_out_once,
    what_is_not_committed_never_was,
    the_incarnation_stays,
    invitations_are_used_up,
    bans_stay_until_taken_back,
];

fn commit<R>(store: &mut dyn Store, mut work: impl FnMut(&mut dyn Mailboxes) -> R) -> R {
    let mut result = None;
    store.run(true, &mut |mailboxes| result = Some(work(mailboxes)));
    result.unwrap()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

const WISHES: RelayCapabilities =
    RelayCapabilities { max_message_size: 1000, max_storage_duration: 100 };

const EVERYTHING: PageLimit = PageLimit { messages: 1000, bytes: u64::MAX, always_one: true };

fn secret(number: u64) -> IdentitySecret {
    IdentitySecret::generate(&mut Entropy::from_number(number))
}

fn owner(number: u64) -> IdentityKey {
    secret(number).public()
}

fn identity(number: u64) -> Identity {
    let data = IdentityData {
        username: Username::new("owner").unwrap(),
        identity_key: owner(number),
        noise_key: NoiseSecret::generate(&mut Entropy::from_number(number + 1000)).public(),
        flags: Flags::default(),
        extensions: None,
        version: 1,
        created: at(1),
    };
    data.sign(&secret(number)).unwrap().identity().clone()
}

fn place(owner: IdentityKey, blob: &[u8], expires_at: u64) -> Place {
    let blob_id = BlobId::of(&owner, blob);
    Place { owner, blob_id, expires_at: at(expires_at), from_stranger: false }
}

fn put(mailboxes: &mut dyn Mailboxes, owner: IdentityKey, blob: &[u8], now: u64) -> Held {
    mailboxes.put(&mut Blob::new(blob), &place(owner, blob, now + 1000), at(now)).unwrap()
}

fn sequences(page: &Page) -> Vec<u64> {
    page.messages.iter().map(|message| message.sequence).collect()
}

fn a_mailbox_opens_and_goes(store: &mut dyn Store) {
    let a = owner(1);
    commit(store, |mailboxes| {
        assert_eq!(mailboxes.mailbox(&a).unwrap(), None);
        let nowhere = mailboxes.put(&mut Blob::new(b"x"), &place(a, b"x", 1), at(0));
        assert!(matches!(nowhere, Err(StoreError::NoMailbox)));
        assert_eq!(mailboxes.register(&a, WISHES).unwrap().max_blob, 1000);
        for blob in [b"1", b"2", b"3"] {
            put(mailboxes, a, blob, 10);
        }
    });
    store.reopen();
    commit(store, |mailboxes| {
        let wishes = RelayCapabilities { max_message_size: 7, ..WISHES };
        let mailbox = mailboxes.register(&a, wishes).unwrap();
        assert_eq!((mailbox.max_blob, mailbox.messages, mailbox.bytes), (7, 3, 3));
        assert_eq!(mailboxes.totals().unwrap(), Totals { mailboxes: 1, messages: 3, bytes: 3 });
        assert!(!mailboxes.remove_mailbox(&a, 2).unwrap(), "in bounded steps");
        assert!(mailboxes.remove_mailbox(&a, 2).unwrap());
        assert!(mailboxes.remove_mailbox(&a, 2).unwrap());
        assert_eq!(mailboxes.totals().unwrap(), Totals::default());
        assert_eq!(mailboxes.register(&a, WISHES).unwrap().messages, 0);
        assert_eq!(mailboxes.list(&a, 0, EVERYTHING).unwrap(), Page::default());
    });
}

fn one_blob_for_many_mailboxes(store: &mut dyn Store) {
    let owners: Vec<_> = (1..=4).map(owner).collect();
    let blob = vec![7; 5000];
    commit(store, |mailboxes| {
        let mut shared = Blob::new(&blob);
        for owner in &owners {
            mailboxes.register(owner, WISHES).unwrap();
            mailboxes.put(&mut shared, &place(*owner, &blob, 99), at(1)).unwrap();
        }
        let bytes = 4 * 5000;
        assert_eq!(mailboxes.totals().unwrap(), Totals { mailboxes: 4, messages: 4, bytes });
    });
    // It goes with the last mailbox that holds it, whichever that is.
    for gone in [2, 0, 3, 1] {
        store.reopen();
        commit(store, |mailboxes| {
            let page = mailboxes.list(&owners[gone], 0, EVERYTHING).unwrap();
            assert_eq!(&*page.messages[0].blob, blob.as_slice());
            let sequence = page.messages[0].sequence;
            for (number, other) in owners.iter().enumerate() {
                if number != gone {
                    assert_eq!(mailboxes.acknowledge(other, sequence).unwrap(), None);
                }
            }
            let held = mailboxes.acknowledge(&owners[gone], sequence).unwrap().unwrap();
            assert_eq!((held.owner, held.bytes), (owners[gone], 5000));
            assert_eq!(mailboxes.acknowledge(&owners[gone], sequence).unwrap(), None);
        });
    }
    let totals = Totals { mailboxes: 4, ..Totals::default() };
    assert_eq!(commit(store, |mailboxes| mailboxes.totals().unwrap()), totals);
}

fn l12_moments_rise_whatever_the_clock_does(store: &mut dyn Store) {
    let a = owner(1);
    commit(store, |mailboxes| mailboxes.register(&a, WISHES).unwrap());
    let mut last = at(0);
    // A thousand in one millisecond, then an hour back.
    for now in [5_000_000, 5_000_000 - 3_600_000] {
        for batch in 0..10_u64 {
            commit(store, |mailboxes| {
                for number in 0..100_u64 {
                    let blob = [now, batch, number].map(u64::to_le_bytes).concat();
                    let held = put(mailboxes, a, &blob, now);
                    assert!(held.stored_at > last);
                    last = held.stored_at;
                }
            });
        }
    }
    let mut after = 0;
    let mut read = Vec::new();
    loop {
        let limit = PageLimit { messages: 77, ..EVERYTHING };
        let page = commit(store, |mailboxes| mailboxes.list(&a, after, limit).unwrap());
        read.extend(page.messages.iter().map(|message| message.stored_at));
        after = page.messages.last().unwrap().sequence;
        if !page.has_more {
            break;
        }
    }
    assert_eq!(read.len(), 2000, "none is lost");
    assert!(read.is_sorted_by(|a, b| a < b));
}

fn sequences_are_never_used_again(store: &mut dyn Store) {
    let a = owner(1);
    commit(store, |mailboxes| mailboxes.register(&a, WISHES).unwrap());
    let mut highest = 0;
    for round in 0..5_u8 {
        let held = commit(store, |mailboxes| put(mailboxes, a, &[round], 1));
        assert!(held.sequence > highest);
        highest = held.sequence;
        commit(store, |mailboxes| mailboxes.acknowledge(&a, highest).unwrap().unwrap());
        store.reopen();
    }
}

fn pages_are_cut_exactly(store: &mut dyn Store) {
    let [a, b] = [owner(1), owner(2)];
    let numbers = commit(store, |mailboxes| {
        mailboxes.register(&a, WISHES).unwrap();
        mailboxes.register(&b, WISHES).unwrap();
        let mut numbers = Vec::new();
        for number in 0..5_u8 {
            numbers.push(put(mailboxes, a, &[number; 10], 1).sequence);
            put(mailboxes, b, &[number; 10], 1);
        }
        numbers
    });
    let mut page = |after, messages, bytes, always_one| {
        let limit = PageLimit { messages, bytes, always_one };
        let page = commit(store, |mailboxes| mailboxes.list(&a, after, limit).unwrap());
        (sequences(&page), page.has_more)
    };
    assert_eq!(page(0, 9, 99, false), (numbers.clone(), false));
    assert_eq!(page(0, 5, 50, false), (numbers.clone(), false), "has_more is exact");
    assert_eq!(page(0, 4, 50, false), (numbers[..4].to_vec(), true));
    assert_eq!(page(0, 5, 49, false), (numbers[..4].to_vec(), true));
    assert_eq!(page(numbers[2], 5, 50, false), (numbers[3..].to_vec(), false));
    assert_eq!(page(0, 5, 9, false), (vec![], true));
    assert_eq!(page(0, 5, 9, true), (numbers[..1].to_vec(), true));
    assert_eq!(page(numbers[4], 5, 50, true), (vec![], false));
    assert_eq!(page(u64::MAX, 5, 50, true), (vec![], false));
}

fn expiry_takes_the_oldest_and_no_more_than_it_may(store: &mut dyn Store) {
    let [a, b] = [owner(1), owner(2)];
    commit(store, |mailboxes| {
        mailboxes.register(&a, WISHES).unwrap();
        mailboxes.register(&b, WISHES).unwrap();
        for (owner, expires) in [(a, 50), (b, 20), (a, 30), (b, 40), (a, 10)] {
            let blob = [u8::try_from(expires).unwrap()];
            mailboxes.put(&mut Blob::new(&blob), &place(owner, &blob, expires), at(1)).unwrap();
        }
    });
    let mut expire = |now, limit| {
        let gone = commit(store, |mailboxes| mailboxes.expire(at(now), limit).unwrap());
        gone.iter().map(|gone| (gone.owner, gone.sequence)).collect::<Vec<_>>()
    };
    assert_eq!(expire(9, 10), []);
    assert_eq!(expire(45, 3), [(a, 5), (b, 2), (a, 3)]);
    assert_eq!(expire(45, 3), [(b, 4)]);
    assert_eq!(expire(49, 3), []);
    assert_eq!(expire(50, 3), [(a, 1)]);
    let totals = Totals { mailboxes: 2, ..Totals::default() };
    assert_eq!(commit(store, |mailboxes| mailboxes.totals().unwrap()), totals);
}

fn token(number: u8) -> TokenHash {
    Token::new([number; 16]).hash()
}

fn entry(number: u8, class: AdmissionClass, daily_quota: u32) -> AdmissionEntry {
    AdmissionEntry { token_hash: token(number), class, daily_quota }
}

fn tokens_count_by_day_and_survive_a_new_list(store: &mut dyn Store) {
    let [a, b] = [owner(1), owner(2)];
    commit(store, |mailboxes| {
        mailboxes.register(&a, WISHES).unwrap();
        mailboxes.register(&b, WISHES).unwrap();
        let list = [entry(1, AdmissionClass::Contact, 0), entry(2, AdmissionClass::Link, 5)];
        mailboxes.set_admission(&a, &list).unwrap();
        for what in [Use::Store { bytes: 1 }, Use::Store { bytes: 1025 }, Use::Take] {
            mailboxes.count_use(&a, &token(2), 7, what).unwrap();
        }
        mailboxes.count_use(&a, &token(9), 7, Use::Take).unwrap();
    });
    store.reopen();
    commit(store, |mailboxes| {
        let used = mailboxes.token(&a, &token(2), 7).unwrap().unwrap();
        assert_eq!((used.class, used.daily_quota), (AdmissionClass::Link, 5));
        assert_eq!((used.stored, used.taken, used.stored_bytes), (2, 1, 3 * 1024));
        let tomorrow = mailboxes.token(&a, &token(2), 8).unwrap().unwrap();
        assert_eq!((tomorrow.stored, tomorrow.taken, tomorrow.stored_bytes), (0, 0, 0));
        assert_eq!(mailboxes.token(&a, &token(9), 7).unwrap(), None);
        assert_eq!(mailboxes.token(&b, &token(2), 7).unwrap(), None, "another mailbox");
        let list = [entry(2, AdmissionClass::Contact, 6), entry(3, AdmissionClass::Link, 1)];
        mailboxes.set_admission(&a, &list).unwrap();
        assert_eq!(mailboxes.token(&a, &token(1), 7).unwrap(), None, "revoked");
        let used = mailboxes.token(&a, &token(2), 7).unwrap().unwrap();
        assert_eq!((used.class, used.daily_quota), (AdmissionClass::Contact, 6));
        assert_eq!((used.stored, used.taken), (2, 1), "not refilled by a new list");
        mailboxes.count_use(&a, &token(2), 8, Use::Take).unwrap();
        let used = mailboxes.token(&a, &token(2), 8).unwrap().unwrap();
        assert_eq!((used.stored, used.taken), (0, 1));
    });
}

fn spent_work_is_spent(store: &mut dyn Store) {
    let [a, b] = [owner(1), owner(2)];
    let hour = |hours: u64| at(hours * 3_600_000);
    commit(store, |mailboxes| {
        assert!(mailboxes.spend_work(&a, 10, 1, 2).unwrap());
        assert!(!mailboxes.spend_work(&a, 10, 1, 2).unwrap());
        assert!(mailboxes.spend_work(&a, 10, 2, 2).unwrap());
        assert!(!mailboxes.spend_work(&a, 10, 3, 2).unwrap(), "the limit of the hour");
        assert!(mailboxes.spend_work(&a, 11, 1, 2).unwrap());
        assert!(mailboxes.spend_work(&b, 10, 1, 2).unwrap());
    });
    store.reopen();
    commit(store, |mailboxes| {
        // The hour before is still accepted, so it is not forgotten.
        mailboxes.expire(hour(11), 10).unwrap();
        assert!(!mailboxes.spend_work(&a, 10, 1, 9).unwrap());
        mailboxes.expire(hour(12), 10).unwrap();
        assert!(mailboxes.spend_work(&a, 10, 1, 9).unwrap());
        assert!(!mailboxes.spend_work(&a, 11, 1, 9).unwrap());
    });
}

fn packages(names: &[&str]) -> Vec<Bin<MAX_KEY_PACKAGE>> {
    names.iter().map(|name| Bin::new(name.as_bytes().to_vec()).unwrap()).collect()
}

fn publish(store: &mut dyn Store, names: &[&str], last_resort: Option<&str>, replace: bool) -> u32 {
    let (identity, key_packages) = (identity(1), packages(names));
    let publication = Publication {
        identity: &identity,
        key_packages: &key_packages,
        last_resort: last_resort.map(str::as_bytes),
        replace,
    };
    commit(store, |mailboxes| mailboxes.publish(&owner(1), &publication, 4).unwrap())
}

fn take(store: &mut dyn Store) -> Option<(String, u32, u32)> {
    let taken = commit(store, |mailboxes| mailboxes.take_key_package(&owner(1)).unwrap())?;
    assert_eq!(taken.identity, identity(1));
    Some((String::from_utf8(taken.key_package).unwrap(), taken.left, taken.full))
}

fn m09_each_key_package_is_handed_out_once(store: &mut dyn Store) {
    let is = |name: &str, left, full| Some((name.to_owned(), left, full));
    assert_eq!(take(store), None, "no mailbox");
    commit(store, |mailboxes| mailboxes.register(&owner(1), WISHES).unwrap());
    assert_eq!(take(store), None, "nothing published");
    assert_eq!(publish(store, &["a", "b", "c", "a"], None, false), 3);
    assert_eq!(take(store), is("a", 2, 3));
    store.reopen();
    // The answer was lost, so the owner publishes again: `a` is gone already, and stays gone.
    assert_eq!(publish(store, &["a", "b", "c"], Some("last"), false), 2);
    assert_eq!(take(store), is("b", 1, 2));
    // What was dropped unused may come back; what was handed out may not.
    assert_eq!(publish(store, &["b", "c", "d"], None, true), 2);
    assert_eq!(publish(store, &["e", "f", "g", "h"], None, false), 4, "as far as there is room");
    for (name, left) in [("c", 3), ("d", 2), ("e", 1), ("f", 0)] {
        assert_eq!(take(store), is(name, left, 4));
    }
    for _ in 0..2 {
        assert_eq!(take(store), is("last", 0, 4), "only when the stock is empty");
    }
    let mailbox = commit(store, |mailboxes| mailboxes.mailbox(&owner(1)).unwrap().unwrap());
    assert_eq!((mailbox.key_packages, mailbox.key_packages_full), (0, 4));
    // The memory of what was published is bounded, and the oldest is forgotten first.
    let names: Vec<_> = (0..PACKAGES_REMEMBERED).map(|number| format!("n{number}")).collect();
    let identity = identity(1);
    commit(store, |mailboxes| {
        for name in &names {
            let publication = Publication {
                identity: &identity,
                key_packages: &packages(&[name]),
                last_resort: None,
                replace: false,
            };
            assert_eq!(mailboxes.publish(&owner(1), &publication, 4).unwrap(), 1);
            mailboxes.take_key_package(&owner(1)).unwrap().unwrap();
        }
    });
    assert_eq!(publish(store, &["a", "n100"], None, false), 1);
    assert_eq!(take(store), is("a", 0, 1));
}

fn what_is_not_committed_never_was(store: &mut dyn Store) {
    let a = owner(1);
    let first = commit(store, |mailboxes| {
        mailboxes.register(&a, WISHES).unwrap();
        put(mailboxes, a, b"kept", 5)
    });
    store.run(false, &mut |mailboxes| {
        put(mailboxes, a, b"lost", 6);
        mailboxes.acknowledge(&a, first.sequence).unwrap().unwrap();
        mailboxes.register(&owner(2), WISHES).unwrap();
        assert_eq!(mailboxes.totals().unwrap(), Totals { mailboxes: 2, messages: 1, bytes: 4 });
    });
    store.reopen();
    commit(store, |mailboxes| {
        assert_eq!(mailboxes.totals().unwrap(), Totals { mailboxes: 1, messages: 1, bytes: 4 });
        let page = mailboxes.list(&a, 0, EVERYTHING).unwrap();
        assert_eq!(&*page.messages[0].blob, b"kept");
        assert_eq!(page.messages.len(), 1);
        assert_eq!(mailboxes.find(&a, &BlobId::of(&a, b"lost")).unwrap(), None);
        assert_eq!(mailboxes.find(&a, &BlobId::of(&a, b"kept")).unwrap(), Some(first));
    });
}

fn the_incarnation_stays(store: &mut dyn Store) {
    let [first, second] = [Incarnation::new([1; 16]), Incarnation::new([2; 16])];
    assert_eq!(commit(store, |mailboxes| mailboxes.incarnation(first).unwrap()), first);
    store.reopen();
    assert_eq!(commit(store, |mailboxes| mailboxes.incarnation(second).unwrap()), first);
}

/// After the last message is gone, no row of it is left anywhere.
#[test]
fn no_row_is_left_behind() {
    let mut store = in_memory();
    let [a, b] = [owner(1), owner(2)];
    commit(&mut store, |mailboxes| {
        for owner in [a, b] {
            mailboxes.register(&owner, WISHES).unwrap();
            mailboxes.set_admission(&owner, &[entry(1, AdmissionClass::Link, 1)]).unwrap();
            mailboxes.set_claim(&owner, Incarnation::new([7; 16])).unwrap();
        }
        let mut blob = Blob::new(b"shared");
        for owner in [a, b] {
            mailboxes.put(&mut blob, &place(owner, b"shared", 9), at(1)).unwrap();
        }
        put(mailboxes, a, b"alone", 1);
        mailboxes.spend_work(&a, 0, 1, 9).unwrap();
    });
    publish(&mut store, &["x", "y"], Some("z"), false);
    commit(&mut store, |mailboxes| {
        assert!(mailboxes.remove_mailbox(&a, 10).unwrap());
        mailboxes.expire(at(u64::MAX), 10).unwrap();
        assert!(mailboxes.remove_mailbox(&b, 10).unwrap());
    });
    let rows = store.rows();
    assert_eq!(rows.len(), 14, "all tables are there");
    for (table, rows) in rows {
        assert_eq!(rows, u64::from(table == "relay.state"), "{table}");
    }
}
