//! The thread answers after the commit, and a store that fails ends it without a false answer.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use sremp_common::entropy::Entropy;
use sremp_common::identity::{Flags, IdentityData};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::rate::Rate;
use sremp_common::time::Timestamp;
use sremp_common::wire::{List, Register, Registration};

use super::*;
use crate::registry::{Admission, Limits};

/// A disk that can be told to fail. Clones are the same disk.
#[derive(Clone, Debug, Default)]
struct Failing {
    disk: Arc<InMemoryBackend>,
    writes_fail: Arc<AtomicBool>,
    reads_fail: Arc<AtomicBool>,
}

fn check(fails: &AtomicBool) -> io::Result<()> {
    if fails.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        check(&self.reads_fail)?;
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check(&self.writes_fail)?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        check(&self.writes_fail)?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        check(&self.writes_fail)?;
        self.disk.write(offset, data)
    }
}

fn config() -> RegistryConfig {
    let plenty = Rate { count: 1_000_000, per: Duration::from_secs(60) };
    RegistryConfig {
        max_entries: 10_000,
        max_bytes: 1 << 30,
        listing: true,
        servers: List::default(),
        admission: Admission::Everybody,
        banned: BTreeSet::new(),
        allow_private_endpoints: false,
        limits: Limits {
            registrations: plenty,
            new_identities: plenty,
            lookups: plenty,
            list_pages: plenty,
            identities_per_network: 1_000,
            wanted_registrations: 1_000_000,
        },
    }
}

fn origin() -> Origin {
    Origin { address: "192.0.2.1:1".parse().unwrap(), exporter: [0; 32] }
}

fn register(number: u64) -> Request {
    let secret = IdentitySecret::generate(&mut Entropy::from_number(number));
    let data = IdentityData {
        username: Username::new("Somebody").unwrap(),
        identity_key: secret.public(),
        noise_key: NoiseSecret::generate(&mut Entropy::from_number(number)).public(),
        flags: Flags::default(),
        extensions: None,
        version: 1,
        created: Timestamp::from_millis(1),
    };
    let identity = data.sign(&secret).unwrap().identity().clone();
    let registration = Registration { endpoints: List::default(), ttl: 600, listed: false };
    let signature = registration.sign(&secret, &identity, &origin().exporter);
    Request::Register(Box::new(Register { identity, registration, signature }))
}

/// Who is found when identity `number` is asked for; `None` when the store has failed.
async fn find(jobs: &Jobs, number: u64) -> Option<usize> {
    let key = IdentitySecret::generate(&mut Entropy::from_number(number)).public();
    match jobs.answer(&Question::One(key), &origin(), Clock::start().now()).await {
        Message::LookupResponse(found) => Some(found.peers.len()),
        Message::Error(error) if error.code == ErrorCode::Internal => None,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn many_waiting_requests_are_all_answered() {
    let store = Store::with_backend(InMemoryBackend::new()).unwrap();
    let storage = Storage::start(store, config(), Clock::start()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..600 {
        let jobs = storage.jobs();
        tasks.spawn(async move {
            assert!(matches!(jobs.ask(register(number), origin()).await, Message::Registered(_)));
            // Whoever was told finds himself.
            assert_eq!(find(&jobs, number).await, Some(1));
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(storage.jobs().status().await.unwrap().entries, 600);
    storage.stop().await;
}

#[tokio::test]
async fn a_store_that_fails_acknowledges_nothing_and_says_so() {
    let disk = Failing::default();
    let store = Store::with_backend(disk.clone()).unwrap();
    let mut storage = Storage::start(store, config(), Clock::start()).unwrap();
    let jobs = storage.jobs();
    assert!(matches!(jobs.ask(register(1), origin()).await, Message::Registered(_)));
    disk.writes_fail.store(true, Ordering::SeqCst);
    for number in [2, 3] {
        let Message::Error(error) = jobs.ask(register(number), origin()).await else {
            panic!("a registration was acknowledged that is not on disk")
        };
        assert_eq!(error.code, ErrorCode::Internal);
    }
    assert!(matches!(storage.failed().await, StoreError::Database(_)));
    // Nor is it shown to anybody.
    assert_ne!(find(&jobs, 2).await, Some(1));
    drop(jobs);
    storage.stop().await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_no_answer_and_ends_the_server() {
    let disk = Failing::default();
    let store = Store::with_backend(disk.clone()).unwrap();
    let storage = Storage::start(store, config(), Clock::start()).unwrap();
    // More than the pages that are read when a store is opened.
    for number in 1..200 {
        let answer = storage.jobs().ask(register(number), origin()).await;
        assert!(matches!(answer, Message::Registered(_)));
    }
    storage.stop().await;
    // Opened anew, so that nothing of the row is in memory.
    let store = Store::with_backend(disk.clone()).unwrap();
    let mut storage = Storage::start(store, config(), Clock::start()).unwrap();
    let jobs = storage.jobs();
    assert!(jobs.published().await.is_some());
    disk.reads_fail.store(true, Ordering::SeqCst);
    assert_eq!(find(&jobs, 1).await, None);
    assert!(matches!(storage.failed().await, StoreError::Database(_)));
    drop(jobs);
    storage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_while_the_file_is_made_smaller() {
    let store = Store::with_backend(InMemoryBackend::new()).unwrap();
    let storage = Storage::start(store, config(), Clock::start()).unwrap();
    let jobs = storage.jobs();
    assert!(matches!(jobs.ask(register(1), origin()).await, Message::Registered(_)));
    let asking = Arc::new(AtomicBool::new(true));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (jobs, asking) = (jobs.clone(), Arc::clone(&asking));
        tasks.spawn(async move {
            while asking.load(Ordering::SeqCst) {
                assert_eq!(find(&jobs, 1).await, Some(1));
                tokio::task::yield_now().await;
            }
        });
    }
    // Readers hold what was published for a moment only: it can always be taken back.
    for _ in 0..20 {
        jobs.compact().await.unwrap();
    }
    asking.store(false, Ordering::SeqCst);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    drop(jobs);
    storage.stop().await;
}
