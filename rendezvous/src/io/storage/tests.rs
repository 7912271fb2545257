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
use sremp_common::wire::{List, LookupTarget, Register, Registration};

use super::*;
use crate::registry::{Admission, Limits, RegistryConfig};

/// A disk that can be told to fail.
#[derive(Debug)]
struct Failing {
    disk: InMemoryBackend,
    fails: Arc<AtomicBool>,
}

impl Failing {
    fn check(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.disk.write(offset, data)
    }
}

fn registry() -> Registry {
    let plenty = Rate { count: 1_000_000, per: Duration::from_secs(60) };
    Registry::new(RegistryConfig {
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
    })
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

fn lookup(number: u64) -> Request {
    let key = IdentitySecret::generate(&mut Entropy::from_number(number)).public();
    Request::Lookup(LookupTarget::One(key))
}

#[tokio::test]
async fn many_waiting_requests_are_all_answered() {
    let store = Store::with_backend(InMemoryBackend::new()).unwrap();
    let storage = Storage::start(store, registry(), Clock::start()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..600 {
        let jobs = storage.jobs();
        tasks.spawn(async move {
            assert!(matches!(jobs.ask(register(number), origin()).await, Message::Registered(_)));
            let answer = jobs.ask(lookup(number), origin()).await;
            let Message::LookupResponse(found) = answer else { panic!("{answer:?}") };
            assert_eq!(found.peers.len(), 1);
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
    let fails = Arc::new(AtomicBool::new(false));
    let disk = Failing { disk: InMemoryBackend::new(), fails: Arc::clone(&fails) };
    let store = Store::with_backend(disk).unwrap();
    let mut storage = Storage::start(store, registry(), Clock::start()).unwrap();
    let jobs = storage.jobs();
    assert!(matches!(jobs.ask(register(1), origin()).await, Message::Registered(_)));
    fails.store(true, Ordering::SeqCst);
    for number in [2, 3] {
        let Message::Error(error) = jobs.ask(register(number), origin()).await else {
            panic!("a registration was acknowledged that is not on disk")
        };
        assert_eq!(error.code, ErrorCode::Internal);
    }
    assert!(matches!(storage.failed().await, StoreError::Database(_)));
    drop(jobs);
    storage.stop().await;
}
