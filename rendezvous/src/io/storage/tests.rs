//! The thread answers after the commit, and a store that fails ends it without a false answer.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use sremp_common::entropy::Entropy;
use sremp_common::id::SoughtKey;
use sremp_common::identity::{Flags, IdentityData};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::rate::Rate;
use sremp_common::time::Timestamp;
use sremp_common::wire::{List, Register, Registration};

use super::thread::FULL_RETRY;
use super::*;
use crate::registry::{Admission, Limits};

/// A disk that can be told to fail. Clones are the same disk.
#[derive(Clone, Debug, Default)]
struct Failing {
    disk: Arc<InMemoryBackend>,
    writes_fail: Arc<AtomicBool>,
    reads_fail: Arc<AtomicBool>,
    is_full: Arc<AtomicBool>,
}

fn check(fails: &AtomicBool, how: io::ErrorKind) -> io::Result<()> {
    if fails.load(Ordering::SeqCst) { Err(how.into()) } else { Ok(()) }
}

impl Failing {
    fn check_write(&self) -> io::Result<()> {
        check(&self.is_full, io::ErrorKind::StorageFull)?;
        check(&self.writes_fail, io::ErrorKind::Other)
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        check(&self.reads_fail, io::ErrorKind::Other)?;
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_write()?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check_write()?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write()?;
        self.disk.write(offset, data)
    }
}

fn config() -> RegistryConfig {
    let plenty = Rate { count: 1_000_000, per: Duration::from_secs(60) };
    RegistryConfig {
        max_entries: 10_000,
        max_bytes: 1 << 30,
        min_free_bytes: 1 << 20,
        listing: true,
        servers: List::default(),
        admission: Admission::Everybody,
        banned: BTreeSet::new(),
        allow_private_endpoints: false,
        limits: Limits {
            registrations: plenty,
            registrations_of_identity: plenty,
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
    Request::Register(Box::new(Register { identity, registration, signature, invite: None }))
}

/// What is read is read from the disk.
const UNCACHED: StoreOptions = StoreOptions { cache_bytes: 0 };

/// Starts a thread over a disk.
fn start(disk: &Failing) -> Storage {
    let disk = disk.clone();
    let mut home = Home {
        open: Box::new(move || Store::with_backend(disk.clone(), UNCACHED)),
        free: Box::new(|| None),
    };
    let store = (home.open)().unwrap();
    Storage::start(store, home, config(), Clock::start()).unwrap()
}

/// Who is found when identity `number` is asked for; `None` when the store has failed.
async fn find(jobs: &Jobs, number: u64) -> Option<usize> {
    let key = IdentitySecret::generate(&mut Entropy::from_number(number)).public();
    let question = Question::One(SoughtKey::of(&key));
    let answer = jobs.answer(&question, &origin(), Clock::start().now()).await;
    if let Message::LookupResponse(found) = answer {
        return Some(found.peers.len());
    }
    assert!(matches!(&answer, Message::Error(error) if error.code == ErrorCode::Internal));
    None
}

#[tokio::test]
async fn many_waiting_requests_are_all_answered() {
    let storage = start(&Failing::default());
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
    let mut storage = start(&disk);
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
    let mut storage = start(&disk);
    let jobs = storage.jobs();
    // More than the page that an open table holds on to.
    for number in 0..100 {
        let answer = jobs.ask(register(number), origin()).await;
        assert!(matches!(answer, Message::Registered(_)));
    }
    assert_eq!(find(&jobs, 1).await, Some(1));
    disk.reads_fail.store(true, Ordering::SeqCst);
    assert_eq!(find(&jobs, 1).await, None);
    assert!(matches!(storage.failed().await, StoreError::Database(_)));
    drop(jobs);
    storage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_while_the_file_is_made_smaller() {
    let storage = start(&Failing::default());
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

#[tokio::test]
async fn l02_a_full_disk_loses_nothing_answers_questions_and_passes() {
    let disk = Failing::default();
    let storage = start(&disk);
    let jobs = storage.jobs();
    assert!(matches!(jobs.ask(register(1), origin()).await, Message::Registered(_)));
    disk.is_full.store(true, Ordering::SeqCst);
    // The batch that meets the end of the disk fails; what comes then is refused with a hint.
    assert!(matches!(jobs.ask(register(2), origin()).await, Message::Error(_)));
    disk.is_full.store(false, Ordering::SeqCst);
    let Message::Error(error) = jobs.ask(register(3), origin()).await else { panic!() };
    assert_eq!((error.code, error.retry_after), (ErrorCode::Unavailable, Some(FULL_RETRY)));
    // Whoever was acknowledged is found all the time, and nobody else.
    for (number, found) in [(1, 1), (2, 0), (3, 0)] {
        assert_eq!(find(&jobs, number).await, Some(found));
    }
    drop(jobs);
    storage.stop().await;
    // Where there is room again, everybody is taken again.
    let storage = start(&disk);
    let jobs = storage.jobs();
    assert_eq!(find(&jobs, 1).await, Some(1));
    assert!(matches!(jobs.ask(register(2), origin()).await, Message::Registered(_)));
    drop(jobs);
    storage.stop().await;
}
