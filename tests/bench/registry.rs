//! A rendezvous server's start and memory: what an idle one takes, and how soon one is back after a
//! kill with a full registry. The server is a process of its own, the program as it is shipped.
//!
//! The registry is filled beforehand, by the server's own rules and store but without its network:
//! identities with a picture of 16 KiB, until there are as many bytes as wanted.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sremp_common::entropy::Entropy;
use sremp_common::identity::{Extensions, Flags, IdentityData};
use sremp_common::io::Clock;
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::time::Now;
use sremp_common::wire::{Bin, List, Message, Register, Registration};
use sremp_rendezvous::config::Config;
use sremp_rendezvous::registry::{Origin, Registry, Request};
use sremp_rendezvous::store::{Store, StoreOptions};

use super::figure::{Report, Target, millis};
use super::memory::{Process, beside, text};
use super::{Effort, progress};

/// Bytes of a picture: as many as one may have.
const PICTURE: usize = 16 * 1024;
/// Identities of one transaction.
const BATCH: u64 = 256;
/// Time in which a process comes to rest.
const REST: Duration = Duration::from_secs(1);
const MIB: u64 = 1024 * 1024;

pub fn measure(report: &mut Report, effort: Effort) {
    let directory = tempfile::tempdir().unwrap();
    let (certs, empty) = (directory.path().join("certs"), directory.path().join("empty"));
    let made = Command::new(beside("sremp-rendezvous"))
        .args(["dev-cert", text(&certs), "127.0.0.1"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    progress("memory of the rendezvous server");
    let idle: Vec<f64> = (0..effort.rounds).map(|_| idle_mib(&empty, &certs)).collect();
    report.add("rendezvous: memory when idle", "MiB", &idle, Some(Target::AtMost(20.0)));

    progress("the rendezvous server after a kill");
    let full = directory.path().join("full");
    let stored = fill(&full, effort.stored_mib * MIB) / MIB;
    let (mut ready, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let (process, _) = start(&full, &certs);
        write_something(&full);
        // Killed when it is dropped.
        drop(process);
        let (process, took) = start(&full, &certs);
        ready.push(took);
        thread::sleep(REST);
        memory.push(process.resident() / MIB as f64);
    }
    let name = format!("rendezvous: ready after a kill with {stored} MiB");
    report.add(&name, "ms", &ready, Some(Target::AtMost(2_000.0)));
    report.add("  memory then", "MiB", &memory, None);
}

/// Starts a server; the milliseconds until it is ready.
fn start(data: &Path, certs: &Path) -> (Process, f64) {
    let (cert, key) = (certs.join("cert.pem"), certs.join("key.pem"));
    let (place, certificate) = (["--data", text(data)], ["--cert", text(&cert)]);
    let run = ["--json", "run", "--listen", "127.0.0.1:0", "--key", text(&key)];
    let began = Instant::now();
    let (process, _) =
        Process::start("sremp-rendezvous", &[&run[..], &place, &certificate].concat());
    (process, millis(began.elapsed()))
}

fn idle_mib(data: &Path, certs: &Path) -> f64 {
    let (process, _) = start(data, certs);
    thread::sleep(REST);
    process.resident() / MIB as f64
}

/// One more durable change, so that the file is not as it was opened.
fn write_something(data: &Path) {
    let made = Command::new(beside("sremp-rendezvous"))
        .args(["invite", "new", "--data", text(data)])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
}

/// A registry in `data` with so many bytes of entries; how many they are.
fn fill(data: &Path, bytes: u64) -> u64 {
    DirBuilder::new().mode(0o700).create(data).unwrap();
    let mut config = Config::default();
    config.registry.max_bytes = bytes;
    let limits = &mut config.limits;
    limits.identities_per_network = u64::MAX;
    limits.registrations_per_minute = 1_000_000;
    limits.new_identities_per_hour = 1_000_000;
    let mut registry = Registry::new(Arc::new(config.registry().unwrap()));
    let options = StoreOptions { cache_bytes: 16 << 20 };
    let store = Store::open(&data.join("registry.redb"), options).unwrap();
    let origin = Origin { address: "192.0.2.1:1".parse().unwrap(), exporter: [0; 32] };
    let now = Clock::start().now();
    let mut number = 0;
    loop {
        let is_full = store
            .batch(|rows| {
                for _ in 0..BATCH {
                    let request = Request::Register(Box::new(register(number, &origin, now)));
                    let answer = registry.handle(rows, &request, &origin, now)?;
                    if matches!(answer, Message::Error(_)) {
                        return Ok(true);
                    }
                    number += 1;
                }
                Ok(false)
            })
            .unwrap();
        if is_full {
            return store.batch(|rows| registry.status(rows)).unwrap().bytes;
        }
    }
}

fn register(number: u64, origin: &Origin, now: Now) -> Register {
    let secret = IdentitySecret::generate(&mut Entropy::from_number(number));
    // Not all the same, so that nobody can say that it packs well.
    let picture = (0..PICTURE).map(|place| (place as u64 ^ number) as u8).collect();
    let data = IdentityData {
        username: Username::new("Somebody").unwrap(),
        identity_key: secret.public(),
        noise_key: NoiseSecret::generate(&mut Entropy::from_number(number)).public(),
        flags: Flags::default(),
        extensions: Some(Extensions {
            profile_picture: Some(Bin::new(picture).unwrap()),
            additional_metadata: None,
        }),
        version: 1,
        created: now.wall,
    };
    let identity = data.sign(&secret).unwrap().identity().clone();
    let endpoints = List::new(vec!["198.51.100.7:7330".parse().unwrap()]).unwrap();
    let registration = Registration { endpoints, ttl: 86_400, listed: true };
    let signature = registration.sign(&secret, &identity, &origin.exporter);
    Register { identity, registration, signature, invite: None }
}
