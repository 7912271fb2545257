//! A load generator: `load ADDRESS LINK SENDERS SECONDS [BYTES]`. Each sender has one store under
//! way to an owner of its own, who reads and acknowledges it; the cycles of all are counted.
//! `load ADDRESS LINK idle OWNERS SECONDS`: owners read their empty mailboxes and do nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    dead_code,
    reason = "a tool for measuring, not part of the program"
)]

#[path = "../../tests/it/relay_client.rs"]
mod relay_client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use relay_client::{Client, person, token_of};
use sremp_common::id::IdentityKey;
use sremp_common::text::decode_relay_link;
use sremp_common::wire::{Admission, Recipient};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments[0].parse().unwrap();
    let relay = decode_relay_link(&arguments[1]).unwrap().identity_key;
    if arguments[2] == "idle" {
        return idle(address, relay, arguments[3].parse().unwrap(), &arguments[4]).await;
    }
    let senders: u64 = arguments[2].parse().unwrap();
    let seconds: u64 = arguments[3].parse().unwrap();
    let bytes: usize = arguments.get(4).map_or(1024, |bytes| bytes.parse().unwrap());
    let run = u64::from(std::process::id()) << 32;

    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    let mut latencies = Vec::new();
    for number in 1..=senders {
        let (told, mut delivered) = mpsc::channel::<()>(1);
        let mut owner =
            Client::dial(address, relay, person(number), false, run + number).await.unwrap();
        owner.open_mailbox(number, 1 << 20).await.unwrap();
        assert!(owner.batch().await.unwrap().messages.len() < 2);
        tasks.push(tokio::spawn(async move {
            while let Ok(batch) = owner.batch().await {
                owner.acknowledge(&batch).await.unwrap();
                for _ in batch.messages.iter() {
                    if told.send(()).await.is_err() {
                        return Vec::new();
                    }
                }
            }
            Vec::new()
        }));
        let seed = run + (1 << 20) + number;
        let mut sender = Client::dial(address, relay, person(0), true, seed).await.unwrap();
        let (count, stop) = (Arc::clone(&count), Arc::clone(&stop));
        let identity_key = person(number).identity.key();
        let recipient = Recipient { identity_key, admission: Admission::Token(token_of(number)) };
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            let mut blob = vec![7; bytes];
            let mut cycle = run;
            while !stop.load(Ordering::Relaxed) {
                cycle += 1;
                blob[..8].copy_from_slice(&cycle.to_le_bytes());
                let began = Instant::now();
                let result = sender.store_for(recipient, blob.clone()).await.unwrap();
                assert!(result.refused.is_none(), "{result:?}");
                delivered.recv().await.unwrap();
                latencies.push(began.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            latencies
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cycles = count.load(Ordering::Relaxed) - before;
    let elapsed = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    for (number, task) in tasks.into_iter().enumerate() {
        // Owners wait for ever.
        if number % 2 == 1 {
            latencies.extend(task.await.unwrap());
        }
    }
    latencies.sort();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    println!(
        "{:.0} cycles/s, p50 {:?}, p90 {:?}, p99 {:?}",
        f64::from(u32::try_from(cycles).unwrap()) / elapsed.as_secs_f64(),
        at(50),
        at(90),
        at(99)
    );
}

async fn idle(address: SocketAddr, relay: IdentityKey, owners: u64, seconds: &str) {
    let mut clients = Vec::new();
    for number in 1..=owners {
        let owner = Client::dial(address, relay, person(number), false, number).await;
        let mut owner = owner.unwrap();
        owner.open_mailbox(number, 1 << 20).await.unwrap();
        owner.batch().await.unwrap();
        clients.push(owner);
    }
    println!("{owners} owners are idle");
    tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
}
