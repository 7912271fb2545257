//! Cycles at a relay: a sender stores a blob, the relay commits and pushes it, its owner
//! acknowledges it. Each sender has one under way at a time. The relay is the whole server with a
//! data file on disk; clients speak to it over TCP and Noise, in the same process.

#[path = "../it/relay_client.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
pub mod relay_client;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use relay_client::{Client, person, token_of};
use sremp_common::id::IdentityKey;
use sremp_common::io::lifecycle::Lifecycle;
use sremp_common::wire::{Admission, Recipient};
use sremp_relay::config::Config;
use sremp_relay::io::Server;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::figure::{Report, Target, millis, percentile};
use super::{Effort, progress};

/// Bytes of a blob.
const BLOB: usize = 1024;
/// Unmeasured time after the start.
const WARM_UP: Duration = Duration::from_millis(300);

pub fn measure(report: &mut Report, effort: Effort) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (senders, target) in [(1, None), (16, None), (64, Some(Target::AtLeast(5000.0)))] {
        progress(&format!("the relay with {senders} senders"));
        let rounds = runtime.block_on(measure_senders(senders, effort));
        let name = format!("relay: store, deliver, acknowledge; {senders} senders");
        let column = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
        report.add(&name, "cycles/s", &column(|round| round.rate), target);
        report.add("  p50 of a cycle", "ms", &column(|round| round.p50), None);
        report.add("  p99 of a cycle", "ms", &column(|round| round.p99), None);
    }
}

struct Round {
    rate: f64,
    p50: f64,
    p99: f64,
}

type Times = Arc<Mutex<Vec<Duration>>>;

async fn measure_senders(senders: u64, effort: Effort) -> Vec<Round> {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.max_connections_per_network = config.server.max_connections;
    // All clients have one address.
    config.network.arrivals_per_minute = 1_000_000;
    config.rates.new_mailboxes_per_hour = 0;
    config.rates.stores_per_minute = 0;
    let (life, _wishes) = Lifecycle::new();
    let server = Server::start(&config, directory.path(), life.clone()).await.unwrap();
    let (address, relay) = (server.ready().listening, server.ready().id);
    let server = tokio::spawn(server.run());

    let times = Times::default();
    let mut tasks = Vec::new();
    for number in 1..=senders {
        tasks.extend(start_pair(address, relay, number, &times).await);
    }
    tokio::time::sleep(WARM_UP).await;
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        times.lock().unwrap().clear();
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(effort.relay_ms)).await;
        let mut times = std::mem::take(&mut *times.lock().unwrap());
        rounds.push(Round {
            rate: times.len() as f64 / began.elapsed().as_secs_f64(),
            p50: millis(percentile(&mut times, 50)),
            p99: millis(percentile(&mut times, 99)),
        });
    }
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
    life.stop();
    server.await.unwrap().unwrap();
    rounds
}

/// Starts an owner who reads and acknowledges, and a sender who stores the next blob when the one
/// before has arrived.
async fn start_pair(
    address: SocketAddr,
    relay: IdentityKey,
    number: u64,
    times: &Times,
) -> [JoinHandle<()>; 2] {
    let (told, mut arrived) = mpsc::channel::<()>(1);
    let mut owner = Client::dial(address, relay, person(number), false, number).await.unwrap();
    owner.open_mailbox(number, 1 << 20).await.unwrap();
    let owning = tokio::spawn(async move {
        while let Ok(batch) = owner.batch().await {
            if batch.messages.is_empty() {
                continue;
            }
            owner.acknowledge(&batch).await.unwrap();
            for _ in batch.messages.iter() {
                if told.send(()).await.is_err() {
                    return;
                }
            }
        }
    });
    let seed = number + 1_000_000;
    let mut sender = Client::dial(address, relay, person(0), true, seed).await.unwrap();
    let identity_key = person(number).identity.key();
    let recipient = Recipient { identity_key, admission: Admission::Token(token_of(number)) };
    let times = Arc::clone(times);
    let sending = tokio::spawn(async move {
        let mut blob = vec![7; BLOB];
        for cycle in 0_u64.. {
            blob[..8].copy_from_slice(&cycle.to_le_bytes());
            let began = Instant::now();
            let result = sender.store_for(recipient, blob.clone()).await.unwrap();
            assert!(result.refused.is_none(), "{result:?}");
            if arrived.recv().await.is_none() {
                return;
            }
            times.lock().unwrap().push(began.elapsed());
        }
    });
    [owning, sending]
}
